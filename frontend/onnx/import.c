/* frontend/onnx/import.c - onnx_import: a model file becomes a Graph.
 *
 * The way: map the file, walk its bytes (wire.c), unpack what remains of them, give names to inputs and initializers, lower the nodes that the
 * outputs need (scope.c, call.c, lower_*.c), find the state pairs. Start reading at import_model.
 */
#include "frontend/onnx/import.h"

#include <stdlib.h>

enum { NEWEST_IR = 14 };

/* ---- symbols ------------------------------------------------------------------------------------------------ */

/* A symbol's name from what a file or the user calls it: letters, digits, '_'; none that dims use for themselves. */
static const char *symbol_name(struct importer *im, const char *text)
{
    char *name = arena_printf(im->arena, "%s%s", text[0] >= '0' && text[0] <= '9' ? "_" : "", *text ? text : "_");
    size_t digits = name[0] == 'c' ? strspn(name + 1, "0123456789") : 0;
    bool reserved = (digits > 0 && name[1 + digits] == 0) || strcmp(name, "rank") == 0 || strcmp(name, "max") == 0 ||
                    strcmp(name, "min") == 0 || strcmp(name, "mod") == 0 || strcmp(name, "ceildiv") == 0;
    for (char *p = name; *p; p++) {
        bool letter = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') || *p == '_';
        if (!letter)
            *p = '_';
    }
    return reserved ? arena_printf(im->arena, "%s_", name) : name;
}

static bool plain_identifier(const char *text)
{
    if (!*text || (*text >= '0' && *text <= '9'))
        return false;
    for (; *text; text++) {
        char ch = *text;
        if (!((ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9') || ch == '_'))
            return false;
    }
    return true;
}

/* Every name in an expression that no axis of an input has as its own would stay unknown at run time. */
static bool all_names_bound(const struct map *bound, const char *text)
{
    static const char *const functions[] = {"max", "min",   "mod",     "Max",     "Min",
                                            "Mod", "floor", "ceiling", "ceildiv", "ceil"};
    while (*text) {
        size_t n = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789");
        bool name = n > 0 && !(*text >= '0' && *text <= '9'), known = !name || map_find(bound, text, n) != NULL;
        for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
            known = known || (strlen(functions[i]) == n && memcmp(functions[i], text, n) == 0);
        if (!known)
            return false;
        text += n ? n : 1;
    }
    return true;
}

static dim input_dim(struct importer *im, const struct map *bound, const Onnx__TensorShapeProto__Dimension *d,
                     const char *input, uint32_t axis)
{
    const char *text = d->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM ? d->dim_param : "";
    if (d->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE && d->dim_value >= 0)
        return dim_const(im->t, d->dim_value);
    if (!*text || strcmp(text, "?") == 0)
        return dim_symbol(im->t, symbol_name(im, arena_printf(im->scratch, "%s_%u", input, axis)));
    if (!plain_identifier(text) && all_names_bound(bound, text)) {
        const char *cursor = text, *end = text + strlen(text);
        dim parsed = dim_parse(im->t, &cursor, end);
        while (cursor < end && (*cursor == ' ' || *cursor == '\t'))
            cursor++;
        if (dim_valid(parsed) && cursor == end)
            return parsed;
    }
    return dim_symbol(im->t, symbol_name(im, text));
}

static status fix_symbols(struct importer *im)
{
    const struct import_options *o = im->options;
    for (uint32_t i = 0; o && i < o->symbol_count; i++) {
        const char *name = symbol_name(im, o->symbol[i].name);
        struct text known = {.arena = im->scratch};
        bool found = false;
        for (uint32_t k = 0; k < dims_symbol_count(im->t); k++) {
            const struct symbol *s = dims_symbol(im->t, k);
            if (s->kind != SYMBOL_INPUT)
                continue;
            found = found || strcmp(s->name, name) == 0;
            text_printf(&known, "%s%s", known.length ? ", " : "", s->name);
        }
        if (!found)
            return diag_error(im->diag, TPC_USAGE, im->path, "--set %s: no input has such a dimension (there are: %s)",
                              o->symbol[i].name, known.at ? known.at : "none");
        if (o->symbol[i].value < 0 ||
            !dim_assume_equal(im->t, dim_symbol(im->t, name), dim_const(im->t, o->symbol[i].value)))
            return diag_error(im->diag, TPC_USAGE, im->path, "--set %s=%lld: the dimension cannot have that value",
                              o->symbol[i].name, (long long)o->symbol[i].value);
    }
    graph_resolve(im->g);
    im->epoch++;
    return TPC_OK;
}

/* ---- inputs ------------------------------------------------------------------------------------------------- */

static const struct import_binding *binding_of(const struct importer *im, const char *name)
{
    const struct import_options *o = im->options;
    for (uint32_t i = 0; o && i < o->binding_count; i++)
        if (strcmp(o->binding[i].name, name) == 0)
            return &o->binding[i];
    return NULL;
}

static const struct formula *parse_binding(struct importer *im, const char *text)
{
    char *number_end = NULL;
    double x = strtod(text, &number_end);
    const char *cursor = text, *end = text + strlen(text);
    if (strcmp(text, "true") == 0 || strcmp(text, "false") == 0)
        return formula_int(&im->s, *text == 't');
    if (*text && !*number_end)
        return formula_real(&im->s, x);
    dim d = dim_parse(im->t, &cursor, end);
    return cursor == end ? formula_dim(&im->s, d) : NULL;
}

/* Whether an input has a dimension of this name. */
static bool names_dimension(const Onnx__GraphProto *graph, const char *name)
{
    for (size_t i = 0; i < graph->n_input; i++) {
        const Onnx__TypeProto *type = graph->input[i]->type;
        bool tensor = type && type->value_case == ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE && type->tensor_type->shape;
        for (size_t k = 0; tensor && k < type->tensor_type->shape->n_dim; k++) {
            const Onnx__TensorShapeProto__Dimension *d = type->tensor_type->shape->dim[k];
            if (d->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM &&
                strcmp(d->dim_param, name) == 0)
                return true;
        }
    }
    return false;
}

/* A word that is no value and no dimension: a symbol that nothing at a run could give a value. */
static bool unknown_word(const Onnx__GraphProto *graph, const char *text)
{
    char *number_end = NULL;
    (void)strtod(text, &number_end);
    bool word = *text && text[strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")] == 0;
    return word && *number_end && strcmp(text, "true") != 0 && strcmp(text, "false") != 0 &&
           !names_dimension(graph, text);
}

static status check_bindings(struct importer *im, const Onnx__GraphProto *graph)
{
    const struct import_options *o = im->options;
    for (uint32_t i = 0; o && i < o->binding_count; i++) {
        struct text known = {.arena = im->scratch};
        bool found = false;
        for (size_t k = 0; k < graph->n_input; k++) {
            const char *name = graph->input[k]->name ? graph->input[k]->name : "";
            found = found || strcmp(name, o->binding[i].name) == 0;
            text_printf(&known, "%s%s", k ? ", " : "", name);
        }
        if (!found)
            return diag_error(im->diag, TPC_USAGE, im->path, "--bind %s: the model has no such input (there are: %s)",
                              o->binding[i].name, known.at ? known.at : "none");
        const char *text = o->binding[i].value;
        if (text && unknown_word(graph, text))
            return diag_error(im->diag, TPC_USAGE, im->path, "--bind %s=%s: not a number, true, false or dimension",
                              o->binding[i].name, text);
    }
    return TPC_OK;
}

/* The input d as a constant. A tensor's extents replace the declared ones, which must not contradict. */
static status bind_input(struct importer *im, struct datum *d, const struct import_binding *binding)
{
    const struct onnx_tensor *t = binding->tensor;
    d->bound = true;
    if (!t) {
        const struct formula *f = binding->value ? parse_binding(im, binding->value) : NULL;
        d->content = f ? content_uniform(&im->s, d->rank, d->shape, f) : NULL;
        if (d->content)
            return TPC_OK;
        return diag_error(im->diag, TPC_USAGE, im->path, "--bind %s=%s: not a number, true, false or dimension",
                          d->name, binding->value ? binding->value : "");
    }
    bool fits = t->dtype == d->dtype && t->rank == d->rank;
    for (uint32_t k = 0; fits && k < t->rank; k++)
        fits = dim_assume_equal(im->t, d->shape[k], dim_const(im->t, t->shape[k]));
    if (!fits)
        return diag_error(im->diag, TPC_USAGE, im->path, "--bind %s: the tensor has another type or shape", d->name);
    datum_from_stored(im, d, stored_from(im, t->dtype, t->rank, t->shape, t->bytes), false);
    return TPC_OK;
}

static status define_input(struct importer *im, struct scope *scope, const struct map *bound,
                           const Onnx__ValueInfoProto *input)
{
    const Onnx__TypeProto__Tensor *type =
        input->type && input->type->value_case == ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE ? input->type->tensor_type : NULL;
    const struct import_binding *binding = binding_of(im, input->name);
    dim shape[MAX_RANK];
    uint32_t index = 0;
    if (!type)
        return diag_error(im->diag, TPC_UNSUPPORTED, im->path, "input '%s' is not a tensor", input->name);
    dtype t = dtype_from_onnx(type->elem_type);
    if (t == DT_NONE)
        return diag_error(im->diag, TPC_UNSUPPORTED, im->path,
                          "input '%s' has element type %d (%s), which tpc does not have", input->name, type->elem_type,
                          dtype_missing_name(type->elem_type));
    if (!type->shape)
        return diag_error(im->diag, TPC_UNSUPPORTED, im->path, "input '%s' has no shape", input->name);
    if (type->shape->n_dim > MAX_RANK)
        return diag_error(im->diag, TPC_UNSUPPORTED, im->path, "input '%s' has %zu axes (limit is %d)", input->name,
                          type->shape->n_dim, MAX_RANK);
    uint32_t rank = (uint32_t)type->shape->n_dim;
    for (uint32_t k = 0; k < rank; k++)
        shape[k] = input_dim(im, bound, type->shape->dim[k], input->name, k);
    struct datum *d = datum_add(im, &index);
    d->dtype = t;
    d->rank = rank;
    d->shape = arena_copy(im->scratch, shape, rank * sizeof *shape);
    d->name = input->name;
    d->origin = graph_add_origin(im->g, im->g->model_path, -1, arena_strdup(im->arena, input->name), "input");
    graph_set_origin(im->g, d->origin);
    if (binding) {
        status result = bind_input(im, d, binding);
        if (result != TPC_OK)
            return result;
    } else {
        d->node = graph_input(im->g, arena_strdup(im->arena, input->name), t, rank, shape);
    }
    return scope_define(im, scope, input->name, index);
}

static status define_inputs(struct importer *im, struct scope *scope, const Onnx__GraphProto *graph)
{
    struct map bound = {.arena = im->scratch};
    status s = check_bindings(im, graph);
    for (size_t i = 0; i < graph->n_input; i++) {
        const Onnx__TypeProto *type = graph->input[i]->type;
        if (!type || type->value_case != ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE || !type->tensor_type->shape)
            continue;
        const Onnx__TensorShapeProto *shape = type->tensor_type->shape;
        for (size_t k = 0; k < shape->n_dim; k++)
            if (shape->dim[k]->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM &&
                plain_identifier(shape->dim[k]->dim_param))
                map_put(&bound, shape->dim[k]->dim_param, strlen(shape->dim[k]->dim_param), NULL);
    }
    for (size_t i = 0; i < graph->n_input && s == TPC_OK; i++) {
        const char *name = graph->input[i]->name;
        if (!name || !*name)
            s = diag_error(im->diag, TPC_DATA, im->path, "input %zu has no name", i);
        else if (!scope_find(scope, name)) /* an initializer among the inputs is not one */
            s = define_input(im, scope, &bound, graph->input[i]);
    }
    return s == TPC_OK ? fix_symbols(im) : s;
}

/* ---- outputs and states ------------------------------------------------------------------------------------- */

static status define_outputs(struct importer *im, const struct scope *scope, const Onnx__GraphProto *graph)
{
    for (size_t i = 0; i < graph->n_output; i++) {
        const char *name = graph->output[i]->name ? graph->output[i]->name : "";
        uint32_t index = scope_find(scope, name);
        if (!index)
            return diag_error(im->diag, TPC_DATA, im->path, "nothing computes output '%s'", name);
        struct datum *d = im->data.at[index];
        if (d->poison)
            continue;
        if (d->pending) {
            struct stored *t = NEW(im->scratch, struct stored);
            status s = stored_read(im, im->path, d->pending, t);
            if (s != TPC_OK)
                return s;
            d->pending = NULL;
            datum_from_stored(im, d, t, true);
        }
        datum_sync(im, d);
        if (!d->node && !d->stored && !d->content)
            return diag_error(im->diag, TPC_UNSUPPORTED, im->path, "the elements of output '%s' can no longer be told",
                              name);
        if (!d->origin)
            d->origin = graph_add_origin(im->g, im->g->model_path, -1, arena_strdup(im->arena, name), "output");
        graph_set_origin(im->g, d->origin);
        graph_output(im->g, arena_strdup(im->arena, name), datum_use(im, index));
    }
    return TPC_OK;
}

static bool input_number(const struct graph *g, value v, uint32_t *out)
{
    if (graph_node(g, v)->op != OP_INPUT)
        return false;
    *out = graph_node(g, v)->attribute.index;
    return true;
}

/* An output that is an input with new entries appended (concat) or written in (scatter). */
static void find_states(struct graph *g)
{
    bool *taken = NEW_ARRAY(g->arena, bool, g->inputs.count);
    for (uint32_t i = 0; i < g->outputs.count; i++) {
        const struct node *n = graph_node(g, g->outputs.at[i].value);
        uint32_t input = 0;
        if ((n->op != OP_CONCAT && n->op != OP_SCATTER) || n->operand_count < 2)
            continue;
        if (!input_number(g, n->operand[0], &input) || taken[input] || graph_node(g, n->operand[0])->rank != n->rank)
            continue;
        taken[input] = true;
        *PUSH(g->arena, &g->states) = (struct state){
            .input = input, .output = i, .axis = (uint32_t)n->attribute.axis, .appended = n->op == OP_CONCAT};
    }
}

/* Leaves out the origins that nothing came from (shapes and constants that were computed away). */
static void prune_origins(struct graph *g)
{
    uint32_t *number = NEW_ARRAY(g->arena, uint32_t, g->origins.count), count = 1;
    for (uint32_t v = 1; v < g->nodes.count; v++)
        number[g->nodes.at[v].origin] = 1;
    for (uint32_t i = 0; i < g->guards.count; i++)
        number[g->guards.at[i].origin] = 1;
    for (uint32_t i = 1; i < g->origins.count; i++) {
        if (!number[i])
            continue;
        g->origins.at[count] = g->origins.at[i];
        number[i] = count++;
    }
    number[0] = 0;
    for (uint32_t v = 1; v < g->nodes.count; v++)
        g->nodes.at[v].origin = number[g->nodes.at[v].origin];
    for (uint32_t i = 0; i < g->guards.count; i++)
        g->guards.at[i].origin = number[g->guards.at[i].origin];
    g->origins.count = count;
}

/* ---- the model ---------------------------------------------------------------------------------------------- */

static status note_model(struct importer *im, const struct wire_bytes *walked)
{
    const Onnx__ModelProto *m = im->model;
    struct graph *g = im->g;
    if (m->ir_version > NEWEST_IR)
        return diag_error(im->diag, TPC_UNSUPPORTED, im->path, "ONNX IR version %lld is newer than %d",
                          (long long)m->ir_version, NEWEST_IR);
    if (!m->graph)
        return diag_error(im->diag, TPC_DATA, im->path, "not an ONNX model: it has no graph");
    if (m->graph->n_node == 0 || m->graph->n_output == 0)
        return diag_error(im->diag, TPC_DATA, im->path, "the graph has no %s", m->graph->n_node ? "outputs" : "nodes");
    g->model_path = arena_strdup(im->arena, im->path);
    g->model_hash = hash_bytes(walked->at, walked->length, 0);
    g->ir_version = m->ir_version;
    for (size_t i = 0; i < m->n_opset_import; i++) {
        const char *domain = m->opset_import[i]->domain ? m->opset_import[i]->domain : "";
        *PUSH(im->arena, &g->opsets) = (struct opset){arena_strdup(im->arena, domain), m->opset_import[i]->version};
    }
    for (size_t i = 0; i < m->n_functions; i++) {
        const Onnx__FunctionProto *f = m->functions[i];
        const char *domain = f->domain && strcmp(f->domain, "ai.onnx") != 0 ? f->domain : "";
        const char *key =
            arena_printf(im->scratch, "%s/%s/%s", domain, f->name ? f->name : "", f->overload ? f->overload : "");
        *map_put(&im->functions, key, strlen(key), NULL) = (uint32_t)i + 1;
    }
    return TPC_OK;
}

static status import_graph(struct importer *im)
{
    const Onnx__GraphProto *graph = im->model->graph;
    struct scope *scope = NEW(im->scratch, struct scope);
    struct frame frame = {.scope = scope, .prefix = "", .index = -1};
    const char **goal = NEW_ARRAY(im->scratch, const char *, graph->n_output);
    uint32_t reserved = 0;
    scope->names.arena = im->scratch;
    frame.opset = im->model->opset_import;
    frame.opset_count = im->model->n_opset_import;
    datum_add(im, &reserved);
    datum_add(im, &reserved); /* ABSENT */
    for (size_t i = 0; i < graph->n_output; i++)
        goal[i] = graph->output[i]->name ? graph->output[i]->name : "";
    status s = scope_tensors(im, scope, graph);
    if (s == TPC_OK)
        s = define_inputs(im, scope, graph);
    if (s == TPC_OK)
        s = scope_nodes(im, &frame, graph->n_node, graph->node, graph->n_output, goal);
    if (s == TPC_OK)
        s = missing_report(im);
    if (s == TPC_OK)
        s = define_outputs(im, scope, graph);
    return s;
}

static status import_model(void *context)
{
    struct importer *im = context;
    struct wire_bytes walked = {NULL, 0};
    status s = wire_walk(im->scratch, im->path, WIRE_MODEL, im->bytes, im->length, im->diag, &walked);
    if (s != TPC_OK)
        return s;
    im->model = proto_unpack(im->scratch, &onnx__model_proto__descriptor, &walked);
    if (!im->model)
        return diag_error(im->diag, TPC_DATA, im->path, "not a readable ONNX file");
    im->g = graph_new(im->arena);
    im->t = im->g->dims;
    im->g->refuse = call_refuse;
    im->g->refuse_context = im;
    im->s = (struct symbolic){im->scratch, im->t};
    s = note_model(im, &walked);
    if (s == TPC_OK)
        s = import_graph(im);
    if (s != TPC_OK)
        return s;
    graph_resolve(im->g);
    find_states(im->g);
    prune_origins(im->g);
    im->g->refuse = NULL;
    im->g->refuse_context = NULL;
#ifndef NDEBUG
    s = graph_verify(im->g, "import", im->diag);
#endif
    return s;
}

static status map_and_import(void *context)
{
    struct importer *im = context;
    status s = file_map(im->scratch, im->diag, im->path, &im->bytes, &im->length);
    return s == TPC_OK ? import_model(im) : s;
}

struct setup {
    struct importer im;
    struct arena *arena;
    status (*body)(void *context);
};

static status import_guarded(void *context)
{
    struct setup *setup = context;
    struct importer *im = &setup->im;
    im->arena = setup->arena;
    im->scratch = arena_new_in(setup->arena);
    im->external.arena = im->scratch;
    im->functions.arena = im->scratch;
    im->model_file = NO_FILE;
    status s = setup->body(im);
    arena_free(im->scratch);
    return s;
}

status onnx_import(struct arena *arena, const char *path, const struct import_options *options, struct diag *diag,
                   struct graph **out)
{
    struct setup setup = {.arena = arena, .body = map_and_import};
    setup.im.path = path;
    setup.im.options = options;
    setup.im.diag = diag;
    setup.im.from_file = true;
    status s = guard_run(diag, import_guarded, &setup);
    *out = s == TPC_OK ? setup.im.g : NULL;
    return s;
}

status onnx_import_bytes(struct arena *arena, const char *path, const void *bytes, size_t length,
                         const struct import_options *options, struct diag *diag, struct graph **out)
{
    struct setup setup = {.arena = arena, .body = import_model};
    setup.im.path = path;
    setup.im.options = options;
    setup.im.diag = diag;
    setup.im.bytes = bytes;
    setup.im.length = length;
    status s = guard_run(diag, import_guarded, &setup);
    *out = s == TPC_OK ? setup.im.g : NULL;
    return s;
}
