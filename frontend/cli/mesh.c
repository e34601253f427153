/* frontend/cli/mesh.c - --mesh dp=2,tp=4, --tp 4 and --sequence-parallel: the axes of ranks that a model is split over. Start with cli_mesh. */
#include "frontend/cli/cli.h"

#include <stdlib.h>

enum { MOST_RANKS = 64 };

static const struct {
    const char *name;
    enum axis_role role;
} roles[] = {{"dp", AXIS_DATA}, {"cp", AXIS_CONTEXT}, {"tp", AXIS_TENSOR}, {"ep", AXIS_EXPERT}};
enum { ROLES = sizeof roles / sizeof *roles };

static const char *copy_between(struct arena *arena, const char *from, const char *to)
{
    return arena_strndup(arena, from, (size_t)(to - from));
}

/* One "NAME=N" of [at, end). */
static status read_axis(struct arena *arena, const struct args *args, const char *at, const char *end,
                        struct mesh_axis *axes, uint32_t count, struct diag *diag)
{
    const char *command = args->command->name, *text = copy_between(arena, at, end), *equals = strchr(text, '=');
    char *rest = NULL;
    long long size = equals == NULL ? 0 : strtoll(equals + 1, &rest, 10);
    if (equals == NULL || equals[1] == 0 || *rest != 0 || size < 1 || size > MOST_RANKS) {
        return diag_error(diag, TPC_USAGE, NULL, "%s: --mesh: '%s' must be NAME=N, N from 1 to %d", command, text,
                          MOST_RANKS);
    }
    const char *name = copy_between(arena, text, equals);
    for (uint32_t i = 0; i < ROLES; i++) {
        if (strcmp(roles[i].name, name) != 0) {
            continue;
        }
        for (uint32_t k = 0; k < count; k++) {
            if (axes[k].role == roles[i].role) {
                return diag_error(diag, TPC_USAGE, NULL, "%s: --mesh names %s twice", command, name);
            }
        }
        axes[count] = (struct mesh_axis){name, (uint32_t)size, roles[i].role};
        return TPC_OK;
    }
    return diag_error(diag, TPC_USAGE, NULL,
                      "%s: --mesh knows no axis '%s': dp (batch), cp (sequence), tp (weights), ep (experts)", command,
                      name);
}

static status read_mesh(struct arena *arena, const struct args *args, const char *text, struct diag *diag,
                        struct compile_options *out)
{
    struct mesh_axis *axes = NEW_ARRAY(arena, struct mesh_axis, ROLES);
    uint64_t ranks = 1;
    uint32_t count = 0;
    for (const char *at = text;; count++) {
        const char *comma = strchr(at, ','), *end = comma == NULL ? at + strlen(at) : comma;
        if (count == ROLES) {
            return diag_error(diag, TPC_USAGE, NULL, "%s: --mesh '%s' has too many axes (limit is %d)",
                              args->command->name, text, ROLES);
        }
        status s = read_axis(arena, args, at, end, axes, count, diag);
        if (s != TPC_OK) {
            return s;
        }
        ranks *= axes[count].size;
        if (comma == NULL) {
            break;
        }
        at = comma + 1;
    }
    if (ranks > MOST_RANKS) {
        return diag_error(diag, TPC_USAGE, NULL, "%s: --mesh '%s' makes %llu ranks (limit is %d)", args->command->name,
                          text, (unsigned long long)ranks, MOST_RANKS);
    }
    out->axis = axes;
    out->axis_count = count + 1;
    out->ranks = (uint32_t)ranks;
    return TPC_OK;
}

status cli_mesh(struct arena *arena, const struct args *args, struct diag *diag, struct compile_options *out)
{
    const char *mesh = args_value(args, "--mesh", NULL);
    int64_t ranks = out->ranks;
    bool choose = strcmp(args->command->name, "compile") == 0 && strcmp(args_value(args, "--tp", ""), "auto") == 0;
    status s = choose ? TPC_OK : args_number(args, "--tp", 1, MOST_RANKS, &ranks, diag);
    if (s != TPC_OK) {
        return s;
    }
    out->sequence = args_flag(args, "--sequence-parallel") ? SEQUENCE_SPLIT : SEQUENCE_WHOLE;
    out->ranks = (uint32_t)ranks;
    return mesh == NULL ? TPC_OK : read_mesh(arena, args, mesh, diag, out);
}
