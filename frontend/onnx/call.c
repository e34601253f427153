/* frontend/onnx/call.c - running one node: its inputs, its lowering or function, its outputs; and what lowerings ask and say.
 *
 * Start reading at call_run.
 */
#include "frontend/onnx/import.h"

enum { CALL_DEPTH = 32, CALL_LIMIT = 4000000 };

/* ---- leaving ------------------------------------------------------------------------------------------------ */

void call_leave(struct call *c, status failure)
{
    c->failure = failure;
    longjmp(c->leave, 1);
}

void call_fail(struct call *c, const char *format, ...)
{
    va_list args;
    char line[900];
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    call_leave(c, diag_error(c->im->diag, TPC_DATA, c->where, "%s", line));
}

static const char *plain_domain(const char *domain)
{
    return !domain || strcmp(domain, "ai.onnx") == 0 ? "" : domain;
}

void call_unsupported(struct call *c, const char *format, ...)
{
    va_list args;
    char line[900];
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    missing_add(c->im, plain_domain(c->proto->domain), c->proto->op_type, c->version, line, c->where);
    call_leave(c, TPC_UNSUPPORTED);
}

/* ---- inputs ------------------------------------------------------------------------------------------------- */

bool call_has(const struct call *c, uint32_t i)
{
    return i < c->in_count && c->in[i] != 0;
}

struct datum *call_in(struct call *c, uint32_t i)
{
    if (!call_has(c, i))
        call_fail(c, "input %u is missing", i);
    return c->im->data.at[c->in[i]];
}

value call_use(struct call *c, uint32_t i)
{
    struct datum *d = call_in(c, i);
    if (d->node)
        return d->node;
    graph_set_origin(c->g, d->origin ? d->origin : c->origin);
    value v = datum_use(c->im, c->in[i]);
    graph_set_origin(c->g, c->origin);
    return v;
}

value call_use_as(struct call *c, uint32_t i, dtype type)
{
    return graph_cast(c->g, call_use(c, i), type);
}

const dim *call_dims(struct call *c, uint32_t i, uint32_t *count)
{
    const struct datum *d = call_in(c, i);
    bool known = d->content && d->rank <= 1;
    int64_t extent = 1;
    if (known && d->rank == 1)
        known = axis_enumerated(&c->im->s, d->shape[0], &extent);
    for (uint32_t k = 0; known && k < d->content->count; k++)
        known = d->content->at[k]->op == FORMULA_DIM;
    if (!known)
        call_unsupported(c, "input %u decides a shape, but depends on the numbers of an input (as '%s' does)", i,
                         d->name ? d->name : "");
    dim *out = NEW_ARRAY(c->im->scratch, dim, d->content->count);
    for (uint32_t k = 0; k < d->content->count; k++)
        out[k] = d->content->at[k]->d;
    *count = d->content->count;
    return out;
}

dim call_dim(struct call *c, uint32_t i)
{
    uint32_t count = 0;
    const dim *d = call_dims(c, i, &count);
    if (count != 1)
        call_fail(c, "input %u has %u elements, one is expected", i, count);
    return d[0];
}

const int64_t *call_ints(struct call *c, uint32_t i, uint32_t *count)
{
    const dim *d = call_dims(c, i, count);
    int64_t *out = NEW_ARRAY(c->im->scratch, int64_t, *count);
    for (uint32_t k = 0; k < *count; k++)
        if (!dim_is_const(c->t, d[k], &out[k]))
            call_unsupported(c, "input %u must be constant, it is %s", i, dim_text(c->t, d[k], c->im->scratch));
    return out;
}

int64_t call_int(struct call *c, uint32_t i)
{
    uint32_t count = 0;
    const int64_t *x = call_ints(c, i, &count);
    if (count != 1)
        call_fail(c, "input %u has %u elements, one is expected", i, count);
    return x[0];
}

bool call_reals(struct call *c, uint32_t i, const double **out, uint32_t *count)
{
    const struct datum *d = call_in(c, i);
    const struct stored *t = d->stored;
    if (d->content) {
        double *x = NEW_ARRAY(c->im->scratch, double, d->content->count);
        *count = d->content->count;
        *out = x;
        for (uint32_t k = 0; k < *count; k++)
            if (!formula_constant(&c->im->s, d->content->at[k], &x[k]))
                return false;
        return true;
    }
    if (!t || !t->bytes || t->count > CONTENT_COUNT)
        return false;
    const void *aligned = stored_elements(c->im->scratch, t);
    double *x = NEW_ARRAY(c->im->scratch, double, t->count);
    for (int64_t k = 0; k < t->count; k++)
        x[k] = dtype_load_f64(t->dtype, aligned, (size_t)k);
    *count = (uint32_t)t->count;
    *out = x;
    return true;
}

bool call_real(struct call *c, uint32_t i, double *out)
{
    const double *x = NULL;
    uint32_t count = 0;
    if (!call_has(c, i) || !call_reals(c, i, &x, &count) || count != 1)
        return false;
    for (uint32_t k = 0; k < call_in(c, i)->rank; k++) /* not one element for all of a symbolic axis */
        if (!dim_is(c->t, call_in(c, i)->shape[k], 1))
            return false;
    *out = x[0];
    return true;
}

/* ---- outputs ------------------------------------------------------------------------------------------------ */

bool call_wants(const struct call *c, uint32_t i)
{
    return i < c->out_count && *c->proto->output[i];
}

static struct datum *new_output(struct call *c, uint32_t i)
{
    uint32_t index = 0;
    struct datum *d = datum_add(c->im, &index);
    d->origin = c->origin;
    d->name = *c->frame->prefix ? arena_printf(c->im->scratch, "%s%s", c->frame->prefix, c->proto->output[i])
                                : c->proto->output[i];
    c->out[i] = index;
    return d;
}

void call_set(struct call *c, uint32_t i, value v)
{
    if (!call_wants(c, i))
        return;
    struct datum *d = new_output(c, i);
    struct node *n = &c->g->nodes.at[v];
    d->dtype = n->dtype;
    d->rank = n->rank;
    d->shape = n->shape;
    d->node = v;
    if (!n->name && n->origin == c->origin)
        n->name = arena_strdup(c->im->arena, d->name);
}

void call_set_alias(struct call *c, uint32_t i, uint32_t input)
{
    if (call_wants(c, i))
        c->out[i] = c->in[input];
}

void call_set_content(struct call *c, uint32_t i, dtype type, uint32_t rank, const dim *shape,
                      const struct content *content)
{
    if (!call_wants(c, i))
        return;
    struct datum *d = new_output(c, i);
    d->dtype = type;
    d->rank = rank;
    d->shape = arena_copy(c->im->scratch, shape, rank * sizeof *shape);
    d->content = content;
}

struct moved_context {
    struct call *c;
    const struct datum *from;
    index_map map;
    void *context;
};
static const struct formula *moved_element(void *context, const dim *index)
{
    const struct moved_context *m = context;
    dim source[MAX_RANK];
    if (!m->map(m->context, index, source))
        return NULL;
    return content_at(&m->c->im->s, m->from->content, m->from->rank, m->from->shape, source);
}

bool call_set_moved(struct call *c, uint32_t i, uint32_t from, uint32_t rank, const dim *shape, index_map map,
                    void *context)
{
    const struct datum *d = call_in(c, from);
    struct moved_context m = {c, d, map, context};
    const struct content *content = d->content ? content_make(&c->im->s, rank, shape, moved_element, &m) : NULL;
    if (content)
        call_set_content(c, i, d->dtype, rank, shape, content);
    return content != NULL;
}

/* ---- extents ------------------------------------------------------------------------------------------------ */

uint32_t call_axis(struct call *c, int64_t axis, uint32_t rank)
{
    int64_t a = axis < 0 ? axis + rank : axis;
    if (a < 0 || a >= rank)
        call_fail(c, "axis %lld is outside a value of %u axes", (long long)axis, rank);
    return (uint32_t)a;
}

static void sync_inputs(struct call *c)
{
    for (uint32_t i = 0; i < c->in_count; i++)
        if (c->in[i])
            datum_sync(c->im, c->im->data.at[c->in[i]]);
}

static void agree_once(struct call *c, dim a, dim b, const char *what)
{
    struct dims *t = c->t;
    const char *why = arena_printf(c->im->arena, "%s: %s", c->proto->op_type, what);
    if (!graph_guard(c->g, a, b, why))
        call_fail(c, "%s differ: %s and %s", what, dim_text(t, a, c->im->scratch), dim_text(t, b, c->im->scratch));
    graph_resolve(c->g);
    c->im->epoch++;
    sync_inputs(c);
}

struct renaming {
    uint32_t count;
    uint32_t from[MAX_RANK];
    dim to[MAX_RANK];
};
static dim renamed(void *context, uint32_t symbol)
{
    const struct renaming *r = context;
    for (uint32_t i = 0; i < r->count; i++)
        if (r->from[i] == symbol)
            return r->to[i];
    return DIM_NONE;
}

/* Expressions that are the same but for the names of symbols ([batch * sequence] of logits and of labels): equal name by name. */
static void agree_names(struct call *c, dim a, dim b, const char *what)
{
    struct dims *t = c->t;
    struct renaming r = {.count = 0};
    uint32_t other = 0;
    for (uint32_t s = 0; s < dims_symbol_count(t); s++) {
        if (dim_uses_symbol(t, a, s) && r.count < MAX_RANK)
            r.from[r.count++] = s;
        if (dim_uses_symbol(t, b, s) && other < MAX_RANK)
            r.to[other++] = dim_of_symbol(t, s);
    }
    if (other != r.count || r.count < 2 || dim_substitute(t, a, renamed, &r) != b)
        return;
    for (uint32_t i = 0; i < r.count; i++) {
        dim left = dim_resolve(t, dim_of_symbol(t, r.from[i])), right = dim_resolve(t, r.to[i]);
        if (left != right)
            agree_once(c, left, right, what);
    }
}

dim call_agree(struct call *c, dim a, dim b, const char *what)
{
    a = dim_resolve(c->t, a);
    b = dim_resolve(c->t, b);
    if (a != b)
        agree_names(c, a, b, what);
    a = dim_resolve(c->t, a);
    b = dim_resolve(c->t, b);
    if (a != b)
        agree_once(c, a, b, what);
    return dim_resolve(c->t, a);
}

static bool at_most_one(struct call *c, dim d)
{
    return dim_upper(c->t, d) == 1;
}

/* An extent of at most 1, as a slice [max(1 - s, 0):] has, stands beside a longer one to be broadcast. */
static dim broadcast_one(struct call *c, dim one, dim other)
{
    (void)call_agree(c, one, call_const(c, 1), "extent of an operand");
    return dim_resolve(c->t, other);
}

uint32_t call_broadcast(struct call *c, uint32_t rank, dim *shape, uint32_t other_rank, const dim *other)
{
    uint32_t result = rank > other_rank ? rank : other_rank;
    dim copy[MAX_RANK];
    dims_copy(copy, shape, rank);
    for (uint32_t k = 0; k < result; k++) { /* from the last axis on */
        dim a = k < rank ? dim_resolve(c->t, copy[rank - 1 - k]) : call_const(c, 1);
        dim b = k < other_rank ? dim_resolve(c->t, other[other_rank - 1 - k]) : call_const(c, 1);
        dim *out = &shape[result - 1 - k];
        if (dim_is(c->t, a, 1))
            *out = b;
        else if (dim_is(c->t, b, 1))
            *out = a;
        else if (a != b && at_most_one(c, a) != at_most_one(c, b))
            *out = at_most_one(c, a) ? broadcast_one(c, a, b) : broadcast_one(c, b, a);
        else
            *out = call_agree(c, a, b, "extents of operands");
    }
    for (uint32_t k = 0; k < result; k++)
        shape[k] = dim_resolve(c->t, shape[k]);
    return result;
}

dim call_product(struct call *c, const dim *shape, uint32_t from, uint32_t to)
{
    return from < to ? dim_product(c->t, shape + from, to - from) : call_const(c, 1);
}

dim call_const(struct call *c, int64_t x)
{
    return dim_const(c->t, x);
}

/* ---- functions and subgraphs -------------------------------------------------------------------------------- */

static void check_depth(struct call *c)
{
    if (c->frame->depth >= CALL_DEPTH)
        call_fail(c, "functions and subgraphs nest too deeply (limit is %d)", CALL_DEPTH);
}

static const char *inner_prefix(struct call *c)
{
    const char *name = c->proto->name && *c->proto->name ? c->proto->name : c->proto->op_type;
    return arena_printf(c->im->scratch, "%s%s/", c->frame->prefix, name);
}

static void take_outputs(struct call *c, const struct scope *scope, size_t count, const char *const *name)
{
    for (uint32_t i = 0; i < c->out_count; i++) {
        if (!call_wants(c, i))
            continue;
        c->out[i] = i < count ? scope_find(scope, name[i]) : 0;
        if (!c->out[i])
            call_fail(c, "its body does not compute output %u", i);
    }
}

void call_subgraph(struct call *c, const Onnx__GraphProto *graph)
{
    struct importer *im = c->im;
    struct scope *scope = NEW(im->scratch, struct scope);
    struct frame frame = *c->frame;
    const char **goal = NEW_ARRAY(im->scratch, const char *, graph->n_output);
    check_depth(c);
    scope->names.arena = im->scratch;
    scope->outer = c->frame->scope;
    frame.scope = scope;
    frame.depth++;
    frame.index = c->index;
    frame.prefix = inner_prefix(c);
    for (size_t i = 0; i < graph->n_output; i++)
        goal[i] = graph->output[i]->name ? graph->output[i]->name : "";
    status s = scope_tensors(im, scope, graph);
    if (s == TPC_OK)
        s = scope_nodes(im, &frame, graph->n_node, graph->node, graph->n_output, goal);
    if (s != TPC_OK)
        call_leave(c, s);
    take_outputs(c, scope, graph->n_output, goal);
}

/* The call's attributes as the body sees them: references into the outer function followed, under their own names. */
static void bind_attributes(struct call *c, struct frame *frame)
{
    Onnx__AttributeProto **list = NEW_ARRAY(c->im->scratch, Onnx__AttributeProto *, c->proto->n_attribute);
    frame->attribute_count = 0;
    for (size_t i = 0; i < c->proto->n_attribute; i++) {
        const char *name = c->proto->attribute[i]->name ? c->proto->attribute[i]->name : "";
        const Onnx__AttributeProto *a = attribute(c, name);
        if (!a)
            continue;
        Onnx__AttributeProto *copy = arena_copy(c->im->scratch, a, sizeof *a);
        copy->name = c->proto->attribute[i]->name;
        list[frame->attribute_count++] = copy;
    }
    frame->attribute = list;
}

static void call_function(struct call *c, const Onnx__FunctionProto *f)
{
    struct importer *im = c->im;
    struct scope *scope = NEW(im->scratch, struct scope);
    struct frame frame = {.scope = scope, .depth = c->frame->depth + 1, .index = c->index, .prefix = inner_prefix(c)};
    check_depth(c);
    if (c->in_count > f->n_input)
        call_fail(c, "has %u inputs, its function takes %zu", c->in_count, f->n_input);
    scope->names.arena = im->scratch;
    frame.opset = f->opset_import;
    frame.opset_count = f->n_opset_import;
    frame.defaults = f->attribute_proto;
    frame.default_count = f->n_attribute_proto;
    bind_attributes(c, &frame);
    status s = TPC_OK;
    for (size_t i = 0; i < f->n_input && s == TPC_OK; i++)
        s = scope_define(im, scope, f->input[i], i < c->in_count && c->in[i] ? c->in[i] : ABSENT);
    if (s == TPC_OK)
        s = scope_nodes(im, &frame, f->n_node, f->node, f->n_output, (const char *const *)f->output);
    if (s != TPC_OK)
        call_leave(c, s);
    take_outputs(c, scope, f->n_output, (const char *const *)f->output);
}

static const Onnx__FunctionProto *find_function(const struct importer *im, const char *domain, const Onnx__NodeProto *p)
{
    if (im->functions.count == 0)
        return NULL;
    const char *key = arena_printf(im->scratch, "%s/%s/%s", domain, p->op_type, p->overload ? p->overload : "");
    const uint32_t *at = map_find(&im->functions, key, strlen(key));
    return at ? im->model->functions[*at - 1] : NULL;
}

/* ---- one node ----------------------------------------------------------------------------------------------- */

static status find_inputs(struct call *c, bool *poison)
{
    struct importer *im = c->im;
    c->in_count = (uint32_t)c->proto->n_input;
    c->in = NEW_ARRAY(im->scratch, uint32_t, c->in_count);
    for (uint32_t i = 0; i < c->in_count; i++) {
        const char *name = c->proto->input[i];
        if (!*name)
            continue;
        uint32_t index = scope_find(c->frame->scope, name);
        if (!index)
            return diag_error(im->diag, TPC_DATA, c->where,
                              "input '%s' is not defined by any node, input or initializer", name);
        if (index == ABSENT)
            continue;
        struct datum *d = im->data.at[index];
        c->in[i] = index;
        if (d->pending) {
            struct stored *t = NEW(im->scratch, struct stored);
            status s = stored_read(im, c->where, d->pending, t);
            if (s != TPC_OK)
                return s;
            d->pending = NULL;
            datum_from_stored(im, d, t, true);
        }
        datum_sync(im, d);
        *poison = *poison || d->poison;
    }
    return TPC_OK;
}

static status find_version(struct call *c, const char *domain)
{
    for (size_t i = 0; i < c->frame->opset_count; i++)
        if (strcmp(plain_domain(c->frame->opset[i]->domain), domain) == 0) {
            c->version = c->frame->opset[i]->version;
            return TPC_OK;
        }
    return diag_error(c->im->diag, TPC_DATA, c->where, "the model imports no operator set of domain '%s'",
                      *domain ? domain : "ai.onnx");
}

/* Outputs of what is not supported: uses of them are passed over in silence, for the cause is noted. */
static void poison_outputs(struct call *c)
{
    for (uint32_t i = 0; i < c->out_count; i++)
        if (call_wants(c, i))
            new_output(c, i)->poison = true;
}

static void lower_now(struct call *c, const struct operator_row *row, const Onnx__FunctionProto *function)
{
    graph_set_origin(c->g, c->origin);
    if (function)
        call_function(c, function);
    else
        row->lower(c);
    for (uint32_t i = 0; i < c->out_count; i++)
        if (call_wants(c, i) && !c->out[i])
            call_unsupported(c, "output %u is not available", i);
}

/* What the rules of core operations refuse, a lowering has not looked at: the file's types or shapes do not fit. */
void call_refuse(void *importer, const char *why)
{
    struct call *c = ((struct importer *)importer)->current;
    if (c)
        call_fail(c, "types or shapes do not fit (%s)", why);
}

static status run_lowering(struct call *c, const struct operator_row *row, const Onnx__FunctionProto *function)
{
    struct call *outer = c->im->current;
    c->im->current = c;
    c->failure = TPC_OK;
    if (setjmp(c->leave) == 0)
        lower_now(c, row, function);
    c->im->current = outer;
    return c->failure;
}

static status define_outputs(struct call *c)
{
    status s = TPC_OK;
    for (uint32_t i = 0; i < c->out_count && s == TPC_OK; i++)
        if (call_wants(c, i))
            s = scope_define(c->im, c->frame->scope, c->proto->output[i], c->out[i]);
    return s;
}

/* The module path that some exporters note with each node: of "['', 'a', 'a.b', 'linear']" the last but one. NULL when there is none. */
static const char *module_scope(const struct call *c)
{
    const char *list = NULL, *last = NULL, *before = NULL;
    size_t length = 0, before_length = 0;
    for (size_t i = 0; i < c->proto->n_metadata_props; i++) {
        const Onnx__StringStringEntryProto *e = c->proto->metadata_props[i];
        if (e->key && e->value && strcmp(e->key, "pkg.torch.onnx.name_scopes") == 0)
            list = e->value;
    }
    for (const char *at = list ? strchr(list, '\'') : NULL; at; at = strchr(at, '\'')) {
        const char *end = strchr(at + 1, '\'');
        if (!end)
            break;
        before = last, before_length = length;
        last = at + 1, length = (size_t)(end - last);
        at = end + 1;
    }
    return before && before_length ? arena_strndup(c->im->arena, before, before_length) : NULL;
}

static void describe(struct call *c, const char *domain)
{
    struct importer *im = c->im;
    const char *name = c->proto->name ? c->proto->name : "";
    const char *type = *domain ? arena_printf(im->arena, "%s.%s", domain, c->proto->op_type)
                               : arena_strdup(im->arena, c->proto->op_type);
    name = arena_printf(im->arena, "%s%s", c->frame->prefix, name);
    c->origin = graph_add_origin(im->g, im->g->model_path, c->index, name, type);
    im->g->origins.at[c->origin].scope = module_scope(c);
    c->where = origin_text(im->g, c->origin, im->scratch);
}

status call_run(struct importer *im, const struct frame *frame, const Onnx__NodeProto *proto, int64_t index)
{
    struct call *c = NEW(im->scratch, struct call);
    const char *domain = plain_domain(proto->domain);
    bool poison = false;
    if (!proto->op_type || ++im->calls > CALL_LIMIT)
        return diag_error(im->diag, TPC_DATA, im->path,
                          proto->op_type ? "too many nodes once functions are inlined (limit is %d)"
                                         : "a node has no op_type (limit is %d names)",
                          CALL_LIMIT);
    *c = (struct call){.im = im, .g = im->g, .t = im->t, .frame = frame, .proto = proto, .index = index};
    describe(c, domain);
    c->out_count = (uint32_t)proto->n_output;
    c->out = NEW_ARRAY(im->scratch, uint32_t, c->out_count);
    const Onnx__FunctionProto *function = find_function(im, domain, proto);
    status s = find_version(c, domain);
    const struct operator_row *row = s == TPC_OK ? operator_find(domain, proto->op_type, c->version) : NULL;
    if (s == TPC_OK)
        s = find_inputs(c, &poison);
    if (s != TPC_OK)
        return s;
    if (!row && !function) {
        missing_add(im, domain, proto->op_type, c->version, "", c->where);
        poison = true;
    }
    if (row)
        c->argument = row->argument;
    s = poison ? TPC_UNSUPPORTED : run_lowering(c, row, function);
    if (s == TPC_UNSUPPORTED && im->missing.count > 0) { /* noted, or a consequence of what is */
        poison_outputs(c);
        s = TPC_OK;
    }
    return s == TPC_OK ? define_outputs(c) : s;
}
