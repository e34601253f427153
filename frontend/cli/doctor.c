/* frontend/cli/doctor.c - tpc doctor: what this machine offers, what tpc will use of it, how fast it is; and the table of operators. */
#include "runtime/doctor.h"
#include "frontend/cli/cli.h"
#include "frontend/machine.h"
#include "ir/output.h"
#include "runtime/measure.h"

#include <stdlib.h>

static const struct option_info options[] = {
    {"--operators", NULL, .help = "print the supported ONNX operators as a Markdown table, nothing else",
     .not_with = "--machine"},
    {"--machine", NULL,
     .help = "measure this machine and write a machine file (docs/machine.md): to FILE, else to stdout"},
    {0},
};

/* What was measured, in two digits: the rest is noise. */
static double rounded(struct arena *arena, double x)
{
    return atof(arena_printf(arena, "%.2g", x));
}

static void machine_of(struct arena *arena, const struct measured *m, struct machine *out)
{
    *out = (struct machine){.name = arena_printf(arena, "measured on %u ranks", (unsigned)m->ranks),
                            .devices = m->ranks,
                            .memory = m->memory,
                            .memory_bandwidth = rounded(arena, m->memory_bandwidth),
                            .level_count = 1};
    out->level[0] = (struct machine_link){m->ranks < 2 ? 2 : m->ranks, rounded(arena, m->link_latency),
                                          rounded(arena, m->link_bandwidth)};
    for (dtype t = DT_NONE + 1; t < DT_COUNT; t++) {
        out->flops[t] = rounded(arena, m->flops[t]);
    }
}

static status measure(struct arena *arena, const char *file, struct diag *diag)
{
    struct text t = {.arena = arena};
    struct measured measured;
    struct machine machine;
    status s = measure_machine(&measured, diag);
    if (s != TPC_OK) {
        return s;
    }
    machine_of(arena, &measured, &machine);
    machine_print(&machine, &t);
    if (file == NULL) {
        fwrite(t.at, 1, t.length, stdout);
        return TPC_OK;
    }
    struct output_file out;
    s = output_open(file, diag, &out);
    return s != TPC_OK ? s : output_close(&out, fwrite(t.at, 1, t.length, out.to) == t.length, diag);
}

static status doctor(struct arena *arena, const struct args *args, struct diag *diag)
{
    struct text t = {.arena = arena};
    const char *file = args->positional.count > 0 ? args->positional.at[0] : NULL;
    if (args_flag(args, "--machine")) {
        return measure(arena, file, diag);
    }
    if (file != NULL) {
        return diag_error(diag, TPC_USAGE, NULL, "doctor: '%s': a file is written with --machine only", file);
    }
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
    .usage = "[--operators | --machine [FILE]]",
    .summary = "what this machine offers and what tpc will use of it",
    .examples = "  tpc doctor\n"
                "  tpc doctor --machine here.json && tpc compile model.onnx --tp 2 --machine here.json\n",
    .options = options,
    .least = 0,
    .most = 1,
    .run = doctor,
};
