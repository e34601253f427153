/* frontend/explain/fold.c - runs of equal blocks told once: layers by kind, the shortest period that covers most is taken, from the front.
 *
 * Invariant: folds follow one another without gaps, and every layer is in one. Start with fold_layers.
 */
#include "frontend/explain/explain.h"

enum { LONGEST_PERIOD = 256 };

static bool same(const struct document *d, uint32_t a, uint32_t b)
{
    return d->layer[a].kind == d->layer[b].kind && strcmp(d->layer[a].style, d->layer[b].style) == 0;
}

/* How many times the layers [first, first + period) occur from `first` on. */
static uint32_t repeats(const struct document *d, uint32_t first, uint32_t period)
{
    uint32_t at = first + period;
    while (at < d->layer_count && same(d, at, at - period)) {
        at++;
    }
    return (at - first) / period;
}

/* The run from `first` on that covers most; of equal ones the shortest period. Without a repetition: one layer. */
static struct fold best_fold(const struct document *d, uint32_t first)
{
    struct fold best = {first, 1, 1};
    uint32_t left = d->layer_count - first, most = left / 2 < LONGEST_PERIOD ? left / 2 : LONGEST_PERIOD;
    for (uint32_t period = 1; period <= most; period++) {
        uint32_t n = repeats(d, first, period);
        if (n > 1 && n * period > best.repeat * best.period) {
            best = (struct fold){first, period, n};
        }
    }
    return best;
}

fold_list fold_layers(const struct document *d)
{
    fold_list out = {0};
    for (uint32_t at = 0; at < d->layer_count;) {
        struct fold f = best_fold(d, at);
        *PUSH(d->arena, &out) = f;
        at += f.period * f.repeat;
    }
    return out;
}

const char *told_node(const struct told_layer *l)
{
    return l->node;
}

const char *told_weight(const struct told_layer *l)
{
    return l->weight;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

const char *fold_name(const struct document *d, const struct fold *f, uint32_t at,
                      const char *(*name)(const struct told_layer *))
{
    const char *first = name(&d->layer[f->first + at]);
    size_t head = strlen(first), tail = head;
    bool differ = false;
    for (uint32_t i = 1; i < f->repeat; i++) {
        const char *other = name(&d->layer[f->first + i * f->period + at]);
        size_t n = strlen(other), a = 0, b = 0;
        while (a < least(head, n) && first[a] == other[a]) {
            a++;
        }
        while (b < least(tail, n) && first[strlen(first) - 1 - b] == other[n - 1 - b]) {
            b++;
        }
        differ = differ || strcmp(first, other) != 0;
        head = a;
        tail = b;
    }
    if (!differ) {
        return first;
    }
    tail = least(tail, strlen(first) - head);
    return arena_printf(d->arena, "%.*s*%s", (int)head, first, first + strlen(first) - tail);
}
