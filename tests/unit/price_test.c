/* tests/unit/price_test.c - what an alternative is said to cost is what the plan that has it costs: solved again under a pin, and priced from its
 * placements alone.
 */
#include "solver/solver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h> /* needs those above */

/* A gated block between two norms, and a head: every style occurs, and some are impossible. */
static const char block[] = "symbol batch\n"
                            "param 0 = \"table\" f32[211, 64] data all(0)\n"
                            "param 1 = \"gate\" f32[96, 64] data all(0)\n"
                            "param 2 = \"up\" f32[96, 64] data all(0)\n"
                            "param 3 = \"down\" f32[64, 96] data all(0)\n"
                            "%1: i64[batch] = input index 0 as \"ids\"\n"
                            "%2: f32[211, 64] = param index 0\n"
                            "%3 = gather %2, %1 axis 0\n"
                            "%4 = reduce_sum %3 list [1]\n"
                            "%5: f32[batch, 64] = broadcast %4 list [0]\n"
                            "%6 = sub %3, %5\n"
                            "%7: f32[96, 64] = param index 1\n"
                            "%8 = dot %6, %7 contract 1\n"
                            "%9: f32[96, 64] = param index 2\n"
                            "%10 = dot %6, %9 contract 1\n"
                            "%11 = tanh %8\n"
                            "%12 = mul %11, %10\n"
                            "%13: f32[64, 96] = param index 3\n"
                            "%14 = dot %12, %13 contract 1\n"
                            "%15 = add %14, %3\n"
                            "output \"y\" %15\n";

static struct solution *solved(struct arena *arena, const struct solve_options *o, struct graph **g)
{
    struct solution *s = NULL;
    assert_int_equal(graph_parse(arena, "block", block, sizeof block - 1, NULL, g), TPC_OK);
    assert_int_equal(solve(*g, o, arena, NULL, &s), TPC_OK);
    return s;
}

static struct layer_parts parts_of(layer_style style)
{
    struct layer_parts p = {.in = PARTS_WHOLE, .out = PARTS_WHOLE};
    if (style == STYLE_ROW || style == STYLE_VOCABULARY)
        p = (struct layer_parts){.in = PARTS_CUT};
    else if (style != STYLE_REPLICATED)
        p.out = PARTS_CUT;
    return p;
}

/* Every priced alternative of the block on `ranks`, against the plan that is pinned to it. Returns how many there were. */
static uint32_t compare(uint32_t ranks)
{
    struct arena *arena = arena_new();
    struct solve_options plain = {.ranks = ranks, .prices = true};
    struct graph *g = NULL, *h = NULL;
    struct solution *s = solved(arena, &plain, &g);
    struct solve_cost cost = solution_cost(g, s, &plain, arena);
    uint32_t priced = 0;
    for (uint32_t i = 0; i < s->layer_count; i++)
        for (uint32_t k = 0; k < s->layers[i].alternative_count; k++) {
            const struct alternative *a = &s->layers[i].alternative[k];
            if (!a->priced)
                continue;
            struct pin pin = {.kind = PIN_UNIT, .node = s->layers[i].node, .parts = parts_of(a->style), .text = "pin"};
            struct solve_options pinned = {.ranks = ranks, .pin_count = 1, .pin = &pin};
            struct solution *t = solved(arena, &pinned, &h);
            struct solve_cost other = solution_cost(h, t, &pinned, arena);
            assert_true((double)(other.bytes - cost.bytes) == a->bytes);
            assert_true((double)(other.time - cost.time) * 1e-12 == a->seconds);
            assert_int_equal(other.switches - cost.switches, a->collectives);
            priced++;
        }
    arena_free(arena);
    return priced;
}

static void test_prices_are_costs(void **state)
{
    (void)state;
    for (uint32_t ranks = 2; ranks <= 6; ranks++)
        assert_true(compare(ranks) >= 3); /* each of gate, up and down could be replicated */
}

/* One rank has nothing to weigh; and what is in the way is named. */
static void test_what_is_impossible(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct solve_options o = {.ranks = 2, .prices = true};
    struct graph *g = NULL;
    struct solution *s = solved(arena, &o, &g);
    bool found = false;
    for (uint32_t i = 0; i < s->layer_count; i++)
        for (uint32_t k = 0; k < s->layers[i].alternative_count; k++) {
            const struct alternative *a = &s->layers[i].alternative[k];
            found = found || (!a->possible && a->style == STYLE_ROW && strstr(a->why, "a factor of 64 is reduced"));
        }
    assert_true(found);
    assert_int_equal(compare(1), 0);
    arena_free(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_prices_are_costs),
                                       cmocka_unit_test(test_what_is_impossible)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
