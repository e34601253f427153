/* solver/cost.c - what things cost: bytes of weights and states on a rank, time at nominal dims, collectives.
 *
 * Invariant: costs are integers, so that sums do not depend on their order and equal costs are equal. Time is in picoseconds, prefill plus decode. A
 * rank's share of a cut extent is its largest part. Start with conversion_cost.
 */
#include "solver/internal.h"

#include <math.h>

static const double LONGEST = 4e17; /* picoseconds: costs are cut here, so that sums cannot overflow */

struct cost cost_zero(void)
{
    return (struct cost){0, 0, 0};
}

struct cost cost_never(void)
{
    return (struct cost){INT64_MAX, INT64_MAX, INT64_MAX};
}

struct cost cost_add(struct cost a, struct cost b)
{
    if (!cost_possible(a) || !cost_possible(b))
        return cost_never();
    return (struct cost){a.bytes + b.bytes, a.time + b.time, a.switches + b.switches};
}

/* Picoseconds, with what bytes are worth in them. Products stay exact: times and bytes are below 2^62 each. */
__extension__ typedef __int128 wide;
static wide priced(const struct solver *s, struct cost c)
{
    return (wide)c.time * 1024 + (wide)c.bytes * s->options->byte_price;
}

bool cost_less(const struct solver *s, struct cost a, struct cost b)
{
    if (s->options->objective == OBJECTIVE_LATENCY && priced(s, a) != priced(s, b))
        return priced(s, a) < priced(s, b);
    if (a.bytes != b.bytes)
        return a.bytes < b.bytes;
    if (a.time != b.time)
        return a.time < b.time;
    return a.switches < b.switches;
}

static int64_t picoseconds(double seconds)
{
    double p = seconds * 1e12;
    return (int64_t)llround(p > LONGEST ? LONGEST : p);
}

/* ---- extents ---- */

static int64_t param_size(const struct param *p)
{
    int64_t count = (int64_t)dtype_size(p->dtype);
    for (uint32_t i = 0; i < p->rank; i++)
        if (!i64_mul(count, p->shape[i], &count))
            return INT64_MAX / 4;
    return count;
}

/* A weight counts when all weights of its type and shape together are worth it: one layer of eighty is as small as a router. */
static void find_negligible(struct solver *s)
{
    uint32_t count = s->g->params.count, *kind = NEW_ARRAY(s->temporary, uint32_t, count + 1);
    int64_t *total = NEW_ARRAY(s->temporary, int64_t, count + 1);
    struct map kinds = {.arena = s->temporary};
    s->negligible = NEW_ARRAY(s->arena, bool, count + 1);
    for (uint32_t i = 0; i < count; i++) {
        const struct param *p = &s->g->params.at[i];
        int64_t key[MAX_RANK + 1] = {(int64_t)p->dtype};
        bool added;
        memcpy(key + 1, p->shape, p->rank * sizeof *key);
        uint32_t *slot = map_put(&kinds, key, (p->rank + 1) * sizeof *key, &added);
        if (added)
            *slot = kinds.count - 1;
        kind[i] = *slot;
        if (!i64_add(total[kind[i]], param_size(p), &total[kind[i]]))
            total[kind[i]] = INT64_MAX / 4;
    }
    for (uint32_t i = 0; i < count; i++)
        s->negligible[i] = total[kind[i]] < s->param_bytes / 1000;
}

void cost_start(struct solver *s)
{
    int64_t sum = 0;
    s->machine = s->options->machine ? s->options->machine : machine_default();
    (void)nominal_dims(s->g, s->options, s->arena, NULL, s->symbol);
    for (uint32_t i = 0; i < s->g->params.count; i++)
        if (!i64_add(sum, param_size(&s->g->params.at[i]), &sum))
            sum = INT64_MAX / 4;
    s->param_bytes = sum;
    find_negligible(s);
}

int64_t nominal_extent(struct solver *s, dim d, int phase)
{
    while (s->nominal[phase].count <= d)
        *PUSH(s->arena, &s->nominal[phase]) = -1;
    int64_t *known = &s->nominal[phase].at[d];
    if (*known < 0) {
        int64_t x;
        if (!dim_eval(s->g->dims, d, s->symbol[phase], &x) || x < 0)
            x = 0;
        *known = x;
    }
    return *known;
}

static double share(struct solver *s, const struct graph *parts, dim extent, uint32_t partition, int phase)
{
    int64_t n = nominal_extent(s, extent, phase);
    if (!partition)
        return (double)n;
    const struct partition *p = &parts->partitions.at[partition];
    if (!p->offset) {
        int64_t step = p->unit * (int64_t)p->parts;
        return (double)((n + step - 1) / step * p->unit);
    }
    int64_t most = 0;
    for (uint32_t i = 0; i < p->parts; i++)
        most = p->offset[i + 1] - p->offset[i] > most ? p->offset[i + 1] - p->offset[i] : most;
    return (double)most;
}

static double axis_elements(struct solver *s, const struct graph *parts, const struct axis_layout *a, int phase)
{
    double sum = 0;
    for (uint32_t i = 0; i < a->count; i++) {
        double product = 1;
        for (uint32_t k = 0; k < a->segment[i].count; k++)
            product *= share(s, parts, a->segment[i].factor[k].extent, a->segment[i].factor[k].partition, phase);
        sum += product;
    }
    return sum;
}

double placement_elements(struct solver *s, const struct graph *parts, const struct placement *p, int phase)
{
    double product = 1;
    for (uint32_t i = 0; i < p->rank; i++)
        product *= axis_elements(s, parts, &p->axis[i], phase);
    return product;
}

static double tree_share(struct solver *s, tree t, uint64_t whole, uint32_t *leaf, int phase, unsigned depth)
{
    const struct tree_node *n = &s->trees.at[tree_find(s, t)];
    if (n->kind == TREE_LEAF || depth > 60) {
        uint32_t at = (*leaf)++;
        bool cut = !n->row || (at < 64 && !(whole >> at & 1));
        return share(s, s->scratch, n->extent, cut ? n->partition : 0, phase);
    }
    double x = n->kind == TREE_PROD ? 1 : 0;
    for (uint32_t i = 0; i < n->count; i++) {
        double child = tree_share(s, n->child[i], whole, leaf, phase, depth + 1);
        x = n->kind == TREE_PROD ? x * child : x + child;
    }
    return x;
}

double view_elements(struct solver *s, const struct view *view, int phase)
{
    double product = 1;
    uint32_t leaf = 0;
    for (uint32_t i = 0; i < view->rank; i++)
        product *= tree_share(s, view->axes[i], view->whole, &leaf, phase, 0);
    return product;
}

/* ---- collectives ---- */

static double parts_of(const struct graph *g, uint32_t mask)
{
    return (double)mesh_parts(&g->mesh, mask);
}

/* One collective over `mask` for which a rank sends bytes[phase]. */
static struct cost collective(const struct solver *s, uint32_t mask, const double bytes[2])
{
    const struct machine_link *link = &s->machine->level[link_level(s, mask)];
    struct cost c = cost_zero();
    for (int phase = 0; phase < 2; phase++)
        c.time += picoseconds(link->latency + bytes[phase] / link->bandwidth);
    c.switches = 1;
    return c;
}

struct cost reduce_cost(struct solver *s, const double elements[2], dtype type, uint32_t mask)
{
    double n = parts_of(s->scratch, mask), bytes[2];
    for (int phase = 0; phase < 2; phase++)
        bytes[phase] = 2 * (n - 1) / n * elements[phase] * (double)dtype_size(type);
    return collective(s, mask, bytes);
}

/* The axis that a reduction over `mask` can be scattered to; -1 when none. */
static int scatter_axis(const struct graph *parts, const struct placement *from, const struct placement *to,
                        uint32_t mask)
{
    int found = -1;
    for (uint32_t i = 0; i < to->rank; i++) {
        if (axis_equal(&from->axis[i], &to->axis[i]))
            continue;
        if (found >= 0 || !axis_is_whole(&from->axis[i]))
            return -1;
        if (to->axis[i].count != 1)
            return -1;
        uint32_t partition = 0;
        for (uint32_t f = 0; f < to->axis[i].segment[0].count; f++) {
            uint32_t p = to->axis[i].segment[0].factor[f].partition;
            if (p && partition)
                return -1;
            partition = p ? p : partition;
        }
        if (!partition || parts->partitions.at[partition].subaxes != mask)
            return -1;
        found = (int)i;
    }
    return found;
}

struct cost conversion_cost(struct solver *s, const struct graph *parts, dtype type, const struct placement *from,
                            const struct placement *to)
{
    struct cost c = cost_zero();
    double elements[2], size = (double)dtype_size(type), bytes[2];
    for (int phase = 0; phase < 2; phase++)
        elements[phase] = placement_elements(s, parts, from, phase);
    uint32_t lost = from->partial ? from->partial_subaxes & ~(to->partial ? to->partial_subaxes : 0u) : 0;
    if (lost) {
        if (scatter_axis(parts, from, to, lost) >= 0) {
            double n = parts_of(parts, lost);
            for (int phase = 0; phase < 2; phase++)
                bytes[phase] = (n - 1) / n * elements[phase] * size;
            return collective(s, lost, bytes);
        }
        c = cost_add(c, reduce_cost(s, elements, type, lost));
    }
    for (uint32_t i = 0; i < from->rank; i++) {
        if (axis_equal(&from->axis[i], &to->axis[i]) || axis_is_whole(&from->axis[i]))
            continue;
        uint32_t over = axis_subaxes(parts, &from->axis[i]);
        double n = parts_of(parts, over);
        for (int phase = 0; phase < 2; phase++) {
            double local = axis_elements(s, parts, &from->axis[i], phase), whole = 0;
            for (uint32_t k = 0; k < from->axis[i].count; k++) {
                double product = 1;
                for (uint32_t f = 0; f < from->axis[i].segment[k].count; f++)
                    product *= (double)nominal_extent(s, from->axis[i].segment[k].factor[f].extent, phase);
                whole += product;
            }
            elements[phase] = local > 0 ? elements[phase] / local * whole : 0;
            bytes[phase] = (n - 1) / n * elements[phase] * size;
        }
        c = cost_add(c, collective(s, over, bytes));
    }
    return c;
}

const struct placement *gathered_on_the_way(struct solver *s, value v, const struct placement *from,
                                            const struct placement *to)
{
    const struct node *n = graph_node(s->g, v);
    struct placement *gathered = (struct placement *)arena_copy(s->temporary, from, sizeof *from);
    struct axis_layout *axis = (struct axis_layout *)arena_copy(s->temporary, from->axis, from->rank * sizeof *axis);
    const struct placement *whole = placement_whole(s->temporary, n->rank, n->shape);
    for (uint32_t k = 0; k < from->rank; k++)
        if (!axis_equal(&from->axis[k], &to->axis[k]) && !axis_is_whole(&from->axis[k]))
            axis[k] = whole->axis[k];
    gathered->axis = axis;
    return gathered;
}

/* All conversions of one value. A step that makes the same of the same is made once: what must be finished by an all_reduce anyway is where the
 * others start; an axis that was gathered for one target is gathered for all. */
struct cost conversions_cost(struct solver *s, const struct graph *parts, value v, const struct placement *result,
                             uint32_t count, const struct placement *const *targets)
{
    const struct node *n = graph_node(s->g, v);
    const struct placement *from = result;
    struct cost c = cost_zero();
    if (from->partial) { /* from the sum as it is: only where one target wants it completed, and can have it scattered */
        struct placement *plain = (struct placement *)arena_copy(s->temporary, from, sizeof *from);
        bool finish = false;
        const struct placement *first = NULL;
        plain->partial = 0;
        plain->partial_subaxes = 0;
        struct cost all = conversion_cost(s, parts, n->dtype, from, plain);
        for (uint32_t i = 0; i < count; i++) {
            struct cost one = conversion_cost(s, parts, n->dtype, from, targets[i]);
            if (targets[i]->partial)
                continue; /* still there */
            first = first ? first : targets[i];
            finish = finish || !cost_less(s, one, all) || !placement_equal(first, targets[i]);
        }
        if (finish) {
            c = all;
            from = plain;
        }
    }
    LIST(const struct placement *) done = {0};
    for (uint32_t i = 0; i < count; i++) {
        const struct placement *to = targets[i];
        if (to->partial && from != result)
            continue; /* still there */
        const struct placement *step = from->partial ? to : gathered_on_the_way(s, v, from, to);
        bool known = false;
        for (uint32_t k = 0; k < done.count; k++)
            known = known || placement_equal(done.at[k], step);
        if (known)
            continue;
        *PUSH(s->temporary, &done) = step;
        c = cost_add(c, conversion_cost(s, parts, n->dtype, from, step));
    }
    return c;
}

/* ---- ops ---- */

static int64_t work(const struct machine *machine, dtype type, double flops, double bytes)
{
    double compute = flops / machine->flops[type], memory = bytes / machine->memory_bandwidth;
    return picoseconds(compute > memory ? compute : memory);
}

/* Index maps, and what is fused into what makes or takes the value: free. */
static bool is_fused(op o)
{
    op_class class = op_info(o)->class;
    return class == CLASS_LAYOUT || class == CLASS_LEAF || class == CLASS_POINTWISE;
}

struct cost op_cost(struct solver *s, const struct graph *parts, value v, const struct placement *const *operand,
                    const struct placement *result)
{
    const struct node *n = graph_node(s->g, v);
    struct cost c = cost_zero();
    op_class class = op_info(n->op)->class;
    if (is_fused(n->op))
        return c;
    for (int phase = 0; phase < 2; phase++) {
        double out = placement_elements(s, parts, result, phase), bytes = out * (double)dtype_size(n->dtype),
               flops = out;
        if (class == CLASS_GATHER)
            bytes *= 2;
        else
            for (uint32_t i = 0; i < n->operand_count; i++)
                bytes += placement_elements(s, parts, operand[i], phase) *
                         (double)dtype_size(graph_node(s->g, n->operand[i])->dtype);
        if (class == CLASS_DOT) {
            flops = 2 * out;
            for (int32_t i = 0; i < n->attribute.ncontract; i++)
                flops *= axis_elements(s, parts, &operand[0]->axis[operand[0]->rank - 1 - (uint32_t)i], phase);
        }
        c.time += work(s->machine, graph_node(s->g, n->operand[0])->dtype, flops, bytes);
    }
    return c;
}

struct demand {
    value at;
    const struct placement *placement;
};
typedef LIST(struct demand) demand_list;

static void demand(struct solver *s, demand_list *list, value v, const struct placement *p)
{
    for (uint32_t i = 0; i < list->count; i++)
        if (list->at[i].at == v) {
            const struct node *n = graph_node(s->g, v);
            if (!placement_equal(list->at[i].placement, p))
                list->at[i].placement = placement_whole(s->temporary, n->rank, n->shape);
            return;
        }
    if (s->depends[v] & DEPENDS_PARAM)
        *PUSH(s->temporary, list) = (struct demand){v, p};
}

void cost_sharing(struct solver *s)
{
    LIST(value) open = {0};
    memset(s->readers, 0, (s->g->params.count + 1) * sizeof *s->readers);
    for (uint32_t i = 0; i < s->units.count; i++) {
        const struct unit *u = &s->units.at[i];
        s->joint_stamp++;
        if (u->kind != UNIT_EDGE)
            *PUSH(s->temporary, &open) = graph_node(s->g, u->node)->operand[1 - u->slot];
        while (open.count) {
            value v = open.at[--open.count];
            const struct node *n = graph_node(s->g, v);
            if (s->joint_seen[v] == s->joint_stamp || !(s->depends[v] & DEPENDS_PARAM))
                continue;
            s->joint_seen[v] = s->joint_stamp;
            if (n->op == OP_PARAM)
                s->readers[n->attribute.index]++;
            for (uint32_t k = 0; k < n->operand_count; k++)
                *PUSH(s->temporary, &open) = n->operand[k];
        }
    }
}

/* A weight that several units read is stored once where they read it alike: each of them pays its share of that.
 * Walks back from the use, the largest value first, so that all who want a value have said so when its turn comes. */
int64_t stored_bytes(struct solver *s, value v, const struct placement *wanted)
{
    demand_list list = {0};
    int64_t sum = 0;
    demand(s, &list, v, wanted);
    while (list.count) {
        uint32_t top = 0;
        for (uint32_t i = 1; i < list.count; i++)
            top = list.at[i].at > list.at[top].at ? i : top;
        struct demand d = list.at[top];
        list.at[top] = list.at[--list.count];
        const struct node *n = graph_node(s->g, d.at);
        if (n->op == OP_PARAM) {
            if (s->negligible[n->attribute.index])
                continue;
            double bytes = placement_elements(s, s->scratch, d.placement, 0) * (double)dtype_size(n->dtype);
            uint32_t readers = s->readers[n->attribute.index];
            sum += (int64_t)(bytes / (double)(readers ? readers : 1));
            continue;
        }
        const struct placement **back = NEW_ARRAY(s->temporary, const struct placement *, n->operand_count + 1);
        bool possible = true;
        for (uint32_t i = 0; i < n->operand_count; i++) {
            back[i] = pull_back(s->scratch, d.at, i, d.placement, s->temporary);
            possible = possible && back[i];
        }
        for (uint32_t i = 0; i < n->operand_count; i++) {
            const struct node *u = graph_node(s->g, n->operand[i]);
            demand(s, &list, n->operand[i], possible ? back[i] : placement_whole(s->temporary, u->rank, u->shape));
        }
    }
    return sum;
}

void region_targets(struct solver *s, value v, target_list *out)
{
    const struct node *n = graph_node(s->g, v);
    if (s->handed_out[v])
        *PUSH(s->temporary, out) = placement_whole(s->temporary, n->rank, n->shape);
    if (s->gathered[v])
        *PUSH(s->temporary, out) = gathered_placement(s, s->scratch, v, s->temporary);
    for (uint32_t i = s->rows ? s->uses.first[v] : s->uses.first[v + 1]; i < s->uses.first[v + 1]; i++) {
        value w = s->uses.use[i];
        for (uint32_t k = 0; s->live[w] && s->whole_at[w] && k < graph_node(s->g, w)->operand_count; k++)
            if (graph_node(s->g, w)->operand[k] == v && rows_convert(s, w, k))
                *PUSH(s->temporary, out) = slot_placement(s, w, k, s->temporary);
    }
}

static struct cost region_conversions(struct solver *s, value v)
{
    target_list targets = {0};
    region_targets(s, v, &targets);
    return targets.count
               ? conversions_cost(s, s->scratch, v, value_placement(s, v, s->temporary), targets.count, targets.at)
               : cost_zero();
}

/* Whether any use takes a region's value in its own placement. */
static bool taken_as_made(const struct solver *s, value v)
{
    for (uint32_t i = s->uses.first[v]; i < s->uses.first[v + 1]; i++) {
        value w = s->uses.use[i];
        for (uint32_t k = 0; s->live[w] && k < graph_node(s->g, w)->operand_count; k++)
            if (graph_node(s->g, w)->operand[k] == v && !rows_convert(s, w, k))
                return true;
    }
    return false;
}

struct cost settled_cost(struct solver *s, value v, const struct placement *from, const struct placement *own)
{
    target_list targets = {0};
    *PUSH(s->temporary, &targets) = own;
    region_targets(s, v, &targets);
    if (targets.count == 1)
        return conversions_cost(s, s->scratch, v, from, 1, targets.at);
    uint32_t first = taken_as_made(s, v) ? 0 : 1;
    struct cost all = conversions_cost(s, s->scratch, v, from, targets.count - first, targets.at + first);
    struct cost paid = conversions_cost(s, s->scratch, v, own, targets.count - 1, targets.at + 1);
    return (struct cost){all.bytes - paid.bytes, all.time - paid.time, all.switches - paid.switches};
}

/* A sum over rows of which each rank has a part is completed at once. */
static struct cost rows_sum_cost(struct solver *s, value v)
{
    uint32_t summed = rows_summed(s, v);
    struct view view = value_view(s, v);
    double elements[2];
    for (int phase = 0; phase < 2 && summed; phase++)
        elements[phase] = view_elements(s, &view, phase);
    return summed ? reduce_cost(s, elements, graph_node(s->g, v)->dtype, summed) : cost_zero();
}

/* What a region costs under its decision: its ops, its states, its outputs. (What it reads of params itself, biases and norms, is left out.) */
struct cost region_cost(struct solver *s, uint32_t region)
{
    const struct region *r = &s->regions.at[region];
    struct cost total = cost_zero();
    for (uint32_t i = 0; i < r->value_count; i++) {
        value v = r->values[i];
        const struct node *n = graph_node(s->g, v);
        struct arena_mark mark = arena_mark(s->temporary);
        struct view view = value_view(s, v);
        if (s->role[v] == ROLE_STATE)
            total.bytes += (int64_t)(view_elements(s, &view, 1) * (double)dtype_size(n->dtype));
        if (s->role[v] == ROLE_OP && !is_fused(n->op)) {
            const struct placement **in = NEW_ARRAY(s->temporary, const struct placement *, n->operand_count + 1);
            for (uint32_t k = 0; k < n->operand_count; k++)
                in[k] = slot_placement(s, v, k, s->temporary);
            total = cost_add(total, op_cost(s, s->scratch, v, in, value_placement(s, v, s->temporary)));
        }
        total = cost_add(total, region_conversions(s, v));
        total = cost_add(total, rows_sum_cost(s, v));
        arena_rewind(s->temporary, mark);
    }
    return total;
}
