/* ir/program_bounds.c - do a step's accesses stay inside its buffers, for given symbol values?
 *
 * Kernels run without checks, and a Program may come from a file; so this is asked once per set of shapes, before anything runs. An index
 * is a sum of multiples of coordinates, each between 0 and its extent: its least and greatest values are exact. A predicate that compares one coordinate
 * narrows it. What is no such sum (a division that no split took away), and what hangs on other predicates, is not judged.
 */
#include "ir/program.h"

struct range {
    int64_t low, high;
};

struct box {
    const struct dims *dims;
    const int64_t *of;
    uint32_t axes;
    struct range at[2 * KERNEL_AXES]; /* of each coordinate */
    int64_t step[2 * KERNEL_AXES];    /* of the expression in hand */
    bool loose;                       /* what was found may be wider than what is reached */
};

static bool range_add(struct range *a, struct range b)
{
    return i64_add(a->low, b.low, &a->low) && i64_add(a->high, b.high, &a->high);
}

static bool range_mul(struct range a, struct range b, struct range *out)
{
    int64_t p[4];
    if (!i64_mul(a.low, b.low, &p[0]) || !i64_mul(a.low, b.high, &p[1]) || !i64_mul(a.high, b.low, &p[2]) ||
        !i64_mul(a.high, b.high, &p[3]))
        return false;
    *out = (struct range){p[0], p[0]};
    for (int i = 1; i < 4; i++) {
        out->low = p[i] < out->low ? p[i] : out->low;
        out->high = p[i] > out->high ? p[i] : out->high;
    }
    return true;
}

static bool coordinate_of(const struct box *b, dim d, uint32_t *axis)
{
    struct dim_node n = dim_get(b->dims, d);
    if (n.op != DIM_SYMBOL || dims_symbol(b->dims, n.symbol)->kind != SYMBOL_COORDINATE)
        return false;
    *axis = dims_symbol(b->dims, n.symbol)->index;
    return *axis < b->axes;
}

static bool range_of(struct box *b, dim d, struct range *out);

static bool range_of_pair(struct box *b, const struct dim_node *n, struct range *out)
{
    struct range x, y;
    b->loose = true;
    if (!range_of(b, n->arg[0], &x) || !range_of(b, n->arg[1], &y))
        return false;
    switch (n->op) {
    case DIM_MAX:
        *out = (struct range){x.low > y.low ? x.low : y.low, x.high > y.high ? x.high : y.high};
        return true;
    case DIM_MIN:
        *out = (struct range){x.low < y.low ? x.low : y.low, x.high < y.high ? x.high : y.high};
        return true;
    case DIM_MOD:
        if (y.low < 1)
            return false;
        *out = (struct range){x.low < 0 ? 1 - y.high : 0, x.high < 0 ? 0 : x.high < y.high - 1 ? x.high : y.high - 1};
        return true;
    case DIM_DIV:
    case DIM_CEILDIV: {
        bool up = n->op == DIM_CEILDIV;
        if (y.low < 1)
            return false;
        int64_t low_by = x.low < 0 ? y.low : y.high, high_by = x.high < 0 ? y.high : y.low; /* both truncate */
        *out = (struct range){x.low / low_by + (up && x.low > 0 && x.low % low_by != 0),
                              x.high / high_by + (up && x.high > 0 && x.high % high_by != 0)};
        return true;
    }
    case DIM_CONST:
    case DIM_SYMBOL:
    case DIM_SUM:
    case DIM_PRODUCT:
        break;
    }
    return false;
}

/* coefficient * the atoms of a monomial: into step[] when it has one coordinate and nothing else that varies, else into *rest as a range. */
static bool add_monomial(struct box *b, int64_t coefficient, dim monomial, struct range *rest)
{
    struct dim_node n = dim_get(b->dims, monomial);
    const dim *atom = n.op == DIM_PRODUCT ? n.arg : &monomial;
    uint32_t count = n.op == DIM_PRODUCT ? n.count : 1, axis = 0, coordinates = 0;
    struct range others = {coefficient, coefficient}, one, whole = {coefficient, coefficient};
    for (uint32_t i = 0; i < count; i++) {
        uint32_t a;
        bool is_coordinate = coordinate_of(b, atom[i], &a);
        if (!range_of(b, atom[i], &one) || !range_mul(whole, one, &whole) ||
            (!is_coordinate && !range_mul(others, one, &others)))
            return false;
        axis = is_coordinate ? a : axis;
        coordinates += is_coordinate;
    }
    if (coordinates == 1 && others.low == others.high)
        return i64_add(b->step[axis], others.low, &b->step[axis]);
    b->loose = true;
    return range_add(rest, whole);
}

static bool range_of_sum(struct box *b, const struct dim_node *n, struct range *out)
{
    int64_t outer[2 * KERNEL_AXES];
    memcpy(outer, b->step, sizeof outer);
    memset(b->step, 0, sizeof b->step);
    *out = (struct range){n->value, n->value};
    bool ok = true;
    for (uint32_t i = 0; i < n->count && ok; i++)
        ok = add_monomial(b, n->coefficient[i], n->arg[i], out);
    for (uint32_t a = 0; a < b->axes && ok; a++) {
        struct range one;
        ok = range_mul(b->at[a], (struct range){b->step[a], b->step[a]}, &one) && range_add(out, one);
    }
    memcpy(b->step, outer, sizeof outer);
    return ok;
}

static bool range_of(struct box *b, dim d, struct range *out)
{
    struct dim_node n = dim_get(b->dims, d);
    uint32_t axis;
    if (!dim_uses_kind(b->dims, d, SYMBOL_COORDINATE)) {
        bool ok = dim_eval(b->dims, d, b->of, &out->low);
        out->high = out->low;
        return ok;
    }
    if (n.op == DIM_SYMBOL) {
        bool ours = coordinate_of(b, d, &axis);
        *out = ours ? b->at[axis] : (struct range){0, 0};
        return ours;
    }
    if (n.op == DIM_PRODUCT) /* as a sum of one term */
        return range_of_sum(
            b, &(struct dim_node){.op = DIM_SUM, .count = 1, .arg = &d, .coefficient = &(const int64_t){1}}, out);
    return n.op == DIM_SUM ? range_of_sum(b, &n, out) : range_of_pair(b, &n, out);
}

/* ---- predicates ---- */

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b != 0 && (a % b < 0) != (b < 0));
}

/* d = base + step * coordinate `axis` and no other. */
static bool single(const struct box *b, dim d, uint32_t *axis, int64_t *base, int64_t *step)
{
    struct dim_node n = dim_get(b->dims, d);
    *base = 0;
    *step = 1;
    if (coordinate_of(b, d, axis))
        return true;
    if (n.op != DIM_SUM)
        return false;
    struct dim_node other = n;
    bool found = false;
    *base = n.value;
    for (uint32_t i = 0; i < other.count; i++) {
        int64_t x;
        uint32_t a;
        if (coordinate_of(b, n.arg[i], &a)) {
            if (found)
                return false;
            found = true;
            *axis = a;
            *step = n.coefficient[i];
        } else if (dim_uses_kind(b->dims, n.arg[i], SYMBOL_COORDINATE) || !dim_eval(b->dims, n.arg[i], b->of, &x) ||
                   !i64_mul(x, n.coefficient[i], &x) || !i64_add(*base, x, base)) {
            return false;
        }
    }
    return found;
}

/* Narrows the box to where low <= high + slack can hold. false: it is not understood. */
static bool narrow(struct box *b, dim low, dim high, int64_t slack)
{
    uint32_t axis;
    int64_t base, step, bound;
    if (single(b, low, &axis, &base, &step) && dim_eval(b->dims, high, b->of, &bound) &&
        !dim_uses_kind(b->dims, high, SYMBOL_COORDINATE) && step > 0) {
        if (!i64_add(bound, slack, &bound) || !i64_sub(bound, base, &bound))
            return false;
        bound = floor_div(bound, step);
        b->at[axis].high = bound < b->at[axis].high ? bound : b->at[axis].high;
        return true;
    }
    if (dim_uses_kind(b->dims, low, SYMBOL_COORDINATE) || !single(b, high, &axis, &base, &step) || step <= 0 ||
        !dim_eval(b->dims, low, b->of, &bound) || !i64_sub(bound, slack, &bound) || !i64_sub(bound, base, &bound))
        return false;
    bound = -floor_div(-bound, step);
    b->at[axis].low = bound > b->at[axis].low ? bound : b->at[axis].low;
    return true;
}

static bool narrow_by(struct box *b, const struct kernel *k, int32_t predicate, int depth)
{
    const struct instruction *n = &k->instruction[predicate];
    if (n->kind != INST_MAP || depth == 0)
        return false;
    const struct instruction *x = &k->instruction[n->arg[0]], *y = n->arg[1] >= 0 ? &k->instruction[n->arg[1]] : x;
    if (n->op == OP_AND) { /* each half that is understood helps */
        bool first = narrow_by(b, k, n->arg[0], depth - 1), second = narrow_by(b, k, n->arg[1], depth - 1);
        return first && second;
    }
    if ((n->op != OP_LT && n->op != OP_LE) || x->kind != INST_INDEX || y->kind != INST_INDEX)
        return false;
    return narrow(b, x->index, y->index, n->op == OP_LT ? -1 : 0);
}

/* ---- steps ---- */

static bool is_empty(const struct box *b)
{
    for (uint32_t i = 0; i < b->axes; i++)
        if (b->at[i].low > b->at[i].high)
            return true;
    return false;
}

static bool access_fits(const struct box *whole, const struct kernel *k, const struct instruction *n, int64_t elements)
{
    struct box b = *whole;
    struct range at, stride, limit;
    bool understood = n->predicate < 0 || narrow_by(&b, k, n->predicate, 16);
    if (is_empty(&b))
        return true;
    if (!range_of(&b, n->index, &at))
        return false;
    if (n->dynamic >= 0) {
        if (!range_of(&b, n->dynamic_stride, &stride) || !range_of(&b, n->dynamic_limit, &limit))
            return false;
        if (limit.high < 1)
            return true;
        struct range picked = {0, limit.high - 1};
        if (!range_mul(picked, stride, &picked) || !range_add(&at, picked))
            return false;
    }
    return !understood || b.loose || (at.low >= 0 && at.high < elements);
}

static bool kernel_fits(const struct program *p, const struct step *s, const int64_t *of)
{
    const struct kernel *k = &p->kernels.at[s->kernel];
    struct box b = {.dims = p->graph->dims, .of = of, .axes = k->outer + k->inner};
    for (uint32_t i = 0; i < b.axes; i++) {
        if (!dim_eval(b.dims, k->extent[i], of, &b.at[i].high))
            return false;
        b.at[i].high--;
    }
    for (uint32_t i = 0; i < k->instruction_count; i++) {
        const struct instruction *n = &k->instruction[i];
        int64_t elements;
        if (n->kind != INST_LOAD && n->kind != INST_STORE)
            continue;
        struct box here = b;
        if (n->level == 0 && k->inner != 0) /* also where the row is empty */
            here.axes = k->outer;
        if (!dim_eval(b.dims, p->buffers.at[s->arg[n->buffer]].elements, of, &elements) ||
            (!is_empty(&here) && !access_fits(&here, k, n, elements)))
            return false;
    }
    return true;
}

static bool dot_fits(const struct program *p, const struct step *s, const int64_t *of)
{
    const struct dot *d = s->dot;
    const struct dims *t = p->graph->dims;
    uint32_t axes = d->batch + d->m + d->n + d->k;
    for (int o = 0; o < 3; o++) {
        struct range at, one;
        int64_t elements, extent, stride;
        bool empty = false;
        if (!dim_eval(t, p->buffers.at[s->arg[o]].elements, of, &elements) || !dim_eval(t, d->offset[o], of, &at.low))
            return false;
        at.high = at.low;
        for (uint32_t i = 0; i < axes; i++) {
            if (!dim_eval(t, d->extent[i], of, &extent) || !dim_eval(t, d->stride[o][i], of, &stride))
                return false;
            bool sums = i >= d->batch + d->m + d->n; /* without terms the result is still written */
            empty |= extent <= 0 && !(sums && o == 2);
            if (extent > 0 && (!range_mul((struct range){0, extent - 1}, (struct range){stride, stride}, &one) ||
                               !range_add(&at, one)))
                return false;
        }
        if (!empty && (at.low < 0 || at.high >= elements))
            return false;
    }
    return true;
}

bool program_step_fits(const struct program *p, uint32_t step, const int64_t *of)
{
    const struct step *s = &p->steps.at[step];
    return s->kind == STEP_KERNEL ? kernel_fits(p, s, of) : s->kind != STEP_DOT || dot_fits(p, s, of);
}
