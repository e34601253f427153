/* frontend/onnx/compose.c - what the larger lowerings share. */
#include "frontend/onnx/compose.h"

#include <math.h>

/* ---- tables ------------------------------------------------------------------------------------------------- */

static size_t count_of(uint32_t rank, const int64_t *shape)
{
    size_t count = 1;
    for (uint32_t k = 0; k < rank; k++)
        count *= (size_t)shape[k];
    return count;
}

static void check_room(struct call *c, int64_t count)
{
    if (count < 0 || count > COMPOSE_TABLE)
        call_unsupported(c, "a table of %lld elements (limit is %d)", (long long)count, COMPOSE_TABLE);
}

double *compose_room(struct call *c, int64_t count)
{
    check_room(c, count);
    return NEW_ARRAY(c->im->scratch, double, count + 1);
}

int64_t *compose_integer_room(struct call *c, int64_t count)
{
    check_room(c, count);
    return NEW_ARRAY(c->im->arena, int64_t, count + 1);
}

value compose_table(struct call *c, dtype type, uint32_t rank, const int64_t *shape, const double *x)
{
    size_t count = count_of(rank, shape);
    uint8_t *data = NEW_ARRAY(c->im->arena, uint8_t, count * dtype_size(type) + 1);
    for (size_t i = 0; i < count; i++)
        dtype_store_f64(type, data, i, x[i]);
    return graph_constant(c->g, type, rank, shape, data);
}

value compose_integers(struct call *c, uint32_t rank, const int64_t *shape, const int64_t *x)
{
    return graph_constant(c->g, DT_I64, rank, shape, arena_copy(c->im->arena, x, count_of(rank, shape) * sizeof *x));
}

int64_t compose_extent(struct call *c, dim extent, const char *what)
{
    int64_t n = 0;
    if (!dim_is_const(c->t, extent, &n))
        call_unsupported(c, "a symbolic %s (%s; --set SYMBOL=N fixes it)", what,
                         dim_text(c->t, extent, c->im->scratch));
    return n;
}

uint32_t compose_steps(struct call *c, dim extent, const char *what)
{
    int64_t n = compose_extent(c, extent, what);
    if (n > COMPOSE_STEPS)
        call_unsupported(c, "%lld steps along the %s (limit is %d)", (long long)n, what, COMPOSE_STEPS);
    return n < 0 ? 0 : (uint32_t)n;
}

/* ---- values ------------------------------------------------------------------------------------------------- */

value compose_dim(struct call *c, dtype type, dim d)
{
    int64_t n = 0;
    if (dim_is_const(c->t, d, &n))
        return build_real(c, type, (double)n);
    return graph_cast(c->g, graph_dim(c->g, d), type);
}

value compose_part(struct call *c, value x, uint32_t axis, int64_t start, int64_t size)
{
    return build_slice_axis(c, x, axis, call_const(c, start), call_const(c, size));
}

value compose_at(struct call *c, value x, uint32_t axis, int64_t i)
{
    return build_squeeze(c, compose_part(c, x, axis, i, 1), axis);
}

value compose_stack(struct call *c, uint32_t count, const value *part, uint32_t axis)
{
    value *one = NEW_ARRAY(c->im->scratch, value, count + 1);
    for (uint32_t i = 0; i < count; i++)
        one[i] = build_unsqueeze(c, part[i], axis);
    return graph_concat(c->g, count, one, axis);
}

value compose_clamp(struct call *c, value x, double low, double high)
{
    return build_with(c, OP_MIN, build_with(c, OP_MAX, x, low), high);
}

value compose_quantize(struct call *c, value x, dtype type)
{
    return graph_cast(c->g, graph_unary(c->g, OP_ROUND, x), type);
}

value compose_sigmoid(struct call *c, value x)
{
    value e = graph_unary(c->g, OP_EXP, graph_unary(c->g, OP_NEG, x));
    return graph_unary(c->g, OP_RECIP, build_with(c, OP_ADD, e, 1));
}

value compose_along(struct call *c, value v, uint32_t axis, uint32_t rank)
{
    dim shape[MAX_RANK];
    for (uint32_t k = axis; k < rank; k++)
        shape[k - axis] = k == axis ? call_shape(c, v)[0] : call_const(c, 1);
    return build_reshape(c, v, rank - axis, shape);
}

value compose_place(struct call *c, dtype type, uint32_t rank, const dim *shape, uint32_t axis)
{
    value place = graph_iota(c->g, DT_I64, 1, &shape[axis], 0);
    return compose_along(c, graph_cast(c->g, place, type), axis, rank);
}

dtype compose_work(dtype type)
{
    return type == DT_F16 || type == DT_BF16 ? DT_F32 : type;
}
