/* ir/kernel.c - kernels as values: equality, hash, symbols, invariants, text.
 *
 * The hash is over the text without what is only for reports, so that it is the same in every process; it names the generated function and,
 * with the compiler's identity, the cached object. Start at put_instruction.
 */
#include "ir/kernel.h"
#include "ir/text_form.h"

/* ---- text ---- */

static void put_number(struct text *out, const struct instruction *n)
{
    uint64_t bits;
    memcpy(&bits, &n->number, sizeof bits);
    if (dtype_is_float(n->type))
        text_printf(out, " 0x%016llx", (unsigned long long)bits);
    else
        text_printf(out, " %lld", (long long)n->integer);
}

static void put_access(struct text *out, const struct instruction *n, const struct dims *t)
{
    text_printf(out, " b%u[", (unsigned)n->buffer);
    dim_print(t, n->index, out);
    text_put(out, "]");
    if (n->dynamic >= 0) {
        text_printf(out, " at %%%d * [", (int)n->dynamic);
        dim_print(t, n->dynamic_stride, out);
        text_put(out, "] below [");
        dim_print(t, n->dynamic_limit, out);
        text_put(out, n->dynamic_zero ? "] zero" : "] check");
        if (n->dynamic_whole != DIM_NONE) {
            text_put(out, " from [");
            dim_print(t, n->dynamic_base, out);
            text_put(out, "] of [");
            dim_print(t, n->dynamic_whole, out);
            text_put(out, "]");
        }
    }
    if (n->predicate >= 0)
        text_printf(out, " if %%%d", (int)n->predicate);
}

static void put_arguments(struct text *out, const struct instruction *n)
{
    for (int i = 0; i < 3 && n->arg[i] >= 0; i++)
        text_printf(out, "%s%%%d", i ? ", " : " ", (int)n->arg[i]);
}

static void put_instruction(struct text *out, const struct instruction *n, uint32_t number, const struct dims *t,
                            bool report)
{
    text_printf(out, "  %%%u %s@%d", (unsigned)number, dtype_name(n->type), (int)n->level);
    switch (n->kind) {
    case INST_CONST:
        text_put(out, " const");
        put_number(out, n);
        break;
    case INST_INDEX:
        text_put(out, " index [");
        dim_print(t, n->index, out);
        text_put(out, "]");
        break;
    case INST_LOAD:
        text_put(out, " load");
        put_access(out, n, t);
        break;
    case INST_MAP:
    case INST_REDUCE:
        text_printf(out, " %s %s", n->kind == INST_MAP ? "map" : "reduce", op_info(n->op)->text);
        if (n->mode != 0)
            text_printf(out, " mode %d", (int)n->mode);
        put_arguments(out, n);
        break;
    case INST_STORE:
        text_printf(out, " store %%%d", (int)n->arg[0]);
        put_access(out, n, t);
        break;
    }
    if (report && n->node != 0)
        text_printf(out, " node %u", (unsigned)n->node);
    if (report && n->kind == INST_CONST && dtype_is_float(n->type))
        text_printf(out, " # %g", n->number);
    text_put(out, "\n");
}

static void put_kernel(const struct kernel *k, const struct dims *t, struct text *out, bool report)
{
    text_put(out, "outer ");
    text_shape(out, t, k->outer, k->extent);
    text_put(out, " inner ");
    text_shape(out, t, k->inner, k->extent + k->outer);
    text_put(out, " buffers [");
    for (uint32_t i = 0; i < k->buffer_count; i++)
        text_printf(out, "%s%s%s", i ? ", " : "", dtype_name(k->buffer[i].type),
                    k->buffer[i].written ? " written" : "");
    text_put(out, "] {\n");
    for (uint32_t i = 0; i < k->instruction_count; i++)
        put_instruction(out, &k->instruction[i], i, t, report);
    text_put(out, "}\n");
}

void kernel_print(const struct kernel *k, const struct dims *t, struct text *out)
{
    put_kernel(k, t, out, true);
}

/* ---- identity ---- */

uint64_t kernel_hash(const struct kernel *k, const struct dims *t, struct arena *scratch)
{
    struct arena_mark mark = arena_mark(scratch);
    struct text out = {.arena = scratch};
    put_kernel(k, t, &out, false);
    uint64_t hash = hash_bytes(out.at, out.length, 0);
    arena_rewind(scratch, mark);
    return hash;
}

static bool instruction_same(const struct instruction *a, const struct instruction *b)
{
    return a->kind == b->kind && a->op == b->op && a->type == b->type && a->level == b->level && a->mode == b->mode &&
           memcmp(a->arg, b->arg, sizeof a->arg) == 0 && a->buffer == b->buffer && a->index == b->index &&
           a->dynamic == b->dynamic && a->dynamic_stride == b->dynamic_stride && a->dynamic_limit == b->dynamic_limit &&
           a->dynamic_zero == b->dynamic_zero && a->dynamic_base == b->dynamic_base &&
           a->dynamic_whole == b->dynamic_whole && a->predicate == b->predicate &&
           memcmp(&a->number, &b->number, sizeof a->number) == 0 && a->integer == b->integer;
}

bool kernel_same(const struct kernel *a, const struct kernel *b)
{
    if (a->outer != b->outer || a->inner != b->inner || a->buffer_count != b->buffer_count ||
        a->instruction_count != b->instruction_count)
        return false;
    for (uint32_t i = 0; i < a->outer + a->inner; i++)
        if (a->extent[i] != b->extent[i])
            return false;
    for (uint32_t i = 0; i < a->buffer_count; i++)
        if (a->buffer[i].type != b->buffer[i].type || a->buffer[i].written != b->buffer[i].written)
            return false;
    for (uint32_t i = 0; i < a->instruction_count; i++)
        if (!instruction_same(&a->instruction[i], &b->instruction[i]))
            return false;
    return true;
}

/* ---- symbols ---- */

static void mark_symbols(const struct dims *t, dim d, bool *used)
{
    if (d == DIM_NONE)
        return;
    struct dim_node n = dim_get(t, d);
    if (n.op == DIM_SYMBOL && dims_symbol(t, n.symbol)->kind != SYMBOL_COORDINATE)
        used[n.symbol] = true;
    for (uint32_t i = 0; i < n.count; i++)
        mark_symbols(t, n.arg[i], used);
}

uint32_t kernel_symbols(const struct kernel *k, const struct dims *t, struct arena *arena, const uint32_t **symbols)
{
    uint32_t total = dims_symbol_count(t), count = 0;
    bool *used = NEW_ARRAY(arena, bool, total + 1);
    for (uint32_t i = 0; i < k->outer + k->inner; i++)
        mark_symbols(t, k->extent[i], used);
    for (uint32_t i = 0; i < k->instruction_count; i++) {
        const struct instruction *n = &k->instruction[i];
        mark_symbols(t, n->index, used);
        mark_symbols(t, n->dynamic_stride, used);
        mark_symbols(t, n->dynamic_limit, used);
        mark_symbols(t, n->dynamic_base, used);
        mark_symbols(t, n->dynamic_whole, used);
    }
    uint32_t *list = NEW_ARRAY(arena, uint32_t, total + 1);
    for (uint32_t s = 0; s < total; s++)
        if (used[s])
            list[count++] = s;
    *symbols = list;
    return count;
}

/* ---- invariants ---- */

struct verifier {
    const struct kernel *kernel;
    const struct dims *dims;
    struct diag *diag;
};

static bool broken(struct verifier *v, uint32_t number, const char *what)
{
    (void)diag_error(v->diag, TPC_INTERNAL, "kernel", "instruction %u: %s", (unsigned)number, what);
    return false;
}

/* Level of the coordinates in d: 0, 1, or 2 where one is not the kernel's. */
static int index_level(const struct verifier *v, dim d)
{
    struct dim_node n = dim_get(v->dims, d);
    int level = 0;
    if (n.op == DIM_SYMBOL) {
        const struct symbol *s = dims_symbol(v->dims, n.symbol);
        if (s->kind == SYMBOL_COORDINATE)
            level = s->index < v->kernel->outer ? 0 : s->index < v->kernel->outer + v->kernel->inner ? 1 : 2;
    }
    for (uint32_t i = 0; i < n.count && level < 2; i++) {
        int of_argument = index_level(v, n.arg[i]);
        level = of_argument > level ? of_argument : level;
    }
    return level;
}

static bool index_ok(struct verifier *v, uint32_t number, dim d, int32_t level)
{
    if (d == DIM_NONE || d >= dims_count(v->dims))
        return broken(v, number, "invalid index");
    return index_level(v, d) <= level || broken(v, number, "its index uses coordinates that its level does not have");
}

/* An operand: an earlier instruction with a value, at no deeper level. */
static bool operand_ok(struct verifier *v, uint32_t number, int32_t operand, int32_t level)
{
    if (operand < 0 || (uint32_t)operand >= number)
        return broken(v, number, "an operand does not come before it");
    const struct instruction *a = &v->kernel->instruction[operand];
    if (a->kind == INST_STORE)
        return broken(v, number, "a store has no value");
    return a->level <= level || broken(v, number, "an operand is of a deeper level");
}

static bool access_ok(struct verifier *v, uint32_t number)
{
    const struct instruction *n = &v->kernel->instruction[number];
    if (n->buffer >= v->kernel->buffer_count || v->kernel->buffer[n->buffer].type != n->type)
        return broken(v, number, "no such buffer, or of another type");
    if (!index_ok(v, number, n->index, n->level))
        return false;
    if (n->dynamic >= 0) {
        if (!operand_ok(v, number, n->dynamic, n->level) || !index_ok(v, number, n->dynamic_stride, n->level) ||
            !index_ok(v, number, n->dynamic_limit, n->level))
            return false;
        if (n->dynamic_whole != DIM_NONE && (!n->dynamic_zero || !index_ok(v, number, n->dynamic_base, n->level) ||
                                             !index_ok(v, number, n->dynamic_whole, n->level)))
            return broken(v, number, "bad range of a dynamic index");
        if (!dtype_is_int(v->kernel->instruction[n->dynamic].type))
            return broken(v, number, "a dynamic index is no integer");
    }
    if (n->predicate >= 0 &&
        (!operand_ok(v, number, n->predicate, n->level) || v->kernel->instruction[n->predicate].type != DT_BOOL))
        return broken(v, number, "bad predicate");
    return n->kind != INST_STORE || v->kernel->buffer[n->buffer].written ||
           broken(v, number, "stores to a buffer that is read only");
}

static bool map_ok(struct verifier *v, uint32_t number)
{
    const struct instruction *n = &v->kernel->instruction[number];
    bool reduce = n->kind == INST_REDUCE;
    if (n->op <= OP_NONE || n->op >= OP_COUNT || op_info(n->op)->class != (reduce ? CLASS_REDUCE : CLASS_POINTWISE) ||
        n->op == OP_COUNT_ONCE)
        return broken(v, number, "not an operation of kernels");
    if (reduce && (n->level != 0 || v->kernel->inner == 0))
        return broken(v, number, "a reduction must be of level 0 in a kernel with rows");
    dtype type[3] = {DT_NONE, DT_NONE, DT_NONE};
    for (int i = 0; i < op_info(n->op)->arity; i++) {
        if (!operand_ok(v, number, n->arg[i], reduce ? 1 : n->level))
            return false;
        type[i] = v->kernel->instruction[n->arg[i]].type;
    }
    for (int i = op_info(n->op)->arity; i < 3; i++)
        if (n->arg[i] != -1)
            return broken(v, number, "too many operands");
    bool select = n->op == OP_SELECT,
         tests = n->op == OP_EQ || n->op == OP_LT || n->op == OP_LE || n->op == OP_ISNAN || n->op == OP_ISINF;
    dtype wanted = select ? type[1] : tests ? DT_BOOL : n->op == OP_CAST || n->op == OP_BITCAST ? n->type : type[0];
    bool agree = select ? type[0] == DT_BOOL && type[1] == type[2] : type[1] == DT_NONE || type[0] == type[1];
    return (agree && wanted == n->type) || broken(v, number, "types of operands and result do not agree");
}

static bool instruction_ok(struct verifier *v, uint32_t number)
{
    const struct instruction *n = &v->kernel->instruction[number];
    if (n->type <= DT_NONE || n->type >= DT_COUNT || n->level < 0 || n->level > (v->kernel->inner != 0))
        return broken(v, number, "bad type or level");
    switch (n->kind) {
    case INST_CONST:
        return true;
    case INST_INDEX:
        return n->type == DT_I64 ? index_ok(v, number, n->index, n->level) : broken(v, number, "an index must be i64");
    case INST_LOAD:
        return access_ok(v, number);
    case INST_MAP:
    case INST_REDUCE:
        return map_ok(v, number);
    case INST_STORE:
        if (!operand_ok(v, number, n->arg[0], n->level) || v->kernel->instruction[n->arg[0]].type != n->type)
            return broken(v, number, "bad operand of a store");
        return access_ok(v, number);
    }
    return broken(v, number, "unknown kind");
}

static bool is_stored(const struct kernel *k, uint32_t buffer)
{
    for (uint32_t i = 0; i < k->instruction_count; i++)
        if (k->instruction[i].kind == INST_STORE && k->instruction[i].buffer == buffer)
            return true;
    return false;
}

status kernel_verify(const struct kernel *k, const struct dims *t, struct diag *diag)
{
    struct verifier v = {k, t, diag};
    if (k->outer > KERNEL_AXES || k->inner > KERNEL_AXES)
        return diag_error(diag, TPC_INTERNAL, "kernel", "more than %d axes", KERNEL_AXES);
    for (uint32_t i = 0; i < k->outer + k->inner; i++) {
        dim d = k->extent[i];
        if (d == DIM_NONE || d >= dims_count(t) || dim_uses_kind(t, d, SYMBOL_COORDINATE))
            return diag_error(diag, TPC_INTERNAL, "kernel", "extent %u is invalid", (unsigned)i);
    }
    for (uint32_t i = 0; i < k->instruction_count; i++)
        if (!instruction_ok(&v, i))
            return TPC_INTERNAL;
    for (uint32_t i = 0; i < k->buffer_count; i++)
        if (k->buffer[i].written && !is_stored(k, i))
            return diag_error(diag, TPC_INTERNAL, "kernel", "buffer %u is never stored to", (unsigned)i);
    return TPC_OK;
}
