/* tests/unit/mutation_test.c - Programs that are wrong in one place are caught: by check, or by numbers.
 *
 * Real models are split as `tpc compile` does it. Each Program is proven and compared with the unsplit model in the interpreter; then
 * copies of it are changed in one place each (tests/support/mutate.c). A change that the rules of ops.def or the verifier refuse does not
 * count. What check lets pass is run: it must give the original's numbers, for check claims to have proven that.
 *
 * MUTATION_LIST=1 prints what passed check and gives the right numbers: changes that change nothing.
 */
#include "frontend/onnx/onnx.h"
#include "solver/solver.h"
#include "tests/support/subject.h"
#include "tests/test.h"

#include <stdlib.h>
#include <unistd.h>

static char first_line[1200];

static void note(void *user, severity level, const char *line)
{
    (void)user;
    if (level == DIAG_ERROR && !first_line[0])
        snprintf(first_line, sizeof first_line, "%s", line);
}
static struct diag diag = {.sink = note};

/* ---- models ---- */

static const char *folder_of(struct arena *arena, const char *name)
{
    const char *source = getenv("SOURCE");
    return arena_printf(arena, "%s/tests/models/%s", source ? source : ".", name);
}

static void read_inputs(struct subject *s, const char *folder)
{
    struct tensor *in = NEW_ARRAY(s->arena, struct tensor, s->graph->inputs.count + 1);
    for (uint32_t i = 0; i < s->graph->inputs.count; i++) {
        struct onnx_tensor t;
        bool found = false;
        for (uint32_t k = 0; !found; k++) {
            const char *path = arena_printf(s->arena, "%s/test_data_set_0/input_%u.pb", folder, k);
            if (access(path, R_OK) != 0 || onnx_read_tensor_pb(s->arena, path, &diag, &t) != TPC_OK)
                fail_msg("%s has no input '%s'", folder, s->graph->inputs.at[i].name);
            found = strcmp(t.name, s->graph->inputs.at[i].name) == 0;
        }
        assert_true(tensor_shape(&in[i], t.dtype, t.rank, t.shape));
        in[i].data = arena_copy(s->arena, t.bytes, t.size);
    }
    s->inputs = in;
}

struct mesh_case {
    const char *name;
    uint32_t ranks, axis_count;
    const struct mesh_axis *axis;
    enum sequence_parallel sequence;
};

static void prepare(struct subject *s, const struct mesh_case *model)
{
    const char *folder = folder_of(s->arena, s->name);
    struct graph *imported = NULL, *g = NULL;
    struct interpretation x;
    struct solve_options solving = {
        .ranks = s->ranks, .axis_count = model->axis_count, .axis = model->axis, .sequence = model->sequence};
    first_line[0] = '\0';
    bool split =
        onnx_import(s->arena, arena_printf(s->arena, "%s/model.onnx", folder), NULL, &diag, &imported) == TPC_OK &&
        simplify(s->arena, imported, &diag, &g) == TPC_OK &&
        solve(g, &solving, s->arena, &diag, &s->solution) == TPC_OK &&
        parallelize(s->arena, g, s->solution, &diag, &s->program) == TPC_OK &&
        graph_verify(s->program, "parallelize", &diag) == TPC_OK;
    if (!split)
        fail_msg("%s: %s", s->name, first_line);
    s->graph = g;
    s->weights = weights_new(s->arena, g, folder);
    read_inputs(s, folder);
    struct interpret_options options = {.weights = s->weights};
    if (interpret(g, &options, s->inputs, s->arena, &diag, &x) != TPC_OK)
        fail_msg("%s: %s", s->name, first_line);
    s->wanted = x.output;
    s->of = NEW_ARRAY(s->arena, int64_t, dims_symbol_count(s->program->dims) + 64);
    memcpy(s->of, x.of[0], dims_symbol_count(g->dims) * sizeof *s->of);
}

enum { SITES = 12 }; /* of each kind and variant, per Program */

static void try_model(const struct mesh_case *model, struct counts *all)
{
    struct subject *s = calloc(1, sizeof *s);
    assert_non_null(s);
    s->name = model->name;
    s->ranks = model->ranks;
    s->arena = arena_new();
    s->by_kind = all;
    s->diag = &diag;
    prepare(s, model);
    if (check(s->arena, s->graph, s->program, s->solution, &diag) != TPC_OK)
        fail_msg("%s at %u: %s", s->name, s->ranks, first_line);
    if (!subject_same_numbers(s, s->program))
        fail_msg("%s at %u: other numbers: %s", s->name, s->ranks, first_line);
    subject_mutate(s, SITES);
    arena_free(s->arena);
    free(s);
}

static void test_mutants(void **state)
{
    (void)state;
    static const struct mesh_axis batch[] = {{"dp", 2, AXIS_DATA}, {"tp", 2, AXIS_TENSOR}},
                                  sequence[] = {{"cp", 2, AXIS_CONTEXT}, {"tp", 2, AXIS_TENSOR}},
                                  experts[] = {{"ep", 2, AXIS_EXPERT}, {"tp", 2, AXIS_TENSOR}};
    static const struct mesh_case subjects[] = {
        {"llama-ts17", 2, 0, NULL, SEQUENCE_WHOLE},        {"gpt2-ts17", 3, 0, NULL, SEQUENCE_WHOLE},
        {"llama-past-opt18", 4, 0, NULL, SEQUENCE_WHOLE},  {"qwen2-dy18", 6, 0, NULL, SEQUENCE_WHOLE},
        {"llama-loss-ts17", 4, 0, NULL, SEQUENCE_WHOLE},   {"opt-ts17", 4, 0, NULL, SEQUENCE_WHOLE},
        {"t5-ts17", 2, 0, NULL, SEQUENCE_WHOLE},           {"bert-ts17", 4, 0, NULL, SEQUENCE_WHOLE},
        {"gpt2-past-opt18", 2, 0, NULL, SEQUENCE_WHOLE},   {"llama-ts17", 3, 0, NULL, SEQUENCE_SPLIT},
        {"gpt2-ts17", 4, 2, sequence, SEQUENCE_WHOLE},     {"llama-loss-ts17", 4, 2, batch, SEQUENCE_WHOLE},
        {"llama-past-opt18", 4, 2, batch, SEQUENCE_SPLIT}, {"mixtral-ts17", 4, 0, NULL, SEQUENCE_WHOLE},
        {"gptoss-dy18", 4, 2, experts, SEQUENCE_WHOLE}};
    struct counts all[64] = {{0}}, total = {0};
    assert_true(mutation_count <= 64);
    for (uint32_t i = 0; i < sizeof subjects / sizeof *subjects; i++)
        try_model(&subjects[i], all);
    print_message("%-34s %8s %8s %10s %7s\n", "mutation", "mutants", "caught", "equivalent", "missed");
    for (uint32_t k = 0; k < mutation_count; k++) {
        print_message("%-34s %8u %8u %10u %7u\n", mutations[k].name, all[k].mutants, all[k].caught, all[k].equivalent,
                      all[k].missed);
        total.mutants += all[k].mutants;
        total.caught += all[k].caught;
        total.equivalent += all[k].equivalent;
        total.missed += all[k].missed;
    }
    print_message("%-34s %8u %8u %10u %7u\n", "all", total.mutants, total.caught, total.equivalent, total.missed);
    assert_true(total.mutants >= 200);
    assert_int_equal(total.missed, 0);
    assert_true(total.equivalent * 100 <= total.mutants);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_mutants)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
