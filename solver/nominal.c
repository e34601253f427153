/* solver/nominal.c - the extents that costs and reports assume for a model's symbols, at prefill and at decode.
 *
 * What is not given: a batch (the first axis of an input that has others) is 1; every other symbol is 512 at prefill and 1 at decode, the past too, so that states
 * weigh next to nothing unless somebody says how long they are. (At 512 the caches of a tiny model outweigh its weights, and are cut where nobody
 * would cut them.) A symbol that a guard has made an expression of others has that expression's value. Start with nominal_dims.
 */
#include "solver/internal.h"

enum { NOMINAL_EXTENT = 512 };

static bool is_batch(const struct graph *g, uint32_t symbol)
{
    for (uint32_t i = 0; i < g->inputs.count; i++) {
        const struct node *n = graph_node(g, g->inputs.at[i].value);
        if (n->rank >= 2 && n->shape[0] == dim_of_symbol(g->dims, symbol))
            return true;
    }
    return false;
}

static int64_t assumed(const struct graph *g, uint32_t symbol, int phase)
{
    return is_batch(g, symbol) || phase == NOMINAL_DECODE ? 1 : NOMINAL_EXTENT;
}

static bool is_free(const struct symbol *s)
{
    return s->kind == SYMBOL_INPUT && !dim_valid(s->equal);
}

static const char *free_symbols(const struct graph *g, struct arena *arena)
{
    struct text t = {.arena = arena};
    for (uint32_t i = 0; i < dims_symbol_count(g->dims); i++)
        if (is_free(dims_symbol(g->dims, i)))
            text_printf(&t, "%s%s", t.length ? ", " : "", dims_symbol(g->dims, i)->name);
    return t.length ? t.at : "none";
}

static status check_given(const struct graph *g, const struct nominal *n, struct arena *arena, struct diag *diag)
{
    for (uint32_t i = 0; i < dims_symbol_count(g->dims); i++) {
        const struct symbol *s = dims_symbol(g->dims, i);
        if (!is_free(s) || strcmp(s->name, n->symbol) != 0)
            continue;
        for (int phase = 0; phase < NOMINAL_PHASES; phase++)
            if (n->value[phase] < s->lower || n->value[phase] > s->upper)
                return diag_error(diag, TPC_USAGE, g->model_path,
                                  "nominal %s: %lld is outside of what the model allows, %lld to %lld", n->symbol,
                                  (long long)n->value[phase], (long long)s->lower, (long long)s->upper);
        return TPC_OK;
    }
    return diag_error(diag, TPC_USAGE, g->model_path, "nominal %s: the model has no such symbol (it has: %s)",
                      n->symbol, free_symbols(g, arena));
}

static int64_t value_of(const struct graph *g, const struct solve_options *o, uint32_t symbol, int phase)
{
    const struct symbol *s = dims_symbol(g->dims, symbol);
    if (s->kind != SYMBOL_INPUT)
        return 0;
    int64_t x = assumed(g, symbol, phase);
    for (uint32_t i = 0; i < o->nominal_count; i++)
        if (!strcmp(s->name, o->nominal[i].symbol))
            x = o->nominal[i].value[phase];
    x = x < s->lower ? s->lower : x;
    return x > s->upper ? s->upper : x;
}

status nominal_dims(const struct graph *g, const struct solve_options *o, struct arena *arena, struct diag *diag,
                    int64_t *of[NOMINAL_PHASES])
{
    uint32_t count = dims_symbol_count(g->dims);
    for (uint32_t i = 0; i < o->nominal_count; i++) {
        status s = check_given(g, &o->nominal[i], arena, diag);
        if (s != TPC_OK)
            return s;
    }
    for (int phase = 0; phase < NOMINAL_PHASES; phase++) {
        of[phase] = NEW_ARRAY(arena, int64_t, count + 1);
        for (uint32_t i = 0; i < count; i++)
            of[phase][i] = value_of(g, o, i, phase);
        for (uint32_t i = 0; i < count; i++) { /* what a guard has made of a symbol */
            const struct symbol *s = dims_symbol(g->dims, i);
            if (dim_valid(s->equal) && !dim_eval(g->dims, dim_resolve(g->dims, s->equal), of[phase], &of[phase][i]))
                of[phase][i] = 0;
        }
    }
    return TPC_OK;
}
