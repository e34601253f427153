/* codegen/attention_cuda.c - attention on CUDA: dot, softmax kernel, dot as one function that keeps scores in registers.
 *
 * It is found by structure. Two dots with a row kernel between; the kernel's one store is a softmax (found by its operations) of any expression over the
 * first dot's result: scale, mask, bias, softcap, windows, whatever loads it makes. That expression is printed into the function, in the
 * kernel's own coordinates. So nothing here enumerates kinds of attention. Groups of heads that share keys and values are axes that
 * those do not step along: their rows are taken together.
 *
 * A block takes ROWS rows (128 / LANES) and goes through keys and values 32 at a time: scores, the running maximum and sum (rescaled when the
 * maximum grows), and the result in registers. With few rows the keys are split over several blocks, whose parts a second function puts
 * together. Products are of f32 by plain multiplication: tensor cores are not used yet. Start at cuda_find_attention.
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

/* exp(x - max(x)) with its sum; gives x. */
static bool match_exponential(const struct kernel *k, int32_t e, int32_t sum, int32_t *score)
{
    if (!is_map(k, e, OP_EXP) || !is_reduce(k, sum, OP_REDUCE_SUM) || at(k, sum)->arg[0] != e)
        return false;
    int32_t low = at(k, e)->arg[0];
    if (!is_map(k, low, OP_SUB) || !is_reduce(k, at(k, low)->arg[1], OP_REDUCE_MAX))
        return false;
    *score = at(k, low)->arg[0];
    return at(k, at(k, low)->arg[1])->arg[0] == *score && at(k, *score)->level == 1;
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
    }
    if (is_map(k, p, OP_DIV))
        return match_exponential(k, at(k, p)->arg[0], at(k, p)->arg[1], &a->score);
    if (!is_map(k, p, OP_MUL))
        return false;
    for (int i = 0; i < 2; i++) {
        int32_t inverse = at(k, p)->arg[1 - i];
        if (is_map(k, inverse, OP_RECIP) && match_exponential(k, at(k, p)->arg[i], at(k, inverse)->arg[0], &a->score))
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
    return dtype_is_float(at(k, store)->type) && match_softmax(k, at(k, store)->arg[0], a);
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
    *a = (struct cuda_attention){.scores = number, .load = -1};
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

/* ---- text ---- */

static const char head_form[] =
    "struct $N_arguments {\n"
    "    const $E *q, *k, *v;\n"
    "    $E *out;\n"
    "    float *part; /* [row][split]: result, maximum, sum; where there are several splits */\n"
    "    int64_t q_offset, k_offset, v_offset, out_offset;\n"
    "    struct {\n"
    "        int64_t extent, inner, outer; /* strides of q and k; of out and v */\n"
    "    } first[$A], second[$B]; /* rows, outermost first */\n"
    "    int64_t q_step, k_step, v_step, out_step, k_next, v_next;\n"
    "    int64_t rows, group, tiles, keys, splits, per_split;\n";

static const char merge_text[] =
    "    for (int64_t item = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; item < arguments.rows * $W;\n"
    "         item += (int64_t)gridDim.x * blockDim.x) {\n"
    "        const int64_t row = item / $W, d = item % $W;\n"
    "        const float *const part = arguments.part + row * arguments.splits * ($W + 2);\n"
    "        float best = -INFINITY, sum = 0, x = 0;\n"
    "        for (int64_t i = 0; i < arguments.splits; i++)\n"
    "            best = part[i * ($W + 2) + $W] > best ? part[i * ($W + 2) + $W] : best;\n"
    "        for (int64_t i = 0; i < arguments.splits; i++) {\n"
    "            const float most = part[i * ($W + 2) + $W], scale = most == best ? 1.0f : expf(most - best);\n"
    "            sum += scale * part[i * ($W + 2) + $W + 1];\n"
    "            x += scale * part[i * ($W + 2) + d];\n"
    "        }\n"
    "        int64_t v_at = 0, out_at = arguments.out_offset, at = row;\n"
    "        LOCATE(second, $B, at, out_at, v_at)\n"
    "        x = x / sum;\n"
    "        arguments.out[out_at + d * arguments.out_step] = element_of($Z);\n"
    "    }\n"
    "}\n";

static const char locate_text[] = "/* Moves two places to row `at`. */\n"
                                  "#define LOCATE(axes, count, at, to_inner, to_outer) \\\n"
                                  "    for (int a = (count) - 1; a >= 0; a--) { \\\n"
                                  "        const int64_t i = (at) % arguments.axes[a].extent; \\\n"
                                  "        (at) /= arguments.axes[a].extent; \\\n"
                                  "        to_inner += i * arguments.axes[a].inner; \\\n"
                                  "        to_outer += i * arguments.axes[a].outer; \\\n"
                                  "    }\n";

static const char start_form[] =
    "    SHARED(float, q_rows, [$Q][$D]);\n"
    "    SHARED(float, k_rows, [32][$D + 1]);\n"
    "    SHARED(float, v_rows, [32][$W]);\n"
    "    SHARED(float, p_rows, [$Q][33]);\n"
    "    const int lane = threadIdx.x % $L, own = threadIdx.x / $L;\n"
    "    const int64_t groups = arguments.rows / arguments.group;\n"
    "    for (int64_t item = blockIdx.x; item < groups * arguments.tiles * arguments.splits; item += gridDim.x) {\n"
    "        const int64_t split = item % arguments.splits, tile = item / arguments.splits % arguments.tiles;\n"
    "        const int64_t in_group = tile * $Q, here = arguments.group - in_group;\n"
    "        const bool inside = own < here;\n"
    "        const int64_t row = item / arguments.splits / arguments.tiles * arguments.group + in_group +\n"
    "                            (inside ? own : 0);\n"
    "        int64_t q_at = arguments.q_offset, k_at = arguments.k_offset, v_at = arguments.v_offset;\n"
    "        int64_t out_at = arguments.out_offset, at_first = row, at_second = row;\n"
    "        LOCATE(first, $A, at_first, q_at, k_at)\n"
    "        LOCATE(second, $B, at_second, out_at, v_at)\n"
    "        for (int d = lane; d < $D; d += $L)\n"
    "            q_rows[own][d] = value_of(__ldg(&arguments.q[q_at + d * arguments.q_step]));\n";

static const char loop_form[] = "        float most = -INFINITY, sum = 0, result[$R] = {0};\n"
                                "        const int64_t end = (split + 1) * arguments.per_split;\n"
                                "        const int64_t stop = end < arguments.keys ? end : arguments.keys;\n"
                                "        for (int64_t from = split * arguments.per_split; from < stop; from += 32) {\n"
                                "            __syncthreads(); /* the last keys are done with */\n"
                                "            for (int i = threadIdx.x; i < 32 * $D; i += 128) {\n"
                                "                const int64_t key = from + i / $D;\n"
                                "                k_rows[i / $D][i % $D] = key < stop\n"
                                "                    ? value_of(__ldg(&arguments.k[k_at + key * arguments.k_next + i % "
                                "$D * arguments.k_step])) : 0.0f;\n"
                                "            }\n"
                                "            for (int i = threadIdx.x; i < 32 * $W; i += 128) {\n"
                                "                const int64_t key = from + i / $W;\n"
                                "                v_rows[i / $W][i % $W] = key < stop\n"
                                "                    ? value_of(__ldg(&arguments.v[v_at + key * arguments.v_next + i % "
                                "$W * arguments.v_step])) : 0.0f;\n"
                                "            }\n"
                                "            __syncthreads();\n"
                                "            float scores[32 / $L], best = most;\n"
                                "            UNROLL for (int j = 0; j < 32 / $L; j++) {\n"
                                "                float product = 0;\n"
                                "                for (int d = 0; d < $D; d++)\n"
                                "                    product += q_rows[own][d] * k_rows[lane + j * $L][d];\n"
                                "                scores[j] = -INFINITY;\n"
                                "                if (from + lane + j * $L < stop) {\n"
                                "                    const int64_t c$C = from + lane + j * $L;\n";

static const char end_form[] =
    "                }\n"
    "                best = scores[j] > best ? scores[j] : best;\n"
    "            }\n"
    "            for (int distance = $L / 2; distance > 0; distance >>= 1) {\n"
    "                const float other = __shfl_xor_sync(0xffffffffu, best, distance);\n"
    "                best = other > best ? other : best;\n"
    "            }\n"
    "            const float scale = most == best ? 1.0f : expf(most - best);\n"
    "            float more = 0;\n"
    "            UNROLL for (int j = 0; j < 32 / $L; j++) {\n"
    "                const float p = scores[j] == -INFINITY ? 0.0f : expf(scores[j] - best);\n"
    "                p_rows[own][lane + j * $L] = p;\n"
    "                more += p;\n"
    "            }\n"
    "            for (int distance = $L / 2; distance > 0; distance >>= 1)\n"
    "                more += __shfl_xor_sync(0xffffffffu, more, distance);\n"
    "            sum = sum * scale + more;\n"
    "            most = best;\n"
    "            __syncwarp();\n"
    "            UNROLL for (int i = 0; i < $R; i++) {\n"
    "                const int d = lane + i * $L;\n"
    "                float x = result[i] * scale;\n"
    "                if (d < $W)\n"
    "                    for (int key = 0; key < 32; key++)\n"
    "                        x += p_rows[own][key] * v_rows[key][d];\n"
    "                result[i] = x;\n"
    "            }\n"
    "        }\n"
    "        float *const part = arguments.part + (row * arguments.splits + split) * ($W + 2);\n"
    "        UNROLL for (int i = 0; i < $R; i++) {\n"
    "            const int d = lane + i * $L;\n"
    "            const float x = result[i] / sum;\n"
    "            if (inside && d < $W && arguments.splits == 1)\n"
    "                arguments.out[out_at + d * arguments.out_step] = element_of($Z);\n"
    "            else if (inside && d < $W)\n"
    "                part[d] = result[i];\n"
    "        }\n"
    "        if (inside && lane == 0 && arguments.splits > 1) {\n"
    "            part[$W] = most;\n"
    "            part[$W + 1] = sum;\n"
    "        }\n"
    "        __syncthreads(); /* before the next rows */\n"
    "    }\n";

static void no_accumulator(struct printer *p, uint32_t i)
{
    (void)p;
    (void)i;
}

/* What the softmax is of, from `product`, in the kernel's coordinates. */
static void print_score(struct printer *p, const struct cuda_attention *a)
{
    const struct instruction *load = &p->nest->kernel->instruction[a->load];
    struct text element = {.arena = p->arena};
    p->dialect->store(&element, load->type, "product"); /* rounded as it would be in memory */
    p->staged[a->load] = element.at;
    p->indent = 5;
    print_indices(p, nest_fast_depth(p->nest), 0);
    print_values(p, nest_fast_depth(p->nest), 0);
    print_line(p, "scores[j] = (float)%s;", print_value(p, (uint32_t)a->score));
}

static void print_main(struct cuda_set *set, const struct cuda_attention *a, const struct cuda_letters *l,
                       const struct nest *n, struct text *out)
{
    struct dialect d = dialect_cuda_of(n->kernel);
    d.accumulate = no_accumulator;
    struct printer p = {.nest = n, .dialect = &d, .arena = set->arena, .out = out};
    bool *skip = NEW_ARRAY(set->arena, bool, n->kernel->buffer_count + 1);
    skip[a->from] = skip[a->to] = true;
    p.index_of = NEW_ARRAY(set->arena, uint32_t, n->kernel->instruction_count + 1);
    p.staged = NEW_ARRAY(set->arena, const char *, n->kernel->instruction_count + 1);
    cuda_fill(out, head_form, l);
    p.indent = 1;
    cuda_print_members(&p, skip);
    text_put(out, "};\n");
    text_put(out, locate_text);
    cuda_fill(out, "/* $Q rows per block, $L threads each; keys and values 32 at a time. */\nENTRY($N, 128)\n{\n", l);
    cuda_print_locals(&p, skip);
    print_indices(&p, DEPTH_ENTRY, 0);
    print_values(&p, DEPTH_ENTRY, 0);
    cuda_fill(out, start_form, l);
    p.indent = 2;
    cuda_print_coordinates(&p, n->point, n->points, "row");
    print_indices(&p, DEPTH_POINT, 0);
    print_values(&p, DEPTH_POINT, 0);
    cuda_fill(out, loop_form, l);
    print_score(&p, a);
    cuda_fill(out, end_form, l);
    p.indent = 1;
    cuda_print_fault_reports(&p);
    text_put(out, "}\n");
}

static struct cuda_letters letters_of(struct cuda_set *set, const struct cuda_attention *a, uint32_t lanes)
{
    const struct step *first = &set->program->steps.at[a->scores], *second = &set->program->steps.at[a->product];
    const struct dialect d = dialect_cuda();
    struct arena *arena = set->arena;
    struct cuda_letters l = {0};
    int64_t key = 0, row = 0;
    dtype t = set->program->buffers.at[second->arg[2]].type;
    (void)cuda_attention_widths(set, a, &key, &row);
    l.of['E' - 'A'] = d.element[t];
    l.of['A' - 'A'] = cuda_number(arena, cuda_rows_axes(first->dot) ? cuda_rows_axes(first->dot) : 1);
    l.of['B' - 'A'] = cuda_number(arena, cuda_rows_axes(second->dot) ? cuda_rows_axes(second->dot) : 1);
    l.of['D' - 'A'] = cuda_number(arena, key);
    l.of['W' - 'A'] = cuda_number(arena, row);
    l.of['L' - 'A'] = cuda_number(arena, lanes);
    l.of['Q' - 'A'] = cuda_number(arena, CUDA_ATTENTION_THREADS / lanes);
    l.of['R' - 'A'] = cuda_number(arena, (row + lanes - 1) / lanes);
    l.of['C' - 'A'] = cuda_number(arena, set->kernel[set->program->steps.at[a->softmax].kernel].nest.loop[0]);
    l.of['Z' - 'A'] = a->nan_is_zero ? "x != x ? 0.0f : x" : "x";
    return l;
}

static void add_functions(struct cuda_set *set, struct cuda_attention *a)
{
    const struct program *p = set->program;
    const struct step *softmax = &p->steps.at[a->softmax], *product = &p->steps.at[a->product];
    const struct nest *n = &set->kernel[softmax->kernel].nest;
    dtype t = p->buffers.at[product->arg[2]].type;
    char kernel[KERNEL_NAME];
    kernel_name(n->kernel, p->graph->dims, set->arena, kernel);
    for (int i = 0; i < 2; i++) {
        struct cuda_letters l = letters_of(set, a, cuda_attention_lanes[i]);
        struct text body = {.arena = set->arena}, merge = {.arena = set->arena};
        const char *shape = arena_printf(set->arena, "%s_%s_%s_%s_%s", dtype_name(t), l.of['D' - 'A'], l.of['W' - 'A'],
                                         l.of['A' - 'A'], l.of['B' - 'A']);
        l.of['N' - 'A'] =
            arena_printf(set->arena, "tpc_attention_%s_%s_%u", kernel + 6, shape, cuda_attention_lanes[i]);
        cuda_put_element(&body, t);
        print_main(set, a, &l, n, &body);
        a->function[i] = cuda_add(set, l.of['N' - 'A'], body.at, CUDA_ATTENTION_THREADS, product->node);
        if (i == 0)
            continue;
        l.of['N' - 'A'] = arena_printf(set->arena, "tpc_attention_merge_%s%s", shape, a->nan_is_zero ? "_0" : "");
        cuda_put_element(&merge, t);
        cuda_fill(&merge, head_form, &l);
        text_put(&merge, "};\n");
        text_put(&merge, locate_text);
        cuda_fill(&merge, "/* An element per thread, from the parts of all splits. */\nENTRY($N, 128)\n{\n", &l);
        cuda_fill(&merge, merge_text, &l);
        a->merge = cuda_add(set, l.of['N' - 'A'], merge.at, CUDA_ATTENTION_THREADS, product->node);
    }
}

/* Shared memory of a block, in bytes: what is more than a block has by default is left to the three steps. */
static bool has_room(const struct cuda_set *set, const struct cuda_attention *a)
{
    int64_t key = 0, row = 0;
    (void)cuda_attention_widths(set, a, &key, &row);
    return 4 * (16 * key + CUDA_ATTENTION_KEYS * (key + 1) + CUDA_ATTENTION_KEYS * row +
                16 * (CUDA_ATTENTION_KEYS + 1)) <=
           48 * 1024;
}

void cuda_find_attention(struct cuda_set *set)
{
    set->attention = NEW_ARRAY(set->arena, uint32_t, set->program->steps.count + 1);
    for (uint32_t i = 0; i < set->program->steps.count; i++) {
        struct cuda_attention a;
        const struct step *s = &set->program->steps.at[i];
        if (set->attention[i] || !match(set, i, &a) || !has_room(set, &a) ||
            set->program->buffers.at[s->arg[0]].type !=
                set->program->buffers.at[set->program->steps.at[a.product].arg[2]].type)
            continue;
        add_functions(set, &a);
        a.always = fits_always(set, &a);
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
    for (uint32_t i = 0; i < set->skinnies.count; i++)
        if (set->skinnies.at[i].epilogue)
            keep_until(p, &p->steps.at[set->skinnies.at[i].dot], set->skinnies.at[i].epilogue);
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
