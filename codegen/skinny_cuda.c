/* codegen/skinny_cuda.c - products of few rows with a weight, on CUDA: bound by reading the weight once, in 16-byte accesses; and the pointwise kernel
 * behind one, as its epilogue.
 *
 * Two functions by how the weight lies: along k, a warp per column of the result; along n, a block for 8 accesses' worth of columns, its threads over
 * k. Either for one row or for up to 8. The epilogue is any pointwise kernel that alone reads the product, in its own order of elements: it is
 * printed where the sum is known, in the kernel's coordinates, so bias, activation and residual are no cases. For more rows the steps stay on
 * their own. Start at cuda_find_skinny.
 */
#include "codegen/cuda_impl.h"

enum { THREADS = 256, MOST_ROWS = 8, LANES = 8 };
static const uint32_t row_counts[2] = {1, MOST_ROWS};

/* ---- finding ---- */

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
    return rows <= MOST_ROWS;
}

static dim row_major(struct dims *t, const struct kernel *k)
{
    dim index = dim_const(t, 0);
    for (uint32_t i = 0; i < k->outer; i++)
        index = dim_add(t, dim_mul(t, index, k->extent[i]), dim_coordinate(t, i));
    return index;
}

/* The kernel's one plain load of a buffer, all of whose elements it reads in order; -1: it is not so. */
static int32_t plain_load(struct cuda_set *set, const struct step *s, uint32_t buffer)
{
    const struct kernel *k = &set->program->kernels.at[s->kernel];
    dim index = row_major(set->program->graph->dims, k);
    int32_t found = -1;
    for (uint32_t i = 0; i < k->instruction_count; i++) {
        const struct instruction *n = &k->instruction[i];
        if (n->kind != INST_LOAD || s->arg[n->buffer] != buffer)
            continue;
        if (found >= 0 || n->index != index || n->dynamic >= 0 || n->predicate >= 0)
            return -1;
        found = (int32_t)i;
    }
    return found;
}

/* The step that alone reads a dot's result, when it can be its epilogue and is not another's. */
static bool find_epilogue(struct cuda_set *set, uint32_t dot, struct cuda_skinny *a)
{
    const struct program *p = set->program;
    uint32_t buffer = p->steps.at[dot].arg[2], readers = 0;
    if (p->buffers.at[buffer].kind != BUFFER_TEMP)
        return false;
    for (uint32_t i = 0; i < p->steps.count; i++)
        for (uint32_t k = 0; k < p->steps.at[i].arg_count && i != dot; k++)
            if (p->steps.at[i].arg[k] == buffer) {
                a->epilogue = i;
                readers++;
            }
    const struct step *s = &p->steps.at[a->epilogue];
    if (readers != 1 || set->skinny[a->epilogue] || a->epilogue < dot || !cuda_may_wait(p, dot, a->epilogue) ||
        s->kind != STEP_KERNEL || s->phase != PHASE_RUN || p->kernels.at[s->kernel].inner != 0 ||
        p->kernels.at[s->kernel].outer == 0)
        return false;
    a->load = plain_load(set, s, buffer);
    return a->load >= 0;
}

/* ---- text ---- */

static const char head_form[] = "struct $N_arguments {\n"
                                "    const $E *x, *w;\n"
                                "    $E *out;\n"
                                "    int64_t rows, n, k, x_row, w_next, out_row, out_next;\n";

static const char along_k_form[] =
    "    const int lane = threadIdx.x % 32;\n"
    "    for (int64_t column = (int64_t)blockIdx.x * 8 + threadIdx.x / 32; column < arguments.n;\n"
    "         column += (int64_t)gridDim.x * 8) {\n"
    "        const $E *const w = arguments.w + column * arguments.w_next;\n"
    "        float sum[$M] = {0};\n"
    "        for (int64_t first = lane * $V; first < arguments.k; first += 32 * $V) {\n"
    "            ALIGNED(16) $E y[$V];\n"
    "            tpc_read_16(y, w + first);\n"
    "            UNROLL for (int r = 0; r < $M; r++) {\n"
    "                ALIGNED(16) $E x[$V];\n"
    "                tpc_read_16(x, arguments.x + (r < arguments.rows ? r : 0) * arguments.x_row + first);\n"
    "                UNROLL for (int i = 0; i < $V; i++)\n"
    "                    sum[r] += value_of(x[i]) * value_of(y[i]);\n"
    "            }\n"
    "        }\n"
    "        UNROLL for (int r = 0; r < $M; r++)\n"
    "            for (int distance = 16; distance > 0; distance >>= 1)\n"
    "                sum[r] += __shfl_xor_sync(0xffffffffu, sum[r], distance);\n"
    "        UNROLL for (int row = 0; row < $M; row++) {\n"
    "            const float product = sum[row];\n"
    "            if (lane == row && row < arguments.rows) {\n";

static const char along_n_form[] =
    "    SHARED(float, parts, [32][8 * $V + 1]);\n"
    "    const int lane = threadIdx.x % 8, group = threadIdx.x / 8;\n"
    "    for (int64_t tile = blockIdx.x; tile * 8 * $V < arguments.n; tile += gridDim.x) {\n"
    "        const int64_t from = (tile * 8 + lane) * $V;\n"
    "        float sum[$M][$V] = {{0}};\n"
    "        for (int64_t i = group; i < arguments.k && from < arguments.n; i += 32) {\n"
    "            ALIGNED(16) $E y[$V];\n"
    "            tpc_read_16(y, arguments.w + i * arguments.w_next + from);\n"
    "            UNROLL for (int r = 0; r < $M; r++) {\n"
    "                const float x = value_of(__ldg(&arguments.x[(r < arguments.rows ? r : 0) * arguments.x_row + "
    "i]));\n"
    "                UNROLL for (int c = 0; c < $V; c++)\n"
    "                    sum[r][c] += x * value_of(y[c]);\n"
    "            }\n"
    "        }\n"
    "        UNROLL for (int row = 0; row < $M; row++) {\n"
    "            __syncthreads(); /* the last row's are read */\n"
    "            UNROLL for (int c = 0; c < $V; c++)\n"
    "                parts[group][lane * $V + c] = sum[row][c];\n"
    "            __syncthreads();\n"
    "            const int64_t column = tile * 8 * $V + threadIdx.x;\n"
    "            float product = 0;\n"
    "            for (int i = 0; i < 32 && threadIdx.x < 8 * $V; i++)\n"
    "                product += parts[i][threadIdx.x];\n"
    "            if (threadIdx.x < 8 * $V && column < arguments.n && row < arguments.rows) {\n";

static const char store_text[] =
    "                arguments.out[row * arguments.out_row + column * arguments.out_next] = element_of(product);\n";

/* The kernel behind it, for the element whose product is known. */
static void print_epilogue(struct printer *p, const struct cuda_skinny *a)
{
    const struct kernel *k = p->nest->kernel;
    uint8_t axes[KERNEL_AXES];
    struct text element = {.arena = p->arena};
    for (uint32_t i = 0; i < k->outer; i++)
        axes[i] = (uint8_t)i;
    p->dialect->store(&element, k->instruction[a->load].type, "product"); /* rounded as it would be in memory */
    p->staged[a->load] = element.at;
    p->indent = 4;
    print_line(p, "const int64_t element = row * arguments.n + column;");
    cuda_print_coordinates(p, axes, k->outer, "element");
    print_indices(p, DEPTH_POINT, 0);
    print_values(p, DEPTH_POINT, 0);
    print_values(p, nest_fast_depth(p->nest), 0);
}

static uint32_t add_function(struct cuda_set *set, const struct cuda_skinny *a, bool along_k, uint32_t rows)
{
    const struct program *p = set->program;
    const struct step *s = &p->steps.at[a->dot];
    dtype t = p->buffers.at[s->arg[2]].type;
    const struct nest *n = a->epilogue ? &set->kernel[p->steps.at[a->epilogue].kernel].nest : NULL;
    struct dialect d = n ? dialect_cuda_of(n->kernel) : dialect_cuda();
    struct text body = {.arena = set->arena};
    struct printer printer = {.nest = n, .dialect = &d, .arena = set->arena, .out = &body, .indent = 1};
    struct cuda_letters l = {0};
    char kernel[KERNEL_NAME] = "";
    bool *skip = n ? NEW_ARRAY(set->arena, bool, n->kernel->buffer_count + 1) : NULL;
    if (n) {
        kernel_name(n->kernel, p->graph->dims, set->arena, kernel);
        skip[n->kernel->instruction[a->load].buffer] = true;
        printer.index_of = NEW_ARRAY(set->arena, uint32_t, n->kernel->instruction_count + 1);
        printer.staged = NEW_ARRAY(set->arena, const char *, n->kernel->instruction_count + 1);
    }
    l.of['N' - 'A'] = arena_printf(set->arena, "tpc_skinny_%s_%s_%u%s", dtype_name(t), along_k ? "k" : "n",
                                   (unsigned)rows, n ? kernel + 5 : "");
    l.of['E' - 'A'] = d.element[t];
    l.of['M' - 'A'] = cuda_number(set->arena, rows);
    l.of['V' - 'A'] = cuda_number(set->arena, 16 / (int64_t)dtype_size(t));
    cuda_put_element(&body, t);
    cuda_fill(&body, head_form, &l);
    if (n)
        cuda_print_members(&printer, skip);
    text_put(&body, "};\n");
    cuda_fill(&body, along_k ? "/* A warp per column. */\n" : "/* A block per 8 accesses' columns. */\n", &l);
    cuda_fill(&body, "ENTRY($N, 256)\n{\n", &l);
    if (n) {
        cuda_print_locals(&printer, skip);
        print_indices(&printer, DEPTH_ENTRY, 0);
        print_values(&printer, DEPTH_ENTRY, 0);
    }
    cuda_fill(&body, along_k ? along_k_form : along_n_form, &l);
    if (n)
        print_epilogue(&printer, a);
    else
        text_put(&body, store_text);
    text_put(&body, "            }\n        }\n    }\n");
    printer.indent = 1;
    if (n)
        cuda_print_fault_reports(&printer);
    text_put(&body, "}\n");
    return cuda_add(set, l.of['N' - 'A'], body.at, THREADS, s->node);
}

void cuda_find_skinny(struct cuda_set *set)
{
    const struct program *p = set->program;
    set->skinny = NEW_ARRAY(set->arena, uint32_t, p->steps.count + 1);
    for (uint32_t i = 0; i < p->steps.count; i++) {
        struct cuda_skinny a = {.dot = i};
        const struct step *s = &p->steps.at[i];
        if (!may_be_skinny(set, s))
            continue;
        uint32_t last_k = s->dot->m + s->dot->n + s->dot->k - 1;
        a.along_k = dim_is(p->graph->dims, s->dot->stride[1][last_k], 1);
        if (!find_epilogue(set, i, &a))
            a.epilogue = 0;
        for (int few = 0; few < 2; few++) {
            a.with[few] = a.epilogue ? add_function(set, &a, a.along_k, row_counts[few]) : 0;
            const struct cuda_skinny alone = {.dot = i};
            a.alone[few] = add_function(set, &alone, a.along_k, row_counts[few]);
        }
        *PUSH(set->arena, &set->skinnies) = a;
        set->skinny[i] = set->skinnies.count;
        if (a.epilogue)
            set->skinny[a.epilogue] = set->skinnies.count;
    }
}

/* ---- launches ---- */

/* As one product that the functions take. */
static bool product_of(struct cuda_making *m, const struct cuda_skinny *a, struct cuda_product *out)
{
    const struct step *s = &m->set->program->steps.at[a->dot];
    struct cuda_view v;
    struct cuda_step step;
    dtype t = m->set->program->buffers.at[s->arg[2]].type;
    int64_t width = 16 / (int64_t)dtype_size(t);
    if (!cuda_view_of(s->dot, m->set->program->graph->dims, m->of, &v) || !cuda_products_of(m, &v, t, &step) ||
        step.count != 1 || step.product[0].batch != 1)
        return false;
    *out = step.product[0];
    int64_t next = a->along_k ? out->stride[1][0] : out->stride[1][1], length = a->along_k ? out->k : out->n;
    bool lies = a->along_k ? out->stride[1][1] == 1 : out->stride[1][0] == 1;
    bool x_fits = out->stride[0][1] == 1 &&
                  (!a->along_k || (out->offset[0] % width == 0 && (out->m == 1 || out->stride[0][0] % width == 0)));
    return out->m >= 1 && out->m <= MOST_ROWS && out->k >= 1 && lies && x_fits && next % width == 0 &&
           length % width == 0 && out->offset[1] % width == 0;
}

/* Does the epilogue see the product row by row? */
static bool takes_epilogue(const struct cuda_making *m, const struct cuda_skinny *a, const struct cuda_product *x)
{
    if (!a->epilogue || !m->set->joined || x->offset[2] != 0 || x->stride[2][1] != 1 ||
        (x->m > 1 && x->stride[2][0] != x->n))
        return false;
    const struct kernel *k = &m->set->program->kernels.at[m->set->program->steps.at[a->epilogue].kernel];
    int64_t elements = 1, extent;
    for (uint32_t i = 0; i < k->outer; i++)
        if (!dim_eval(m->set->program->graph->dims, k->extent[i], m->of, &extent) ||
            !i64_mul(elements, extent, &elements))
            return false;
    return elements == x->m * x->n;
}

bool cuda_skinny_step(struct cuda_making *m, const struct cuda_skinny *a, struct cuda_step *out)
{
    struct cuda_product x;
    const struct program *p = m->set->program;
    const struct step *dot = &p->steps.at[a->dot], *epilogue = a->epilogue ? &p->steps.at[a->epilogue] : NULL;
    if (!product_of(m, a, &x))
        return false;
    bool with = takes_epilogue(m, a, &x);
    *out = (struct cuda_step){.way = CUDA_NOTHING};
    if (with != (m->step == a->epilogue && epilogue))
        return m->step == a->dot; /* the epilogue does all of it; or it stays a kernel on its own */
    dtype t = p->buffers.at[dot->arg[2]].type;
    int64_t size = (int64_t)dtype_size(t);
    cuda_put_buffer(m, dot->arg[0], x.offset[0] * size);
    cuda_put_buffer(m, dot->arg[1], x.offset[1] * size);
    cuda_put_buffer(m, dot->arg[2], x.offset[2] * size);
    const int64_t numbers[] = {
        x.m, x.n, x.k, x.stride[0][0], a->along_k ? x.stride[1][0] : x.stride[1][1], x.stride[2][0], x.stride[2][1]};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        cuda_put_number(m, numbers[i]);
    if (with) {
        const struct nest *n = &m->set->kernel[epilogue->kernel].nest;
        for (uint32_t i = 0; i < n->kernel->buffer_count; i++)
            if (i != n->kernel->instruction[a->load].buffer)
                cuda_put_buffer(m, epilogue->arg[i], 0);
        for (uint32_t i = 0; i < n->symbol_count; i++)
            cuda_put_number(m, m->of[n->symbol[i]]);
        cuda_put_fault(m);
    }
    int64_t per_block = a->along_k ? THREADS / CUDA_WARP : LANES * (16 / size);
    struct cuda_launch *launch = NEW(m->arena, struct cuda_launch);
    *launch = cuda_launch_of(m, (with ? a->with : a->alone)[x.m > 1], (x.n + per_block - 1) / per_block, THREADS, 1, 0);
    *out = (struct cuda_step){.way = CUDA_LAUNCH, .count = 1, .launch = launch};
    return true;
}
