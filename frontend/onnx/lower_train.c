/* frontend/onnx/lower_train.c - what models that are still training hold: batch statistics, and the optimizers of ai.onnx.preview.training. */
#include "frontend/onnx/compose.h"

/* ---- BatchNormalization in training mode -------------------------------------------------------------------- */

/* Y by the statistics of this batch; the running mean and variance, moved towards them. */
void compose_batch_training(struct call *c)
{
    value x = call_use(c, 0);
    uint32_t rank = call_rank(c, x), count = 0;
    dtype type = call_type(c, x), kept = call_in(c, 3)->dtype;
    double momentum = attribute_real(c, "momentum", (double)0.9f), epsilon = attribute_real(c, "epsilon", 1e-5);
    int32_t axes[MAX_RANK];
    for (uint32_t k = 0; k < rank; k++)
        if (k != 1)
            axes[count++] = (int32_t)k;
    value wide = graph_cast(c->g, x, compose_work(type));
    value mean = build_mean(c, wide, count, axes, true), difference = build_both(c, OP_SUB, wide, mean);
    value variance = build_mean(c, graph_binary(c->g, OP_MUL, difference, difference), count, axes, true);
    value root = graph_unary(c->g, OP_SQRT, build_with(c, OP_ADD, variance, epsilon));
    value y = graph_cast(c->g, build_both(c, OP_DIV, difference, root), type);
    y = build_both(c, OP_MUL, y, compose_along(c, call_use_as(c, 1, type), 1, rank));
    call_set(c, 0, build_both(c, OP_ADD, y, compose_along(c, call_use_as(c, 2, type), 1, rank)));
    for (uint32_t i = 0; i < 2; i++) {
        dim channels = call_shape(c, x)[1];
        value fresh = build_reshape(c, i == 0 ? mean : variance, 1, &channels), old = call_use(c, 3 + i);
        fresh = build_with(c, OP_MUL, graph_cast(c->g, fresh, kept), 1 - momentum);
        call_set(c, 1 + i, build_both(c, OP_ADD, build_with(c, OP_MUL, old, momentum), fresh));
    }
}

/* ---- optimizers --------------------------------------------------------------------------------------------- */

/* rate, step, then per kind all tensors: values, gradients, states.. -> new values, new states.. */
struct update {
    uint32_t count; /* tensors of each kind */
    value rate;     /* scalar f32 or f64 */
    value started;  /* bool scalar: step > 0 */
    value step;     /* as i64 */
};

static struct update read_update(struct call *c, uint32_t kinds)
{
    struct update u = {.count = c->in_count > 2 ? (c->in_count - 2) / kinds : 0};
    if (u.count == 0 || u.count * kinds + 2 != c->in_count)
        call_fail(c, "%u inputs are no %u kinds of tensors", c->in_count, kinds);
    u.rate = call_use(c, 0);
    u.step = call_use_as(c, 1, DT_I64);
    u.started = build_both(c, OP_LT, build_real(c, DT_I64, 0), u.step);
    return u;
}

static value tensor_of(struct call *c, const struct update *u, uint32_t kind, uint32_t i)
{
    return call_use(c, 2 + kind * u->count + i);
}

/* gradient + norm_coefficient * x */
static value regularized(struct call *c, value x, value gradient)
{
    double norm = attribute_real(c, "norm_coefficient", 0);
    return norm == 0 ? gradient : build_both(c, OP_ADD, build_with(c, OP_MUL, x, norm), gradient);
}

static value square(struct call *c, value x)
{
    return graph_binary(c->g, OP_MUL, x, x);
}

void lower_adagrad(struct call *c)
{
    struct update u = read_update(c, 3);
    for (uint32_t i = 0; i < u.count; i++) {
        value x = tensor_of(c, &u, 0, i), h = tensor_of(c, &u, 2, i);
        value g = regularized(c, x, tensor_of(c, &u, 1, i));
        dtype type = call_type(c, x);
        value slowed = build_with(c, OP_MUL, graph_cast(c->g, u.step, type), attribute_real(c, "decay_factor", 0));
        value rate = build_both(c, OP_DIV, graph_cast(c->g, u.rate, type), build_with(c, OP_ADD, slowed, 1));
        h = build_both(c, OP_ADD, h, square(c, g));
        value scale = build_with(c, OP_ADD, graph_unary(c->g, OP_SQRT, h), attribute_real(c, "epsilon", 0));
        call_set(c, i, build_both(c, OP_SUB, x, build_both(c, OP_DIV, build_both(c, OP_MUL, rate, g), scale)));
        call_set(c, u.count + i, h);
    }
}

void lower_momentum(struct call *c)
{
    struct update u = read_update(c, 3);
    const char *mode = attribute_text(c, "mode", "standard");
    double alpha = attribute_real(c, "alpha", 0), beta = attribute_real(c, "beta", 0);
    for (uint32_t i = 0; i < u.count; i++) {
        value x = tensor_of(c, &u, 0, i), v = tensor_of(c, &u, 2, i);
        value g = regularized(c, x, tensor_of(c, &u, 1, i));
        dtype type = call_type(c, x);
        value share = build_choose(c, u.started, build_real(c, type, beta), build_real(c, type, 1));
        v = build_both(c, OP_ADD, build_with(c, OP_MUL, v, alpha), build_both(c, OP_MUL, share, g));
        value move = strcmp(mode, "nesterov") == 0 ? build_both(c, OP_ADD, g, build_with(c, OP_MUL, v, alpha)) : v;
        call_set(c, i, build_both(c, OP_SUB, x, build_both(c, OP_MUL, graph_cast(c->g, u.rate, type), move)));
        call_set(c, u.count + i, v);
    }
}

/* 1 - base^step */
static value decayed(struct call *c, double base, value step, dtype type)
{
    value power = build_both(c, OP_POW, build_real(c, type, base), graph_cast(c->g, step, type));
    return build_both(c, OP_SUB, build_real(c, type, 1), power);
}

void lower_adam(struct call *c)
{
    struct update u = read_update(c, 4);
    double alpha = attribute_real(c, "alpha", (double)0.9f), beta = attribute_real(c, "beta", (double)0.999f);
    double epsilon = attribute_real(c, "epsilon", 0), last = 1 - attribute_real(c, "norm_coefficient_post", 0);
    for (uint32_t i = 0; i < u.count; i++) {
        value x = tensor_of(c, &u, 0, i), v = tensor_of(c, &u, 2, i), h = tensor_of(c, &u, 3, i);
        value g = regularized(c, x, tensor_of(c, &u, 1, i));
        dtype type = call_type(c, x);
        v = build_both(c, OP_ADD, build_with(c, OP_MUL, v, alpha), build_with(c, OP_MUL, g, 1 - alpha));
        h = build_both(c, OP_ADD, build_with(c, OP_MUL, h, beta), build_with(c, OP_MUL, square(c, g), 1 - beta));
        value scale = build_with(c, OP_ADD, graph_unary(c->g, OP_SQRT, h), epsilon),
              rate = graph_cast(c->g, u.rate, type);
        value corrected = build_both(c, OP_MUL, rate, graph_unary(c->g, OP_SQRT, decayed(c, beta, u.step, type)));
        corrected = build_both(c, OP_DIV, corrected, decayed(c, alpha, u.step, type));
        rate = build_choose(c, u.started, corrected, rate);
        value moved = build_both(c, OP_SUB, x, build_both(c, OP_MUL, rate, build_both(c, OP_DIV, v, scale)));
        call_set(c, i, last == 1 ? moved : build_with(c, OP_MUL, moved, last));
        call_set(c, u.count + i, v);
        call_set(c, 2 * u.count + i, h);
    }
}
