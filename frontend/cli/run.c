/* frontend/cli/run.c - tpc run: a plan on its ranks, with given or made-up inputs, or writing text. */
#include "frontend/cli/cli.h"
#include "runtime/generate.h"
#include "runtime/layout.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

static const struct option_info options[] = {
    {"--input", "NAME=SPEC", .help = "@x.npy, @x.pb or a literal such as 2x3xi64=1,2,3,4,5,6", .many = true},
    {"--inputs", "DIR", .help = "input_0.pb, input_1.pb, ... in the order of the model's inputs",
     .not_with = "--generate"},
    {"--output", "NAME=@FILE", .help = "write an output to a .npy or .pb file", .many = true, .not_with = "--generate"},
    {"--outputs", "DIR", .help = "write all as output_0.pb, output_1.pb, ...", .not_with = "--generate"},
    {"--random-inputs", "SEED", .help = "make up the inputs that are not given", .not_with = "--generate"},
    {"--size", "SYMBOL=N", .help = "a dynamic extent of made-up inputs (8)", .many = true, .needs = "--random-inputs"},
    {"--repeat", "N", .help = "run N times and print each run's time to stderr", .not_with = "--generate"},
    {"--generate", "N", .help = "write at most N tokens per prompt (docs/generation.md)"},
    {"--prompt", "TEXT", .help = "bytes to go on from (byte-level models)", .needs = "--generate",
     .not_with = "--prompt-ids --batch-file"},
    {"--prompt-ids", "1,2,3", .help = "token ids to go on from", .needs = "--generate"},
    {"--batch-file", "FILE", .help = "one prompt per line: token ids, or else texts (byte-level models)",
     .needs = "--generate", .not_with = "--prompt-ids"},
    {"--text", NULL, .help = "the lines of --batch-file are texts, whatever they look like", .needs = "--batch-file"},
    {"--temperature", "T", .help = "draw tokens at this temperature (0: take the likeliest; 1 with --top-k or --top-p)",
     .needs = "--generate"},
    {"--top-k", "K", .help = "draw among the K likeliest", .needs = "--generate"},
    {"--top-p", "P", .help = "draw among the fewest likeliest that reach probability P together",
     .needs = "--generate"},
    {"--seed", "S", .help = "of the draws (0)", .needs = "--generate"},
    {"--eos", "ID,...", .help = "tokens that end a text", .many = true, .needs = "--generate"},
    {"--context", "N", .help = "room for N tokens in the model's states (they grow)", .needs = "--generate"},
    {"--first", "PLAN",
     .help = "runs the prompt and hands its states over (a decoder without past); --input may name its inputs",
     .needs = "--generate"},
    {"--bind", "INPUT=ROLE", .help = "fill an input as tokens, mask, positions, past_length or total_length",
     .many = true, .needs = "--generate"},
    CLI_DEVICE_OPTIONS,
    {"--threads", "N", .help = "threads per rank (cores / ranks)"},
    {"--times", NULL, .help = "print each token's time, and what was loaded and launched, to stderr"},
    {"--profile", NULL, .help = "wait for every step, and print where the time went to stderr"},
    {"--timeout", "SECONDS", .help = "ranks that are processes: how long one may be missing or silent (30)"},
    {0},
};

struct job {
    struct arena *arena;
    const struct args *args;
    struct diag *diag;
    struct plan *plan;
    const struct graph *graph;
    struct tensor *inputs;
    bool *given;
    struct engine *engine;
    const struct graph *other; /* with --first: of the other plan; --input may name its inputs too */
    bool speaks;               /* of several processes one writes the results */
};

static void close_engine(void *object)
{
    engine_close(object);
}

/* What is wrong, then what the model wants. */
static status wanted_inputs(const struct job *j, const char *wrong)
{
    struct graph *g = j->plan->program->graph;
    const struct links *links = &j->plan->links;
    status s = diag_error(j->diag, TPC_DATA, j->args->positional.at[0], "%s", wrong);
    if (j->speaks) {
        fprintf(stderr, "the model wants:\n");
    }
    for (uint32_t i = 0; i < g->inputs.count && j->speaks; i++) {
        const struct node *n = graph_node(g, g->inputs.at[i].value);
        struct text t = {.arena = j->arena};
        for (uint32_t a = 0; a < n->rank; a++) {
            text_put(&t, a > 0 ? ", " : "");
            bool placed = links->input != NULL &&
                          links->input[i] != NULL; /* a state's shape here is a rank's: the whole is wanted */
            dim_print(g->dims, placed ? axis_extent(g, &links->input[i]->axis[a]) : n->shape[a], &t);
        }
        fprintf(stderr, "  %s %s [%s]\n", arena_printable(j->arena, g->inputs.at[i].name), dtype_name(n->dtype),
                t.at == NULL ? "" : t.at);
    }
    return s;
}

static uint32_t find_input(const struct graph *g, const char *name, size_t length)
{
    for (uint32_t i = 0; i < g->inputs.count; i++) {
        if (strlen(g->inputs.at[i].name) == length && memcmp(g->inputs.at[i].name, name, length) == 0) {
            return i;
        }
    }
    return UINT32_MAX;
}

/* The '=' behind the name in NAME=SPEC: the first one such that NAME is known (names may hold '='). */
static const char *name_end(const struct graph *g, const char *text, bool output)
{
    for (const char *e = strchr(text, '='); e != NULL; e = strchr(e + 1, '=')) {
        size_t n = (size_t)(e - text);
        if (!output && find_input(g, text, n) != UINT32_MAX) {
            return e;
        }
        for (uint32_t i = 0; i < g->outputs.count && output; i++) {
            if (strlen(g->outputs.at[i].name) == n && memcmp(g->outputs.at[i].name, text, n) == 0) {
                return e;
            }
        }
    }
    return NULL;
}

static dtype input_type(const struct graph *g, uint32_t i)
{
    return graph_node(g, g->inputs.at[i].value)->dtype;
}

/* --inputs and --input. */
static status read_given(struct job *j)
{
    const struct graph *g = j->graph;
    const char *folder = args_value(j->args, "--inputs", NULL);
    status s = TPC_OK;
    if (folder != NULL) {
        s = cli_read_folder(j->arena, folder, "input", g->inputs.count, j->inputs, j->diag);
        memset(j->given, 1, g->inputs.count * sizeof *j->given);
    }
    for (uint32_t i = 0; i < j->args->given.count && s == TPC_OK; i++) {
        const struct given *o = &j->args->given.at[i];
        if (strcmp(o->name, "--input") != 0) {
            continue;
        }
        const char *e = name_end(g, o->value, false);
        if (e == NULL && j->other != NULL && name_end(j->other, o->value, false) != NULL) {
            continue;
        }
        if (e == NULL) {
            const char *first = strchr(o->value, '=');
            return first == NULL
                       ? diag_error(j->diag, TPC_USAGE, NULL, "run: --input is '%s' but must be NAME=SPEC", o->value)
                       : wanted_inputs(j, arena_printf(j->arena, "the model has no input '%.*s'",
                                                       (int)(first - o->value), o->value));
        }
        uint32_t k = find_input(g, o->value, (size_t)(e - o->value));
        s = args_once(j->args, i, (size_t)(e - o->value), j->diag);
        s = s != TPC_OK ? s : cli_read_tensor(j->arena, e + 1, input_type(g, k), &j->inputs[k], j->diag);
        j->given[k] = true;
    }
    return s;
}

static status read_inputs(struct job *j)
{
    const struct graph *g = j->graph;
    const char *seed = args_value(j->args, "--random-inputs", NULL);
    int64_t number = 0, *extent = NULL;
    status s = read_given(j);
    if (s == TPC_OK && seed != NULL) {
        s = args_number(j->args, "--random-inputs", 0, INT64_MAX, &number, j->diag);
        s = s == TPC_OK ? cli_extents(j->arena, j->args, g, &extent, j->diag) : s;
    }
    for (uint32_t i = 0; i < g->inputs.count && s == TPC_OK; i++) {
        if (j->given[i]) {
            continue;
        }
        s = seed == NULL
                ? wanted_inputs(j, arena_printf(j->arena, "input '%s' is missing", g->inputs.at[i].name))
                : cli_random_input(j->arena, g, &j->plan->links, i, (uint64_t)number, extent, &j->inputs[i], j->diag);
    }
    return s;
}

static void print_output(const struct job *j, const char *name, const struct tensor *t)
{
    enum { SHOWN = 8 };
    printf("%s %s [", arena_printable(j->arena, name), tensor_type_text(t, j->arena));
    for (size_t i = 0; i < t->count && i < SHOWN; i++) {
        if (dtype_is_float(t->dtype)) {
            printf("%s%.6g", i == 0 ? "" : ", ", dtype_load_f64(t->dtype, t->data, i));
        } else {
            printf("%s%lld", i == 0 ? "" : ", ", (long long)dtype_load_i64(t->dtype, t->data, i));
        }
    }
    printf("%s]\n", t->count > SHOWN ? ", ..." : "");
}

static status write_outputs(struct job *j)
{
    const struct graph *g = j->graph;
    const char *folder = args_value(j->args, "--outputs", NULL);
    bool written = folder != NULL || args_value(j->args, "--output", NULL) != NULL;
    if (folder != NULL && j->speaks && mkdir(folder, 0777) != 0) {
        struct stat st;
        int why = errno;
        if (stat(folder, &st) != 0 || !S_ISDIR(st.st_mode)) {
            return diag_error(j->diag, TPC_IO, folder, "cannot make the folder: %s", strerror(why));
        }
    }
    for (uint32_t i = 0; i < g->outputs.count; i++) {
        struct tensor t;
        const char *name = g->outputs.at[i].name;
        status s = engine_output(j->engine, i, j->diag, &t); /* every rank asks: parts are put together */
        if (s == TPC_OK && !j->speaks) {
            continue;
        }
        if (s == TPC_OK && folder != NULL) {
            s = cli_write_tensor(j->arena, arena_printf(j->arena, "%s/output_%u.pb", folder, i), name, &t, j->diag);
        }
        for (uint32_t k = 0; k < j->args->given.count && s == TPC_OK; k++) {
            const struct given *o = &j->args->given.at[k];
            const char *e = strcmp(o->name, "--output") == 0 ? name_end(g, o->value, true) : NULL;
            if (e != NULL && strlen(name) == (size_t)(e - o->value) && memcmp(o->value, name, strlen(name)) == 0) {
                s = cli_write_tensor(j->arena, e[1] == '@' ? e + 2 : e + 1, name, &t, j->diag);
            }
        }
        if (s != TPC_OK) {
            return s;
        }
        if (!written) {
            print_output(j, name, &t);
        }
    }
    return TPC_OK;
}

static status check_output_names(struct job *j)
{
    for (uint32_t k = 0; k < j->args->given.count; k++) {
        const struct given *o = &j->args->given.at[k];
        if (strcmp(o->name, "--output") != 0) {
            continue;
        }
        const char *e = name_end(j->graph, o->value, true);
        if (e == NULL || e[1] == 0 || strcmp(e, "=@") == 0) {
            struct text t = {.arena = j->arena};
            for (uint32_t i = 0; i < j->graph->outputs.count; i++) {
                text_printf(&t, "%s%s", i == 0 ? "" : ", ", j->graph->outputs.at[i].name);
            }
            return diag_error(j->diag, TPC_USAGE, NULL,
                              "run: --output is '%s' but must be NAME=@FILE (the model's outputs: %s)", o->value,
                              t.at == NULL ? "none" : t.at);
        }
    }
    return TPC_OK;
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static status run_inputs(struct job *j)
{
    int64_t repeat = 1;
    status s = args_number(j->args, "--repeat", 1, 1000000, &repeat, j->diag);
    s = s == TPC_OK ? check_output_names(j) : s;
    s = s == TPC_OK ? read_inputs(j) : s;
    for (int64_t k = 0; k < repeat && s == TPC_OK; k++) {
        double begin = seconds();
        s = engine_run(j->engine, j->inputs, NULL, j->diag);
        if (s == TPC_OK && j->speaks && args_value(j->args, "--repeat", NULL) != NULL) {
            fprintf(stderr, "run %lld: %.3f ms\n", (long long)k, 1e3 * (seconds() - begin));
        }
    }
    return s == TPC_OK ? write_outputs(j) : s;
}

static void make_job(struct job *j)
{
    j->graph = j->plan->program->graph;
    j->inputs = NEW_ARRAY(j->arena, struct tensor, j->graph->inputs.count + 1);
    j->given = NEW_ARRAY(j->arena, bool, j->graph->inputs.count + 1);
}

static status run_generation(struct job *j, const struct engine_options *o, int64_t count)
{
    const char *path = args_value(j->args, "--first", NULL);
    struct job other = {.arena = j->arena, .args = j->args, .diag = j->diag, .other = j->graph};
    struct generate_first first;
    status s = path == NULL ? TPC_OK : plan_read(j->arena, path, j->diag, &other.plan);
    if (path == NULL || s != TPC_OK) {
        s = s == TPC_OK ? read_given(j) : s;
        return s == TPC_OK ? cli_generate(j->arena, j->args, j->plan, j->engine, j->inputs, NULL, count, j->diag) : s;
    }
    if (o->processes != NULL) {
        return diag_error(j->diag, TPC_UNSUPPORTED, NULL, "run: --first works in one process only");
    }
    make_job(&other);
    j->other = other.graph;
    if ((s = read_given(j)) != TPC_OK || (s = read_given(&other)) != TPC_OK) {
        return s;
    }
    s = engine_open(other.plan->program, &other.plan->links, other.plan->folder, o, j->diag, &other.engine);
    if (s != TPC_OK) {
        return s;
    }
    arena_defer(j->arena, close_engine, other.engine);
    first = (struct generate_first){other.engine, other.plan, other.inputs};
    return cli_generate(j->arena, j->args, j->plan, j->engine, j->inputs, &first, count, j->diag);
}

static status run_plan(struct job *j, struct engine_options *o, int64_t count)
{
    status s = cli_device(j->arena, j->args, j->graph->mesh.ranks, true, j->diag, o);
    s = s != TPC_OK ? s : engine_open(j->plan->program, &j->plan->links, j->plan->folder, o, j->diag, &j->engine);
    if (s != TPC_OK) {
        return s;
    }
    arena_defer(j->arena, close_engine, j->engine);
    if (count < 0) {
        s = run_inputs(j);
    } else {
        s = run_generation(j, o, count);
    }
    if (s == TPC_OK && (o->profile || args_flag(j->args, "--times")) && j->speaks) {
        struct text t = {.arena = j->arena};
        engine_profile(j->engine, 20, &t);
        fputs(t.at == NULL ? "" : t.at, stderr);
    }
    return s;
}

static status run(struct arena *arena, const struct args *args, struct diag *diag)
{
    struct job j = {.arena = arena, .args = args, .diag = diag};
    struct ranks *ranks = NULL;
    int64_t count = -1, threads = 0;
    status s = args_number(args, "--generate", 0, 1000000, &count, diag);
    s = s == TPC_OK ? args_number(args, "--threads", 1, 1024, &threads, diag) : s;
    if (s != TPC_OK || (s = plan_read(arena, args->positional.at[0], diag, &j.plan)) != TPC_OK ||
        (s = cli_ranks_join(arena, args, j.plan, diag, &ranks)) != TPC_OK) {
        return s;
    }
    make_job(&j);
    j.speaks = cli_ranks_speaks(ranks);
    struct engine_options o = {.threads = (uint32_t)threads,
                               .profile = args_flag(args, "--profile"),
                               .processes = cli_ranks_processes(ranks),
                               .local_rank = cli_ranks_local(ranks),
                               .activations = cli_planned_activations(j.plan)};
    return cli_ranks_leave(ranks, run_plan(&j, &o, count));
}

const struct command command_run = {
    .name = "run",
    .usage = "PLAN [--input NAME=SPEC]... [--inputs DIR] [--output NAME=@FILE]... [--outputs DIR] [--random-inputs "
             "SEED] [--repeat N] | --generate N --prompt TEXT|--prompt-ids IDS|--batch-file FILE [OPTION]...",
    .summary = "run a plan on its ranks",
    .examples = "  tpc run plan.bin --input ids=1x3xi64=5,6,7 --output logits=@logits.npy\n"
                "  tpc run plan.bin --inputs test_data_set_0 --outputs out\n"
                "  tpc run plan.bin --random-inputs 1 --size sequence=512 --repeat 10\n"
                "  tpc run plan.bin --prompt 'Once upon' --generate 100 --temperature 0.8 --seed 1\n"
                "  tpc run plan.bin --batch-file prompts.txt --generate 20 --eos 2\n",
    .options = options,
    .least = 1,
    .most = 1,
    .run = run,
};
