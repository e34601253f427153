/* tests/support/subject.c - Programs against the unsplit graph, by numbers; and their mutants, by check and by numbers. */
#include "tests/support/subject.h"

#include "ir/graph.h"
#include "passes/passes.h"
#include "runtime/layout.h"
#include "tests/test.h"

#include <stdlib.h>

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
        if (bind_rank(s->program, r, s->of, s->diag, s->of) != TPC_OK)
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
bool subject_same_numbers(const struct subject *s, const struct graph *program)
{
    struct arena *arena = arena_new_in(s->arena);
    const struct graph *g = s->graph;
    struct interpret_options options = {.weights = s->weights};
    struct interpretation x;
    struct tensor *inputs = NEW_ARRAY(arena, struct tensor, s->ranks * g->inputs.count + 1);
    bool same = split_inputs(s, arena, inputs) && interpret(program, &options, inputs, arena, s->diag, &x) == TPC_OK;
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
    bool built = kind->apply(m, v, variant) && program_derive(m) && graph_verify(m, "mutation", s->diag) == TPC_OK;
    count->mutants += built;
    if (built && check(scratch, s->graph, m, s->solution, s->diag) != TPC_OK) {
        count->caught++;
    } else if (built && !kind->silent && subject_same_numbers(s, m)) {
        count->equivalent++;
        if (getenv("MUTATION_LIST"))
            tell(s, "equivalent", kind, v, variant);
    } else if (built) {
        count->missed++;
        tell(s, "check has proven what is wrong", kind, v, variant);
    }
    arena_free(scratch);
}

/* A sample of the places where a kind applies, spread over the Program. */
static void mutate(struct subject *s, const struct mutation *kind, uint32_t sites, struct counts *count)
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
        uint32_t taken = found < sites ? found : sites;
        for (uint32_t i = 0; i < taken; i++)
            judge(s, kind, site[(uint64_t)i * found / taken], variant, count);
    }
    arena_free(scratch);
}

void subject_mutate(struct subject *s, uint32_t sites)
{
    for (uint32_t k = 0; k < mutation_count; k++)
        mutate(s, &mutations[k], sites, &s->by_kind[k]);
}
