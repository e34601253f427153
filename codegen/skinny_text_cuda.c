/* codegen/skinny_text_cuda.c - the text of skinny_cuda.c's functions.
 *
 * A function multiplies x, one row or up to 8, with one or more weights, among whose tiles of columns blocks are shared out; of two weights of a unit a
 * block takes the same columns, each with one half of its threads. It stores the products or goes on with the kernel behind them; x may be made by the row kernel before
 * them. What counts is that enough 16-byte loads are under way at any time: each thread has those of one half of its next steps under way while it
 * works on the other half's, and the first are made before the previous kernel has ended, since nothing writes weights. Two forms by how the
 * weight lies:
 *
 * Along n, a tile of columns is 128 bytes wide: 8 threads side by side, 32 such groups over k. Where there are few tiles, several blocks share
 * one, each a part of k: they leave their sums in the workspace, and the last to arrive adds them in the order of the parts, so that bits do not depend
 * on who is last.
 * The successor may start once all weights are read: what is left is short and needs little.
 * Along k, a warp takes several columns at once, and where there are few, 2 to 8 warps of a block share them.
 *
 * Start at cuda_add_skinny.
 */
#include "codegen/cuda_impl.h"

enum { MOST_KEPT = 6 }; /* 16-byte reads of a norm's row that a thread keeps */

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
static const char rows_form[] = "UNROLL for (int u = 0; u < $U; u++) {\n"
                                "    $Y[u] = none;\n"
                                "    if ($I + $R * u < limit)\n"
                                "        tpc_read_once_16(&$Y[u], w + u * next);\n"
                                "}\n"
                                "w += $U * next;\n";
static const char multiply_rows_form[] = "UNROLL for (int u = 0; u < $U; u++)\n"
                                         "    UNROLL for (int r = 0; r < $M; r++) {\n"
                                         "        const float x = left[r][$I + $R * u];\n"
                                         "        UNROLL for (int c = 0; c < $V; c++)\n"
                                         "            sum[r * $V + c] += x * value_of(((const $E *)&$Y[u])[c]);\n"
                                         "    }\n";

static const char along_n_form[] =
    "/* Blocks that have arrived at a tile: 0 between launches. */\n"
    "static __device__ uint32_t $N_arrived[$T];\n"
    "/* A block per tile of 8 accesses' columns (x) and part of k (y). */\n"
    "ENTRY_EARLY_OF($N, 256, $K)\n"
    "{\n"
    "    SHARED(float, left, [$M][$C]);\n"
    "    SHARED(float, of_warp, [8][$M * $V * 8]);\n"
    "    SHARED(uint32_t, before, [1]);\n"
    "$J"
    "    const int lane = threadIdx.x % 8, group = threadIdx.x % (256 / $D) / 8, weight = threadIdx.x / (256 / $D);\n"
    "    const int part = blockIdx.y, part_count = gridDim.y;\n"
    "    const int64_t from = part * arguments.per_part, rest = arguments.k - from;\n"
    "    const int length = (int)(rest < arguments.per_part ? rest : arguments.per_part);\n"
    "    const uint4 none = {0, 0, 0, 0};\n"
    "    for (int whole_tile = blockIdx.x; whole_tile < arguments.tiles; whole_tile += gridDim.x) {\n"
    "$F"
    "        const int first_column = (tile * 8 + lane) * $V;\n"
    "        const int limit = first_column < arguments.of[unit].n ? length : 0;\n"
    "        const int64_t next = $R * arguments.of[unit].w_next[weight];\n"
    "        const $E *w = arguments.of[unit].w[weight] + first_column +\n"
    "            (from + group) * arguments.of[unit].w_next[weight];\n"
    "        uint4 y[$U];\n"
    "$Y"
    "        for (int i = $G + lane; i < $H; i += 8)\n"
    "            if (group + $R * i < limit)\n"
    "                tpc_prefetch(w + (i - $U) * next - lane * $V);\n"
    "        WAIT_FOR_PREVIOUS();\n"
    "$P"
    "        float sum[$M * $V] = {0};\n"
    "        for (int chunk = 0; chunk < length; chunk += $C) {\n"
    "            const int end = length - chunk < $C ? length - chunk : $C;\n"
    "            __syncthreads(); /* what was read of the last one */\n"
    "            for (int i = threadIdx.x; i < $C && i < end + 2 * $R * $U; i += 256)\n"
    "                UNROLL for (int r = 0; r < $M; r++)\n"
    "                    left[r][i] = r < arguments.rows && i < end\n"
    "                        ? value_of($X[r * arguments.x_row + from + chunk + i]) : 0;\n"
    "            __syncthreads();\n"
    "            for (int i = group; i < end; i += 2 * $R * $U) {\n"
    "                uint4 z[$U];\n"
    "$Z"
    "$A"
    "$O"
    "$B"
    "            }\n"
    "        }\n";

/* Sums of warps, then of parts. */
static const char along_n_end_form[] =
    "        START_NEXT();\n"
    "        tpc_fold(sum, $M * $V / 2, 16);\n"
    "        tpc_fold(sum, $M * $V / 4, 8);\n"
    "        UNROLL for (int i = 0; i < $M * $V / 4; i++)\n"
    "            of_warp[threadIdx.x / 32][(group % 4 * ($M * $V / 4) + i) * 8 + lane] = sum[i];\n"
    "        __syncthreads();\n"
    "        float *const parts = arguments.parts + whole_tile * part_count * ($D * $M * $V * 8);\n"
    "        if (part_count > 1) {\n"
    "            for (int i = threadIdx.x; i < $D * $M * $V * 8; i += 256) {\n"
    "                float total = 0;\n"
    "                UNROLL for (int j = 0; j < 8 / $D; j++)\n"
    "                    total += of_warp[i / ($M * $V * 8) * (8 / $D) + j]\n"
    "                                    [(i / (8 * $V) % $M * $V + i % $V) * 8 + i / $V % 8];\n"
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
    "                UNROLL for (int j = 0; j < 8 / $D && part_count == 1; j++)\n"
    "                    product[d] += of_warp[d * (8 / $D) + j][(row * $V + i % $V) * 8 + i / $V % 8];\n"
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

/* The weights of the step at $I along k, of $Q columns, as $Y. */
static const char columns_form[] = "UNROLL for (int q = 0; q < $Q; q++) {\n"
                                   "    $Y[q] = none;\n"
                                   "    if (q < columns && $I < length)\n"
                                   "        tpc_read_once_16(&$Y[q], w + q * next + ($I));\n"
                                   "}\n";
static const char multiply_columns_form[] =
    "UNROLL for (int r = 0; r < $M; r++) {\n"
    "    uint4 x = none;\n"
    "    if ($I < length)\n"
    "        x = *(const uint4 *)($X + (r < arguments.rows ? r : 0) * arguments.x_row + ($I));\n"
    "    UNROLL for (int q = 0; q < $Q; q++)\n"
    "        UNROLL for (int c = 0; c < $V; c++)\n"
    "            sum[r * $Q + q] += value_of(((const $E *)&x)[c]) * value_of(((const $E *)&$Y[q])[c]);\n"
    "}\n";

static const char along_k_form[] =
    "/* A warp, or per_part of those that a weight has in a block, for $Q columns. */\n"
    "ENTRY_EARLY_OF($N, 256, $K)\n"
    "{\n"
    "    SHARED(float, of_warp, [8][$M * $Q]);\n"
    "$J"
    "    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % (8 / $D), weight = threadIdx.x / (256 / $D);\n"
    "    const int sharing = (int)arguments.per_part, across = 8 / $D / sharing * $Q; /* columns of a block */\n"
    "    const int step = sharing * 32 * $V, first = (warp % sharing * 32 + lane) * $V, length = (int)arguments.k;\n"
    "    const uint4 none = {0, 0, 0, 0};\n"
    "    for (int whole_tile = blockIdx.x; whole_tile < arguments.tiles; whole_tile += gridDim.x) {\n"
    "$F"
    "        const int first_column = tile * across + warp / sharing * $Q;\n"
    "        const int columns = (int)arguments.of[unit].n - first_column;\n"
    "        const int64_t next = arguments.of[unit].w_next[weight];\n"
    "        const $E *const w = arguments.of[unit].w[weight] + first_column * next;\n"
    "        uint4 y[$Q];\n"
    "$Y"
    "        UNROLL for (int q = 0; q < $Q; q++)\n"
    "            if (q < columns && first + (1 + lane % 2) * step < length)\n"
    "                tpc_prefetch(w + q * next + first + (1 + lane % 2) * step);\n"
    "        WAIT_FOR_PREVIOUS();\n"
    "$P"
    "        float sum[$M * $Q] = {0};\n"
    "        for (int i = first; i < length; i += 2 * step) {\n"
    "            uint4 z[$Q];\n"
    "$Z"
    "$A"
    "$O"
    "$B"
    "        }\n"
    "        START_NEXT();\n"
    "$S"
    "        __syncthreads(); /* what was read of the last ones */\n"
    "        if (lane % (32 / ($M * $Q)) == 0)\n"
    "            of_warp[threadIdx.x / 32][lane / (32 / ($M * $Q))] = sum[0];\n"
    "        __syncthreads();\n"
    "        for (int i = threadIdx.x; i < $M * across; i += 256) {\n"
    "            const int row = i / across, column = tile * across + i % across;\n"
    "            if (row >= arguments.rows || column >= arguments.of[unit].n)\n"
    "                continue;\n"
    "            float product[$D];\n"
    "            UNROLL for (int d = 0; d < $D; d++) {\n"
    "                product[d] = 0;\n"
    "                for (int j = 0; j < sharing; j++)\n"
    "                    product[d] += of_warp[d * (8 / $D) + i % across / $Q * sharing + j][row * $Q + i % $Q];\n"
    "            }\n";

/* ---- what is done with a product ---- */

static const char store_form[] =
    "            UNROLL for (int d = 0; d < $D; d++)\n"
    "                arguments.of[unit].out[d][row * arguments.of[unit].out_row[d] + column * "
    "arguments.of[unit].out_next[d]] =\n"
    "                    element_of(product[d]);\n";

/* A kernel within the function: what its arguments are members of, and its buffers that are none of memory's. */
struct inner {
    struct printer *printer;
    struct dialect dialect;
    bool *skip;
};

static struct inner *inner_of(const struct cuda_set *set, uint32_t step, const char *from, struct text *out)
{
    const struct nest *n = &set->kernel[set->program->steps.at[step].kernel].nest;
    struct inner *k = NEW(set->arena, struct inner);
    k->dialect = dialect_cuda_of(n->kernel);
    k->dialect.read[0] = k->dialect.read[1] = ""; /* no load may be moved before the wait */
    k->skip = NEW_ARRAY(set->arena, bool, n->kernel->buffer_count + 1);
    k->printer = NEW(set->arena, struct printer);
    *k->printer = (struct printer){.nest = n, .dialect = &k->dialect, .arena = set->arena, .out = out, .from = from};
    k->printer->index_of = NEW_ARRAY(set->arena, uint32_t, n->kernel->instruction_count + 1);
    k->printer->staged = NEW_ARRAY(set->arena, const char *, n->kernel->instruction_count + 1);
    return k;
}

static void print_inner_members(struct inner *k, const char *name)
{
    text_put(k->printer->out, "    struct {\n");
    k->printer->indent = 2;
    cuda_print_members(k->printer, k->skip);
    text_printf(k->printer->out, "    } %s;\n", name);
}

/* The kernel behind a product, for the element whose products are known. */
static void print_epilogue(struct inner *e, const int32_t *load, uint32_t width)
{
    struct printer *p = e->printer;
    const struct kernel *k = p->nest->kernel;
    uint8_t axes[KERNEL_AXES];
    for (uint32_t i = 0; i < k->outer; i++)
        axes[i] = (uint8_t)i;
    for (uint32_t d = 0; d < width; d++) { /* rounded as it would be in memory */
        struct text element = {.arena = p->arena};
        p->dialect->store(&element, k->instruction[load[d]].type, d ? "product[1]" : "product[0]");
        p->staged[load[d]] = element.at;
    }
    p->indent = 4;
    cuda_print_locals(p, e->skip);
    print_line(p, "const int64_t element = row * arguments.of[unit].n + column;");
    cuda_print_coordinates(p, axes, k->outer, "element");
    print_indices(p, DEPTH_ENTRY, 0);
    print_values(p, DEPTH_ENTRY, 0);
    print_indices(p, DEPTH_POINT, 0);
    print_values(p, DEPTH_POINT, 0);
    print_values(p, nest_fast_depth(p->nest), 0);
    cuda_print_fault_reports(p);
}

/* As the form of a row by a whole block; what a thread keeps of it must not cost the weights their registers. */
static struct cuda_form norm_form(const struct inner *e, struct cuda_form form, uint32_t normal)
{
    const struct nest *n = e->printer->nest;
    uint32_t count = n->kernel->instruction_count;
    int64_t length = 0, kept = 0;
    bool *wide = NEW_ARRAY(e->printer->arena, bool, count + 1), *keep = NEW_ARRAY(e->printer->arena, bool, count + 1);
    for (uint32_t i = 0; i < count; i++) {
        wide[i] = form.wide[i] && i != normal;
        kept += form.kept[i];
    }
    int64_t per_turn = (int64_t)form.width * CUDA_SKINNY_THREADS;
    bool constant = dim_is_const(n->dims, n->kernel->extent[nest_fast_axis(n)], &length);
    int64_t turns = form.turns && constant ? (length + per_turn - 1) / per_turn : 0;
    form.turns = kept * turns <= MOST_KEPT ? (uint32_t)turns : 0;
    for (uint32_t i = 0; i < count; i++)
        keep[i] = form.kept[i] && form.turns;
    form.wide = wide;
    form.kept = keep;
    return form;
}

/* The row kernel before the products, by every block for itself; what it stores beside the row, the first block does. */
static void print_norm(struct inner *e, const struct cuda_form *of_kernel, uint32_t normal)
{
    struct printer *p = e->printer;
    const struct nest *n = p->nest;
    struct cuda_form form = norm_form(e, *of_kernel, normal);
    dtype t = n->kernel->instruction[normal].type;
    p->staged[normal] =
        arena_printf(p->arena, "((%s *)normal)[c%u]", p->dialect->element[t], (unsigned)nest_fast_axis(n));
    p->only = "keeps";
    p->indent = 2;
    print_line(p, "{");
    p->indent++;
    print_line(p, "const bool keeps = blockIdx.x == 0 && blockIdx.y == 0;");
    cuda_print_locals(p, e->skip);
    for (uint32_t i = 0; i < n->points; i++) /* there is one row */
        print_line(p, "const int64_t c%u = 0;", (unsigned)n->point[i]);
    print_line(p, "__syncthreads();");
    print_indices(p, DEPTH_ENTRY, 0);
    print_values(p, DEPTH_ENTRY, 0);
    cuda_print_row(p, &form);
    cuda_print_fault_reports(p);
    print_line(p, "__syncthreads();");
    p->indent--;
    print_line(p, "}");
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
    const char *multiply = along_k ? multiply_columns_form : multiply_rows_form, *u = l->of['U' - 'A'],
               *r = l->of['R' - 'A'];
    const char *now = "i", *first = along_k ? "first" : "group", *next = "i + step", *then = "i + 2 * step";
    int indent = along_k ? 3 : 4;
    if (!along_k)
        next = arena_printf(arena, "i + %s * %s", r, u);
    l->of['A' - 'A'] = put_lines(arena, multiply, *l, "y", now, indent);
    l->of['B' - 'A'] = put_lines(arena, multiply, *l, "z", next, indent);
    if (!along_k) {
        next = arena_printf(arena, "chunk + i + %s * %s", r, u);
        then = arena_printf(arena, "chunk + i + 2 * %s * %s", r, u);
    }
    l->of['Z' - 'A'] = put_lines(arena, read, *l, "z", next, indent);
    l->of['O' - 'A'] = put_lines(arena, read, *l, "y", then, indent);
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

/* All that the text depends on. */
static const char *name_of(const struct cuda_set *set, const struct cuda_skinny *a, dtype t, unsigned rows)
{
    const struct program *p = set->program;
    struct text name = {.arena = set->arena};
    char kernel[KERNEL_NAME];
    text_printf(&name, "tpc_skinny_%s_%s_%u", dtype_name(t), a->along_k ? "k" : "n", rows);
    if (a->units > 1)
        text_printf(&name, "_of_%u", (unsigned)a->units);
    text_put(&name, a->width > 1 ? "_pair" : "");
    bool any = false;
    for (uint32_t u = 0; u < a->units; u++)
        any |= a->unit[u].epilogue != 0;
    for (uint32_t u = 0; u < a->units && any; u++) {
        if (a->unit[u].epilogue)
            kernel_name(&p->kernels.at[p->steps.at[a->unit[u].epilogue].kernel], p->graph->dims, set->arena, kernel);
        text_put(&name, a->unit[u].epilogue ? kernel + 5 : "_0");
    }
    for (uint32_t u = 0; u < a->units && any; u++) /* which loads are the products */
        for (uint32_t d = 0; d < a->width && a->unit[u].epilogue; d++)
            text_printf(&name, "_%d", (int)a->unit[u].load[d]);
    if (a->normal >= 0) {
        kernel_name(&p->kernels.at[p->steps.at[a->norm].kernel], p->graph->dims, set->arena, kernel);
        text_printf(&name, "_norm%s_%d", kernel + 5, (int)a->normal);
    }
    return name.at;
}

static void put_letters(struct cuda_set *set, const struct cuda_skinny *a, dtype t, uint32_t rows,
                        struct cuda_letters *l)
{
    const struct dialect d = dialect_cuda();
    bool normal = a->normal >= 0, small = dtype_size(t) == 2;
    l->of['N' - 'A'] = name_of(set, a, t, rows);
    l->of['E' - 'A'] = d.element[t];
    l->of['D' - 'A'] = cuda_number(set->arena, a->width);
    l->of['W' - 'A'] = cuda_number(set->arena, a->units);
    l->of['M' - 'A'] = cuda_number(set->arena, rows);
    l->of['V' - 'A'] = cuda_number(set->arena, 16 / (int64_t)dtype_size(t));
    l->of['U' - 'A'] = rows > 1 && small ? "2" : "4"; /* registers */
    l->of['R' - 'A'] = cuda_number(set->arena, 32 / a->width);
    l->of['Q' - 'A'] = cuda_number(set->arena, cuda_skinny_columns(rows > 1));
    l->of['C' - 'A'] = rows == 1 ? "2048" : "256";
    l->of['T' - 'A'] = cuda_number(set->arena, CUDA_SKINNY_TILES);
    l->of['G' - 'A'] = normal ? "0" : l->of['U' - 'A']; /* steps prefetched: from, to */
    l->of['H' - 'A'] = normal ? "20" : "12";
    l->of['F' - 'A'] = a->units > 1 ? unit_text : only_unit_text;
    l->of['X' - 'A'] = normal ? arena_printf(set->arena, "((const %s *)normal)", d.element[t]) : "arguments.x";
    l->of['J' - 'A'] = normal ? "    DYNAMIC_SHARED(normal);\n" : "";
    l->of['S' - 'A'] = folding(set, (int)(rows * cuda_skinny_columns(rows > 1)));
    l->of['K' - 'A'] = cuda_number(set->arena, cuda_skinny_room(a, t, rows > 1));
    put_steps(set->arena, l, a->along_k);
}

/* What is done with the products of each unit. */
static void put_ends(const struct cuda_skinny *a, struct inner *const *epilogue, const struct cuda_letters *l,
                     struct text *body)
{
    bool any = false;
    for (uint32_t u = 0; u < a->units; u++)
        any |= epilogue[u] != NULL;
    for (uint32_t u = 0; u < a->units && any; u++) {
        text_printf(body, "            if (unit == %u) {\n", (unsigned)u);
        if (epilogue[u])
            print_epilogue(epilogue[u], a->unit[u].load, a->width);
        else
            cuda_fill(body, store_form, l);
        text_put(body, "            }\n");
    }
    if (!any)
        cuda_fill(body, store_form, l);
    text_put(body, "        }\n    }\n}\n");
}

uint32_t cuda_add_skinny(struct cuda_set *set, const struct cuda_skinny *a, bool several)
{
    const struct program *p = set->program;
    const struct step *s = &p->steps.at[a->unit[0].dot[0]];
    dtype t = p->buffers.at[s->arg[2]].type;
    struct text body = {.arena = set->arena}, prologue = {.arena = set->arena};
    struct cuda_letters l = {0};
    struct inner *epilogue[CUDA_SKINNY_UNITS] = {NULL};
    put_letters(set, a, t, several ? CUDA_SKINNY_ROWS : 1, &l);
    cuda_put_element(&body, t);
    cuda_fill(&body, head_form, &l);
    for (uint32_t u = 0; u < a->units; u++) {
        const char *name = arena_printf(set->arena, "e%u", (unsigned)u);
        const char *from = arena_printf(set->arena, "arguments.%s", name);
        if (!a->unit[u].epilogue)
            continue;
        epilogue[u] = inner_of(set, a->unit[u].epilogue, from, &body);
        for (uint32_t d = 0; d < a->width; d++)
            epilogue[u]->skip[epilogue[u]->printer->nest->kernel->instruction[a->unit[u].load[d]].buffer] = true;
        print_inner_members(epilogue[u], name);
    }
    if (a->normal >= 0) {
        const struct cuda_kernel *k = &set->kernel[p->steps.at[a->norm].kernel];
        struct inner *norm = inner_of(set, a->norm, "arguments.norm", &body);
        norm->skip[k->nest.kernel->instruction[a->normal].buffer] = true;
        print_inner_members(norm, "norm");
        norm->printer->out = &prologue;
        print_norm(norm, &k->form, (uint32_t)a->normal);
    }
    text_put(&body, "};\n");
    l.of['P' - 'A'] = prologue.at ? prologue.at : "";
    cuda_fill(&body, a->along_k ? along_k_form : along_n_form, &l);
    cuda_fill(&body, a->along_k ? "" : along_n_end_form, &l);
    put_ends(a, epilogue, &l, &body);
    return cuda_add(set, l.of['N' - 'A'], body.at, CUDA_SKINNY_THREADS, s->node);
}
