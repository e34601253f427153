/* frontend/compile.c - the pipeline: plain calls, in order. Each stage's result is verified before the next sees it. */
#include "frontend/compile.h"
#include "frontend/read.h"

const char *const compile_passes[] = {"import", "simplify", "solve", "parallelize", "fuse", "schedule", NULL};

static void dump_graph(const struct compile_options *o, const char *pass, const struct graph *g, struct arena *arena)
{
    if (o->dump_after == NULL || strcmp(o->dump_after, pass) != 0) {
        return;
    }
    struct text t = {.arena = arena};
    graph_print(g, &t);
    fwrite(t.at, 1, t.length, o->dump_to);
}

static void dump_program(const struct compile_options *o, const char *pass, const struct program *p,
                         struct arena *arena)
{
    if (o->dump_after == NULL || strcmp(o->dump_after, pass) != 0) {
        return;
    }
    struct text t = {.arena = arena};
    program_print(p, &t);
    fwrite(t.at, 1, t.length, o->dump_to);
}

static void dump_solution(const struct compile_options *o, const struct graph *g, const struct solution *s,
                          struct arena *arena)
{
    if (o->dump_after == NULL || strcmp(o->dump_after, "solve") != 0) {
        return;
    }
    struct text t = {.arena = arena};
    for (value v = 1; v < g->nodes.count; v++) {
        text_printf(&t, "%%%u %s ", v, op_info(graph_node(g, v)->op)->text);
        placement_print(g, s->result[v], &t);
        for (uint32_t i = 0; i < graph_node(g, v)->operand_count; i++) {
            value a = graph_node(g, v)->operand[i];
            if (!placement_equal(s->operand[v][i], s->result[a])) {
                text_printf(&t, " (%%%u as ", a);
                placement_print(g, s->operand[v][i], &t);
                text_put(&t, ")");
            }
        }
        text_put(&t, "\n");
    }
    for (uint32_t i = 1; i < g->partitions.count; i++) {
        const struct partition *p = &g->partitions.at[i];
        text_printf(&t, "s:%u is %s over ", i, dim_text(g->dims, p->extent, arena));
        mesh_print_subaxes(&g->mesh, p->subaxes, &t);
        for (uint32_t k = 0; p->offset != NULL && k < p->parts; k++) {
            text_printf(&t, "%s%lld", k ? ", " : ": ", (long long)(p->offset[k + 1] - p->offset[k]));
        }
        text_put(&t, "\n");
    }
    fwrite(t.at, 1, t.length, o->dump_to);
}

/* Every named value that is no output yet becomes one, so that runs can be compared value by value. */
static void expose_values(struct graph *g)
{
    bool *is_output = NEW_ARRAY(g->arena, bool, g->nodes.count);
    for (uint32_t i = 0; i < g->outputs.count; i++) {
        is_output[g->outputs.at[i].value] = true;
    }
    for (value v = 1; v < g->nodes.count; v++) {
        const struct node *n = graph_node(g, v);
        if (n->name != NULL && !is_output[v] && op_info(n->op)->class != CLASS_LEAF) {
            graph_output(g, n->name, v);
        }
    }
}

status compile_graph(struct arena *arena, struct graph *graph, const struct compile_options *o, struct diag *diag,
                     struct compiled *out)
{
    status s = graph_verify(graph, "import", diag);
    if (s != TPC_OK) {
        return s;
    }
    dump_graph(o, "import", graph, arena);
    if ((s = simplify(arena, graph, diag, &out->graph)) != TPC_OK ||
        (s = graph_verify(out->graph, "simplify", diag)) != TPC_OK) {
        return s;
    }
    dump_graph(o, "simplify", out->graph, arena);
    if (o->every_value) {
        expose_values(out->graph);
    }
    struct solve_options solving = {.ranks = o->ranks,
                                    .axis_count = o->axis_count,
                                    .axis = o->axis,
                                    .sequence = o->sequence,
                                    .machine = o->machine,
                                    .objective = o->objective,
                                    .nominal_count = o->nominal_count,
                                    .nominal = o->nominal,
                                    .byte_price = o->byte_price,
                                    .even = o->even,
                                    .prices = o->prices};
    out->machine = o->machine != NULL ? o->machine : machine_default();
    out->objective = o->objective;
    out->memory_budget = 0;
    if ((s = steer_pins(arena, out->graph, &solving, o->steering, diag)) != TPC_OK ||
        (s = annotation_pins(arena, out->graph, &solving, o->annotations, diag)) != TPC_OK ||
        (s = state_pins(arena, out->graph, &solving, o->state_from, diag)) != TPC_OK ||
        (s = solve(out->graph, &solving, arena, diag, &out->solution)) != TPC_OK ||
        (s = state_agree(arena, out->graph, out->solution, o->state_from, diag)) != TPC_OK) {
        return s;
    }
    dump_solution(o, out->graph, out->solution, arena);
    out->tp_plan = steer_print_plan(arena, out->graph, out->solution, o->steering);
    struct graph *split = NULL;
    if ((s = parallelize(arena, out->graph, out->solution, diag, &split)) != TPC_OK) {
        return s;
    }
    dump_graph(o, "parallelize", split, arena);
    if ((s = graph_verify(split, "parallelize", diag)) != TPC_OK ||
        (s = check(arena, out->graph, split, out->solution, diag)) != TPC_OK) {
        return s;
    }
    if ((s = fuse(arena, split, diag, &out->program)) != TPC_OK) {
        return s;
    }
    dump_program(o, "fuse", out->program, arena);
    if ((s = schedule(out->program, diag)) != TPC_OK || (s = program_verify(out->program, diag)) != TPC_OK) {
        return s;
    }
    dump_program(o, "schedule", out->program, arena);
    return TPC_OK;
}

/* A Graph in text form: what --dump-after import printed, or what a test wrote. */
static status read_text(struct arena *arena, const char *path, struct diag *diag, struct graph **out)
{
    enum { LIMIT = 64 << 20 };
    struct text t = {.arena = arena};
    status s = read_small_file(path, LIMIT, "a Graph's text", diag, &t);
    if (s != TPC_OK) {
        return s;
    }
    return graph_parse(arena, path, t.at == NULL ? "" : t.at, t.length, diag, out);
}

status compile_model(struct arena *arena, const char *path, const struct compile_options *o, struct diag *diag,
                     struct compiled *out)
{
    struct graph *graph = NULL;
    size_t n = strlen(path);
    bool text = n > 4 && strcmp(path + n - 4, ".tpc") == 0;
    status s = text ? read_text(arena, path, diag, &graph) : onnx_import(arena, path, &o->import, diag, &graph);
    struct compile_options with = *o;
    struct annotations annotations = {0};
    if (s == TPC_OK && o->use_annotations) {
        with.annotations = &annotations;
        s = onnx_read_annotations(arena, path, o->ranks, diag, &annotations);
    }
    return s != TPC_OK ? s : compile_graph(arena, graph, &with, diag, out);
}
