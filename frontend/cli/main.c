/* frontend/cli/main.c - finds the subcommand and runs it inside the guard that turns a failed allocation into exit code 71. */
#include "frontend/cli/cli.h"
#include "runtime/tpc.h"

#include <fcntl.h>
#include <unistd.h>

static const struct command *const commands[] = {&command_compile, &command_run,    &command_dump,
                                                 &command_explain, &command_verify, &command_doctor};
enum { COMMANDS = sizeof commands / sizeof commands[0] };

static void usage(FILE *to)
{
    fprintf(to,
            "tpc %s - takes a Transformer as an ONNX file, splits it over N ranks, proves the split, and runs "
            "it\n\nUsage:\n",
            TPC_VERSION);
    for (size_t i = 0; i < COMMANDS; i++) {
        fprintf(to, "  tpc %-8s %s\n", commands[i]->name, commands[i]->summary);
    }
    fprintf(
        to,
        "\n`tpc COMMAND --help` shows a command's options and examples.\n"
        "Exit codes: 0; 1 verify found a difference; 64 usage; 65 bad model, plan or tensor; 66 no such file;\n"
        "69 unsupported, or something needed is missing; 70 internal; 71 out of memory; 74 input or output failed;\n"
        "75 ranks that are processes did not come together, or one was lost.\n");
}

struct invocation {
    struct arena *arena;
    const struct command *command;
    int argc;
    char **argv;
    struct diag diag;
};

static status invoke(void *context)
{
    struct invocation *v = context;
    for (int i = 0; i < v->argc; i++) {
        if (strcmp(v->argv[i], "--help") == 0 || strcmp(v->argv[i], "-h") == 0) {
            args_help(v->command, stdout);
            return TPC_OK;
        }
    }
    struct args args;
    status s = args_parse(v->arena, v->command, v->argc, v->argv, &v->diag, &args);
    return s != TPC_OK ? s : v->command->run(v->arena, &args, &v->diag);
}

/* A result that did not reach its reader is no success. */
static int end(status s)
{
    if ((fflush(stdout) != 0 || ferror(stdout)) && s == TPC_OK) {
        s = diag_error(NULL, TPC_IO, NULL, "cannot write to standard output");
    }
    return (int)s;
}

/* A file that is opened must not become standard output: where that is closed, something stands there that cannot be written to. */
static void keep_streams(void)
{
    int file;
    do {
        file = open("/dev/null", O_RDONLY);
    } while (file >= 0 && file <= 2);
    if (file > 2) {
        (void)close(file);
    }
}

int main(int argc, char **argv)
{
    keep_streams();
    if (argc < 2) {
        usage(stderr);
        return TPC_USAGE;
    }
    bool help = strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0;
    const char *name = help && argc > 2 ? argv[2] : argv[1]; /* tpc help run */
    if (help && argc == 2) {
        usage(stdout);
        return end(TPC_OK);
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("tpc %s\n", TPC_VERSION);
        return end(TPC_OK);
    }
    struct invocation v = {.argc = argc - 2, .argv = argv + 2};
    for (size_t i = 0; i < COMMANDS; i++) {
        if (strcmp(name, commands[i]->name) == 0) {
            v.command = commands[i];
        }
    }
    if (v.command == NULL) {
        return (int)diag_error(NULL, TPC_USAGE, NULL,
                               "unknown command '%s' (compile, run, dump, explain, verify, doctor; see tpc --help)",
                               name);
    }
    if (help) {
        args_help(v.command, stdout);
        return end(TPC_OK);
    }
    v.arena = arena_new();
    if (v.arena == NULL) {
        return (int)diag_error(NULL, TPC_NOMEM, NULL, "out of memory");
    }
    status s = guard_run(&v.diag, invoke, &v);
    arena_free(v.arena);
    return end(s);
}
