/* frontend/explain/diff.c - what another plan does otherwise: sizes, layers by node name (equal changes told once), collectives. Start with
 * explain_diff.
 */
#include "frontend/explain/explain.h"

/* One way in which layers changed. */
struct change {
    const struct told_layer *from, *to; /* of the first layer; NULL: the other plan lacks it */
    uint32_t count;
};
typedef LIST(struct change) change_list;

static void put_number(struct text *out, const char *what, const char *a, const char *b)
{
    if (strcmp(a, b) != 0) {
        text_printf(out, "%s: %s -> %s\n", what, a, b);
    }
}

static double heaviest(const struct document *d, bool activations)
{
    double most = 0;
    for (uint32_t k = 0; k < d->ranks; k++) {
        double x = activations ? d->memory[k].activations : d->memory[k].weights;
        most = x > most ? x : most;
    }
    return most;
}

static void put_costs(const struct document *a, const struct document *b, struct text *out)
{
    struct arena *m = a->arena;
    put_number(out, "model", a->model, b->model);
    put_number(out, "ranks", a->mesh, b->mesh);
    put_number(out, "weights per rank, at most", bytes_text(m, heaviest(a, false)), bytes_text(m, heaviest(b, false)));
    put_number(out, "activations per rank, at most", bytes_text(m, heaviest(a, true)),
               bytes_text(m, heaviest(b, true)));
    put_number(out, "predicted time", arena_printf(m, "%.4g us", a->seconds * 1e6),
               arena_printf(m, "%.4g us", b->seconds * 1e6));
    put_number(out, "collectives", arena_printf(m, "%u", a->collective_count),
               arena_printf(m, "%u", b->collective_count));
    put_number(out, "bytes in collectives", bytes_text(m, a->collective_bytes), bytes_text(m, b->collective_bytes));
    put_number(out, "at", a->nominal, b->nominal);
}

/* "column [96/4 x 8, 96]" */
static const char *look(struct arena *arena, const struct told_layer *l)
{
    return l == NULL ? "absent" : arena_printf(arena, "%s %s", l->style, l->placement);
}

static void note(struct document const *a, change_list *changes, struct map *seen, const struct told_layer *from,
                 const struct told_layer *to)
{
    const struct told_layer *either = from == NULL ? to : from;
    const char *key = arena_printf(a->arena, "%s|%s|%u", look(a->arena, from), look(a->arena, to), either->kind);
    bool added;
    uint32_t *at = map_put(seen, key, strlen(key), &added);
    if (added) {
        *PUSH(a->arena, changes) = (struct change){from, to, 0};
        *at = changes->count - 1;
    }
    changes->at[*at].count++;
}

/* Nodes' names, which may occur several times: the K-th of a name stands for the K-th. */
static const char *key_of(struct arena *arena, struct map *times, const char *node)
{
    uint32_t *n = map_put(times, node, strlen(node), NULL);
    return arena_printf(arena, "%u %s", (*n)++, node);
}

static void compare_layers(const struct document *a, const struct document *b, change_list *changes)
{
    struct map in_a = {.arena = a->arena}, seen = {.arena = a->arena};
    struct map times_a = {.arena = a->arena}, times_b = {.arena = a->arena};
    bool *met = NEW_ARRAY(a->arena, bool, a->layer_count + 1);
    for (uint32_t i = 0; i < a->layer_count; i++) {
        const char *key = key_of(a->arena, &times_a, a->layer[i].node);
        *map_put(&in_a, key, strlen(key), NULL) = i;
    }
    for (uint32_t i = 0; i < b->layer_count; i++) {
        const char *key = key_of(a->arena, &times_b, b->layer[i].node);
        const uint32_t *at = map_find(&in_a, key, strlen(key));
        const struct told_layer *to = &b->layer[i], *from = at == NULL ? NULL : &a->layer[*at];
        if (from != NULL) {
            met[*at] = true;
        }
        if (from == NULL || strcmp(from->style, to->style) != 0 || strcmp(from->placement, to->placement) != 0) {
            note(a, changes, &seen, from, to);
        }
    }
    for (uint32_t i = 0; i < a->layer_count; i++) {
        if (!met[i]) {
            note(a, changes, &seen, &a->layer[i], NULL);
        }
    }
}

void explain_diff(const struct document *a, const struct document *b, struct text *out)
{
    change_list changes = {0};
    size_t before = out->length;
    put_costs(a, b, out);
    compare_layers(a, b, &changes);
    for (uint32_t i = 0; i < changes.count; i++) {
        const struct change *c = &changes.at[i];
        const struct told_layer *either = c->from == NULL ? c->to : c->from;
        text_printf(out, "%u x %s: %s -> %s\n", c->count, either->node, look(a->arena, c->from), look(a->arena, c->to));
        if (c->to != NULL) {
            text_printf(out, "    now: %s\n", c->to->reason);
        }
    }
    if (out->length == before) {
        text_put(out, "the plans do the same\n");
    }
}
