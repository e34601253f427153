/* codegen/best_cuda.c - the largest of each of some lines, and where it is: what a greedy choice of tokens needs of logits, as a CUDA function.
 *
 * Of equal numbers the first is taken, and NaN comes before all numbers, so that the answer does not depend on the order in which threads meet, nor on how a
 * line is cut. Start at cuda_best.
 */
#include "codegen/cuda_impl.h"

#include <math.h>

enum { THREADS = 1024, PIECES = 4 }; /* of 16 bytes that a thread has under way: one block reads a line */

const char cuda_found_form[] =
    "static __device__ inline bool comes_first(uint64_t a, uint64_t at_a, uint64_t b, uint64_t at_b)\n"
    "{\n"
    "    return a != b ? a > b : at_a < at_b;\n"
    "}\n"
    "struct $N_found {\n"
    "    uint64_t order, at;\n"
    "};\n"
    "static __device__ inline void meet(struct $N_found *best, uint64_t order, uint64_t at)\n"
    "{\n"
    "    const bool takes = comes_first(order, at, best->order, best->at);\n"
    "    best->order = takes ? order : best->order;\n"
    "    best->at = takes ? at : best->at;\n"
    "}\n"
    "static __device__ inline void meet_warp(struct $N_found *best)\n"
    "{\n"
    "    for (int distance = 16; distance > 0; distance >>= 1) {\n"
    "        const uint64_t order = __shfl_xor_sync(0xffffffffu, best->order, distance);\n"
    "        const uint64_t at = __shfl_xor_sync(0xffffffffu, best->at, distance);\n"
    "        meet(best, order, at);\n"
    "    }\n"
    "}\n"
    "/* The first warp then has the block's. */\n"
    "static __device__ inline void meet_block(struct $N_found *best)\n"
    "{\n"
    "    SHARED(struct $N_found, of_warp, [32]);\n"
    "    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;\n"
    "    meet_warp(best);\n"
    "    if (lane == 0)\n"
    "        of_warp[warp] = *best;\n"
    "    __syncthreads();\n"
    "    if (warp == 0) {\n"
    "        *best = of_warp[lane % (blockDim.x / 32)];\n"
    "        meet_warp(best);\n"
    "    }\n"
    "    __syncthreads();\n"
    "}\n";

static const char best_form[] =
    "struct $N_arguments {\n"
    "    const $E *from;\n"
    "    uint64_t *to; /* per line: the order of its largest, where that is */\n"
    "    int64_t lines, first, step, extent, base;\n"
    "    void *next; /* NULL, or per line an integer of so many bytes: where that is */\n"
    "    int64_t next_bytes;\n"
    "};\n"
    "/* A block per line. Its elements are read 16 bytes at once, but for those before the first and behind the last "
    "such piece. */\n"
    "ENTRY($N, $T)\n"
    "{\n"
    "    const int64_t extent = arguments.extent;\n"
    "    for (int64_t line = blockIdx.x; line < arguments.lines; line += gridDim.x) {\n"
    "        const $E *const from = arguments.from + (arguments.first + line * arguments.step) * extent;\n"
    "        const int64_t before = (int64_t)((16 - (uint64_t)from % 16) % 16 / sizeof($E));\n"
    "        const int64_t head = before < extent ? before : extent, pieces = (extent - head) / $W;\n"
    "        const int64_t tail = head + pieces * $W;\n"
    "        struct $N_found best = {0, UINT64_MAX};\n"
    "        for (int64_t i = threadIdx.x; i < head; i += $T)\n"
    "            meet(&best, order_of(value_of(__ldg(&from[i]))), (uint64_t)i);\n"
    "        for (int64_t first = threadIdx.x; first < pieces; first += $P * $T) {\n"
    "            ALIGNED(16) $E part[$P][$W];\n"
    "            UNROLL for (int p = 0; p < $P; p++)\n"
    "                if (first + p * $T < pieces)\n"
    "                    tpc_read_16(part[p], from + head + (first + p * $T) * $W);\n"
    "            UNROLL for (int p = 0; p < $P; p++)\n"
    "                if (first + p * $T < pieces)\n"
    "                    UNROLL for (int k = 0; k < $W; k++)\n"
    "                        meet(&best, order_of(value_of(part[p][k])),\n"
    "                             (uint64_t)(head + (first + p * $T) * $W + k));\n"
    "        }\n"
    "        for (int64_t i = tail + threadIdx.x; i < extent; i += $T)\n"
    "            meet(&best, order_of(value_of(__ldg(&from[i]))), (uint64_t)i);\n"
    "        meet_block(&best);\n"
    "        if (threadIdx.x == 0) {\n"
    "            arguments.to[2 * line] = best.order;\n"
    "            arguments.to[2 * line + 1] = (uint64_t)arguments.base + best.at;\n"
    "            if (arguments.next && arguments.next_bytes == 8)\n"
    "                ((int64_t *)arguments.next)[line] = arguments.base + (int64_t)best.at;\n"
    "            else if (arguments.next)\n"
    "                ((int32_t *)arguments.next)[line] = (int32_t)(arguments.base + (int64_t)best.at);\n"
    "        }\n"
    "    }\n"
    "}\n";

/* A warp per row: of what several blocks, or ranks, have found. */
static const char merge_form[] =
    "struct $N_arguments {\n"
    "    const uint64_t *from; /* per part and row: an order, and where that is */\n"
    "    uint64_t *to;\n"
    "    int64_t parts, rows;\n"
    "    void *next;\n"
    "    int64_t next_bytes;\n"
    "};\n"
    "ENTRY($N, 32)\n"
    "{\n"
    "    for (int64_t row = blockIdx.x; row < arguments.rows; row += gridDim.x) {\n"
    "        struct $N_found best = {0, UINT64_MAX};\n"
    "        for (int64_t part = threadIdx.x; part < arguments.parts; part += 32) {\n"
    "            const uint64_t *const found = arguments.from + 2 * (part * arguments.rows + row);\n"
    "            meet(&best, found[0], found[1]);\n"
    "        }\n"
    "        meet_warp(&best);\n"
    "        if (threadIdx.x > 0)\n"
    "            continue;\n"
    "        arguments.to[2 * row] = best.order;\n"
    "        arguments.to[2 * row + 1] = best.at;\n"
    "        if (arguments.next && arguments.next_bytes == 8)\n"
    "            ((int64_t *)arguments.next)[row] = (int64_t)best.at;\n"
    "        else if (arguments.next)\n"
    "            ((int32_t *)arguments.next)[row] = (int32_t)best.at;\n"
    "    }\n"
    "}\n";

static const char *best_name(struct arena *arena, dtype type)
{
    return arena_printf(arena, "tpc_best_%s", dtype_name(type));
}

static void add_best(struct cuda_set *set, dtype type, value node)
{
    const struct dialect d = dialect_cuda();
    struct text body = {.arena = set->arena};
    struct cuda_letters l = {0};
    l.of['N' - 'A'] = best_name(set->arena, type);
    l.of['E' - 'A'] = d.element[type];
    l.of['V' - 'A'] = d.type[type];
    l.of['T' - 'A'] = cuda_number(set->arena, THREADS);
    l.of['P' - 'A'] = cuda_number(set->arena, PIECES);
    l.of['W' - 'A'] = cuda_number(set->arena, (int64_t)(16 / dtype_size(type)));
    cuda_put_element(&body, type);
    cuda_put_order(&body, "order_of", type);
    cuda_fill(&body, cuda_found_form, &l);
    cuda_fill(&body, best_form, &l);
    (void)cuda_add(set, l.of['N' - 'A'], body.at, THREADS, node);
    struct text merge = {.arena = set->arena};
    l.of['N' - 'A'] = "tpc_merge";
    cuda_fill(&merge, cuda_found_form, &l);
    cuda_fill(&merge, merge_form, &l);
    (void)cuda_add(set, l.of['N' - 'A'], merge.at, 32, node);
    cuda_add_draw(set, type, node);
}

void cuda_add_best(struct cuda_set *set)
{
    const struct graph *g = set->program->graph;
    for (uint32_t i = 0; i < g->outputs.count; i++) {
        const struct node *n = graph_node(g, g->outputs.at[i].value);
        bool state = false;
        for (uint32_t s = 0; s < g->states.count; s++)
            state = state || g->states.at[s].output == i;
        if (dtype_is_float(n->dtype) && dtype_size(n->dtype) > 1 && n->rank >= 2 && !state)
            add_best(set, n->dtype, g->outputs.at[i].value);
    }
}

bool cuda_best(const struct cuda_set *set, dtype type, const struct cuda_lines *lines, struct arena *arena,
               struct cuda_launch *out)
{
    struct cuda_making m = {.set = set, .arena = arena};
    const char *name = best_name(arena, type);
    const uint32_t *function = map_find(&set->by_name, name, strlen(name));
    if (!function || lines->count <= 0 || lines->extent <= 0)
        return false;
    cuda_put_address(&m);
    cuda_put_address(&m);
    cuda_put_number(&m, lines->count);
    cuda_put_number(&m, lines->first);
    cuda_put_number(&m, lines->step);
    cuda_put_number(&m, lines->extent);
    cuda_put_number(&m, lines->base);
    cuda_put_number(&m, (int64_t)lines->next);
    cuda_put_number(&m, lines->next_bytes);
    *out = cuda_launch_of(&m, *function, lines->count, THREADS, 1, 0);
    return true;
}

bool cuda_merge(const struct cuda_set *set, const struct cuda_lines *lines, int64_t parts, struct arena *arena,
                struct cuda_launch *out)
{
    struct cuda_making m = {.set = set, .arena = arena};
    const uint32_t *function = map_find(&set->by_name, "tpc_merge", strlen("tpc_merge"));
    if (!function || lines->count <= 0 || parts <= 0)
        return false;
    cuda_put_address(&m);
    cuda_put_address(&m);
    cuda_put_number(&m, parts);
    cuda_put_number(&m, lines->count);
    cuda_put_number(&m, (int64_t)lines->next);
    cuda_put_number(&m, lines->next_bytes);
    *out = cuda_launch_of(&m, *function, lines->count, 32, 1, 0);
    return true;
}

double cuda_best_value(uint64_t order, dtype type)
{
    uint64_t bits;
    if (type == DT_F64) {
        double wide;
        bits = order >> 63 ? order & ~(UINT64_C(1) << 63) : ~order;
        memcpy(&wide, &bits, sizeof wide);
        return order == UINT64_MAX ? (double)NAN : wide;
    }
    uint32_t half = (uint32_t)order;
    float narrow;
    half = half >> 31 ? half & 0x7fffffffu : ~half;
    memcpy(&narrow, &half, sizeof narrow);
    return order == UINT64_MAX ? (double)NAN : (double)narrow;
}
