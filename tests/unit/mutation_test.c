/* tests/unit/mutation_test.c - Programs that are wrong in one place are caught: by check, or by numbers.
 *
 * Real models are split as `tpc compile` does it. Each Program is proven and compared with the unsplit model in the interpreter; then
 * copies of it are changed in one place each (tests/support/mutate.c). A change that the rules of ops.def or the verifier refuse does not
 * count. What check lets pass is run: it must give the original's numbers, for check claims to have proven that.
 *
 * MUTATION_LIST=1 prints what passed check and gives the right numbers: changes that change nothing.
 */
#include "frontend/onnx/onnx.h"
#include "ir/interpret.h"
#include "passes/passes.h"
#include "runtime/layout.h"
#include "solver/solver.h"
#include "tests/support/mutate.h"
#include "tests/test.h"

#include <stdlib.h>
#include <unistd.h>

struct counts {
    unsigned mutants, caught, equivalent, missed;
};

struct subject {
    const char *name;
    uint32_t ranks;
    struct arena *arena;
    const struct graph *graph;
    struct graph *program;
    struct solution *solution;
    struct weights *weights;
    const struct tensor *inputs; /* whole */
    const struct tensor *wanted; /* outputs of the unsplit graph */
    int64_t *of;                 /* its symbols, and room for those of a rank */
    struct counts by_kind[64];
};

static char first_line[1200];

static void note(void *user, severity level, const char *line)
{
    (void)user;
    if (level == DIAG_ERROR && !first_line[0])
        snprintf(first_line, sizeof first_line, "%s", line);
}
static struct diag diag = {.sink = note};

static bool is_state_output(const struct graph *g, uint32_t output)
{
    for (uint32_t i = 0; i < g->states.count; i++)
        if (g->states.at[i].output == output)
            return true;
    return false;
}

static bool is_state_input(const struct graph *g, uint32_t input)
{
    for (uint32_t i = 0; i < g->states.count; i++)
        if (g->states.at[i].input == input)
            return true;
    return false;
}

/* ---- a Program against the unsplit graph ---- */

/* What rank r has of a whole tensor in placement p. */
static bool cut_tensor(const struct subject *s, struct arena *arena, const struct placement *p, uint32_t r,
                       const int64_t *of, const struct tensor *whole, struct tensor *part)
{
    struct layout l;
    if (!layout_of(s->program, p, r, of, arena, &l) || !tensor_new(arena, part, whole->dtype, whole->rank, l.local))
        return false;
    layout_cut(&l, dtype_size(whole->dtype), whole->data, part->data);
    return true;
}

static bool split_inputs(const struct subject *s, struct arena *arena, struct tensor *inputs)
{
    const struct graph *g = s->graph;
    for (uint32_t r = 0; r < s->ranks; r++) {
        if (bind_rank(s->program, r, s->of, &diag, s->of) != TPC_OK)
            return false;
        for (uint32_t i = 0; i < g->inputs.count; i++) {
            struct tensor *to = &inputs[r * g->inputs.count + i];
            *to = s->inputs[i];
            if (is_state_input(g, i) &&
                !cut_tensor(s, arena, s->solution->result[g->inputs.at[i].value], r, s->of, &s->inputs[i], to))
                return false;
        }
    }
    return true;
}

/* Are all outputs those of the unsplit graph, on every rank? */
static bool same_numbers(const struct subject *s, const struct graph *program)
{
    struct arena *arena = arena_new_in(s->arena);
    const struct graph *g = s->graph;
    struct interpret_options options = {.weights = s->weights};
    struct interpretation x;
    struct tensor *inputs = NEW_ARRAY(arena, struct tensor, s->ranks * g->inputs.count + 1);
    bool same = split_inputs(s, arena, inputs) && interpret(program, &options, inputs, arena, &diag, &x) == TPC_OK;
    for (uint32_t i = 0; same && i < g->outputs.count; i++)
        for (uint32_t r = 0; same && r < s->ranks; r++) {
            struct tensor wanted = s->wanted[i];
            struct difference d;
            if (is_state_output(g, i))
                same = cut_tensor(s, arena, s->solution->output[i], r, x.of[r], &s->wanted[i], &wanted);
            if (same && !tensor_compare(&x.output[r * g->outputs.count + i], &wanted, 0, 0, &d))
                same = d.count != SIZE_MAX && d.worst <= 2e-5 * (d.largest + 1e-3);
        }
    arena_free(arena);
    return same;
}

/* ---- mutants ---- */

static void tell(const struct subject *s, const char *what, const struct mutation *kind, value v, uint32_t variant)
{
    const char *row = v < s->program->nodes.count ? op_info(graph_node(s->program, v)->op)->text : "";
    print_message("%s: %s at %u: %s, %%%u = %s, variant %u\n", what, s->name, s->ranks, kind->name, v, row, variant);
}

static void judge(struct subject *s, const struct mutation *kind, value v, uint32_t variant, struct counts *count)
{
    struct arena *scratch = arena_new_in(s->arena);
    struct graph *m = program_copy(s->program, scratch);
    bool built = kind->apply(m, v, variant) && program_derive(m) && graph_verify(m, "mutation", &diag) == TPC_OK;
    count->mutants += built;
    if (built && check(scratch, s->graph, m, s->solution, &diag) != TPC_OK) {
        count->caught++;
    } else if (built && !kind->silent && same_numbers(s, m)) {
        count->equivalent++;
        if (getenv("MUTATION_LIST"))
            tell(s, "equivalent", kind, v, variant);
    } else if (built) {
        count->missed++;
        tell(s, "check has proven what is wrong", kind, v, variant);
    }
    arena_free(scratch);
}

enum { SITES = 12 }; /* of each kind and variant, per Program */

/* A sample of the places where a kind applies, spread over the Program. */
static void mutate(struct subject *s, const struct mutation *kind, struct counts *count)
{
    value nodes = s->program->nodes.count, *site = NEW_ARRAY(s->arena, value, nodes);
    struct arena *scratch = arena_new_in(s->arena);
    for (uint32_t variant = 0; variant < kind->variants; variant++) {
        uint32_t found = 0;
        for (value v = 1; v < nodes; v++) {
            struct arena_mark mark = arena_mark(scratch);
            if (kind->apply(program_copy(s->program, scratch), v, variant))
                site[found++] = v;
            arena_rewind(scratch, mark);
        }
        uint32_t taken = found < SITES ? found : SITES;
        for (uint32_t i = 0; i < taken; i++)
            judge(s, kind, site[(uint64_t)i * found / taken], variant, count);
    }
    arena_free(scratch);
}

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

static void prepare(struct subject *s)
{
    const char *folder = folder_of(s->arena, s->name);
    struct graph *imported = NULL, *g = NULL;
    struct interpretation x;
    struct solve_options solving = {.ranks = s->ranks};
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

static void report(const struct subject *s, struct counts *all)
{
    for (uint32_t k = 0; k < mutation_count; k++) {
        all[k].mutants += s->by_kind[k].mutants;
        all[k].caught += s->by_kind[k].caught;
        all[k].equivalent += s->by_kind[k].equivalent;
        all[k].missed += s->by_kind[k].missed;
    }
}

static void try_model(const char *name, uint32_t ranks, struct counts *all)
{
    struct subject *s = calloc(1, sizeof *s);
    assert_non_null(s);
    s->name = name;
    s->ranks = ranks;
    s->arena = arena_new();
    prepare(s);
    if (check(s->arena, s->graph, s->program, s->solution, &diag) != TPC_OK)
        fail_msg("%s at %u: %s", name, ranks, first_line);
    if (!same_numbers(s, s->program))
        fail_msg("%s at %u: other numbers: %s", name, ranks, first_line);
    for (uint32_t k = 0; k < mutation_count; k++)
        mutate(s, &mutations[k], &s->by_kind[k]);
    report(s, all);
    arena_free(s->arena);
    free(s);
}

static void test_mutants(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint32_t ranks;
    } subjects[] = {{"llama-ts17", 2}, {"gpt2-ts17", 3},       {"llama-past-opt18", 4},
                    {"qwen2-dy18", 6}, {"llama-loss-ts17", 4}, {"opt-ts17", 4},
                    {"t5-ts17", 2},    {"bert-ts17", 4},       {"gpt2-past-opt18", 2}};
    struct counts all[64] = {{0}}, total = {0};
    assert_true(mutation_count <= 64);
    for (uint32_t i = 0; i < sizeof subjects / sizeof *subjects; i++)
        try_model(subjects[i].name, subjects[i].ranks, all);
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
