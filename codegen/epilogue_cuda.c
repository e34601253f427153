/* codegen/epilogue_cuda.c - what is added to a product is the library's: out = lhs . rhs + bias + residual, rounded once.
 *
 * A bias is added by the kernel behind a product, and a residual stream's sum is stored by the norm behind it (passes/fuse), which so reads a product and the stream, and writes the
 * sum and its own result. The library adds while it writes: then the product is never stored, the norm reads the sum, and a kernel that only adds a bias is
 * gone. It is found by structure: a kernel that alone reads a product, adds what lies alike in memory, or repeats along the rows, and stores the sum
 * alike. Where the product is not the library's for some shapes both steps are as ever. Start at cuda_find_epilogues.
 */
#include "codegen/cuda_impl.h"

/* A kernel step's loads and stores that matter, as instructions; -1: there is none. */
struct found {
    int32_t product, bias, residual, sum, store;
    dim columns; /* elements of the bias */
};

/* ---- finding ---- */

/* Row-major position within the last `axes` axes. */
static dim row_major(struct dims *t, const struct kernel *k, uint32_t axes)
{
    dim index = dim_const(t, 0);
    uint32_t rank = k->outer + k->inner;
    for (uint32_t i = rank - axes; i < rank; i++)
        index = dim_add(t, dim_mul(t, index, k->extent[i]), dim_coordinate(t, i));
    return index;
}

static bool is_plain(const struct instruction *n, instruction_kind kind, dim index)
{
    return n->kind == kind && n->index == index && n->dynamic < 0 && n->predicate < 0;
}

static bool uses(const struct instruction *n, int32_t number)
{
    return n->arg[0] == number || n->arg[1] == number || n->arg[2] == number || n->dynamic == number ||
           n->predicate == number;
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

/* Takes `term`, which is added to the sum so far, as its bias or its residual. */
static bool take_term(struct dims *t, const struct kernel *k, int32_t term, struct found *f)
{
    const struct instruction *n = &k->instruction[term];
    uint32_t rank = k->outer + k->inner;
    if (n->kind != INST_LOAD || n->type != k->instruction[f->product].type || k->buffer[n->buffer].written)
        return false;
    if (f->residual < 0 && is_plain(n, INST_LOAD, row_major(t, k, rank))) {
        f->residual = term;
        return true;
    }
    f->columns = dim_const(t, 1);
    for (uint32_t axes = 1; axes < rank && f->bias < 0 && n->type != DT_F64; axes++) {
        f->columns = dim_mul(t, f->columns, k->extent[rank - axes]);
        if (is_plain(n, INST_LOAD, row_major(t, k, axes)))
            f->bias = term;
    }
    return f->bias == term;
}

/* The longest sum that begins with instruction `load`, of which nothing but its end is used, and which is stored as it lies. */
static bool find_sum(struct dims *t, const struct kernel *k, uint32_t load, dim index, struct found *f)
{
    const struct instruction *l = &k->instruction[load];
    struct found at = {(int32_t)load, -1, -1, (int32_t)load, -1, dim_const(t, 0)};
    *f = at;
    for (bool more = accesses_of(k, l->buffer) == 1; more;) {
        int32_t reader = -1, store = -1;
        uint32_t readers = 0;
        for (uint32_t i = 0; i < k->instruction_count; i++) {
            const struct instruction *n = &k->instruction[i];
            if (!uses(n, at.sum))
                continue;
            reader = (int32_t)i;
            readers++;
            if (n->kind == INST_STORE && is_plain(n, INST_STORE, index) && n->type == l->type &&
                accesses_of(k, n->buffer) == 1)
                store = (int32_t)i;
        }
        at.store = store;
        if (store >= 0 && at.sum != at.product)
            *f = at;
        const struct instruction *n = &k->instruction[readers == 1 ? reader : at.sum];
        more = readers == 1 && n->kind == INST_MAP && n->op == OP_ADD && n->type == l->type && n->arg[0] != n->arg[1] &&
               take_term(t, k, n->arg[n->arg[0] == at.sum ? 1 : 0], &at);
        at.sum = reader;
    }
    return f->store >= 0;
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

static uint32_t argument_of(const struct step *s, const struct kernel *k, int32_t instruction)
{
    return s->arg[k->instruction[instruction].buffer];
}

static bool may_add(const struct cuda_set *set, uint32_t step, const struct found *f, struct cuda_epilogue *e)
{
    const struct program *p = set->program;
    const struct step *s = &p->steps.at[step];
    const struct kernel *k = &p->kernels.at[s->kernel];
    uint32_t product = argument_of(s, k, f->product);
    const struct buffer *b = &p->buffers.at[product];
    *e = (struct cuda_epilogue){.dot = UINT32_MAX, .kernel = step, .columns = f->columns};
    if (b->kind != BUFFER_TEMP || uses_of_buffer(p, product, &e->dot) != 2 || e->dot >= step)
        return false;
    e->biased = f->bias >= 0;
    e->bias = e->biased ? argument_of(s, k, f->bias) : 0;
    e->adds = f->residual >= 0;
    e->residual = e->adds ? argument_of(s, k, f->residual) : 0;
    e->sum = argument_of(s, k, f->store);
    buffer_kind kind = p->buffers.at[e->sum].kind;
    return p->steps.at[e->dot].phase == PHASE_RUN && !set->attention[e->dot] && !set->alike[e->dot] &&
           (kind == BUFFER_TEMP || kind == BUFFER_OUTPUT) && p->buffers.at[e->sum].type == b->type &&
           (!e->biased || (p->buffers.at[e->bias].type == b->type && stands(p, e->bias, e->dot, step))) &&
           (!e->adds || (p->buffers.at[e->residual].type == b->type && e->residual != e->sum &&
                         stands(p, e->residual, e->dot, step)));
}

/* ---- the kernel that finds the sum made ---- */

/* Which instructions are left when the sum is read from where it was stored: those that a store needs. */
static void mark_needed(const struct kernel *k, const struct found *f, bool *needed)
{
    for (uint32_t i = k->instruction_count; i-- > 0;) {
        const struct instruction *n = &k->instruction[i];
        const int32_t inputs[5] = {n->arg[0], n->arg[1], n->arg[2], n->dynamic, n->predicate};
        needed[i] = needed[i] || (n->kind == INST_STORE && (int32_t)i != f->store);
        for (int a = 0; a < 5 && needed[i] && (int32_t)i != f->sum; a++)
            if (inputs[a] >= 0)
                needed[inputs[a]] = true;
    }
}

static struct kernel *kernel_behind(struct cuda_set *set, const struct kernel *k, const struct found *f, bool *keeps)
{
    struct kernel *out = NEW(set->arena, struct kernel);
    struct instruction *list = NEW_ARRAY(set->arena, struct instruction, k->instruction_count + 1);
    struct kernel_buffer *buffers = NEW_ARRAY(set->arena, struct kernel_buffer, k->buffer_count + 1);
    int32_t *moved = NEW_ARRAY(set->arena, int32_t, k->instruction_count + 1);
    uint32_t *place = NEW_ARRAY(set->arena, uint32_t, k->buffer_count + 1);
    bool *needed = NEW_ARRAY(set->arena, bool, k->instruction_count + 1);
    mark_needed(k, f, needed);
    *out = *k;
    out->instruction = list;
    out->instruction_count = 0;
    for (uint32_t i = 0; i < k->instruction_count; i++) {
        if (!needed[i])
            continue;
        struct instruction n = k->instruction[i];
        if ((int32_t)i == f->sum) {
            n = k->instruction[f->product];
            n.buffer = k->instruction[f->store].buffer;
        }
        for (int a = 0; a < 3; a++)
            n.arg[a] = n.arg[a] < 0 ? -1 : moved[n.arg[a]];
        n.dynamic = n.dynamic < 0 ? -1 : moved[n.dynamic];
        n.predicate = n.predicate < 0 ? -1 : moved[n.predicate];
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

static void add_kernel(struct cuda_set *set, const struct found *f, struct cuda_epilogue *e)
{
    const struct program *p = set->program;
    const struct step *s = &p->steps.at[e->kernel];
    const struct kernel *k = &p->kernels.at[s->kernel];
    bool *keeps = NEW_ARRAY(set->arena, bool, k->buffer_count + 1);
    const struct kernel *behind = kernel_behind(set, k, f, keeps);
    const struct dialect d = dialect_cuda_of(behind);
    struct text body = {.arena = set->arena};
    char name[KERNEL_NAME];
    uint32_t *arg = NEW_ARRAY(set->arena, uint32_t, k->buffer_count + 1);
    e->step = *s;
    e->step.arg = arg;
    e->step.arg_count = 0;
    for (uint32_t b = 0; b < k->buffer_count; b++)
        if (keeps[b])
            arg[e->step.arg_count++] = s->arg[b];
    e->gone = e->step.arg_count == 0;
    if (e->gone)
        return;
    nest_of(behind, p->graph->dims, d.keeps, set->arena, &e->behind.nest);
    e->behind.form = cuda_form_of(&e->behind.nest, set->arena);
    kernel_name(behind, p->graph->dims, set->arena, name);
    print_kernel(&d, behind, p->graph->dims, set->arena, &body);
    e->behind.function = cuda_add(set, name, body.at, e->behind.form.threads, s->node);
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
    struct dims *t = set->program->graph->dims;
    dim index = row_major(t, k, k->outer + k->inner);
    struct found f;
    struct cuda_epilogue e;
    for (uint32_t i = 0; i < k->instruction_count; i++)
        if (is_plain(&k->instruction[i], INST_LOAD, index) && find_sum(t, k, i, index, &f) &&
            may_add(set, step, &f, &e) && !set->epilogue[e.dot]) {
            add_kernel(set, &f, &e);
            *PUSH(set->arena, &set->epilogues) = e;
            set->epilogue[step] = set->epilogue[e.dot] = set->epilogues.count;
            return;
        }
}

void cuda_find_epilogues(struct cuda_set *set)
{
    const struct program *p = set->program;
    set->epilogue = NEW_ARRAY(set->arena, uint32_t, p->steps.count + 1);
    for (uint32_t i = 0; i < p->steps.count; i++) {
        const struct step *s = &p->steps.at[i];
        if (s->kind == STEP_KERNEL && s->phase == PHASE_RUN && !set->attention[i] && !set->joined_by[i] &&
            !may_fault(&p->kernels.at[s->kernel]))
            find_in_step(set, i);
    }
}

void cuda_keep_epilogues(const struct cuda_set *set, struct program *p)
{
    for (uint32_t i = 0; i < set->epilogues.count; i++) {
        const struct cuda_epilogue *e = &set->epilogues.at[i];
        if (p->buffers.at[e->sum].first > e->dot)
            p->buffers.at[e->sum].first = e->dot;
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

/* The library adds a bias along the rows of its result, which lie one behind another. */
static bool takes_bias(const struct cuda_making *m, const struct cuda_epilogue *e, const struct cuda_product *x)
{
    int64_t columns;
    return dim_eval(m->set->program->graph->dims, e->columns, m->of, &columns) && x->n == columns && x->batch == 1 &&
           x->offset[2] == 0 && x->stride[2][1] == 1 && (x->m == 1 || x->stride[2][0] == columns);
}

/* Is the dot the library's for these shapes, and neither step taken otherwise? */
static bool is_taken(const struct cuda_making *m, const struct cuda_epilogue *e, struct cuda_step *product)
{
    struct cuda_making of_dot = *m;
    memset(&of_dot.words, 0, sizeof of_dot.words);
    of_dot.step = e->dot;
    return m->set->joined && !is_skinny(m, e->dot) && !is_skinny(m, e->kernel) &&
           cuda_dot_step(&of_dot, product) == TPC_OK && product->way == CUDA_PRODUCT && product->count == 1 &&
           product->product[0].k > 0 && (!e->biased || takes_bias(m, e, &product->product[0]));
}

bool cuda_epilogue_step(struct cuda_making *m, struct cuda_step *out)
{
    const struct cuda_epilogue *e = &m->set->epilogues.at[m->set->epilogue[m->step] - 1];
    struct cuda_step product;
    if (!is_taken(m, e, &product))
        return false;
    if (m->step == e->kernel && e->gone)
        return true; /* nothing is left to do */
    if (m->step == e->kernel)
        return cuda_kernel_of(m, &e->behind, &e->step, out) == TPC_OK;
    struct cuda_product *x = NEW(m->arena, struct cuda_product);
    *x = product.product[0];
    x->buffer[2] = e->sum;
    x->adds = e->adds;
    x->added = e->residual;
    x->biased = e->biased;
    x->bias = e->bias;
    *out = (struct cuda_step){.way = CUDA_PRODUCT, .count = 1, .product = x};
    return true;
}
