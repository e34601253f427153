/* tests/support/brute.h - the best split of a small graph by brute force.
 *
 * Every combination of decisions for regions, of options for units, and of places where sums are reduced, each turned into placements and priced from those
 * alone (solution_cost). No symmetry, no decomposition, no caching here. Pins are looked at by rules of this file's own.
 *
 * Section: brute.c
 */
#ifndef TPC_TESTS_SUPPORT_BRUTE_H
#define TPC_TESTS_SUPPORT_BRUTE_H

#include "solver/internal.h"
#include "tests/support/random_graph.h"

/* BRUTE_SCATTERS: found, and in the best a use takes a partial sum cut where its region has it whole. That is scattered on the spot; the search, which
 * has regions between units, prices a finished sum and a free restrict, so it may think more of such a split than it costs. Only pins lead there. */
enum brute_result { BRUTE_TOO_MANY, BRUTE_NOTHING, BRUTE_FOUND, BRUTE_SCATTERS };
/* most: combinations that are tried. */
enum brute_result brute_force(struct graph *g, const struct solve_options *o, struct arena *arena, double most,
                              struct solve_cost *best);
/* As solve(), but says what the search thought (INT64_MAX bytes: it found nothing). *chance: a value that is used several times happens to pass a sum on,
 * which placements cannot say. */
struct solve_cost searched(struct graph *g, const struct solve_options *o, struct arena *arena, struct solution *out,
                           bool *chance);
/* Fails the test, with the graph, where they differ. */
void compare_costs(struct random_graph *r, const char *what, struct solve_cost a, struct solve_cost b);
/* The plan of solve() is proven, and computes what the graph computes; else the test fails. */
void runs_alike(struct random_graph *r, const struct solve_options *o, const char *what);

#endif
