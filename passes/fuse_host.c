/* passes/fuse_host.c - hosting: a group that computes a value anyway, point by point, stores it on the way. Start with plan_host. */
#include "passes/fuse.h"

enum { SEARCH_LIMIT = 4096 };

/* Does a group depend, through buffers, on another one that reads v? */
static bool depends_on_reader(struct plan *p, uint32_t group, value v)
{
    LIST(uint32_t) work = {0};
    uint32_t mark = ++p->mark;
    for (uint32_t i = p->accesses[v]; i != 0; i = p->pool.at[i].next)
        plan_group(p, p->pool.at[i].group)->reader_mark = mark;
    plan_group(p, group)->reader_mark = 0;
    plan_group(p, group)->mark = mark;
    *PUSH(p->arena, &work) = group;
    for (uint32_t k = 0; k < work.count; k++) {
        const struct group *g = plan_group(p, work.at[k]);
        if (k == SEARCH_LIMIT || g->reader_mark == mark)
            return true;
        for (uint32_t r = 0; r < g->reads.count; r++)
            for (uint32_t i = 0; i < p->producers[g->reads.at[r]]; i++) {
                uint32_t next = p->producer[g->reads.at[r]] - 1 + i;
                if (plan_group(p, next)->mark == mark)
                    continue;
                plan_group(p, next)->mark = mark;
                *PUSH(p->arena, &work) = next;
            }
    }
    return false;
}

/* Does `index` run through all of v exactly once as the group iterates (all of its axes, or the outer ones)? */
static bool covers_once(const struct plan *p, const struct group *g, value v, const dim *index)
{
    const struct node *n = graph_node(p->graph, v);
    const struct space *s = &g->space;
    dim flat = index_row_major(s, n->rank, n->shape, index);
    uint32_t outer = 0;
    while (outer < s->order_count && s->kind[s->order[outer]] == AXIS_OUTER)
        outer++;
    for (uint32_t end = s->order_count;; end = outer) {
        if (flat == space_row_major(s, 0, end) && space_size(s, 0, end) == graph_elements(p->graph, v))
            return true;
        if (end == outer)
            return false;
    }
}

static bool may_host(struct plan *p, const struct access *a, value v)
{
    const struct group *g = plan_group(p, a->group);
    return !a->dense && g->kind == GROUP_KERNEL && g->is_static == p->is_static[v] && g->size < GROUP_SIZE_LIMIT &&
           g->reader_count == 1 && covers_once(p, g, v, a->index);
}

const struct access *plan_host(struct plan *p, value v)
{
    const struct access *best = NULL;
    for (uint32_t i = p->accesses[v]; i != 0; i = p->pool.at[i].next)
        plan_group(p, p->pool.at[i].group)->reader_count = 0;
    for (uint32_t i = p->accesses[v]; i != 0; i = p->pool.at[i].next)
        plan_group(p, p->pool.at[i].group)->reader_count++;
    for (uint32_t i = p->accesses[v]; i != 0; i = p->pool.at[i].next) {
        const struct access *a = &p->pool.at[i];
        bool earlier = best == NULL || plan_group(p, a->group)->root < plan_group(p, best->group)->root;
        if (earlier && may_host(p, a, v))
            best = a;
    }
    return best != NULL && !depends_on_reader(p, best->group, v) ? best : NULL;
}
