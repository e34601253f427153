/* runtime/plan_links.c - the LINKS section of a plan: what ties a Program to the world outside of it.
 *
 *     weights "../model" or "/home/me/model"          the model's folder, seen from the plan's; and where it was, should that not be there
 *     input 2 = [batch, 4@1 ; 2 | 3, past]            a cut input: axes of segments (|) of factors (;), @ a partition
 *     output 1 = [batch, 4@1 ; 2, past + sequence]
 *
 * Whole inputs and outputs have no line.
 */
#include "ir/text_form.h"
#include "runtime/plan.h"

static void print_placement(const struct program *p, const char *what, uint32_t index,
                            const struct placement *placement, struct text *out)
{
    if (!placement || placement_is_whole(placement))
        return;
    text_printf(out, "%s %u = [", what, (unsigned)index);
    for (uint32_t a = 0; a < placement->rank; a++) {
        const struct axis_layout *axis = &placement->axis[a];
        for (uint32_t s = 0; s < axis->count; s++)
            for (uint32_t f = 0; f < axis->segment[s].count; f++) {
                const struct factor *factor = &axis->segment[s].factor[f];
                text_put(out, f ? " ; " : s ? " | " : a ? ", " : "");
                dim_print(p->graph->dims, factor->extent, out);
                if (factor->partition)
                    text_printf(out, " @ %u", (unsigned)factor->partition);
            }
    }
    text_put(out, "]\n");
}

void links_print(const struct program *p, const struct links *links, const struct plan_place *place, struct text *out)
{
    const struct graph *g = p->graph;
    if (place->relative) {
        text_put(out, "weights ");
        text_quote(out, place->relative, strlen(place->relative));
        text_put(out, " or ");
        text_quote(out, place->absolute, strlen(place->absolute));
        text_put(out, "\n");
    }
    for (uint32_t i = 0; i < g->inputs.count && links->input; i++)
        print_placement(p, "input", i, links->input[i], out);
    for (uint32_t i = 0; i < g->outputs.count && links->output; i++)
        print_placement(p, "output", i, links->output[i], out);
}

/* ---- reading ------------------------------------------------------------------------------------------------------ */

typedef LIST(struct factor) factors;
typedef LIST(struct segment) segments;

static bool read_factor(struct lexer *l, const struct program *p, factors *to)
{
    struct factor f = {0};
    if (!lex_dim(l, p->graph->dims, &f.extent))
        return false;
    if (lex_accept(l, "@") &&
        (!lex_u32(l, &f.partition) || f.partition == 0 || f.partition >= p->graph->partitions.count))
        return lex_fail(l, "no such partition");
    if (f.partition && p->graph->partitions.at[f.partition].extent != f.extent)
        return lex_fail(l, "partition %u is of another extent", (unsigned)f.partition);
    *PUSH(l->arena, to) = f;
    return true;
}

static bool read_axis(struct lexer *l, const struct program *p, struct axis_layout *axis)
{
    segments all = {0};
    do {
        factors of = {0};
        do {
            if (!read_factor(l, p, &of))
                return false;
        } while (lex_accept(l, ";"));
        *PUSH(l->arena, &all) = (struct segment){of.count, of.at};
    } while (lex_accept(l, "|"));
    *axis = (struct axis_layout){all.count, all.at};
    return true;
}

/* `v` is the program's value that lies so: its extents must follow from the placement. */
static bool read_placement(struct lexer *l, const struct program *p, value v, const struct placement **out)
{
    const struct node *n = graph_node(p->graph, v);
    struct axis_layout *axis = NEW_ARRAY(l->arena, struct axis_layout, n->rank);
    if (*out)
        return lex_fail(l, "given twice");
    if (!lex_expect(l, "=") || !lex_expect(l, "["))
        return false;
    for (uint32_t a = 0; a < n->rank; a++) {
        if ((a > 0 && !lex_expect(l, ",")) || !read_axis(l, p, &axis[a]))
            return false;
        if (axis_local_extent(p->graph, &axis[a]) != n->shape[a])
            return lex_fail(l, "axis %u is not what the program has there", (unsigned)a);
    }
    struct placement *placement = NEW(l->arena, struct placement);
    *placement = (struct placement){.rank = n->rank, .axis = axis};
    *out = placement;
    return lex_expect(l, "]");
}

static bool read_link(struct lexer *l, const struct program *p, struct links *links, struct plan_place *place)
{
    const struct graph *g = p->graph;
    uint32_t index = 0;
    if (lex_accept(l, "weights"))
        return lex_string(l, &place->relative) && lex_expect(l, "or") && lex_string(l, &place->absolute);
    if (lex_accept(l, "input"))
        return lex_u32(l, &index) && (index < g->inputs.count || lex_fail(l, "no such input")) &&
               read_placement(l, p, g->inputs.at[index].value, &links->input[index]);
    if (lex_accept(l, "output"))
        return lex_u32(l, &index) && (index < g->outputs.count || lex_fail(l, "no such output")) &&
               read_placement(l, p, g->outputs.at[index].value, &links->output[index]);
    return lex_fail(l, "expected weights, input or output");
}

status links_parse(struct arena *arena, const char *name, const char *text, size_t length, const struct program *p,
                   struct diag *diag, struct links *links, struct plan_place *place)
{
    struct lexer l = lexer_over(arena, name, text, length, diag);
    uint32_t symbols = dims_symbol_count(p->graph->dims);
    *place = (struct plan_place){0};
    links->input = NEW_ARRAY(arena, const struct placement *, p->graph->inputs.count);
    links->output = NEW_ARRAY(arena, const struct placement *, p->graph->outputs.count);
    while (!lex_end(&l))
        if (!read_link(&l, p, links, place))
            return TPC_DATA;
    if (l.failed)
        return TPC_DATA;
    if (dims_symbol_count(p->graph->dims) != symbols)
        return diag_error(diag, TPC_DATA, name,
                          "an input or output has an extent in a symbol that the program does not know");
    return TPC_OK;
}
