/* frontend/cli/cost.c - what plans are weighed by: --machine, --nominal, --objective, --memory-budget, and --tp auto. Start with cli_cost. */
#include "frontend/cli/cli.h"
#include "frontend/machine.h"

#include <errno.h>
#include <stdlib.h>

enum { MOST_RANKS = 64 };

/* A whole number from 0 on that ends at one of `ends` or at the text's end. */
static bool read_extent(const char **at, const char *ends, int64_t *out)
{
    char *end = NULL;
    errno = 0;
    long long n = strtoll(*at, &end, 10);
    if (errno != 0 || end == *at || n < 0 || n > INT32_MAX || (*end != 0 && strchr(ends, *end) == NULL)) {
        return false;
    }
    *at = end;
    *out = n;
    return true;
}

/* "SYMBOL=N" or "SYMBOL=N/M" (prefill/decode) at *at, up to a comma. */
static status read_nominal(struct arena *arena, const struct args *args, const char **at, struct nominal *out,
                           struct diag *diag)
{
    const char *text = *at, *equals = strchr(text, '=');
    size_t length = strcspn(text, ",");
    bool good = equals != NULL && equals > text;
    if (good) {
        out->symbol = arena_strndup(arena, text, (size_t)(equals - text));
        *at = equals + 1;
        good = read_extent(at, ",/", &out->value[NOMINAL_PREFILL]);
        out->value[NOMINAL_DECODE] = out->value[NOMINAL_PREFILL];
        if (good && **at == '/') {
            ++*at;
            good = read_extent(at, ",", &out->value[NOMINAL_DECODE]);
        }
    }
    if (!good) {
        return diag_error(diag, TPC_USAGE, NULL,
                          "%s: --nominal: '%.*s' must be SYMBOL=N or SYMBOL=N/M (at prefill and at decode)",
                          args->command->name, (int)(length > 100 ? 100 : length), text);
    }
    return TPC_OK;
}

static status read_nominals(struct arena *arena, const struct args *args, struct diag *diag,
                            struct compile_options *out)
{
    LIST(struct nominal) all = {0};
    for (uint32_t i = 0; i < args->given.count; i++) {
        const char *at = args->given.at[i].value;
        if (strcmp(args->given.at[i].name, "--nominal") != 0) {
            continue;
        }
        for (;; at++) {
            struct nominal *n = PUSH(arena, &all);
            status s = read_nominal(arena, args, &at, n, diag);
            for (uint32_t k = 0; s == TPC_OK && k + 1 < all.count; k++) {
                if (strcmp(all.at[k].symbol, n->symbol) == 0) {
                    s = diag_error(diag, TPC_USAGE, NULL, "%s: --nominal gives %s twice", args->command->name,
                                   n->symbol);
                }
            }
            if (s != TPC_OK) {
                return s;
            }
            if (*at == 0) {
                break;
            }
        }
    }
    out->nominal = all.at;
    out->nominal_count = all.count;
    return TPC_OK;
}

/* "24GiB", "800MB", "12345": a number and a unit. */
static status read_bytes(const struct args *args, const char *text, uint64_t *out, struct diag *diag)
{
    static const struct {
        const char *name;
        double bytes;
    } units[] = {{"", 1},      {"B", 1},         {"KB", 1e3},      {"MB", 1e6},      {"GB", 1e9},
                 {"TB", 1e12}, {"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1099511627776.0}};
    char *end = NULL;
    double n = strtod(text, &end);
    for (size_t i = 0; i < sizeof units / sizeof *units && end != text; i++) {
        double bytes = n * units[i].bytes;
        if (strcmp(end, units[i].name) == 0 && bytes >= 1 && bytes <= 1e17) {
            *out = (uint64_t)bytes;
            return TPC_OK;
        }
    }
    return diag_error(diag, TPC_USAGE, NULL,
                      "%s: --memory-budget is '%s' but must be a size such as 24GiB, 800MB or 12345 (bytes)",
                      args->command->name, text);
}

status cli_cost(struct arena *arena, const struct args *args, struct diag *diag, struct compile_options *out,
                struct budget *budget)
{
    const char *machine = args_value(args, "--machine", NULL), *memory = args_value(args, "--memory-budget", NULL);
    const char *objective = args_value(args, "--objective", "bytes"), *command = args->command->name;
    status s = machine == NULL ? TPC_OK : machine_load(arena, machine, diag, &out->machine);
    s = s != TPC_OK ? s : read_nominals(arena, args, diag, out);
    s = s != TPC_OK || memory == NULL ? s : read_bytes(args, memory, &budget->memory, diag);
    if (s == TPC_OK && strcmp(objective, "bytes") != 0 && strcmp(objective, "latency") != 0) {
        s = diag_error(diag, TPC_USAGE, NULL, "%s: --objective is '%s' but must be bytes or latency", command,
                       objective);
    }
    if (s != TPC_OK) {
        return s;
    }
    out->objective = strcmp(objective, "latency") == 0 ? OBJECTIVE_LATENCY : OBJECTIVE_BYTES;
    budget->most = MOST_RANKS;
    if (out->machine != NULL && out->machine->devices != 0 && out->machine->devices < MOST_RANKS) {
        budget->most = out->machine->devices;
    }
    if (!budget->choose_ranks) {
        return TPC_OK;
    }
    if (memory == NULL && out->machine != NULL) {
        budget->memory = out->machine->memory;
    }
    if (budget->memory == 0 && out->objective == OBJECTIVE_BYTES) {
        return diag_error(diag, TPC_USAGE, NULL,
                          "%s: --tp auto needs to know what must fit where: give --memory-budget or a --machine with "
                          "memory (or --objective latency)",
                          command);
    }
    return TPC_OK;
}
