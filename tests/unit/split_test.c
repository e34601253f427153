/* tests/unit/split_test.c - every legal placement of every row, on 2, 3, 4 and 6 ranks: the Program that comes of it is proven by check and gives the unsplit
 * numbers, and what is wrong in one place of it is caught.
 *
 * Each trial is a graph of one row, with random placements of its operands and result by the table in docs/placements.md, then a negation in a
 * placement of its own, so that conversions stand at both ends. The solver makes only some of these; a rewrite and a proof must know all.
 */
#include "ir/interpret.h"
#include "passes/passes.h"
#include "runtime/layout.h"
#include "tests/support/subject.h"
#include "tests/support/trial.h"
#include "tests/test.h"

#include <stdlib.h>

static char first_line[1200];

static void note(void *user, severity level, const char *line)
{
    (void)user;
    if (level == DIAG_ERROR && !first_line[0])
        snprintf(first_line, sizeof first_line, "%s", line);
}
static struct diag diag = {.sink = note};

static const struct tensor *random_inputs(struct trial *t, int64_t n)
{
    struct tensor *in = NEW_ARRAY(t->arena, struct tensor, t->g->inputs.count + 1);
    for (uint32_t i = 0; i < t->g->inputs.count; i++) {
        const struct node *x = graph_node(t->g, t->g->inputs.at[i].value);
        int64_t shape[MAX_RANK], of[64] = {0};
        for (uint32_t s = 0; s < dims_symbol_count(t->g->dims) && s < 64; s++)
            of[s] = n;
        for (uint32_t k = 0; k < x->rank; k++)
            assert_true(dim_eval(t->g->dims, x->shape[k], of, &shape[k]));
        assert_true(tensor_new(t->arena, &in[i], x->dtype, x->rank, shape));
        for (size_t e = 0; e < in[i].count; e++)
            dtype_store_f64(x->dtype, in[i].data, e,
                            x->dtype == DT_BOOL ? trial_any(t, 2) : (double)trial_any(t, 13) - 5.5);
    }
    return in;
}

static const char *program_text(const struct subject *s)
{
    struct text out = {.arena = s->arena};
    if (s->program)
        graph_print(s->program, &out);
    return out.at ? out.at : "";
}

static void try_row(uint32_t row, uint32_t ranks, uint64_t seed, struct counts *counts)
{
    struct arena *arena = arena_new();
    struct trial *t = NEW(arena, struct trial);
    t->arena = arena;
    t->random = seed * 1000 + row * 10 + ranks;
    t->g = graph_new(arena);
    t->n = dim_symbol(t->g->dims, "n");
    t->m = dim_symbol(t->g->dims, "m");
    mesh_init(&t->mesh, "dp", ranks % 2 == 0 ? 2 : 1); /* two axes where that can be */
    mesh_add(&t->mesh, "tp", ranks / t->mesh.ranks);
    t->g->mesh = t->mesh;
    t->g->mesh.ranks = 0;
    for (uint32_t i = 0; i < 5; i++)
        (void)trial_any(t, 2);
    (void)graph_input(t->g, "n", DT_F32, 1, &t->n); /* so that n and m have a value */
    (void)graph_input(t->g, "m", DT_F32, 1, &t->m);
    trial_hand_out(t, trial_rows[row].make(t));
    struct subject s = {
        .name = trial_rows[row].name, .ranks = ranks, .arena = arena, .graph = t->g, .by_kind = counts, .diag = &diag};
    s.solution = trial_solution(t);
    const char *what =
        arena_printf(arena, "%s on %u ranks, seed %llu", trial_rows[row].name, ranks, (unsigned long long)seed);
    first_line[0] = '\0';
    if (parallelize(arena, t->g, s.solution, &diag, &s.program) != TPC_OK ||
        graph_verify(s.program, "parallelize", &diag) != TPC_OK)
        fail_msg("%s: %s\n%s", what, first_line, program_text(&s));
    static const int64_t sizes[] = {7, 1, 0, 4};
    bool symbolic = dims_symbol_count(t->g->dims) > 0;
    for (uint32_t k = 0; k < (symbolic ? 4u : 1u); k++) {
        struct interpretation x;
        s.inputs = random_inputs(t, sizes[3 - k]);
        if (interpret(t->g, NULL, s.inputs, arena, &diag, &x) != TPC_OK)
            fail_msg("%s: %s", what, first_line);
        s.wanted = x.output;
        s.of = NEW_ARRAY(arena, int64_t, dims_symbol_count(t->g->dims) + 64);
        memcpy(s.of, x.of[0], dims_symbol_count(t->g->dims) * sizeof *s.of);
        if (!subject_same_numbers(&s, s.program))
            fail_msg("%s: other numbers at n = %lld: %s\n%s", what, (long long)sizes[3 - k], first_line,
                     program_text(&s));
    }
    if (check(arena, t->g, s.program, s.solution, &diag) != TPC_OK)
        fail_msg("%s: the numbers are right, but %s\n%s", what, first_line, program_text(&s));
    subject_mutate(&s, 3);
    arena_free(arena);
}

static void test_rows_and_their_mutants(void **state)
{
    (void)state;
    static const uint32_t meshes[] = {2, 3, 4, 6};
    const char *asked = getenv("SPLIT_TRIALS");
    uint32_t trials = asked ? (uint32_t)strtoul(asked, NULL, 10) : 6;
    struct counts counts[64] = {{0}}, total = {0};
    for (uint32_t row = 0; row < trial_row_count; row++)
        for (uint32_t m = 0; m < 4; m++)
            for (uint32_t seed = 0; seed < trials; seed++)
                try_row(row, meshes[m], seed, counts);
    for (uint32_t k = 0; k < mutation_count; k++) {
        print_message("%-34s %8u %8u %10u %7u\n", mutations[k].name, counts[k].mutants, counts[k].caught,
                      counts[k].equivalent, counts[k].missed);
        total.mutants += counts[k].mutants;
        total.missed += counts[k].missed;
    }
    assert_true(total.mutants > 1000);
    assert_int_equal(total.missed, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows_and_their_mutants)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
