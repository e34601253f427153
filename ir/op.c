/* ir/op.c - ops.def as a table. Its shape and type rules are in op_infer.c. */
#include "ir/op.h"

#include <assert.h>

enum { ANY = OP_ANY };

static const struct op_info rows[OP_COUNT] = {
    [OP_NONE] = {"none", 0, 0, LINEAR_NONE, CLASS_LEAF},
#define OP(id, text, arity, attributes, shape, type, rule, linear, class)                                              \
    [OP_##id] = {text, arity, attributes, LINEAR_##linear, CLASS_##class},
#include "ir/ops.def"
#undef OP
};

const struct op_info *op_info(op o)
{
    assert(o < OP_COUNT);
    return &rows[o];
}

op op_from_text(const char *text, size_t length)
{
    for (int o = OP_NONE + 1; o < OP_COUNT; o++) {
        const char *name = rows[o].text;
        if (name[0] == text[0] && strlen(name) == length && memcmp(name, text, length) == 0)
            return (op)o;
    }
    return OP_NONE;
}
