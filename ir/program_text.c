/* ir/program_text.c - a Program as text, exactly; also the program section of a plan file.
 *
 *   program graph BYTES
 *   ...the Graph's text, that many bytes...
 *   kernel outer [d, ..] inner [d, ..] buffers [f32, f32 written] { %0 f32@1 load b0[c0] ... }
 *   buffer temp f32 [d] node 7 live 0 3
 *   buffer state 2 capacity 0 f32 [k:0] node 4 live 1 9
 *   step run kernel 0 node 9 [0, 1]
 *
 * The reader trusts nothing: numbers are bounded as they are read, and program_verify has the last word.
 */
#include "ir/program.h"
#include "ir/text_form.h"

enum {
    KERNEL_LIMIT = 1 << 16,
    INSTRUCTION_LIMIT = 1 << 14,
    KERNEL_BUFFER_LIMIT = 1 << 12,
    BUFFER_LIMIT = 1 << 22,
    STEP_LIMIT = 1 << 22,
    ARGUMENT_LIMIT = 1 << 12
};

static const char *const buffer_kinds[] = {"temp", "kept", "input", "output", "weight", "constant", "state"};
static const char *const step_kinds[] = {"kernel", "dot", "collective", "builtin", "copy"};
static const char *const phases[] = {"load", "run"};
#define COUNT(list) ((uint32_t)(sizeof(list) / sizeof(list)[0]))

/* ---- printing ---- */

static void print_dim(const struct program *p, dim d, struct text *out)
{
    text_put(out, " [");
    dim_print(p->graph->dims, d, out);
    text_put(out, "]");
}

static void print_buffer(const struct program *p, const struct buffer *b, struct text *out)
{
    text_printf(out, "buffer %s", buffer_kinds[b->kind]);
    if (b->kind == BUFFER_INPUT || b->kind == BUFFER_OUTPUT || b->kind == BUFFER_WEIGHT)
        text_printf(out, " %u", (unsigned)b->index);
    if (b->kind == BUFFER_STATE)
        text_printf(out, " %u capacity %u", (unsigned)b->index, (unsigned)b->capacity);
    text_printf(out, "%s %s", b->sharded ? " sharded" : "", dtype_name(b->type));
    print_dim(p, b->elements, out);
    text_printf(out, " node %u live %u %u\n", (unsigned)b->node, (unsigned)b->first, (unsigned)b->last);
}

static void print_dot(const struct program *p, const struct dot *d, struct text *out)
{
    const struct dims *t = p->graph->dims;
    uint32_t total = d->batch + d->m + d->n + d->k;
    text_printf(out, " batch %u m %u n %u k %u ", (unsigned)d->batch, (unsigned)d->m, (unsigned)d->n, (unsigned)d->k);
    text_shape(out, t, total, d->extent);
    for (int o = 0; o < 3; o++) {
        text_put(out, " at");
        print_dim(p, d->offset[o], out);
        text_put(out, " ");
        text_shape(out, t, total, d->stride[o]);
    }
}

static void print_step(const struct program *p, const struct step *s, struct text *out)
{
    text_printf(out, "step %s %s", phases[s->phase], step_kinds[s->kind]);
    if (s->kind == STEP_KERNEL)
        text_printf(out, " %u", (unsigned)s->kernel);
    if (s->kind == STEP_DOT)
        print_dot(p, s->dot, out);
    text_printf(out, " node %u args [", (unsigned)s->node);
    for (uint32_t i = 0; i < s->arg_count; i++)
        text_printf(out, "%s%u", i ? ", " : "", (unsigned)s->arg[i]);
    text_put(out, "]\n");
}

void program_print(const struct program *p, struct text *out)
{
    struct text graph = {.arena = out->arena};
    graph_print(p->graph, &graph);
    text_printf(out, "program graph %zu\n", graph.length);
    text_putn(out, graph.at, graph.length);
    for (uint32_t i = 0; i < p->kernels.count; i++) {
        text_put(out, "kernel ");
        kernel_print(&p->kernels.at[i], p->graph->dims, out);
    }
    for (uint32_t i = 0; i < p->buffers.count; i++)
        print_buffer(p, &p->buffers.at[i], out);
    for (uint32_t i = 0; i < p->steps.count; i++)
        print_step(p, &p->steps.at[i], out);
    text_put(out, "end\n");
}

/* ---- parsing: words ---- */

struct reader {
    struct lexer lexer;
    struct arena *arena;
    struct dims *dims;
    struct program *program;
};

/* One of the words in a list; its position. */
static bool read_choice(struct reader *r, const char *const *list, uint32_t count, const char *what, uint32_t *out)
{
    for (*out = 0; *out < count; ++*out)
        if (lex_accept(&r->lexer, list[*out]))
            return true;
    *out = 0;
    return lex_fail(&r->lexer, "expected the kind of a %s", what);
}

static bool read_bounded(struct reader *r, uint32_t limit, const char *what, uint32_t *out)
{
    return lex_u32(&r->lexer, out) && (*out < limit || lex_fail(&r->lexer, "no %s %u", what, (unsigned)*out));
}

static bool read_dim(struct reader *r, dim *out)
{
    return lex_expect(&r->lexer, "[") && lex_dim(&r->lexer, r->dims, out) && lex_expect(&r->lexer, "]");
}

static bool read_dtype(struct reader *r, dtype *out)
{
    const char *word;
    size_t length;
    return (lex_word(&r->lexer, &word, &length) && (*out = dtype_from_name(word, length)) != DT_NONE) ||
           lex_fail(&r->lexer, "expected a type");
}

static bool read_node(struct reader *r, value *out)
{
    return lex_expect(&r->lexer, "node") && read_bounded(r, r->program->graph->nodes.count, "node", out);
}

/* ---- parsing: kernels ---- */

/* "%12": an instruction before `limit`. */
static bool read_operand(struct reader *r, uint32_t limit, int32_t *out)
{
    uint32_t number;
    if (!lex_expect(&r->lexer, "%") || !read_bounded(r, limit, "instruction before this one", &number))
        return false;
    *out = (int32_t)number;
    return true;
}

static bool read_access(struct reader *r, uint32_t number, struct instruction *n)
{
    struct lexer *l = &r->lexer;
    (void)lex_end(l); /* past blanks */
    if (l->failed || l->at == l->end || *l->at != 'b')
        return lex_fail(l, "expected a buffer");
    l->at++;
    if (!lex_u32(l, &n->buffer) || !read_dim(r, &n->index))
        return false;
    if (lex_accept(l, "at")) {
        if (!read_operand(r, number, &n->dynamic) || !lex_expect(l, "*") || !read_dim(r, &n->dynamic_stride) ||
            !lex_expect(l, "below") || !read_dim(r, &n->dynamic_limit))
            return false;
        n->dynamic_zero = lex_accept(l, "zero");
        if (!n->dynamic_zero && !lex_expect(l, "check"))
            return false;
        if (lex_accept(l, "from") &&
            (!read_dim(r, &n->dynamic_base) || !lex_expect(l, "of") || !read_dim(r, &n->dynamic_whole)))
            return false;
    }
    return !lex_accept(l, "if") || read_operand(r, number, &n->predicate);
}

static bool read_constant(struct reader *r, struct instruction *n)
{
    uint64_t bits;
    if (!dtype_is_float(n->type))
        return lex_i64(&r->lexer, &n->integer);
    if (!lex_u64(&r->lexer, &bits))
        return false;
    memcpy(&n->number, &bits, sizeof bits);
    return true;
}

static bool read_map(struct reader *r, uint32_t number, struct instruction *n)
{
    const char *word;
    size_t length;
    int64_t mode = 0;
    if (!lex_word(&r->lexer, &word, &length) || (n->op = op_from_text(word, length)) == OP_NONE)
        return lex_fail(&r->lexer, "expected an operation");
    if (lex_accept(&r->lexer, "mode") && (!lex_i64(&r->lexer, &mode) || mode < INT32_MIN || mode > INT32_MAX))
        return lex_fail(&r->lexer, "bad mode");
    n->mode = (int32_t)mode;
    for (int i = 0; i < 3; i++) {
        if (!read_operand(r, number, &n->arg[i]))
            return false;
        if (!lex_accept(&r->lexer, ","))
            break;
    }
    return true;
}

static bool read_instruction(struct reader *r, uint32_t number, struct instruction *n)
{
    struct lexer *l = &r->lexer;
    uint32_t written, level;
    *n = (struct instruction){.arg = {-1, -1, -1}, .dynamic = -1, .predicate = -1};
    if (!lex_expect(l, "%") || !lex_u32(l, &written) ||
        (written != number && !lex_fail(l, "expected %%%u", (unsigned)number)) || !read_dtype(r, &n->type) ||
        !lex_expect(l, "@") || !read_bounded(r, 2, "level", &level))
        return false;
    n->level = (int32_t)level;
    bool ok;
    if (lex_accept(l, "const")) {
        n->kind = INST_CONST;
        ok = read_constant(r, n);
    } else if (lex_accept(l, "index")) {
        n->kind = INST_INDEX;
        ok = read_dim(r, &n->index);
    } else if (lex_accept(l, "load")) {
        n->kind = INST_LOAD;
        ok = read_access(r, number, n);
    } else if (lex_accept(l, "map") || lex_accept(l, "reduce")) {
        n->kind = l->at[-1] == 'p' ? INST_MAP : INST_REDUCE;
        ok = read_map(r, number, n);
    } else {
        n->kind = INST_STORE;
        ok = lex_expect(l, "store") && read_operand(r, number, &n->arg[0]) && read_access(r, number, n);
    }
    return ok && (!lex_peek(l, "node") || read_node(r, &n->node));
}

static bool read_kernel_buffers(struct reader *r, struct kernel *k)
{
    LIST(struct kernel_buffer) list = {0};
    if (!lex_expect(&r->lexer, "["))
        return false;
    while (!lex_accept(&r->lexer, "]")) {
        struct kernel_buffer b = {0};
        if (list.count == KERNEL_BUFFER_LIMIT || (list.count && !lex_expect(&r->lexer, ",")) || !read_dtype(r, &b.type))
            return lex_fail(&r->lexer, "more than %d buffers", KERNEL_BUFFER_LIMIT);
        b.written = lex_accept(&r->lexer, "written");
        *PUSH(r->arena, &list) = b;
    }
    k->buffer = list.at;
    k->buffer_count = list.count;
    return true;
}

static bool read_kernel(struct reader *r)
{
    struct lexer *l = &r->lexer;
    struct kernel k = {0};
    const dim *outer = NULL, *inner = NULL;
    if (r->program->kernels.count == KERNEL_LIMIT)
        return lex_fail(l, "more than %d kernels", KERNEL_LIMIT);
    if (!lex_expect(l, "outer") || !lex_shape(l, r->dims, KERNEL_AXES, &k.outer, &outer) || !lex_expect(l, "inner") ||
        !lex_shape(l, r->dims, KERNEL_AXES, &k.inner, &inner) || !lex_expect(l, "buffers") ||
        !read_kernel_buffers(r, &k) || !lex_expect(l, "{"))
        return false;
    dim *extent = NEW_ARRAY(r->arena, dim, k.outer + k.inner);
    if (k.outer)
        memcpy(extent, outer, k.outer * sizeof *extent);
    if (k.inner)
        memcpy(extent + k.outer, inner, k.inner * sizeof *extent);
    k.extent = extent;
    LIST(struct instruction) list = {0};
    while (!lex_accept(l, "}")) {
        struct instruction n;
        if (list.count == INSTRUCTION_LIMIT)
            return lex_fail(l, "more than %d instructions", INSTRUCTION_LIMIT);
        if (!read_instruction(r, list.count, &n))
            return false;
        *PUSH(r->arena, &list) = n;
    }
    k.instruction = list.at;
    k.instruction_count = list.count;
    *PUSH(r->arena, &r->program->kernels) = k;
    return true;
}

/* ---- parsing: buffers and steps ---- */

static bool read_buffer(struct reader *r)
{
    struct lexer *l = &r->lexer;
    struct buffer b = {0};
    uint32_t kind;
    if (r->program->buffers.count == BUFFER_LIMIT)
        return lex_fail(l, "more than %d buffers", BUFFER_LIMIT);
    if (!read_choice(r, buffer_kinds, COUNT(buffer_kinds), "buffer", &kind))
        return false;
    b.kind = (buffer_kind)kind;
    if ((b.kind == BUFFER_INPUT || b.kind == BUFFER_OUTPUT || b.kind == BUFFER_WEIGHT) && !lex_u32(l, &b.index))
        return false;
    if (b.kind == BUFFER_STATE && (!lex_u32(l, &b.index) || !lex_expect(l, "capacity") || !lex_u32(l, &b.capacity)))
        return false;
    b.sharded = lex_accept(l, "sharded");
    if (!read_dtype(r, &b.type) || !read_dim(r, &b.elements) || !read_node(r, &b.node) || !lex_expect(l, "live") ||
        !lex_u32(l, &b.first) || !lex_u32(l, &b.last))
        return false;
    *PUSH(r->arena, &r->program->buffers) = b;
    return true;
}

static bool read_dot(struct reader *r, const struct dot **out)
{
    struct lexer *l = &r->lexer;
    struct dot *d = NEW(r->arena, struct dot);
    uint32_t count;
    *out = d;
    if (!lex_expect(l, "batch") || !read_bounded(r, MAX_RANK + 1, "axis", &d->batch) || !lex_expect(l, "m") ||
        !read_bounded(r, MAX_RANK + 1, "axis", &d->m) || !lex_expect(l, "n") ||
        !read_bounded(r, MAX_RANK + 1, "axis", &d->n) || !lex_expect(l, "k") ||
        !read_bounded(r, MAX_RANK + 1, "axis", &d->k))
        return false;
    uint32_t total = d->batch + d->m + d->n + d->k;
    if (total > MAX_RANK || !lex_shape(l, r->dims, MAX_RANK, &count, &d->extent) || count != total)
        return lex_fail(l, "a dot has one extent per axis, %d at most", MAX_RANK);
    for (int o = 0; o < 3; o++)
        if (!lex_expect(l, "at") || !read_dim(r, &d->offset[o]) ||
            !lex_shape(l, r->dims, MAX_RANK, &count, &d->stride[o]) || count != total)
            return lex_fail(l, "a dot has one stride per axis");
    return true;
}

static bool read_step(struct reader *r)
{
    struct lexer *l = &r->lexer;
    struct step s = {0};
    uint32_t kind, phase;
    LIST(uint32_t) args = {0};
    if (r->program->steps.count == STEP_LIMIT)
        return lex_fail(l, "more than %d steps", STEP_LIMIT);
    if (!read_choice(r, phases, COUNT(phases), "phase", &phase) ||
        !read_choice(r, step_kinds, COUNT(step_kinds), "step", &kind))
        return false;
    s.kind = (step_kind)kind;
    s.phase = (enum step_phase)phase;
    if ((s.kind == STEP_KERNEL && !read_bounded(r, r->program->kernels.count, "kernel", &s.kernel)) ||
        (s.kind == STEP_DOT && !read_dot(r, &s.dot)) || !read_node(r, &s.node) || !lex_expect(l, "args") ||
        !lex_expect(l, "["))
        return false;
    while (!lex_accept(l, "]")) {
        uint32_t buffer;
        if (args.count == ARGUMENT_LIMIT)
            return lex_fail(l, "more than %d arguments", ARGUMENT_LIMIT);
        if ((args.count && !lex_expect(l, ",")) || !read_bounded(r, r->program->buffers.count, "buffer", &buffer))
            return false;
        *PUSH(r->arena, &args) = buffer;
    }
    s.arg = args.at;
    s.arg_count = args.count;
    *PUSH(r->arena, &r->program->steps) = s;
    return true;
}

/* ---- parsing: the whole ---- */

static bool read_body(struct reader *r)
{
    struct lexer *l = &r->lexer;
    while (!lex_accept(l, "end")) {
        bool ok = lex_accept(l, "kernel")   ? read_kernel(r)
                  : lex_accept(l, "buffer") ? read_buffer(r)
                  : lex_accept(l, "step")   ? read_step(r)
                                            : lex_fail(l, "expected a kernel, a buffer, a step or the end");
        if (!ok)
            return false;
    }
    return lex_end(l) || lex_fail(l, "text after the end");
}

status program_parse(struct arena *arena, const char *name, const char *text, size_t length, struct diag *diag,
                     struct program **out)
{
    struct reader r = {.lexer = lexer_over(arena, name, text, length, diag), .arena = arena};
    uint64_t bytes;
    if (!lex_expect(&r.lexer, "program") || !lex_expect(&r.lexer, "graph") || !lex_u64(&r.lexer, &bytes))
        return TPC_DATA;
    if (r.lexer.at == r.lexer.end || *r.lexer.at != '\n' || bytes > (uint64_t)(r.lexer.end - r.lexer.at) - 1) {
        (void)lex_fail(&r.lexer, "the graph is cut short");
        return TPC_DATA;
    }
    r.lexer.at++;
    r.program = NEW(arena, struct program);
    status s = graph_parse(arena, name, r.lexer.at, (size_t)bytes, diag, &r.program->graph);
    if (s != TPC_OK || (s = graph_verify(r.program->graph, name, diag)) != TPC_OK)
        return s == TPC_INTERNAL ? TPC_DATA : s;
    r.lexer.at += bytes;
    r.dims = r.program->graph->dims;
    if (!read_body(&r))
        return TPC_DATA;
    s = program_verify(r.program, diag);
    if (s != TPC_OK)
        return s == TPC_INTERNAL ? TPC_DATA : s;
    *out = r.program;
    return TPC_OK;
}
