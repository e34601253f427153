/* codegen/skinny_cuda.c - products of few rows with weights, on CUDA: which steps one launch does. What bounds them is reading the weights once; what else
 * can be done on the way is: the kernel behind a product, products of the same rows with other weights, the norm before them.
 *
 * A candidate (struct cuda_skinny) is a set of steps that one function does in the place of the last of them. Candidates nest: those that share a
 * step are contained in each other, so which one is taken may depend on the shapes alone: the largest that fits. Everything is found by
 * structure:
 *   - a dot of at most 8 rows with a weight;
 *   - the pointwise kernel that alone reads the product, in its own order of elements, behind it: printed where the sum is known, in the kernel's
 *     coordinates, so bias, activation and residual are no cases; where it reads two products of the same rows (gate and up), both are in;
 *   - further dots of the same rows, each with its epilogue: blocks are shared out over the weights;
 *   - the row kernel whose result these dots alone read, of whatever expression (norms, with a residual before them): every block does it again
 *     for its one row.
 * The text is skinny_text_cuda.c's, the launches are skinny_launch_cuda.c's. Start at cuda_find_skinny.
 */
#include "codegen/cuda_impl.h"

#include <assert.h>

/* ---- dots ---- */

static bool is_weight(const struct program *p, uint32_t buffer)
{
    buffer_kind kind = p->buffers.at[buffer].kind;
    return kind == BUFFER_WEIGHT || kind == BUFFER_KEPT || kind == BUFFER_CONSTANT;
}

/* Could there be few rows? */
static bool may_be_skinny(const struct cuda_set *set, const struct step *s)
{
    const struct dims *t = set->program->graph->dims;
    int64_t rows = 1, x;
    if (s->kind != STEP_DOT || s->phase != PHASE_RUN || !is_weight(set->program, s->arg[1]) || s->dot->batch ||
        !s->dot->n || !s->dot->k)
        return false;
    dtype type = set->program->buffers.at[s->arg[2]].type;
    if (type != DT_F16 && type != DT_BF16 && type != DT_F32)
        return false;
    for (uint32_t i = 0; i < s->dot->m; i++)
        rows *= dim_is_const(t, s->dot->extent[i], &x) ? x : 1;
    return rows <= CUDA_SKINNY_ROWS;
}

static bool lies_along_k(const struct cuda_set *set, const struct dot *d)
{
    return dim_is(set->program->graph->dims, d->stride[1][d->m + d->n + d->k - 1], 1);
}

/* The same left operand, and weights that lie the same way. */
static bool are_siblings(const struct cuda_set *set, const struct step *a, const struct step *b)
{
    const struct dot *x = a->dot, *y = b->dot;
    bool same = a->arg[0] == b->arg[0] && x->m == y->m && x->k == y->k && x->offset[0] == y->offset[0] &&
                set->program->buffers.at[a->arg[2]].type == set->program->buffers.at[b->arg[2]].type &&
                lies_along_k(set, x) == lies_along_k(set, y);
    for (uint32_t i = 0; same && i < x->m; i++)
        same = x->extent[i] == y->extent[i] && x->stride[0][i] == y->stride[0][i];
    for (uint32_t i = 0; same && i < x->k; i++)
        same = x->extent[x->m + x->n + i] == y->extent[y->m + y->n + i] &&
               x->stride[0][x->m + x->n + i] == y->stride[0][y->m + y->n + i];
    return same;
}

/* ---- order ---- */

static bool writes(const struct program *p, const struct step *s, uint32_t buffer)
{
    for (uint32_t i = 0; i < s->arg_count; i++)
        if (s->arg[i] == buffer &&
            (s->kind == STEP_KERNEL ? p->kernels.at[s->kernel].buffer[i].written : i + 1 == s->arg_count))
            return true;
    return false;
}

/* A buffer that both touch and one of them writes, but for `a`'s and `b`'s own; UINT32_MAX: none. */
static uint32_t common_buffer(const struct program *p, const struct step *s, const struct step *t, uint32_t a,
                              uint32_t b)
{
    for (uint32_t i = 0; i < s->arg_count; i++)
        for (uint32_t k = 0; k < t->arg_count; k++)
            if (s->arg[i] == t->arg[k] && s->arg[i] != a && s->arg[i] != b &&
                (writes(p, s, s->arg[i]) || writes(p, t, t->arg[k])))
                return s->arg[i];
    return UINT32_MAX;
}

/* The steps of a candidate, in no order; their units, and units for the norm. */
struct members {
    uint32_t count, step[1 + 3 * CUDA_SKINNY_UNITS], unit[1 + 3 * CUDA_SKINNY_UNITS];
};

static void add_member(struct members *m, uint32_t step, uint32_t unit)
{
    m->step[m->count] = step;
    m->unit[m->count++] = unit;
}

static struct members members_of(const struct cuda_skinny *a)
{
    struct members m = {0};
    for (uint32_t u = 0; u < a->units; u++) {
        for (uint32_t d = 0; d < a->width; d++)
            add_member(&m, a->unit[u].dot[d], u);
        if (a->unit[u].epilogue)
            add_member(&m, a->unit[u].epilogue, u);
    }
    if (a->normal >= 0)
        add_member(&m, a->norm, a->units);
    return m;
}

static bool is_member(const struct members *m, uint32_t step)
{
    bool found = false;
    for (uint32_t i = 0; i < m->count; i++)
        found |= m->step[i] == step;
    return found;
}

/* Nothing is passed on inside of the function but products to their epilogue and the norm's row to the dots. */
static bool is_independent(const struct program *p, const struct cuda_skinny *a, const struct members *m)
{
    uint32_t row = p->steps.at[a->unit[0].dot[0]].arg[0];
    for (uint32_t i = 0; i < m->count; i++)
        for (uint32_t k = 0; k < i; k++) {
            const struct step *s = &p->steps.at[m->step[i]], *t = &p->steps.at[m->step[k]];
            uint32_t product[2] = {UINT32_MAX, UINT32_MAX};
            for (uint32_t d = 0; d < a->width && m->unit[i] == m->unit[k] && m->unit[i] < a->units; d++)
                product[d] = p->steps.at[a->unit[m->unit[i]].dot[d]].arg[2];
            if (a->normal >= 0 && (m->unit[i] == a->units || m->unit[k] == a->units))
                product[0] = row;
            if (common_buffer(p, s, t, product[0], product[1]) != UINT32_MAX)
                return false;
        }
    return true;
}

/* Each member may wait for the last of them: gives its step. */
static bool may_join(const struct program *p, struct cuda_skinny *a)
{
    struct members m = members_of(a);
    a->place = 0;
    for (uint32_t i = 0; i < m.count; i++)
        a->place = m.step[i] > a->place ? m.step[i] : a->place;
    for (uint32_t i = 0; i < m.count; i++) {
        if (!cuda_may_wait(p, m.step[i], a->place))
            return false;
        for (uint32_t s = m.step[i] + 1; s < a->place; s++)
            if (!is_member(&m, s) &&
                common_buffer(p, &p->steps.at[m.step[i]], &p->steps.at[s], UINT32_MAX, UINT32_MAX) != UINT32_MAX)
                return false;
    }
    return is_independent(p, a, &m);
}

/* ---- epilogues ---- */

static dim row_major(struct dims *t, const struct kernel *k)
{
    dim index = dim_const(t, 0);
    for (uint32_t i = 0; i < k->outer + k->inner; i++)
        index = dim_add(t, dim_mul(t, index, k->extent[i]), dim_coordinate(t, i));
    return index;
}

/* The kernel's one access to a buffer, to all of whose elements it comes in order; -1: it is not so. */
static int32_t plain_access(struct cuda_set *set, const struct step *s, uint32_t buffer, instruction_kind kind)
{
    const struct kernel *k = &set->program->kernels.at[s->kernel];
    dim index = row_major(set->program->graph->dims, k);
    int32_t found = -1;
    for (uint32_t i = 0; i < k->instruction_count; i++) {
        const struct instruction *n = &k->instruction[i];
        if ((n->kind != INST_LOAD && n->kind != INST_STORE) || s->arg[n->buffer] != buffer)
            continue;
        if (found >= 0 || n->kind != kind || n->index != index || n->dynamic >= 0 || n->predicate >= 0)
            return -1;
        found = (int32_t)i;
    }
    return found;
}

/* The only step that reads a temporary that step `from` writes; 0: there is none. */
static uint32_t only_reader(const struct program *p, uint32_t from, uint32_t buffer)
{
    uint32_t readers = 0, last = 0;
    for (uint32_t i = 0; i < p->steps.count; i++)
        for (uint32_t k = 0; k < p->steps.at[i].arg_count && i != from; k++)
            if (p->steps.at[i].arg[k] == buffer) {
                last = i;
                readers++;
            }
    return readers == 1 && last > from && p->buffers.at[buffer].kind == BUFFER_TEMP ? last : 0;
}

/* The pointwise kernel that alone reads a dot's product, element by element, and the load that does; 0: none. */
static uint32_t epilogue_of(struct cuda_set *set, uint32_t dot, int32_t *load)
{
    const struct program *p = set->program;
    uint32_t reader = only_reader(p, dot, p->steps.at[dot].arg[2]);
    const struct step *s = &p->steps.at[reader];
    if (!reader || s->kind != STEP_KERNEL || s->phase != PHASE_RUN || p->kernels.at[s->kernel].inner != 0 ||
        p->kernels.at[s->kernel].outer == 0)
        return 0;
    *load = plain_access(set, s, p->steps.at[dot].arg[2], INST_LOAD);
    return *load >= 0 ? reader : 0;
}

/* ---- candidates ---- */

static uint32_t largest(const struct cuda_set *set, uint32_t step)
{
    const struct cuda_skinny_steps *s = &set->skinny[step];
    return s->count ? s->at[s->count - 1] : UINT32_MAX;
}

static void add_candidate(struct cuda_set *set, struct cuda_skinny *a)
{
    for (uint32_t few = 0; few < 2; few++) /* with a norm for one row only */
        a->function[few] = few && a->normal >= 0 ? UINT32_MAX : cuda_add_skinny(set, a, few != 0);
    struct members m = members_of(a);
    for (uint32_t i = 0; i < m.count; i++) {
        struct cuda_skinny_steps *s = &set->skinny[m.step[i]];
        assert(s->count < CUDA_SKINNY_LEVELS);
        s->at[s->count++] = set->skinnies.count;
    }
    *PUSH(set->arena, &set->skinnies) = *a;
}

static struct cuda_skinny candidate(const struct cuda_set *set, uint32_t dot, uint32_t width)
{
    struct cuda_skinny a = {.units = 1, .width = width, .normal = -1, .place = dot, .joins = true};
    a.unit[0].dot[0] = dot;
    a.along_k = lies_along_k(set, set->program->steps.at[dot].dot);
    return a;
}

/* A dot alone, and with the kernel behind it. */
static void add_single(struct cuda_set *set, uint32_t dot)
{
    struct cuda_skinny a = candidate(set, dot, 1);
    a.joins = false;
    add_candidate(set, &a);
    a.joins = true;
    a.unit[0].epilogue = epilogue_of(set, dot, &a.unit[0].load[0]);
    if (a.unit[0].epilogue && !set->skinny[a.unit[0].epilogue].count && may_join(set->program, &a))
        add_candidate(set, &a);
}

/* Two dots of the same rows whose products one kernel alone reads. */
static void add_pair(struct cuda_set *set, uint32_t dot)
{
    const struct program *p = set->program;
    struct cuda_skinny a = candidate(set, dot, 2);
    uint32_t epilogue = a.unit[0].epilogue = epilogue_of(set, dot, &a.unit[0].load[0]);
    for (uint32_t i = dot + 1; i < epilogue; i++)
        if (may_be_skinny(set, &p->steps.at[i]) && are_siblings(set, &p->steps.at[dot], &p->steps.at[i]) &&
            epilogue_of(set, i, &a.unit[0].load[1]) == epilogue) {
            a.unit[0].dot[1] = i;
            if (may_join(p, &a))
                add_candidate(set, &a);
            return;
        }
}

/* All further dots of the same rows, each with the epilogue that it has alone. */
static void add_siblings(struct cuda_set *set, uint32_t dot)
{
    const struct program *p = set->program;
    struct cuda_skinny a = set->skinnies.at[largest(set, dot)];
    for (uint32_t i = dot + 1; i < p->steps.count && a.units < CUDA_SKINNY_UNITS; i++) {
        const struct cuda_skinny *other = set->skinny[i].count ? &set->skinnies.at[largest(set, i)] : NULL;
        if (!other || other->units > 1 || other->width > 1 || other->unit[0].dot[0] != i ||
            !are_siblings(set, &p->steps.at[dot], &p->steps.at[i]))
            continue;
        struct cuda_skinny with = a;
        with.joins = true;
        with.unit[with.units++] = other->unit[0];
        if (may_join(p, &with))
            a = with;
    }
    if (a.units > 1)
        add_candidate(set, &a);
}

/* The row kernel whose result the dots of a candidate, and no other step, read. */
static void add_norm(struct cuda_set *set, uint32_t dot)
{
    const struct program *p = set->program;
    struct cuda_skinny a = set->skinnies.at[largest(set, dot)];
    uint32_t row = p->steps.at[dot].arg[0];
    struct members m = members_of(&a);
    bool found = false;
    if (p->buffers.at[row].kind != BUFFER_TEMP)
        return;
    for (uint32_t i = 0; i < p->steps.count; i++) {
        const struct step *s = &p->steps.at[i];
        bool touches = false;
        for (uint32_t k = 0; k < s->arg_count; k++)
            touches |= s->arg[k] == row;
        if (!touches || (is_member(&m, i) && s->kind == STEP_DOT))
            continue;
        if (found || i > dot || s->kind != STEP_KERNEL || s->phase != PHASE_RUN || set->skinny[i].count)
            return;
        const struct cuda_kernel *k = &set->kernel[s->kernel];
        a.norm = i;
        a.normal = plain_access(set, s, row, INST_STORE);
        found =
            a.normal >= 0 && p->kernels.at[s->kernel].inner == 1 && k->form.shape == CUDA_ROWS && k->nest.loops == 1;
        if (!found)
            return;
    }
    a.joins = true;
    if (found && may_join(p, &a))
        add_candidate(set, &a);
}

static bool is_first(const struct cuda_set *set, uint32_t step)
{
    return set->skinny[step].count && set->skinnies.at[largest(set, step)].unit[0].dot[0] == step;
}

void cuda_find_skinny(struct cuda_set *set)
{
    uint32_t count = set->program->steps.count;
    set->skinny = NEW_ARRAY(set->arena, struct cuda_skinny_steps, count + 1);
    for (uint32_t i = 0; i < count; i++)
        if (may_be_skinny(set, &set->program->steps.at[i]))
            add_single(set, i);
    for (uint32_t i = 0; i < count; i++)
        if (is_first(set, i) && set->program->steps.at[i].kind == STEP_DOT)
            add_pair(set, i);
    for (uint32_t i = 0; i < count; i++)
        if (is_first(set, i) && set->skinnies.at[largest(set, i)].width == 1)
            add_siblings(set, i);
    for (uint32_t i = 0; i < count; i++)
        if (is_first(set, i))
            add_norm(set, i);
}

/* What a candidate's steps read and write must stay until its place. */
void cuda_keep_skinny(const struct cuda_set *set, struct program *p)
{
    for (uint32_t i = 0; i < set->skinnies.count; i++) {
        struct members m = members_of(&set->skinnies.at[i]);
        for (uint32_t k = 0; k < m.count; k++)
            for (uint32_t j = 0; j < p->steps.at[m.step[k]].arg_count; j++) {
                struct buffer *b = &p->buffers.at[p->steps.at[m.step[k]].arg[j]];
                b->last = b->last < set->skinnies.at[i].place ? set->skinnies.at[i].place : b->last;
            }
    }
}
