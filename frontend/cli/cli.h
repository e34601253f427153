/* frontend/cli/cli.h - the command line: one file per subcommand, one table of subcommands (main.c), one option parser (args.c).
 *
 * Results go to stdout, all else to stderr. A subcommand returns the exit code (enum status).
 */
#ifndef TPC_FRONTEND_CLI_H
#define TPC_FRONTEND_CLI_H

#include "frontend/budget.h"
#include "ir/tensor.h"
#include "runtime/engine.h"

struct option_info {
    const char *name;  /* "--tp", "-o"; NULL ends a table */
    const char *value; /* "N": takes a value; NULL: a flag */
    const char *help;
    bool many;            /* may be given several times; a flag may always */
    const char *not_with; /* options that exclude it, separated by spaces; said at one of the two */
    const char *needs;    /* one of these must be there too */
};

struct args;

struct command {
    const char *name;
    const char *usage;    /* what follows the name: "MODEL.onnx --tp N [-o PLAN]" */
    const char *summary;  /* one line */
    const char *examples; /* lines, each beginning with "  tpc " */
    const struct option_info *options;
    uint32_t least, most; /* positional arguments */
    status (*run)(struct arena *arena, const struct args *args, struct diag *diag);
};

struct given {
    const char *name, *value; /* value NULL for a flag */
};
struct args {
    const struct command *command;
    LIST(const char *) positional;
    LIST(struct given) given; /* in the order of the command line */
};

extern const struct command command_compile, command_run, command_dump, command_explain, command_verify, command_doctor;

/* Parses argv (after the subcommand). TPC_USAGE with one line that says what is wrong and what is known. */
status args_parse(struct arena *arena, const struct command *command, int argc, char **argv, struct diag *diag,
                  struct args *out);
void args_help(const struct command *command, FILE *to);
const char *args_value(const struct args *a, const char *name, const char *otherwise); /* the first given */
bool args_flag(const struct args *a, const char *name);
/* given[i] is NAME=..., NAME of so many bytes: TPC_USAGE where the same option has named it before. */
status args_once(const struct args *a, uint32_t i, size_t length, struct diag *diag);
/* Whole number in [least, most], else TPC_USAGE. *out is left alone when the option was not given. */
status args_number(const struct args *a, const char *name, int64_t least, int64_t most, int64_t *out,
                   struct diag *diag);
status args_real(const struct args *a, const char *name, double *out, struct diag *diag);

/* ---- compile.c ---- */
/* --set and --bind. */
status cli_import_options(struct arena *arena, const struct args *args, struct diag *diag, struct import_options *out);
/* "a/b" of "a/b/c", "" where there is no folder. */
const char *cli_folder_of(struct arena *arena, const char *path);
/* Both are there and are one file, whatever they are called. */
bool cli_same_file(const char *a, const char *b);
/* How the program's inputs and outputs lie on the ranks; all but states are whole. */
struct links cli_links(struct arena *arena, const struct compiled *c);

/* ---- mesh.c ---- */
#define CLI_MESH_OPTIONS                                                                                               \
    {"--tp", "N", .help = "number of ranks to split over (1 to 64); short for --mesh tp=N"},                           \
        {"--mesh", "dp=N,tp=N,...",                                                                                    \
         .help = "axes of ranks, outermost first: dp (batch), cp (sequence), tp (weights), ep (experts)",              \
         .not_with = "--tp"},                                                                                          \
    {                                                                                                                  \
        "--sequence-parallel", NULL, .help = "keep norms and residuals on sequence shards over tp"                     \
    }
/* ---- cost.c ---- */
#define CLI_COST_OPTIONS                                                                                               \
    {"--machine", "NAME|FILE",                                                                                         \
     .help = "what costs are weighed by: a100x8, h100x8, h200x8, cpu, or a file (docs/machine.md)"},                   \
        {"--nominal", "SYM=N[/M],...",                                                                                 \
         .help = "extents that costs assume, at prefill and at decode (512/1; a batch is 1)", .many = true},           \
        {"--objective", "bytes|latency", .help = "what comes first: weights and states per rank (default), or time"},  \
    {                                                                                                                  \
        "--memory-budget", "SIZE", .help = "what a rank may hold at the nominal extents: 24GiB, 800MB"                 \
    }
/* All of these; budget->choose_ranks is set already. */
status cli_cost(struct arena *arena, const struct args *args, struct diag *diag, struct compile_options *out,
                struct budget *budget);
/* --mesh or --tp, and --sequence-parallel, into the options' ranks, axes and sequence. Neither given: `ranks` is left alone. */
status cli_mesh(struct arena *arena, const struct args *args, struct diag *diag, struct compile_options *out);

/* ---- device.c ---- */
#define CLI_DEVICE_OPTIONS                                                                                             \
    {"--device", "cuda|cpu", .help = "where ranks compute (cuda where there are as many GPUs as ranks, else cpu)"},    \
        {"--gpus", "0,1,...", .help = "the GPU of each rank of this process (0, 1, ...; a process: its local rank)"},  \
    {                                                                                                                  \
        "--collectives", "nccl|host", .help = "between GPUs by NCCL, or through host memory (ranks may share a GPU)"   \
    }
/* Fills in what is about devices, for so many ranks; out->processes and local_rank are set. */
status cli_device(struct arena *arena, const struct args *args, uint32_t ranks, bool gpus_by_default, struct diag *diag,
                  struct engine_options *out);
/* Bytes of intermediate values at the plan's nominal extents: the most that a rank has. */
uint64_t cli_planned_activations(const struct plan *plan);

/* ---- ranks.c ---- */
struct ranks; /* this process as one rank of several */
struct processes;
/* *out is NULL where no launcher has started several processes (or it failed). Behind it diagnostics are kept for cli_ranks_leave. Takes --timeout. */
status cli_ranks_join(struct arena *arena, const struct args *args, const struct plan *plan, struct diag *diag,
                      struct ranks **out);
struct processes *cli_ranks_processes(const struct ranks *r); /* NULL of NULL, as in what follows */
uint32_t cli_ranks_local(const struct ranks *r);              /* this process's place on its host */
bool cli_ranks_speaks(const struct ranks *r);                 /* this process prints and writes the results */
status cli_ranks_leave(struct ranks *r, status s);            /* what to exit with; engines are not used any more */

/* ---- steer.c ---- */
#define CLI_STEER_OPTIONS                                                                                              \
    {"--pin", "PATTERN=STYLE", .help = "split what the pattern names so (docs/steering.md)", .many = true},            \
        {"--tp-plan", "FILE", .help = "the same from a JSON file of patterns and styles, as Hugging Face's tp_plan",   \
         .many = true},                                                                                                \
        {"--even", NULL, .help = "only cuts into equal parts"},                                                        \
    {                                                                                                                  \
        "--use-annotations", NULL, .help = "split as the model's ONNX device annotations say"                          \
    }
/* After cli_mesh. */
status cli_steering(struct arena *arena, const struct args *args, struct diag *diag, struct compile_options *out);

/* ---- tensors.c ---- */
/* DIR/input_K.pb or DIR/output_K.pb for K < count; TPC_NOINPUT where one is missing. */
status cli_read_folder(struct arena *arena, const char *folder, const char *stem, uint32_t count, struct tensor *out,
                       struct diag *diag);
/* @x.npy, @x.pb, or a literal (runtime/tensor_file.h). */
status cli_read_tensor(struct arena *arena, const char *spec, dtype wanted, struct tensor *out, struct diag *diag);
status cli_write_tensor(struct arena *arena, const char *path, const char *name, const struct tensor *t,
                        struct diag *diag);
/* Makes input i up: integers that index something stay in range, other integers and bools are 1, floats lie in [-1, 1). extent[s]: value of symbol s. */
status cli_random_input(struct arena *arena, const struct graph *g, const struct links *links, uint32_t i,
                        uint64_t seed, const int64_t *extent, struct tensor *out, struct diag *diag);
/* Default extents for made-up inputs: DEFAULT_EXTENT for every symbol, but `--size SYM=N`s. */
status cli_extents(struct arena *arena, const struct args *args, const struct graph *g, int64_t **extent,
                   struct diag *diag);

/* ---- generate.c ---- */
struct engine;
struct generate_first;
/* tpc run --generate `count`. given: per input of the program, dtype DT_NONE where it was not. first: NULL without --first. */
status cli_generate(struct arena *arena, const struct args *args, const struct plan *plan, struct engine *engine,
                    const struct tensor *given, const struct generate_first *first, int64_t count, struct diag *diag);

#endif
