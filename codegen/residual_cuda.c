/* codegen/residual_cuda.c - a sum behind a product is the library's: out = lhs . rhs + residual, rounded once.
 *
 * A residual stream's sum is stored by the norm behind it (passes/fuse), which so reads a product and the stream, and writes the sum and its own result. The library adds
 * while it writes: then the product is never stored, and the norm reads the sum. It is found by structure: a kernel that alone reads a product, adds it to what lies alike
 * in memory, and stores the sum alike. Where the product is not the library's for some shapes both steps are as ever. Start at cuda_find_residuals.
 */
#include "codegen/cuda_impl.h"

/* A kernel step's loads and stores that matter, as instructions. */
struct found {
    int32_t product, other, sum, store;
};

/* ---- finding ---- */

static dim row_major(struct dims *t, const struct kernel *k)
{
    dim index = dim_const(t, 0);
    for (uint32_t i = 0; i < k->outer + k->inner; i++)
        index = dim_add(t, dim_mul(t, index, k->extent[i]), dim_coordinate(t, i));
    return index;
}

static bool is_plain(const struct instruction *n, instruction_kind kind, dim index)
{
    return n->kind == kind && n->index == index && n->dynamic < 0 && n->predicate < 0;
}

static uint32_t uses_of_value(const struct kernel *k, int32_t number)
{
    uint32_t uses = 0;
    for (uint32_t i = 0; i < k->instruction_count; i++) {
        const struct instruction *n = &k->instruction[i];
        const int32_t inputs[5] = {n->arg[0], n->arg[1], n->arg[2], n->dynamic, n->predicate};
        for (int a = 0; a < 5; a++)
            uses += inputs[a] == number;
    }
    return uses;
}

static uint32_t accesses_of(const struct kernel *k, uint32_t buffer)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < k->instruction_count; i++) {
        instruction_kind kind = k->instruction[i].kind;
        count += (kind == INST_LOAD || kind == INST_STORE) && k->instruction[i].buffer == buffer;
    }
    return count;
}

/* The sum that instruction `load` is a term of, when it and its other term lie alike and it is stored so. */
static bool find_sum(const struct kernel *k, uint32_t load, dim index, struct found *f)
{
    const struct instruction *l = &k->instruction[load];
    *f = (struct found){(int32_t)load, -1, -1, -1};
    for (uint32_t i = 0; i < k->instruction_count; i++) {
        const struct instruction *n = &k->instruction[i];
        bool adds = n->kind == INST_MAP && n->op == OP_ADD && n->type == l->type;
        if (adds && (n->arg[0] == f->product || n->arg[1] == f->product)) {
            f->sum = (int32_t)i;
            f->other = n->arg[n->arg[0] == f->product ? 1 : 0];
        }
        if (n->kind == INST_STORE && f->sum >= 0 && n->arg[0] == f->sum && is_plain(n, INST_STORE, index))
            f->store = (int32_t)i;
    }
    if (f->store < 0 || uses_of_value(k, f->product) != 1 || accesses_of(k, l->buffer) != 1)
        return false;
    const struct instruction *other = &k->instruction[f->other], *store = &k->instruction[f->store];
    return is_plain(other, INST_LOAD, index) && other->type == l->type && store->type == l->type &&
           !k->buffer[other->buffer].written && accesses_of(k, store->buffer) == 1;
}

static uint32_t uses_of_buffer(const struct program *p, uint32_t buffer, uint32_t *dot)
{
    uint32_t uses = 0;
    for (uint32_t i = 0; i < p->steps.count; i++)
        for (uint32_t a = 0; a < p->steps.at[i].arg_count; a++) {
            if (p->steps.at[i].arg[a] != buffer)
                continue;
            uses++;
            if (p->steps.at[i].kind == STEP_DOT && a == 2)
                *dot = i;
        }
    return uses;
}

static bool writes(const struct program *p, const struct step *s, uint32_t argument)
{
    return s->kind == STEP_KERNEL ? p->kernels.at[s->kernel].buffer[argument].written : argument + 1 == s->arg_count;
}

/* Is it there before step `at`, made by no dot (those may wait for others), and not written again until `until`? */
static bool stands(const struct program *p, uint32_t buffer, uint32_t at, uint32_t until)
{
    buffer_kind kind = p->buffers.at[buffer].kind;
    bool made = kind == BUFFER_INPUT || kind == BUFFER_WEIGHT || kind == BUFFER_KEPT;
    if (!made && kind != BUFFER_TEMP)
        return false;
    for (uint32_t i = 0; i < until; i++) {
        const struct step *s = &p->steps.at[i];
        for (uint32_t a = 0; a < s->arg_count; a++)
            if (s->arg[a] == buffer && writes(p, s, a)) {
                if (i >= at || s->kind == STEP_DOT)
                    return false;
                made = true;
            }
    }
    return made;
}

static bool may_add(const struct cuda_set *set, uint32_t step, const struct found *f, struct cuda_residual *r)
{
    const struct program *p = set->program;
    const struct step *s = &p->steps.at[step];
    const struct kernel *k = &p->kernels.at[s->kernel];
    uint32_t product = s->arg[k->instruction[f->product].buffer];
    const struct buffer *b = &p->buffers.at[product];
    *r = (struct cuda_residual){.dot = UINT32_MAX, .kernel = step};
    if (b->kind != BUFFER_TEMP || uses_of_buffer(p, product, &r->dot) != 2 || r->dot >= step)
        return false;
    r->other = s->arg[k->instruction[f->other].buffer];
    r->sum = s->arg[k->instruction[f->store].buffer];
    buffer_kind kind = p->buffers.at[r->sum].kind;
    return p->steps.at[r->dot].phase == PHASE_RUN && !set->attention[r->dot] && !set->alike[r->dot] &&
           (kind == BUFFER_TEMP || kind == BUFFER_OUTPUT) && p->buffers.at[r->sum].type == b->type &&
           p->buffers.at[r->other].type == b->type && r->other != r->sum && stands(p, r->other, r->dot, step);
}

/* ---- the kernel that finds the sum made ---- */

/* Without the product and the sum's store; the sum is a load. */
static struct kernel *kernel_behind(struct cuda_set *set, const struct kernel *k, const struct found *f, bool *keeps)
{
    struct kernel *out = NEW(set->arena, struct kernel);
    struct instruction *list = NEW_ARRAY(set->arena, struct instruction, k->instruction_count + 1);
    struct kernel_buffer *buffers = NEW_ARRAY(set->arena, struct kernel_buffer, k->buffer_count + 1);
    int32_t *moved = NEW_ARRAY(set->arena, int32_t, k->instruction_count + 1);
    uint32_t *place = NEW_ARRAY(set->arena, uint32_t, k->buffer_count + 1);
    bool other_goes = uses_of_value(k, f->other) == 1;
    *out = *k;
    out->instruction = list;
    out->instruction_count = 0;
    for (uint32_t i = 0; i < k->instruction_count; i++) {
        int32_t number = (int32_t)i;
        if (number == f->product || number == f->store || (number == f->other && other_goes))
            continue;
        struct instruction n = k->instruction[i];
        for (int a = 0; a < 3; a++)
            n.arg[a] = n.arg[a] < 0 ? -1 : moved[n.arg[a]];
        n.dynamic = n.dynamic < 0 ? -1 : moved[n.dynamic];
        n.predicate = n.predicate < 0 ? -1 : moved[n.predicate];
        if (number == f->sum) {
            n = k->instruction[f->product];
            n.buffer = k->instruction[f->store].buffer;
        }
        moved[i] = (int32_t)out->instruction_count;
        list[out->instruction_count++] = n;
    }
    out->buffer = buffers;
    out->buffer_count = 0;
    for (uint32_t b = 0; b < k->buffer_count; b++) {
        keeps[b] = accesses_of(out, b) > 0;
        place[b] = out->buffer_count;
        if (keeps[b])
            buffers[out->buffer_count++] =
                (struct kernel_buffer){k->buffer[b].type, k->buffer[b].written && b != k->instruction[f->store].buffer};
    }
    for (uint32_t i = 0; i < out->instruction_count; i++)
        list[i].buffer = list[i].kind == INST_LOAD || list[i].kind == INST_STORE ? place[list[i].buffer] : 0;
    return out;
}

static void add_kernel(struct cuda_set *set, const struct found *f, struct cuda_residual *r)
{
    const struct program *p = set->program;
    const struct step *s = &p->steps.at[r->kernel];
    const struct kernel *k = &p->kernels.at[s->kernel];
    bool *keeps = NEW_ARRAY(set->arena, bool, k->buffer_count + 1);
    const struct kernel *behind = kernel_behind(set, k, f, keeps);
    const struct dialect d = dialect_cuda_of(behind);
    struct text body = {.arena = set->arena};
    char name[KERNEL_NAME];
    uint32_t *arg = NEW_ARRAY(set->arena, uint32_t, k->buffer_count + 1);
    r->step = *s;
    r->step.arg = arg;
    r->step.arg_count = 0;
    for (uint32_t b = 0; b < k->buffer_count; b++)
        if (keeps[b])
            arg[r->step.arg_count++] = s->arg[b];
    nest_of(behind, p->graph->dims, d.keeps, set->arena, &r->behind.nest);
    r->behind.form = cuda_form_of(&r->behind.nest, set->arena);
    kernel_name(behind, p->graph->dims, set->arena, name);
    print_kernel(&d, behind, p->graph->dims, set->arena, &body);
    r->behind.function = cuda_add(set, name, body.at, r->behind.form.threads, s->node);
}

static bool may_fault(const struct kernel *k)
{
    for (uint32_t i = 0; i < k->instruction_count; i++)
        if (k->instruction[i].dynamic >= 0)
            return true;
    return false;
}

static void find_in_step(struct cuda_set *set, uint32_t step)
{
    const struct kernel *k = &set->program->kernels.at[set->program->steps.at[step].kernel];
    dim index = row_major(set->program->graph->dims, k);
    struct found f;
    struct cuda_residual r;
    for (uint32_t i = 0; i < k->instruction_count; i++)
        if (is_plain(&k->instruction[i], INST_LOAD, index) && find_sum(k, i, index, &f) && may_add(set, step, &f, &r) &&
            !set->residual[r.dot]) {
            add_kernel(set, &f, &r);
            *PUSH(set->arena, &set->residuals) = r;
            set->residual[step] = set->residual[r.dot] = set->residuals.count;
            return;
        }
}

void cuda_find_residuals(struct cuda_set *set)
{
    const struct program *p = set->program;
    set->residual = NEW_ARRAY(set->arena, uint32_t, p->steps.count + 1);
    for (uint32_t i = 0; i < p->steps.count; i++) {
        const struct step *s = &p->steps.at[i];
        if (s->kind == STEP_KERNEL && s->phase == PHASE_RUN && !set->attention[i] && !set->joined_by[i] &&
            !may_fault(&p->kernels.at[s->kernel]))
            find_in_step(set, i);
    }
}

void cuda_keep_residuals(const struct cuda_set *set, struct program *p)
{
    for (uint32_t i = 0; i < set->residuals.count; i++) {
        const struct cuda_residual *r = &set->residuals.at[i];
        if (p->buffers.at[r->sum].first > r->dot)
            p->buffers.at[r->sum].first = r->dot;
    }
}

/* ---- steps ---- */

static bool is_skinny(const struct cuda_making *m, uint32_t step)
{
    struct cuda_making asked = *m;
    struct cuda_step unused;
    memset(&asked.words, 0, sizeof asked.words);
    asked.step = step;
    return cuda_skinny_step(&asked, &unused);
}

/* Is the dot the library's for these shapes, and neither step taken otherwise? */
static bool is_taken(const struct cuda_making *m, const struct cuda_residual *r, struct cuda_step *product)
{
    struct cuda_making of_dot = *m;
    memset(&of_dot.words, 0, sizeof of_dot.words);
    of_dot.step = r->dot;
    return m->set->joined && !is_skinny(m, r->dot) && !is_skinny(m, r->kernel) &&
           cuda_dot_step(&of_dot, product) == TPC_OK && product->way == CUDA_PRODUCT && product->count == 1;
}

bool cuda_residual_step(struct cuda_making *m, struct cuda_step *out)
{
    const struct cuda_residual *r = &m->set->residuals.at[m->set->residual[m->step] - 1];
    struct cuda_step product;
    if (!is_taken(m, r, &product))
        return false;
    if (m->step == r->kernel)
        return cuda_kernel_of(m, &r->behind, &r->step, out) == TPC_OK;
    struct cuda_product *x = NEW(m->arena, struct cuda_product);
    *x = product.product[0];
    x->buffer[2] = r->sum;
    x->adds = true;
    x->added = r->other;
    *out = (struct cuda_step){.way = CUDA_PRODUCT, .count = 1, .product = x};
    return true;
}
