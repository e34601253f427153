/* frontend/cli/doctor.c - tpc doctor: what this machine offers, what tpc will use of it; and the table of operators. */
#include "runtime/doctor.h"
#include "frontend/cli/cli.h"

static const struct option_info options[] = {
    {"--operators", NULL, "print the supported ONNX operators as a Markdown table, nothing else"},
    {0},
};

static status doctor(struct arena *arena, const struct args *args, struct diag *diag)
{
    (void)diag;
    struct text t = {.arena = arena};
    if (args_flag(args, "--operators")) {
        onnx_print_operators(&t);
    } else {
        doctor_print(arena, &t);
    }
    fwrite(t.at, 1, t.length, stdout);
    return TPC_OK;
}

const struct command command_doctor = {
    .name = "doctor",
    .usage = "[--operators]",
    .summary = "what this machine offers and what tpc will use of it",
    .examples = "  tpc doctor\n",
    .options = options,
    .least = 0,
    .most = 0,
    .run = doctor,
};
