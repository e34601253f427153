/* runtime/launch.c - launchers as a table: the variables in which each says who a process is; then where rank 0 is found.
 *
 * Precedence: the first row whose size variable is set. TPC_PORT overrides every port, MASTER_ADDR and MASTER_PORT what a launcher of
 * jobs would have given. Under torchrun MASTER_PORT is the launcher's own store (TORCHELASTIC_USE_AGENT_STORE), so ours is the next.
 */
#include "runtime/launch.h"

#include <errno.h>
#include <stdlib.h>

struct launcher {
    const char *name;
    const char *size, *rank, *local_rank;
    const char *local_size; /* equal to size: one host, so rank 0 is at 127.0.0.1 */
    const char *nodes;      /* list of the job's hosts, the first of which has rank 0 */
    const char *job[2];     /* what tells two jobs on one host apart: the port follows from it */
};

static const struct launcher launchers[] = {
    {.name = "the environment", .size = "WORLD_SIZE", .rank = "RANK", .local_rank = "LOCAL_RANK"},
    {.name = "mpirun",
     .size = "OMPI_COMM_WORLD_SIZE",
     .rank = "OMPI_COMM_WORLD_RANK",
     .local_rank = "OMPI_COMM_WORLD_LOCAL_RANK",
     .local_size = "OMPI_COMM_WORLD_LOCAL_SIZE",
     .job = {"PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid"}},
    {.name = "srun", /* before PMI: srun may set both */
     .size = "SLURM_STEP_NUM_TASKS",
     .rank = "SLURM_PROCID",
     .local_rank = "SLURM_LOCALID",
     .nodes = "SLURM_STEP_NODELIST",
     .job = {"SLURM_JOB_ID", "SLURM_STEP_ID"}},
    {.name = "mpiexec",
     .size = "PMI_SIZE",
     .rank = "PMI_RANK",
     .local_rank = "MPI_LOCALRANKID",
     .local_size = "MPI_LOCALNRANKS"},
};

enum { FIRST_PORT = 20000, PORTS = 10000, MOST_PROCESSES = 4096 };

static const char *set(const char *variable)
{
    const char *x = variable ? getenv(variable) : NULL;
    return x && *x ? x : NULL;
}

/* A number in [0, limit) of an environment variable. */
static status number(const char *variable, uint32_t limit, uint32_t *out, struct diag *diag)
{
    const char *text = set(variable);
    char *end = NULL;
    errno = 0;
    unsigned long x = text && *text >= '0' && *text <= '9' ? strtoul(text, &end, 10) : 0;
    if (!text)
        return diag_error(diag, TPC_USAGE, NULL,
                          "%s is not set, though this process was started as one of several ranks", variable);
    if (!end || *end || errno || x >= limit)
        return diag_error(diag, TPC_USAGE, NULL, "%s is '%s' but must be a number from 0 to %u", variable, text,
                          (unsigned)limit - 1);
    *out = (uint32_t)x;
    return TPC_OK;
}

/* "node[03-07,9],other" -> "node03" */
static void first_node(const char *list, char *to, size_t room)
{
    size_t stem = strcspn(list, "[,"), digits = list[stem] == '[' ? strcspn(list + stem + 1, "-,]") : 0;
    snprintf(to, room, "%.*s%.*s", (int)stem, list, (int)digits, list + stem + (digits > 0));
}

static status find_address(const struct launcher *l, struct launch *out, struct diag *diag)
{
    const char *master = set("MASTER_ADDR"), *local = set(l->local_size), *nodes = set(l->nodes);
    if (master && strlen(master) >= sizeof out->address)
        return diag_error(diag, TPC_USAGE, NULL, "MASTER_ADDR is longer than any host's name");
    if (master)
        snprintf(out->address, sizeof out->address, "%s", master);
    else if (local && (uint32_t)strtoul(local, NULL, 10) == out->ranks)
        snprintf(out->address, sizeof out->address, "127.0.0.1");
    else if (nodes)
        first_node(nodes, out->address, sizeof out->address);
    else
        return diag_error(diag, TPC_USAGE, NULL, "MASTER_ADDR is not set: %s does not say on which host rank 0 is",
                          l->name);
    return TPC_OK;
}

static status find_port(const struct launcher *l, struct launch *out, struct diag *diag)
{
    uint32_t port = 0;
    const char *variable = set("TPC_PORT") ? "TPC_PORT" : "MASTER_PORT", *store = set("TORCHELASTIC_USE_AGENT_STORE");
    const char *job = set(l->job[0]), *step = set(l->job[1]);
    if (!set(variable) && (job || step)) {
        uint64_t key = hash_bytes(job ? job : "", job ? strlen(job) : 0, 0);
        key = hash_bytes(step ? step : "", step ? strlen(step) : 0, key);
        out->port = (uint16_t)(FIRST_PORT + key % PORTS);
        return TPC_OK;
    }
    status s = number(variable, 65536, &port, diag);
    if (s != TPC_OK)
        return s;
    if (strcmp(variable, "MASTER_PORT") == 0 && store && strcmp(store, "True") == 0)
        port = port < 65535 ? port + 1 : port - 1;
    if (port == 0)
        return diag_error(diag, TPC_USAGE, NULL, "%s is 0 but must be a port that all ranks know", variable);
    out->port = (uint16_t)port;
    return TPC_OK;
}

status launch_read(struct launch *out, bool *found, struct diag *diag)
{
    const struct launcher *l = NULL;
    for (size_t i = 0; i < sizeof launchers / sizeof *launchers && !l; i++)
        if (set(launchers[i].size))
            l = &launchers[i];
    *found = false;
    *out = (struct launch){.ranks = 1};
    if (!l)
        return TPC_OK;
    status s = number(l->size, MOST_PROCESSES + 1, &out->ranks, diag);
    if (s != TPC_OK || out->ranks <= 1)
        return s;
    s = number(l->rank, out->ranks, &out->rank, diag);
    out->local_rank = out->rank;
    if (s == TPC_OK && set(l->local_rank))
        s = number(l->local_rank, MOST_PROCESSES, &out->local_rank, diag);
    if (s == TPC_OK)
        s = find_address(l, out, diag);
    if (s == TPC_OK)
        s = find_port(l, out, diag);
    out->launcher = l->name;
    *found = s == TPC_OK;
    return s;
}
