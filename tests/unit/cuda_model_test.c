/* tests/unit/cuda_model_test.c - the model of CUDA that other tests rely on: does it compute what CUDA would, and does it catch what is planted? */
#include "tests/support/cuda_model.h"
#include "tests/test.h"

#include <stdlib.h>
#include <unistd.h>

#define HEAD "#include \"cuda_model.h\"\n"
/* An entry over one input, one output. */
#define TEXT(name, body)                                                                                               \
    {                                                                                                                  \
#name, HEAD "struct " #name "_arguments { const float *x; float *y; int64_t n; };\n"                           \
                    "ENTRY(" #name ", 256)\n{\n"                                                                       \
                    "    const int t = (int)threadIdx.x, n = (int)arguments.n;\n"                                      \
                    "    const float *x = arguments.x;\n    float *y = arguments.y;\n"                                 \
                    "    (void)t, (void)n, (void)x, (void)y;\n" body "}\n"                                             \
    }

/* The last of two blocks adds what both have left. */
#define TEXT_ARRIVING(name, barrier, arrive)                                                                           \
    TEXT(name, "    static uint32_t arrived;\n    SHARED(uint32_t, s, [1]);\n"                                         \
               "    if (t < 32)\n        y[blockIdx.x * 32 + t] = x[t];\n" barrier                                     \
               "    if (t == 0)\n        s[0] = " arrive ";\n    __syncthreads();\n"                                   \
               "    if (s[0] == 1 && t < 32)\n        y[t] += y[t + 32];\n")

static const struct cuda_text texts[] = {
    TEXT(copies, "    for (int i = (int)(blockIdx.x * blockDim.x) + t; i < n; i += (int)(gridDim.x * blockDim.x))\n"
                 "        y[i] = x[i];\n"),
    TEXT(reverses, "    SHARED(float, s, [64]);\n    s[t] = x[t];\n    __syncthreads();\n    y[t] = s[n - 1 - t];\n"),
    TEXT(sums_by_shuffles, "    float v = x[t];\n    for (int d = 16; d > 0; d >>= 1)\n"
                           "        v += __shfl_xor_sync(0xffffffffu, v, d);\n    y[t] = v;\n"),
    TEXT(shifts_in_a_warp, "    SHARED(float, s, [64]);\n    s[t] = x[t];\n    __syncwarp();\n    y[t] = s[t ^ 1];\n"),
    TEXT(votes, "    y[t] = (float)(__ballot_sync(0xffffffffu, x[t] > 0) == 0x55555555u) + 2.0f * "
                "(__any_sync(0xffffffffu, 0) == 0);\n"),
    TEXT(uses_dynamic, "    DYNAMIC_SHARED(d);\n    ((float *)d)[t] = x[t];\n    __syncthreads();\n"
                       "    y[t] = ((float *)d)[t ^ 1];\n"),
    TEXT_ARRIVING(blocks_arrive, "    __syncthreads();\n", "tpc_arrive(&arrived)"),
    TEXT(copies_and_waits,
         "    SHARED(float, s, [64]);\n    if (t % 4 == 0)\n        tpc_copy_async_16(s + t, x + t, true);\n"
         "    tpc_commit_async();\n    tpc_commit_async();\n    tpc_wait_async();\n"
         "    __syncthreads();\n    y[t] = s[n - 1 - t];\n"),
    /* planted */
    TEXT(copies_and_waits_late,
         "    SHARED(float, s, [64]);\n    if (t % 4 == 0)\n        tpc_copy_async_16(s + t, x + t, true);\n"
         "    tpc_commit_async();\n    tpc_commit_async();\n    __syncthreads();\n    y[t] = s[n - 1 - t];\n"
         "    tpc_wait_async();\n"),
    TEXT(reads_past, "    y[t] = x[t + 1];\n"),
    TEXT(reads_before, "    y[t] = x[t - 1];\n"),
    TEXT(writes_past, "    y[t + 1] = x[t];\n"),
    TEXT(writes_what_is_read, "    ((float *)x)[t] = 1;\n"),
    TEXT(leaves_shared, "    SHARED(float, s, [63]);\n    s[t] = x[t];\n    y[t] = s[t];\n"),
    TEXT(leaves_dynamic, "    DYNAMIC_SHARED(d);\n    ((float *)d)[t + 1] = x[t];\n    y[t] = 0;\n"),
    TEXT(forgets_a_barrier, "    SHARED(float, s, [64]);\n    s[t] = x[t];\n    y[t] = s[n - 1 - t];\n"),
    TEXT(meets_only_its_warp,
         "    SHARED(float, s, [64]);\n    s[t] = x[t];\n    __syncwarp();\n    y[t] = s[t ^ 32];\n"),
    TEXT(writes_before_others_read,
         "    SHARED(float, s, [64]);\n    s[t] = x[t];\n    __syncthreads();\n    y[t] = s[t ^ 1];\n    s[t] = 0;\n"),
    TEXT(writes_one_place_twice, "    y[t / 2] = x[t];\n"),
    TEXT(blocks_write_one_place, "    y[t] = x[t];\n"),
    TEXT_ARRIVING(blocks_arrive_too_early, "", "tpc_arrive(&arrived)"),
    TEXT_ARRIVING(blocks_do_not_arrive, "    __syncthreads();\n", "arrived++"),
    TEXT(adds, "    SHARED(unsigned long long, s, [2]);\n    if (t < 2)\n        s[t] = 0;\n    __syncthreads();\n"
               "    atomicAdd(&s[t % 2], t);\n    __syncthreads();\n"
               "    if (t < 2)\n        atomicAdd((unsigned long long *)y + t, s[t]);\n"),
    TEXT(adds_too_early, "    SHARED(unsigned long long, s, [1]);\n    if (t == 0)\n        s[0] = 0;\n"
                         "    atomicAdd(&s[0], t);\n"),
    TEXT(reads_while_others_add, "    SHARED(unsigned long long, s, [1]);\n    if (t == 0)\n        s[0] = 0;\n"
                                 "    __syncthreads();\n    atomicAdd(&s[0], t);\n    y[t] = (float)s[0];\n"),
    TEXT(blocks_read_while_others_add, "    if (t == 0 && blockIdx.x == 0)\n"
                                       "        atomicAdd((unsigned long long *)y, 1);\n"
                                       "    else if (t == 0)\n        y[2] = y[0];\n"),
    TEXT(is_not_aligned, "    *(uint4 *)(y + 4 * (t / 64) + 1) = *(const uint4 *)x;\n"),
    TEXT(parts_at_a_barrier, "    if (t < 32)\n        __syncthreads();\n    y[t] = x[t];\n"),
    TEXT(parts_in_a_warp, "    if (t % 2)\n        y[t] = __shfl_xor_sync(0xffffffffu, x[t], 1);\n"),
    TEXT(reads_what_is_not_set, "    SHARED(float, s, [64]);\n    y[t] = s[t];\n"),
};
enum { TEXTS = sizeof texts / sizeof texts[0] };

static struct cuda_model *model;

static int setup(void **state)
{
    (void)state;
    char path[64], error[4000];
    (void)snprintf(path, sizeof path, "./model-%ld.so", (long)getpid());
    if (!cuda_model_compile(texts, TEXTS, path, error, sizeof error))
        fail_msg("%s", error);
    model = cuda_model_open(path);
    (void)unlink(path);
    return model ? 0 : 1;
}

static int teardown(void **state)
{
    (void)state;
    cuda_model_close(model);
    return 0;
}

static _Alignas(64) float memory[64 * 8], *const x = memory + 64, *const y = memory + 64 * 4; /* with room around */

static bool run(const char *name, uint32_t blocks, char *error, size_t error_bytes)
{
    uint64_t words[3] = {(uint64_t)(uintptr_t)x, (uint64_t)(uintptr_t)y, 64};
    const struct model_buffer buffers[2] = {{x, 256, false}, {y, 256, true}};
    struct model_launch l = {.grid = {blocks, 1, 1}, .block = {64, 1, 1}, .shared_bytes = 256, .words = words};
    l.word_count = 3;
    l.range = buffers;
    l.range_count = 2;
    for (int i = 0; i < 64; i++)
        x[i] = (float)(i % 2 ? -i : i + 1);
    memset(y, 0, 256);
    return cuda_model_launch(model, name, &l, error, error_bytes);
}

static void good(const char *name, uint32_t blocks)
{
    char error[400] = "";
    if (!run(name, blocks, error, sizeof error))
        fail_msg("%s: %s", name, error);
}

static void computes(void **state)
{
    (void)state;
    good("copies", 3);
    assert_memory_equal(x, y, 256);
    good("reverses", 1);
    for (int i = 0; i < 64; i++)
        assert_true(y[i] == x[63 - i]);
    good("sums_by_shuffles", 1);
    for (int i = 0; i < 64; i++) {
        float sum = 0;
        for (int k = 0; k < 32; k++)
            sum += x[i / 32 * 32 + k];
        assert_true(y[i] == sum);
    }
    good("shifts_in_a_warp", 1);
    for (int i = 0; i < 64; i++)
        assert_true(y[i] == x[i ^ 1]);
    good("votes", 1);
    for (int i = 0; i < 64; i++)
        assert_true(y[i] == 3);
    good("copies_and_waits", 1);
    for (int i = 0; i < 64; i++)
        assert_true(y[i] == x[63 - i]);
    good("uses_dynamic", 1);
    for (int i = 0; i < 64; i++)
        assert_true(y[i] == x[i ^ 1]);
    good("adds", 2);
    assert_memory_equal(y, ((uint64_t[]){2 * 992, 2 * 1024}), 16);
    good("blocks_arrive", 2);
    for (int i = 0; i < 64; i++)
        assert_true(y[i] == (i < 32 ? 2 * x[i] : x[i - 32]));
}

/* Each with a word of what must be said. */
static void catches(void **state)
{
    static const struct {
        const char *name, *word;
        uint32_t blocks;
    } planted[] = {
        {"reads_past", "reads outside of every buffer", 1},
        {"reads_before", "reads outside of every buffer", 1},
        {"writes_past", "writes outside of every buffer", 1},
        {"writes_what_is_read", "only read", 1},
        {"leaves_shared", "shared array of 252 bytes", 1},
        {"leaves_dynamic", "shared array of 256 bytes", 1},
        {"forgets_a_barrier", "a race in shared memory", 1},
        {"meets_only_its_warp", "a race in shared memory", 1},
        {"writes_before_others_read", "a race in shared memory", 1},
        {"writes_one_place_twice", "a race in a buffer", 1},
        {"blocks_write_one_place", "a race in a buffer", 2},
        {"blocks_arrive_too_early", "a race in a buffer", 2},
        {"blocks_do_not_arrive", "a race in a buffer", 2},
        {"copies_and_waits_late", "a race in shared memory", 1},
        {"adds_too_early", "a race in shared memory", 1},
        {"reads_while_others_add", "a race in shared memory", 1},
        {"blocks_read_while_others_add", "a race in a buffer", 2},
        {"is_not_aligned", "no multiple", 1},
        {"parts_at_a_barrier", "barrier", 1},
        {"parts_in_a_warp", "lane", 1},
    };
    (void)state;
    for (size_t i = 0; i < sizeof planted / sizeof planted[0]; i++) {
        char error[400] = "";
        if (run(planted[i].name, planted[i].blocks, error, sizeof error))
            fail_msg("%s is not caught", planted[i].name);
        if (!strstr(error, planted[i].word))
            fail_msg("%s: '%s' has no '%s'", planted[i].name, error, planted[i].word);
    }
    good("copies", 1); /* a caught one leaves nothing behind */
    assert_memory_equal(x, y, 256);
}

static void shared_memory_starts_as_nonsense(void **state)
{
    (void)state;
    good("reads_what_is_not_set", 1);
    uint32_t bits;
    memcpy(&bits, y, sizeof bits);
    assert_int_equal(bits, 0xffffffff);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(computes),
        cmocka_unit_test(catches),
        cmocka_unit_test(shared_memory_starts_as_nonsense),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
