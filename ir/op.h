/* ir/op.h - the op table as C: enumerators, and one struct op_info per row of ops.def.
 *
 * Section: op.c (table, shape rules)
 */
#ifndef TPC_IR_OP_H
#define TPC_IR_OP_H

#include "ir/base.h"

enum op_attribute {
    A_AXIS = 1,
    A_MODE = 2,
    A_BATCH = 4,
    A_CONTRACT = 8,
    A_INDEX = 16,
    A_LIST = 32,
    A_DIMS = 64,
    A_PART = 128,
    A_DATA = 256
};
enum op_arity { OP_ANY = -1 };
typedef enum op_class {
    CLASS_LEAF,
    CLASS_POINTWISE,
    CLASS_LAYOUT,
    CLASS_REDUCE,
    CLASS_DOT,
    CLASS_GATHER,
    CLASS_SCATTER,
    CLASS_SCAN,
    CLASS_SORT,
    CLASS_COMPOSITE,
    CLASS_COLLECTIVE
} op_class;
typedef enum op_linear { LINEAR_NONE, LINEAR_EACH, LINEAR_ALL, LINEAR_FIRST, LINEAR_MONOTONE } op_linear;
enum reduction { REDUCTION_SUM = 1, REDUCTION_MAX = 2, REDUCTION_MIN = 3, REDUCTION_PROD = 4 };
enum scatter_mode {
    SCATTER_SET = 0,
    SCATTER_ADD = 1,
    SCATTER_MUL = 2,
    SCATTER_MAX = 3,
    SCATTER_MIN = 4,
    SCATTER_DROP = 8
};
enum gather_mode { GATHER_CHECK = 0, GATHER_ZERO = 1 };

typedef enum op {
    OP_NONE = 0,
#define OP(id, text, arity, attributes, shape, type, rule, linear, class) OP_##id,
#include "ir/ops.def"
#undef OP
    OP_COUNT
} op;

struct op_info {
    const char *text;
    int arity; /* OP_ANY: one or more */
    unsigned attributes;
    op_linear linear;
    op_class class;
};
const struct op_info *op_info(op o);
op op_from_text(const char *text, size_t length); /* OP_NONE when unknown */

#endif
