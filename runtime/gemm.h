/* runtime/gemm.h - matrix products: a Program's dot on the CPU, by the best library that the machine has.
 *
 * Found at run time, once per process: oneDNN (libdnnl), else an optimised BLAS (MKL, OpenBLAS, BLIS, ATLAS), else our own kernels, which are
 * also preferred to the reference BLAS. TPC_GEMM=onednn|blas|builtin overrides. The library is called on one thread at a time per worker:
 * we share the work out ourselves, so that ranks and their workers never fight for cores, and the same input gives the same bits.
 *
 * Sections: gemm.c (views, the plan of a product), gemm_library.c (finding and calling libraries), gemm_builtin.c (our kernels, one set per
 * instruction set from gemm_simd.h)
 */
#ifndef TPC_RUNTIME_GEMM_H
#define TPC_RUNTIME_GEMM_H

#include "ir/program.h"
#include "runtime/sync.h"

/* ---- what was found: gemm_library.c ------------------------------------------------------------------------- */

struct gemm_info {
    const char *name;        /* "oneDNN 2.6.0", "OpenBLAS 0.3.21", "built in (avx512)" */
    const char *path;        /* of the shared library; "" when built in */
    const char *instruction; /* instruction set of our own kernels: "avx512", "avx2", "baseline" */
    const char
        *warning; /* "" or one line: an OpenBLAS that took the CPU for an old one, an override that was not found */
};
/* Any thread; the first call looks. Texts live as long as the process. */
const struct gemm_info *gemm_info(void);
/* Small products of every kind, for libraries that generate code at the first call of each (some 40 ms): so that a first run does not wait for that. */
void gemm_warm(void);

/* ---- products: gemm.c --------------------------------------------------------------------------------------- */

/* A struct dot in numbers. Axes with extent 1 may be dropped, the others merged (dot_view_merge): same product. */
struct dot_view {
    uint32_t batch, m, n, k;
    int64_t extent[MAX_RANK];
    int64_t stride[3][MAX_RANK];
    int64_t offset[3];
};

/* false: overflow, a negative extent or offset. */
bool dot_view_of(const struct dot *d, const struct dims *t, const int64_t *of, struct dot_view *out);
/* Whether all that the view reads and writes lies in buffers of so many elements. */
bool dot_view_fits(const struct dot_view *v, const uint64_t elements[3]);
void dot_view_merge(struct dot_view *v);
double dot_view_flops(const struct dot_view *v);

/* out = lhs . rhs; all of one type. f16 and bf16 are summed in f32 and rounded once; integers wrap; bool is or of ands. TPC_NOMEM when
 * scratch cannot be had (nothing is printed). */
status gemm_dot(const struct dot_view *v, dtype type, const void *lhs, const void *rhs, void *out,
                struct workers *workers);

/* ---- between the files of the GEMM -------------------------------------------------------------------------- */

/* Row-major out[m][n] = (accumulate ? out : 0) + a . b. a is [m][k] with leading dimension lda, or [k][m] when transposed; b is [k][n], or [n][k]
 * when transposed. One thread. scratch: gemm_scratch_bytes() of it. */
struct gemm_call {
    bool transpose_a, transpose_b, accumulate;
    int64_t m, n, k;
    const void *a, *b;
    void *out;
    int64_t lda, ldb, ldo;
    void *scratch;
};
void gemm_call_f32(const struct gemm_call *c); /* by the library that was chosen */
void gemm_call_f64(const struct gemm_call *c);

enum { GEMM_SCRATCH = 3 << 20, SKINNY_ROWS = 8, SKINNY_TILE = 4 };

/* Few rows: out[row][n] (f32, leading dimension ldo) = (accumulate ? out : 0) + x[row][k] (f32, leading dimension ldx) . w, for n in [begin, end).
 * w has type f32, f16 or bf16 and is [n][k] (rows_of_n) or [k][n], with leading dimension ldw. Bound by reading w once. */
struct skinny_call {
    bool rows_of_n, accumulate;
    dtype type;
    int64_t rows, begin, end, k;
    const float *x;
    int64_t ldx;
    const void *w;
    int64_t ldw;
    float *out;
    int64_t ldo;
};
struct gemm_kernels {
    const char *instruction;
    void (*gemm_f32)(const struct gemm_call *c);
    void (*gemm_f64)(const struct gemm_call *c);
    void (*skinny)(const struct skinny_call *c);
    /* to[i] = from[i * stride] as f32; from is f16 or bf16 */
    void (*widen)(dtype type, const void *from, int64_t stride, int64_t count, float *to);
    void (*narrow)(dtype type, const float *from, int64_t count, void *to);
};
const struct gemm_kernels *gemm_kernels(void); /* for this CPU: gemm_builtin.c */

#endif
