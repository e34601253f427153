/* codegen/skinny_text_cuda.c - the text of skinny_cuda.c's functions.
 *
 * A function multiplies x, one row or up to 8, with one or more weights ("units", among which blocks are shared out), and either stores the products or
 * goes on with the kernel behind them. What counts is that enough 16-byte loads are under way at any time: each thread has $U of them for
 * the next step while it works on those of this one, and the first are made before the previous kernel has ended, since nothing writes weights. Two
 * forms by how the weight lies:
 *
 * Along n, a tile of columns is 128 bytes wide: 8 threads side by side, 32 such groups over k. Where there are few tiles, several blocks share
 * one, each a part of k: they leave their sums in the workspace, and the last to arrive adds them in the order of the parts, so that bits do not depend
 * on who is last.
 * Along k, a warp takes several columns at once, and where there are few, 2 to 8 warps of a block share them.
 *
 * Start at cuda_add_skinny.
 */
#include "codegen/cuda_impl.h"

static const char head_form[] = "struct $N_arguments {\n"
                                "    const $E *x;\n"
                                "    float *parts; /* [tile][part][weight][row][column] */\n"
                                "    int64_t rows, k, x_row, tiles, per_part;\n"
                                "    struct {\n"
                                "        const $E *w[$D];\n"
                                "        $E *out[$D];\n"
                                "        int64_t n, tiles, w_next[$D], out_row[$D], out_next[$D];\n"
                                "    } of[$W];\n";

/* Whose tile it is. */
static const char unit_text[] = "        int tile = whole_tile, unit = 0;\n"
                                "        while (tile >= arguments.of[unit].tiles)\n"
                                "            tile -= (int)arguments.of[unit++].tiles;\n";
static const char only_unit_text[] = "        const int tile = whole_tile, unit = 0;\n";

/* ---- along n ---- */

/* The weights of the thread's next $U steps, the first of which is row $I of the part, as $Y. */
static const char rows_form[] = "UNROLL for (int d = 0; d < $D; d++) {\n"
                                "    UNROLL for (int u = 0; u < $U; u++) {\n"
                                "        $Y[d][u] = none;\n"
                                "        if ($I + 32 * u < limit)\n"
                                "            tpc_read_once_16(&$Y[d][u], w[d] + u * next[d]);\n"
                                "    }\n"
                                "    w[d] += $U * next[d];\n"
                                "}\n";
static const char multiply_rows_form[] =
    "UNROLL for (int u = 0; u < $U; u++)\n"
    "    UNROLL for (int r = 0; r < $M; r++) {\n"
    "        const float x = left[r][$I + 32 * u];\n"
    "        UNROLL for (int d = 0; d < $D; d++)\n"
    "            UNROLL for (int c = 0; c < $V; c++)\n"
    "                sum[(d * $M + r) * $V + c] += x * value_of(((const $E *)&$Y[d][u])[c]);\n"
    "    }\n";

static const char along_n_form[] =
    "/* Blocks that have arrived at a tile: 0 between launches. */\n"
    "static __device__ uint32_t $N_arrived[$T];\n"
    "/* A block per tile of 8 accesses' columns (x) and part of k (y). */\n"
    "ENTRY_EARLY_OF($N, 256, $K)\n"
    "{\n"
    "    SHARED(float, left, [$M][$C]);\n"
    "    SHARED(float, of_warp, [8][$D * $M * $V * 8]);\n"
    "    SHARED(uint32_t, before, [1]);\n"
    "    const int lane = threadIdx.x % 8, group = threadIdx.x / 8, part = blockIdx.y, part_count = gridDim.y;\n"
    "    const int64_t from = part * arguments.per_part, rest = arguments.k - from;\n"
    "    const int length = (int)(rest < arguments.per_part ? rest : arguments.per_part);\n"
    "    const uint4 none = {0, 0, 0, 0};\n"
    "    for (int whole_tile = blockIdx.x; whole_tile < arguments.tiles; whole_tile += gridDim.x) {\n"
    "$F"
    "        const int first_column = (tile * 8 + lane) * $V;\n"
    "        const int limit = first_column < arguments.of[unit].n ? length : 0;\n"
    "        const $E *w[$D];\n"
    "        int64_t next[$D];\n"
    "        uint4 y[$D][$U];\n"
    "        UNROLL for (int d = 0; d < $D; d++) {\n"
    "            w[d] = arguments.of[unit].w[d] + first_column + (from + group) * arguments.of[unit].w_next[d];\n"
    "            next[d] = 32 * arguments.of[unit].w_next[d];\n"
    "        }\n"
    "$Y"
    "        UNROLL for (int d = 0; d < $D; d++)\n"
    "            if (32 * $U + group + 32 * lane < limit)\n"
    "                tpc_prefetch(w[d] + lane * (next[d] - $V));\n"
    "        WAIT_FOR_PREVIOUS();\n"
    "        float sum[$D * $M * $V] = {0};\n"
    "        for (int chunk = 0; chunk < length; chunk += $C) {\n"
    "            const int end = length - chunk < $C ? length - chunk : $C;\n"
    "            __syncthreads(); /* what was read of the last one */\n"
    "            for (int i = threadIdx.x; i < $C && i < end + 64 * $U; i += 256)\n"
    "                UNROLL for (int r = 0; r < $M; r++)\n"
    "                    left[r][i] = r < arguments.rows && i < end\n"
    "                        ? value_of(arguments.x[r * arguments.x_row + from + chunk + i]) : 0;\n"
    "            __syncthreads();\n"
    "            for (int i = group; i < end; i += 64 * $U) {\n"
    "                uint4 z[$D][$U];\n"
    "$Z"
    "$A"
    "$R"
    "$B"
    "            }\n"
    "        }\n";

/* Sums of warps, then of parts. */
static const char along_n_end_form[] =
    "        tpc_fold(sum, $D * $M * $V / 2, 16);\n"
    "        tpc_fold(sum, $D * $M * $V / 4, 8);\n"
    "        UNROLL for (int i = 0; i < $D * $M * $V / 4; i++)\n"
    "            of_warp[threadIdx.x / 32][(group % 4 * ($D * $M * $V / 4) + i) * 8 + lane] = sum[i];\n"
    "        __syncthreads();\n"
    "        float *const parts = arguments.parts + whole_tile * part_count * ($D * $M * $V * 8);\n"
    "        if (part_count > 1) {\n"
    "            for (int i = threadIdx.x; i < $D * $M * $V * 8; i += 256) {\n"
    "                float total = 0;\n"
    "                UNROLL for (int j = 0; j < 8; j++)\n"
    "                    total += of_warp[j][(i / (8 * $V) * $V + i % $V) * 8 + i / $V % 8];\n"
    "                parts[part * ($D * $M * $V * 8) + i] = total;\n"
    "            }\n"
    "            __syncthreads();\n"
    "            if (threadIdx.x == 0) {\n"
    "                before[0] = tpc_arrive(&$N_arrived[whole_tile]);\n"
    "                if (before[0] == part_count - 1)\n"
    "                    $N_arrived[whole_tile] = 0;\n"
    "            }\n"
    "            __syncthreads();\n"
    "            if (before[0] != part_count - 1)\n"
    "                continue;\n"
    "        }\n"
    "        for (int i = threadIdx.x; i < $M * $V * 8; i += 256) {\n"
    "            const int row = i / (8 * $V), column = tile * 8 * $V + i % (8 * $V);\n"
    "            if (row >= arguments.rows || column >= arguments.of[unit].n)\n"
    "                continue;\n"
    "            float product[$D];\n"
    "            UNROLL for (int d = 0; d < $D; d++) {\n"
    "                product[d] = 0;\n"
    "                UNROLL for (int j = 0; j < 8 && part_count == 1; j++)\n"
    "                    product[d] += of_warp[j][((d * $M + row) * $V + i % $V) * 8 + i / $V % 8];\n"
    "                for (int first = 0; first < part_count && part_count > 1; first += 8) {\n"
    "                    float of_part[8];\n"
    "                    UNROLL for (int j = 0; j < 8; j++)\n"
    "                        of_part[j] = first + j < part_count\n"
    "                            ? tpc_read_fresh(parts + ((first + j) * $D + d) * ($M * $V * 8) + i) : 0;\n"
    "                    UNROLL for (int j = 0; j < 8; j++)\n"
    "                        product[d] += of_part[j];\n"
    "                }\n"
    "            }\n";

/* ---- along k ---- */

/* The weights of the step at $I along k, of $Q columns each, as $Y. */
static const char columns_form[] = "UNROLL for (int d = 0; d < $D; d++)\n"
                                   "    UNROLL for (int q = 0; q < $Q; q++) {\n"
                                   "        $Y[d][q] = none;\n"
                                   "        if (q < columns && $I < length)\n"
                                   "            tpc_read_once_16(&$Y[d][q], w[d] + q * next[d] + ($I));\n"
                                   "    }\n";
static const char multiply_columns_form[] =
    "UNROLL for (int r = 0; r < $M; r++) {\n"
    "    uint4 x = none;\n"
    "    if ($I < length)\n"
    "        x = *(const uint4 *)(arguments.x + (r < arguments.rows ? r : 0) * arguments.x_row + ($I));\n"
    "    UNROLL for (int d = 0; d < $D; d++)\n"
    "        UNROLL for (int q = 0; q < $Q; q++)\n"
    "            UNROLL for (int c = 0; c < $V; c++)\n"
    "                sum[(d * $M + r) * $Q + q] += value_of(((const $E *)&x)[c]) * value_of(((const $E "
    "*)&$Y[d][q])[c]);\n"
    "}\n";

static const char along_k_form[] =
    "/* A warp, or per_part of a block, for $Q columns. */\n"
    "ENTRY_EARLY_OF($N, 256, $K)\n"
    "{\n"
    "    SHARED(float, of_warp, [8][$D * $M * $Q]);\n"
    "    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, sharing = (int)arguments.per_part;\n"
    "    const int step = sharing * 32 * $V, first = (warp % sharing * 32 + lane) * $V, length = (int)arguments.k;\n"
    "    const int across = 8 / sharing * $Q; /* columns of a block */\n"
    "    const uint4 none = {0, 0, 0, 0};\n"
    "    for (int whole_tile = blockIdx.x; whole_tile < arguments.tiles; whole_tile += gridDim.x) {\n"
    "$F"
    "        const int first_column = tile * across + warp / sharing * $Q;\n"
    "        const int columns = (int)arguments.of[unit].n - first_column;\n"
    "        const $E *w[$D];\n"
    "        int64_t next[$D];\n"
    "        uint4 y[$D][$Q];\n"
    "        UNROLL for (int d = 0; d < $D; d++) {\n"
    "            next[d] = arguments.of[unit].w_next[d];\n"
    "            w[d] = arguments.of[unit].w[d] + first_column * next[d];\n"
    "        }\n"
    "$Y"
    "        UNROLL for (int d = 0; d < $D; d++)\n"
    "            UNROLL for (int q = 0; q < $Q; q++)\n"
    "                if (q < columns && first + (1 + lane % 2) * step < length)\n"
    "                    tpc_prefetch(w[d] + q * next[d] + first + (1 + lane % 2) * step);\n"
    "        WAIT_FOR_PREVIOUS();\n"
    "        float sum[$D * $M * $Q] = {0};\n"
    "        for (int i = first; i < length; i += 2 * step) {\n"
    "            uint4 z[$D][$Q];\n"
    "$Z"
    "$A"
    "$R"
    "$B"
    "        }\n"
    "$S"
    "        __syncthreads(); /* what was read of the last ones */\n"
    "        if (lane % (32 / ($D * $M * $Q)) == 0)\n"
    "            of_warp[warp][lane / (32 / ($D * $M * $Q))] = sum[0];\n"
    "        __syncthreads();\n"
    "        for (int i = threadIdx.x; i < $M * across; i += 256) {\n"
    "            const int row = i / across, column = tile * across + i % across;\n"
    "            if (row >= arguments.rows || column >= arguments.of[unit].n)\n"
    "                continue;\n"
    "            float product[$D];\n"
    "            UNROLL for (int d = 0; d < $D; d++) {\n"
    "                product[d] = 0;\n"
    "                for (int j = 0; j < sharing; j++)\n"
    "                    product[d] += of_warp[i % across / $Q * sharing + j][(d * $M + row) * $Q + i % $Q];\n"
    "            }\n";

/* ---- what is done with a product ---- */

static const char store_form[] =
    "            UNROLL for (int d = 0; d < $D; d++)\n"
    "                arguments.of[unit].out[d][row * arguments.of[unit].out_row[d] + column * "
    "arguments.of[unit].out_next[d]] =\n"
    "                    element_of(product[d]);\n";

/* A printer of the kernel behind a product. */
static struct printer *epilogue_printer(const struct cuda_set *set, const struct dialect *d, uint32_t kernel,
                                        struct text *out)
{
    struct printer *p = NEW(set->arena, struct printer);
    *p = (struct printer){.nest = &set->kernel[kernel].nest, .dialect = d, .arena = set->arena, .out = out};
    p->index_of = NEW_ARRAY(set->arena, uint32_t, p->nest->kernel->instruction_count + 1);
    p->staged = NEW_ARRAY(set->arena, const char *, p->nest->kernel->instruction_count + 1);
    p->indent = 3;
    return p;
}

/* The kernel behind it, for the element whose products are known. */
static void print_epilogue(struct printer *p, const struct cuda_skinny *a, const bool *skip)
{
    const struct kernel *k = p->nest->kernel;
    uint8_t axes[KERNEL_AXES];
    for (uint32_t i = 0; i < k->outer; i++)
        axes[i] = (uint8_t)i;
    struct text element = {.arena = p->arena};
    p->dialect->store(&element, k->instruction[a->load].type, "product[0]"); /* rounded as it would be in memory */
    p->staged[a->load] = element.at;
    cuda_print_locals(p, skip);
    print_line(p, "const int64_t element = row * arguments.of[unit].n + column;");
    cuda_print_coordinates(p, axes, k->outer, "element");
    print_indices(p, DEPTH_ENTRY, 0);
    print_values(p, DEPTH_ENTRY, 0);
    print_indices(p, DEPTH_POINT, 0);
    print_values(p, DEPTH_POINT, 0);
    print_values(p, nest_fast_depth(p->nest), 0);
    cuda_print_fault_reports(p);
}

/* ---- the function ---- */

/* Lines of a form, each `indent` deep. */
static const char *filled(struct arena *arena, const char *form, const struct cuda_letters *l, int indent)
{
    struct text plain = {.arena = arena}, out = {.arena = arena};
    cuda_fill(&plain, form, l);
    for (const char *at = plain.at; *at;) {
        size_t length = strcspn(at, "\n") + 1;
        text_printf(&out, "%*s", indent * 4, "");
        text_putn(&out, at, length);
        at += length;
    }
    return out.at;
}

static const char *put_lines(struct arena *arena, const char *form, struct cuda_letters l, const char *name,
                             const char *at, int indent)
{
    l.of['Y' - 'A'] = name;
    l.of['I' - 'A'] = at;
    return filled(arena, form, &l, indent);
}

/* Reads of the weights and products with them: of one half of the steps while the other half's are under way. */
static void put_steps(struct arena *arena, struct cuda_letters *l, bool along_k)
{
    const char *read = along_k ? columns_form : rows_form;
    const char *multiply = along_k ? multiply_columns_form : multiply_rows_form, *u = l->of['U' - 'A'];
    const char *now = "i", *first = along_k ? "first" : "group", *next = "i + step", *then = "i + 2 * step";
    int indent = along_k ? 3 : 4;
    if (!along_k)
        next = arena_printf(arena, "i + 32 * %s", u);
    l->of['A' - 'A'] = put_lines(arena, multiply, *l, "y", now, indent);
    l->of['B' - 'A'] = put_lines(arena, multiply, *l, "z", next, indent);
    if (!along_k) {
        next = arena_printf(arena, "chunk + i + 32 * %s", u);
        then = arena_printf(arena, "chunk + i + 64 * %s", u);
    }
    l->of['Z' - 'A'] = put_lines(arena, read, *l, "z", next, indent);
    l->of['R' - 'A'] = put_lines(arena, read, *l, "y", then, indent);
    l->of['Y' - 'A'] = put_lines(arena, read, *l, "y", first, 2);
}

/* Adds each of `count` sums of a lane over the warp: lane i ends with sum i / (32 / count). */
static const char *folding(struct cuda_set *set, int count)
{
    struct text out = {.arena = set->arena};
    for (int distance = 16; distance > 0; distance /= 2) {
        count /= 2;
        if (count)
            text_printf(&out, "        tpc_fold(sum, %d, %d);\n", count, distance);
        else
            text_printf(&out, "        sum[0] += __shfl_xor_sync(0xffffffffu, sum[0], %d);\n", distance);
    }
    return out.at;
}

uint32_t cuda_add_skinny(struct cuda_set *set, const struct cuda_skinny *a, uint32_t rows)
{
    const struct program *p = set->program;
    const struct step *s = &p->steps.at[a->dot];
    dtype t = p->buffers.at[s->arg[2]].type;
    const struct nest *n = a->epilogue ? &set->kernel[p->steps.at[a->epilogue].kernel].nest : NULL;
    struct dialect d = n ? dialect_cuda_of(n->kernel) : dialect_cuda();
    struct text body = {.arena = set->arena};
    struct cuda_letters l = {0};
    char kernel[KERNEL_NAME] = "";
    bool *skip = n ? NEW_ARRAY(set->arena, bool, n->kernel->buffer_count + 1) : NULL;
    struct printer *printer = NULL;
    d.read[0] = d.read[1] = ""; /* no load may be moved before the wait */
    if (n) {
        kernel_name(n->kernel, p->graph->dims, set->arena, kernel);
        skip[n->kernel->instruction[a->load].buffer] = true;
        printer = epilogue_printer(set, &d, p->steps.at[a->epilogue].kernel, &body);
    }
    l.of['N' - 'A'] = arena_printf(set->arena, "tpc_skinny_%s_%s_%u%s", dtype_name(t), a->along_k ? "k" : "n",
                                   (unsigned)rows, n ? kernel + 5 : "");
    l.of['E' - 'A'] = d.element[t];
    l.of['D' - 'A'] = l.of['W' - 'A'] = "1";
    l.of['M' - 'A'] = cuda_number(set->arena, rows);
    l.of['V' - 'A'] = cuda_number(set->arena, 16 / (int64_t)dtype_size(t));
    l.of['U' - 'A'] = rows > 1 && dtype_size(t) == 2 ? "2" : "4"; /* registers */
    l.of['Q' - 'A'] = "4";
    l.of['C' - 'A'] = cuda_number(set->arena, rows == 1 ? 2048 : 256);
    l.of['T' - 'A'] = cuda_number(set->arena, CUDA_SKINNY_TILES);
    l.of['F' - 'A'] = only_unit_text;
    l.of['S' - 'A'] = folding(set, (int)rows * 4);
    l.of['K' - 'A'] = rows > 1 ? "2" : "4";
    put_steps(set->arena, &l, a->along_k);
    cuda_put_element(&body, t);
    cuda_fill(&body, head_form, &l);
    if (n) {
        printer->indent = 1;
        cuda_print_members(printer, skip);
        printer->indent = 3;
    }
    text_put(&body, "};\n");
    cuda_fill(&body, a->along_k ? along_k_form : along_n_form, &l);
    cuda_fill(&body, a->along_k ? "" : along_n_end_form, &l);
    if (n)
        print_epilogue(printer, a, skip);
    else
        cuda_fill(&body, store_form, &l);
    text_put(&body, "        }\n    }\n}\n");
    (void)unit_text;
    return cuda_add(set, l.of['N' - 'A'], body.at, CUDA_SKINNY_THREADS, s->node);
}
