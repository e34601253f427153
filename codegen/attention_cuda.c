/* codegen/attention_cuda.c - attention on CUDA: dot, softmax kernel, dot as one function that keeps scores in registers.
 *
 * It is found by structure. Two dots with a row kernel between; the kernel's one store is a softmax (found by its operations) of any expression over the
 * first dot's result: scale, mask, bias, softcap, windows, whatever loads it makes; it may count one more score, of the row (a sink). That expression is printed into the function, in the
 * kernel's own coordinates. So nothing here enumerates kinds of attention. Groups of heads that share keys and values are axes that
 * those do not step along: their rows are taken together.
 *
 * Several functions do it, by how many rows share keys and values: attention_few_cuda.c, attention_many_cuda.c; attention_text_cuda.c has what they
 * have in common, attention_launch_cuda.c chooses. Start at cuda_find_attention.
 */
#include "codegen/cuda_impl.h"

enum { WIDTH_LIMIT = 256 };

/* ---- finding ---- */

static const struct instruction *at(const struct kernel *k, int32_t i)
{
    return &k->instruction[i];
}

static bool is_map(const struct kernel *k, int32_t i, op o)
{
    return i >= 0 && at(k, i)->kind == INST_MAP && at(k, i)->op == o;
}

static bool is_reduce(const struct kernel *k, int32_t i, op o)
{
    return i >= 0 && at(k, i)->kind == INST_REDUCE && at(k, i)->op == o;
}

static bool is_zero(const struct kernel *k, int32_t i)
{
    return i >= 0 && at(k, i)->kind == INST_CONST && at(k, i)->number == 0 && dtype_is_float(at(k, i)->type);
}

/* v, or what it is cast from: a difference that is rounded before its exponential need not be. */
static int32_t uncast(const struct kernel *k, int32_t v)
{
    return is_map(k, v, OP_CAST) && dtype_is_float(at(k, at(k, v)->arg[0])->type) ? at(k, v)->arg[0] : v;
}

/* exp(x - top): gives x. */
static bool match_exponential(const struct kernel *k, int32_t e, int32_t *x, int32_t *top)
{
    int32_t low = is_map(k, e, OP_EXP) ? uncast(k, at(k, e)->arg[0]) : e;
    if (!is_map(k, e, OP_EXP) || !is_map(k, low, OP_SUB))
        return false;
    *x = at(k, low)->arg[0];
    *top = at(k, low)->arg[1];
    return true;
}

/* e = exp(x - top) with top = max(x) and its sum; or with one more x, of the row, in both the maximum and the sum: a sink. */
static bool match_sum(const struct kernel *k, int32_t e, int32_t sum, struct cuda_attention *a)
{
    int32_t top, x, again;
    a->sink = -1;
    if (!match_exponential(k, e, &a->score, &top) || at(k, a->score)->level != 1)
        return false;
    for (int i = 0; i < 2 && is_map(k, sum, OP_ADD); i++)
        if (match_exponential(k, at(k, sum)->arg[i], &x, &again) && again == top && at(k, x)->level == 0) {
            a->sink = x;
            sum = at(k, sum)->arg[1 - i];
            break;
        }
    for (int i = 0; i < 2 && a->sink >= 0 && is_map(k, top, OP_MAX); i++)
        if (at(k, top)->arg[i] == a->sink) {
            top = at(k, top)->arg[1 - i];
            break;
        }
    return is_reduce(k, sum, OP_REDUCE_SUM) && at(k, sum)->arg[0] == e && is_reduce(k, top, OP_REDUCE_MAX) &&
           at(k, top)->arg[0] == a->score;
}

/* The value p as a softmax. */
static bool match_softmax(const struct kernel *k, int32_t p, struct cuda_attention *a)
{
    if (is_map(k, p, OP_CAST) && dtype_is_float(at(k, at(k, p)->arg[0])->type))
        p = at(k, p)->arg[0];
    if (is_map(k, p, OP_SELECT) && is_map(k, at(k, p)->arg[0], OP_ISNAN) && is_zero(k, at(k, p)->arg[1]) &&
        at(k, at(k, p)->arg[0])->arg[0] == at(k, p)->arg[2]) {
        a->nan_is_zero = true;
        p = at(k, p)->arg[2];
    } else if (is_map(k, p, OP_SELECT) && at(k, at(k, p)->arg[0])->level == 0 && is_zero(k, at(k, p)->arg[1])) {
        a->zero = at(k, p)->arg[0];
        p = at(k, p)->arg[2];
    }
    if (is_map(k, p, OP_DIV))
        return match_sum(k, at(k, p)->arg[0], at(k, p)->arg[1], a);
    if (!is_map(k, p, OP_MUL))
        return false;
    for (int i = 0; i < 2; i++) {
        int32_t inverse = at(k, p)->arg[1 - i];
        if (is_map(k, inverse, OP_RECIP) && match_sum(k, at(k, p)->arg[i], at(k, inverse)->arg[0], a))
            return true;
    }
    return false;
}

/* The kernel's elements in row-major order. */
static dim row_major(struct dims *t, const struct kernel *k)
{
    dim index = dim_const(t, 0);
    for (uint32_t i = 0; i < k->outer + k->inner; i++)
        index = dim_add(t, dim_mul(t, index, k->extent[i]), dim_coordinate(t, i));
    return index;
}

static bool is_plain(const struct instruction *n, dim index)
{
    return n->index == index && n->dynamic < 0 && n->predicate < 0 && n->level == 1;
}

static bool match_kernel(struct cuda_set *set, const struct step *s, uint32_t scores, struct cuda_attention *a)
{
    const struct kernel *k = &set->program->kernels.at[s->kernel];
    dim index = row_major(set->program->graph->dims, k);
    int32_t store = -1, loads = 0;
    if (k->inner != 1)
        return false;
    for (uint32_t i = 0; i < k->instruction_count; i++) {
        const struct instruction *n = &k->instruction[i];
        bool reads = n->kind == INST_LOAD && s->arg[n->buffer] == scores;
        if (n->kind == INST_STORE && (store >= 0 || !is_plain(n, index)))
            return false;
        if (reads && !is_plain(n, index))
            return false;
        store = n->kind == INST_STORE ? (int32_t)i : store;
        a->load = reads ? (int32_t)i : a->load;
        a->from = reads ? n->buffer : a->from;
        loads += reads;
    }
    if (store < 0 || loads != 1)
        return false;
    a->to = at(k, store)->buffer;
    return dtype_is_float(at(k, store)->type) && match_softmax(k, at(k, store)->arg[0], a) &&
           (a->sink < 0 || set->kernel[s->kernel].nest.value[a->sink].stage == 0);
}

static uint32_t uses_of(const struct program *p, uint32_t buffer)
{
    uint32_t uses = 0;
    for (uint32_t i = 0; i < p->steps.count; i++)
        for (uint32_t k = 0; k < p->steps.at[i].arg_count; k++)
            uses += p->steps.at[i].arg[k] == buffer;
    return uses;
}

/* A dot with one axis of n and of k, whose result (operand 2) or left operand (0) is a temporary of two uses. */
static bool is_half(const struct program *p, const struct step *s, int operand)
{
    if (s->kind != STEP_DOT || s->phase != PHASE_RUN || s->dot->n != 1 || s->dot->k != 1)
        return false;
    uint32_t buffer = s->arg[operand];
    dtype t = p->buffers.at[buffer].type;
    return p->buffers.at[buffer].kind == BUFFER_TEMP && uses_of(p, buffer) == 2 &&
           (t == DT_F32 || t == DT_F16 || t == DT_BF16);
}

static bool constant_width(const struct cuda_set *set, dim extent, int64_t *out)
{
    return dim_is_const(set->program->graph->dims, extent, out) && *out >= 1 && *out <= WIDTH_LIMIT;
}

uint32_t cuda_rows_axes(const struct dot *d)
{
    return d->batch + d->m;
}

/* The widths of a key and of a value. */
bool cuda_attention_widths(const struct cuda_set *set, const struct cuda_attention *a, int64_t *key, int64_t *row)
{
    const struct dot *first = set->program->steps.at[a->scores].dot, *second = set->program->steps.at[a->product].dot;
    return constant_width(set, first->extent[cuda_rows_axes(first) + 1], key) &&
           constant_width(set, second->extent[cuda_rows_axes(second)], row);
}

static bool writes_temporaries(const struct program *p, const struct step *s)
{
    bool all = true;
    for (uint32_t i = 0; i < s->arg_count; i++) {
        bool written = s->kind == STEP_KERNEL ? p->kernels.at[s->kernel].buffer[i].written : i + 1 == s->arg_count;
        all = all && (!written || p->buffers.at[s->arg[i]].kind == BUFFER_TEMP);
    }
    return all;
}

bool cuda_may_wait(const struct program *p, uint32_t step, uint32_t until)
{
    bool all = true;
    for (uint32_t i = step + 1; i < until; i++)
        all = all && writes_temporaries(p, &p->steps.at[i]);
    return all;
}

static bool match(struct cuda_set *set, uint32_t number, struct cuda_attention *a)
{
    const struct program *p = set->program;
    int64_t key, row;
    *a = (struct cuda_attention){.scores = number, .load = -1, .zero = -1, .sink = -1};
    if (!is_half(p, &p->steps.at[number], 2))
        return false;
    uint32_t scores = p->steps.at[number].arg[2];
    uint32_t s = number + 1;
    while (s < p->steps.count && !(p->steps.at[s].kind == STEP_KERNEL && p->steps.at[s].phase == PHASE_RUN &&
                                   match_kernel(set, &p->steps.at[s], scores, a)))
        s++;
    if (s == p->steps.count)
        return false;
    a->softmax = s;
    uint32_t probabilities = p->steps.at[s].arg[a->to];
    for (s++; s < p->steps.count; s++)
        if (is_half(p, &p->steps.at[s], 0) && p->steps.at[s].arg[0] == probabilities) {
            a->product = s;
            return cuda_may_wait(p, number, s) && cuda_attention_widths(set, a, &key, &row);
        }
    return false;
}

/* Rows by rows of `row` elements, in the order of the axes. */
static bool is_dense(struct dims *t, const struct dot *d, int matrix, dim row)
{
    for (uint32_t i = cuda_rows_axes(d); i-- > 0;) {
        if (d->stride[matrix][i] != row)
            return false;
        row = dim_mul(t, row, d->extent[i]);
    }
    return true;
}

/* Does it follow from the expressions that cuda_attention_fits, for all shapes with a key? */
static bool fits_always(const struct cuda_set *set, const struct cuda_attention *a)
{
    const struct dot *first = set->program->steps.at[a->scores].dot, *second = set->program->steps.at[a->product].dot;
    struct dims *t = set->program->graph->dims;
    uint32_t axes = cuda_rows_axes(first);
    bool same = axes == cuda_rows_axes(second) && first->extent[axes] == second->extent[axes + 1] &&
                dim_is(t, first->offset[2], 0) && dim_is(t, second->offset[0], 0) &&
                dim_is(t, first->stride[2][axes], 1) && dim_is(t, second->stride[0][axes + 1], 1);
    for (uint32_t i = 0; i < axes && same; i++)
        same = first->extent[i] == second->extent[i] &&
               dim_is(t, first->stride[1][i], 0) == dim_is(t, second->stride[1][i], 0);
    return same && is_dense(t, first, 2, first->extent[axes]) && is_dense(t, second, 0, first->extent[axes]);
}

/* ---- functions, steps ---- */

void cuda_find_attention(struct cuda_set *set)
{
    set->attention = NEW_ARRAY(set->arena, uint32_t, set->program->steps.count + 1);
    for (uint32_t i = 0; i < set->program->steps.count; i++) {
        struct cuda_attention a;
        const struct step *s = &set->program->steps.at[i];
        if (set->attention[i] || !match(set, i, &a) ||
            set->program->buffers.at[s->arg[0]].type !=
                set->program->buffers.at[set->program->steps.at[a.product].arg[2]].type)
            continue;
        a.alike = a.always = fits_always(set, &a);
        cuda_add_attention(set, &a);
        *PUSH(set->arena, &set->attentions) = a;
        set->attention[a.scores] = set->attention[a.softmax] = set->attention[a.product] = set->attentions.count;
    }
}

/* What the function reads must stay until it runs, which is in the place of the last of the three steps. */
static void keep_until(struct program *p, const struct step *s, uint32_t last)
{
    for (uint32_t i = 0; i < s->arg_count; i++) {
        struct buffer *b = &p->buffers.at[s->arg[i]];
        b->last = b->last < last ? last : b->last;
    }
}

void cuda_join_steps(struct cuda_set *set, struct program *p)
{
    set->joined = true;
    cuda_keep_joined(set, p);
    cuda_keep_skinny(set, p);
    cuda_keep_epilogues(set, p);
    for (uint32_t i = 0; i < set->attentions.count; i++) {
        const struct cuda_attention *a = &set->attentions.at[i];
        keep_until(p, &p->steps.at[a->scores], a->product);
        keep_until(p, &p->steps.at[a->softmax], a->product);
        for (uint32_t b = 0; b < p->buffers.count; b++)
            if (cuda_buffer_unused(set, b)) {
                p->buffers.at[b].first = 1;
                p->buffers.at[b].last = 0;
            }
    }
}

bool cuda_buffer_unused(const struct cuda_set *set, uint32_t buffer)
{
    for (uint32_t i = 0; i < set->attentions.count && set->joined; i++) {
        const struct cuda_attention *a = &set->attentions.at[i];
        if (a->always &&
            (set->program->steps.at[a->scores].arg[2] == buffer || set->program->steps.at[a->product].arg[0] == buffer))
            return true;
    }
    return false;
}
