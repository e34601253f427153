/* codegen/cuda.c - the functions of a Program on CUDA: printed once each, found again by name; and the way of each step.
 *
 * A function's name says all that its text depends on, so that repeated layers, equal Programs and other models share it. Start at cuda_new and
 * cuda_step.
 */
#include "codegen/cuda_impl.h"

#include <errno.h>
#include <sys/stat.h>

/* ---- functions ---- */

uint32_t cuda_add(struct cuda_set *set, const char *name, const char *body, uint32_t threads, value node)
{
    bool fresh;
    uint32_t *number = map_put(&set->by_name, name, strlen(name), &fresh);
    if (!fresh)
        return *number;
    struct text all = {.arena = set->arena};
    prelude_cuda(&all, body);
    text_put(&all, "\n");
    text_put(&all, body);
    *number = set->functions.count;
    *PUSH(set->arena, &set->functions) = (struct cuda_function){.name = arena_strdup(set->arena, name),
                                                                .source = all.at,
                                                                .length = all.length,
                                                                .node = node,
                                                                .max_threads = threads};
    return *number;
}

static value node_of_kernel(const struct program *p, uint32_t kernel)
{
    for (uint32_t i = 0; i < p->steps.count; i++)
        if (p->steps.at[i].kind == STEP_KERNEL && p->steps.at[i].kernel == kernel)
            return p->steps.at[i].node;
    return 0;
}

static void add_kernel(struct cuda_set *set, uint32_t number)
{
    const struct program *p = set->program;
    const struct kernel *k = &p->kernels.at[number];
    const struct dialect d = dialect_cuda_of(k);
    struct cuda_kernel *c = &set->kernel[number];
    struct text body = {.arena = set->arena};
    char name[KERNEL_NAME];
    nest_of(k, p->graph->dims, d.keeps, set->arena, &c->nest);
    c->form = cuda_form_of(&c->nest, set->arena);
    kernel_name(k, p->graph->dims, set->arena, name);
    print_kernel(&d, k, p->graph->dims, set->arena, &body);
    c->function = cuda_add(set, name, body.at, c->form.threads, node_of_kernel(p, number));
}

/* Functions of a step that is no kernel. */
static void add_step(struct cuda_set *set, uint32_t number)
{
    const struct step *s = &set->program->steps.at[number];
    const struct node *n = graph_node(set->program->graph, s->node);
    bool collective = s->kind == STEP_COLLECTIVE;
    if (collective || (s->kind == STEP_BUILTIN && n->op == OP_SCATTER))
        set->copy_rows = cuda_add_copy_rows(set);
    if (collective && (n->op == OP_ALL_REDUCE || n->op == OP_REDUCE_SCATTER))
        (void)cuda_add_combine(set, n->dtype, n->attribute.mode);
    if (s->kind == STEP_DOT)
        set->of_step[number] = 1 + cuda_add_dot(set, s);
    if (s->kind == STEP_BUILTIN)
        set->of_step[number] = cuda_add_builtin(set, s);
}

status cuda_new(struct arena *arena, const struct program *p, struct diag *diag, struct cuda_set **out)
{
    (void)diag;
    struct cuda_set *set = NEW(arena, struct cuda_set);
    *set = (struct cuda_set){.arena = arena, .program = p, .by_name = {.arena = arena}};
    set->kernel = NEW_ARRAY(arena, struct cuda_kernel, p->kernels.count + 1);
    set->of_step = NEW_ARRAY(arena, uint32_t, p->steps.count + 1);
    set->copy_rows = UINT32_MAX;
    for (uint32_t i = 0; i < p->kernels.count; i++)
        add_kernel(set, i);
    for (uint32_t i = 0; i < p->steps.count; i++)
        add_step(set, i);
    cuda_add_best(set);
    cuda_find_attention(set);
    cuda_find_skinny(set);
    cuda_find_joins(set);
    cuda_find_alike(set);
    cuda_find_epilogues(set);
    set->counts.functions = set->functions.count;
    *out = set;
    return TPC_OK;
}

uint32_t cuda_function_count(const struct cuda_set *set)
{
    return set->functions.count;
}

const struct cuda_function *cuda_function_at(const struct cuda_set *set, uint32_t function)
{
    return &set->functions.at[function];
}

struct cuda_counts cuda_counts(const struct cuda_set *set)
{
    return set->counts;
}

/* ---- steps ---- */

status cuda_step(const struct cuda_set *set, uint32_t step, const int64_t *of, uint32_t processors, struct arena *arena,
                 struct cuda_step *out)
{
    struct cuda_making m = {.set = set, .step = step, .of = of, .processors = processors ? processors : 1};
    m.arena = arena;
    *out = (struct cuda_step){.way = CUDA_NOTHING};
    const struct cuda_attention *a = set->attention[step] ? &set->attentions.at[set->attention[step] - 1] : NULL;
    if (a && set->joined && cuda_attention_fits(&m, a))
        return cuda_attention_step(&m, a, out);
    if (cuda_skinny_step(&m, out))
        return TPC_OK;
    memset(&m.words, 0, sizeof m.words);
    if (set->epilogue[step] && cuda_epilogue_step(&m, out))
        return TPC_OK;
    if (set->joined && set->joined_by[step])
        return cuda_join_step(&m, out);
    switch (set->program->steps.at[step].kind) {
    case STEP_KERNEL:
        return cuda_kernel_step(&m, out);
    case STEP_DOT:
        return cuda_dot_step(&m, out);
    case STEP_BUILTIN:
        return cuda_builtin_step(&m, out);
    case STEP_COLLECTIVE:
        out->way = CUDA_COLLECTIVE;
        return TPC_OK;
    case STEP_COPY:
        out->way = CUDA_COPY;
        return TPC_OK;
    }
    return TPC_INTERNAL;
}

/* A kernel that several steps share knows the node behind a fault in the first of them only. */
value cuda_fault_node(const struct cuda_set *set, int64_t fault)
{
    const struct program *p = set->program;
    uint32_t step = cuda_fault_step(fault), instruction = (uint32_t)(fault % (1 << 20));
    if (fault <= 0 || step >= p->steps.count)
        return 0;
    const struct step *s = &p->steps.at[step];
    for (uint32_t i = 0; i < step && s->kind == STEP_KERNEL; i++)
        if (p->steps.at[i].kind == STEP_KERNEL && p->steps.at[i].kernel == s->kernel)
            return s->node;
    if (s->kind != STEP_KERNEL || instruction >= p->kernels.at[s->kernel].instruction_count)
        return s->node;
    value node = p->kernels.at[s->kernel].instruction[instruction].node;
    return node ? node : s->node;
}

/* ---- for readers ---- */

struct emitting {
    struct arena *arena;
    const struct program *program;
    const char *dir;
    struct diag *diag;
};

static status emit_one(const struct emitting *e, const struct cuda_function *f)
{
    const char *path = arena_printf(e->arena, "%s/%s.cu", e->dir, f->name);
    FILE *file = fopen(path, "we");
    bool good = file && fwrite(f->source, 1, f->length, file) == f->length;
    good = file && fclose(file) == 0 && good;
    return good ? TPC_OK : diag_error(e->diag, TPC_IO, path, "cannot write: %s", strerror(errno));
}

static status emit_all(void *context)
{
    struct emitting *e = context;
    struct cuda_set *set;
    if (mkdir(e->dir, 0777) != 0 && errno != EEXIST)
        return diag_error(e->diag, TPC_IO, e->dir, "cannot make the directory: %s", strerror(errno));
    status s = cuda_new(e->arena, e->program, e->diag, &set);
    for (uint32_t i = 0; s == TPC_OK && i < set->functions.count; i++)
        s = emit_one(e, &set->functions.at[i]);
    return s;
}

status cuda_emit(const struct program *p, const char *dir, struct diag *diag)
{
    struct emitting e = {arena_new(), p, dir, diag};
    if (!e.arena)
        return diag_error(diag, TPC_NOMEM, NULL, "out of memory");
    status s = guard_run(diag, emit_all, &e);
    arena_free(e.arena);
    return s;
}
