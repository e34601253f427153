/* frontend/explain/one.c - everything that is known of one layer, or how a value lies on the ranks. Start with explain_one. */
#include "frontend/explain/explain.h"

#include <fnmatch.h>

static bool named(const char *pattern, const char *name)
{
    return strcmp(pattern, name) == 0 || fnmatch(pattern, name, 0) == 0;
}

/* " + 12.0 KiB per rank, + 3.1 us, 1 collective more" */
static void put_price(const struct document *d, const struct told_alternative *a, struct text *out)
{
    text_printf(out, "    %s%s per rank, %+.3g us, %+.0f collectives\n", a->bytes < 0 ? "" : "+",
                bytes_text(d->arena, a->bytes), a->seconds * 1e6, a->collectives);
}

static void put_stored(const struct document *d, const struct told_layer *l, struct text *out)
{
    if (l->bytes == NULL) {
        return;
    }
    text_printf(out, "  stored: %s in all; per rank", bytes_text(d->arena, l->whole_bytes));
    for (uint32_t k = 0, end; k < d->ranks; k = end) { /* equal neighbours together */
        for (end = k + 1; end < d->ranks && l->bytes[end] == l->bytes[k];) {
            end++;
        }
        text_printf(out, "%s %s", k == 0 ? "" : ",", bytes_text(d->arena, l->bytes[k]));
        if (end - k > 1) {
            text_printf(out, " (%u to %u)", k, end - 1);
        } else {
            text_printf(out, " (%u)", k);
        }
    }
    text_put(out, "\n");
}

static void put_layer(const struct document *d, const struct told_layer *l, struct text *out)
{
    text_printf(out, "%s (%s): %s\n  %s\n", l->node, l->op_type, l->style, l->reason);
    if (strcmp(l->weight, "-") != 0) {
        text_printf(out, "  weight: %s", l->weight);
        if (l->axis >= 0) {
            text_printf(out, ", cut along its axis %.0f", l->axis);
        }
        text_printf(out, "; taken as %s\n", l->placement);
    }
    put_stored(d, l, out);
    for (uint32_t i = 0; i < l->collective_count; i++) {
        const struct told_collective *c = &d->collective[l->collective[i]];
        text_printf(out, "  causes: %s of %s, %s (%s elements): %s\n", c->kind, c->value,
                    bytes_text(d->arena, c->bytes), c->elements, c->reason);
    }
    if (l->collective_count == 0) {
        text_put(out, "  causes: no collective\n");
    }
    for (uint32_t i = 0; i < l->alternative_count; i++) {
        const struct told_alternative *a = &l->alternative[i];
        text_printf(out, "  %s: %s: %s\n", a->possible ? "could be" : "cannot be", a->style, a->why);
        if (a->priced) {
            put_price(d, a, out);
        }
    }
}

bool explain_one(const struct document *d, const char *pattern, struct text *out)
{
    bool found = false;
    for (uint32_t i = 0; i < d->layer_count; i++) {
        if (named(pattern, d->layer[i].node) || named(pattern, d->layer[i].weight)) {
            put_layer(d, &d->layer[i], out);
            found = true;
        }
    }
    for (uint32_t i = 0; i < d->value_count && !found; i++) {
        const struct told_value *v = &d->value[i];
        if (strcmp(pattern, v->name) == 0) {
            text_printf(out, "%s: a value of shape %s, lies as %s\n", v->name, v->shape, v->placement);
            found = true;
        }
    }
    return found;
}
