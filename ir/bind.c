/* ir/bind.c - solves the shapes of inputs for the model's symbols. */
#include "ir/bind.h"

struct binder {
    const struct graph *graph;
    uint32_t rank;
    const struct tensor *inputs;
    struct arena *arena;
    struct diag *diag;
    int64_t *of;
    bool *known;            /* per symbol */
    uint32_t *input, *axis; /* per symbol: what bound it first, for messages */
    status result;
};

static const char *input_where(const struct binder *b, uint32_t input)
{
    const char *file = b->graph->model_path ? b->graph->model_path : "tpc";
    return arena_printf(b->arena, "%s: input '%s'", file, b->graph->inputs.at[input].name);
}

static const struct node *input_node(const struct binder *b, uint32_t input)
{
    return graph_node(b->graph, b->graph->inputs.at[input].value);
}

static void set(struct binder *b, uint32_t symbol, int64_t x, uint32_t input, uint32_t axis)
{
    b->of[symbol] = x;
    b->known[symbol] = true;
    b->input[symbol] = input;
    b->axis[symbol] = axis;
}

/* ---- types and ranks ---- */

static const char *wanted_text(const struct binder *b, const struct node *n)
{
    struct text out = {.arena = b->arena};
    text_printf(&out, "%s[", dtype_name(n->dtype));
    for (uint32_t k = 0; k < n->rank; k++)
        text_printf(&out, "%s%s", k ? ", " : "", dim_text(b->graph->dims, n->shape[k], b->arena));
    text_put(&out, "]");
    return out.at;
}

static bool check_kind(struct binder *b, uint32_t input)
{
    const struct node *n = input_node(b, input);
    const struct tensor *t = &b->inputs[input];
    if (t->dtype == n->dtype && t->rank == n->rank)
        return true;
    b->result = diag_error(b->diag, TPC_DATA, input_where(b, input), "wants %s but is given %s", wanted_text(b, n),
                           tensor_type_text(t, b->arena));
    return false;
}

/* ---- solving ---- */

/* Symbols of d that have no value yet: 0, 1 (then which), or more. A partition's symbol counts as its extent's symbols do not:
 * it has a value only after all input symbols have. */
static uint32_t unknowns(const struct binder *b, dim d, uint32_t *which)
{
    struct dim_node n = dim_get(b->graph->dims, d);
    if (n.op == DIM_SYMBOL) {
        *which = n.symbol;
        return b->known[n.symbol] ? 0 : 1;
    }
    uint32_t count = 0, one = 0;
    for (uint32_t i = 0; i < n.count; i++) {
        uint32_t found = unknowns(b, n.arg[i], &one);
        count = found == 1 && count == 1 && one == *which ? 1 : count + found;
        if (found)
            *which = one;
    }
    return count;
}

/* The symbol's value for which d is `wanted`, if d is a*s + c in it (tried at three points). */
static bool solve_linear(struct binder *b, dim d, uint32_t symbol, int64_t wanted, int64_t *x)
{
    int64_t at[3], kept = b->of[symbol], slope, next, off;
    const struct dims *t = b->graph->dims;
    bool fine = true;
    for (int64_t i = 0; i < 3; i++) {
        b->of[symbol] = i + 1;
        fine = fine && dim_eval(t, d, b->of, &at[i]);
    }
    b->of[symbol] = kept;
    if (!fine || !i64_sub(at[1], at[0], &slope) || !i64_sub(at[2], at[1], &next) || slope == 0 || slope != next ||
        !i64_sub(wanted, at[0], &off))
        return false;
    if (off % slope != 0)
        return false;
    *x = off / slope + 1;
    b->of[symbol] = *x;
    fine = dim_eval(t, d, b->of, &next) && next == wanted; /* it might be linear only where it was tried */
    b->of[symbol] = kept;
    return fine;
}

static void bind_plain(struct binder *b, uint32_t input)
{
    const struct node *n = input_node(b, input);
    for (uint32_t k = 0; k < n->rank; k++) {
        struct dim_node d = dim_get(b->graph->dims, n->shape[k]);
        if (d.op == DIM_SYMBOL && !b->known[d.symbol] && dims_symbol(b->graph->dims, d.symbol)->kind == SYMBOL_INPUT)
            set(b, d.symbol, b->inputs[input].shape[k], input, k);
    }
}

static bool bind_solved(struct binder *b, uint32_t input)
{
    const struct node *n = input_node(b, input);
    bool progress = false;
    for (uint32_t k = 0; k < n->rank; k++) {
        uint32_t symbol = 0;
        int64_t x;
        if (unknowns(b, n->shape[k], &symbol) != 1 || dims_symbol(b->graph->dims, symbol)->kind != SYMBOL_INPUT)
            continue;
        if (!solve_linear(b, n->shape[k], symbol, b->inputs[input].shape[k], &x))
            continue;
        set(b, symbol, x, input, k);
        progress = true;
    }
    return progress;
}

/* Symbols that guards have rewritten to others. */
static bool bind_equal(struct binder *b)
{
    bool progress = false;
    for (uint32_t s = 0; s < dims_symbol_count(b->graph->dims); s++) {
        const struct symbol *symbol = dims_symbol(b->graph->dims, s);
        uint32_t which = 0;
        int64_t x;
        if (b->known[s] || symbol->kind != SYMBOL_INPUT || !dim_valid(symbol->equal) ||
            unknowns(b, symbol->equal, &which) != 0)
            continue;
        if (dim_eval(b->graph->dims, symbol->equal, b->of, &x)) {
            set(b, s, x, UINT32_MAX, 0);
            progress = true;
        }
    }
    return progress;
}

static void solve(struct binder *b)
{
    for (uint32_t i = 0; i < b->graph->inputs.count; i++)
        bind_plain(b, i);
    for (bool progress = true; progress;) {
        progress = bind_equal(b);
        for (uint32_t i = 0; i < b->graph->inputs.count; i++)
            progress |= bind_solved(b, i);
    }
}

/* ---- what must hold then ---- */

static bool same_symbol(const struct binder *b, dim d, uint32_t *symbol)
{
    struct dim_node n = dim_get(b->graph->dims, d);
    *symbol = n.symbol;
    return n.op == DIM_SYMBOL;
}

static void check_axis(struct binder *b, uint32_t input, uint32_t axis)
{
    const struct graph *g = b->graph;
    dim d = input_node(b, input)->shape[axis];
    int64_t wanted, got = b->inputs[input].shape[axis];
    uint32_t symbol;
    const char *text = dim_text(g->dims, d, b->arena);
    if (b->result != TPC_OK)
        return; /* one line */
    if (!dim_eval(g->dims, d, b->of, &wanted)) {
        b->result = diag_error(b->diag, TPC_DATA, input_where(b, input), "axis %u: %s is too large to compute",
                               (unsigned)axis, text);
        return;
    }
    if (wanted == got)
        return;
    const char *because = "";
    if (same_symbol(b, d, &symbol) && b->known[symbol] && b->input[symbol] != UINT32_MAX)
        because = arena_printf(b->arena, " (from axis %u of input '%s')", (unsigned)b->axis[symbol],
                               g->inputs.at[b->input[symbol]].name);
    if (dim_is_const(g->dims, d, NULL))
        b->result = diag_error(b->diag, TPC_DATA, input_where(b, input), "axis %u must be %lld but is %lld",
                               (unsigned)axis, (long long)wanted, (long long)got);
    else
        b->result = diag_error(b->diag, TPC_DATA, input_where(b, input), "axis %u must be %s = %lld%s but is %lld",
                               (unsigned)axis, text, (long long)wanted, because, (long long)got);
}

static void check_bounds(struct binder *b)
{
    for (uint32_t s = 0; s < dims_symbol_count(b->graph->dims); s++) {
        const struct symbol *symbol = dims_symbol(b->graph->dims, s);
        if (symbol->kind != SYMBOL_INPUT || !b->known[s] || (b->of[s] >= symbol->lower && b->of[s] <= symbol->upper))
            continue;
        const char *where = b->input[s] == UINT32_MAX ? b->graph->model_path : input_where(b, b->input[s]);
        b->result = diag_error(b->diag, TPC_DATA, where, "%s is %lld but must be %s %lld", symbol->name,
                               (long long)b->of[s], b->of[s] < symbol->lower ? "at least" : "at most",
                               (long long)(b->of[s] < symbol->lower ? symbol->lower : symbol->upper));
    }
}

static void check_guards(struct binder *b)
{
    const struct graph *g = b->graph;
    for (uint32_t i = 0; i < g->guards.count && b->result == TPC_OK; i++) {
        const struct guard *guard = &g->guards.at[i];
        int64_t x = 0, y = 0;
        bool fine = dim_eval(g->dims, guard->a, b->of, &x) && dim_eval(g->dims, guard->b, b->of, &y);
        if (fine && x == y)
            continue;
        const char *where = origin_text(g, guard->origin, b->arena);
        const char *left = dim_text(g->dims, guard->a, b->arena), *right = dim_text(g->dims, guard->b, b->arena);
        if (!fine)
            b->result =
                diag_error(b->diag, TPC_DATA, where, "%s: %s or %s cannot be computed", guard->why, left, right);
        else
            b->result = diag_error(b->diag, TPC_DATA, where, "%s: %s = %lld but %s = %lld; they must be equal",
                                   guard->why, left, (long long)x, right, (long long)y);
    }
}

static void note_used(const struct binder *b, dim d, bool *used)
{
    for (uint32_t s = 0; s < dims_symbol_count(b->graph->dims); s++)
        if (!b->known[s] && dims_symbol(b->graph->dims, s)->kind == SYMBOL_INPUT)
            used[s] = used[s] || dim_uses_symbol(b->graph->dims, d, s);
}

/* A symbol that some extent or guard needs and no input gives. */
static void check_known(struct binder *b)
{
    const struct graph *g = b->graph;
    uint32_t count = dims_symbol_count(g->dims), unknown = 0;
    bool *used = NEW_ARRAY(b->arena, bool, count);
    for (uint32_t s = 0; s < count; s++)
        unknown += !b->known[s] && dims_symbol(g->dims, s)->kind == SYMBOL_INPUT;
    if (unknown == 0)
        return;
    for (value v = 1; v < g->nodes.count; v++) {
        const struct node *n = graph_node(g, v);
        for (uint32_t k = 0; k < n->rank; k++)
            note_used(b, n->shape[k], used);
        for (uint32_t k = 0; k < n->attribute.dims_count; k++)
            note_used(b, n->attribute.dims[k], used);
    }
    for (uint32_t i = 0; i < g->guards.count; i++) {
        note_used(b, g->guards.at[i].a, used);
        note_used(b, g->guards.at[i].b, used);
    }
    for (uint32_t s = 0; s < count && b->result == TPC_OK; s++)
        if (used[s])
            b->result = diag_error(b->diag, TPC_DATA, g->model_path, "no input's shape gives the value of '%s'",
                                   dims_symbol(g->dims, s)->name);
}

status bind_rank(const struct graph *g, uint32_t rank, const int64_t *of, struct diag *diag, int64_t *to)
{
    if (to != of)
        memcpy(to, of, dims_symbol_count(g->dims) * sizeof *of);
    if (g->mesh.ranks && !graph_bind_rank(g, rank, to))
        return diag_error(diag, TPC_DATA, g->model_path, "extents of rank %u are too large to compute", (unsigned)rank);
    return TPC_OK;
}

static status bind(struct binder *b)
{
    const struct graph *g = b->graph;
    bool fine = true;
    for (uint32_t i = 0; i < g->inputs.count; i++)
        fine &= check_kind(b, i);
    if (!fine)
        return b->result;
    solve(b);
    check_known(b);
    check_bounds(b);
    if (b->result != TPC_OK || (b->result = bind_rank(g, b->rank, b->of, b->diag, b->of)) != TPC_OK)
        return b->result;
    for (uint32_t i = 0; i < g->inputs.count; i++)
        for (uint32_t k = 0; k < input_node(b, i)->rank; k++)
            check_axis(b, i, k);
    if (b->result == TPC_OK) /* else they would only repeat it */
        check_guards(b);
    return b->result;
}

status bind_symbols(const struct graph *g, uint32_t rank, const struct tensor *inputs, struct arena *arena,
                    struct diag *diag, int64_t *of)
{
    uint32_t count = dims_symbol_count(g->dims);
    struct arena *scratch = arena_new_in(arena);
    memset(of, 0, count * sizeof *of);
    struct binder b = {g,
                       rank,
                       inputs,
                       scratch,
                       diag,
                       of,
                       NEW_ARRAY(scratch, bool, count),
                       NEW_ARRAY(scratch, uint32_t, count),
                       NEW_ARRAY(scratch, uint32_t, count),
                       TPC_OK};
    status s = bind(&b);
    arena_free(scratch);
    return s;
}
