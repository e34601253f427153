/* tests/unit/predict_test.c - what a plan says it will hold and exchange is what the engine then holds and exchanges: for every model of tests/models,
 * at the extents of its test data, on even and uneven numbers of ranks. Kernels are interpreted, so that nothing waits for a compiler.
 */
#include "frontend/predict.h"
#include "ir/bind.h"
#include "runtime/engine.h"
#include "tests/support/model_inputs.h"
#include "tests/test.h"

#include <cjson/cJSON.h>
#include <dirent.h>
#include <stdlib.h>
#include <unistd.h>

struct model {
    struct arena *arena;
    const char *name, *folder;
    struct tensor *inputs;
    struct compiled compiled;
};

static void say(void *user, severity level, const char *line)
{
    if (level == DIAG_ERROR)
        fprintf(stderr, "%s: %s\n", (const char *)user, line);
}

/* The extents of the test data, for both phases. */
static void set_nominal(struct model *m, struct graph *g, struct diag *diag, struct compile_options *o)
{
    uint32_t count = dims_symbol_count(g->dims);
    int64_t *of = NEW_ARRAY(m->arena, int64_t, count + 1);
    struct nominal *nominal = NEW_ARRAY(m->arena, struct nominal, count + 1);
    assert_int_equal(bind_symbols(g, 0, m->inputs, m->arena, diag, of), TPC_OK);
    for (uint32_t i = 0; i < count; i++) {
        const struct symbol *s = dims_symbol(g->dims, i);
        if (s->kind == SYMBOL_INPUT && s->equal == DIM_NONE)
            nominal[o->nominal_count++] = (struct nominal){s->name, {of[i], of[i]}};
    }
    o->nominal = nominal;
}

static void compile(struct model *m, uint32_t ranks, struct diag *diag)
{
    struct graph *g = NULL;
    struct compile_options o = {.ranks = ranks};
    assert_int_equal(onnx_import(m->arena, arena_printf(m->arena, "%s/model.onnx", m->folder), NULL, diag, &g), TPC_OK);
    m->inputs = model_inputs(m->arena, g, m->folder, diag);
    set_nominal(m, g, diag, &o);
    assert_int_equal(compile_graph(m->arena, g, &o, diag, &m->compiled), TPC_OK);
}

static int by_node(const void *a, const void *b)
{
    const struct step *const *x = a, *const *y = b;
    return ((*x)->node > (*y)->node) - ((*x)->node < (*y)->node);
}

/* Every collective of the document against the step that did it. */
static void compare_collectives(struct model *m, const struct engine *e, const cJSON *json)
{
    const struct program *p = m->compiled.program;
    const struct step **steps = NEW_ARRAY(m->arena, const struct step *, p->steps.count + 1);
    const cJSON *list = cJSON_GetObjectItem(json, "collectives"), *c = list->child;
    uint32_t count = 0;
    double total = 0;
    for (uint32_t i = 0; i < p->steps.count; i++)
        if (p->steps.at[i].kind == STEP_COLLECTIVE)
            steps[count++] = &p->steps.at[i];
    if (count > 0)
        qsort(steps, count, sizeof *steps, by_node);
    assert_int_equal(cJSON_GetArraySize(list), count);
    for (uint32_t i = 0; i < count; i++, c = c->next) {
        double said = cJSON_GetObjectItem(c, "bytes")->valuedouble,
               done = (double)engine_step_bytes(e, (uint32_t)(steps[i] - p->steps.at));
        total += done;
        if (said != done)
            fail_msg("%s on %u ranks: collective %u (%s) is said to exchange %.0f bytes and exchanged %.0f", m->name,
                     p->graph->mesh.ranks, i, cJSON_GetObjectItem(c, "value")->valuestring, said, done);
    }
    assert_true(total == cJSON_GetObjectItem(cJSON_GetObjectItem(json, "cost"), "collective_bytes")->valuedouble);
}

static void close_to(const struct model *m, uint32_t rank, const char *what, double said, double held)
{
    if (said > held * 1.05 + 64 || said < held * 0.95 - 64)
        fail_msg("%s on %u ranks: rank %u is said to hold %.0f bytes of %s and holds %.0f", m->name,
                 m->compiled.program->graph->mesh.ranks, rank, said, what, held);
}

static void compare_memory(struct model *m, const struct engine *e, const cJSON *json)
{
    const struct engine_stats *stats = engine_stats(e);
    uint32_t rank = 0;
    const cJSON *o = NULL;
    cJSON_ArrayForEach(o, cJSON_GetObjectItem(json, "memory"))
    {
        const struct engine_rank_stats *s = &stats->rank[rank];
        double weights = (double)(s->weight_mapped + s->weight_copied),
               run = (double)(s->arena + s->outputs + s->states);
        double loading = (double)s->loading, peak = weights + (double)s->kept + (run > loading ? run : loading);
        assert_true(cJSON_GetObjectItem(o, "weights")->valuedouble == weights);
        assert_true(cJSON_GetObjectItem(o, "kept")->valuedouble == (double)s->kept);
        close_to(m, rank, "temporaries", cJSON_GetObjectItem(o, "activations")->valuedouble, (double)s->arena);
        close_to(m, rank, "states", cJSON_GetObjectItem(o, "states")->valuedouble, (double)s->states);
        close_to(m, rank, "outputs", cJSON_GetObjectItem(o, "outputs")->valuedouble, (double)s->outputs);
        close_to(m, rank, "temporaries while loading", cJSON_GetObjectItem(o, "loading")->valuedouble, loading);
        close_to(m, rank, "all", cJSON_GetObjectItem(o, "peak")->valuedouble, peak);
        rank++;
    }
    assert_int_equal(rank, stats->ranks);
}

static struct links links_of(struct model *m)
{
    const struct compiled *c = &m->compiled;
    struct links l = {NEW_ARRAY(m->arena, const struct placement *, c->graph->inputs.count + 1), c->solution->output};
    for (uint32_t i = 0; i < c->graph->inputs.count; i++)
        l.input[i] = c->solution->result[c->graph->inputs.at[i].value];
    return l;
}

static void compare_model(const char *folder, const char *name, uint32_t ranks)
{
    struct model m = {.arena = arena_new(), .name = name};
    struct diag diag = {.sink = say, .user = arena_strdup(m.arena, name)};
    struct engine *e = NULL;
    struct engine_options threads = {.threads = 1};
    m.folder = arena_printf(m.arena, "%s/%s", folder, name);
    compile(&m, ranks, &diag);
    cJSON *json = cJSON_Parse(report_json(m.arena, &m.compiled));
    assert_non_null(json);
    struct links links = links_of(&m);
    assert_int_equal(engine_open(m.compiled.program, &links, m.folder, &threads, &diag, &e), TPC_OK);
    for (int run = 0; run < 2; run++) /* the second writes a state's other buffer */
        assert_int_equal(engine_run(e, m.inputs, NULL, &diag), TPC_OK);
    compare_collectives(&m, e, json);
    compare_memory(&m, e, json);
    engine_close(e);
    cJSON_Delete(json);
    arena_free(m.arena);
}

/* TPC_RANKS="2 3": those numbers of ranks for every model. Without it one number each, in turn, so that all numbers see many models. */
static void predictions_come_true(void **state)
{
    static const uint32_t ranks[] = {2, 3, 4, 8};
    const char *source = getenv("SOURCE"), *wanted = getenv("TPC_RANKS");
    char folder[512];
    struct dirent **entries;
    (void)state;
    snprintf(folder, sizeof folder, "%s/tests/models", source ? source : ".");
    int count = scandir(folder, &entries, NULL, alphasort);
    assert_true(count > 10);
    uint32_t models = 0;
    for (int i = 0; i < count; i++) {
        char path[1024];
        snprintf(path, sizeof path, "%s/%s/test_data_set_0", folder, entries[i]->d_name);
        if (entries[i]->d_name[0] != '.' && access(path, R_OK) == 0) {
            char *at = (char *)(wanted ? wanted : "");
            for (unsigned long n = strtoul(at, &at, 10); n > 0; n = strtoul(at, &at, 10))
                compare_model(folder, entries[i]->d_name, (uint32_t)n);
            if (!wanted)
                compare_model(folder, entries[i]->d_name, ranks[models % 4]);
            models++;
        }
        free(entries[i]);
    }
    free(entries);
    assert_true(models >= 30);
}

int main(void)
{
    setenv("CC", "/nonexistent", 1);
    const struct CMUnitTest tests[] = {cmocka_unit_test(predictions_come_true)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
