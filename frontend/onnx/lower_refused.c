/* frontend/onnx/lower_refused.c - operators that tpc knows and does not take, each with its reason. */
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
