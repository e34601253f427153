/* codegen/dialect_cuda.c - CUDA C++ in the common subset with C, so that a C compiler takes the same text: C's spelling of types, numbers and
 * operations, with CUDA's mathematical functions. The function around them is in function_cuda.c.
 */
#include "codegen/cuda_impl.h"

static void function_name_cuda(struct text *out, const char *name, dtype t)
{
    text_printf(out, "%s%s", name, t == DT_F64 ? "" : "f");
}

/* Comparisons keep a NaN that is the accumulator, and take one that comes. */
static void accumulate_cuda(struct printer *p, uint32_t i)
{
    const struct instruction *a = &p->nest->kernel->instruction[i];
    const char *x = print_value(p, (uint32_t)a->arg[0]);
    unsigned n = (unsigned)i;
    bool extreme = a->op == OP_REDUCE_MAX || a->op == OP_REDUCE_MIN;
    if (a->type == DT_BOOL || !extreme || !dtype_is_float(a->type))
        print_accumulate(p, i);
    else
        print_line(p, "r%u = %s %c r%u || %s != %s ? %s : r%u;", n, x, a->op == OP_REDUCE_MAX ? '>' : '<', n, x, x, x,
                   n);
}

/* By the hardware's instructions, which make all NaNs one. */
static void load_cuda(struct text *out, dtype t, const char *element)
{
    if (t == DT_F16)
        text_printf(out, "tpc_from_f16(%s)", element);
    else
        spell_load(out, t, element);
}

static void store_cuda(struct text *out, dtype t, const char *number)
{
    if (t == DT_F16 || t == DT_BF16)
        text_printf(out, "tpc_to_%s(%s)", dtype_name(t), number);
    else
        spell_store(out, t, number);
}

static bool keeps_bits(const struct kernel *k)
{
    for (uint32_t i = 0; i < k->instruction_count; i++)
        if (k->instruction[i].kind == INST_MAP && k->instruction[i].op == OP_BITCAST)
            return true;
    return false;
}

struct dialect dialect_cuda_of(const struct kernel *k)
{
    struct dialect d = dialect_cuda();
    if (keeps_bits(k)) {
        d.load = spell_load;
        d.store = spell_store;
    }
    return d;
}

struct dialect dialect_cuda(void)
{
    struct dialect d = dialect_c;
    d.name = "cuda";
    d.infinity[0] = "INFINITY";
    d.infinity[1] = "(double)INFINITY";
    d.nan[0] = "NAN";
    d.nan[1] = "(double)NAN";
    d.read[0] = "__ldg(&";
    d.read[1] = ")";
    d.load = load_cuda;
    d.store = store_cuda;
    d.function_name = function_name_cuda;
    d.keeps = false;
    d.accumulate = accumulate_cuda;
    d.function = function_cuda;
    d.prelude = prelude_cuda;
    return d;
}
