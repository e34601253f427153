/* runtime/gemm_builtin.c - our own matrix kernels: a blocked product over packed panels, and products of few rows bound by memory.
 *
 * Invariant: the bits of a result depend on the instruction set and on the shape, never on addresses or on threads. Panels are
 * padded with zeros to whole tiles, so that a tile has no edge cases; tiles at the border go through a small buffer.
 * Start with `blocked_f32`; the inner loops are in gemm_simd.h.
 */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("fp-contract=fast") /* -std=c17 keeps GCC from using fused multiply-adds; clang does by default */
#endif

#include "runtime/gemm.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

enum { BLOCK_K = 256, BLOCK_M = 120, BLOCK_N = 1024, TILE_MOST = 32 * 32 };

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Packs rows x k of a (element (i, p) at i * row + p * step) into panels of `height` rows: [panel][p][height]. */
#define PACK(name, scalar)                                                                                             \
    static void name(int64_t rows, int64_t k, int64_t height, const scalar *a, int64_t row, int64_t step, scalar *to)  \
    {                                                                                                                  \
        for (int64_t first = 0; first < rows; first += height) {                                                       \
            int64_t here = least(height, rows - first);                                                                \
            const scalar *from = a + first * row;                                                                      \
            for (int64_t p = 0; p < k; p++, to += height) {                                                            \
                for (int64_t i = 0; i < here; i++)                                                                     \
                    to[i] = from[i * row + p * step];                                                                  \
                for (int64_t i = here; i < height; i++)                                                                \
                    to[i] = 0;                                                                                         \
            }                                                                                                          \
        }                                                                                                              \
    }
PACK(pack_f32, float)
PACK(pack_f64, double)

/* The three loops around a tile (as in GotoBLAS): b's block of [BLOCK_K, BLOCK_N] stays in the outer cache, a's in the inner one. */
#define BLOCKED(name, pack, scalar)                                                                                    \
    static void name(const struct gemm_call *c, int64_t height, int64_t width,                                         \
                     void (*tile)(int64_t, const scalar *, const scalar *, scalar *, int64_t, bool))                   \
    {                                                                                                                  \
        int64_t block_n = (BLOCK_N * 4 / (int64_t)sizeof(scalar)) / width * width,                                     \
                block_m = BLOCK_M / height * height;                                                                   \
        int64_t a_row = c->transpose_a ? 1 : c->lda, a_step = c->transpose_a ? c->lda : 1;                             \
        int64_t b_row = c->transpose_b ? c->ldb : 1, b_step = c->transpose_b ? 1 : c->ldb;                             \
        const scalar *a = c->a, *b = c->b;                                                                             \
        scalar *out = c->out, *panel_b = c->scratch, *panel_a = panel_b + BLOCK_K * block_n, edge[TILE_MOST];          \
        for (int64_t p = 0; p < c->k; p += BLOCK_K) {                                                                  \
            int64_t k = least(BLOCK_K, c->k - p);                                                                      \
            bool add = c->accumulate || p > 0;                                                                         \
            for (int64_t n = 0; n < c->n; n += block_n) {                                                              \
                int64_t columns = least(block_n, c->n - n);                                                            \
                pack(columns, k, width, b + n * b_row + p * b_step, b_row, b_step, panel_b);                           \
                for (int64_t m = 0; m < c->m; m += block_m) {                                                          \
                    int64_t rows = least(block_m, c->m - m);                                                           \
                    pack(rows, k, height, a + m * a_row + p * a_step, a_row, a_step, panel_a);                         \
                    for (int64_t j = 0; j < columns; j += width)                                                       \
                        for (int64_t i = 0; i < rows; i += height) {                                                   \
                            scalar *to = out + (m + i) * c->ldo + n + j;                                               \
                            int64_t high = least(height, rows - i), wide = least(width, columns - j);                  \
                            if (high == height && wide == width) {                                                     \
                                tile(k, panel_a + i * k, panel_b + j * k, to, c->ldo, add);                            \
                                continue;                                                                              \
                            }                                                                                          \
                            tile(k, panel_a + i * k, panel_b + j * k, edge, width, false);                             \
                            for (int64_t y = 0; y < high; y++)                                                         \
                                for (int64_t x = 0; x < wide; x++)                                                     \
                                    to[y * c->ldo + x] = edge[y * width + x] + (add ? to[y * c->ldo + x] : 0);         \
                        }                                                                                              \
                }                                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
        for (int64_t m = 0; c->k == 0 && !c->accumulate && m < c->m; m++)                                              \
            memset(out + m * c->ldo, 0, (size_t)c->n * sizeof(scalar));                                                \
    }
BLOCKED(blocked_f32, pack_f32, float)
BLOCKED(blocked_f64, pack_f64, double)

/* More rows than a tile has: w goes through the cache in blocks, each of which is read by one tile of rows after the other. */
static void skinny_blocks(const struct skinny_call *c, void (*tile)(const struct skinny_call *))
{
    enum { SKINNY_N = 64, SKINNY_K = 32 }; /* of [n][k] as many rows, of [k][n] as many rows: some 256 KB each */
    if (c->rows <= SKINNY_TILE) {
        tile(c);
        return;
    }
    int64_t step_n = c->rows_of_n ? SKINNY_N : c->end - c->begin, step_k = c->rows_of_n ? c->k : SKINNY_K;
    size_t size = dtype_size(c->type);
    for (int64_t n = c->begin; n < c->end; n += step_n)
        for (int64_t k = 0; k < c->k; k += step_k)
            for (int64_t row = 0; row < c->rows; row += SKINNY_TILE) {
                struct skinny_call part = *c;
                part.rows = least(SKINNY_TILE, c->rows - row);
                part.begin = n;
                part.end = least(c->end, n + step_n);
                part.k = least(step_k, c->k - k);
                part.accumulate = c->accumulate || k > 0;
                part.x = c->x + row * c->ldx + k;
                part.w = (const char *)c->w + (size_t)(c->rows_of_n ? k : k * c->ldw) * size;
                part.out = c->out + row * c->ldo;
                tile(&part);
            }
}

static void narrow_plain(dtype type, const float *from, int64_t count, void *to)
{
    uint16_t *half = to;
    for (int64_t i = 0; i < count; i++)
        half[i] = type == DT_BF16 ? f32_to_bf16(from[i]) : f32_to_f16(from[i]);
}

/* ---- instruction sets --------------------------------------------------------------------------------------- */

#define NAME(x) x##_baseline
#define TARGET
#define WIDTH 4
#define MR 4
#define NV 2
#define INSTRUCTION "baseline"
#define LOAD_F16(p, to)                                                                                                \
    for (int lane = 0; lane < WIDTH; lane++)                                                                           \
        (*(to))[lane] = f16_to_f32((p)[lane]);
#include "runtime/gemm_simd.h"

#if defined(__x86_64__)
#define NAME(x) x##_avx2
#define TARGET __attribute__((target("avx2,fma,f16c")))
#define WIDTH 8
#define MR 6
#define NV 2
#define INSTRUCTION "avx2"
#define LOAD_F16(p, to)                                                                                                \
    {                                                                                                                  \
        __m128i half;                                                                                                  \
        memcpy(&half, (p), sizeof half);                                                                               \
        __m256 wide = _mm256_cvtph_ps(half);                                                                           \
        memcpy((to), &wide, sizeof wide);                                                                              \
    }
#include "runtime/gemm_simd.h"

#define NAME(x) x##_avx512
#define TARGET __attribute__((target("avx512f,avx2,fma,f16c")))
#define WIDTH 16
#define MR 12
#define NV 2
#define INSTRUCTION "avx512"
#define LOAD_F16(p, to)                                                                                                \
    {                                                                                                                  \
        __m256i half;                                                                                                  \
        memcpy(&half, (p), sizeof half);                                                                               \
        __m512 wide = _mm512_cvtph_ps(half);                                                                           \
        memcpy((to), &wide, sizeof wide);                                                                              \
    }
#include "runtime/gemm_simd.h"
#endif

const struct gemm_kernels *gemm_kernels(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f"))
        return &kernels_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return &kernels_avx2;
#endif
    return &kernels_baseline;
}
