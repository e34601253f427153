/* frontend/explain/dot.c - the folded graph as Graphviz text: a box per kind of region, an arrow per kind of layer that leads from one to another.
 *
 * Nothing of the model reaches the text unquoted. Start with explain_dot.
 */
#include "frontend/explain/explain.h"

struct colour {
    const char *style, *colour;
};
static const struct colour colours[] = {{"column", "#2b6cb0"},        {"row", "#c05621"},
                                        {"vocabulary", "#6b46c1"},    {"feature", "#2c7a7b"},
                                        {"cross_entropy", "#97266d"}, {"replicated", "#718096"}};

static const char *colour_of(const char *style)
{
    for (size_t i = 0; i < sizeof colours / sizeof colours[0]; i++) {
        if (strcmp(colours[i].style, style) == 0) {
            return colours[i].colour;
        }
    }
    return "#718096";
}

static void put_quoted(struct text *out, const char *text)
{
    text_put(out, "\"");
    for (; *text != 0; text++) {
        if (*text == '\n') {
            text_put(out, "\\n");
            continue;
        }
        if (*text == '"' || *text == '\\') {
            text_put(out, "\\");
        }
        text_putn(out, text, 1);
    }
    text_put(out, "\"");
}

/* A box per kind of region; its number is that of the first such region. Returns it per region. */
static uint32_t *put_regions(const struct document *d, struct text *out)
{
    struct map kinds = {.arena = d->arena};
    uint32_t *box = NEW_ARRAY(d->arena, uint32_t, d->region_count + 1);
    uint32_t *count = NEW_ARRAY(d->arena, uint32_t, d->region_count + 1);
    for (uint32_t r = 1; r <= d->region_count; r++) {
        bool added;
        uint32_t *first = map_put(&kinds, &d->region[r], sizeof d->region[r], &added);
        *first = added ? r : *first;
        box[r] = *first;
        count[*first]++;
    }
    text_put(out, "    r0 [label=\"inputs\", shape=plaintext];\n");
    for (uint32_t r = 1; r <= d->region_count; r++) {
        if (box[r] == r) {
            text_printf(out, "    r%u [label=\"%u x region %u\"];\n", r, count[r], r);
        }
    }
    return box;
}

static const char *label_of(const struct document *d, const struct told_layer *l, uint32_t count)
{
    struct text t = {.arena = d->arena};
    text_printf(&t, "%u x %s %s", count, l->style, l->placement);
    for (uint32_t i = 0; i < l->collective_count; i++) {
        const struct told_collective *c = &d->collective[l->collective[i]];
        text_printf(&t, "\n%s %s", c->kind, bytes_text(d->arena, c->bytes));
    }
    return t.at;
}

void explain_dot(const struct document *d, struct text *out)
{
    text_put(out, "digraph plan {\n    rankdir=TB;\n    node [shape=box, style=rounded, fontname=\"sans-serif\"];\n"
                  "    edge [fontname=\"sans-serif\", fontsize=10];\n    label=");
    put_quoted(out, arena_printf(d->arena, "%s over %s", d->model, d->mesh));
    text_put(out, ";\n");
    uint32_t *box = put_regions(d, out);
    struct map kinds = {.arena = d->arena};
    uint32_t *count = NEW_ARRAY(d->arena, uint32_t, d->layer_count + 1);
    LIST(uint32_t) first = {0};
    for (uint32_t i = 0; i < d->layer_count; i++) {
        const struct told_layer *l = &d->layer[i];
        uint32_t key[3] = {l->kind, box[l->from], box[l->to]};
        bool added;
        uint32_t *at = map_put(&kinds, key, sizeof key, &added);
        if (added) {
            *PUSH(d->arena, &first) = i;
            *at = first.count - 1;
        }
        count[*at]++;
    }
    for (uint32_t i = 0; i < first.count; i++) {
        const struct told_layer *l = &d->layer[first.at[i]];
        text_printf(out, "    r%u -> r%u [color=\"%s\", fontcolor=\"%s\", label=", box[l->from], box[l->to],
                    colour_of(l->style), colour_of(l->style));
        put_quoted(out, label_of(d, l, count[i]));
        text_put(out, ", tooltip=");
        put_quoted(out, l->node);
        text_put(out, "];\n");
    }
    text_put(out, "}\n");
}
