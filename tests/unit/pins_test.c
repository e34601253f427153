/* tests/unit/pins_test.c - random pins on random small graphs: the search finds the cheapest split that obeys them, as brute force does, or nothing where
 * there is none; the solution is proven, gives the numbers of the unsplit graph, and what conflicts is minimal.
 */
#include "tests/support/brute.h"
#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>

static char first_line[1200];
static void note(void *user, severity level, const char *line)
{
    (void)user;
    if (level == DIAG_ERROR && !first_line[0])
        snprintf(first_line, sizeof first_line, "%s", line);
}
static struct diag diag = {.sink = note};

/* Numbers of parts as styles ask for them: batch, in, out, arrives, leaves. */
static const struct layer_parts asked[] = {
    {0, PARTS_WHOLE, PARTS_CUT, 0, PARTS_CUT},
    {0, PARTS_WHOLE, PARTS_CUT, 0, PARTS_WHOLE},
    {0, PARTS_CUT, PARTS_WHOLE, PARTS_CUT, PARTS_WHOLE},
    {0, PARTS_CUT, PARTS_WHOLE, PARTS_WHOLE, PARTS_WHOLE},
    {0, PARTS_WHOLE, PARTS_WHOLE, 0, 0},
    {0, PARTS_WHOLE, PARTS_CUT, 0, 0},
    {0, PARTS_CUT, PARTS_WHOLE, 0, 0},
    {0, 2, 1, 0, 0},
    {0, 1, 2, 0, 2},
    {0, 0, 0, 1, 0},
    {0, 0, 0, 0, 1},
};

static uint32_t random_pins(struct random_graph *r, const struct solve_options *o, struct pin *pin)
{
    const struct switch_point *point = NULL;
    uint32_t points = switch_points(r->g, o, r->arena, &point), count = points ? 1 + random_pick(r, 2) : 0;
    for (uint32_t i = 0; i < count; i++) {
        const struct switch_point *p = &point[random_pick(r, points)];
        pin[i] = (struct pin){.kind = PIN_UNIT,
                              .node = p->node,
                              .parts = asked[random_pick(r, sizeof asked / sizeof *asked)],
                              .text = i ? "the second" : "the first",
                              .group = i,
                              .code = TPC_USAGE};
        if (p->embedding)
            pin[i].parts.arrives = PARTS_ANY;
    }
    return count;
}

/* solve() refuses, and each of several pins that it names can be obeyed without the others. */
static void refused(struct random_graph *r, struct solve_options *o, const char *what)
{
    struct solution *s = NULL;
    first_line[0] = 0;
    if (solve(r->g, o, r->arena, &diag, &s) == TPC_OK || !first_line[0])
        fail_msg("%s: nothing obeys, and solve finds it", what);
    if (o->even) /* what conflicts without it may be another set than what conflicts with it */
        return;
    if (!strstr(first_line, "the first") || !strstr(first_line, "the second") || !strstr(first_line, "cannot both"))
        return;
    const struct pin *both = o->pin;
    o->pin_count = 1;
    for (uint32_t i = 0; i < 2; i++) {
        o->pin = &both[i];
        if (solve(r->g, o, r->arena, &diag, &s) != TPC_OK)
            fail_msg("%s: '%s' names two pins where one is enough", what, first_line);
    }
    o->pin = both;
    o->pin_count = 2;
}

static void agree(uint32_t ranks, uint32_t count, uint32_t first, bool even)
{
    uint32_t checked = 0, found = 0, scattered = 0;
    for (uint32_t i = 0; checked < count && i < count * 40; i++) {
        struct random_graph r = {
            .arena = arena_new(), .seed = first + i, .turn = i, .rows = 1, .every_row = i % 2, .ops = i % 2 ? 8 : 0};
        struct pin pin[2];
        struct solve_options o = {.ranks = ranks, .even = even, .pin = pin};
        struct solve_cost best;
        struct solution *solution = NULL, plain = {0};
        char what[120];
        bool chance = false;
        random_graph(&r, 2 + random_pick(&r, 6));
        o.pin_count = random_pins(&r, &o, pin);
        enum brute_result result = o.pin_count ? brute_force(r.g, &o, r.arena, 200000, &best) : BRUTE_TOO_MANY;
        snprintf(what, sizeof what, "seed %u, %u ranks%s, %u pins", first + i, ranks, even ? ", even" : "",
                 o.pin_count);
        if (result == BRUTE_FOUND || result == BRUTE_SCATTERS) {
            struct solve_cost thought = searched(r.g, &o, r.arena, &plain, &chance);
            if (result == BRUTE_FOUND)
                compare_costs(&r, what, thought, best);
            else
                assert_true(thought.bytes >= best.bytes && thought.bytes < INT64_MAX);
            scattered += result == BRUTE_SCATTERS;
            first_line[0] = 0;
            bool solved = solve(r.g, &o, r.arena, &diag, &solution) == TPC_OK;
            if (!solved &&
                !(even && strstr(first_line, "equal parts"))) /* less than all ranks, where those do not divide */
                fail_msg("%s: brute force finds a split, but: %s", what, first_line);
            if (solved)
                runs_alike(&r, &o, what);
            found += solved;
        } else if (result == BRUTE_NOTHING) {
            refused(&r, &o, what);
        }
        checked += result != BRUTE_TOO_MANY;
        arena_free(r.arena);
    }
    assert_int_equal(checked, count);
    assert_in_range(found, count / 4, count - 1);
    assert_true(scattered <= 1 + count / 10);
}

static uint32_t graphs(uint32_t few)
{
    const char *wanted = getenv("TPC_GRAPHS");
    return wanted ? (uint32_t)strtoul(wanted, NULL, 10) : few;
}

static void on_2(void **state)
{
    (void)state;
    agree(2, graphs(60), 5000, false);
    agree(2, graphs(20), 6000, true);
}
static void on_3(void **state)
{
    (void)state;

    agree(3, graphs(40), 500000, false);
    agree(3, graphs(20), 510000, true);
}
static void on_4(void **state)
{
    (void)state;
    agree(4, graphs(30), 600000, false);
    agree(4, graphs(15), 610000, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(on_2), cmocka_unit_test(on_3), cmocka_unit_test(on_4)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
