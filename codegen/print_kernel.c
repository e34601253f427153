/* codegen/print_kernel.c - a loop nest as text, for any dialect with C's expressions.
 *
 * Every live instruction is one line, `const T v7 = ...;`, at its depth; numbers are written where they are used. An access is
 * b2[i7 + c3*s1]: what does not change with the fast loop has a name of its own (i7, shared by accesses that have it in common).
 * Names come from numbers alone: bN buffers, cN coordinates, nN extents, sN symbols, vN values, kN rows that are kept, rN accumulators.
 */
#include "codegen/dialect.h"

/* ---- lines ---- */

void print_line(struct printer *p, const char *format, ...)
{
    char line[512];
    va_list list, again;
    va_start(list, format);
    va_copy(again, list);
    int length = vsnprintf(line, sizeof line, format, list);
    va_end(list);
    for (int i = 0; i < p->indent && length > 0; i++)
        text_put(p->out, "    ");
    if (length >= 0 && (size_t)length < sizeof line) {
        text_put(p->out, line);
    } else if (length > 0) {
        char *longer = NEW_ARRAY(p->arena, char, (size_t)length + 1);
        (void)vsnprintf(longer, (size_t)length + 1, format, again);
        text_put(p->out, longer);
    }
    va_end(again);
    text_put(p->out, "\n");
}

/* ---- dims ---- */

static void print_atom(const struct printer *p, dim d, struct text *out)
{
    enum dim_op o = dim_get(p->nest->dims, d).op;
    bool bare = o != DIM_SUM && o != DIM_PRODUCT && o != DIM_CONST;
    text_put(out, bare ? "" : "(");
    print_dim(p, d, out);
    text_put(out, bare ? "" : ")");
}

/* coefficient * d as a term of a sum that has `printed` terms before it. */
static void print_term(const struct printer *p, int64_t coefficient, dim d, bool printed, struct text *out)
{
    uint64_t magnitude = coefficient < 0 ? 0 - (uint64_t)coefficient : (uint64_t)coefficient;
    text_put(out, printed ? coefficient < 0 ? " - " : " + " : coefficient < 0 ? "-" : "");
    print_dim(p, d, out);
    if (magnitude != 1)
        text_printf(out, "*%llu", (unsigned long long)magnitude);
}

static void print_number(int64_t number, bool printed, struct text *out)
{
    uint64_t magnitude = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    text_put(out, printed ? number < 0 ? " - " : " + " : number < 0 ? "-" : "");
    text_printf(out, "%llu", (unsigned long long)magnitude);
}

static void print_call(const struct printer *p, const char *function, const struct dim_node *n, struct text *out)
{
    text_printf(out, "%s(", function);
    print_dim(p, n->arg[0], out);
    text_put(out, ", ");
    print_dim(p, n->arg[1], out);
    text_put(out, ")");
}

static void print_division(const struct printer *p, const struct dim_node *n, struct text *out)
{
    int64_t by;
    if (!dim_is_const(p->nest->dims, n->arg[1], &by) ||
        by <= 0) { /* a symbol that is 0 must not trap: nothing is indexed then */
        print_call(p, n->op == DIM_DIV ? "tpc_quotient" : "tpc_remainder", n, out);
        return;
    }
    text_put(out, "(");
    print_atom(p, n->arg[0], out);
    text_printf(out, " %c %lld)", n->op == DIM_DIV ? '/' : '%', (long long)by);
}

void print_dim(const struct printer *p, dim d, struct text *out)
{
    struct dim_node n = dim_get(p->nest->dims, d);
    switch (n.op) {
    case DIM_CONST:
        print_number(n.value, false, out);
        return;
    case DIM_SYMBOL: {
        const struct symbol *s = dims_symbol(p->nest->dims, n.symbol);
        bool coordinate = s->kind == SYMBOL_COORDINATE;
        text_printf(out, "%c%u", coordinate ? 'c' : 's',
                    (unsigned)(coordinate ? s->index : nest_symbol(p->nest, n.symbol)));
        return;
    }
    case DIM_SUM:
        for (uint32_t i = 0; i < n.count; i++)
            print_term(p, n.coefficient[i], n.arg[i], i > 0, out);
        if (n.value)
            print_number(n.value, true, out);
        return;
    case DIM_PRODUCT:
        for (uint32_t i = 0; i < n.count; i++) {
            text_put(out, i ? "*" : "");
            print_atom(p, n.arg[i], out);
        }
        return;
    case DIM_DIV:
    case DIM_MOD:
        print_division(p, &n, out);
        return;
    case DIM_CEILDIV:
        print_call(p, "tpc_quotient_up", &n, out);
        return;
    case DIM_MAX:
        print_call(p, "tpc_larger", &n, out);
        return;
    case DIM_MIN:
        print_call(p, "tpc_smaller", &n, out);
        return;
    }
}

const char *print_dim_text(const struct printer *p, dim d)
{
    struct text out = {.arena = p->arena};
    print_dim(p, d, &out);
    return out.at;
}

/* ---- indices ---- */

/* The terms of d that change with the fast loop, or those that do not. Returns how many there are. */
static uint32_t print_part(const struct printer *p, dim d, bool fast, struct text *out)
{
    const struct nest *n = p->nest;
    struct dim_node node = dim_get(n->dims, d);
    uint32_t depth = nest_fast_depth(n), printed = 0;
    if (node.op != DIM_SUM) {
        if ((nest_depth(n, d) == depth) == fast && !dim_is(n->dims, d, 0)) {
            print_dim(p, d, out);
            printed++;
        }
        return printed;
    }
    for (uint32_t i = 0; i < node.count; i++)
        if ((nest_depth(n, node.arg[i]) == depth) == fast)
            print_term(p, node.coefficient[i], node.arg[i], printed++ > 0, out);
    if (!fast && node.value)
        print_number(node.value, printed++ > 0, out);
    return printed;
}

static uint32_t part_depth(const struct nest *n, dim d)
{
    struct dim_node node = dim_get(n->dims, d);
    uint32_t fast = nest_fast_depth(n), depth = nest_depth(n, d);
    if (depth < fast)
        return depth;
    depth = DEPTH_ENTRY;
    for (uint32_t i = 0; i < node.count && node.op == DIM_SUM; i++) {
        uint32_t of_term = nest_depth(n, node.arg[i]);
        if (of_term < fast && of_term > depth)
            depth = of_term;
    }
    return depth;
}

static bool is_access(const struct instruction *a)
{
    return a->kind == INST_LOAD || a->kind == INST_STORE;
}

/* Names the parts of indices that are more than a name already. */
static void find_indices(struct printer *p)
{
    const struct nest *n = p->nest;
    for (uint32_t i = 0; i < n->kernel->instruction_count; i++) {
        const struct instruction *a = &n->kernel->instruction[i];
        if (!is_access(a) || !n->value[i].live || n->loops == 0 || n->value[i].depth != nest_fast_depth(n))
            continue;
        struct text part = {.arena = p->arena};
        (void)print_part(p, a->index, false, &part);
        if (!part.at || !strpbrk(part.at, "+-*/%("))
            continue;
        uint32_t found = 0;
        while (found < p->indices.count && strcmp(p->indices.at[found].text, part.at) != 0)
            found++;
        if (found == p->indices.count)
            *PUSH(p->arena, &p->indices) = (struct print_index){part.at, i, part_depth(n, a->index)};
        p->index_of[i] = found + 1;
    }
}

void print_indices(struct printer *p, uint32_t depth, uint32_t sweep)
{
    const struct nest *n = p->nest;
    for (uint32_t e = 0; e < p->indices.count; e++) {
        const struct print_index *x = &p->indices.at[e];
        bool needed = depth < DEPTH_LOOP;
        for (uint32_t i = 0; i < n->kernel->instruction_count && !needed; i++)
            needed = p->index_of[i] == e + 1 && nest_use(n, sweep, i) == USE_COMPUTE;
        if (x->depth == depth && needed)
            print_line(p, "const int64_t i%u = %s;", (unsigned)x->number, x->text);
    }
}

static void print_slow_part(const struct printer *p, uint32_t i, struct text *out)
{
    if (p->index_of[i])
        text_printf(out, "i%u", (unsigned)p->indices.at[p->index_of[i] - 1].number);
    else
        (void)print_part(p, p->nest->kernel->instruction[i].index, false, out);
}

const char *print_slow_text(const struct printer *p, uint32_t i)
{
    struct text out = {.arena = p->arena};
    print_slow_part(p, i, &out);
    return out.at ? out.at : "0";
}

static void print_index_text(const struct printer *p, uint32_t i, struct text *out)
{
    const struct instruction *a = &p->nest->kernel->instruction[i];
    struct text fast = {.arena = p->arena}, slow = {.arena = p->arena};
    print_slow_part(p, i, &slow);
    (void)print_part(p, a->index, true, &fast);
    bool minus = fast.at && fast.at[0] == '-';
    if (slow.at)
        text_put(out, slow.at);
    if (slow.at && fast.at)
        text_put(out, minus ? " - " : " + ");
    if (fast.at)
        text_put(out, fast.at + (slow.at && minus ? 1 : 0));
    if (!slow.at && !fast.at)
        text_put(out, "0");
}

/* ---- values ---- */

const char *print_value(const struct printer *p, uint32_t i)
{
    const struct instruction *a = &p->nest->kernel->instruction[i];
    struct text out = {.arena = p->arena};
    if (a->kind == INST_CONST)
        p->dialect->constant(p->dialect, &out, a);
    else
        text_printf(&out, "v%u", (unsigned)i);
    return out.at;
}

static void declare(struct printer *p, uint32_t i, const char *expression)
{
    print_line(p, "const %s v%u = %s;", p->dialect->type[p->nest->kernel->instruction[i].type], (unsigned)i,
               expression);
}

void print_range(struct printer *p, uint32_t i)
{
    const struct instruction *a = &p->nest->kernel->instruction[i];
    print_line(p, "const bool in%u = (uint64_t)%s < (uint64_t)(%s);", (unsigned)i, print_value(p, (uint32_t)a->dynamic),
               print_dim_text(p, a->dynamic_limit));
    const char *known = "in";
    if (a->dynamic_whole != DIM_NONE) {
        known = "of";
        print_line(p, "const bool of%u = (uint64_t)%s + (uint64_t)(%s) < (uint64_t)(%s);", (unsigned)i,
                   print_value(p, (uint32_t)a->dynamic), print_dim_text(p, a->dynamic_base),
                   print_dim_text(p, a->dynamic_whole));
    }
    if (print_may_fault(a) && a->predicate >= 0)
        print_line(p, "x%u |= %s & !%s%u;", (unsigned)i, print_value(p, (uint32_t)a->predicate), known, (unsigned)i);
    else if (print_may_fault(a))
        print_line(p, "x%u |= !%s%u;", (unsigned)i, known, (unsigned)i);
}

/* The element, and the condition under which it may be touched ("" where there is none). */
static const char *print_element(struct printer *p, uint32_t i, struct text *condition)
{
    const struct instruction *a = &p->nest->kernel->instruction[i];
    struct text out = {.arena = p->arena};
    condition->arena = p->arena;
    text_put(condition, "");
    if (p->staged && p->staged[i])
        return p->staged[i];
    if (a->predicate >= 0)
        text_put(condition, print_value(p, (uint32_t)a->predicate));
    text_printf(&out, "b%u[", (unsigned)a->buffer);
    print_index_text(p, i, &out);
    if (a->dynamic >= 0) {
        print_range(p, i);
        text_printf(condition, "%sin%u", a->predicate >= 0 ? " && " : "", (unsigned)i);
        text_printf(&out, " + (in%u ? (int64_t)%s : 0)", (unsigned)i, print_value(p, (uint32_t)a->dynamic));
        if (!dim_is(p->nest->dims, a->dynamic_stride, 1))
            text_printf(&out, "*(%s)", print_dim_text(p, a->dynamic_stride));
    }
    text_put(&out, "]");
    return out.at;
}

static void print_load(struct printer *p, uint32_t i)
{
    struct text condition = {0}, expression = {.arena = p->arena};
    const struct instruction *a = &p->nest->kernel->instruction[i];
    const char *element = print_element(p, i, &condition);
    bool both = strchr(condition.at, ' ') != NULL, staged = p->staged && p->staged[i];
    if (!staged && !p->nest->kernel->buffer[a->buffer].written)
        element = arena_printf(p->arena, "%s%s%s", p->dialect->read[0], element, p->dialect->read[1]);
    if (condition.length)
        text_printf(&expression, "%s%s%s ? ", both ? "(" : "", condition.at, both ? ")" : "");
    p->dialect->load(&expression, a->type, element);
    if (condition.length)
        text_put(&expression, " : 0");
    declare(p, i, expression.at);
}

static void print_store(struct printer *p, uint32_t i)
{
    const struct instruction *a = &p->nest->kernel->instruction[i];
    struct text condition = {0}, expression = {.arena = p->arena};
    const char *element = print_element(p, i, &condition);
    p->dialect->store(&expression, a->type, print_value(p, (uint32_t)a->arg[0]));
    if (p->once && p->nest->value[i].depth < DEPTH_LOOP)
        text_printf(&condition, "%s%s", condition.length ? " && " : "", p->once);
    if (p->only && !(p->staged && p->staged[i]))
        text_printf(&condition, "%s%s", condition.length ? " && " : "", p->only);
    if (condition.length)
        print_line(p, "if (%s)", condition.at);
    p->indent += condition.length != 0;
    print_line(p, "%s = %s;", element, expression.at);
    p->indent -= condition.length != 0;
}

static void print_map(struct printer *p, uint32_t i)
{
    const struct instruction *a = &p->nest->kernel->instruction[i];
    const char *arg[3] = {"", "", ""};
    dtype from = DT_NONE;
    struct text expression = {.arena = p->arena};
    for (int k = 0; k < 3 && a->arg[k] >= 0; k++) {
        arg[k] = print_value(p, (uint32_t)a->arg[k]);
        from = p->nest->kernel->instruction[a->arg[k]].type;
    }
    p->dialect->map(p->dialect, &expression, a, from, arg);
    declare(p, i, expression.at);
}

/* One more element of a reduction. A NaN is counted beside a maximum, since comparisons lose it. */
void print_accumulate(struct printer *p, uint32_t i)
{
    const struct instruction *a = &p->nest->kernel->instruction[i];
    const char *x = print_value(p, (uint32_t)a->arg[0]);
    unsigned n = (unsigned)i;
    bool sum = a->op == OP_REDUCE_SUM, product = a->op == OP_REDUCE_PROD, maximum = a->op == OP_REDUCE_MAX;
    if (a->type == DT_BOOL) {
        print_line(p, "r%u %s %s;", n, sum || maximum ? "|=" : "&=", x);
        return;
    }
    if (sum || product) {
        print_line(p, "r%u %s %s;", n, sum ? "+=" : "*=", x);
        return;
    }
    print_line(p, "r%u = r%u %s %s ? %s : r%u;", n, n, maximum ? "<" : ">", x, x, n);
    if (dtype_is_float(a->type))
        print_line(p, "nan%u |= %s != %s;", n, x, x);
}

static void print_one(struct printer *p, uint32_t i)
{
    const struct instruction *a = &p->nest->kernel->instruction[i];
    struct text expression = {.arena = p->arena};
    switch (a->kind) {
    case INST_CONST:
        return;
    case INST_INDEX:
        print_dim(p, a->index, &expression);
        declare(p, i, expression.at);
        return;
    case INST_LOAD:
        print_load(p, i);
        return;
    case INST_MAP:
        print_map(p, i);
        return;
    case INST_REDUCE:
        p->dialect->accumulate(p, i);
        return;
    case INST_STORE:
        print_store(p, i);
        return;
    }
}

static const char *kept_element(const struct printer *p, uint32_t i)
{
    const struct nest *n = p->nest;
    return arena_printf(p->arena, "k%u[%sc%u]", (unsigned)i, n->loops > 1 ? "row + " : "", (unsigned)nest_fast_axis(n));
}

void print_values(struct printer *p, uint32_t depth, uint32_t sweep)
{
    const struct nest *n = p->nest;
    for (uint32_t i = 0; i < n->kernel->instruction_count; i++) {
        const struct nest_value *v = &n->value[i];
        bool reduce = n->kernel->instruction[i].kind == INST_REDUCE;
        if (depth < DEPTH_LOOP) {
            if (v->live && v->depth == depth && v->stage == sweep && !reduce)
                print_one(p, i);
            continue;
        }
        enum nest_use use = nest_use(n, sweep, i);
        bool here = reduce ? depth == nest_fast_depth(n) : v->depth == depth;
        bool known = p->staged && p->staged[i] && n->kernel->instruction[i].kind == INST_MAP;
        if (!here || use == USE_NONE || known)
            continue;
        if (use == USE_READ) {
            declare(p, i, kept_element(p, i));
            continue;
        }
        print_one(p, i);
        if (v->kept)
            print_line(p, "%s = v%u;", kept_element(p, i), (unsigned)i);
    }
}

/* ---- the kernel ---- */

void kernel_name(const struct kernel *k, const struct dims *t, struct arena *scratch, char name[KERNEL_NAME])
{
    (void)snprintf(name, KERNEL_NAME, "tpc_k_%016llx", (unsigned long long)kernel_hash(k, t, scratch));
}

const char *print_index(const struct printer *p, uint32_t i)
{
    struct text out = {.arena = p->arena};
    print_index_text(p, i, &out);
    return out.at;
}

void print_kernel_as(const struct dialect *d, const struct kernel *k, const char *name, const struct dims *t,
                     struct arena *arena, struct text *out)
{
    struct nest n;
    nest_of(k, t, d->keeps, arena, &n);
    struct printer p = {.nest = &n, .dialect = d, .arena = arena, .out = out};
    p.index_of = NEW_ARRAY(arena, uint32_t, k->instruction_count + 1);
    find_indices(&p);
    d->function(&p, name);
}

void print_kernel(const struct dialect *d, const struct kernel *k, const struct dims *t, struct arena *arena,
                  struct text *out)
{
    char name[KERNEL_NAME];
    kernel_name(k, t, arena, name);
    print_kernel_as(d, k, name, t, arena, out);
}
