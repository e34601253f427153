/* frontend/onnx/lower_refused.c - operators that tpc knows and does not take, each with its reason; and BitCast, which it takes in part. */
#include "frontend/onnx/compose.h"

const char *refused_reason(int argument)
{
    switch ((enum refusal)argument) {
    case REFUSED_SHAPE:
        return "the shape of its result depends on the numbers of its input";
    case REFUSED_RANDOM:
        return "it makes random numbers";
    case REFUSED_SEQUENCE:
        return "sequences are not tensors";
    case REFUSED_OPTIONAL:
        return "optionals are not tensors";
    case REFUSED_STRING:
        return "strings are not numbers";
    case REFUSED_IMAGE:
        return "it decodes image files";
    }
    return "";
}

void lower_refused(struct call *c)
{
    call_unsupported(c, "%s", refused_reason(c->argument));
}

/* Integers of one size keep their bits in a cast. What reads the bits of a float has no core operation. */
void lower_bitcast(struct call *c)
{
    int64_t onnx = attribute_int(c, "to", 0);
    dtype from = call_in(c, 0)->dtype, to = dtype_from_onnx(onnx);
    if (to == DT_NONE)
        call_unsupported(c, "element type %lld", (long long)onnx);
    if (dtype_size(from) != dtype_size(to))
        call_fail(c, "%s and %s differ in size", dtype_name(from), dtype_name(to));
    if (from == to)
        call_set_alias(c, 0, 0);
    else if (dtype_is_float(from) || dtype_is_float(to) || to == DT_BOOL)
        call_unsupported(c, "the bits of %s as %s", dtype_name(from), dtype_name(to));
    else
        call_set(c, 0, graph_cast(c->g, call_use(c, 0), to));
}
