/* tests/support/execute_cuda.c - see execute_cuda.h. */
#include "tests/support/execute_cuda.h"
#include "tests/support/execute_gpu.h"
#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct machine {
    const char *name;
    const struct program *program;
    const struct cuda_set *set;
    const struct cuda_model *model;
    const int64_t *of;
    struct arena *arena;
    char **at;
    uint64_t *bytes;
    int64_t *fault;
    bool *left; /* per step: it was said to be done elsewhere */
};

struct cuda_model *compile_sets(struct cuda_set *const *sets, uint32_t count, struct arena *arena)
{
    static unsigned serial;
    LIST(struct cuda_text) texts = {0};
    struct map seen = {.arena = arena};
    char path[64], error[4000];
    if (gpu_wanted()) {
        gpu_compile(sets, count);
        return NULL;
    }
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t k = 0; k < cuda_function_count(sets[i]); k++) {
            const struct cuda_function *f = cuda_function_at(sets[i], k);
            bool fresh;
            (void)map_put(&seen, f->name, strlen(f->name), &fresh);
            if (fresh)
                *PUSH(arena, &texts) = (struct cuda_text){f->name, f->source};
        }
    (void)snprintf(path, sizeof path, "./kernels-%ld-%u.so", (long)getpid(), serial++);
    if (!cuda_model_compile(texts.at, texts.count, path, error, sizeof error))
        fail_msg("%s", error);
    struct cuda_model *model = cuda_model_open(path);
    (void)unlink(path);
    assert_non_null(model);
    return model;
}

/* ---- memory ---- */

static void *aligned(uint64_t bytes)
{
    void *at = aligned_alloc(CUDA_ALIGN, (bytes + 2 * CUDA_ALIGN) / CUDA_ALIGN * CUDA_ALIGN);
    assert_non_null(at);
    memset(at, 0xff, bytes); /* not a number, of every type */
    return at;
}

const void *first_contents(const struct program *p, uint32_t buffer, const struct tensor *inputs)
{
    const struct buffer *b = &p->buffers.at[buffer];
    if (b->kind == BUFFER_INPUT)
        return inputs[b->index].data;
    if (b->kind == BUFFER_WEIGHT)
        return p->graph->params.at[b->index].data;
    return b->kind == BUFFER_CONSTANT ? graph_node(p->graph, b->node)->attribute.data : NULL;
}

void *new_output(const struct program *p, uint32_t buffer, const int64_t *of, uint64_t bytes, struct tensor *outputs)
{
    const struct graph *g = p->graph;
    uint32_t output = p->buffers.at[buffer].index;
    const struct node *n = graph_node(g, g->outputs.at[output].value);
    int64_t shape[MAX_RANK];
    for (uint32_t a = 0; a < n->rank; a++)
        assert_true(dim_eval(g->dims, n->shape[a], of, &shape[a]));
    assert_true(tensor_shape(&outputs[output], n->dtype, n->rank, shape));
    return outputs[output].data = malloc(bytes + 1);
}

static void give_memory(struct machine *m, const struct tensor *inputs)
{
    const struct program *p = m->program;
    for (uint32_t i = 0; i < p->buffers.count; i++) {
        const struct buffer *b = &p->buffers.at[i];
        assert_true(buffer_bytes(p, i, m->of, &m->bytes[i]));
        if (b->kind == BUFFER_TEMP && cuda_buffer_unused(m->set, i))
            continue; /* a launch that touches it all the same is caught */
        m->at[i] = aligned(m->bytes[i]);
        const void *from = first_contents(p, i, inputs);
        if (from)
            memcpy(m->at[i], from, m->bytes[i]);
    }
}

static void take_outputs(struct machine *m, struct tensor *outputs)
{
    for (uint32_t i = 0; i < m->program->buffers.count; i++)
        if (m->program->buffers.at[i].kind == BUFFER_OUTPUT)
            memcpy(new_output(m->program, i, m->of, m->bytes[i], outputs), m->at[i], m->bytes[i]);
}

/* ---- launches ---- */

static bool step_writes(const struct machine *m, const struct step *s, uint32_t buffer)
{
    if (s->kind != STEP_KERNEL)
        return s->arg[s->arg_count - 1] == buffer;
    const struct kernel *k = &m->program->kernels.at[s->kernel];
    for (uint32_t i = 0; i < k->buffer_count; i++)
        if (k->buffer[i].written && s->arg[i] == buffer)
            return true;
    return false;
}

/* By the step, by those that were joined here, or by one that was left to it. */
static bool is_written(const struct machine *m, const struct step *s, uint32_t buffer)
{
    const uint32_t *parts;
    uint32_t count = cuda_steps_at(m->set, (uint32_t)(s - m->program->steps.at), &parts);
    bool written = count == 0 && step_writes(m, s, buffer);
    for (uint32_t i = 0; i < count; i++)
        written |= step_writes(m, &m->program->steps.at[parts[i]], buffer);
    for (uint32_t i = 0; i < m->program->steps.count; i++)
        written |= m->left[i] && step_writes(m, &m->program->steps.at[i], buffer);
    return written;
}

static void put_range(struct model_buffer *list, uint32_t *count, void *at, uint64_t bytes, bool written)
{
    for (uint32_t i = 0; i < *count; i++)
        if (list[i].at == at)
            return;
    list[(*count)++] = (struct model_buffer){at, bytes, written};
}

static void launch(struct machine *m, const struct step *s, const struct cuda_launch *l, void *workspace,
                   uint64_t workspace_bytes)
{
    uint64_t *words = NEW_ARRAY(m->arena, uint64_t, l->word_count + 1);
    struct model_buffer *ranges = NEW_ARRAY(m->arena, struct model_buffer, l->word_count + 1);
    uint32_t count = 0;
    char error[400] = "";
    for (uint32_t i = 0; i < l->word_count; i++) {
        const struct cuda_word *w = &l->word[i];
        if (w->kind == CUDA_NUMBER) {
            words[i] = (uint64_t)w->number;
            continue;
        }
        char *base = w->kind == CUDA_BUFFER ? m->at[w->buffer] : w->kind == CUDA_FAULT ? (char *)m->fault : workspace;
        uint64_t bytes = w->kind == CUDA_BUFFER  ? m->bytes[w->buffer]
                         : w->kind == CUDA_FAULT ? sizeof *m->fault
                                                 : workspace_bytes;
        if (!base)
            fail_msg("%s: %s uses buffer %u, which was said to be unused", m->name,
                     cuda_function_at(m->set, l->function)->name, (unsigned)w->buffer);
        words[i] = (uint64_t)(uintptr_t)(base + w->number);
        put_range(ranges, &count, base, bytes, w->kind != CUDA_BUFFER || is_written(m, s, w->buffer));
    }
    struct model_launch x = {.shared_bytes = l->shared_bytes, .words = words, .word_count = l->word_count};
    memcpy(x.grid, l->grid, sizeof x.grid);
    memcpy(x.block, l->block, sizeof x.block);
    x.range = ranges;
    x.range_count = count;
    const struct cuda_function *f = cuda_function_at(m->set, l->function);
    if (!cuda_model_launch(m->model, f->name, &x, error, sizeof error))
        fail_msg("%s: %s: %s\n%s", m->name, f->name, error, f->source);
}

/* ---- products ---- */

static void multiply(const struct machine *m, const struct cuda_product *p)
{
    const char *lhs = m->at[p->buffer[0]], *rhs = m->at[p->buffer[1]];
    char *out = m->at[p->buffer[2]];
    for (int o = 0; o < 3; o++) {
        bool dense = false;
        int64_t extent[2] = {o == 1 ? p->n : p->m, o == 2 ? p->n : p->k};
        for (int i = 0; i < 2; i++)
            dense |= p->stride[o][i] == 1 || extent[i] == 1;
        if (!dense)
            fail_msg("%s: operand %d of a product has no stride of 1", m->name, o);
    }
    for (int64_t b = 0; b < p->batch; b++)
        for (int64_t i = 0; i < p->m; i++)
            for (int64_t j = 0; j < p->n; j++) {
                int64_t to = p->offset[2] + b * p->batch_stride[2] + i * p->stride[2][0] + j * p->stride[2][1];
                double sum = p->adds ? dtype_load_f64(p->type, m->at[p->added], (size_t)to) : 0;
                sum += p->biased ? dtype_load_f64(p->type, m->at[p->bias], (size_t)j) : 0;
                for (int64_t k = 0; k < p->k; k++) {
                    int64_t l = p->offset[0] + b * p->batch_stride[0] + i * p->stride[0][0] + k * p->stride[0][1];
                    int64_t r = p->offset[1] + b * p->batch_stride[1] + j * p->stride[1][0] + k * p->stride[1][1];
                    sum += dtype_load_f64(p->type, lhs, (size_t)l) * dtype_load_f64(p->type, rhs, (size_t)r);
                }
                dtype_store_f64(p->type, out, (size_t)to, sum);
            }
}

/* ---- steps ---- */

static void run_step(struct machine *m, uint32_t number, uint32_t processors)
{
    const struct step *s = &m->program->steps.at[number];
    struct cuda_step now;
    status code = cuda_step(m->set, number, m->of, processors, m->arena, &now);
    if (code != TPC_OK)
        fail_msg("%s: step %u has no way: %d", m->name, (unsigned)number, (int)code);
    m->left[number] = now.way == CUDA_NOTHING;
    void *workspace = aligned(now.workspace);
    for (uint32_t i = 0; i < now.count && now.way == CUDA_LAUNCH; i++)
        launch(m, s, &now.launch[i], workspace, now.workspace);
    for (uint32_t i = 0; i < now.count && now.way == CUDA_PRODUCT; i++)
        multiply(m, &now.product[i]);
    if ((now.way == CUDA_COPY || now.way == CUDA_COLLECTIVE) && s->arg[0] != s->arg[1])
        memcpy(m->at[s->arg[1]], m->at[s->arg[0]], m->bytes[s->arg[1]]);
    free(workspace);
}

int64_t execute_cuda(const char *name, const struct cuda_set *set, const struct program *p,
                     const struct cuda_model *model, const int64_t *of, uint32_t processors,
                     const struct tensor *inputs, struct tensor *outputs, struct arena *arena)
{
    struct machine m = {.name = name, .program = p, .set = set, .model = model, .of = of, .arena = arena};
    if (gpu_wanted())
        return execute_gpu(name, set, p, of, inputs, outputs, arena);
    m.at = NEW_ARRAY(arena, char *, p->buffers.count + 1);
    m.bytes = NEW_ARRAY(arena, uint64_t, p->buffers.count + 1);
    m.left = NEW_ARRAY(arena, bool, p->steps.count + 1);
    m.fault = aligned(sizeof *m.fault);
    *m.fault = 0;
    give_memory(&m, inputs);
    for (uint32_t i = 0; i < p->steps.count && *m.fault == 0; i++)
        run_step(&m, i, processors);
    take_outputs(&m, outputs);
    int64_t fault = *m.fault;
    for (uint32_t i = 0; i < p->buffers.count; i++)
        free(m.at[i]);
    free(m.fault);
    return fault;
}
