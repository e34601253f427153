/* tests/cuda_model/cuda_model.h - what a C compiler needs to take the text of a CUDA kernel (codegen/prelude_cuda.c asks for it): CUDA's words as
 * macros and functions over the threads of tests/cuda_model/device.c.
 *
 * The text is compiled with -fsanitize=thread, which makes every access to memory a call; device.c answers those calls itself: that is how it
 * sees accesses out of bounds, misaligned ones and races, without a word about it in the text.
 */
#ifndef CUDA_MODEL_H
#define CUDA_MODEL_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* ---- words ---- */

#define __device__
#define __forceinline__ inline
#define ALIGNED(bytes) _Alignas(bytes)
#define UNROLL
#define ROLLED
/* An array in the section of shared memory, with a guard behind it, and its range in a table. */
#define SHARED(type, name, extent)                                                                                     \
    static _Alignas(16) type name extent __attribute__((section("cuda_shared")));                                      \
    static char name##_guard[256] __attribute__((section("cuda_shared"), used));                                       \
    static const struct model_range name##_range __attribute__((section("cuda_ranges"), used)) = {&name, sizeof name}; \
    (void)name##_guard
#define DYNAMIC_SHARED(name) unsigned char *const name = model_dynamic_shared()
#define ENTRY(name, threads)                                                                                           \
    static void name##_thread(const struct name##_arguments arguments);                                                \
    void name(const void *words)                                                                                       \
    {                                                                                                                  \
        name##_thread(*(const struct name##_arguments *)words);                                                        \
    }                                                                                                                  \
    const uint32_t name##_threads = threads, name##_words = sizeof(struct name##_arguments) / 8;                       \
    static void name##_thread(const struct name##_arguments arguments)
#define ENTRY_EARLY(name, threads) ENTRY(name, threads) /* launches do not overlap here */
#define ENTRY_EARLY_OF(name, threads, blocks) ENTRY(name, threads)
#define WAIT_FOR_PREVIOUS() ((void)0)
#define START_NEXT() ((void)0)

struct model_range {
    const void *at;
    uint64_t bytes;
};

/* ---- where a thread is ---- */

struct model_index {
    uint32_t x, y, z;
};
struct model_thread {
    struct model_index thread;
    uint32_t number; /* in the block */
};
extern const struct model_thread *model_now;
extern struct model_index model_block, model_block_extent, model_grid_extent;
#define threadIdx (model_now->thread)
#define blockIdx model_block
#define tpc_thread() ((int)threadIdx.x)
#define blockDim model_block_extent
#define gridDim model_grid_extent

unsigned char *model_dynamic_shared(void);

/* ---- threads together ---- */

void __syncthreads(void);
void __syncwarp(void);
void model_shuffle(uint32_t mask, const void *from, void *to, size_t bytes, uint32_t lane);
uint32_t model_vote(uint32_t mask, int predicate); /* ballot */
#define model_lane() (model_now->number % 32)
#define model_exchange(mask, x, lane)                                                                                  \
    __extension__({                                                                                                    \
        __typeof__((x) + 0) model_from = (x), model_to;                                                                \
        model_shuffle(mask, &model_from, &model_to, sizeof model_to, lane);                                            \
        model_to;                                                                                                      \
    })
#define __shfl_xor_sync(mask, x, distance) model_exchange(mask, x, model_lane() ^ (uint32_t)(distance))
#define __shfl_sync(mask, x, lane) model_exchange(mask, x, (uint32_t)(lane) % 32)
/* Below (above) the warp's first (last) lane the own value comes back. */
#define __shfl_up_sync(mask, x, distance)                                                                              \
    model_exchange(mask, x, model_lane() < (uint32_t)(distance) ? model_lane() : model_lane() - (uint32_t)(distance))
#define __shfl_down_sync(mask, x, distance)                                                                            \
    model_exchange(mask, x,                                                                                            \
                   model_lane() + (uint32_t)(distance) > 31 ? model_lane() : model_lane() + (uint32_t)(distance))
#define __ballot_sync(mask, predicate) model_vote(mask, predicate)
#define __any_sync(mask, predicate) (model_vote(mask, predicate) != 0)
#define __all_sync(mask, predicate) (model_vote(mask, !(predicate)) == 0)

unsigned long long atomicCAS(unsigned long long *at, unsigned long long seen, unsigned long long wanted);
unsigned long long atomicAdd(unsigned long long *at, unsigned long long more);
/* One more at `counter`; how many there were. Makes what the block has written before its last barrier seen by blocks that arrive there later, behind
 * their next barrier. */
uint32_t tpc_arrive(uint32_t *counter);

/* ---- numbers ---- */

#define __ldg(address) (*(address))
typedef uint32_t uint2 __attribute__((vector_size(8)));
typedef uint32_t uint4 __attribute__((vector_size(16)));

static inline uint32_t __float_as_uint(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}
static inline float __uint_as_float(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
static inline long long __double_as_longlong(double x)
{
    long long bits;
    memcpy(&bits, &x, 8);
    return bits;
}
static inline double __longlong_as_double(long long bits)
{
    double x;
    memcpy(&x, &bits, 8);
    return x;
}
static inline double __dmul_rn(double x, double y)
{
    return x * y; /* compiled without optimisation, so it is rounded whatever is done with it */
}
static inline int __clzll(long long x)
{
    return x == 0 ? 64 : __builtin_clzll((unsigned long long)x);
}
static inline int __clz(int x)
{
    return x == 0 ? 32 : __builtin_clz((uint32_t)x);
}
static inline int __popc(uint32_t x)
{
    return __builtin_popcount(x);
}
static inline float rsqrtf(float x)
{
    return 1.0f / sqrtf(x);
}

float tpc_from_f16(uint16_t h);
uint16_t tpc_to_f16(float x);
uint16_t tpc_to_bf16(float x);

/* To 2 units in the last place; no denormals. */
float tpc_exp_near(float x);
float tpc_exp2_near(float x);
/* Two numbers in 16 bits each, the first in the lower half. */
uint32_t tpc_pack_bf16(float low, float high);
uint32_t tpc_pack_f16(float low, float high);

/* ---- copies that are waited for: async.c ---- */

/* 16 bytes from global to shared memory; zeros where there are none. */
void tpc_copy_async_16(void *to, const void *from, bool there);
/* The thread's copies since the last commit are a group; waits for all its groups but the last. */
void tpc_commit_async(void);
void tpc_wait_async(void);
void tpc_wait_all_async(void);

/* ---- tensor cores: by a warp together ---- */

/* d[16][8] += a[16][16] * b[16][8], fragments as PTX has them; bf16 or f16, accumulated in f32 */
void tpc_mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2]);
void tpc_mma_f16(float d[4], const uint32_t a[4], const uint32_t b[2]);
/* Four 8x8 matrices of 16-bit elements from shared memory; lane i gives the address of row i % 8 of matrix i / 8. */
void tpc_load_matrices(uint32_t to[4], const void *row);
void tpc_load_matrices_transposed(uint32_t to[4], const void *row);

#endif
