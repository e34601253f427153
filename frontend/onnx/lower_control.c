/* frontend/onnx/lower_control.c - control flow that is decided at compile time. */
#include "frontend/onnx/lower.h"

void lower_if(struct call *c)
{
    const struct datum *d = call_in(c, 0);
    int64_t condition = 0;
    bool decided = d->content && d->content->count == 1 && formula_integer(&c->im->s, d->content->at[0], &condition);
    if (!decided)
        call_unsupported(c,
                         "its condition '%s' is not decided by shapes and constants (--bind INPUT=VALUE or --set "
                         "SYMBOL=N may decide it)",
                         d->name ? d->name : "");
    const Onnx__AttributeProto *branch = attribute(c, condition ? "then_branch" : "else_branch");
    if (!branch || !branch->g)
        call_fail(c, "has no %s", condition ? "then_branch" : "else_branch");
    call_subgraph(c, branch->g);
}
