/* frontend/cli/ranks.c - a command that runs as one rank of several processes: joining them, and one line and one exit code for all.
 *
 * Invariant: between join and leave no diagnostic is printed by a rank of its own accord; it is kept, and processes_leave decides which rank prints
 * which.
 */
#include "frontend/cli/cli.h"
#include "runtime/launch.h"
#include "runtime/processes.h"
#include "runtime/tpc.h"

enum { LINE = 1024 };

struct ranks {
    uint32_t local_rank;
    struct processes *processes;
    struct diag *diag;
    char line[LINE]; /* the first error */
};

static void keep_line(void *user, severity level, const char *line)
{
    struct ranks *r = user;
    if (level == DIAG_ERROR && !*r->line)
        snprintf(r->line, sizeof r->line, "%s", line);
    else if (level != DIAG_ERROR && processes_rank(r->processes) == 0)
        fprintf(stderr, "%s\n", line);
}

/* An unwind past the command (no memory): the others must hear of it. */
static void leave_unwound(void *object)
{
    struct ranks *r = object;
    if (r->processes)
        (void)cli_ranks_leave(r, TPC_NOMEM);
}

/* What all ranks must have been told alike: everything but where results go and how they are shown. */
static uint64_t options_hash(const struct args *args)
{
    static const char *const own[] = {"--output", "--outputs", "--profile", "--threads", "--timeout", "--gpus"};
    uint64_t hash = 0;
    for (uint32_t i = 0; i < args->given.count; i++) {
        const struct given *o = &args->given.at[i];
        bool skip = false;
        for (size_t k = 0; k < sizeof own / sizeof *own; k++)
            skip = skip || strcmp(o->name, own[k]) == 0;
        if (skip)
            continue;
        hash = hash_bytes(o->name, strlen(o->name) + 1, hash);
        hash = hash_bytes(o->value ? o->value : "", o->value ? strlen(o->value) + 1 : 0, hash);
    }
    return hash;
}

status cli_ranks_join(struct arena *arena, const struct args *args, const struct plan *plan, struct diag *diag,
                      struct ranks **out)
{
    struct processes_options o = {.plan = plan->hash, .options = options_hash(args), .version = TPC_VERSION};
    int64_t timeout = 30;
    uint32_t ranks = plan->program->graph->mesh.ranks;
    bool found = false;
    *out = NULL;
    status s = args_number(args, "--timeout", 1, 86400, &timeout, diag);
    if (s != TPC_OK || (s = launch_read(&o.launch, &found, diag)) != TPC_OK || !found)
        return s;
    if (o.launch.ranks != ranks)
        return diag_error(diag, TPC_USAGE, args->positional.at[0],
                          "rank %u: the plan is for %u ranks, but by %s there are %u processes",
                          (unsigned)o.launch.rank, (unsigned)ranks, o.launch.launcher, (unsigned)o.launch.ranks);
    o.timeout = (double)timeout;
    struct ranks *r = NEW(arena, struct ranks);
    r->diag = diag;
    r->local_rank = o.launch.local_rank;
    s = processes_join(&o, diag, &r->processes);
    if (s != TPC_OK)
        return s;
    arena_defer(arena, leave_unwound, r);
    diag->sink = keep_line;
    diag->user = r;
    *out = r;
    if (!cli_ranks_speaks(r) && !freopen("/dev/null", "w", stdout))
        return cli_ranks_leave(r, diag_error(diag, TPC_IO, "/dev/null", "cannot be written to"));
    return TPC_OK;
}

struct processes *cli_ranks_processes(const struct ranks *r)
{
    return r ? r->processes : NULL;
}

uint32_t cli_ranks_local(const struct ranks *r)
{
    return r ? r->local_rank : 0;
}

bool cli_ranks_speaks(const struct ranks *r)
{
    return !r || processes_rank(r->processes) == 0;
}

status cli_ranks_leave(struct ranks *r, status s)
{
    if (!r)
        return s;
    r->diag->sink = NULL;
    r->diag->user = NULL;
    s = processes_leave(r->processes, s, *r->line ? r->line : NULL);
    r->processes = NULL;
    return s;
}
