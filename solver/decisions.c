/* solver/decisions.c - what a region may decide: masks of sub-axes for its classes, and which shared values are gathered.
 *
 * A sub-axis goes to a set of classes no two of which share a value. Invariant: the order is fixed (fullest sets first, then classes in node order), and of
 * sub-axes that stand for each other only one order is tried. Start with region_decisions.
 */
#include "solver/search.h"

enum { MOST_SETS = 256 };

struct decisions {
    struct solver *s;
    const struct region *region;
    const uint32_t *orbit;
    uint32_t *set; /* classes that may take one sub-axis together */
    uint32_t set_count;
    mask_list out;
};

static void find_sets(struct decisions *d)
{
    uint32_t n = d->region->class_count;
    d->set = NEW_ARRAY(d->s->temporary, uint32_t, MOST_SETS);
    /* Grown from the single classes, breadth first: every set is an earlier one plus a later class. */
    for (uint32_t i = 0; i < n && d->set_count < MOST_SETS - 1; i++)
        d->set[d->set_count++] = 1u << i;
    for (uint32_t k = 0; k < d->set_count; k++)
        for (uint32_t i = 0; i < n && d->set_count < MOST_SETS - 1; i++) {
            uint32_t base = d->set[k], bit = 1u << i;
            if (bit > base && !(base & bit) && !(d->region->conflict[i] & base))
                d->set[d->set_count++] = base | bit;
        }
    uint32_t *sorted = NEW_ARRAY(d->s->temporary, uint32_t, MOST_SETS), count = 0;
    for (int size = 32; size > 0; size--) /* the fullest first */
        for (uint32_t k = 0; k < d->set_count; k++)
            if (__builtin_popcount(d->set[k]) == size)
                sorted[count++] = d->set[k];
    d->set = sorted;
    d->set[d->set_count++] = 0;
}

static bool fits(struct decisions *d, const uint32_t *masks)
{
    for (uint32_t i = 0; i < d->region->class_count; i++)
        if (masks[i] &&
            !parts_fit(d->s, d->s->trees.at[d->region->classes[i]].extent, mesh_parts(d->s->mesh, masks[i])))
            return false;
    return true;
}

/* The masks with every set of shared values gathered that they cut. */
static void add_gathers(struct decisions *d, const uint32_t *masks, uint32_t sequence)
{
    uint32_t n = d->region->class_count, cut = 0, set = 0;
    for (uint32_t i = 0; i < d->region->shared_count; i++)
        for (uint32_t k = 0; k < n; k++)
            if (masks[k] && (d->region->shared_holds[i] >> k & 1))
                cut |= 1u << i;
    cut |= sequence ? d->region->shared_rows : 0;
    do {
        uint32_t *with = (uint32_t *)arena_copy(d->s->arena, masks, (n + 2) * sizeof *masks);
        with[n] = set;
        with[n + 1] = sequence;
        *PUSH(d->s->temporary, &d->out) = with;
        set = (set - cut) & cut; /* the next subset of `cut` */
    } while (set);
}

/* What has no class cut over the tensor axis may lie on sequence shards over it. */
static void add_sequences(struct decisions *d, const uint32_t *masks)
{
    enum sequence_parallel wanted = d->s->options->sequence;
    uint32_t all = d->s->over[AXIS_TENSOR];
    bool split = false;
    for (uint32_t i = 0; all && wanted != SEQUENCE_WHOLE && i < d->region->row_count; i++)
        split = split || d->s->trees.at[d->region->rows[i]].row == ROW_SEQUENCE;
    for (uint32_t i = 0; i < d->region->class_count; i++)
        split = split && !(masks[i] & all);
    if (!split || wanted == SEQUENCE_BY_COST)
        add_gathers(d, masks, 0);
    if (split)
        add_gathers(d, masks, all);
}

/* Whether every class of the set may take the sub-axis; the empty set, which is the last, always. */
static bool allows(const struct decisions *d, uint32_t set, uint32_t subaxis)
{
    for (uint32_t i = 0; i < d->region->class_count; i++)
        if ((d->set[set] >> i & 1) && !(d->region->allowed[i] >> subaxis & 1))
            return false;
    return true;
}

/* Depth: the number of sub-axes (at most MAX_SUBAXES). */
static void enumerate_from(struct decisions *d, uint32_t subaxis, uint32_t *set_of)
{
    uint32_t n = d->region->class_count;
    if (subaxis == d->s->mesh->count) {
        uint32_t *masks = NEW_ARRAY(d->s->arena, uint32_t, n + 2);
        for (uint32_t a = 0; a < subaxis; a++)
            for (uint32_t i = 0; i < n; i++)
                masks[i] |= (d->set[set_of[a]] >> i & 1) << a;
        if (fits(d, masks))
            add_sequences(d, masks);
        return;
    }
    uint32_t first = 0;
    for (uint32_t a = 0; a < subaxis; a++)
        if (d->orbit[a] == d->orbit[subaxis])
            first = set_of[a];
    for (uint32_t k = first; k < d->set_count; k++) {
        set_of[subaxis] = k;
        if (allows(d, k, subaxis))
            enumerate_from(d, subaxis + 1, set_of);
    }
}

mask_list region_decisions(struct solver *s, uint32_t region, const uint32_t *orbit)
{
    struct decisions d = {.s = s, .region = &s->regions.at[region], .orbit = orbit};
    uint32_t set_of[MAX_SUBAXES];
    find_sets(&d);
    enumerate_from(&d, 0, set_of);
    return d.out;
}
