/* tests/support/execute.c - runs a Program of one rank step by step, naively; see execute.h. */
#include "tests/support/execute.h"

#include "runtime/builtin.h"
#include "tests/test.h"

#include <stdlib.h>

struct machine {
    const struct program *program;
    const struct kernel_set *kernels;
    const int64_t *of;
    void **at; /* per buffer */
    const char *name;
};

static int64_t value_of(const struct machine *m, dim d)
{
    int64_t x = 0;
    if (!dim_eval(m->program->graph->dims, d, m->of, &x))
        fail_msg("%s: an extent has no value", m->name);
    return x;
}

static int64_t next_point(int64_t *at, const int64_t *extent, uint32_t from, uint32_t to)
{
    for (uint32_t i = to; i-- > from;) {
        if (++at[i] < extent[i])
            return 1;
        at[i] = 0;
    }
    return 0;
}

struct strided {
    uint32_t axes, outer;
    int64_t extent[MAX_RANK], offset[3], stride[3][MAX_RANK];
};

static int64_t place(const struct strided *d, int operand, const int64_t *at)
{
    int64_t sum = d->offset[operand];
    for (uint32_t i = 0; i < d->axes; i++)
        sum += d->stride[operand][i] * at[i];
    return sum;
}

static void run_dot(const struct machine *m, const struct step *s)
{
    const struct dot *dot = s->dot;
    struct strided d = {.axes = dot->batch + dot->m + dot->n + dot->k, .outer = dot->batch + dot->m + dot->n};
    dtype type = m->program->buffers.at[s->arg[0]].type;
    int64_t at[MAX_RANK + 1] = {0}, points = 1, terms = 1;
    for (uint32_t i = 0; i < d.axes; i++) {
        d.extent[i] = value_of(m, dot->extent[i]);
        *(i < d.outer ? &points : &terms) *= d.extent[i];
        for (int o = 0; o < 3; o++)
            d.stride[o][i] = value_of(m, dot->stride[o][i]);
    }
    for (int o = 0; o < 3; o++)
        d.offset[o] = value_of(m, dot->offset[o]);
    for (int64_t p = 0; p < points; p++) {
        double x = 0;
        uint64_t n = 0;
        for (int64_t k = 0; k < terms; k++) {
            size_t l = (size_t)place(&d, 0, at), r = (size_t)place(&d, 1, at);
            if (dtype_is_float(type))
                x += dtype_load_f64(type, m->at[s->arg[0]], l) * dtype_load_f64(type, m->at[s->arg[1]], r);
            else
                n += (uint64_t)dtype_load_i64(type, m->at[s->arg[0]], l) *
                     (uint64_t)dtype_load_i64(type, m->at[s->arg[1]], r);
            next_point(at, d.extent, d.outer, d.axes);
        }
        for (uint32_t i = d.outer; i < d.axes; i++)
            at[i] = 0;
        if (dtype_is_float(type))
            dtype_store_f64(type, m->at[s->arg[2]], (size_t)place(&d, 2, at), x);
        else
            dtype_store_i64(type, m->at[s->arg[2]], (size_t)place(&d, 2, at), (int64_t)n);
        next_point(at, d.extent, 0, d.outer);
    }
}

static struct tensor tensor_of(const struct machine *m, value v, void *data)
{
    const struct node *n = graph_node(m->program->graph, v);
    int64_t shape[MAX_RANK];
    struct tensor t;
    for (uint32_t i = 0; i < n->rank; i++)
        shape[i] = value_of(m, n->shape[i]);
    assert_true(tensor_shape(&t, n->dtype, n->rank, shape));
    t.data = data;
    return t;
}

static void run_builtin(const struct machine *m, const struct step *s)
{
    const struct node *n = graph_node(m->program->graph, s->node);
    struct builtin_call call = {.node = n};
    for (uint32_t i = 0; i < n->operand_count; i++)
        call.operand[i] = tensor_of(m, n->operand[i], m->at[s->arg[i]]);
    call.result = tensor_of(m, s->node, m->at[s->arg[n->operand_count]]);
    call.base = n->attribute.dims_count ? value_of(m, n->attribute.dims[0]) : 0;
    assert_int_equal(builtin_run(&call), TPC_OK);
}

static int64_t run_kernel(const struct machine *m, const struct step *s)
{
    void *args[256];
    int64_t fault = 0, units = kernel_extent(m->kernels, s->kernel, m->of);
    assert_true(s->arg_count <= 256 && units >= 0);
    for (uint32_t i = 0; i < s->arg_count; i++)
        args[i] = m->at[s->arg[i]];
    int64_t cut[4] = {0, units / 3, units / 2, units}; /* as threads would share it */
    for (int i = 0; i < 3; i++)
        if (cut[i] < cut[i + 1])
            kernel_run(m->kernels, s->kernel, args, m->of, cut[i], cut[i + 1], &fault);
    return fault;
}

/* 0, or the fault of a kernel. */
static int64_t run_step(const struct machine *m, const struct step *s)
{
    switch (s->kind) {
    case STEP_KERNEL:
        return run_kernel(m, s);
    case STEP_DOT:
        run_dot(m, s);
        return 0;
    case STEP_BUILTIN:
        run_builtin(m, s);
        return 0;
    case STEP_COPY:
    case STEP_COLLECTIVE: { /* of one rank: the same */
        uint64_t bytes;
        assert_true(buffer_bytes(m->program, s->arg[1], m->of, &bytes));
        if (bytes && m->at[s->arg[0]] != m->at[s->arg[1]])
            memcpy(m->at[s->arg[1]], m->at[s->arg[0]], bytes);
        return 0;
    }
    }
    return 0;
}

/* ---- states that are written in place ---- */

/* Rows of a state's memory, each of capacity entries. */
struct rows {
    size_t count, entry, capacity; /* entry: bytes */
    size_t past, present;          /* entries */
};

static struct rows rows_of(const struct machine *m, const struct buffer *b)
{
    const struct graph *g = m->program->graph;
    const struct state *s = &g->states.at[b->index];
    const struct node *past = graph_node(g, g->inputs.at[s->input].value);
    const struct node *present = graph_node(g, g->outputs.at[s->output].value);
    struct rows r = {
        .count = 1, .entry = dtype_size(b->type), .capacity = (size_t)value_of(m, dim_capacity(g->dims, b->capacity))};
    for (uint32_t a = 0; a < past->rank; a++)
        if (a != s->axis)
            *(a < s->axis ? &r.count : &r.entry) *= (size_t)value_of(m, past->shape[a]);
    r.past = (size_t)value_of(m, past->shape[s->axis]);
    r.present = (size_t)value_of(m, present->shape[s->axis]);
    return r;
}

/* Copies of the symbols' values with capacities: three more than what is needed. */
static const int64_t *with_capacities(struct machine *m, const int64_t *of, struct arena *arena)
{
    const struct program *p = m->program;
    uint32_t symbols = dims_symbol_count(p->graph->dims);
    int64_t *all = NEW_ARRAY(arena, int64_t, symbols + 1);
    memcpy(all, of, symbols * sizeof *of);
    m->of = all;
    for (uint32_t i = 0; i < p->buffers.count; i++) {
        const struct buffer *b = &p->buffers.at[i];
        if (b->kind != BUFFER_STATE)
            continue;
        uint32_t symbol = dim_get(p->graph->dims, dim_capacity(p->graph->dims, b->capacity)).symbol;
        all[symbol] = 0;
        struct rows r = rows_of(m, b);
        size_t need = r.past > r.present ? r.past : r.present;
        for (uint32_t k = 0; k < i; k++) /* several states may share one */
            if (p->buffers.at[k].kind == BUFFER_STATE && p->buffers.at[k].capacity == b->capacity) {
                r = rows_of(m, &p->buffers.at[k]);
                need = r.past > need ? r.past : r.present > need ? r.present : need;
            }
        all[symbol] = (int64_t)need + 3;
    }
    return all;
}

static void take_states(const struct machine *m, const struct tensor *inputs, struct tensor *outputs, bool before)
{
    const struct program *p = m->program;
    for (uint32_t i = 0; i < p->buffers.count; i++) {
        const struct buffer *b = &p->buffers.at[i];
        if (b->kind != BUFFER_STATE)
            continue;
        const struct state *s = &p->graph->states.at[b->index];
        struct rows r = rows_of(m, b);
        for (size_t k = 0; k < r.count; k++) {
            char *row = (char *)m->at[i] + k * r.capacity * r.entry;
            if (before && r.past * r.entry > 0)
                memcpy(row, (char *)inputs[s->input].data + k * r.past * r.entry, r.past * r.entry);
            if (!before && r.present * r.entry > 0)
                memcpy((char *)outputs[s->output].data + k * r.present * r.entry, row, r.present * r.entry);
        }
    }
}

static void give_memory(struct machine *m, struct arena *arena, const struct tensor *inputs, struct tensor *outputs,
                        bool placed, void **own)
{
    const struct program *p = m->program;
    uint64_t *offset = NEW_ARRAY(arena, uint64_t, p->buffers.count + 1), total = 0;
    assert_true(program_place(p, m->of, arena, offset, &total));
    char *temporaries = NEW_ARRAY(arena, char, total + 64);
    for (uint32_t i = 0; i < p->buffers.count; i++) {
        const struct buffer *b = &p->buffers.at[i];
        uint64_t bytes;
        assert_true(buffer_bytes(p, i, m->of, &bytes));
        if (b->kind == BUFFER_INPUT)
            m->at[i] = inputs[b->index].data;
        else if (b->kind == BUFFER_OUTPUT)
            m->at[i] = outputs[b->index].data;
        else if (b->kind == BUFFER_WEIGHT)
            m->at[i] = (void *)(uintptr_t)p->graph->params.at[b->index].data;
        else if (b->kind == BUFFER_CONSTANT)
            m->at[i] = (void *)(uintptr_t)graph_node(p->graph, b->node)->attribute.data;
        else if (placed && b->kind == BUFFER_TEMP && offset[i] != UINT64_MAX)
            m->at[i] = temporaries + offset[i];
        else
            m->at[i] = own[i] = malloc(bytes ? bytes : 1);
        if (own[i])
            memset(own[i], 0x7f, bytes);
    }
}

int64_t execute_alone(const char *name, const struct program *p, const struct kernel_set *kernels, const int64_t *of,
                      const struct tensor *inputs, struct tensor *outputs, bool placed, struct arena *arena)
{
    struct machine m = {p, kernels, of, NEW_ARRAY(arena, void *, p->buffers.count + 1), name};
    void **own = NEW_ARRAY(arena, void *, p->buffers.count + 1);
    int64_t fault = 0;
    of = with_capacities(&m, of, arena);
    for (uint32_t i = 0; i < p->graph->outputs.count; i++) {
        outputs[i] = tensor_of(&m, p->graph->outputs.at[i].value, NULL);
        outputs[i].data = malloc(tensor_bytes(&outputs[i]) + 1);
        memset(outputs[i].data, 0x7f, tensor_bytes(&outputs[i]));
    }
    give_memory(&m, arena, inputs, outputs, placed, own);
    take_states(&m, inputs, outputs, true);
    for (uint32_t i = 0; i < p->steps.count; i++)
        if (!program_step_fits(p, i, of))
            fail_msg("%s: step %u reaches outside of a buffer", name, (unsigned)i);
    for (uint32_t i = 0; i < p->steps.count && fault == 0; i++)
        fault = run_step(&m, &p->steps.at[i]);
    take_states(&m, inputs, outputs, false);
    for (uint32_t i = 0; i < p->buffers.count; i++)
        free(own[i]);
    return fault;
}
