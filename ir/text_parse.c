/* ir/text_parse.c - reads what text_print.c writes, and the same written by hand (tests): docs/text-form.md.
 *
 * The text is not trusted: sizes and numbers are checked as they are read, every node goes through the rules of its row before it is
 * added, and the whole is verified at the end. Start at graph_parse_statements.
 */
#include "ir/op_infer.h"
#include "ir/text_form.h"

enum { SHARD_ENTRIES_LIMIT = 1 << 24 };

struct reader {
    struct lexer *l;
    struct graph *g;
    struct map labels; /* of values */
    uint32_t sources;
    size_t shard_entries;  /* a few characters may stand for many */
    const char *statement; /* where the current one begins, for messages */
};

/* Reports at the beginning of the statement. */
#define FAIL(r, ...) ((r)->l->at = (r)->statement, lex_fail((r)->l, __VA_ARGS__))

/* "N =" that must be the next number of its table. */
static bool expect_index(struct reader *r, uint32_t expected)
{
    uint32_t index;
    if (!lex_u32(r->l, &index) || !lex_expect(r->l, "="))
        return false;
    return index == expected || FAIL(r, "number %u where %u is next", (unsigned)index, (unsigned)expected);
}

static bool word_u64(struct reader *r, const char *word, uint64_t *out)
{
    return lex_expect(r->l, word) && lex_u64(r->l, out);
}

/* ---- tables ---- */

static bool read_model(struct reader *r)
{
    uint64_t hash;
    int64_t version;
    if (!lex_string(r->l, &r->g->model_path) || !word_u64(r, "hash", &hash) || !lex_expect(r->l, "ir") ||
        !lex_i64(r->l, &version))
        return false;
    r->g->model_hash = hash;
    r->g->ir_version = version;
    return true;
}

static bool read_opset(struct reader *r)
{
    struct opset o;
    if (!lex_string(r->l, &o.domain) || !lex_i64(r->l, &o.version))
        return false;
    *PUSH(r->g->arena, &r->g->opsets) = o;
    return true;
}

static bool read_symbol(struct reader *r)
{
    dim d;
    int64_t lower = 0, upper = INT64_MAX;
    if (!lex_dim(r->l, r->g->dims, &d))
        return false;
    if (dim_get(r->g->dims, d).op != DIM_SYMBOL)
        return FAIL(r, "expected the name of a symbol");
    if (lex_accept(r->l, ">=") && !lex_i64(r->l, &lower))
        return false;
    if (lex_accept(r->l, "<=") && !lex_i64(r->l, &upper))
        return false;
    if (lower < 0 || upper < lower)
        return FAIL(r, "bounds of a symbol must be 0 <= lower <= upper");
    dims_bound_symbol(r->g->dims, dim_get(r->g->dims, d).symbol, lower, upper);
    return true;
}

static bool read_mesh(struct reader *r)
{
    struct mesh m = {0};
    uint64_t product = 1;
    if (!lex_u32(r->l, &m.ranks) || !lex_expect(r->l, "="))
        return false;
    while (lex_peek(r->l, "\"")) {
        if (m.count == MAX_SUBAXES)
            return FAIL(r, "more than %d sub-axes", MAX_SUBAXES);
        if (!lex_string(r->l, &m.axis[m.count]) || !lex_u32(r->l, &m.size[m.count]))
            return false;
        product *= m.size[m.count++];
        if (product == 0 || product > MAX_RANKS)
            break;
    }
    if (m.ranks < 1 || m.ranks > MAX_RANKS || product != m.ranks || r->g->mesh.ranks)
        return FAIL(r, "%u ranks in a mesh whose sub-axes make %llu", (unsigned)m.ranks, (unsigned long long)product);
    r->g->mesh = m;
    return true;
}

static bool read_partition(struct reader *r)
{
    struct graph *g = r->g;
    dim extent;
    int64_t unit, offset[MAX_RANKS + 1];
    uint32_t subaxes, expected = g->partitions.count;
    if (!expect_index(r, expected) || !lex_dim(r->l, g->dims, &extent) || !lex_expect(r->l, "unit") ||
        !lex_i64(r->l, &unit) || !lex_expect(r->l, "over") || !lex_u32(r->l, &subaxes))
        return false;
    if (unit < 1 || subaxes == 0 || subaxes >> g->mesh.count)
        return FAIL(r, "partition of unit %lld over sub-axes 0x%x of %u", (long long)unit, (unsigned)subaxes,
                    (unsigned)g->mesh.count);
    uint32_t parts = mesh_parts(&g->mesh, subaxes);
    bool cuts = lex_accept(r->l, "at");
    if (cuts && !lex_expect(r->l, "["))
        return false;
    for (uint32_t k = 0; cuts && k <= parts; k++)
        if ((k && !lex_expect(r->l, ",")) || !lex_i64(r->l, &offset[k]))
            return false;
    if (cuts && !lex_expect(r->l, "]"))
        return false;
    for (uint32_t k = 0; cuts && k < parts; k++)
        if (offset[k] < 0 || offset[k + 1] < offset[k])
            return FAIL(r, "cuts are not ascending");
    if (graph_partition(g, extent, unit, subaxes, cuts ? offset : NULL) != expected)
        return FAIL(r, "partition %u stands here twice", (unsigned)expected);
    return true;
}

static bool read_file(struct reader *r)
{
    struct weight_file f;
    if (!expect_index(r, r->g->files.count) || !lex_string(r->l, &f.path) || !word_u64(r, "size", &f.size) ||
        !lex_expect(r->l, "mtime") || !lex_i64(r->l, &f.mtime) || !word_u64(r, "fingerprint", &f.fingerprint))
        return false;
    *PUSH(r->g->arena, &r->g->files) = f;
    return true;
}

static bool read_origin(struct reader *r)
{
    struct origin o = {0};
    if (!expect_index(r, r->g->origins.count) || !lex_string(r->l, &o.file) || !lex_i64(r->l, &o.index) ||
        !lex_string(r->l, &o.name) || !lex_string(r->l, &o.op_type))
        return false;
    *PUSH(r->g->arena, &r->g->origins) = o;
    return true;
}

static bool constant_shape(struct reader *r, uint32_t rank, const dim *shape, int64_t *extent, size_t *count)
{
    *count = 1;
    for (uint32_t k = 0; k < rank; k++)
        if (!dim_is_const(r->g->dims, shape[k], &extent[k]) || extent[k] < 0 ||
            !size_mul(*count, (size_t)extent[k], count))
            return FAIL(r, "the shape is not constant, or too large");
    return true;
}

/* What a stacked param is made of: indices of params before it. */
static bool read_parts(struct reader *r, struct param *p)
{
    LIST(uint32_t) parts = {0};
    uint32_t part;
    if (!lex_expect(r->l, "["))
        return false;
    while (!lex_peek(r->l, "]")) {
        if ((parts.count && !lex_expect(r->l, ",")) || !lex_u32(r->l, &part))
            return false;
        if (part >= r->g->params.count)
            return FAIL(r, "part %u of a param that is number %u", (unsigned)part, (unsigned)r->g->params.count);
        *PUSH(r->g->arena, &parts) = part;
        p->length += r->g->params.at[part].length;
    }
    p->part_count = parts.count;
    p->part = parts.at;
    return lex_expect(r->l, "]");
}

static bool read_param(struct reader *r)
{
    struct graph *g = r->g;
    struct param p = {.file = NO_FILE};
    const dim *shape;
    int64_t extent[MAX_RANK];
    size_t count, size;
    if (!expect_index(r, g->params.count) || !lex_string(r->l, &p.name) ||
        !lex_type(r->l, g->dims, MAX_RANK, &p.dtype, &p.rank, &shape) ||
        !constant_shape(r, p.rank, shape, extent, &count))
        return false;
    p.shape = arena_copy(g->arena, extent, p.rank * sizeof *extent);
    if (lex_accept(r->l, "data")) {
        if (!lex_elements(r->l, p.dtype, count, &p.data, &size))
            return false;
        p.length = size;
    } else if (lex_accept(r->l, "parts")) {
        if (!read_parts(r, &p))
            return false;
    } else if (!lex_expect(r->l, "file") || !lex_u32(r->l, &p.file) || !word_u64(r, "offset", &p.offset) ||
               !word_u64(r, "length", &p.length)) {
        return false;
    }
    *PUSH(g->arena, &g->params) = p;
    return true;
}

static bool read_intervals(struct reader *r, struct intervals *out)
{
    LIST(struct interval) list = {0};
    struct interval v = {0};
    while (!lex_peek(r->l, "|") && !lex_peek(r->l, "]")) {
        if ((list.count && !lex_expect(r->l, ",")) || !lex_i64(r->l, &v.lo) || !lex_expect(r->l, ":") ||
            !lex_i64(r->l, &v.hi))
            return false;
        *PUSH(r->g->arena, &list) = v;
    }
    *out = (struct intervals){list.count, list.at};
    return true;
}

static bool read_shard_axis(struct reader *r, struct intervals *of)
{
    uint32_t ranks = r->g->mesh.ranks;
    bool all = lex_accept(r->l, "all");
    for (uint32_t k = 0; k < ranks; k++) {
        if (all && k) {
            of[k] = of[0];
            continue;
        }
        if ((k && !lex_expect(r->l, "|")) || !read_intervals(r, &of[k]))
            return false;
    }
    return lex_expect(r->l, "]");
}

static bool read_shard(struct reader *r)
{
    struct graph *g = r->g;
    struct shard s = {0};
    if (!expect_index(r, g->shards.count) || !lex_expect(r->l, "param") || !lex_u32(r->l, &s.param))
        return false;
    if (s.param >= g->params.count || g->mesh.ranks == 0)
        return FAIL(r, "a shard of param %u of %u on %u ranks", (unsigned)s.param, (unsigned)g->params.count,
                    (unsigned)g->mesh.ranks);
    s.rank = g->params.at[s.param].rank;
    r->shard_entries += (size_t)s.rank * g->mesh.ranks;
    if (r->shard_entries > SHARD_ENTRIES_LIMIT)
        return FAIL(r, "shards of more than %d axes over all ranks", SHARD_ENTRIES_LIMIT);
    struct intervals *of = NEW_ARRAY(g->arena, struct intervals, (size_t)s.rank * g->mesh.ranks);
    for (uint32_t axis = 0; axis < s.rank; axis++)
        if (!lex_expect(r->l, "[") || !read_shard_axis(r, &of[(size_t)axis * g->mesh.ranks]))
            return false;
    s.of = of;
    *PUSH(g->arena, &g->shards) = s;
    return true;
}

static bool read_guard(struct reader *r)
{
    struct graph *g = r->g;
    struct guard guard;
    if (!lex_dim(r->l, g->dims, &guard.a) || !lex_expect(r->l, "==") || !lex_dim(r->l, g->dims, &guard.b))
        return false;
    guard.origin = 0;
    guard.why = "";
    if (lex_accept(r->l, "@") && !lex_u32(r->l, &guard.origin))
        return false;
    if (lex_peek(r->l, "\"") && !lex_string(r->l, &guard.why))
        return false;
    if (guard.origin >= g->origins.count)
        return FAIL(r, "origin %u of %u", (unsigned)guard.origin, (unsigned)g->origins.count);
    if (!dim_assume_equal(g->dims, guard.a, guard.b))
        return FAIL(r, "a guard that can never hold");
    *PUSH(g->arena, &g->guards) = guard;
    return true;
}

static bool read_state(struct reader *r)
{
    struct state s = {0};
    if (!lex_u32(r->l, &s.input) || !lex_u32(r->l, &s.output) || !lex_expect(r->l, "axis") || !lex_u32(r->l, &s.axis))
        return false;
    s.appended = lex_accept(r->l, "appended");
    if (!s.appended && !lex_expect(r->l, "scattered"))
        return false;
    *PUSH(r->g->arena, &r->g->states) = s;
    return true;
}

/* ---- nodes ---- */

/* What follows "%": letters, digits, "_" and ".". */
static bool read_label(struct reader *r, const char **label, size_t *length)
{
    const char *at = r->l->at, *end = r->l->end;
    while (at < end && ((*at >= '0' && *at <= '9') || (*at >= 'a' && *at <= 'z') || (*at >= 'A' && *at <= 'Z') ||
                        *at == '_' || *at == '.'))
        at++;
    *label = r->l->at;
    *length = (size_t)(at - r->l->at);
    r->l->at = at;
    return *length > 0 || lex_fail(r->l, "expected the label of a value");
}

static bool read_value(struct reader *r, value *out)
{
    const char *label;
    size_t length;
    if (!lex_expect(r->l, "%") || !read_label(r, &label, &length))
        return false;
    const uint32_t *v = map_find(&r->labels, label, length);
    if (!v)
        return lex_fail(r->l, "%%%.*s is not defined above", (int)(length < 64 ? length : 64), label);
    *out = *v;
    return true;
}

static bool read_i32(struct reader *r, int32_t *out)
{
    int64_t v;
    if (!lex_i64(r->l, &v))
        return false;
    if (v < INT32_MIN || v > INT32_MAX)
        return lex_fail(r->l, "number too large");
    *out = (int32_t)v;
    return true;
}

static bool read_list(struct reader *r, struct attribute *a)
{
    LIST(int32_t) list = {0};
    int32_t v = 0;
    if (!lex_expect(r->l, "["))
        return false;
    while (!lex_accept(r->l, "]")) {
        if ((list.count && !lex_expect(r->l, ",")) || !read_i32(r, &v))
            return false;
        *PUSH(r->g->arena, &list) = v;
    }
    a->list = list.at;
    a->list_count = list.count;
    return true;
}

static bool read_data(struct reader *r, struct node *n)
{
    int64_t extent[MAX_RANK];
    size_t count;
    return constant_shape(r, n->rank, n->shape, extent, &count) &&
           lex_elements(r->l, n->dtype, count, &n->attribute.data, &n->attribute.data_size);
}

/* Attributes in any order, then @origin, name and source. */
static bool read_attributes(struct reader *r, struct node *n, const char **input_name, uint32_t *source)
{
    struct attribute *a = &n->attribute;
    unsigned uses = op_info(n->op)->attributes;
    bool ok = true;
    while (ok) {
        if (uses & A_INDEX && lex_accept(r->l, "index"))
            ok = lex_u32(r->l, &a->index);
        else if (n->op == OP_INPUT && lex_accept(r->l, "as"))
            ok = lex_string(r->l, input_name);
        else if (uses & A_AXIS && lex_accept(r->l, "axis"))
            ok = read_i32(r, &a->axis);
        else if (uses & A_MODE && lex_accept(r->l, "mode"))
            ok = read_i32(r, &a->mode);
        else if (uses & A_BATCH && lex_accept(r->l, "batch"))
            ok = read_i32(r, &a->nbatch);
        else if (uses & A_CONTRACT && lex_accept(r->l, "contract"))
            ok = read_i32(r, &a->ncontract);
        else if (uses & A_PART && lex_accept(r->l, "part"))
            ok = lex_u32(r->l, &a->partition);
        else if (uses & A_LIST && lex_accept(r->l, "list"))
            ok = read_list(r, a);
        else if (uses & A_DIMS && lex_accept(r->l, "dims"))
            ok = lex_shape(r->l, r->g->dims, MAX_RANK, &a->dims_count, &a->dims);
        else if (uses & A_DATA && lex_accept(r->l, "data"))
            ok = read_data(r, n);
        else if (lex_accept(r->l, "@"))
            ok = lex_u32(r->l, &n->origin);
        else if (lex_peek(r->l, "\""))
            ok = lex_string(r->l, &n->name);
        else if (lex_accept(r->l, "from"))
            ok = lex_u32(r->l, source);
        else
            break;
    }
    return ok && !r->l->failed;
}

/* Shape and type by the row's rules; what was written must agree with them and stays as written. */
static bool infer_node(struct reader *r, struct node *n, bool written)
{
    struct inference i = {.graph = r->g, .node = n};
    if (!op_infer(&i))
        return FAIL(r, "%s: %s", op_info(n->op)->text, i.why);
    bool same = !written || (n->dtype == i.dtype && n->rank == i.rank);
    for (uint32_t k = 0; written && same && k < n->rank; k++)
        same = extent_same(r->g, n->shape[k], i.shape[k]);
    if (!same) {
        struct text shape = {.arena = r->g->arena};
        text_shape(&shape, r->g->dims, i.rank, i.shape);
        return FAIL(r, "%s gives %s%s", op_info(n->op)->text, dtype_name(i.dtype), shape.at);
    }
    if (!written) {
        n->dtype = i.dtype;
        n->rank = i.rank;
        n->shape = arena_copy(r->g->arena, i.shape, i.rank * sizeof *i.shape);
    }
    for (uint32_t k = 0; k < n->rank; k++)
        if (!dim_valid(n->shape[k]))
            return FAIL(r, "%s: axis %u is too large", op_info(n->op)->text, (unsigned)k);
    return true;
}

static bool add_input(struct reader *r, const struct node *n, const char *name)
{
    struct graph *g = r->g;
    if (n->attribute.index > g->inputs.count + r->l->end - r->l->start)
        return FAIL(r, "input %u", (unsigned)n->attribute.index);
    while (g->inputs.count <= n->attribute.index)
        (void)PUSH(g->arena, &g->inputs);
    if (g->inputs.at[n->attribute.index].value)
        return FAIL(r, "input %u stands here twice", (unsigned)n->attribute.index);
    g->inputs.at[n->attribute.index] = (struct graph_input){name, g->nodes.count};
    return true;
}

static bool read_operands(struct reader *r, struct node *n)
{
    LIST(value) list = {0};
    value v = 0;
    if (op_info(n->op)->arity != 0) { /* after a leaf "%" begins the next node */
        do {
            if (!read_value(r, &v))
                return false;
            *PUSH(r->g->arena, &list) = v;
        } while (lex_accept(r->l, ","));
    }
    n->operand = list.at;
    n->operand_count = list.count;
    return true;
}

static bool read_node(struct reader *r)
{
    struct graph *g = r->g;
    const char *label, *word, *input_name = "";
    size_t length, word_length;
    struct node n = {0};
    uint32_t source = 0;
    if (!read_label(r, &label, &length))
        return false;
    bool written = lex_accept(r->l, ":");
    if (written && !lex_type(r->l, g->dims, MAX_RANK, &n.dtype, &n.rank, &n.shape))
        return false;
    if (!lex_expect(r->l, "="))
        return false;
    if (!lex_word(r->l, &word, &word_length) || (n.op = op_from_text(word, word_length)) == OP_NONE)
        return lex_fail(r->l, "expected an operation");
    n.attribute.index = n.op == OP_INPUT ? g->inputs.count : 0;
    if (!read_operands(r, &n) || !read_attributes(r, &n, &input_name, &source) || !infer_node(r, &n, written))
        return false;
    if (n.origin >= g->origins.count)
        return FAIL(r, "origin %u of %u", (unsigned)n.origin, (unsigned)g->origins.count);
    if (n.op == OP_INPUT && !add_input(r, &n, input_name))
        return false;
    bool added;
    uint32_t *slot = map_put(&r->labels, label, length, &added);
    if (!added)
        return FAIL(r, "%%%.*s stands here twice", (int)(length < 64 ? length : 64), label);
    *slot = g->nodes.count;
    if (source && g->nodes.count >= r->sources)
        return FAIL(r, "a source beyond the %u announced", (unsigned)r->sources);
    if (source)
        g->source.at[g->nodes.count] = source;
    *PUSH(g->arena, &g->nodes) = n;
    return true;
}

static bool read_sources(struct reader *r)
{
    if (!lex_u32(r->l, &r->sources))
        return false;
    if (r->sources > (size_t)(r->l->end - r->l->start)) /* a node takes more than one character */
        return FAIL(r, "more sources than nodes");
    while (r->g->source.count < r->sources)
        *PUSH(r->g->arena, &r->g->source) = 0;
    return true;
}

static bool read_output(struct reader *r)
{
    struct graph_output o;
    if (!lex_string(r->l, &o.name) || !read_value(r, &o.value))
        return false;
    *PUSH(r->g->arena, &r->g->outputs) = o;
    return true;
}

/* ---- statements ---- */

static const struct {
    const char *word;
    bool (*read)(struct reader *r);
} statements[] = {
    {"%", read_node},        {"output", read_output},   {"param", read_param},
    {"origin", read_origin}, {"symbol", read_symbol},   {"guard", read_guard},
    {"state", read_state},   {"shard", read_shard},     {"partition", read_partition},
    {"mesh", read_mesh},     {"file", read_file},       {"model", read_model},
    {"opset", read_opset},   {"sources", read_sources},
};

struct graph *graph_parse_statements(struct lexer *l)
{
    struct reader r = {.l = l, .g = graph_new(l->arena), .labels = {.arena = l->arena}};
    bool more = true;
    while (more && !lex_end(l)) {
        more = false;
        for (size_t i = 0; i < sizeof statements / sizeof statements[0] && !more; i++) {
            r.statement = l->at;
            more = lex_accept(l, statements[i].word);
            if (more && !statements[i].read(&r))
                return NULL;
        }
    }
    return l->failed ? NULL : r.g;
}

status graph_parse(struct arena *arena, const char *name, const char *text, size_t length, struct diag *diag,
                   struct graph **out)
{
    struct lexer l = lexer_over(arena, name, text, length, diag);
    struct graph *g = graph_parse_statements(&l);
    if (g && !lex_end(&l))
        lex_fail(&l, "expected a statement");
    if (!g || l.failed)
        return TPC_DATA;
    *out = g;
    return graph_verify_file(g, name, diag);
}
