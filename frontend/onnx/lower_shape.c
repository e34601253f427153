/* frontend/onnx/lower_shape.c - shapes as values, and constants: Shape, Size, Constant, ConstantOfShape, Range, Identity. */
#include "frontend/onnx/lower.h"

#include <math.h>

struct list_context {
    struct call *c;
    const dim *list;
};
static const struct formula *list_element(void *context, const dim *index)
{
    const struct list_context *l = context;
    int64_t i = 0;
    return dim_is_const(l->c->t, index[0], &i) ? formula_dim(&l->c->im->s, l->list[i]) : NULL;
}

void lower_shape(struct call *c)
{
    const struct datum *d = call_in(c, 0);
    int64_t rank = d->rank, start = attribute_int(c, "start", 0), end = attribute_int(c, "end", rank);
    start = start < 0 ? start + rank : start;
    end = end < 0 ? end + rank : end;
    start = start < 0 ? 0 : start > rank ? rank : start;
    end = end > rank ? rank : end < start ? start : end;
    struct list_context l = {c, d->shape + start};
    dim count = call_const(c, end - start);
    call_set_content(c, 0, DT_I64, 1, &count, content_make(&c->im->s, 1, &count, list_element, &l));
}

void lower_size(struct call *c)
{
    const struct datum *d = call_in(c, 0);
    const struct formula *f = formula_dim(&c->im->s, call_product(c, d->shape, 0, d->rank));
    call_set_content(c, 0, DT_I64, 0, NULL, content_uniform(&c->im->s, 0, NULL, f));
}

void lower_identity(struct call *c)
{
    call_in(c, 0);
    call_set_alias(c, 0, 0);
}

/* At inference a dropout is its input; exporters leave a constant training mode in the file, which means nothing. A training mode that the
 * user gives is meant, and needs random numbers. */
void lower_dropout(struct call *c)
{
    const struct datum *d = call_in(c, 0);
    double ratio = 0.5, training = 1;
    bool given = call_has(c, 2) && (call_in(c, 2)->node || call_in(c, 2)->bound), plain = !call_has(c, 1);
    bool idle = given && call_real(c, 2, &training) && training == 0;
    if (given && !idle && (plain || !call_real(c, 1, &ratio) || ratio != 0))
        call_unsupported(c, "a training mode that is given at run time: it makes random numbers");
    call_set_alias(c, 0, 0);
    if (call_wants(c, 1)) {
        dtype type = c->version >= 10 ? DT_BOOL : d->dtype;
        call_set_content(c, 1, type, d->rank, d->shape,
                         content_uniform(&c->im->s, d->rank, d->shape, formula_int(&c->im->s, 1)));
    }
}

/* ---- constants ---------------------------------------------------------------------------------------------- */

static void set_stored(struct call *c, const struct stored *t)
{
    struct datum d = {.dtype = DT_NONE};
    datum_from_stored(c->im, &d, t, false);
    call_set_content(c, 0, d.dtype, d.rank, d.shape, d.content);
    if (c->out[0])
        c->im->data.at[c->out[0]]->stored = t;
}

static void set_tensor(struct call *c, const Onnx__TensorProto *p)
{
    struct stored *t = NEW(c->im->scratch, struct stored);
    status s = stored_read(c->im, c->where, p, t);
    if (s != TPC_OK)
        call_leave(c, s);
    set_stored(c, t);
}

void lower_constant(struct call *c)
{
    const Onnx__AttributeProto *a = NULL;
    int64_t count = 0;
    if ((a = attribute(c, "value")) && a->t)
        set_tensor(c, a->t);
    else if ((a = attribute(c, "value_float")))
        set_stored(c, stored_from(c->im, DT_F32, 0, NULL, &a->f));
    else if ((a = attribute(c, "value_int")))
        set_stored(c, stored_from(c->im, DT_I64, 0, NULL, &a->i));
    else if ((a = attribute(c, "value_floats"))) {
        count = (int64_t)a->n_floats;
        set_stored(c, stored_from(c->im, DT_F32, 1, &count, a->floats));
    } else if ((a = attribute(c, "value_ints"))) {
        count = (int64_t)a->n_ints;
        set_stored(c, stored_from(c->im, DT_I64, 1, &count, a->ints));
    } else
        call_unsupported(c, "a constant that is not a dense tensor or number");
}

void lower_constantofshape(struct call *c)
{
    uint32_t count = 0;
    const dim *shape = call_dims(c, 0, &count);
    const Onnx__AttributeProto *a = attribute(c, "value");
    struct stored t = {.dtype = DT_F32, .count = 1};
    uint64_t element = 0;
    if (a && a->t) {
        status s = tensor_decode(c->im->scratch, c->im->diag, c->where, a->t, c->im->bytes, c->im->length, &t);
        if (s != TPC_OK)
            call_leave(c, s);
        if (t.count != 1 || !t.bytes)
            call_fail(c, "value has %lld elements, one is expected", (long long)t.count);
        dtype_unpack(t.dtype, t.bytes, 0, 1, &element);
    }
    if (count > MAX_RANK)
        call_unsupported(c, "%u axes (limit is %d)", count, MAX_RANK);
    struct symbolic *s = &c->im->s;
    const struct formula *f = dtype_is_stored(t.dtype)  ? NULL
                              : dtype_is_float(t.dtype) ? formula_real(s, dtype_load_f64(t.dtype, &element, 0))
                                                        : formula_int(s, dtype_load_i64(t.dtype, &element, 0));
    const struct content *content = f ? content_uniform(s, count, shape, f) : NULL;
    if (content)
        call_set_content(c, 0, t.dtype, count, shape, content);
    else if (dtype_is_float(t.dtype))
        call_set(c, 0, build_full(c, t.dtype, dtype_load_f64(t.dtype, &element, 0), count, shape));
    else
        call_set(c, 0,
                 graph_broadcast_to(c->g, graph_scalar_i64(c->g, t.dtype, dtype_load_i64(t.dtype, &element, 0)), count,
                                    shape));
}

/* ---- Range -------------------------------------------------------------------------------------------------- */

struct range_context {
    struct call *c;
    dtype type;
    const struct formula *start, *step;
};
static const struct formula *range_element(void *context, const dim *index)
{
    const struct range_context *r = context;
    struct symbolic *s = &r->c->im->s;
    const struct formula *i = formula_dim(s, index[0]);
    return formula_binary(s, OP_ADD, r->type, r->start, formula_binary(s, OP_MUL, r->type, i, r->step));
}

/* How many elements: max(0, ceil((limit - start) / step)). */
static dim range_count(struct call *c, const struct formula *start, const struct formula *limit,
                       const struct formula *step)
{
    struct dims *t = c->t;
    double a = 0, b = 0, d = 0;
    int64_t by = 0;
    struct symbolic *s = &c->im->s;
    if (formula_constant(s, start, &a) && formula_constant(s, limit, &b) && formula_constant(s, step, &d)) {
        double n = ceil((b - a) / d);
        if (!(fabs(n) < 9e15))
            call_fail(c, "the range never ends");
        return call_const(c, n > 0 ? (int64_t)n : 0);
    }
    if (start->op != FORMULA_DIM || limit->op != FORMULA_DIM || !formula_integer(s, step, &by) || by == 0 ||
        by == INT64_MIN)
        call_unsupported(c, "its length depends on the numbers of an input");
    dim span = by > 0 ? dim_sub(t, limit->d, start->d) : dim_sub(t, start->d, limit->d);
    int64_t size = by > 0 ? by : -by;
    dim n = size == 1 ? span : dim_ceildiv(t, span, dim_const(t, size));
    return dim_max(t, dim_const(t, 0), n);
}

void lower_range(struct call *c)
{
    struct range_context r = {.c = c, .type = call_in(c, 0)->dtype};
    const struct formula *f[3];
    for (uint32_t i = 0; i < 3; i++) {
        const struct datum *d = call_in(c, i);
        if (!d->content || d->content->count != 1)
            call_unsupported(c, "its length depends on the numbers of an input");
        f[i] = d->content->at[0];
    }
    r.start = f[0];
    r.step = f[2];
    dim count = range_count(c, f[0], f[1], f[2]);
    const struct content *content = content_make(&c->im->s, 1, &count, range_element, &r);
    if (content) {
        call_set_content(c, 0, r.type, 1, &count, content);
        return;
    }
    dtype work = dtype_is_float(r.type) ? DT_F64 : r.type;
    value index = graph_cast(c->g, graph_iota(c->g, DT_I64, 1, &count, 0), work);
    value step = graph_reshape(c->g, call_use_as(c, 2, work), 0, NULL);
    value start = graph_reshape(c->g, call_use_as(c, 0, work), 0, NULL);
    value scaled = build_both(c, OP_MUL, index, step);
    call_set(c, 0, graph_cast(c->g, build_both(c, OP_ADD, scaled, start), r.type));
}
