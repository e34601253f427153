/* solver/machine.c - the machines that tpc knows by name, and which of a machine's links a group of ranks uses.
 *
 * One row per machine. Rates are the published ones of one device, dense (no sparsity), and a link's bandwidth is that of one direction; what an
 * application reaches is less, but plans depend on ratios. Link latencies are not published: they are the order of magnitude of a small all-reduce
 * within one node. `tpc doctor --machine` measures a machine and writes a file with the same fields (docs/machine.md).
 *
 * Sources. a100: NVIDIA A100 Tensor Core GPU datasheet (80GB SXM). h100: NVIDIA H100 Tensor Core GPU datasheet (SXM). h200: NVIDIA H200 Tensor
 * Core GPU datasheet (SXM). f32 is the rate without TF32, f64 that of the tensor cores. cpu: measured with `tpc doctor --machine` on a virtual machine of
 * two cores, two ranks of one thread; others differ by a factor of ten in either direction.
 */
#include "solver/internal.h"

#define TERA 1e12
#define GIGA 1e9

/*  name, devices, TFLOP/s: f64, f32, f16 and bf16, i8; memory: GB/s, GB; link: seconds, GB/s */
#define MACHINES(X)                                                                                                    \
    X("a100x8", 8, 19.5, 19.5, 312, 624, 2039, 80, 1e-5, 300)                                                          \
    X("h100x8", 8, 66.9, 66.9, 989.4, 1978.9, 3350, 80, 1e-5, 450)                                                     \
    X("h200x8", 8, 66.9, 66.9, 989.4, 1978.9, 4800, 141, 1e-5, 450)                                                    \
    X("cpu", 0, 0.01, 0.037, 0.012, 0.0016, 3, 0, 7e-6, 1)

#define RATES(f64, f32, f16, i8)                                                                                       \
    {                                                                                                                  \
        [DT_BOOL] = (i8)*TERA, [DT_I8] = (i8)*TERA, [DT_I16] = (f32)*TERA, [DT_I32] = (f32)*TERA,                      \
        [DT_I64] = (f64)*TERA, [DT_U8] = (i8)*TERA, [DT_U16] = (f32)*TERA, [DT_U32] = (f32)*TERA,                      \
        [DT_U64] = (f64)*TERA, [DT_F16] = (f16)*TERA, [DT_BF16] = (f16)*TERA, [DT_F32] = (f32)*TERA,                   \
        [DT_F64] = (f64)*TERA                                                                                          \
    }

static const struct machine machines[] = {
#define X(machine_name, count, f64, f32, f16, i8, bandwidth, size, seconds, link)                                      \
    {.name = (machine_name),                                                                                           \
     .devices = (count),                                                                                               \
     .flops = RATES(f64, f32, f16, i8),                                                                                \
     .memory_bandwidth = (bandwidth)*GIGA,                                                                             \
     .memory = (uint64_t)((size)*GIGA),                                                                                \
     .level_count = 1,                                                                                                 \
     .level = {{(count) ? (count) : MAX_RANKS, (seconds), (link)*GIGA}}},
    MACHINES(X)
#undef X
};
enum { COUNT = sizeof machines / sizeof machines[0] };

/* Only its ratios matter; without limits, so that nothing is refused for its sake. */
static const struct machine unnamed = {.name = "default",
                                       .flops = RATES(100, 100, 100, 100),
                                       .memory_bandwidth = 2000 * GIGA,
                                       .level_count = 1,
                                       .level = {{MAX_RANKS, 1e-5, 200 * GIGA}}};

const struct machine *machine_default(void)
{
    return &unnamed;
}

const struct machine *machine_builtin(const char *name)
{
    for (size_t i = 0; i < COUNT; i++)
        if (!strcmp(machines[i].name, name))
            return &machines[i];
    return NULL;
}

const char *machine_names(struct arena *arena)
{
    struct text t = {.arena = arena};
    for (size_t i = 0; i < COUNT; i++)
        text_printf(&t, "%s%s", i ? ", " : "", machines[i].name);
    return t.at;
}

/* Ranks that talk over `mask` are as far apart as its outermost sub-axis reaches: they lie in one block of the ranks that it and the sub-axes
 * inside of it span. */
uint32_t link_level(const struct solver *s, uint32_t mask)
{
    uint32_t span = 1, level = 0;
    for (uint32_t i = (uint32_t)__builtin_ctz(mask); i < s->mesh->count; i++)
        span *= s->mesh->size[i];
    while (level + 1 < s->machine->level_count && s->machine->level[level].ranks < span)
        level++;
    return level;
}
