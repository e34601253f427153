/* frontend/cli/compile.c - tpc compile: a model file to a plan file. Nothing is written unless everything was proven. */
#include "codegen/cuda.h"
#include "frontend/cli/cli.h"

#include <stdlib.h>
#include <sys/stat.h>

static const struct option_info options[] = {
    CLI_MESH_OPTIONS,
    CLI_COST_OPTIONS,
    CLI_STEER_OPTIONS,
    {"--state-from", "PLAN", .help = "keep states where PLAN has them, so that `run --first` hands them over in place"},
    {"-o", "PLAN", .help = "where to write the plan (default: MODEL's name with .plan.bin, in this folder)"},
    {"--set", "SYMBOL=N", .help = "fix a dynamic extent", .many = true},
    {"--bind", "INPUT=VALUE", .help = "make an input a constant, the same everywhere (true, false or a number)",
     .many = true},
    {"--dump-after", "PASS",
     .help = "print the Graph or Program behind import, simplify, solve, parallelize, fuse or schedule"},
    {"--annotate", "OUT.onnx", .help = "also write the model with the split as ONNX device annotations"},
    {"--emit", "DIR", .help = "write the generated kernels' sources to DIR: C and CUDA"},
    {"--embed-weights", NULL, .help = "put the weights into the plan, so that it can be moved alone"},
    {0},
};

/* "NAME=VALUE" in two; the last '=' divides, since names may hold one. */
static status divide(struct arena *arena, const char *command, const char *option, const char *text, const char **name,
                     const char **v, struct diag *diag)
{
    const char *equals = strrchr(text, '=');
    if (equals == NULL || equals == text || equals[1] == 0) {
        return diag_error(diag, TPC_USAGE, NULL, "%s: %s is '%s' but must be NAME=VALUE", command, option, text);
    }
    *name = arena_strndup(arena, text, (size_t)(equals - text));
    *v = equals + 1;
    return TPC_OK;
}

status cli_import_options(struct arena *arena, const struct args *args, struct diag *diag, struct import_options *out)
{
    struct import_symbol *symbol = NEW_ARRAY(arena, struct import_symbol, args->given.count + 1);
    struct import_binding *binding = NEW_ARRAY(arena, struct import_binding, args->given.count + 1);
    *out = (struct import_options){.symbol = symbol, .binding = binding};
    for (uint32_t i = 0; i < args->given.count; i++) {
        const struct given *g = &args->given.at[i];
        const char *name = NULL, *v = NULL;
        bool set = strcmp(g->name, "--set") == 0;
        if (!set && strcmp(g->name, "--bind") != 0) {
            continue;
        }
        status s = divide(arena, args->command->name, g->name, g->value, &name, &v, diag);
        s = s != TPC_OK ? s : args_once(args, i, strlen(name), diag);
        if (s != TPC_OK) {
            return s;
        }
        if (!set) {
            binding[out->binding_count++] = (struct import_binding){.name = name, .value = v};
            continue;
        }
        char *end = NULL;
        long long n = strtoll(v, &end, 10);
        if (*end != 0 || n < 0 || n > INT32_MAX) {
            return diag_error(diag, TPC_USAGE, NULL, "%s: --set %s: '%s' must be a whole number from 0 to %d",
                              args->command->name, name, v, INT32_MAX);
        }
        symbol[out->symbol_count++] = (struct import_symbol){name, n};
    }
    return TPC_OK;
}

const char *cli_folder_of(struct arena *arena, const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash == NULL ? "" : slash == path ? "/" : arena_strndup(arena, path, (size_t)(slash - path));
}

bool cli_same_file(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* A plan is never written over what it is made from: the model, its weights. */
static status check_place(struct arena *arena, const char *model, const char *plan, const char *other,
                          const char *annotate, const struct graph *g, struct diag *diag)
{
    const char *folder = cli_folder_of(arena, model);
    bool over = cli_same_file(plan, model);
    for (uint32_t i = 0; i < g->files.count && !over; i++) {
        const char *file = g->files.at[i].path;
        over = cli_same_file(plan, arena_printf(arena, "%s%s%s", folder, *folder ? "/" : "", file));
    }
    if (over) {
        return diag_error(diag, TPC_USAGE, plan,
                          "the plan would overwrite the model or its weights; name another file with -o");
    }
    if (other != NULL && cli_same_file(plan, other)) {
        return diag_error(diag, TPC_USAGE, plan, "the plan would overwrite that of --state-from; name another file");
    }
    if (annotate != NULL && (strcmp(plan, annotate) == 0 || cli_same_file(plan, annotate))) {
        return diag_error(diag, TPC_USAGE, plan, "-o and --annotate name the same file; name two");
    }
    return TPC_OK;
}

static const char *default_plan(struct arena *arena, const char *model)
{
    const char *slash = strrchr(model, '/'), *base = slash == NULL ? model : slash + 1, *dot = strrchr(base, '.');
    return arena_printf(arena, "%.*s.plan.bin", dot == NULL ? (int)strlen(base) : (int)(dot - base), base);
}

static status known_pass(const char *pass, struct diag *diag)
{
    for (const char *const *p = compile_passes; *p != NULL; p++) {
        if (strcmp(*p, pass) == 0) {
            return TPC_OK;
        }
    }
    return diag_error(diag, TPC_USAGE, NULL,
                      "compile: --dump-after knows no pass '%s' (import, simplify, solve, parallelize, fuse, schedule)",
                      pass);
}

struct links cli_links(struct arena *arena, const struct compiled *c)
{
    const struct graph *g = c->graph;
    struct links l = {NEW_ARRAY(arena, const struct placement *, g->inputs.count + 1), c->solution->output};
    for (uint32_t i = 0; i < g->inputs.count; i++) {
        l.input[i] = c->solution->result[g->inputs.at[i].value];
    }
    return l;
}

/* A Graph in text form was imported before. */
static status check_text(const char *model, const struct args *args, struct diag *diag)
{
    static const char *const importing[] = {"--set", "--bind", "--annotate", "--use-annotations"};
    size_t n = strlen(model);
    for (size_t i = 0; n > 4 && strcmp(model + n - 4, ".tpc") == 0 && i < sizeof importing / sizeof *importing; i++) {
        if (args_flag(args, importing[i])) {
            return diag_error(diag, TPC_USAGE, model, "%s is for ONNX models, and this is a Graph in text form",
                              importing[i]);
        }
    }
    return TPC_OK;
}

static status compile(struct arena *arena, const struct args *args, struct diag *diag)
{
    const char *model = args->positional.at[0];
    struct compile_options o = {
        .prices = true, .dump_after = args_value(args, "--dump-after", NULL), .dump_to = stdout};
    struct budget budget = {.choose_ranks = strcmp(args_value(args, "--tp", ""), "auto") == 0};
    status s = check_text(model, args, diag);
    s = s != TPC_OK ? s : cli_mesh(arena, args, diag, &o);
    if (s == TPC_OK && o.ranks == 0 && !budget.choose_ranks) {
        s = diag_error(diag, TPC_USAGE, NULL,
                       "compile: --tp (or --mesh) is missing: how many ranks to split over (1 to 64)");
    }
    s = s != TPC_OK ? s : cli_cost(arena, args, diag, &o, &budget);
    if (s == TPC_OK && o.dump_after != NULL) {
        s = known_pass(o.dump_after, diag);
    }
    if (s != TPC_OK || (s = cli_import_options(arena, args, diag, &o.import)) != TPC_OK ||
        (s = cli_steering(arena, args, diag, &o)) != TPC_OK) {
        return s;
    }
    struct compiled c;
    struct state_source from;
    const char *other = args_value(args, "--state-from", NULL);
    if (other != NULL) {
        s = budget.choose_ranks
                ? diag_error(diag, TPC_USAGE, NULL,
                             "compile: --tp auto: --state-from %s fixes the number of ranks; give it", other)
                : state_source_open(
                      arena, other,
                      &(struct solve_options){.ranks = o.ranks, .axis_count = o.axis_count, .axis = o.axis}, diag,
                      &from);
        o.state_from = &from;
    }
    if (s != TPC_OK || (s = compile_within(arena, model, &o, &budget, diag, &c)) != TPC_OK) {
        return s;
    }
    const char *annotate = args_value(args, "--annotate", NULL);
    const char *emit = args_value(args, "--emit", NULL), *plan = args_value(args, "-o", default_plan(arena, model));
    if ((s = check_place(arena, model, plan, other, annotate, c.graph, diag)) != TPC_OK) {
        return s;
    }
    if (annotate != NULL && (s = onnx_annotate(arena, model, annotate, c.graph, c.solution, diag)) != TPC_OK) {
        return s;
    }
    if (emit != NULL &&
        ((s = kernels_emit(c.program, emit, diag)) != TPC_OK || (s = cuda_emit(c.program, emit, diag)) != TPC_OK)) {
        return s;
    }
    struct plan_contents contents = {
        .program = c.program,
        .links = cli_links(arena, &c),
        .decisions = report_json(arena, &c),
        .weight_folder = cli_folder_of(arena, model),
        .embed_weights = args_flag(args, "--embed-weights"),
    };
    if ((s = plan_write(arena, plan, &contents, diag)) != TPC_OK) {
        return s;
    }
    if (c.solution->note != NULL && c.program->graph->mesh.ranks > 1) {
        fprintf(stderr, "%s: %s\n", plan, c.solution->note);
    }
    return TPC_OK;
}

const struct command command_compile = {
    .name = "compile",
    .usage = "MODEL.onnx --tp N|auto|--mesh AXES [-o PLAN] [--set SYM=N]... [--bind INPUT=VALUE]... "
             "[--sequence-parallel] [--machine NAME|FILE] [--objective bytes|latency] [--memory-budget SIZE] "
             "[--nominal SYM=N[/M],...] [--pin PATTERN=STYLE]... [--tp-plan FILE] [--even] [--use-annotations] "
             "[--state-from PLAN] "
             "[--annotate OUT.onnx] [--dump-after PASS] [--emit DIR] [--embed-weights]",
    .summary = "split a model over N ranks, prove the split, write a plan",
    .examples = "  tpc compile model.onnx --tp 4 -o plan.bin\n"
                "  tpc compile model.onnx --mesh dp=2,tp=4 --sequence-parallel -o plan.bin\n"
                "  tpc compile model.onnx --tp auto --machine h100x8 --nominal sequence=4096/1,past=0/4096\n"
                "  tpc compile model.onnx --tp 4 --pin 'layers.*.mlp.down=row' --pin 'head=colwise_rep' -o plan.bin\n"
                "  tpc compile model.onnx --tp 2 --set batch_size=1 --dump-after solve\n"
                "  tpc compile decoder_merged.onnx --tp 4 --bind use_cache_branch=true -o decode.bin\n",
    .options = options,
    .least = 1,
    .most = 1,
    .run = compile,
};
