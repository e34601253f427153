/* tests/support/execute_gpu.c - see execute_gpu.h. */
#include "tests/support/execute_gpu.h"
#include "runtime/device_cuda.h"
#include "tests/support/execute_cuda.h"
#include "tests/test.h"

#include <stdlib.h>

struct machine {
    const char *name;
    const struct program *program;
    const int64_t *of;
    struct device *device;
    struct failure failure;
    void **at;
    uint64_t *bytes;
};

bool gpu_wanted(void)
{
    const char *wanted = getenv("TPC_TEST_GPU");
    return wanted && strcmp(wanted, "1") == 0;
}

static struct device *open_gpu(void)
{
    struct failure f = {.code = TPC_OK};
    struct device *d = NULL;
    if (device_cuda_new(0, &f, &d) != TPC_OK)
        fail_msg("%s", f.text);
    return d;
}

static void good(struct machine *m, status s)
{
    if (s != TPC_OK)
        fail_msg("%s: %s", m->name, m->failure.text);
}

static void print_line(void *user, severity level, const char *line)
{
    (void)user;
    (void)level;
    (void)fprintf(stderr, "%s\n", line);
}

void gpu_compile(struct cuda_set *const *sets, uint32_t count)
{
    static struct device *keeper; /* its context stays for all trials */
    struct diag diag = {.sink = print_line};
    keeper = keeper ? keeper : open_gpu();
    const struct cuda_options o = {.compute = device_cuda_info(keeper).compute};
    for (uint32_t i = 0; i < count; i++)
        if (cuda_compile(sets[i], &o, &diag) != TPC_OK)
            fail_msg("NVRTC does not compile set %u", (unsigned)i);
}

/* ---- memory ---- */

static void give_memory(struct machine *m, const struct cuda_set *set, const struct tensor *inputs)
{
    const struct program *p = m->program;
    for (uint32_t i = 0; i < p->buffers.count; i++) {
        const struct buffer *b = &p->buffers.at[i];
        assert_true(buffer_bytes(p, i, m->of, &m->bytes[i]));
        if (b->kind == BUFFER_TEMP && cuda_buffer_unused(set, i))
            continue;
        m->at[i] = m->device->ops->alloc(m->device, m->bytes[i]);
        assert_non_null(m->at[i]);
        const void *from = first_contents(p, i, inputs);
        void *poison = malloc(m->bytes[i] + 1);
        memset(poison, 0xff, m->bytes[i] + 1);
        good(m, m->device->ops->upload(m->device, m->at[i], from ? from : poison, m->bytes[i], &m->failure));
        free(poison);
    }
}

static void take_outputs(struct machine *m, struct tensor *outputs)
{
    const struct device_ops *ops = m->device->ops;
    for (uint32_t i = 0; i < m->program->buffers.count; i++)
        if (m->program->buffers.at[i].kind == BUFFER_OUTPUT)
            good(m, ops->download(m->device, new_output(m->program, i, m->of, m->bytes[i], outputs), m->at[i],
                                  m->bytes[i], &m->failure));
}

/* ---- steps ---- */

static void run_step(struct machine *m, uint32_t number, struct arena *arena)
{
    const struct step *s = &m->program->steps.at[number];
    const void *prepared = NULL;
    const struct device_ops *ops = m->device->ops;
    if (s->kind == STEP_COLLECTIVE) { /* of one rank */
        if (s->arg[0] != s->arg[1])
            good(m, ops->copy(m->device, m->at[s->arg[1]], m->at[s->arg[0]], m->bytes[s->arg[1]], &m->failure));
        return;
    }
    good(m, ops->prepare(m->device, number, m->of, arena, &prepared, &m->failure));
    good(m, ops->step(m->device, s, prepared, m->at, m->bytes, &m->failure));
}

int64_t execute_gpu(const char *name, const struct cuda_set *set, const struct program *p, const int64_t *of,
                    const struct tensor *inputs, struct tensor *outputs, struct arena *arena)
{
    struct machine m = {.name = name, .program = p, .of = of, .device = open_gpu()};
    m.at = NEW_ARRAY(arena, void *, p->buffers.count + 1);
    m.bytes = NEW_ARRAY(arena, uint64_t, p->buffers.count + 1);
    good(&m, device_cuda_use(m.device, set, &m.failure));
    give_memory(&m, set, inputs);
    for (uint32_t i = 0; i < p->steps.count; i++)
        run_step(&m, i, arena);
    status s = m.device->ops->finish(m.device, &m.failure);
    bool fault = s == TPC_DATA;
    if (!fault)
        good(&m, s);
    take_outputs(&m, outputs);
    for (uint32_t i = 0; i < p->buffers.count; i++)
        m.device->ops->release(m.device, m.at[i], m.bytes[i]);
    m.device->ops->close(m.device);
    return fault;
}
