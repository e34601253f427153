/* tests/fake_cuda/nccl.c - the fake libnccl: ranks are threads of one process. What a group queues is one work on the stream; there the ranks of a communicator
 * meet, read each other's memory, meet again and write their own.
 *
 * As with the real one a communicator does not block: making one is in progress until all are there, abort frees whoever waits. TPC_FAKE_NCCL_FAIL=N: the N-th
 * group of rank 0 fails, later.
 */
#include "ir/dtype.h"
#include "runtime/comm.h"
#include "runtime/cuda_api.h"
#include "tests/fake_cuda/fake.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

enum { MOST_RANKS = 64, MOST_OPERATIONS = 256, INVALID_USAGE = 5, INTERNAL = 3 };
enum kind { REDUCE_ALL, GATHER, REDUCE_PART, REDUCE_TO, SPREAD, SEND, RECEIVE };

struct operation {
    enum kind kind;
    const char *in;
    char *out;
    size_t count;
    int type, operation, peer;
};

struct world {
    struct world *next;
    char id[NCCL_ID_BYTES];
    int ranks, here;
    int splits[64]; /* calls of each split */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    const struct batch *posted[MOST_RANKS];
    int arrived, round;
};

struct ncclComm {
    struct ncclComm *older; /* all stay: works of others may look at one */
    struct world *world;
    int rank;
    atomic_int error;
    uint32_t splits;
    nccl_comm split, *split_to; /* under way: handed over when all of the whole one have called */
    uint64_t groups;
    bool
        aborted; /* under the world's lock. Ends this rank's works only: another's keep waiting until it is aborted, too */
};

struct batch {
    struct batch *older; /* all stay: a graph may run one again */
    struct ncclComm *comm;
    uint32_t count;
    struct operation operation[MOST_OPERATIONS];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct world *worlds;
static struct batch *batches;
static struct ncclComm *comms;
static _Thread_local uint32_t depth;
static _Thread_local struct batch pending;
static _Thread_local cu_stream pending_stream;

FAKE_API int ncclGetVersion(int *version)
{
    if (fake_call(__func__))
        return INTERNAL;
    *version = 22800;
    return 0;
}

FAKE_API const char *ncclGetErrorString(int result)
{
    return result == INVALID_USAGE ? "invalid usage" : "internal error";
}

FAKE_API const char *ncclGetLastError(nccl_comm comm)
{
    (void)comm;
    return "from the fake NCCL";
}

FAKE_API int ncclGetUniqueId(struct nccl_id *id)
{
    static atomic_int made;
    if (fake_call(__func__))
        return INTERNAL;
    (void)snprintf(id->bytes, sizeof id->bytes, "fake %d", atomic_fetch_add(&made, 1));
    return 0;
}

/* ---- communicators -------------------------------------------------------------------------------------------------------- */

static nccl_comm join(const char *id, int ranks, int rank)
{
    pthread_mutex_lock(&lock);
    struct world *w = worlds;
    while (w && strncmp(w->id, id, sizeof w->id) != 0)
        w = w->next;
    if (!w) {
        w = calloc(1, sizeof *w);
        w->next = worlds;
        w->ranks = ranks;
        (void)snprintf(w->id, sizeof w->id, "%s", id);
        pthread_mutex_init(&w->lock, NULL);
        pthread_cond_init(&w->changed, NULL);
        worlds = w;
    }
    w->here++;
    pthread_mutex_unlock(&lock);
    struct ncclComm *c = calloc(1, sizeof *c);
    c->world = w;
    c->rank = rank;
    pthread_mutex_lock(&lock);
    c->older = comms;
    comms = c;
    pthread_mutex_unlock(&lock);
    fake_own(1);
    return c;
}

FAKE_API int ncclCommInitRankConfig(nccl_comm *comm, int ranks, struct nccl_id id, int rank, struct nccl_config *config)
{
    if (fake_call(__func__))
        return INTERNAL;
    if (config->magic != NCCL_CONFIG_MAGIC || config->size != sizeof *config || config->blocking != 0 || rank >= ranks)
        return INVALID_USAGE;
    *comm = join(id.bytes, ranks, rank);
    return NCCL_IN_PROGRESS;
}

FAKE_API int ncclCommSplit(nccl_comm comm, int color, int key, nccl_comm *out, struct nccl_config *config)
{
    char id[NCCL_ID_BYTES];
    (void)config;
    if (fake_call(__func__))
        return INTERNAL;
    uint32_t split = comm->splits++ % 64;
    (void)snprintf(id, sizeof id, "%.80s/%u.%d", comm->world->id, split, color);
    *out = NULL;
    comm->split = join(id, 0, key);
    comm->split_to = out;
    pthread_mutex_lock(&lock);
    comm->world->splits[split]++;
    pthread_mutex_unlock(&lock);
    return 0; /* as the real one, though it is in progress */
}

FAKE_API int ncclCommGetAsyncError(nccl_comm comm, int *state)
{
    if (!comm)
        return NCCL_INVALID_ARGUMENT;
    struct world *w = comm->world;
    pthread_mutex_lock(&lock);
    bool waiting = comm->split_to ? w->splits[(comm->splits - 1) % 64] < w->here : w->here < w->ranks;
    pthread_mutex_unlock(&lock);
    *state = atomic_load(&comm->error);
    if (*state == 0 && waiting)
        *state = NCCL_IN_PROGRESS;
    if (*state == 0 && comm->split_to) {
        *comm->split_to = comm->split;
        comm->split_to = NULL;
    }
    return 0;
}

FAKE_API int ncclCommAbort(nccl_comm comm)
{
    struct world *w = comm->world;
    pthread_mutex_lock(&w->lock);
    comm->aborted = true;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    fake_own(-1);
    return 0;
}

/* ---- works ------------------------------------------------------------------------------------------------------------------ */

static size_t size_of(int type)
{
    static const size_t sizes[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2};
    return sizes[type];
}

static dtype type_of(int type)
{
    static const dtype types[] = {DT_I8, DT_U8, DT_I32, DT_U32, DT_I64, DT_U64, DT_F16, DT_F32, DT_F64, DT_BF16};
    return types[type];
}

static enum reduction reduction_of(int operation)
{
    static const enum reduction all[] = {REDUCTION_SUM, REDUCTION_PROD, REDUCTION_MAX, REDUCTION_MIN};
    return all[operation];
}

/* All of the world come here. false: aborted. */
static bool meet(struct ncclComm *c)
{
    struct world *w = c->world;
    pthread_mutex_lock(&w->lock);
    int round = w->round;
    if (++w->arrived == w->here) {
        w->arrived = 0;
        w->round++;
        pthread_cond_broadcast(&w->changed);
    }
    while (w->round == round && !c->aborted)
        pthread_cond_wait(&w->changed, &w->lock);
    bool good = !c->aborted;
    pthread_mutex_unlock(&w->lock);
    return good;
}

/* The n-th operation of a batch of this kind and peer. */
static const struct operation *find(const struct batch *b, enum kind kind, int peer, uint32_t n)
{
    for (uint32_t i = 0; i < b->count; i++)
        if (b->operation[i].kind == kind && b->operation[i].peer == peer && n-- == 0)
            return &b->operation[i];
    return NULL;
}

/* Which of its like operation i is. */
static uint32_t number(const struct batch *b, uint32_t i)
{
    uint32_t n = 0;
    for (uint32_t k = 0; k < i; k++)
        n += b->operation[k].kind == b->operation[i].kind && b->operation[k].peer == b->operation[i].peer;
    return n;
}

/* What operation i of rank r gives, from what all have posted; NULL: nothing, or it does not fit (*good). */
static char *result_of(const struct world *w, int r, uint32_t i, size_t *bytes, bool *good)
{
    const struct batch *own = w->posted[r];
    const struct operation *o = &own->operation[i], *theirs[MOST_RANKS];
    size_t size = size_of(o->type);
    const void *sources[MOST_RANKS];
    uint32_t n = number(own, i);
    *bytes = o->count * size * (o->kind == GATHER ? (size_t)w->here : 1);
    if (o->kind == SEND || (o->kind == REDUCE_TO && o->peer != r))
        return NULL;
    char *to = malloc(*bytes + 1);
    int first = o->kind == RECEIVE || o->kind == SPREAD ? o->peer : 0,
        last = o->kind == RECEIVE || o->kind == SPREAD ? o->peer : w->here - 1;
    for (int p = first; p <= last; p++) {
        theirs[p] = o->kind == RECEIVE ? find(w->posted[p], SEND, r, n) : find(w->posted[p], o->kind, o->peer, n);
        size_t taken = o->kind == REDUCE_PART ? o->count * size * (size_t)w->here : o->count * size;
        if (!theirs[p] || theirs[p]->count != o->count || theirs[p]->type != o->type ||
            !fake_is_device(theirs[p]->in, taken)) {
            *good = false;
            return to;
        }
        sources[p] = theirs[p]->in;
    }
    if (o->kind == GATHER)
        for (int p = 0; p < w->here; p++)
            memcpy(to + (size_t)p * o->count * size, sources[p], o->count * size);
    else if (o->kind == RECEIVE || o->kind == SPREAD)
        memcpy(to, sources[o->peer], *bytes);
    else
        reduce_sources(reduction_of(o->operation), type_of(o->type), sources, (uint32_t)w->here,
                       o->kind == REDUCE_PART ? (int64_t)o->count * r : 0, (int64_t)o->count, to);
    return to;
}

static bool fails(struct ncclComm *c)
{
    const char *wish = getenv("TPC_FAKE_NCCL_FAIL");
    return c->rank == 0 && wish && *wish && ++c->groups == strtoull(wish, NULL, 10);
}

static void run_batch(void *argument)
{
    struct batch *b;
    memcpy(&b, argument, sizeof(void *));
    struct world *w = b->comm->world;
    bool good = true;
    pthread_mutex_lock(&w->lock);
    bool over = b->comm->aborted;
    pthread_mutex_unlock(&w->lock);
    if (over)
        return;
    if (fails(b->comm)) {
        atomic_store(&b->comm->error, INTERNAL);
        pthread_mutex_lock(&w->lock); /* and the others wait for it, until they are aborted */
        while (!b->comm->aborted)
            pthread_cond_wait(&w->changed, &w->lock);
        pthread_mutex_unlock(&w->lock);
        return;
    }
    w->posted[b->comm->rank] = b;
    if (!meet(b->comm))
        return;
    char *result[MOST_OPERATIONS];
    size_t bytes[MOST_OPERATIONS];
    for (uint32_t i = 0; i < b->count; i++)
        result[i] = result_of(w, b->comm->rank, i, &bytes[i], &good);
    bool met = meet(b->comm);
    for (uint32_t i = 0; i < b->count; i++) {
        if (met && good && result[i]) {
            if (fake_is_device(b->operation[i].out, bytes[i]))
                memcpy(b->operation[i].out, result[i], bytes[i]);
            else
                good = false;
        }
        free(result[i]);
    }
    if (!good)
        fake_break(NULL, "ranks are not at the same collective, or it reaches outside of its memory");
}

static int flush(void)
{
    if (pending.count == 0)
        return 0;
    struct batch *b = malloc(sizeof *b);
    *b = pending;
    pthread_mutex_lock(&lock);
    b->older = batches;
    batches = b;
    pthread_mutex_unlock(&lock);
    pending.count = 0;
    return fake_enqueue(pending_stream, run_batch, &b, sizeof(void *)) ? 0 : INVALID_USAGE;
}

static int add(nccl_comm comm, struct operation o, cu_stream stream)
{
    if (pending.count == MOST_OPERATIONS || (pending.count && pending.comm != comm) || o.type < 0 || o.type > NCCL_BF16)
        return INVALID_USAGE;
    pending.comm = comm;
    pending_stream = stream;
    pending.operation[pending.count++] = o;
    return depth ? 0 : flush();
}

FAKE_API int ncclGroupStart(void)
{
    CALL(INTERNAL);
    depth++;
    return 0;
}

FAKE_API int ncclGroupEnd(void)
{
    if (depth > 0)
        depth--;
    if (fake_call(__func__)) {
        pending.count = 0;
        return INTERNAL;
    }
    return depth ? 0 : flush();
}

FAKE_API int ncclAllReduce(const void *in, void *out, size_t count, int type, int operation, nccl_comm comm,
                           cu_stream stream)
{
    CALL(INTERNAL);
    return add(comm, (struct operation){REDUCE_ALL, in, out, count, type, operation, 0}, stream);
}

FAKE_API int ncclAllGather(const void *in, void *out, size_t count, int type, nccl_comm comm, cu_stream stream)
{
    CALL(INTERNAL);
    return add(comm, (struct operation){GATHER, in, out, count, type, 0, 0}, stream);
}

FAKE_API int ncclReduceScatter(const void *in, void *out, size_t count, int type, int operation, nccl_comm comm,
                               cu_stream stream)
{
    CALL(INTERNAL);
    return add(comm, (struct operation){REDUCE_PART, in, out, count, type, operation, 0}, stream);
}

FAKE_API int ncclReduce(const void *in, void *out, size_t count, int type, int operation, int root, nccl_comm comm,
                        cu_stream stream)
{
    CALL(INTERNAL);
    return add(comm, (struct operation){REDUCE_TO, in, out, count, type, operation, root}, stream);
}

FAKE_API int ncclBroadcast(const void *in, void *out, size_t count, int type, int root, nccl_comm comm,
                           cu_stream stream)
{
    CALL(INTERNAL);
    return add(comm, (struct operation){SPREAD, in, out, count, type, 0, root}, stream);
}

FAKE_API int ncclSend(const void *in, size_t count, int type, int peer, nccl_comm comm, cu_stream stream)
{
    CALL(INTERNAL);
    return add(comm, (struct operation){SEND, in, NULL, count, type, 0, peer}, stream);
}

FAKE_API int ncclRecv(void *out, size_t count, int type, int peer, nccl_comm comm, cu_stream stream)
{
    CALL(INTERNAL);
    return add(comm, (struct operation){RECEIVE, NULL, out, count, type, 0, peer}, stream);
}
