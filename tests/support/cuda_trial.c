/* tests/support/cuda_trial.c - see cuda_trial.h. */
#include "tests/support/cuda_trial.h"
#include "ir/interpret.h"
#include "passes/passes.h"
#include "tests/test.h"

#include <math.h>
#include <stdlib.h>

struct arena *trial_arena;
static struct cuda_trials list;
struct cuda_trials *trials = &list;
static struct cuda_model *model;
char trial_lines[4000];

static void note(void *user, severity level, const char *line)
{
    (void)user;
    (void)level;
    size_t used = strlen(trial_lines);
    snprintf(trial_lines + used, sizeof trial_lines - used, "%s\n", line);
}
struct diag trial_diag = {.sink = note};

void trial_start(void)
{
    trial_arena = arena_new();
    trial_lines[0] = '\0';
}

struct cuda_trial *trial_program(const char *name, struct program *p)
{
    const char *only = getenv("CASE");
    struct cuda_trial t = {.name = name,
                           .program = p,
                           .tolerance = {[DT_F16] = 0x1p-8, [DT_BF16] = 0x1p-5, [DT_F32] = 3e-6, [DT_F64] = 1e-12}};
    if (only && !strstr(name, only))
        return NULL;
    if (program_verify(p, &trial_diag) != TPC_OK || cuda_new(trial_arena, p, &trial_diag, &t.set) != TPC_OK)
        fail_msg("%s: %s", name, trial_lines);
    *PUSH(trial_arena, trials) = t;
    return &trials->at[trials->count - 1];
}

struct cuda_trial *trial_graph(const char *name, struct graph *g)
{
    struct program *p = NULL;
    if (graph_verify(g, "test", &trial_diag) != TPC_OK || fuse(trial_arena, g, &trial_diag, &p) != TPC_OK ||
        schedule(p, &trial_diag) != TPC_OK)
        fail_msg("%s: %s", name, trial_lines);
    return trial_program(name, p);
}

struct cuda_trial *trial_text(const char *name, const char *text, size_t length)
{
    struct graph *g = NULL;
    if (graph_parse(trial_arena, name, text, length, &trial_diag, &g) != TPC_OK)
        fail_msg("%s: %s", name, trial_lines);
    return trial_graph(name, g);
}

void trial_size(struct cuda_trial *t, int64_t b, int64_t s, int64_t p, int64_t n)
{
    const int64_t size[4] = {b, s, p, n};
    assert_true(t->sizes < TRIAL_SIZES);
    memcpy(t->size[t->sizes++], size, sizeof size);
}

struct cuda_trial *trial_typed(const char *name, const char *form, dtype t)
{
    struct text text = {.arena = trial_arena};
    for (; *form; form++) {
        if (*form == '$')
            text_put(&text, dtype_name(t));
        else
            text_putn(&text, form, 1);
    }
    return trial_text(arena_printf(trial_arena, "%s %s", name, dtype_name(t)), text.at, text.length);
}

struct cuda_trial *trial_simplified(struct cuda_trial *t)
{
    struct graph *g = NULL;
    if (!t)
        return NULL;
    if (simplify(trial_arena, t->program->graph, &trial_diag, &g) != TPC_OK)
        fail_msg("%s: %s", t->name, trial_lines);
    trials->count--; /* t, which is the last */
    return trial_graph(t->name, g);
}

void trial_compile(void)
{
    struct cuda_set **sets = NEW_ARRAY(trial_arena, struct cuda_set *, trials->count + 1);
    for (uint32_t i = 0; i < trials->count; i++)
        sets[i] = trials->at[i].set;
    model = compile_sets(sets, trials->count, trial_arena);
}

/* ---- running ---- */

static uint64_t random_state = 1;
static double next_random(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (double)(random_state >> 33) / 2147483648.0;
}

static void fill(const struct cuda_trial *t, struct tensor *x)
{
    static const double floats[] = {0,
                                    -0.0,
                                    1,
                                    -1,
                                    0.5,
                                    -0.5,
                                    1.5,
                                    2.5,
                                    -2.5,
                                    1e-3,
                                    -1e-7,
                                    (double)NAN,
                                    3,
                                    88.5,
                                    -87,
                                    -103,
                                    1e-40,
                                    1e30,
                                    -1e30,
                                    65504,
                                    300,
                                    -300,
                                    (double)INFINITY,
                                    -(double)INFINITY};
    static const int64_t ints[] = {0,      1,     -1,        2,         -2,        3,        7,   8,
                                   31,     32,    63,        64,        127,       -128,     255, 32767,
                                   -32768, 65535, INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN};
    for (size_t i = 0; i < x->count; i++) {
        bool special = t->wild && next_random() < 0.3;
        double r = next_random();
        if (x->dtype == DT_BOOL)
            dtype_store_i64(x->dtype, x->data, i, r < 0.5);
        else if (dtype_is_float(x->dtype))
            dtype_store_f64(x->dtype, x->data, i,
                            special ? floats[(size_t)(r * (sizeof floats / sizeof floats[0]))] : r * 4 - 2);
        else
            dtype_store_i64(x->dtype, x->data, i,
                            special ? ints[(size_t)(r * (sizeof ints / sizeof ints[0]))] : (int64_t)(r * 5) % 3);
    }
}

struct tensor *trial_inputs(const struct cuda_trial *t, const int64_t *size)
{
    static const char *const names[] = {"b", "s", "p", "n"};
    const struct graph *g = t->program->graph;
    struct tensor *inputs = NEW_ARRAY(trial_arena, struct tensor, g->inputs.count + 1);
    int64_t *of = NEW_ARRAY(trial_arena, int64_t, dims_symbol_count(g->dims) + 1);
    for (uint32_t s = 0; s < dims_symbol_count(g->dims); s++)
        for (int i = 0; i < 4; i++)
            if (dims_symbol(g->dims, s)->name && strcmp(dims_symbol(g->dims, s)->name, names[i]) == 0)
                of[s] = size[i];
    for (uint32_t i = 0; i < g->inputs.count; i++) {
        const struct node *n = graph_node(g, g->inputs.at[i].value);
        int64_t shape[MAX_RANK];
        for (uint32_t a = 0; a < n->rank; a++)
            assert_true(dim_eval(g->dims, n->shape[a], of, &shape[a]));
        assert_true(tensor_new(trial_arena, &inputs[i], n->dtype, n->rank, shape));
        fill(t, &inputs[i]);
    }
    return inputs;
}

/* Of functions that the library computes by other means than ours: in units of the last place. */
static void compare(const struct cuda_trial *t, const struct tensor *got, const struct tensor *wanted)
{
    const struct graph *g = t->program->graph;
    for (uint32_t i = 0; i < g->outputs.count; i++) {
        struct difference d;
        double relative = t->tolerance[wanted[i].dtype], magnitude = 0;
        if (dtype_is_float(wanted[i].dtype) && !t->wild) {
            (void)tensor_compare(&got[i], &wanted[i], 0, 0, &d);
            magnitude = d.largest < 1e30 ? d.largest : 0;
        }
        if (!tensor_compare(&got[i], &wanted[i], relative, t->wild ? 1e-37 : relative * fmax(magnitude, 1), &d))
            fail_msg("%s: '%s': %zu differ, [%zu] is %.9g, wanted %.9g", t->name, g->outputs.at[i].name, d.count, d.at,
                     d.got, d.wanted);
    }
}

int64_t trial_execute(const struct cuda_trial *t, const int64_t *of, uint32_t processors, const struct tensor *inputs,
                      struct tensor *outputs)
{
    return execute_cuda(t->name, t->set, t->program, model, of, processors, inputs, outputs, trial_arena);
}

static void trial_run(const struct cuda_trial *t)
{
    for (uint32_t i = 0; i < t->sizes; i++) {
        const struct graph *g = t->program->graph;
        struct interpretation x;
        struct tensor *inputs = trial_inputs(t, t->size[i]);
        struct tensor *outputs = NEW_ARRAY(trial_arena, struct tensor, g->outputs.count + 1);
        if (interpret_same(g, NULL, inputs, trial_arena, &trial_diag, &x) != TPC_OK)
            fail_msg("%s: %s", t->name, trial_lines);
        uint32_t processors = i % 2 ? 1 : 132; /* few: longer rows per warp */
        int64_t fault = trial_execute(t, x.of[0], processors, inputs, outputs);
        if (fault != 0)
            fail_msg("%s: fault %lld", t->name, (long long)fault);
        compare(t, outputs, x.output);
        for (uint32_t k = 0; k < g->outputs.count; k++)
            free(outputs[k].data);
    }
}

void trial_programs(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < trials->count; i++)
        trial_run(&trials->at[i]);
}

int trial_end(void **state)
{
    (void)state;
    cuda_model_close(model);
    arena_free(trial_arena);
    return 0;
}
