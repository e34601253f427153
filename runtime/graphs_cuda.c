/* runtime/graphs_cuda.c - runs that come again as CUDA graphs: one launch each, even where the arguments of kernels differ from run to run.
 *
 * A run is traced before it is done: what it would queue, in order, with every argument. A recording is a run that was captured, beside its trace. It serves
 * a traced run of the same structure: the same functions in the same order, and everything that is no kernel of ours (products, copies, collectives)
 * with the same arguments. What differs in the arguments, grids and shared memory of our kernels is set in the executable graph, node by node; that
 * touches no launch that is queued already (CUDA's manual), so the next run is made ready while the last one computes.
 *
 * Invariant: the trace of a recording says what a launch of its graph does. Start with graphs_traced.
 */
#include "runtime/device_cuda.h"

#include <assert.h>

enum { RECORDINGS = 8, STRUCTURES = 16 };

/* One thing that is queued. */
struct traced {
    cu_function function; /* NULL: no kernel of ours; its words say what it is */
    uint32_t grid[3], block[3], shared_bytes;
    uint32_t first, count; /* of `word` */
    cu_graph_node node;    /* of a recording: NULL where the driver does not tell */
};

struct trace {
    struct arena *arena;
    struct arena_mark empty;
    LIST(struct traced) entries;
    LIST(uint64_t) words;
};

struct recording {
    struct trace trace;
    cu_graph graph; /* its nodes are known by it */
    cu_graph_exec made;
    uint64_t key, memory; /* of the run that it is set for; the memory's generation then */
    uint64_t age;
};

enum mode { DOING, TRACING, RECORDING };

struct graphs {
    const struct cuda_driver *api;
    enum mode mode;
    struct trace trace;
    uint32_t next; /* entry of the trace that comes next, while it is recorded */
    struct recording recording[RECORDINGS], *now, *launched; /* launched: last, so that it may be running */
    bool wants_twin;                                         /* it alone could have been made ready for another run */
    uint64_t structure[STRUCTURES];                          /* of the last runs that were done one by one */
    uint32_t next_structure;
    uint64_t clock;
    struct graph_counts counts;
};

/* ---- traces ---- */

static bool trace_open(struct trace *t)
{
    t->arena = arena_new();
    if (t->arena)
        t->empty = arena_mark(t->arena);
    return t->arena != NULL;
}

static void trace_clear(struct trace *t)
{
    arena_rewind(t->arena, t->empty);
    memset(&t->entries, 0, sizeof t->entries);
    memset(&t->words, 0, sizeof t->words);
}

static void trace_add(struct trace *t, const struct traced *entry, const uint64_t *word, uint32_t count)
{
    struct traced *e = PUSH(t->arena, &t->entries);
    *e = *entry;
    e->first = t->words.count;
    e->count = count;
    for (uint32_t i = 0; i < count; i++)
        *PUSH(t->arena, &t->words) = word[i];
}

static void trace_copy(struct trace *to, const struct trace *from)
{
    trace_clear(to);
    for (uint32_t i = 0; i < from->entries.count; i++)
        trace_add(to, &from->entries.at[i], from->words.at + from->entries.at[i].first, from->entries.at[i].count);
}

static bool same_words(const struct trace *a, const struct trace *b, uint32_t entry)
{
    const struct traced *x = &a->entries.at[entry], *y = &b->entries.at[entry];
    return memcmp(a->words.at + x->first, b->words.at + y->first, x->count * sizeof *a->words.at) == 0;
}

static bool same_structure(const struct trace *a, const struct trace *b)
{
    if (a->entries.count != b->entries.count || a->words.count != b->words.count)
        return false;
    for (uint32_t i = 0; i < a->entries.count; i++) {
        const struct traced *x = &a->entries.at[i], *y = &b->entries.at[i];
        if (x->function != y->function || x->count != y->count || (!x->function && !same_words(a, b, i)))
            return false;
    }
    return true;
}

/* exact: with all arguments. */
static uint64_t hash_structure(const struct trace *t, bool exact)
{
    uint64_t key = 0;
    for (uint32_t i = 0; i < t->entries.count; i++) {
        const struct traced *x = &t->entries.at[i];
        const uint64_t own[] = {(uint64_t)(uintptr_t)x->function, x->count, exact ? x->grid[0] : 0};
        key = hash_bytes(own, sizeof own, key);
        if (!x->function || exact)
            key = hash_bytes(t->words.at + x->first, x->count * sizeof *t->words.at, key);
    }
    return key;
}

/* ---- recordings ---- */

static void drop(struct graphs *g, struct recording *r)
{
    if (r->made)
        (void)g->api->graph_exec_destroy(r->made);
    if (r->graph)
        (void)g->api->graph_destroy(r->graph);
    r->made = NULL;
    r->graph = NULL;
    g->now = g->now == r ? NULL : g->now;
    g->launched = g->launched == r ? NULL : g->launched;
}

struct graphs *graphs_new(const struct cuda_driver *api)
{
    struct graphs *g = base_alloc(sizeof *g);
    if (!g)
        return NULL;
    g->api = api;
    bool good = trace_open(&g->trace);
    for (uint32_t i = 0; i < RECORDINGS && good; i++)
        good = trace_open(&g->recording[i].trace);
    if (good)
        return g;
    graphs_free(g);
    return NULL;
}

void graphs_free(struct graphs *g)
{
    if (!g)
        return;
    graphs_forget(g, false);
    for (uint32_t i = 0; i < RECORDINGS; i++)
        arena_free(g->recording[i].trace.arena);
    arena_free(g->trace.arena);
    base_free(g);
}

void graphs_forget(struct graphs *g, bool kinds)
{
    for (uint32_t i = 0; i < RECORDINGS; i++)
        drop(g, &g->recording[i]);
    if (kinds)
        memset(g->structure, 0, sizeof g->structure);
}

bool graphs_fit(struct graphs *g, uint64_t key, uint64_t memory)
{
    for (uint32_t i = 0; i < RECORDINGS; i++)
        if (g->recording[i].made && g->recording[i].key == key && g->recording[i].memory == memory) {
            g->now = &g->recording[i];
            return true;
        }
    return false;
}

/* ---- tracing ---- */

void graphs_trace(struct graphs *g)
{
    trace_clear(&g->trace);
    g->mode = TRACING;
}

bool graphs_note_kernel(struct graphs *g, cu_function function, const struct cu_launch *how, const uint64_t *word,
                        uint32_t count)
{
    if (g->mode != TRACING)
        return false;
    struct traced e = {.function = function, .shared_bytes = how->shared_bytes};
    memcpy(e.grid, how->grid, sizeof e.grid);
    memcpy(e.block, how->block, sizeof e.block);
    trace_add(&g->trace, &e, word, count);
    return true;
}

bool graphs_note(struct graphs *g, const uint64_t *word, uint32_t count)
{
    g->next += g->mode == RECORDING;
    if (g->mode != TRACING)
        return false;
    trace_add(&g->trace, &(struct traced){0}, word, count);
    return true;
}

/* Sets one node to what the trace says. */
static bool set_node(struct graphs *g, struct recording *r, uint32_t entry)
{
    struct traced *to = &r->trace.entries.at[entry];
    const struct traced *from = &g->trace.entries.at[entry];
    uint64_t *word = r->trace.words.at + to->first;
    struct cu_kernel_node node = {
        .function = from->function, .shared_bytes = from->shared_bytes, .parameters = (void *[]){word}};
    memcpy(node.grid, from->grid, sizeof node.grid);
    memcpy(node.block, from->block, sizeof node.block);
    memcpy(word, g->trace.words.at + from->first, from->count * sizeof *word);
    memcpy(to->grid, from->grid, sizeof to->grid);
    memcpy(to->block, from->block, sizeof to->block);
    to->shared_bytes = from->shared_bytes;
    return to->node && g->api->graph_kernel_set(r->made, to->node, &node) == CU_OK;
}

static bool same_kernel(const struct trace *x, const struct trace *y, uint32_t entry)
{
    const struct traced *a = &x->entries.at[entry], *b = &y->entries.at[entry];
    return memcmp(a->grid, b->grid, sizeof a->grid) == 0 && memcmp(a->block, b->block, sizeof a->block) == 0 &&
           a->shared_bytes == b->shared_bytes && same_words(x, y, entry);
}

static uint32_t differences(const struct trace *a, const struct trace *b)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < a->entries.count; i++)
        count += !same_kernel(a, b, i);
    return count;
}

/* Makes the recording do what was traced. false: the driver does not, and the recording is gone. */
static bool set_recording(struct graphs *g, struct recording *r)
{
    uint32_t changes = differences(&r->trace, &g->trace);
    for (uint32_t i = 0; i < r->trace.entries.count && changes > 0; i++)
        if (!same_kernel(&r->trace, &g->trace, i) && !set_node(g, r, i)) {
            drop(g, r);
            return false;
        }
    g->counts.updates += changes > 0;
    g->counts.nodes += changes;
    return true;
}

/* May it do what was traced? Where the driver does not tell nodes, only what is the same. */
static bool serves(const struct graphs *g, const struct recording *r)
{
    return r->made && same_structure(&r->trace, &g->trace) &&
           (g->api->capture_info || differences(&r->trace, &g->trace) == 0);
}

/* One that serves, better not the one that may be running: it could be set, but whether a driver waits then is not said. NULL: none, or a second one is worth
 * its recording. */
static struct recording *find_recording(struct graphs *g, bool ahead)
{
    struct recording *other = NULL, *running = NULL;
    for (struct recording *r = g->recording; r < g->recording + RECORDINGS && !other; r++)
        if (serves(g, r))
            *(r == g->launched ? &running : &other) = r;
    if (other)
        return other;
    bool twin = running && (ahead || g->wants_twin);
    g->wants_twin = twin && ahead;
    return twin ? NULL : running;
}

enum traced_run graphs_traced(struct graphs *g, uint64_t key, uint64_t memory, bool ahead)
{
    g->mode = DOING;
    struct recording *r = find_recording(g, ahead);
    if (r && set_recording(g, r)) {
        r->key = key;
        r->memory = memory;
        g->now = r;
        return TRACED_FITS;
    }
    uint64_t structure = hash_structure(&g->trace, !g->api->capture_info);
    for (uint32_t i = 0; i < STRUCTURES; i++)
        if (g->structure[i] == structure)
            return TRACED_AGAIN;
    if (!ahead)
        g->structure[g->next_structure++ % STRUCTURES] = structure;
    return TRACED_NEW;
}

/* ---- recording ---- */

static struct recording *oldest(struct graphs *g)
{
    struct recording *found = &g->recording[0];
    for (uint32_t i = 0; i < RECORDINGS; i++) {
        if (!g->recording[i].made)
            return &g->recording[i];
        if (g->recording[i].age < found->age)
            found = &g->recording[i];
    }
    return found;
}

void graphs_record(struct graphs *g)
{
    struct recording *r = oldest(g);
    drop(g, r);
    trace_copy(&r->trace, &g->trace);
    g->now = r;
    g->next = 0;
    g->mode = RECORDING;
}

/* The node that was captured last is the one that the stream goes on from. */
cu_result graphs_captured(struct graphs *g, cu_stream stream)
{
    int state = 0;
    size_t count = 0;
    uint64_t id = 0;
    cu_graph graph = NULL;
    const cu_graph_node *node = NULL;
    const void *edge = NULL;
    if (g->mode != RECORDING)
        return CU_OK;
    assert(g->next < g->now->trace.entries.count);
    struct traced *e = &g->now->trace.entries.at[g->next++];
    if (!g->api->capture_info)
        return CU_OK;
    cu_result r = g->api->capture_info(stream, &state, &id, &graph, &node, &edge, &count);
    e->node = r == CU_OK && count == 1 ? node[0] : NULL;
    return r;
}

/* How many nodes of it may start before the one they follow has ended. */
static uint64_t count_overlaps(const struct graphs *g, cu_graph graph)
{
    size_t count = 0;
    uint64_t overlaps = 0;
    if (!g->api->graph_edges || g->api->graph_edges(graph, NULL, NULL, NULL, &count) != CU_OK || count == 0)
        return 0;
    cu_graph_node *node = base_alloc(2 * count * sizeof *node);
    struct cu_edge *edge = base_alloc(count * sizeof *edge);
    if (node && edge && g->api->graph_edges(graph, node, node + count, edge, &count) == CU_OK)
        for (size_t i = 0; i < count; i++)
            overlaps += edge[i].type == 1;
    base_free(node);
    base_free(edge);
    return overlaps;
}

bool graphs_recording(const struct graphs *g)
{
    return g->mode == RECORDING;
}

cu_result graphs_recorded(struct graphs *g, uint64_t key, uint64_t memory, cu_graph graph)
{
    struct recording *r = g->now;
    g->mode = DOING;
    r->graph = graph;
    cu_result made = graph ? g->api->graph_instantiate(&r->made, graph, 0) : CU_OK;
    if (made != CU_OK || !graph) {
        r->made = NULL;
        drop(g, r);
        return made;
    }
    r->key = key;
    r->memory = memory;
    g->counts.made++;
    g->counts.overlaps += count_overlaps(g, graph);
    return CU_OK;
}

cu_result graphs_replay(struct graphs *g, cu_stream stream)
{
    assert(g->now);
    g->now->age = ++g->clock;
    g->launched = g->now;
    g->counts.launched++;
    for (uint32_t i = 0; i < g->now->trace.entries.count; i++)
        *(g->now->trace.entries.at[i].function ? &g->counts.kernels : &g->counts.others) += 1;
    return g->api->graph_launch(g->now->made, stream);
}

struct graph_counts graphs_counts(const struct graphs *g)
{
    return g->counts;
}
