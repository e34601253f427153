/* runtime/gemm_simd.h - the kernels of gemm_builtin.c for one instruction set; included once per set, hence without a guard.
 *
 * Expects: NAME(x) (adds the set's suffix), TARGET (function attribute), WIDTH (floats per vector), MR and NV (a tile is MR rows by
 * NV vectors), LOAD_F16(p) (WIDTH floats from halves). Vectors never cross a call, so that no ABI depends on the set.
 */

typedef float NAME(vf) __attribute__((vector_size(WIDTH * 4)));
typedef double NAME(vd) __attribute__((vector_size(WIDTH * 4)));
typedef uint32_t NAME(vu) __attribute__((vector_size(WIDTH * 4)));
typedef uint16_t NAME(vh) __attribute__((vector_size(WIDTH * 2)));
#define VF NAME(vf)
#define VD NAME(vd)
#define VU NAME(vu)
#define VH NAME(vh)

/* ---- one tile: out[MR][NV * lanes] from packed panels --------------------------------------------------------- */

#define TILE(name, scalar, vector, lanes)                                                                              \
    TARGET static void NAME(name)(int64_t k, const scalar *a, const scalar *b, scalar *out, int64_t ldo,               \
                                  bool accumulate)                                                                     \
    {                                                                                                                  \
        vector sum[MR][NV];                                                                                            \
        memset(sum, 0, sizeof sum);                                                                                    \
        for (int64_t p = 0; p < k; p++) {                                                                              \
            vector row[NV];                                                                                            \
            UNROLL for (int j = 0; j < NV; j++) memcpy(&row[j], b + j * (lanes), sizeof row[j]);                       \
            UNROLL for (int i = 0; i < MR; i++) UNROLL for (int j = 0; j < NV; j++) sum[i][j] += a[i] * row[j];        \
            a += MR;                                                                                                   \
            b += NV * (lanes);                                                                                         \
        }                                                                                                              \
        UNROLL for (int i = 0; i < MR; i++) UNROLL for (int j = 0; j < NV; j++)                                        \
        {                                                                                                              \
            vector old = {0};                                                                                          \
            if (accumulate)                                                                                            \
                memcpy(&old, out + i * ldo + j * (lanes), sizeof old);                                                 \
            old += sum[i][j];                                                                                          \
            memcpy(out + i * ldo + j * (lanes), &old, sizeof old);                                                     \
        }                                                                                                              \
    }

TILE(tile_f32, float, VF, WIDTH)
TILE(tile_f64, double, VD, (WIDTH / 2))
#undef TILE

TARGET static void NAME(gemm_f32)(const struct gemm_call *c)
{
    blocked_f32(c, MR, NV * WIDTH, NAME(tile_f32));
}

TARGET static void NAME(gemm_f64)(const struct gemm_call *c)
{
    blocked_f64(c, MR, NV * WIDTH / 2, NAME(tile_f64));
}

/* ---- few rows ------------------------------------------------------------------------------------------------- */

TARGET static inline __attribute__((always_inline)) void NAME(load)(dtype type, const void *w, int64_t at, VF *to)
{
    if (type == DT_F32) {
        memcpy(to, (const float *)w + at, sizeof *to);
    } else if (type == DT_BF16) {
        VH half;
        memcpy(&half, (const uint16_t *)w + at, sizeof half);
        VU word = __builtin_convertvector(half, VU) << 16;
        memcpy(to, &word, sizeof *to);
    } else {
        LOAD_F16((const uint16_t *)w + at, to);
    }
}

static inline float NAME(scalar)(dtype type, const void *w, int64_t at)
{
    if (type == DT_F32)
        return ((const float *)w)[at];
    uint16_t half = ((const uint16_t *)w)[at];
    return type == DT_BF16 ? bf16_to_f32(half) : f16_to_f32(half);
}

/* `columns` outputs of `rows` rows, w being [n][k]: each output is a product of two contiguous rows. */
TARGET static inline __attribute__((always_inline)) void NAME(dots)(const struct skinny_call *c, dtype type, int rows,
                                                                    int columns, int64_t n)
{
    VF sum[4][4];
    memset(sum, 0, sizeof sum);
    int64_t p = 0;
    for (; p + WIDTH <= c->k; p += WIDTH) {
        VF x[4], w[4];
        UNROLL for (int r = 0; r < rows; r++) memcpy(&x[r], c->x + r * c->ldx + p, sizeof x[r]);
        UNROLL for (int j = 0; j < columns; j++)
        {
            NAME(load)(type, c->w, (n + j) * c->ldw + p, &w[j]);
            UNROLL for (int r = 0; r < rows; r++) sum[r][j] += x[r] * w[j];
        }
    }
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < columns; j++) {
            float total = 0;
            for (int i = 0; i < WIDTH; i++)
                total += sum[r][j][i];
            for (int64_t q = p; q < c->k; q++)
                total += c->x[r * c->ldx + q] * NAME(scalar)(type, c->w, (n + j) * c->ldw + q);
            c->out[r * c->ldo + n + j] = total + (c->accumulate ? c->out[r * c->ldo + n + j] : 0);
        }
}

TARGET static inline __attribute__((always_inline)) void NAME(dots_all)(const struct skinny_call *c, dtype type,
                                                                        int rows)
{
    int64_t n = c->begin;
    for (; n + 4 <= c->end; n += 4)
        NAME(dots)(c, type, rows, 4, n);
    for (; n < c->end; n++)
        NAME(dots)(c, type, rows, 1, n);
}

/* w being [k][n]: `steps` rows of w, scaled, are added to [begin, end) of the output. */
TARGET static inline __attribute__((always_inline)) void NAME(axpy)(const struct skinny_call *c, dtype type, int rows,
                                                                    int steps, int64_t p, int64_t begin, int64_t end)
{
    int64_t n = begin;
    for (; n + WIDTH <= end; n += WIDTH) {
        VF sum[4];
        UNROLL for (int r = 0; r < rows; r++) memcpy(&sum[r], c->out + r * c->ldo + n, sizeof sum[r]);
        UNROLL for (int s = 0; s < steps; s++)
        {
            VF w;
            NAME(load)(type, c->w, (p + s) * c->ldw + n, &w);
            UNROLL for (int r = 0; r < rows; r++) sum[r] += c->x[r * c->ldx + p + s] * w;
        }
        UNROLL for (int r = 0; r < rows; r++) memcpy(c->out + r * c->ldo + n, &sum[r], sizeof sum[r]);
    }
    for (; n < end; n++)
        for (int r = 0; r < rows; r++) {
            float sum = c->out[r * c->ldo + n];
            for (int s = 0; s < steps; s++)
                sum += c->x[r * c->ldx + p + s] * NAME(scalar)(type, c->w, (p + s) * c->ldw + n);
            c->out[r * c->ldo + n] = sum;
        }
}

TARGET static inline __attribute__((always_inline)) void NAME(axpy_all)(const struct skinny_call *c, dtype type,
                                                                        int rows)
{
    enum { COLUMNS = 2048 }; /* of the output, that stay in the first cache */
    for (int64_t begin = c->begin; begin < c->end; begin += COLUMNS) {
        int64_t end = begin + COLUMNS < c->end ? begin + COLUMNS : c->end;
        for (int r = 0; r < rows && !c->accumulate; r++)
            memset(c->out + r * c->ldo + begin, 0, (size_t)(end - begin) * sizeof(float));
        int64_t p = 0;
        for (; p + 8 <= c->k; p += 8)
            NAME(axpy)(c, type, rows, 8, p, begin, end);
        for (; p < c->k; p++)
            NAME(axpy)(c, type, rows, 1, p, begin, end);
    }
}

/* Constant arguments make each case a loop of its own. */
#define SKINNY(type, rows)                                                                                             \
    TARGET static void NAME(skinny_##type##_##rows)(const struct skinny_call *c)                                       \
    {                                                                                                                  \
        if (c->rows_of_n)                                                                                              \
            NAME(dots_all)(c, DT_##type, rows);                                                                        \
        else                                                                                                           \
            NAME(axpy_all)(c, DT_##type, rows);                                                                        \
    }
SKINNY(F32, 1)
SKINNY(F32, 2)
SKINNY(F32, 3)
SKINNY(F32, 4)
SKINNY(F16, 1)
SKINNY(F16, 2)
SKINNY(F16, 3)
SKINNY(F16, 4)
SKINNY(BF16, 1)
SKINNY(BF16, 2) SKINNY(BF16, 3) SKINNY(BF16, 4)
#undef SKINNY

    static void NAME(skinny_tile)(const struct skinny_call *c)
{
    static void (*const table[3][SKINNY_TILE])(const struct skinny_call *) = {
        {NAME(skinny_F32_1), NAME(skinny_F32_2), NAME(skinny_F32_3), NAME(skinny_F32_4)},
        {NAME(skinny_F16_1), NAME(skinny_F16_2), NAME(skinny_F16_3), NAME(skinny_F16_4)},
        {NAME(skinny_BF16_1), NAME(skinny_BF16_2), NAME(skinny_BF16_3), NAME(skinny_BF16_4)}};
    table[c->type == DT_F32 ? 0 : c->type == DT_F16 ? 1 : 2][c->rows - 1](c);
}

static void NAME(skinny)(const struct skinny_call *c)
{
    skinny_blocks(c, NAME(skinny_tile));
}

TARGET static void NAME(widen)(dtype type, const void *from, int64_t stride, int64_t count, float *to)
{
    int64_t i = 0;
    if (stride == 1)
        for (; i + WIDTH <= count; i += WIDTH) {
            VF x;
            if (type == DT_BF16)
                NAME(load)(DT_BF16, from, i, &x);
            else
                NAME(load)(DT_F16, from, i, &x);
            memcpy(to + i, &x, sizeof x);
        }
    for (; i < count; i++)
        to[i] = NAME(scalar)(type, from, i * stride);
}

static const struct gemm_kernels NAME(kernels) = {
    .instruction = INSTRUCTION,
    .gemm_f32 = NAME(gemm_f32),
    .gemm_f64 = NAME(gemm_f64),
    .skinny = NAME(skinny),
    .widen = NAME(widen),
    .narrow = narrow_plain,
};

#undef VF
#undef VD
#undef VU
#undef VH
#undef NAME
#undef TARGET
#undef WIDTH
#undef MR
#undef NV
#undef LOAD_F16
#undef INSTRUCTION
