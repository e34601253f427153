/* codegen/prelude_cuda.c - the head of a CUDA translation unit, and the functions that its kernels call: those of C (prelude_c.c) where they serve as they
 * are, else rows of the tables here, by the same names.
 *
 * The text needs no header of CUDA. Compiled by anything but NVRTC it asks for cuda_model.h, with which the tests run it on a CPU: there, what is
 * PTX here is a function of the model. So PTX stands in the head alone.
 *
 * From compute capability 9.0 on the blocks of a launch may start before its predecessor has ended, where the runtime asks for that (programmatic dependent
 * launch): as soon as all of the predecessor's are through with their work (START_NEXT). Not earlier: blocks that find room while others compute crowd on a few
 * processors, and stay there (an H200 lost a fifth of a decode step's time). Whoever
 * defines ENTRY(name, threads) sees nothing of it: its body begins when the predecessor is done and its writes are seen. ENTRY_EARLY is the same without that
 * wait: it may read weights and constants at once, and all its threads call WAIT_FOR_PREVIOUS() before they touch what a kernel may have written, or
 * write anything (a thread that ends without it would let this kernel's successor start before the predecessor is done). Either may call START_NEXT() itself,
 * before an end that is short. ENTRY_EARLY_OF says also how many blocks a multiprocessor is to hold, which limits registers.
 */
#include "codegen/cuda_impl.h"

static const char head[] =
    "#ifdef __CUDACC_RTC__\n"
    "typedef signed char int8_t;\n"
    "typedef short int16_t;\n"
    "typedef int int32_t;\n"
    "typedef long long int64_t;\n"
    "typedef unsigned char uint8_t;\n"
    "typedef unsigned short uint16_t;\n"
    "typedef unsigned int uint32_t;\n"
    "typedef unsigned long long uint64_t;\n"
    "#define INT64_C(n) n##LL\n"
    "#define UINT64_C(n) n##ULL\n"
    "#define INT64_MAX 9223372036854775807LL\n"
    "#define UINT64_MAX 18446744073709551615ULL\n"
    "#define INFINITY __int_as_float(0x7f800000)\n"
    "#define NAN __int_as_float(0x7fffffff)\n"
    "#define ALIGNED(bytes) __align__(bytes)\n"
    "#define UNROLL _Pragma(\"unroll\")\n"
    "#define ROLLED _Pragma(\"unroll 1\")\n"
    "#define SHARED(type, name, extent) __shared__ ALIGNED(16) type name extent\n"
    "#define DYNAMIC_SHARED(name) extern __shared__ ALIGNED(16) unsigned char name[]\n"
    "#if __CUDA_ARCH__ >= 900\n"
    "#define START_NEXT() asm volatile(\"griddepcontrol.launch_dependents;\" ::: \"memory\")\n"
    "#define WAIT_FOR_PREVIOUS() asm volatile(\"griddepcontrol.wait;\" ::: \"memory\")\n"
    "#else\n"
    "#define START_NEXT()\n"
    "#define WAIT_FOR_PREVIOUS()\n"
    "#endif\n"
    "#define ENTRY_AFTER(first, name, threads, blocks) \\\n"
    "    static __device__ __forceinline__ void name##_body(const struct name##_arguments &arguments); \\\n"
    "    extern \"C\" __global__ void __launch_bounds__(threads, blocks) \\\n"
    "    name(const __grid_constant__ struct name##_arguments arguments) \\\n"
    "    { \\\n"
    "        first; \\\n"
    "        name##_body(arguments); \\\n"
    "        START_NEXT(); \\\n"
    "    } \\\n"
    "    static __device__ __forceinline__ void name##_body(const struct name##_arguments &arguments)\n"
    "#define ENTRY(name, threads) ENTRY_AFTER(WAIT_FOR_PREVIOUS(), name, threads, 1)\n"
    "#define ENTRY_EARLY(name, threads) ENTRY_AFTER((void)0, name, threads, 1)\n"
    "#define ENTRY_EARLY_OF(name, threads, blocks) ENTRY_AFTER((void)0, name, threads, blocks)\n"
    "#else\n"
    "#include \"cuda_model.h\"\n"
    "#endif\n";

/* In the place of C's functions of these names. */
static const struct prelude_function replaced[] = {
    {"tpc_fault", "/* The lowest fault wins: the earliest step's. */\n"
                  "static __device__ void tpc_fault(int64_t *fault, int64_t code)\n"
                  "{\n"
                  "    unsigned long long *const cell = (unsigned long long *)fault, ours = (unsigned long long)code;\n"
                  "    unsigned long long seen = atomicCAS(cell, 0ULL, ours);\n"
                  "    while (seen != 0 && seen > ours) {\n"
                  "        const unsigned long long found = atomicCAS(cell, seen, ours);\n"
                  "        if (found == seen)\n"
                  "            break;\n"
                  "        seen = found;\n"
                  "    }\n"
                  "}\n"},
    {"tpc_bits_of", "static __device__ inline uint32_t tpc_bits_of(float x) { return __float_as_uint(x); }\n"},
    {"tpc_float_of", "static __device__ inline float tpc_float_of(uint32_t bits) { return __uint_as_float(bits); }\n"},
};
enum { REPLACED = sizeof replaced / sizeof replaced[0] };

/* One instruction of PTX; outside of CUDA the model has a function of that name. */
#define CONVERT(name, to, from, instruction, constraint_to, constraint_from)                                           \
    {name, "#ifdef __CUDACC_RTC__\n"                                                                                   \
           "static __device__ inline " to " " name "(" from " x)\n"                                                    \
           "{\n"                                                                                                       \
           "    " to " y;\n"                                                                                           \
           "    asm(\"" instruction " %0, %1;\" : \"=" constraint_to "\"(y) : \"" constraint_from "\"(x));\n"          \
           "    return y;\n"                                                                                           \
           "}\n"                                                                                                       \
           "#endif\n"},

/* Moves between memory and registers, so many bytes at once. */
#define READ(bytes, type)                                                                                              \
    {"tpc_read_" #bytes, "static __device__ inline void tpc_read_" #bytes "(void *to, const void *from)\n"             \
                         "{\n"                                                                                         \
                         "    *(" type " *)to = __ldg((const " type " *)from);\n"                                      \
                         "}\n"},
#define WRITE(bytes, type)                                                                                             \
    {"tpc_write_" #bytes, "static __device__ inline void tpc_write_" #bytes "(void *to, const void *from)\n"           \
                          "{\n"                                                                                        \
                          "    *(" type " *)to = *(const " type " *)from;\n"                                           \
                          "}\n"},
/* To a buffer, never to shared memory: in one instruction, where a compiler that knows little of an address makes four. */
#define STORE(bytes, type, instruction, values)                                                                        \
    {"tpc_store_" #bytes, "static __device__ inline void tpc_store_" #bytes "(void *to, const void *from)\n"           \
                          "{\n"                                                                                        \
                          "    const " type " x = *(const " type " *)from;\n"                                          \
                          "#ifdef __CUDACC_RTC__\n"                                                                    \
                          "    asm volatile(\"st.global." instruction ";\" : : \"l\"(to), " values " : \"memory\");\n" \
                          "#else\n"                                                                                    \
                          "    *(" type " *)to = x;\n"                                                                 \
                          "#endif\n"                                                                                   \
                          "}\n"},
#define MOVE_MORE(way, bytes, half)                                                                                    \
    {"tpc_" way "_" #bytes, "static __device__ inline void tpc_" way "_" #bytes "(void *to, const void *from)\n"       \
                            "{\n"                                                                                      \
                            "    tpc_" way "_" #half "(to, from);\n"                                                   \
                            "    tpc_" way "_" #half "((char *)to + " #half ", (const char *)from + " #half ");\n"     \
                            "}\n"},

/* Every thread of a row gives x, each gets the whole: within a warp by exchange in pairs (all lanes then hold the same bits), between
 * the warps of a block through shared memory. Where blockDim.x is 32, rows are warps, and they do not wait for each other. */
#define ROW(name, type, combined, neutral)                                                                             \
    {"tpc_row_" name, "static __device__ " type " tpc_row_" name "(" type " x)\n"                                      \
                      "{\n"                                                                                            \
                      "    SHARED(" type ", of_warp, [32]);\n"                                                         \
                      "    for (int distance = 16; distance > 0; distance >>= 1) {\n"                                  \
                      "        const " type " y = __shfl_xor_sync(0xffffffffu, x, distance);\n"                        \
                      "        x = " combined ";\n"                                                                    \
                      "    }\n"                                                                                        \
                      "    if (blockDim.x == 32)\n"                                                                    \
                      "        return x;\n"                                                                            \
                      "    __syncthreads(); /* whoever reads an earlier one's */\n"                                    \
                      "    if (threadIdx.x % 32 == 0)\n"                                                               \
                      "        of_warp[threadIdx.x / 32] = x;\n"                                                       \
                      "    __syncthreads();\n"                                                                         \
                      "    const uint32_t lane = threadIdx.x % 32;\n"                                                  \
                      "    x = lane < blockDim.x / 32 ? of_warp[lane] : (" type ")(" neutral ");\n"                    \
                      "    for (int distance = 16; distance > 0; distance >>= 1) {\n"                                  \
                      "        const " type " y = __shfl_xor_sync(0xffffffffu, x, distance);\n"                        \
                      "        x = " combined ";\n"                                                                    \
                      "    }\n"                                                                                        \
                      "    return x;\n"                                                                                \
                      "}\n"},
#define ROW_SUMS(suffix, type)                                                                                         \
    ROW("sum_" suffix, type, "x + y", "0")                                                                             \
    ROW("prod_" suffix, type, "x * y", "1")
#define ROW_FLOATS(suffix, type)                                                                                       \
    ROW_SUMS(suffix, type)                                                                                             \
    ROW("max_" suffix, type, "y > x || y != y ? y : x", "-INFINITY")                                                   \
    ROW("min_" suffix, type, "y < x || y != y ? y : x", "INFINITY")
#define ROW_EXTREMES(suffix, type, least, most)                                                                        \
    ROW("max_" suffix, type, "y > x ? y : x", least)                                                                   \
    ROW("min_" suffix, type, "y < x ? y : x", most)

/* What a weight is read with, once in a launch: it needs no place in the first cache, and is not moved behind a wait. */
#define READ_ONCE                                                                                                      \
    {"tpc_read_once_16", "static __device__ inline void tpc_read_once_16(uint4 *to, const void *from)\n"               \
                         "{\n"                                                                                         \
                         "#ifdef __CUDACC_RTC__\n"                                                                     \
                         "    asm volatile(\"ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];\"\n"          \
                         "                 : \"=r\"(to->x), \"=r\"(to->y), \"=r\"(to->z), \"=r\"(to->w) : "            \
                         "\"l\"(from));\n"                                                                             \
                         "#else\n"                                                                                     \
                         "    *to = *(const uint4 *)from;\n"                                                           \
                         "#endif\n"                                                                                    \
                         "}\n"},                                                                                       \
        {"tpc_prefetch", "static __device__ inline void tpc_prefetch(const void *at)\n"                                \
                         "{\n"                                                                                         \
                         "#ifdef __CUDACC_RTC__\n"                                                                     \
                         "    asm volatile(\"prefetch.global.L2 [%0];\" : : \"l\"(at));\n"                             \
                         "#endif\n"                                                                                    \
                         "}\n"},

/* How blocks of a launch talk: each of those that share something writes, waits for its own threads, and one of them arrives; it gets how many had. Who
 * finds that it is the last may read, after another wait, what all have written, by tpc_read_fresh. */
#define ARRIVE                                                                                                         \
    {"tpc_arrive", "#ifdef __CUDACC_RTC__\n"                                                                           \
                   "static __device__ inline uint32_t tpc_arrive(uint32_t *counter)\n"                                 \
                   "{\n"                                                                                               \
                   "    uint32_t earlier;\n"                                                                           \
                   "    asm volatile(\"atom.acq_rel.gpu.global.add.u32 %0, [%1], 1;\"\n"                               \
                   "                 : \"=r\"(earlier) : \"l\"(counter) : \"memory\");\n"                              \
                   "    return earlier;\n"                                                                             \
                   "}\n"                                                                                               \
                   "#endif\n"},                                                                                        \
        {"tpc_read_fresh", "static __device__ inline float tpc_read_fresh(const float *at)\n"                          \
                           "{\n"                                                                                       \
                           "#ifdef __CUDACC_RTC__\n"                                                                   \
                           "    return __ldcg(at);\n"                                                                  \
                           "#else\n"                                                                                   \
                           "    return *at;\n"                                                                         \
                           "#endif\n"                                                                                  \
                           "}\n"},

/* x holds 2 * half numbers per lane. Lanes `distance` apart add theirs, and each keeps one half: that whose number has the bit, the upper. */
#define FOLD                                                                                                           \
    {"tpc_fold", "static __device__ __forceinline__ void tpc_fold(float *x, int half, int distance)\n"                 \
                 "{\n"                                                                                                 \
                 "    const bool upper = (threadIdx.x & distance) != 0;\n"                                             \
                 "    UNROLL for (int i = 0; i < half; i++) {\n"                                                       \
                 "        const float kept = upper ? x[half + i] : x[i], given = upper ? x[i] : x[half + i];\n"        \
                 "        x[i] = kept + __shfl_xor_sync(0xffffffffu, given, distance);\n"                              \
                 "    }\n"                                                                                             \
                 "}\n"},

/* a - b, or the number nearest to it. */
#define DIFFERENCE                                                                                                     \
    {"tpc_difference", "static __device__ inline int64_t tpc_difference(int64_t a, int64_t b)\n"                       \
                       "{\n"                                                                                           \
                       "    const int64_t d = (int64_t)((uint64_t)a - (uint64_t)b);\n"                                 \
                       "    return ((a ^ b) & (a ^ d)) >= 0 ? d : a < 0 ? -INT64_MAX - 1 : INT64_MAX;\n"               \
                       "}\n"},

/* A quotient by multiplication (cuda_put_divisor). */
#define DIVIDE                                                                                                         \
    {"tpc_divide", "static __device__ inline uint32_t tpc_divide(uint32_t n, int64_t by)\n"                            \
                   "{\n"                                                                                               \
                   "    return (uint32_t)((uint64_t)n * (uint32_t)by >> (by >> 32));\n"                                \
                   "}\n"},

/* Halves of two words: the lower ones, or the upper ones. */
#define HALVES                                                                                                         \
    {"tpc_halves", "static __device__ inline uint32_t tpc_halves(uint32_t low, uint32_t high, int upper)\n"            \
                   "{\n"                                                                                               \
                   "#ifdef __CUDACC_RTC__\n"                                                                           \
                   "    return __byte_perm(low, high, upper ? 0x7632 : 0x5410);\n"                                     \
                   "#else\n"                                                                                           \
                   "    return upper ? low >> 16 | (high & 0xffff0000u) : (low & 0xffffu) | high << 16;\n"             \
                   "#endif\n"                                                                                          \
                   "}\n"},

static const struct prelude_function own[] = {
    READ_ONCE ARRIVE FOLD DIFFERENCE DIVIDE HALVES CONVERT("tpc_from_f16", "float", "uint16_t", "cvt.f32.f16", "f", "h")
        CONVERT("tpc_to_f16", "uint16_t", "float", "cvt.rn.f16.f32", "h", "f")
            CONVERT("tpc_to_bf16", "uint16_t", "float", "cvt.rn.bf16.f32", "h", "f") READ(4, "uint32_t")
                READ(8, "uint2") READ(16, "uint4") MOVE_MORE("read", 32, 16) MOVE_MORE("read", 64, 32)
                    WRITE(4, "uint32_t") WRITE(8, "uint2") WRITE(16, "uint4") MOVE_MORE("write", 32, 16)
                        MOVE_MORE("write", 64, 32) STORE(4, "uint32_t", "u32 [%0], %1", "\"r\"(x)")
                            STORE(8, "uint2", "v2.u32 [%0], {%1, %2}", "\"r\"(x.x), \"r\"(x.y)")
                                STORE(16, "uint4", "v4.u32 [%0], {%1, %2, %3, %4}",
                                      "\"r\"(x.x), \"r\"(x.y), \"r\"(x.z), \"r\"(x.w)") MOVE_MORE("store", 32, 16)
                                    MOVE_MORE("store", 64, 32) ROW_FLOATS("f32", "float") ROW_FLOATS("f64", "double")
                                        ROW_SUMS("u32", "uint32_t") ROW_SUMS("u64", "uint64_t")
                                            ROW_EXTREMES("i32", "int32_t", "-2147483647 - 1", "2147483647")
                                                ROW_EXTREMES("u32", "uint32_t", "0", "4294967295u")
                                                    ROW_EXTREMES("i64", "int64_t", "-INT64_MAX - 1", "INT64_MAX")
                                                        ROW_EXTREMES("u64", "uint64_t", "0", "UINT64_MAX")
                                                            ROW("or_i32", "int32_t", "x | y", "0")
                                                                ROW("and_i32", "int32_t", "x & y", "1")};
enum { OWN = sizeof own / sizeof own[0] };

/* C's text for CUDA: `static` functions are the device's, and builtins have their library names. The longer come first. */
static const char *const renamed[][2] = {{"static ", "static __device__ "},
                                         {"__builtin_inff()", "INFINITY"},
                                         {"__builtin_nanf(\"\")", "NAN"},
                                         {"__builtin_", ""}};
enum { RENAMED = sizeof renamed / sizeof renamed[0] };

static char *device_text(struct arena *arena, const char *text)
{
    struct text out = {.arena = arena};
    while (*text) {
        size_t i = 0;
        while (i < RENAMED && strncmp(text, renamed[i][0], strlen(renamed[i][0])) != 0)
            i++;
        if (i < RENAMED) {
            text_put(&out, renamed[i][1]);
            text += strlen(renamed[i][0]);
        } else {
            text_putn(&out, text++, 1);
        }
    }
    return out.at;
}

static const char *replacement(const char *name)
{
    for (size_t i = 0; i < REPLACED; i++)
        if (strcmp(replaced[i].name, name) == 0)
            return replaced[i].text;
    return NULL;
}

/* The whole table, in the order of calls: C's with our replacements, then our own. */
static struct prelude_function *all_functions(struct arena *arena, uint32_t *count)
{
    uint32_t of_c = prelude_function_count_c;
    struct prelude_function *all =
        NEW_ARRAY(arena, struct prelude_function, of_c + OWN + prelude_function_count_matrix);
    for (uint32_t i = 0; i < of_c; i++) {
        all[i] = prelude_functions_c[i];
        const char *text = replacement(all[i].name);
        all[i].text = text ? text : device_text(arena, all[i].text);
    }
    memcpy(all + of_c, own, sizeof own);
    memcpy(all + of_c + OWN, prelude_functions_matrix, prelude_function_count_matrix * sizeof *all);
    *count = of_c + OWN + prelude_function_count_matrix;
    return all;
}

void prelude_cuda(struct text *out, const char *body)
{
    uint32_t count;
    struct prelude_function *all = all_functions(out->arena, &count);
    bool *used = NEW_ARRAY(out->arena, bool, count);
    prelude_find(all, count, body, used);
    text_put(out, head);
    for (uint32_t i = 0; i < count; i++)
        if (used[i])
            text_put(out, all[i].text);
}
