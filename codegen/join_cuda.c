/* codegen/join_cuda.c - neighbouring kernels that do not depend on each other as one launch: each gets blocks of its own.
 *
 *     if (block < arguments.end0) tpc_j_HASH_0(..); else if (block < arguments.end1) tpc_j_HASH_1(..); ..
 *
 * A run is kernel steps one after another that nothing else takes. A kernel's level in it is how many others must have run before, at the longest; those of
 * one level and one kind of block are joined (one that is alone waits for a later level's), and all of a run's launches take the places of its
 * first steps, in the order of levels. So rotations of
 * queries and keys and the growth of caches are one launch, and so are norms of queries and keys before them. Start at cuda_find_joins.
 */
#include "codegen/cuda_impl.h"

#include <inttypes.h>

/* ---- finding ---- */

/* Kinds of blocks: a number of threads; warps or one row; tiles. */
enum { KIND_LINE, KIND_ROWS, KIND_TILES };

static int kind_of(const struct cuda_set *set, uint32_t step)
{
    switch (set->kernel[set->program->steps.at[step].kernel].form.shape) {
    case CUDA_POINTS:
    case CUDA_COLUMNS:
        return KIND_LINE;
    case CUDA_ROWS:
        return KIND_ROWS;
    case CUDA_TILES:
        break;
    }
    return KIND_TILES;
}

static bool may_join(const struct cuda_set *set, uint32_t step)
{
    const struct step *s = &set->program->steps.at[step];
    return s->kind == STEP_KERNEL && s->phase == PHASE_RUN && !set->attention[step] && !set->skinny[step].count &&
           set->kernel[s->kernel].nest.points + set->kernel[s->kernel].nest.loops > 0; /* more than one thread */
}

/* Does the later one use what the earlier one writes, or write what that uses? */
static bool depends(const struct program *p, const struct step *later, const struct step *earlier)
{
    const struct kernel *a = &p->kernels.at[later->kernel], *b = &p->kernels.at[earlier->kernel];
    for (uint32_t i = 0; i < later->arg_count; i++)
        for (uint32_t k = 0; k < earlier->arg_count; k++)
            if (later->arg[i] == earlier->arg[k] && (a->buffer[i].written || b->buffer[k].written))
                return true;
    return false;
}

enum { LONGEST_RUN = 64 };

struct run {
    uint32_t first, count;
    uint32_t level[LONGEST_RUN]; /* per step of it */
    bool joined;                 /* some launch has several parts */
};

static void find_levels(const struct cuda_set *set, struct run *r)
{
    const struct program *p = set->program;
    for (uint32_t i = 0; i < r->count; i++)
        for (uint32_t k = 0; k < i; k++)
            if (r->level[k] >= r->level[i] && depends(p, &p->steps.at[r->first + i], &p->steps.at[r->first + k]))
                r->level[i] = r->level[k] + 1;
}

/* How many of the run are of this level and kind. */
static uint32_t count_at(const struct cuda_set *set, const struct run *r, uint32_t level, int kind)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < r->count; i++)
        count += r->level[i] == level && kind_of(set, r->first + i) == kind;
    return count;
}

/* A kernel that is alone at its level goes to the next where there are others of its kind, if nothing of the run waits for it. */
static void raise_lone(const struct cuda_set *set, struct run *r, uint32_t i)
{
    const struct program *p = set->program;
    int kind = kind_of(set, r->first + i);
    uint32_t end = r->count;
    for (uint32_t k = i + 1; k < r->count; k++)
        if (r->level[k] < end && depends(p, &p->steps.at[r->first + k], &p->steps.at[r->first + i]))
            end = r->level[k];
    if (count_at(set, r, r->level[i], kind) > 1)
        return;
    for (uint32_t level = r->level[i] + 1; level < end; level++)
        if (count_at(set, r, level, kind) > 0) {
            r->level[i] = level;
            return;
        }
}

/* ---- text ---- */

/* The first part that is the same kernel. */
static uint32_t first_alike(const struct program *p, const struct cuda_join *j, uint32_t part)
{
    uint32_t i = 0;
    while (p->steps.at[j->step[i]].kernel != p->steps.at[j->step[part]].kernel)
        i++;
    return i;
}

static void print_parts(struct cuda_set *set, const struct cuda_join *j, const char *name, struct text *body)
{
    const struct program *p = set->program;
    for (uint32_t i = 0; i < j->count; i++) {
        const struct kernel *k = &p->kernels.at[p->steps.at[j->step[i]].kernel];
        struct dialect d = dialect_cuda_of(k);
        d.function = cuda_part_function;
        if (first_alike(p, j, i) == i)
            print_kernel_as(&d, k, arena_printf(set->arena, "%s_%u", name, (unsigned)i), p->graph->dims, set->arena,
                            body);
    }
}

static void print_entry(struct cuda_set *set, const struct cuda_join *j, const char *name, uint32_t threads,
                        struct text *body)
{
    text_printf(body, "struct %s_arguments {\n", name);
    for (uint32_t i = 0; i < j->count; i++)
        text_printf(body, "    int64_t end%u;\n", (unsigned)i);
    for (uint32_t i = 0; i < j->count; i++)
        text_printf(body, "    struct %s_%u_arguments part%u;\n", name, (unsigned)first_alike(set->program, j, i),
                    (unsigned)i);
    text_printf(body, "};\n/* Each part has its blocks: up to its end. */\nENTRY(%s, %u)\n{\n", name,
                (unsigned)threads);
    text_put(body, "    const int64_t block = blockIdx.x;\n");
    for (uint32_t i = 0; i < j->count; i++) {
        const char *from = i ? arena_printf(set->arena, " - arguments.end%u", (unsigned)i - 1) : "";
        text_printf(body, "    %sif (block < arguments.end%u)\n", i ? "else " : "", (unsigned)i);
        text_printf(body, "        %s_%u(arguments.part%u, block%s, arguments.end%u%s);\n", name,
                    (unsigned)first_alike(set->program, j, i), (unsigned)i, from, (unsigned)i, from);
    }
    text_put(body, "}\n");
}

static void add_function(struct cuda_set *set, struct cuda_join *j)
{
    const struct program *p = set->program;
    struct text body = {.arena = set->arena}, names = {.arena = set->arena};
    uint32_t threads = 0;
    for (uint32_t i = 0; i < j->count; i++) {
        const struct cuda_kernel *c = &set->kernel[p->steps.at[j->step[i]].kernel];
        char kernel[KERNEL_NAME];
        kernel_name(c->nest.kernel, p->graph->dims, set->arena, kernel);
        text_printf(&names, " %s", kernel);
        threads = threads < c->form.threads ? c->form.threads : threads;
    }
    const char *name = arena_printf(set->arena, "tpc_j_%016" PRIx64, hash_bytes(names.at, names.length, 0));
    text_printf(&body, "/* Together:%s */\n", names.at);
    print_parts(set, j, name, &body);
    print_entry(set, j, name, threads, &body);
    j->function = cuda_add(set, name, body.at, threads, p->steps.at[j->step[0]].node);
}

/* ---- runs ---- */

/* Parts of one level and kind, in the order of steps. */
static void take_parts(struct cuda_set *set, struct run *r, uint32_t level, int kind)
{
    struct cuda_join j = {0};
    for (uint32_t i = 0; i <= r->count; i++) {
        bool end = i == r->count, ours = !end && r->level[i] == level && kind_of(set, r->first + i) == kind;
        if (j.count == CUDA_PARTS || (end && j.count)) {
            *PUSH(set->arena, &set->joins) = j;
            r->joined |= j.count > 1;
            j.count = 0;
        }
        if (ours)
            j.step[j.count++] = r->first + i;
    }
}

static void join_run(struct cuda_set *set, struct run *r)
{
    uint32_t first = set->joins.count;
    find_levels(set, r);
    for (uint32_t i = r->count; i-- > 0;)
        raise_lone(set, r, i);
    for (uint32_t level = 0; level < r->count; level++)
        for (int kind = KIND_LINE; kind <= KIND_TILES; kind++)
            take_parts(set, r, level, kind);
    if (!r->joined) {
        set->joins.count = first;
        return;
    }
    for (uint32_t i = first; i < set->joins.count; i++) {
        struct cuda_join *j = &set->joins.at[i];
        if (j->count > 1)
            add_function(set, j);
        j->place = r->first + i - first;
        set->join_at[j->place] = i + 1;
        for (uint32_t k = 0; k < j->count; k++)
            set->joined_by[j->step[k]] = i + 1;
    }
}

void cuda_find_joins(struct cuda_set *set)
{
    const struct program *p = set->program;
    set->join_at = NEW_ARRAY(set->arena, uint32_t, p->steps.count + 1);
    set->joined_by = NEW_ARRAY(set->arena, uint32_t, p->steps.count + 1);
    for (uint32_t i = 0; i < p->steps.count; i++) {
        struct run r = {.first = i};
        while (i < p->steps.count && may_join(set, i) && i - r.first < LONGEST_RUN)
            i++;
        r.count = i - r.first;
        i -= r.count > 0;
        if (r.count > 1)
            join_run(set, &r);
    }
}

void cuda_keep_joined(const struct cuda_set *set, struct program *p)
{
    for (uint32_t i = 0; i < set->joins.count; i++) {
        const struct cuda_join *j = &set->joins.at[i];
        for (uint32_t k = 0; k < j->count; k++) {
            const struct step *s = &p->steps.at[j->step[k]];
            for (uint32_t a = 0; a < s->arg_count; a++) {
                struct buffer *b = &p->buffers.at[s->arg[a]];
                b->first = b->first > j->place ? j->place : b->first;
                b->last = b->last < j->place ? j->place : b->last;
            }
        }
    }
}

/* ---- launches ---- */

/* Each part's launch on its own, and the shape of blocks that suits all; *x 0: none has work. */
static status launches_of(struct cuda_making *m, const struct cuda_join *j, struct cuda_launch *own, uint32_t *x,
                          uint32_t *y)
{
    bool rows = true;
    *x = *y = 0;
    for (uint32_t i = 0; i < j->count; i++) {
        struct cuda_step step;
        m->step = j->step[i];
        status s = cuda_kernel_step(m, &step);
        if (s != TPC_OK)
            return s;
        own[i] = step.way == CUDA_LAUNCH ? step.launch[0] : (struct cuda_launch){0};
        if (step.way != CUDA_LAUNCH)
            continue;
        *x = own[i].block[0] > *x ? own[i].block[0] : *x;
        *y = own[i].block[1];
        rows = rows && own[i].block[1] > 1;
    }
    *y = rows && *x ? *y : 1; /* a block per row where one wants that */
    return TPC_OK;
}

/* Blocks that a part needs when they have another shape. */
static int64_t blocks_of(const struct cuda_launch *own, int kind, uint32_t x, uint32_t y)
{
    int64_t items = (int64_t)own->grid[0] * (kind == KIND_LINE ? own->block[0] : own->block[1]);
    int64_t per_block = kind == KIND_LINE ? x : y;
    return kind == KIND_TILES ? own->grid[0] : (items + per_block - 1) / per_block;
}

static status launch_together(struct cuda_making *m, const struct cuda_join *j, struct cuda_step *out)
{
    struct cuda_launch own[CUDA_PARTS], *launch = NEW(m->arena, struct cuda_launch);
    uint32_t x, y, place = m->step;
    int kind = kind_of(m->set, j->step[0]);
    int64_t end = 0;
    status s = launches_of(m, j, own, &x, &y);
    if (s != TPC_OK || x == 0)
        return s;
    memset(&m->words, 0, sizeof m->words);
    for (uint32_t i = 0; i < j->count; i++) {
        end += own[i].word_count ? blocks_of(&own[i], kind, x, y) : 0;
        if (end > INT32_MAX)
            return TPC_DATA;
        cuda_put_number(m, end);
    }
    for (uint32_t i = 0; i < j->count; i++) {
        m->step = j->step[i];
        const struct step *part = &m->set->program->steps.at[m->step];
        cuda_put_kernel(m, &m->set->kernel[part->kernel].nest, part);
    }
    m->step = place;
    *launch = cuda_launch_of(m, j->function, end, x, y, 0);
    *out = (struct cuda_step){.way = CUDA_LAUNCH, .count = 1, .launch = launch};
    return TPC_OK;
}

status cuda_join_step(struct cuda_making *m, struct cuda_step *out)
{
    *out = (struct cuda_step){.way = CUDA_NOTHING};
    if (!m->set->join_at[m->step])
        return TPC_OK;
    const struct cuda_join *j = &m->set->joins.at[m->set->join_at[m->step] - 1];
    if (j->count > 1)
        return launch_together(m, j, out);
    m->step = j->step[0];
    return cuda_kernel_step(m, out);
}

uint32_t cuda_steps_at(const struct cuda_set *set, uint32_t step, const uint32_t **steps)
{
    if (!set->joined || !set->join_at[step])
        return 0;
    const struct cuda_join *j = &set->joins.at[set->join_at[step] - 1];
    *steps = j->step;
    return j->count;
}
