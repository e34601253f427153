/* runtime/engine_input.c - a run's inputs on their way to a rank: its parts of those that are cut, and all of them where the device does not read host memory.
 *
 * Invariant: there inputs lie in one piece of the device's memory, in order, and go up in as few copies as may be. Start with bring_inputs.
 */
#include "runtime/engine_impl.h"

/* What comes in, per input: host memory, NULL where nothing does. */
struct incoming {
    const void *host;
    size_t bytes;
};

/* This rank's part of an input that is cut, in host memory; kernels read it there where the device can. */
static status cut_input(struct rank *r, uint32_t i, const struct tensor *whole, struct incoming *out)
{
    struct engine *e = r->engine;
    struct layout l;
    size_t size = dtype_size(whole->dtype), bytes = size;
    bool good = layout_of(e->graph, e->links.input[i], r->index, r->now->of, r->scratch, &l);
    for (uint32_t a = 0; a < whole->rank && good; a++) {
        good = l.whole[a] == whole->shape[a];
        bytes *= (size_t)l.local[a];
    }
    if (!good)
        return fail(&r->failure, TPC_DATA, "input '%.100s' does not have the extents that the plan cuts",
                    e->graph->inputs.at[i].name);
    bool here = r->device->ops->reads_host;
    status s = here ? store_reserve(r, &r->input[i], bytes) : TPC_OK;
    if (s != TPC_OK)
        return s;
    void *part = here ? r->input[i].at : arena_alloc(r->scratch, bytes);
    layout_cut(&l, size, whole->data, part);
    *out = (struct incoming){part, bytes};
    return TPC_OK;
}

enum { SMALL_INPUT = 4096, LARGE_INPUT = 1 << 20 };

/* Inputs lie behind each other in one piece of the device's memory, with room: what grows by an element a run seldom moves. */
static status place_incoming(struct rank *r, const struct incoming *in)
{
    uint64_t total = 0, unit = r->device->ops->alignment;
    bool fits = true;
    for (uint32_t i = 0; i < r->engine->graph->inputs.count; i++)
        fits = fits && (!in[i].host || (r->input[i].at && r->input[i].capacity >= in[i].bytes));
    if (fits)
        return TPC_OK;
    for (uint32_t i = 0; i < r->engine->graph->inputs.count; i++) {
        uint64_t room = r->input[i].capacity > SMALL_INPUT ? r->input[i].capacity : SMALL_INPUT;
        while (room < in[i].bytes && room < LARGE_INPUT)
            room *= 2;
        room = room < in[i].bytes ? in[i].bytes : room;
        r->input[i].capacity = in[i].host || r->input[i].at ? (room + unit - 1) / unit * unit : 0;
        total += r->input[i].capacity;
    }
    status s = store_reserve(r, &r->inputs, total);
    char *at = r->inputs.at;
    for (uint32_t i = 0; i < r->engine->graph->inputs.count; i++) {
        r->input[i].at = s == TPC_OK && r->input[i].capacity ? at : NULL;
        at += s == TPC_OK ? r->input[i].capacity : 0;
    }
    return s;
}

struct filling {
    const struct rank *rank;
    const struct incoming *in;
    uint64_t first; /* of the stretch */
};

static uint64_t offset_of(const struct rank *r, uint32_t i)
{
    return (uint64_t)((char *)r->input[i].at - (char *)r->inputs.at);
}

/* Bytes [offset, offset + bytes) of the stretch. */
static void fill_incoming(void *context, uint64_t offset, void *host, size_t bytes)
{
    const struct filling *f = context;
    const struct rank *r = f->rank;
    offset += f->first;
    for (uint32_t i = 0; i < r->engine->graph->inputs.count; i++) {
        if (!f->in[i].host)
            continue;
        uint64_t first = offset_of(r, i), last = first + f->in[i].bytes;
        uint64_t from = first > offset ? first : offset, to = last < offset + bytes ? last : offset + bytes;
        if (from < to)
            memcpy((char *)host + (from - offset), (const char *)f->in[i].host + (from - first), to - from);
    }
}

/* Inputs that come in lie behind each other but for those that do not: a copy for each stretch. */
static status upload_stretches(struct rank *r, const struct incoming *in)
{
    uint32_t count = r->engine->graph->inputs.count;
    status s = TPC_OK;
    for (uint32_t i = 0; i < count && s == TPC_OK; i++) {
        if (!in[i].bytes)
            continue;
        struct filling f = {r, in, offset_of(r, i)};
        uint64_t end = f.first;
        for (; i < count && (in[i].host || !r->input[i].at); i++)
            end = in[i].bytes ? offset_of(r, i) + in[i].bytes : end;
        s = r->device->ops->stream(r->device, (char *)r->inputs.at + f.first, end - f.first, fill_incoming, &f,
                                   &r->failure);
    }
    return s;
}

status bring_inputs(struct rank *r, const struct tensor *inputs, const bool *keep, uint32_t but)
{
    struct engine *e = r->engine;
    bool here = r->device->ops->reads_host;
    struct incoming *in = NEW_ARRAY(r->scratch, struct incoming, e->graph->inputs.count + 1);
    status s = TPC_OK;
    for (uint32_t i = 0; i < e->graph->inputs.count && s == TPC_OK; i++) {
        uint32_t state = e->state_of_input[i];
        if (i == but || (keep && keep[i]) || (state && state_in_place(e, state - 1)))
            continue;
        if (e->cut_input[i])
            s = cut_input(r, i, &inputs[i], &in[i]);
        else
            in[i] = (struct incoming){inputs[i].data, tensor_bytes(&inputs[i])};
    }
    if (s == TPC_OK && !here)
        s = place_incoming(r, in);
    return s == TPC_OK && !here ? upload_stretches(r, in) : s;
}
