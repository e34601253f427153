/* tests/fake_cuda/graphs.c - the fake driver's graphs: lists of works. A graph that was made executable is a copy, whose nodes remember what they are copies of.
 *
 * Every handle is looked up among the living ones before it is touched: who launches, sets or destroys what is gone, or sets a node of another
 * graph, gets an error.
 */
#include "runtime/cuda_api.h"
#include "tests/fake_cuda/fake.h"

#include <pthread.h>
#include <stdlib.h>

struct node {
    struct node *next;
    const struct node *original; /* of an executable one: its node in the graph */
    fake_work *work;
    size_t bytes;
    bool early; /* it may start before the one before it has ended */
    _Alignas(16) char argument[];
};

struct fake_graph {
    struct fake_graph *next; /* living */
    const struct fake_graph *original;
    struct node *first, **last, *newest;
};

static struct fake_graph *living;
static pthread_mutex_t living_lock = PTHREAD_MUTEX_INITIALIZER;

struct fake_graph *fake_graph_new(void)
{
    struct fake_graph *g = calloc(1, sizeof *g);
    g->last = &g->first;
    pthread_mutex_lock(&living_lock);
    g->next = living;
    living = g;
    pthread_mutex_unlock(&living_lock);
    fake_own(1);
    return g;
}

/* executable: of which kind it must be. */
static bool lives(const void *handle, bool executable)
{
    pthread_mutex_lock(&living_lock);
    const struct fake_graph *g = living;
    while (g && g != handle)
        g = g->next;
    bool good = g && (g->original != NULL) == executable;
    pthread_mutex_unlock(&living_lock);
    return good;
}

void fake_graph_free(struct fake_graph *graph)
{
    if (!graph)
        return;
    pthread_mutex_lock(&living_lock);
    struct fake_graph **at = &living;
    while (*at != graph)
        at = &(*at)->next;
    *at = graph->next;
    pthread_mutex_unlock(&living_lock);
    for (struct node *n = graph->first, *next; n; n = next) {
        next = n->next;
        free(n);
    }
    free(graph);
    fake_own(-1);
}

static struct node *add(struct fake_graph *g, fake_work *work, const void *argument, size_t bytes)
{
    struct node *n = malloc(sizeof *n + bytes);
    *n = (struct node){.work = work, .bytes = bytes};
    memcpy(n->argument, argument, bytes);
    *g->last = g->newest = n;
    g->last = &n->next;
    return n;
}

static _Thread_local bool next_is_early;

void fake_graph_overlap(void)
{
    next_is_early = true;
}

void fake_graph_add(struct fake_graph *g, fake_work *work, const void *argument, size_t bytes)
{
    add(g, work, argument, bytes)->early = next_is_early;
    next_is_early = false;
}

const void *fake_graph_last(const struct fake_graph *g, size_t *count)
{
    *count = g->newest != NULL;
    return &g->newest;
}

FAKE_API cu_result cuGraphInstantiateWithFlags(cu_graph_exec *executable, cu_graph graph, unsigned long long flags)
{
    CALL(CU_OUT_OF_MEMORY);
    if (!lives(graph, false) || flags)
        return INVALID;
    const struct fake_graph *g = (const struct fake_graph *)graph;
    struct fake_graph *x = fake_graph_new();
    x->original = g;
    for (const struct node *n = g->first; n; n = n->next)
        add(x, n->work, n->argument, n->bytes)->original = n;
    *executable = (cu_graph_exec)x;
    return CU_OK;
}

FAKE_API cu_result cuGraphGetEdges_v2(cu_graph graph, cu_graph_node *from, cu_graph_node *to, struct cu_edge *edge,
                                      size_t *count)
{
    size_t room = from ? *count : 0, all = 0;
    CALL(INVALID);
    if (!lives(graph, false) || !from != !to || (from && !edge))
        return INVALID;
    for (struct node *n = ((struct fake_graph *)graph)->first; n && n->next; n = n->next, all++)
        if (all < room) {
            from[all] = (cu_graph_node)n;
            to[all] = (cu_graph_node)n->next;
            edge[all] = (struct cu_edge){.from_port = n->next->early, .type = n->next->early};
        }
    *count = all;
    return CU_OK;
}

FAKE_API cu_result cuGraphExecKernelNodeSetParams_v2(cu_graph_exec executable, cu_graph_node node,
                                                     const struct cu_kernel_node *kernel)
{
    CALL(INVALID);
    if (!lives(executable, true) || !lives(((struct fake_graph *)executable)->original, false))
        return INVALID;
    for (struct node *n = ((struct fake_graph *)executable)->first; n; n = n->next)
        if (n->original == (const struct node *)node)
            return fake_launch_set(n->work, n->argument, kernel) ? CU_OK : INVALID;
    return INVALID;
}

FAKE_API cu_result cuGraphLaunch(cu_graph_exec executable, cu_stream stream)
{
    CALL(LAUNCH_FAILED);
    if (!lives(executable, true))
        return INVALID;
    for (const struct node *n = ((struct fake_graph *)executable)->first; n; n = n->next)
        (void)fake_enqueue(stream, n->work, n->argument, n->bytes);
    return CU_OK;
}

FAKE_API cu_result cuGraphExecDestroy(cu_graph_exec executable)
{
    bool fails = fake_call(__func__);
    if (!lives(executable, true))
        return INVALID;
    fake_graph_free((struct fake_graph *)executable);
    return fails ? ILLEGAL_ADDRESS : CU_OK;
}

FAKE_API cu_result cuGraphDestroy(cu_graph graph)
{
    bool fails = fake_call(__func__);
    if (!lives(graph, false))
        return INVALID;
    fake_graph_free((struct fake_graph *)graph);
    return fails ? ILLEGAL_ADDRESS : CU_OK;
}
