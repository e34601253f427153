/* frontend/cli/steer.c - --pin, --tp-plan, --even and --use-annotations: what the user demands of the split. Start with cli_steering. */
#include "frontend/cli/cli.h"

static uint32_t tensor_ranks(const struct compile_options *o)
{
    uint32_t ranks = o->axis_count ? 1 : o->ranks;
    for (uint32_t i = 0; i < o->axis_count; i++)
        ranks *= o->axis[i].role == AXIS_TENSOR ? o->axis[i].size : 1;
    return ranks;
}

status cli_steering(struct arena *arena, const struct args *args, struct diag *diag, struct compile_options *out)
{
    struct steering *steering = NEW(arena, struct steering);
    status s = TPC_OK;
    for (uint32_t i = 0; i < args->given.count && s == TPC_OK; i++) {
        const struct given *g = &args->given.at[i];
        if (strcmp(g->name, "--pin") == 0)
            s = steer_add_pin(arena, steering, g->value, diag);
        else if (strcmp(g->name, "--tp-plan") == 0)
            s = steer_read_plan(arena, steering, g->value, tensor_ranks(out), diag);
    }
    out->steering = steering;
    out->even = args_flag(args, "--even");
    out->use_annotations = args_flag(args, "--use-annotations");
    return s;
}
