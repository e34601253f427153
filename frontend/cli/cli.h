/* frontend/cli/cli.h - the command line: one file per subcommand, one table of subcommands (main.c), one option parser (args.c).
 *
 * Results go to stdout, all else to stderr. A subcommand returns the exit code (enum status).
 */
#ifndef TPC_FRONTEND_CLI_H
#define TPC_FRONTEND_CLI_H

#include "ir/base.h"

struct option_info {
    const char *name;  /* "--tp", "-o"; NULL ends a table */
    const char *value; /* "N": takes a value; NULL: a flag */
    const char *help;
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

extern const struct command command_compile, command_run, command_dump, command_verify, command_doctor;

/* Parses argv (after the subcommand). TPC_USAGE with one line that says what is wrong and what is known. */
status args_parse(struct arena *arena, const struct command *command, int argc, char **argv, struct diag *diag, struct args *out);
void args_help(const struct command *command, FILE *to);
const char *args_value(const struct args *a, const char *name, const char *otherwise); /* the last given */
bool args_flag(const struct args *a, const char *name);
/* Whole number in [least, most], else TPC_USAGE. *out is left alone when the option was not given. */
status args_number(const struct args *a, const char *name, int64_t least, int64_t most, int64_t *out, struct diag *diag);
status args_real(const struct args *a, const char *name, double *out, struct diag *diag);

#endif
