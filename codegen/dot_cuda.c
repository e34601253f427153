/* codegen/dot_cuda.c - dots on CUDA: as products for the GEMM library where strides allow, else by a function of our own for any strides and types.
 *
 * Own function: a block computes TILE x TILE elements of the result, in steps of DEPTH along k, through shared memory; where an element lies is
 * worked out once per row of a tile. It is what is right for integers and for windows; what should be fast goes to the library.
 */
#include "codegen/cuda_impl.h"

enum { TILE = 64, DEPTH = 16, PRODUCT_LIMIT = 256 };

/* ---- views ---- */

static bool joins(const struct cuda_view *v, uint32_t group, uint32_t outer, int64_t inner_extent,
                  const int64_t inner_stride[3])
{
    for (int o = 0; o < 3; o++)
        if (v->stride[o][group][outer] != inner_stride[o] * inner_extent)
            return false;
    return true;
}

static bool add_axis(struct cuda_view *v, uint32_t group, int64_t extent, const int64_t stride[3])
{
    uint32_t last = v->count[group];
    if (extent < 0)
        return false;
    if (extent == 1)
        return true;
    if (last && joins(v, group, last - 1, extent, stride)) {
        last--;
        if (!i64_mul(v->extent[group][last], extent, &v->extent[group][last]))
            return false;
    } else {
        v->count[group]++;
        v->extent[group][last] = extent;
    }
    for (int o = 0; o < 3; o++)
        v->stride[o][group][last] = stride[o];
    return true;
}

bool cuda_view_of(const struct dot *d, const struct dims *t, const int64_t *of, struct cuda_view *out)
{
    const uint32_t counts[4] = {d->batch, d->m, d->n, d->k};
    *out = (struct cuda_view){0};
    for (int o = 0; o < 3; o++)
        if (!dim_eval(t, d->offset[o], of, &out->offset[o]))
            return false;
    for (uint32_t group = 0, axis = 0; group < 4; group++)
        for (uint32_t i = 0; i < counts[group]; i++, axis++) {
            int64_t extent, stride[3];
            bool fits = dim_eval(t, d->extent[axis], of, &extent);
            for (int o = 0; o < 3; o++)
                fits = fits && dim_eval(t, d->stride[o][axis], of, &stride[o]);
            if (!fits || !add_axis(out, group, extent, stride))
                return false;
        }
    return true;
}

int64_t cuda_view_extent(const struct cuda_view *v, uint32_t group)
{
    int64_t product = 1;
    for (uint32_t i = 0; i < v->count[group]; i++)
        if (!i64_mul(product, v->extent[group][i], &product))
            return INT64_MAX;
    return product;
}

/* ---- products ---- */

static int64_t only_extent(const struct cuda_view *v, uint32_t group)
{
    return v->count[group] ? v->extent[group][0] : 1;
}

/* Strides of an operand's two axes as a matrix that a library takes: one is 1, the other at least as long as a row. */
static bool matrix_of(const struct cuda_view *v, int o, uint32_t rows, uint32_t columns, int64_t stride[2])
{
    int64_t extent[2] = {only_extent(v, rows), only_extent(v, columns)};
    const uint32_t group[2] = {rows, columns};
    for (int i = 0; i < 2; i++)
        stride[i] = v->count[group[i]] ? v->stride[o][group[i]][0] : 0;
    if (extent[1] == 1 || (extent[0] != 1 && stride[0] == 1 && stride[1] != 1)) {
        if (extent[0] == 1)
            stride[0] = 1;
        if (extent[1] == 1)
            stride[1] = extent[0];
        return stride[0] == 1 && stride[1] >= extent[0];
    }
    if (extent[0] == 1)
        stride[0] = extent[1];
    return stride[1] == 1 && stride[0] >= extent[1];
}

static bool is_library_type(dtype t)
{
    return t == DT_F16 || t == DT_BF16 || t == DT_F32 || t == DT_F64;
}

/* The innermost batch axis within one product, the others as products of their own. */
bool cuda_products_of(struct cuda_making *m, const struct cuda_view *v, dtype type, struct cuda_step *out)
{
    struct cuda_product p = {.type = type, .batch = 1};
    int64_t outer = 1;
    if (v->count[VIEW_M] > 1 || v->count[VIEW_N] > 1 || v->count[VIEW_K] > 1 || !is_library_type(type) ||
        !matrix_of(v, 0, VIEW_M, VIEW_K, p.stride[0]) || !matrix_of(v, 1, VIEW_N, VIEW_K, p.stride[1]) ||
        !matrix_of(v, 2, VIEW_M, VIEW_N, p.stride[2]))
        return false;
    uint32_t batches = v->count[VIEW_BATCH], last = batches ? batches - 1 : 0;
    for (uint32_t i = 0; i < last; i++)
        if (!i64_mul(outer, v->extent[VIEW_BATCH][i], &outer) || outer > PRODUCT_LIMIT)
            return false;
    p.m = only_extent(v, VIEW_M);
    p.n = only_extent(v, VIEW_N);
    p.k = only_extent(v, VIEW_K);
    p.batch = batches ? v->extent[VIEW_BATCH][last] : 1;
    struct cuda_product *list = NEW_ARRAY(m->arena, struct cuda_product, (size_t)outer);
    for (int64_t i = 0; i < outer; i++) {
        list[i] = p;
        for (int o = 0; o < 3; o++) {
            int64_t rest = i;
            list[i].offset[o] = v->offset[o];
            list[i].batch_stride[o] = batches ? v->stride[o][VIEW_BATCH][last] : 0;
            for (uint32_t a = last; a-- > 0; rest /= v->extent[VIEW_BATCH][a])
                list[i].offset[o] += rest % v->extent[VIEW_BATCH][a] * v->stride[o][VIEW_BATCH][a];
        }
    }
    *out = (struct cuda_step){.way = CUDA_PRODUCT, .count = (uint32_t)outer, .product = list};
    return true;
}

/* ---- the own function ---- */

static const char form[] =
    "struct $N_arguments {\n"
    "    const $E *lhs, *rhs;\n"
    "    $E *out;\n"
    "    int64_t offset_lhs, offset_rhs, offset_out;\n"
    "    struct {\n"
    "        int64_t extent, lhs, rhs, out; /* strides */\n"
    "    } batch[$B], m[$M], n[$R], k[$K];\n"
    "    int64_t tiles, tiles_m, tiles_n, count_m, count_n, count_k;\n"
    "};\n"
    "/* Where element `i` of some axes lies: moves each of the offsets. */\n"
    "#define LOCATE(axes, count, i, to_lhs, to_rhs, to_out) \\\n"
    "    for (int a = (count) - 1; a >= 0; a--) { \\\n"
    "        const int64_t at = (i) % arguments.axes[a].extent; \\\n"
    "        (i) /= arguments.axes[a].extent; \\\n"
    "        to_lhs += at * arguments.axes[a].lhs; \\\n"
    "        to_rhs += at * arguments.axes[a].rhs; \\\n"
    "        to_out += at * arguments.axes[a].out; \\\n"
    "    }\n"
    "/* A tile of 64 x 64 elements per block, 4 x 4 per thread; 16 steps along k at a time. */\n"
    "ENTRY($N, 256)\n"
    "{\n"
    "    SHARED($A, left, [16][65]);\n"
    "    SHARED($A, right, [16][65]);\n"
    "    SHARED(int64_t, lhs_row, [64]);\n"
    "    SHARED(int64_t, rhs_row, [64]);\n"
    "    SHARED(int64_t, out_row, [64]);\n"
    "    SHARED(int64_t, out_column, [64]);\n"
    "    SHARED(int64_t, lhs_step, [16]);\n"
    "    SHARED(int64_t, rhs_step, [16]);\n"
    "    const int thread = threadIdx.x, row = thread / 16 * 4, column = thread % 16 * 4;\n"
    "    for (int64_t tile = blockIdx.x; tile < arguments.tiles; tile += gridDim.x) {\n"
    "        const int64_t first_m = tile % arguments.tiles_m * 64, others = tile / arguments.tiles_m;\n"
    "        const int64_t first_n = others % arguments.tiles_n * 64;\n"
    "        int64_t batch = others / arguments.tiles_n, none = 0;\n"
    "        int64_t lhs = arguments.offset_lhs, rhs = arguments.offset_rhs, out = arguments.offset_out;\n"
    "        LOCATE(batch, $B, batch, lhs, rhs, out)\n"
    "        if (thread < 64) {\n"
    "            int64_t i = first_m + thread, to_lhs = 0, to_out = 0;\n"
    "            LOCATE(m, $M, i, to_lhs, none, to_out)\n"
    "            lhs_row[thread] = to_lhs;\n"
    "            out_row[thread] = to_out;\n"
    "        } else if (thread < 128) {\n"
    "            int64_t i = first_n + thread - 64, to_rhs = 0, to_out = 0;\n"
    "            LOCATE(n, $R, i, none, to_rhs, to_out)\n"
    "            rhs_row[thread - 64] = to_rhs;\n"
    "            out_column[thread - 64] = to_out;\n"
    "        }\n"
    "        $A sum[4][4] = {{0}};\n"
    "        for (int64_t first_k = 0; first_k < arguments.count_k; first_k += 16) {\n"
    "            if (thread < 16) {\n"
    "                int64_t i = first_k + thread, to_lhs = 0, to_rhs = 0;\n"
    "                LOCATE(k, $K, i, to_lhs, to_rhs, none)\n"
    "                lhs_step[thread] = to_lhs;\n"
    "                rhs_step[thread] = to_rhs;\n"
    "            }\n"
    "            __syncthreads();\n"
    "            for (int i = thread; i < 64 * 16; i += 256) {\n"
    "                const int k = i % 16, at = i / 16;\n"
    "                const bool inside = first_k + k < arguments.count_k;\n"
    "                left[k][at] = inside && first_m + at < arguments.count_m\n"
    "                    ? ($A)value_of(__ldg(&arguments.lhs[lhs + lhs_row[at] + lhs_step[k]])) : ($A)0;\n"
    "                right[k][at] = inside && first_n + at < arguments.count_n\n"
    "                    ? ($A)value_of(__ldg(&arguments.rhs[rhs + rhs_row[at] + rhs_step[k]])) : ($A)0;\n"
    "            }\n"
    "            __syncthreads();\n"
    "            for (int k = 0; k < 16; k++)\n"
    "                UNROLL for (int i = 0; i < 4; i++)\n"
    "                    UNROLL for (int j = 0; j < 4; j++)\n"
    "                        sum[i][j] $O left[k][row + i] $P right[k][column + j];\n"
    "            __syncthreads(); /* before the next steps' offsets */\n"
    "        }\n"
    "        if (arguments.count_k == 0)\n"
    "            __syncthreads();\n"
    "        UNROLL for (int i = 0; i < 4; i++)\n"
    "            UNROLL for (int j = 0; j < 4; j++)\n"
    "                if (first_m + row + i < arguments.count_m && first_n + column + j < arguments.count_n)\n"
    "                    arguments.out[out + out_row[row + i] + out_column[column + j]] = element_of(($V)sum[i][j]);\n"
    "        __syncthreads();\n"
    "    }\n"
    "}\n";

static uint32_t at_least_one(uint32_t n)
{
    return n ? n : 1;
}

uint32_t cuda_add_dot(struct cuda_set *set, const struct step *s)
{
    const struct dot *d = s->dot;
    const struct dialect c = dialect_cuda();
    dtype t = set->program->buffers.at[s->arg[2]].type;
    struct arena *arena = set->arena;
    bool boolean = t == DT_BOOL, is_float = dtype_is_float(t);
    const char *accumulator = t == DT_F64 ? "double" : is_float ? "float" : boolean ? "int32_t" : "uint64_t";
    struct cuda_letters l = {
        .of = {['N' - 'A'] = arena_printf(arena, "tpc_dot_%s_%u_%u_%u_%u", dtype_name(t), (unsigned)d->batch,
                                          (unsigned)d->m, (unsigned)d->n, (unsigned)d->k)}};
    l.of['E' - 'A'] = c.element[t];
    l.of['V' - 'A'] = c.type[t];
    l.of['A' - 'A'] = accumulator;
    l.of['B' - 'A'] = cuda_number(arena, at_least_one(d->batch));
    l.of['M' - 'A'] = cuda_number(arena, at_least_one(d->m));
    l.of['R' - 'A'] = cuda_number(arena, at_least_one(d->n));
    l.of['K' - 'A'] = cuda_number(arena, at_least_one(d->k));
    l.of['O' - 'A'] = boolean ? "|=" : "+=";
    l.of['P' - 'A'] = boolean ? "&" : "*";
    struct text body = {.arena = arena};
    cuda_put_element(&body, t);
    cuda_fill(&body, form, &l);
    return cuda_add(set, l.of['N' - 'A'], body.at, 256, s->node);
}

static void put_axes(struct cuda_making *m, const struct cuda_view *v, uint32_t group, uint32_t count)
{
    for (uint32_t i = 0; i < at_least_one(count); i++) {
        bool has = i < v->count[group];
        cuda_put_number(m, has ? v->extent[group][i] : 1);
        for (int o = 0; o < 3; o++)
            cuda_put_number(m, has ? v->stride[o][group][i] : 0);
    }
}

static status own_launch(struct cuda_making *m, const struct cuda_view *v, const struct step *s, struct cuda_step *out)
{
    const struct dot *d = s->dot;
    int64_t rows = cuda_view_extent(v, VIEW_M), columns = cuda_view_extent(v, VIEW_N), tiles;
    int64_t tiles_m = (rows - 1) / TILE + 1, tiles_n = (columns - 1) / TILE + 1;
    struct cuda_launch *launch = NEW(m->arena, struct cuda_launch);
    if (!i64_mul(tiles_m, tiles_n, &tiles) || !i64_mul(tiles, cuda_view_extent(v, VIEW_BATCH), &tiles))
        return TPC_DATA;
    for (int o = 0; o < 3; o++)
        cuda_put_buffer(m, s->arg[o], 0);
    for (int o = 0; o < 3; o++)
        cuda_put_number(m, v->offset[o]);
    put_axes(m, v, VIEW_BATCH, d->batch);
    put_axes(m, v, VIEW_M, d->m);
    put_axes(m, v, VIEW_N, d->n);
    put_axes(m, v, VIEW_K, d->k);
    const int64_t numbers[] = {tiles, tiles_m, tiles_n, rows, columns, cuda_view_extent(v, VIEW_K)};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        cuda_put_number(m, numbers[i]);
    *launch = cuda_launch_of(m, m->set->of_step[m->step] - 1, tiles, 256, 1, 0);
    *out = (struct cuda_step){.way = CUDA_LAUNCH, .count = 1, .launch = launch};
    return TPC_OK;
}

/* ---- alike ---- */

static bool same_dims(const dim *a, const dim *b, uint32_t count)
{
    return count == 0 || memcmp(a, b, count * sizeof *a) == 0;
}

/* Dots of one left operand and one shape: keys and values, gate and up. */
static bool is_alike(const struct program *p, const struct step *a, const struct step *b)
{
    const struct dot *x = a->dot, *y = b->dot;
    uint32_t axes = x->batch + x->m + x->n + x->k;
    bool same = a->arg[0] == b->arg[0] && x->batch == y->batch && x->m == y->m && x->n == y->n && x->k == y->k &&
                p->buffers.at[a->arg[2]].type == p->buffers.at[b->arg[2]].type &&
                same_dims(x->extent, y->extent, axes) && same_dims(x->offset, y->offset, 3);
    for (int o = 0; o < 3 && same; o++)
        same = same_dims(x->stride[o], y->stride[o], axes);
    return same;
}

static bool uses(const struct step *s, uint32_t buffer)
{
    for (uint32_t i = 0; i < s->arg_count; i++)
        if (s->arg[i] == buffer)
            return true;
    return false;
}

static bool may_be_alike(const struct cuda_set *set, uint32_t step)
{
    const struct step *s = &set->program->steps.at[step];
    return s->kind == STEP_DOT && s->phase == PHASE_RUN && !set->attention[step] && s->arg[0] != s->arg[2] &&
           s->arg[1] != s->arg[2];
}

enum { FURTHEST = 8 };

/* They wait for the last of them: nothing stands between but other dots, none of which uses what they make. */
static uint32_t last_alike(const struct cuda_set *set, uint32_t first)
{
    const struct program *p = set->program;
    const struct step *a = &p->steps.at[first];
    uint32_t last = first;
    for (uint32_t i = first + 1; i < p->steps.count && i < first + FURTHEST && may_be_alike(set, i); i++) {
        const struct step *s = &p->steps.at[i];
        if (uses(s, a->arg[2]) || s->arg[2] == a->arg[0] || s->arg[2] == a->arg[1])
            break;
        bool same_way = !set->skinny[i].count == !set->skinny[first].count; /* for few rows */
        last = same_way && is_alike(p, a, s) ? i : last;
    }
    return last;
}

void cuda_find_alike(struct cuda_set *set)
{
    set->alike = NEW_ARRAY(set->arena, uint32_t, set->program->steps.count + 1);
    for (uint32_t i = set->program->steps.count; i-- > 0;) {
        uint32_t last = may_be_alike(set, i) ? last_alike(set, i) : i;
        bool waits = set->alike[last] != 0 && set->alike[last] != last; /* for one that is too far from here */
        if (last != i && !waits)
            set->alike[i] = set->alike[last] = last;
    }
}

/* The library's products of a step, or (its last) of all that are alike. */
static bool products_step(struct cuda_making *m, const struct cuda_view *v, struct cuda_step *out)
{
    const struct program *p = m->set->program;
    const struct step *s = &p->steps.at[m->step];
    struct cuda_step own;
    if (!cuda_products_of(m, v, p->buffers.at[s->arg[2]].type, &own))
        return false;
    LIST(struct cuda_product) all = {0};
    uint32_t last = m->set->joined && m->set->alike[m->step] ? m->set->alike[m->step] : m->step;
    if (last != m->step)
        return true;
    for (uint32_t i = last < FURTHEST ? 0 : last - FURTHEST; i <= last; i++)
        for (uint32_t k = 0; k < own.count && (i == last || (m->set->joined && m->set->alike[i] == last)); k++) {
            struct cuda_product *x = PUSH(m->arena, &all);
            *x = own.product[k];
            memcpy(x->buffer, p->steps.at[i].arg, sizeof x->buffer);
        }
    *out = (struct cuda_step){.way = CUDA_PRODUCT, .count = all.count, .product = all.at};
    return true;
}

status cuda_dot_step(struct cuda_making *m, struct cuda_step *out)
{
    const struct step *s = &m->set->program->steps.at[m->step];
    struct cuda_view v;
    if (!cuda_view_of(s->dot, m->set->program->graph->dims, m->of, &v))
        return TPC_DATA;
    int64_t elements = 1;
    for (uint32_t group = VIEW_BATCH; group < VIEW_K; group++) {
        int64_t extent = cuda_view_extent(&v, group);
        elements = extent == 0 || elements == 0 ? 0 : 1;
    }
    *out = (struct cuda_step){.way = CUDA_NOTHING};
    if (elements == 0)
        return TPC_OK;
    if (cuda_view_extent(&v, VIEW_K) > 0 && products_step(m, &v, out))
        return TPC_OK;
    return own_launch(m, &v, s, out);
}
