/* frontend/explain/summary.c - a plan on one page: sizes, then every kind of layer once, equal blocks folded. Start with explain_summary. */
#include "frontend/explain/explain.h"

const char *bytes_text(struct arena *arena, double bytes)
{
    static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    uint32_t u = 0;
    double size = bytes < 0 ? -bytes : bytes;
    for (; size >= 1024 && u < 4; size /= 1024) {
        u++;
    }
    return arena_printf(arena, u == 0 ? "%s%.0f %s" : "%s%.1f %s", bytes < 0 ? "-" : "", size, unit[u]);
}

static void put_sizes(const struct document *d, struct text *out)
{
    double least = 0, most = 0, activations = 0;
    for (uint32_t k = 0; k < d->ranks; k++) {
        double w = d->memory[k].weights;
        least = k == 0 || w < least ? w : least;
        most = w > most ? w : most;
        activations = d->memory[k].activations > activations ? d->memory[k].activations : activations;
    }
    text_printf(out, "per rank: weights %s", bytes_text(d->arena, least));
    if (least != most) {
        text_printf(out, " to %s", bytes_text(d->arena, most));
    }
    text_printf(out, ", activations %s%s%s\n", bytes_text(d->arena, activations), d->nominal[0] == 0 ? "" : " at ",
                d->nominal);
}

/* "all_reduce 8.0 MiB" of what a layer causes; equal kinds are added up. */
static void put_collectives(const struct document *d, const struct told_layer *l, struct text *out)
{
    for (uint32_t i = 0; i < l->collective_count; i++) {
        const char *kind = d->collective[l->collective[i]].kind;
        double bytes = 0;
        uint32_t count = 0, earlier = 0, shared = d->collective[l->collective[i]].layer_count;
        for (uint32_t k = 0; k < l->collective_count; k++) {
            const struct told_collective *c = &d->collective[l->collective[k]];
            bool equal = strcmp(c->kind, kind) == 0;
            earlier += equal && k < i;
            count += equal;
            bytes += equal ? c->bytes : 0;
        }
        if (earlier == 0) {
            text_printf(out, "  + %s%s %s%s", count > 1 ? arena_printf(d->arena, "%u ", count) : "", kind,
                        bytes_text(d->arena, bytes),
                        shared > 1 ? arena_printf(d->arena, " (one for %u layers)", shared) : "");
        }
    }
}

static void put_layer(const struct document *d, const struct fold *f, uint32_t at, struct text *out)
{
    const struct told_layer *l = &d->layer[f->first + at];
    double most = 0;
    for (uint32_t k = 0; l->bytes != NULL && k < d->ranks; k++) {
        most = l->bytes[k] > most ? l->bytes[k] : most;
    }
    text_printf(out, "  %-13s %-30s", l->style, l->placement);
    if (l->bytes != NULL) {
        text_printf(out, " %s of %s", bytes_text(d->arena, most), bytes_text(d->arena, l->whole_bytes));
    }
    put_collectives(d, l, out);
    text_printf(out, "\n  %-13s   %s", "", fold_name(d, f, at, told_node));
    if (strcmp(l->weight, "-") != 0) {
        text_printf(out, ", weight %s", fold_name(d, f, at, told_weight));
    }
    text_put(out, "\n");
}

static void put_totals(const struct document *d, struct text *out)
{
    text_printf(out, "collectives: %u, %s in buffers per run", d->collective_count,
                bytes_text(d->arena, d->collective_bytes));
    if (d->collective_count == 0) {
        text_put(out, " (the ranks need nothing of each other)");
    }
    text_put(out, "\n");
}

void explain_summary(const struct document *d, struct text *out)
{
    fold_list folds = fold_layers(d);
    text_printf(out, "%s over %s\n", d->model, d->mesh);
    if (d->note != NULL) {
        text_printf(out, "note: %s\n", d->note);
    }
    put_sizes(d, out);
    for (uint32_t i = 0; i < folds.count; i++) {
        const struct fold *f = &folds.at[i];
        if (f->repeat > 1) {
            text_printf(out, "%u x block of %u\n", f->repeat, f->period);
        } else if (i == 0 || folds.at[i - 1].repeat > 1) {
            text_put(out, "once\n");
        }
        for (uint32_t at = 0; at < f->period; at++) {
            put_layer(d, f, at, out);
        }
    }
    put_totals(d, out);
}
