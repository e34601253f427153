/* runtime/gemm_library.c - which library multiplies f32 and f64 matrices: found once, at run time.
 *
 * Invariant: the choice is made by the first caller and never changes. A library is told to use one thread: the split over threads is
 * ours (gemm.c). Start with `choose`.
 */
#include "runtime/gemm.h"

#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>

/* ---- the entry points that we call, as their libraries declare them ------------------------------------------- */

typedef int dnnl_sgemm_fn(char transpose_a, char transpose_b, int64_t m, int64_t n, int64_t k, float alpha,
                          const float *a, int64_t lda, const float *b, int64_t ldb, float beta, float *c, int64_t ldc);
struct dnnl_version_head {
    int major, minor, patch;
};
typedef const struct dnnl_version_head *dnnl_version_fn(void);
enum { CBLAS_ROW_MAJOR = 101, CBLAS_PLAIN = 111, CBLAS_TRANSPOSED = 112 };
typedef void cblas_sgemm_fn(int order, int transpose_a, int transpose_b, int m, int n, int k, float alpha,
                            const float *a, int lda, const float *b, int ldb, float beta, float *c, int ldc);
typedef void cblas_dgemm_fn(int order, int transpose_a, int transpose_b, int m, int n, int k, double alpha,
                            const double *a, int lda, const double *b, int ldb, double beta, double *c, int ldc);
typedef void set_threads_fn(int threads);
typedef const char *text_fn(void);

static struct {
    pthread_once_t once;
    struct gemm_info info;
    dnnl_sgemm_fn *dnnl_sgemm;
    cblas_sgemm_fn *sgemm;
    cblas_dgemm_fn *dgemm;
    set_threads_fn *thread_limit; /* to be called once on each thread, with 1 */
    char name[128], path[256], warning[256];
} chosen = {.once = PTHREAD_ONCE_INIT};

/* ISO C has no conversion from an object's address to a function's; POSIX promises that the bytes are the same. */
static bool find(void *library, const char *name, void *function)
{
    void *symbol = dlsym(library, name);
    if (symbol)
        memcpy(function, &symbol, sizeof symbol);
    return symbol != NULL;
}

static void note_path(void *library, const char *symbol, const char *otherwise)
{
    Dl_info where;
    void *address = dlsym(library, symbol);
    const char *path = address && dladdr(address, &where) && where.dli_fname ? where.dli_fname : otherwise;
    snprintf(chosen.path, sizeof chosen.path, "%s", path);
}

static bool use_onednn(void)
{
    static const char *const names[] = {"libdnnl.so.3", "libdnnl.so.2", "libdnnl.so"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        void *library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
        if (!library)
            continue;
        dnnl_version_fn *version = NULL;
        if (!find(library, "dnnl_sgemm", &chosen.dnnl_sgemm)) {
            dlclose(library);
            continue;
        }
        if (find(library, "dnnl_version", &version))
            snprintf(chosen.name, sizeof chosen.name, "oneDNN %d.%d.%d", version()->major, version()->minor,
                     version()->patch);
        else
            snprintf(chosen.name, sizeof chosen.name, "oneDNN");
        find(library, "omp_set_num_threads", &chosen.thread_limit);
        note_path(library, "dnnl_sgemm", names[i]);
        return true;
    }
    return false;
}

static bool modern_cpu(void)
{
    return strcmp(gemm_kernels()->instruction, "baseline") != 0;
}

/* OpenBLAS picks its kernels by a table of CPUs and falls back to those of 2004. Returns true when that happened here. */
static bool openblas_is_slow(void *library)
{
    text_fn *core = NULL;
    if (!find(library, "openblas_get_corename", &core) || strcmp(core(), "Prescott") != 0 || !modern_cpu())
        return false;
    snprintf(chosen.warning, sizeof chosen.warning,
             "OpenBLAS takes this CPU for a \"Prescott\" and would be slow; OPENBLAS_CORETYPE=Haswell (or SkylakeX) "
             "corrects that");
    return true;
}

/* What kind of BLAS it is; NULL for the reference BLAS, which is slower than our own kernels. */
static const char *blas_kind(void *library)
{
    static const struct {
        const char *symbol, *name;
    } kinds[] = {{"MKL_Get_Version", "MKL"},
                 {"openblas_get_config", "OpenBLAS"},
                 {"bli_info_get_version_str", "BLIS"},
                 {"ATL_buildinfo", "ATLAS"}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (dlsym(library, kinds[i].symbol))
            return kinds[i].name;
    return NULL;
}

static void name_blas(void *library, const char *kind)
{
    text_fn *text = NULL;
    char version[64] = "";
    if (find(library, "openblas_get_config", &text)) {
        const char *config = text();
        sscanf(config, "OpenBLAS %63s", version);
        if (find(library, "openblas_get_corename", &text))
            snprintf(chosen.name, sizeof chosen.name, "%s %s (%s)", kind, version, text());
    } else if (find(library, "bli_info_get_version_str", &text)) {
        snprintf(version, sizeof version, "%s", text());
    }
    if (!chosen.name[0])
        snprintf(chosen.name, sizeof chosen.name, "%s%s%s", kind, version[0] ? " " : "", version);
}

/* `any`: the reference BLAS and a slow OpenBLAS will do too, since the user asked for a BLAS. */
static bool use_blas(bool any)
{
    static const char *const names[] = {"libmkl_rt.so.2", "libmkl_rt.so", "libopenblas.so.0",
                                        "libopenblas.so", "libblis.so.4", "libcblas.so.3",
                                        "libblas.so.3",   "libcblas.so",  "libblas.so"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        void *library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
        if (!library)
            continue;
        const char *kind = blas_kind(library);
        bool good = kind && !openblas_is_slow(library);
        if ((!good && !any) || !find(library, "cblas_sgemm", &chosen.sgemm) ||
            !find(library, "cblas_dgemm", &chosen.dgemm)) {
            chosen.sgemm = NULL;
            dlclose(library);
            continue;
        }
        set_threads_fn *limit = NULL;
        if (find(library, "openblas_set_num_threads", &limit) || find(library, "bli_thread_set_num_threads", &limit))
            limit(1);
        if (!find(library, "MKL_Set_Num_Threads_Local", &chosen.thread_limit))
            find(library, "omp_set_num_threads", &chosen.thread_limit);
        name_blas(library, kind ? kind : "reference BLAS");
        note_path(library, "cblas_sgemm", names[i]);
        return true;
    }
    return false;
}

static void choose(void)
{
    const char *wish = getenv("TPC_GEMM");
    bool found = false;
    if (wish && strcmp(wish, "onednn") == 0)
        found = use_onednn();
    else if (wish && strcmp(wish, "blas") == 0)
        found = use_blas(true);
    else if (!wish || !*wish)
        found = use_onednn() || use_blas(false);
    if (!found) {
        snprintf(chosen.name, sizeof chosen.name, "built in (%s)", gemm_kernels()->instruction);
        if (wish && *wish && strcmp(wish, "builtin") != 0)
            snprintf(chosen.warning, sizeof chosen.warning, "TPC_GEMM=%.32s: %s; using the built-in kernels", wish,
                     strcmp(wish, "onednn") == 0 || strcmp(wish, "blas") == 0 ? "no such library was found"
                                                                              : "not one of onednn, blas, builtin");
    }
    chosen.info = (struct gemm_info){chosen.name, chosen.path, gemm_kernels()->instruction, chosen.warning};
}

const struct gemm_info *gemm_info(void)
{
    pthread_once(&chosen.once, choose);
    return &chosen.info;
}

/* ---- calls ---------------------------------------------------------------------------------------------------- */

static void limit_this_thread(void)
{
    static _Thread_local bool done;
    if (!done && chosen.thread_limit)
        chosen.thread_limit(1);
    done = true;
}

static bool fits_int(const struct gemm_call *c)
{
    return c->m <= INT_MAX && c->n <= INT_MAX && c->k <= INT_MAX && c->lda <= INT_MAX && c->ldb <= INT_MAX &&
           c->ldo <= INT_MAX;
}

void gemm_call_f32(const struct gemm_call *c)
{
    gemm_info();
    limit_this_thread();
    float beta = c->accumulate ? 1.0f : 0.0f;
    if (chosen.dnnl_sgemm && c->k > 0 &&
        chosen.dnnl_sgemm(c->transpose_a ? 'T' : 'N', c->transpose_b ? 'T' : 'N', c->m, c->n, c->k, 1.0f, c->a, c->lda,
                          c->b, c->ldb, beta, c->out, c->ldo) == 0)
        return;
    if (chosen.sgemm && fits_int(c))
        chosen.sgemm(CBLAS_ROW_MAJOR, c->transpose_a ? CBLAS_TRANSPOSED : CBLAS_PLAIN,
                     c->transpose_b ? CBLAS_TRANSPOSED : CBLAS_PLAIN, (int)c->m, (int)c->n, (int)c->k, 1.0f, c->a,
                     (int)c->lda, c->b, (int)c->ldb, beta, c->out, (int)c->ldo);
    else
        gemm_kernels()->gemm_f32(c);
}

void gemm_call_f64(const struct gemm_call *c)
{
    gemm_info();
    limit_this_thread();
    if (chosen.dgemm && fits_int(c))
        chosen.dgemm(CBLAS_ROW_MAJOR, c->transpose_a ? CBLAS_TRANSPOSED : CBLAS_PLAIN,
                     c->transpose_b ? CBLAS_TRANSPOSED : CBLAS_PLAIN, (int)c->m, (int)c->n, (int)c->k, 1.0, c->a,
                     (int)c->lda, c->b, (int)c->ldb, c->accumulate ? 1.0 : 0.0, c->out, (int)c->ldo);
    else
        gemm_kernels()->gemm_f64(c);
}

void gemm_warm(void)
{
    enum { SIZE = 64 };
    float *x = base_alloc(3 * SIZE * SIZE * sizeof *x);
    if (!x)
        return;
    gemm_info();
    for (int kind = 0; kind < 4 && chosen.dnnl_sgemm; kind++) {
        struct gemm_call c = {.transpose_a = kind & 1,
                              .transpose_b = kind & 2,
                              .m = SIZE,
                              .n = SIZE,
                              .k = SIZE,
                              .a = x,
                              .b = x + SIZE * SIZE,
                              .out = x + 2 * SIZE * SIZE,
                              .lda = SIZE,
                              .ldb = SIZE,
                              .ldo = SIZE};
        gemm_call_f32(&c);
    }
    base_free(x);
}
