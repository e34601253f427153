/* tests/unit/solver_work_test.c - how much the search does, counted, not timed: equal layers are solved once, more ranks add decisions and no more layers,
 * a long chain is cut in the middle and does not go deep. bench/solver.c measures what that takes.
 */
#include "passes/passes.h"
#include "solver/solver.h"
#include "tests/support/blocks.h"
#include "tests/test.h"

#include <pthread.h>
#include <stdlib.h>

static struct solve_stats work(struct graph *(*build)(struct arena *arena, uint32_t size), uint32_t size,
                               uint32_t ranks)
{
    struct arena *arena = arena_new();
    struct solve_stats stats = {0};
    struct solve_options o = {.ranks = ranks, .stats = &stats};
    struct solution *solution = NULL;
    struct graph *g = NULL;
    assert_int_equal(simplify(arena, build(arena, size), NULL, &g), TPC_OK);
    assert_int_equal(solve(g, &o, arena, NULL, &solution), TPC_OK);
    if (getenv("TPC_SHOW"))
        printf("size %u, %u ranks: %llu components, %llu decisions, %llu options, %llu rows\n", size, ranks,
               (unsigned long long)stats.components, (unsigned long long)stats.decisions,
               (unsigned long long)stats.options, (unsigned long long)stats.rows);
    arena_free(arena);
    return stats;
}

static struct graph *residual(struct arena *arena, uint32_t nodes)
{
    return block_chain(arena, CHAIN_RESIDUAL, nodes);
}

static struct graph *linears(struct arena *arena, uint32_t nodes)
{
    return block_chain(arena, CHAIN_LINEARS, nodes);
}

static void layers_are_solved_once(void **state)
{
    (void)state;
    for (uint32_t ranks = 2; ranks <= 8; ranks *= 2) {
        struct solve_stats two = work(block_decoder, 2, ranks), eighty = work(block_decoder, 80, ranks);
        assert_int_equal(two.components, eighty.components);
        assert_int_equal(two.decisions, eighty.decisions);
        assert_int_equal(two.options, eighty.options);
        assert_int_equal(two.rows, eighty.rows);
    }
    struct solve_stats few = work(residual, 60, 2), many = work(residual, 6000, 2);
    assert_int_equal(few.components, many.components);
    assert_int_equal(few.decisions, many.decisions);
}

static void ranks_add_little(void **state)
{
    (void)state;
    struct solve_stats two = work(block_decoder, 4, 2), many = work(block_decoder, 4, 64);
    assert_true(many.components <= 8 * two.components);
    assert_true(many.decisions <= 8 * two.decisions);
}

/* Cut in the middle again and again: what is between two decided ends is described by its length. */
static void chains_are_cut_in_the_middle(void **state)
{
    (void)state;
    struct solve_stats few = work(linears, 1000, 2), many = work(linears, 16000, 2);
    assert_true(many.components <= 2 * few.components);
}

/* Each stage on a chain that would overflow a small stack if anything recursed along it. */
static void *long_chains(void *unused)
{
    (void)unused;
    for (enum block_chain kind = 0; kind < BLOCK_CHAINS; kind++) {
        struct arena *arena = arena_new();
        struct graph *g = NULL, *split = NULL;
        struct solution *solution = NULL;
        struct program *program = NULL;
        struct solve_options o = {.ranks = 2};
        assert_int_equal(simplify(arena, block_chain(arena, kind, 20000), NULL, &g), TPC_OK);
        assert_int_equal(solve(g, &o, arena, NULL, &solution), TPC_OK);
        assert_int_equal(parallelize(arena, g, solution, NULL, &split), TPC_OK);
        assert_int_equal(check(arena, g, split, solution, NULL), TPC_OK);
        assert_int_equal(fuse(arena, split, NULL, &program), TPC_OK);
        assert_int_equal(schedule(program, NULL), TPC_OK);
        assert_int_equal(program_verify(program, NULL), TPC_OK);
        struct text t = {.arena = arena};
        struct program *again = NULL;
        program_print(program, &t);
        assert_int_equal(program_parse(arena, "plan", t.at, t.length, NULL, &again), TPC_OK);
        arena_free(arena);
    }
    return NULL;
}

static void nothing_recurses_along_a_graph(void **state)
{
    (void)state;
    pthread_attr_t small;
    pthread_t thread;
    pthread_attr_init(&small);
    assert_int_equal(pthread_attr_setstacksize(&small, 512 << 10), 0);
    assert_int_equal(pthread_create(&thread, &small, long_chains, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    pthread_attr_destroy(&small);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(layers_are_solved_once), cmocka_unit_test(ranks_add_little),
                                       cmocka_unit_test(chains_are_cut_in_the_middle),
                                       cmocka_unit_test(nothing_recurses_along_a_graph)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
