/* codegen/builtin_cuda.c - cumsum, topk and scatter over dense row-major buffers, and the helpers of collectives, as CUDA functions.
 *
 * All of them give the same bits in every run: no atomics on data, and where several updates meet one element, one thread takes them in
 * order. Start at cuda_builtin_step.
 */
#include "codegen/cuda_impl.h"

enum { THREADS = 256, SHORT_LINE = 64, MANY_LINES = 512 };

static const struct node *node_of(const struct cuda_set *set, const struct step *s)
{
    return graph_node(set->program->graph, s->node);
}

static dtype type_of(const struct cuda_set *set, const struct step *s, uint32_t arg)
{
    return set->program->buffers.at[s->arg[arg]].type;
}

/* ---- cumsum ---- */

static const char cumsum_form[] =
    "struct $N_arguments {\n"
    "    const $E *from;\n"
    "    $E *to;\n"
    "    int64_t lines, extent, inner, exclusive, reverse;\n"
    "};\n"
    "/* Where element i of a line lies. */\n"
    "static __device__ inline int64_t place(const struct $N_arguments *a, int64_t line, int64_t i)\n"
    "{\n"
    "    const int64_t at = a->reverse ? a->extent - 1 - i : i;\n"
    "    return (line / a->inner * a->extent + at) * a->inner + line % a->inner;\n"
    "}\n";

static const char cumsum_lines_form[] =
    "/* A thread per line. */\n"
    "ENTRY($N, 256)\n"
    "{\n"
    "    for (int64_t line = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; line < arguments.lines;\n"
    "         line += (int64_t)gridDim.x * blockDim.x) {\n"
    "        $A sum = 0;\n"
    "        for (int64_t i = 0; i < arguments.extent; i++) {\n"
    "            const int64_t at = place(&arguments, line, i);\n"
    "            const $A x = ($A)value_of(__ldg(&arguments.from[at]));\n"
    "            arguments.to[at] = element_of(($V)(arguments.exclusive ? sum : sum + x));\n"
    "            sum += x;\n"
    "        }\n"
    "    }\n"
    "}\n";

static const char cumsum_blocks_form[] =
    "/* A block per line, 256 elements at a time: sums within warps, then over the warps before. */\n"
    "ENTRY($N, 256)\n"
    "{\n"
    "    SHARED($A, of_warp, [8]);\n"
    "    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;\n"
    "    for (int64_t line = blockIdx.x; line < arguments.lines; line += gridDim.x) {\n"
    "        $A before = 0;\n"
    "        for (int64_t first = 0; first < arguments.extent; first += 256) {\n"
    "            const int64_t i = first + threadIdx.x;\n"
    "            const bool inside = i < arguments.extent;\n"
    "            const int64_t at = inside ? place(&arguments, line, i) : 0;\n"
    "            const $A x = inside ? ($A)value_of(__ldg(&arguments.from[at])) : ($A)0;\n"
    "            $A sum = x;\n"
    "            for (int distance = 1; distance < 32; distance <<= 1) {\n"
    "                const $A y = __shfl_up_sync(0xffffffffu, sum, distance);\n"
    "                sum += lane >= distance ? y : ($A)0;\n"
    "            }\n"
    "            if (lane == 31)\n"
    "                of_warp[warp] = sum;\n"
    "            __syncthreads();\n"
    "            $A whole = 0;\n"
    "            for (int w = 0; w < 8; w++) {\n"
    "                sum += w < warp ? of_warp[w] : ($A)0;\n"
    "                whole += of_warp[w];\n"
    "            }\n"
    "            if (inside)\n"
    "                arguments.to[at] = element_of(($V)(before + (arguments.exclusive ? sum - x : sum)));\n"
    "            before += whole;\n"
    "            __syncthreads();\n"
    "        }\n"
    "    }\n"
    "}\n";

static uint32_t add_cumsum(struct cuda_set *set, const struct step *s, bool blocks)
{
    dtype t = type_of(set, s, 1);
    const struct dialect d = dialect_cuda();
    struct text body = {.arena = set->arena};
    struct cuda_letters l = {0};
    l.of['N' - 'A'] = arena_printf(set->arena, "tpc_cumsum_%s_%s", dtype_name(t), blocks ? "blocks" : "lines");
    l.of['E' - 'A'] = d.element[t];
    l.of['V' - 'A'] = d.type[t];
    l.of['A' - 'A'] = dtype_is_float(t) ? "double" : "uint64_t";
    cuda_put_element(&body, t);
    cuda_fill(&body, cumsum_form, &l);
    cuda_fill(&body, blocks ? cumsum_blocks_form : cumsum_lines_form, &l);
    return cuda_add(set, l.of['N' - 'A'], body.at, THREADS, s->node);
}

/* ---- topk ---- */

static const char topk_form[] =
    "struct $N_arguments {\n"
    "    const $E *from;\n"
    "    int64_t *to;\n"
    "    int64_t lines, extent, inner, k, smallest;\n"
    "};\n"
    "static __device__ inline bool comes_first(uint64_t a, int64_t at_a, uint64_t b, int64_t at_b)\n"
    "{\n"
    "    return a != b ? a > b : at_a < at_b;\n"
    "}\n"
    "/* A block per line, which finds the first of those behind the last one found, k times. */\n"
    "ENTRY($N, 256)\n"
    "{\n"
    "    SHARED(uint64_t, orders, [8]);\n"
    "    SHARED(int64_t, places, [8]);\n"
    "    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;\n"
    "    for (int64_t line = blockIdx.x; line < arguments.lines; line += gridDim.x) {\n"
    "        const $E *const from = arguments.from + line / arguments.inner * arguments.extent * arguments.inner +\n"
    "                               line % arguments.inner;\n"
    "        int64_t *const to = arguments.to + line / arguments.inner * arguments.k * arguments.inner +\n"
    "                            line % arguments.inner;\n"
    "        uint64_t last = UINT64_MAX;\n"
    "        int64_t last_at = -1;\n"
    "        for (int64_t found = 0; found < arguments.k; found++) {\n"
    "            uint64_t best = 0;\n"
    "            int64_t best_at = INT64_MAX;\n"
    "            for (int64_t i = threadIdx.x; i < arguments.extent; i += 256) {\n"
    "                const uint64_t order = order_of(value_of(__ldg(&from[i * arguments.inner])));\n"
    "                const uint64_t wanted = arguments.smallest ? ~order : order;\n"
    "                if (comes_first(last, last_at, wanted, i) && comes_first(wanted, i, best, best_at)) {\n"
    "                    best = wanted;\n"
    "                    best_at = i;\n"
    "                }\n"
    "            }\n"
    "            for (int distance = 16; distance > 0; distance >>= 1) {\n"
    "                const uint64_t other = __shfl_xor_sync(0xffffffffu, best, distance);\n"
    "                const int64_t other_at = __shfl_xor_sync(0xffffffffu, best_at, distance);\n"
    "                const bool takes = comes_first(other, other_at, best, best_at);\n"
    "                best = takes ? other : best;\n"
    "                best_at = takes ? other_at : best_at;\n"
    "            }\n"
    "            if (lane == 0) {\n"
    "                orders[warp] = best;\n"
    "                places[warp] = best_at;\n"
    "            }\n"
    "            __syncthreads();\n"
    "            last = orders[0];\n"
    "            last_at = places[0];\n"
    "            for (int w = 1; w < 8; w++) {\n"
    "                const bool takes = comes_first(orders[w], places[w], last, last_at);\n"
    "                last = takes ? orders[w] : last;\n"
    "                last_at = takes ? places[w] : last_at;\n"
    "            }\n"
    "            if (threadIdx.x == 0)\n"
    "                to[found * arguments.inner] = last_at;\n"
    "            __syncthreads();\n"
    "        }\n"
    "    }\n"
    "}\n";

static const char *order_text(dtype t)
{
    if (t == DT_F64)
        return "    const uint64_t bits = (uint64_t)__double_as_longlong(x + 0.0);\n"
               "    return x != x ? UINT64_MAX : bits >> 63 ? ~bits : bits | UINT64_C(1) << 63;\n";
    if (dtype_is_float(t))
        return "    const uint32_t bits = __float_as_uint(x + 0.0f);\n"
               "    return x != x ? UINT64_MAX : bits >> 31 ? ~bits : bits | 0x80000000u;\n";
    return dtype_is_signed(t) ? "    return (uint64_t)(int64_t)x + (UINT64_C(1) << 63);\n" : "    return x;\n";
}

void cuda_put_order(struct text *out, const char *name, dtype t)
{
    text_printf(out,
                "/* Larger comes first, NaN before all numbers; -0 is 0. */\n"
                "static __device__ inline uint64_t %s(%s x)\n{\n%s}\n",
                name, dialect_cuda().type[t], order_text(t));
}

static uint32_t add_topk(struct cuda_set *set, const struct step *s)
{
    dtype t = type_of(set, s, 0);
    const struct dialect d = dialect_cuda();
    struct text body = {.arena = set->arena};
    struct cuda_letters l = {0};
    l.of['N' - 'A'] = arena_printf(set->arena, "tpc_topk_%s", dtype_name(t));
    l.of['E' - 'A'] = d.element[t];
    l.of['V' - 'A'] = d.type[t];
    cuda_put_element(&body, t);
    cuda_put_order(&body, "order_of", t);
    cuda_fill(&body, topk_form, &l);
    return cuda_add(set, l.of['N' - 'A'], body.at, THREADS, s->node);
}

/* ---- scatter ---- */

static const char scatter_form[] =
    "struct $N_arguments {\n"
    "    const $I *index;\n"
    "    const $E *updates;\n"
    "    $E *to;\n"
    "    int64_t batch, outer, extent, indices, inner, base, drop;\n"
    "    int64_t *fault;\n"
    "    int64_t step;\n"
    "};\n"
    "/* A thread per element of batch x outer x inner, which takes the updates along the indices in their order. */\n"
    "ENTRY($N, 256)\n"
    "{\n"
    "    bool wrong = false;\n"
    "    const int64_t columns = arguments.batch * arguments.outer * arguments.inner;\n"
    "    for (int64_t column = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; column < columns;\n"
    "         column += (int64_t)gridDim.x * blockDim.x) {\n"
    "        const int64_t inner = column % arguments.inner, row = column / arguments.inner;\n"
    "        const int64_t batch = row / arguments.outer;\n"
    "        for (int64_t i = 0; i < arguments.indices; i++) {\n"
    "            const int64_t index = (int64_t)__ldg(&arguments.index[batch * arguments.indices + i]) - "
    "arguments.base;\n"
    "            if (index < 0 || index >= arguments.extent) {\n"
    "                wrong = true;\n"
    "                continue;\n"
    "            }\n"
    "            const $E update = __ldg(&arguments.updates[(row * arguments.indices + i) * arguments.inner + "
    "inner]);\n"
    "            $E *const to = &arguments.to[(row * arguments.extent + index) * arguments.inner + inner];\n"
    "$X"
    "        }\n"
    "    }\n"
    "    if (wrong && !arguments.drop)\n"
    "        tpc_fault(arguments.fault, arguments.step);\n"
    "}\n";

/* x and y put together as a map of ops.def, or as `combined` of a reduction. */
static const char *combined_text(struct arena *arena, op o, dtype t)
{
    const struct dialect d = dialect_cuda();
    const char *const arg[3] = {"x", "y", ""};
    struct text out = {.arena = arena};
    d.map(&d, &out, &(struct instruction){.kind = INST_MAP, .op = o, .type = t}, t, arg);
    return out.at;
}

static uint32_t add_scatter(struct cuda_set *set, const struct step *s)
{
    static const op ops[] = {[SCATTER_SET] = OP_NONE,
                             [SCATTER_ADD] = OP_ADD,
                             [SCATTER_MUL] = OP_MUL,
                             [SCATTER_MAX] = OP_MAX,
                             [SCATTER_MIN] = OP_MIN};
    dtype t = type_of(set, s, 3), index = type_of(set, s, 1);
    int32_t mode = node_of(set, s)->attribute.mode & 7;
    const struct dialect d = dialect_cuda();
    struct text body = {.arena = set->arena};
    struct cuda_letters l = {0};
    if (mode > SCATTER_MIN)
        return UINT32_MAX;
    l.of['N' - 'A'] = arena_printf(set->arena, "tpc_scatter_%s_%s_%d", dtype_name(t), dtype_name(index), (int)mode);
    l.of['E' - 'A'] = d.element[t];
    l.of['V' - 'A'] = d.type[t];
    l.of['I' - 'A'] = d.element[index];
    l.of['X' - 'A'] = mode == SCATTER_SET
                          ? "            *to = update;\n"
                          : arena_printf(set->arena,
                                         "            const %s x = value_of(*to), y = value_of(update);\n"
                                         "            *to = element_of(%s);\n",
                                         d.type[t], combined_text(set->arena, ops[mode], t));
    cuda_put_element(&body, t);
    cuda_fill(&body, scatter_form, &l);
    return cuda_add(set, l.of['N' - 'A'], body.at, THREADS, s->node);
}

/* ---- helpers of collectives, and copies ---- */

static const char copy_rows_text[] =
    "struct tpc_copy_rows_arguments {\n"
    "    unsigned char *to;\n"
    "    const unsigned char *from;\n"
    "    int64_t rows, bytes, to_pitch, from_pitch, wide; /* wide: all of them are multiples of 16 */\n"
    "};\n"
    "ENTRY(tpc_copy_rows, 256)\n"
    "{\n"
    "    const int64_t first = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, stride = (int64_t)gridDim.x * "
    "blockDim.x;\n"
    "    if (arguments.to == arguments.from && arguments.to_pitch == arguments.from_pitch)\n"
    "        return;\n"
    "    if (arguments.wide) {\n"
    "        const int64_t steps = arguments.bytes / 16;\n"
    "        for (int64_t i = first; i < arguments.rows * steps; i += stride) {\n"
    "            ALIGNED(16) unsigned char part[16];\n"
    "            tpc_read_16(part, arguments.from + i / steps * arguments.from_pitch + i % steps * 16);\n"
    "            tpc_write_16(arguments.to + i / steps * arguments.to_pitch + i % steps * 16, part);\n"
    "        }\n"
    "        return;\n"
    "    }\n"
    "    for (int64_t i = first; i < arguments.rows * arguments.bytes; i += stride)\n"
    "        arguments.to[i / arguments.bytes * arguments.to_pitch + i % arguments.bytes] =\n"
    "            arguments.from[i / arguments.bytes * arguments.from_pitch + i % arguments.bytes];\n"
    "}\n";

uint32_t cuda_add_copy_rows(struct cuda_set *set)
{
    return cuda_add(set, "tpc_copy_rows", copy_rows_text, THREADS, 0);
}

static const char combine_form[] =
    "struct $N_arguments {\n"
    "    $E *to;\n"
    "    const $E *from;\n"
    "    int64_t parts, elements, pitch;\n"
    "};\n"
    "/* Parts in their order; to may be part 0. */\n"
    "ENTRY($N, 256)\n"
    "{\n"
    "    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < arguments.elements;\n"
    "         i += (int64_t)gridDim.x * blockDim.x) {\n"
    "        $V x = value_of(arguments.from[i]);\n"
    "        for (int64_t part = 1; part < arguments.parts; part++) {\n"
    "            const $V y = value_of(arguments.from[part * arguments.pitch + i]);\n"
    "            x = $X;\n"
    "        }\n"
    "        arguments.to[i] = element_of(x);\n"
    "    }\n"
    "}\n";

static const char *combine_name(struct arena *arena, dtype type, int32_t reduction)
{
    return arena_printf(arena, "tpc_combine_%s_%d", dtype_name(type), (int)reduction);
}

uint32_t cuda_add_combine(struct cuda_set *set, dtype type, int32_t reduction)
{
    static const op ops[] = {
        [REDUCTION_SUM] = OP_ADD, [REDUCTION_MAX] = OP_MAX, [REDUCTION_MIN] = OP_MIN, [REDUCTION_PROD] = OP_MUL};
    const struct dialect d = dialect_cuda();
    struct text body = {.arena = set->arena};
    struct cuda_letters l = {0};
    if (reduction < REDUCTION_SUM || reduction > REDUCTION_PROD)
        return UINT32_MAX;
    l.of['N' - 'A'] = combine_name(set->arena, type, reduction);
    l.of['E' - 'A'] = d.element[type];
    l.of['V' - 'A'] = d.type[type];
    l.of['X' - 'A'] = combined_text(set->arena, ops[reduction], type);
    cuda_put_element(&body, type);
    cuda_fill(&body, combine_form, &l);
    return cuda_add(set, l.of['N' - 'A'], body.at, THREADS, 0);
}

void cuda_put_address(struct cuda_making *m)
{
    *PUSH(m->arena, &m->words) = (struct cuda_word){.kind = CUDA_ADDRESS};
}

static void put_copy_numbers(struct cuda_making *m, int64_t rows, int64_t bytes, int64_t to_pitch, int64_t from_pitch)
{
    cuda_put_number(m, rows);
    cuda_put_number(m, bytes);
    cuda_put_number(m, to_pitch);
    cuda_put_number(m, from_pitch);
    cuda_put_number(m, bytes % 16 == 0 && to_pitch % 16 == 0 && from_pitch % 16 == 0);
}

/* Blocks of 256 threads for so many elements. */
static int64_t blocks_for(int64_t elements)
{
    return elements / THREADS + (elements % THREADS != 0);
}

bool cuda_copy_rows(const struct cuda_set *set, int64_t rows, int64_t bytes, int64_t to_pitch, int64_t from_pitch,
                    struct arena *arena, struct cuda_launch *out)
{
    struct cuda_making m = {.set = set, .arena = arena};
    int64_t all;
    if (rows <= 0 || bytes <= 0 || set->copy_rows == UINT32_MAX || !i64_mul(rows, bytes, &all))
        return false;
    cuda_put_address(&m);
    cuda_put_address(&m);
    put_copy_numbers(&m, rows, bytes, to_pitch, from_pitch);
    *out = cuda_launch_of(&m, set->copy_rows, blocks_for(all / 16 + 1), THREADS, 1, 0);
    return true;
}

bool cuda_combine(const struct cuda_set *set, dtype type, int32_t reduction, int64_t parts, int64_t elements,
                  int64_t pitch, struct arena *arena, struct cuda_launch *out)
{
    struct cuda_making m = {.set = set, .arena = arena};
    const char *name = combine_name(arena, type, reduction);
    const uint32_t *function = map_find(&set->by_name, name, strlen(name));
    if (!function || parts <= 0 || elements <= 0)
        return false;
    cuda_put_address(&m);
    cuda_put_address(&m);
    cuda_put_number(&m, parts);
    cuda_put_number(&m, elements);
    cuda_put_number(&m, pitch);
    *out = cuda_launch_of(&m, *function, blocks_for(elements), THREADS, 1, 0);
    return true;
}

/* ---- steps ---- */

uint32_t cuda_add_builtin(struct cuda_set *set, const struct step *s)
{
    uint32_t first = UINT32_MAX;
    switch ((int)node_of(set, s)->op) {
    case OP_CUMSUM:
        first = add_cumsum(set, s, false);
        (void)add_cumsum(set, s, true);
        break;
    case OP_TOPK:
        first = add_topk(set, s);
        break;
    case OP_SCATTER:
        first = add_scatter(set, s);
        break;
    default:
        break;
    }
    return first + 1;
}

struct shape {
    uint32_t rank;
    int64_t extent[MAX_RANK];
};

static bool shape_of(const struct cuda_making *m, value v, struct shape *out)
{
    const struct node *n = graph_node(m->set->program->graph, v);
    out->rank = n->rank;
    for (uint32_t i = 0; i < n->rank; i++)
        if (!dim_eval(m->set->program->graph->dims, n->shape[i], m->of, &out->extent[i]))
            return false;
    return true;
}

static int64_t product(const struct shape *s, uint32_t from, uint32_t to)
{
    int64_t n = 1;
    for (uint32_t i = from; i < to; i++)
        n *= s->extent[i];
    return n;
}

static status cumsum_step(struct cuda_making *m, const struct step *s, const struct node *n, struct cuda_launch *out)
{
    struct shape of;
    uint32_t axis = (uint32_t)n->attribute.axis;
    if (!shape_of(m, s->node, &of) || axis >= of.rank)
        return TPC_DATA;
    int64_t inner = product(&of, axis + 1, of.rank), lines = product(&of, 0, axis) * inner, extent = of.extent[axis];
    if (lines * extent == 0)
        return TPC_OK;
    bool blocks = extent > SHORT_LINE && lines < MANY_LINES;
    cuda_put_buffer(m, s->arg[0], 0);
    cuda_put_buffer(m, s->arg[1], 0);
    const int64_t numbers[] = {lines, extent, inner, n->attribute.mode & 1, n->attribute.mode >> 1 & 1};
    for (int i = 0; i < 5; i++)
        cuda_put_number(m, numbers[i]);
    *out = cuda_launch_of(m, m->set->of_step[m->step] - 1 + blocks, blocks ? lines : blocks_for(lines), THREADS, 1, 0);
    return TPC_OK;
}

static status topk_step(struct cuda_making *m, const struct step *s, const struct node *n, struct cuda_launch *out)
{
    struct shape from, to;
    uint32_t axis = (uint32_t)n->attribute.axis;
    if (!shape_of(m, n->operand[0], &from) || !shape_of(m, s->node, &to) || axis >= to.rank || from.rank != to.rank ||
        to.extent[axis] > from.extent[axis])
        return TPC_DATA;
    int64_t inner = product(&to, axis + 1, to.rank), lines = product(&to, 0, axis) * inner;
    if (lines * to.extent[axis] == 0)
        return TPC_OK;
    cuda_put_buffer(m, s->arg[0], 0);
    cuda_put_buffer(m, s->arg[1], 0);
    const int64_t numbers[] = {lines, from.extent[axis], inner, to.extent[axis], n->attribute.mode == 1};
    for (int i = 0; i < 5; i++)
        cuda_put_number(m, numbers[i]);
    *out = cuda_launch_of(m, m->set->of_step[m->step] - 1, lines, THREADS, 1, 0);
    return TPC_OK;
}

/* First the operand as it is (nothing is moved where it is the result's memory), then the updates. */
static status scatter_step(struct cuda_making *m, const struct step *s, const struct node *n, struct cuda_launch *out,
                           uint32_t *count)
{
    struct shape operand, index;
    uint32_t axis = (uint32_t)n->attribute.axis, nbatch = (uint32_t)n->attribute.nbatch;
    int64_t base = 0;
    if (!shape_of(m, s->node, &operand) || !shape_of(m, n->operand[1], &index) || axis >= operand.rank ||
        nbatch > axis || nbatch > index.rank ||
        (n->attribute.dims_count && !dim_eval(m->set->program->graph->dims, n->attribute.dims[0], m->of, &base)))
        return TPC_DATA;
    int64_t bytes = product(&operand, 0, operand.rank) * (int64_t)dtype_size(type_of(m->set, s, 3));
    if (bytes == 0)
        return TPC_OK;
    cuda_put_buffer(m, s->arg[3], 0);
    cuda_put_buffer(m, s->arg[0], 0);
    put_copy_numbers(m, 1, bytes, bytes, bytes);
    out[(*count)++] = cuda_launch_of(m, m->set->copy_rows, blocks_for(bytes / 16 + 1), THREADS, 1, 0);
    int64_t batch = product(&operand, 0, nbatch), outer = product(&operand, nbatch, axis);
    int64_t indices = product(&index, nbatch, index.rank), inner = product(&operand, axis + 1, operand.rank);
    if (indices == 0)
        return TPC_OK;
    for (uint32_t i = 1; i < 4; i++)
        cuda_put_buffer(m, s->arg[i], 0);
    const int64_t numbers[] = {
        batch, outer, operand.extent[axis], indices, inner, base, (n->attribute.mode & SCATTER_DROP) != 0};
    for (int i = 0; i < 7; i++)
        cuda_put_number(m, numbers[i]);
    cuda_put_fault(m);
    out[(*count)++] = cuda_launch_of(m, m->set->of_step[m->step] - 1, blocks_for(batch * outer * inner), THREADS, 1, 0);
    return TPC_OK;
}

status cuda_builtin_step(struct cuda_making *m, struct cuda_step *out)
{
    const struct step *s = &m->set->program->steps.at[m->step];
    const struct node *n = node_of(m->set, s);
    struct cuda_launch *launch = NEW_ARRAY(m->arena, struct cuda_launch, 2);
    uint32_t count = 0;
    status code = TPC_UNSUPPORTED;
    if (!m->set->of_step[m->step])
        return code;
    if (n->op == OP_SCATTER)
        code = scatter_step(m, s, n, launch, &count);
    else
        code = n->op == OP_CUMSUM ? cumsum_step(m, s, n, launch) : topk_step(m, s, n, launch);
    if (n->op != OP_SCATTER)
        count = launch[0].block[0] != 0;
    *out = (struct cuda_step){.way = count ? CUDA_LAUNCH : CUDA_NOTHING, .count = count, .launch = launch};
    return code;
}
