/* tests/unit/cuda_program_test.c - fused Programs as CUDA launches, on the model of CUDA, compute what the reference interpreter computes: every row of
 * ops.def (the cases of interpret_rows.txt), every pointwise row on every type, rows, transposes, gathers and products in awkward sizes, and
 * random graphs. The model also watches every access: out of bounds, misaligned, or racing ones fail.
 *
 * All sources are compiled at once, before anything runs. CASE=TEXT runs the cases whose names hold TEXT; ALL=1 all of interpret_rows.txt (else every
 * third).
 */
#include "ir/interpret.h"
#include "passes/passes.h"
#include "tests/support/execute_cuda.h"
#include "tests/test.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

enum { SIZES = 8 };

/* A Program, and the values of its symbols to run it with. */
struct trial {
    const char *name;
    struct program *program;
    struct cuda_set *set;
    double tolerance[DT_COUNT]; /* relative to the largest element; 0: exact */
    bool wild;                  /* inputs with NaN, infinities, extreme integers */
    uint32_t sizes;
    int64_t size[SIZES][4]; /* of symbols b, s, p, n */
};

static struct arena *arena;
static LIST(struct trial) trials;
static struct cuda_model *model;
static char lines[4000];

static void note(void *user, severity level, const char *line)
{
    (void)user;
    (void)level;
    size_t used = strlen(lines);
    snprintf(lines + used, sizeof lines - used, "%s\n", line);
}
static struct diag diag = {.sink = note};

/* ---- trials ---- */

static struct trial *add_program(const char *name, struct program *p)
{
    const char *only = getenv("CASE");
    struct trial t = {.name = name,
                      .program = p,
                      .tolerance = {[DT_F16] = 0x1p-8, [DT_BF16] = 0x1p-5, [DT_F32] = 3e-6, [DT_F64] = 1e-12}};
    if (only && !strstr(name, only))
        return NULL;
    if (program_verify(p, &diag) != TPC_OK || cuda_new(arena, p, &diag, &t.set) != TPC_OK)
        fail_msg("%s: %s", name, lines);
    *PUSH(arena, &trials) = t;
    return &trials.at[trials.count - 1];
}

static struct trial *add_graph(const char *name, struct graph *g)
{
    struct program *p = NULL;
    if (graph_verify(g, "test", &diag) != TPC_OK || fuse(arena, g, &diag, &p) != TPC_OK || schedule(p, &diag) != TPC_OK)
        fail_msg("%s: %s", name, lines);
    return add_program(name, p);
}

static struct trial *add_text(const char *name, const char *text, size_t length)
{
    struct graph *g = NULL;
    if (graph_parse(arena, name, text, length, &diag, &g) != TPC_OK)
        fail_msg("%s: %s", name, lines);
    return add_graph(name, g);
}

static void add_size(struct trial *t, int64_t b, int64_t s, int64_t p, int64_t n)
{
    const int64_t size[4] = {b, s, p, n};
    assert_true(t->sizes < SIZES);
    memcpy(t->size[t->sizes++], size, sizeof size);
}

static void add_rows(void)
{
    const char *source = getenv("SOURCE");
    FILE *f = fopen(arena_printf(arena, "%s/tests/unit/interpret_rows.txt", source ? source : "."), "rb");
    if (!f)
        fail_msg("interpret_rows.txt is missing");
    char *text = arena_alloc(arena, 4 << 20);
    text[fread(text, 1, (4 << 20) - 1, f)] = '\0';
    (void)fclose(f);
    unsigned number = 0;
    for (char *at = text; *at;) {
        char *name = at, *body = strchr(at, '\n'), *next = strstr(at + 1, "\n==");
        *body++ = '\0';
        at = next ? next + 1 : body + strlen(body);
        static const char *const others[] = {"== unary", "== binary", "== select", "== cast", /* below, on every type */
                                             "== cross"}; /* a composite, which parallelize expands */
        bool here = true;
        for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
            here = here && strncmp(name, others[i], strlen(others[i])) != 0;
        if (!here)
            continue;
        if (!getenv("ALL") && !getenv("CASE") && number++ % 3 != 0)
            continue;
        struct trial *t = add_text(name, body, (size_t)(at - body));
        if (t)
            add_size(t, 2, 3, 4, 5);
    }
}

/* ---- every pointwise row on every type ---- */

static bool takes(op o, dtype t)
{
    bool is_float = dtype_is_float(t), is_int = dtype_is_int(t);
    if (o == OP_CAST || o == OP_BITCAST || o == OP_SELECT)
        return true;
    if (op_info(o)->class != CLASS_POINTWISE || o == OP_COUNT_ONCE || t > DT_F64)
        return false;
    switch ((int)o) {
    case OP_EQ:
    case OP_LT:
    case OP_LE:
    case OP_MAX:
    case OP_MIN:
        return true;
    case OP_NOT:
    case OP_AND:
    case OP_OR:
    case OP_XOR:
        return !is_float;
    case OP_SHL:
    case OP_SHR:
        return is_int;
    case OP_NEG:
    case OP_ABS:
    case OP_SIGN:
    case OP_ADD:
    case OP_SUB:
    case OP_MUL:
    case OP_DIV:
    case OP_MOD:
    case OP_POW:
        return t != DT_BOOL;
    default:
        return is_float;
    }
}

static void add_outputs(struct graph *g, op o, dtype t, const value x[3])
{
    bool test = o == OP_EQ || o == OP_LT || o == OP_LE || o == OP_ISNAN || o == OP_ISINF;
    uint32_t arity = (uint32_t)op_info(o)->arity;
    for (dtype to = DT_NONE + 1; to < DT_COUNT; to++)
        for (int32_t mode = 1; mode <= (o == OP_ISINF ? 3 : 1); mode++) {
            bool converts = o == OP_CAST || (o == OP_BITCAST && dtype_bits(to) == dtype_bits(t));
            if (converts ? to == t : o == OP_BITCAST || to != (test ? DT_BOOL : t))
                continue;
            struct attribute a = {.mode = o == OP_ISINF ? mode : 0};
            value y = graph_add(g, o, to, 0, NULL, arity, arity == 3 ? x : x + 1, &a);
            graph_output(g, arena_printf(arena, "%s.%s.%d", op_info(o)->text, dtype_name(to), (int)mode), y);
        }
}

/* The graph's outputs, each one operation on inputs, as one kernel. */
static struct program *as_one_kernel(struct graph *g)
{
    struct program *p = NEW(arena, struct program);
    const struct node *first = graph_node(g, g->inputs.at[0].value);
    LIST(struct instruction) list = {0};
    LIST(struct kernel_buffer) buffers = {0};
    LIST(uint32_t) args = {0};
    dim index = dim_coordinate(g->dims, 0);
    if (first->rank == 2)
        index = dim_add(g->dims, dim_mul(g->dims, index, first->shape[1]), dim_coordinate(g->dims, 1));
    p->graph = g;
    for (uint32_t i = 0; i < g->inputs.count + g->outputs.count; i++) {
        bool in = i < g->inputs.count;
        uint32_t number = in ? i : i - g->inputs.count;
        value v = in ? g->inputs.at[number].value : g->outputs.at[number].value;
        const struct node *n = graph_node(g, v);
        struct instruction access = {.kind = in ? INST_LOAD : INST_STORE, .type = n->dtype, .arg = {-1, -1, -1}};
        access.dynamic = access.predicate = -1;
        access.buffer = i;
        access.index = index;
        if (!in) {
            struct instruction map = {.kind = INST_MAP, .op = n->op, .type = n->dtype, .arg = {-1, -1, -1}};
            map.dynamic = map.predicate = -1;
            map.mode = n->attribute.mode;
            for (uint32_t k = 0; k < n->operand_count; k++)
                for (uint32_t input = 0; input < g->inputs.count; input++)
                    if (g->inputs.at[input].value == n->operand[k])
                        map.arg[k] = (int32_t)input;
            *PUSH(arena, &list) = map;
            access.arg[0] = (int32_t)list.count - 1;
        }
        *PUSH(arena, &list) = access;
        *PUSH(arena, &buffers) = (struct kernel_buffer){n->dtype, !in};
        *PUSH(arena, &args) = i;
        *PUSH(arena, &p->buffers) = (struct buffer){.kind = in ? BUFFER_INPUT : BUFFER_OUTPUT,
                                                    .type = n->dtype,
                                                    .elements = dim_product(g->dims, n->shape, n->rank),
                                                    .index = number,
                                                    .node = v};
    }
    *PUSH(arena, &p->kernels) = (struct kernel){.outer = first->rank,
                                                .extent = first->shape,
                                                .buffer_count = buffers.count,
                                                .buffer = buffers.at,
                                                .instruction_count = list.count,
                                                .instruction = list.at};
    *PUSH(arena, &p->steps) = (struct step){.kind = STEP_KERNEL,
                                            .phase = PHASE_RUN,
                                            .arg_count = args.count,
                                            .arg = args.at,
                                            .node = g->outputs.at[0].value};
    return p;
}

/* columns 8: accesses are wide. */
static void add_pointwise(dtype t, int64_t columns)
{
    struct graph *g = graph_new(arena);
    mesh_init(&g->mesh, "tp", 1);
    dim shape[2] = {dim_symbol(g->dims, "n"), dim_const(g->dims, columns)};
    uint32_t rank = columns == 1 ? 1 : 2;
    value x[3] = {graph_input(g, "p", DT_BOOL, rank, shape), graph_input(g, "a", t, rank, shape),
                  graph_input(g, "b", t, rank, shape)};
    for (op o = OP_NONE + 1; o < OP_COUNT; o++)
        if (takes(o, t))
            add_outputs(g, o, t, x);
    struct trial *trial =
        add_program(arena_printf(arena, "pointwise %s %d", dtype_name(t), (int)columns), as_one_kernel(g));
    if (!trial)
        return;
    static const int64_t sizes[] = {1, 5, 7, 11, 13, 0, 300};
    trial->wild = true;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        add_size(trial, 0, 0, 0, sizes[i]);
}

/* ---- rows, transposes, gathers, products ---- */

/* All reductions of a type over the inner axis, the outer ones, and both; their results are put together, so that each is one kernel. */
static void add_reductions(dtype t)
{
    static const char *const axes[] = {"[2]", "[1]", "[1, 2]", "[0, 1]", "[2]"};
    struct text text = {.arena = arena};
    const char *name = dtype_name(t);
    text_printf(&text, "%%x: %s[b, s, n] = input as \"x\"\n%%y: %s[b, n, 24] = input as \"y\"\n", name, name);
    for (int i = 0; i < 5; i++) {
        const char *from = i < 3 ? "x" : "y", *list = axes[i];
        text_printf(&text, "%%a%d = reduce_max %%%s list %s\n%%b%d = reduce_min %%%s list %s\n", i, from, list, i, from,
                    list);
        if (t == DT_BOOL) { /* bools have no sums */
            text_printf(&text, "%%r%d = xor %%a%d, %%b%d\noutput \"r%d\" %%r%d\n", i, i, i, i, i);
            continue;
        }
        text_printf(&text, "%%c%d = reduce_sum %%%s list %s\n%%d%d = reduce_prod %%%s list %s\n", i, from, list, i,
                    from, list);
        text_printf(&text, "%%e%d = sub %%a%d, %%b%d\n%%f%d = add %%c%d, %%d%d\n%%r%d = add %%e%d, %%f%d\n", i, i, i, i,
                    i, i, i, i, i);
        text_printf(&text, "output \"r%d\" %%r%d\n", i, i);
    }
    struct trial *trial = add_text(arena_printf(arena, "reduce %s", name), text.at, text.length);
    if (!trial)
        return;
    trial->tolerance[DT_F32] = 1e-5;
    add_size(trial, 2, 5, 0, 11);
    add_size(trial, 3, 7, 0, 0);
    add_size(trial, 7, 1, 0, 13);
    if (t == DT_F32 || t == DT_F16 || t == DT_I64)
        add_size(trial, 1, 2, 0, 1100); /* longer than a block */
}

static const char softmax_text[] =
    "%x: $[b, s, n] = input as \"x\"\n%m = reduce_max %x list [2]\n%m3: $[b, s, n] = broadcast %m list [0, 1]\n"
    "%d = sub %x, %m3\n%e = exp %d\n%t = reduce_sum %e list [2]\n%t3: $[b, s, n] = broadcast %t list [0, 1]\n"
    "%r = div %e, %t3\noutput \"r\" %r\n";
static const char norm_text[] =
    "param 0 = \"g\" $[64] data all(1.5)\n%x: $[b, s, 64] = input as \"x\"\n%y: $[b, s, 64] = input as \"y\"\n"
    "%g: $[64] = param index 0\n%w: $[] = constant data [64]\n%i: $[] = constant data [0.001]\n"
    "%w2: $[b, s] = broadcast %w\n%i2: $[b, s] = broadcast %i\n%h = add %x, %y\n%q = mul %h, %h\n"
    "%v = reduce_sum %q list [2]\n%v1 = div %v, %w2\n%v2 = add %v1, %i2\n%r = sqrt %v2\n%c = recip %r\n"
    "%c3: $[b, s, 64] = broadcast %c list [0, 1]\n%n = mul %h, %c3\n%g3: $[b, s, 64] = broadcast %g list [2]\n"
    "%o = mul %n, %g3\noutput \"o\" %o\noutput \"h\" %h\n";
static const char transpose_text[] =
    "%x: $[b, s, n] = input as \"x\"\n%y: $[n, b, s] = input as \"y\"\n%t = transpose %x list [2, 0, 1]\n"
    "%r = max %t, %y\noutput \"r\" %r\n%u = transpose %x list [0, 2, 1]\noutput \"u\" %u\n"
    "%z: $[s, 24] = input as \"z\"\n%v = transpose %z list [1, 0]\noutput \"v\" %v\n";
static const char gather_text[] =
    "%x: $[11, 24] = input as \"x\"\n%i: i64[b, s] = input as \"i\"\n%y = gather %x, %i batch 0 axis 0\noutput \"y\" "
    "%y\n"
    "%z: $[3, 11] = input as \"z\"\n%j: i32[b] = input as \"j\"\n%w = gather %z, %j batch 0 axis 1\noutput \"w\" %w\n";
static const char dot_text[] =
    "%x: $[b, s, 24] = input as \"x\"\n%w: $[n, 24] = input as \"w\"\n%y = dot %x, %w contract 1\noutput \"y\" %y\n"
    "%z: $[b, n, 24] = input as \"z\"\n%v = dot %x, %z batch 1 contract 1\noutput \"v\" %v\n"
    "%t = transpose %z list [0, 2, 1]\n%t2 = transpose %t list [0, 2, 1]\n%u: $[b, s, n] = input as \"u\"\n"
    "%zt = transpose %z list [0, 2, 1]\n%q = dot %u, %zt batch 1 contract 1\noutput \"q\" %q\n";

/* Six heads over two groups of keys and values; softcap, an additive mask, a sliding window. */
static const char attention_text[] =
    "%q: $[b, s, 96] = input as \"q\"\n%k: $[b, n, 32] = input as \"k\"\n%v: $[b, n, 40] = input as \"v\"\n"
    "%m: $[b, 1, s, n] = input as \"m\"\n%q4: $[b, s, 6, 16] = reshape %q\n%q5 = transpose %q4 list [0, 2, 1, 3]\n"
    "%k4: $[b, n, 2, 16] = reshape %k\n%k5 = transpose %k4 list [0, 2, 1, 3]\n%v4: $[b, n, 2, 20] = reshape %v\n"
    "%v5 = transpose %v4 list [0, 2, 1, 3]\n%kg: $[b, 2, 3, n, 16] = broadcast %k5 list [0, 1, 3, 4]\n"
    "%kh: $[b, 6, n, 16] = reshape %kg\n%vg: $[b, 2, 3, n, 20] = broadcast %v5 list [0, 1, 3, 4]\n"
    "%vh: $[b, 6, n, 20] = reshape %vg\n%scores = dot %q5, %kh batch 2 contract 1\n%c: $[] = constant data [3]\n"
    "%c4: $[b, 6, s, n] = broadcast %c\n%sc = div %scores, %c4\n%th = tanh %sc\n%cap = mul %th, %c4\n"
    "%m4: $[b, 6, s, n] = broadcast %m list [0, 1, 2, 3]\n%x = add %cap, %m4\n%row: i64[s, n] = iota axis 0\n"
    "%col: i64[s, n] = iota axis 1\n%far = sub %row, %col\n%w: i64[] = constant data [4]\n"
    "%w2: i64[s, n] = broadcast %w\n%near = lt %far, %w2\n%near4: bool[b, 6, s, n] = broadcast %near list [2, 3]\n"
    "%low: $[] = constant data [-30000]\n%low4: $[b, 6, s, n] = broadcast %low\n%y = select %near4, %x, %low4\n"
    "%max = reduce_max %y list [3]\n%max4: $[b, 6, s, n] = broadcast %max list [0, 1, 2]\n%d = sub %y, %max4\n"
    "%e = exp %d\n%sum = reduce_sum %e list [3]\n%sum4: $[b, 6, s, n] = broadcast %sum list [0, 1, 2]\n"
    "%p = div %e, %sum4\n%vt = transpose %vh list [0, 1, 3, 2]\n%a = dot %p, %vt batch 2 contract 1\n"
    "%a4 = transpose %a list [0, 2, 1, 3]\n%o: $[b, s, 120] = reshape %a4\noutput \"o\" %o\n";

/* The text with $ for the type. */
static struct trial *add_typed(const char *name, const char *form, dtype t)
{
    struct text text = {.arena = arena};
    for (; *form; form++) {
        if (*form == '$')
            text_put(&text, dtype_name(t));
        else
            text_putn(&text, form, 1);
    }
    return add_text(arena_printf(arena, "%s %s", name, dtype_name(t)), text.at, text.length);
}

static void add_typed_trials(void)
{
    static const dtype floats[] = {DT_F32, DT_F16, DT_BF16, DT_F64};
    static const dtype several[] = {DT_F32, DT_F16, DT_I8, DT_I64, DT_BF16};
    static const struct {
        const char *name, *form;
        bool rows;
    } forms[] = {{"softmax", softmax_text, true},
                 {"norm", norm_text, true},
                 {"transpose", transpose_text, false},
                 {"gather", gather_text, false},
                 {"dot", dot_text, false}};
    for (size_t f = 0; f < sizeof forms / sizeof forms[0]; f++)
        for (size_t i = 0; i < (forms[f].rows ? 4 : 5); i++) {
            struct trial *t = add_typed(forms[f].name, forms[f].form, forms[f].rows ? floats[i] : several[i]);
            if (!t)
                continue;
            add_size(t, 2, 5, 0, 11);
            add_size(t, 3, 7, 0, 1);
            add_size(t, 1, 70, 0, 37);
            add_size(t, 2, 1, 0, forms[f].form == softmax_text ? 2100 : 40);
        }
}

/* One function, and where keys are many and rows few, parts that a second one puts together. */
static void add_attention(dtype t)
{
    struct trial *trial = add_typed("attention", attention_text, t);
    if (!trial)
        return;
    cuda_join_attention(trial->set, trial->program);
    uint32_t unused = 0;
    for (uint32_t i = 0; i < trial->program->buffers.count; i++)
        unused += cuda_buffer_unused(trial->set, i);
    assert_int_equal(unused, 2);   /* scores, probabilities */
    add_size(trial, 1, 1, 0, 700); /* in parts */
    add_size(trial, 2, 5, 0, 11);
    add_size(trial, 1, 37, 0, 70);
    add_size(trial, 2, 2, 0, 33);
    uint32_t attentions = 0, products = 0;
    for (uint32_t i = 0; i < trial->program->steps.count; i++) {
        int64_t of[64] = {0};
        struct cuda_step step;
        assert_true(dims_symbol_count(trial->program->graph->dims) <= 64);
        for (uint32_t s = 0; s < dims_symbol_count(trial->program->graph->dims); s++)
            of[s] = strcmp(dims_symbol(trial->program->graph->dims, s)->name, "n") == 0 ? 700 : 1;
        assert_int_equal(cuda_step(trial->set, i, of, 132, arena, &step), TPC_OK);
        attentions += step.way == CUDA_LAUNCH && step.count == 2 && step.workspace > 0;
        products += step.way == CUDA_PRODUCT;
    }
    assert_int_equal(attentions, 1);
    assert_int_equal(products, 0);
}

static int setup(void **state)
{
    (void)state;
    arena = arena_new();
    add_rows();
    for (dtype t = DT_NONE + 1; t < DT_COUNT; t++) {
        add_pointwise(t, 1);
        add_pointwise(t, 8);
        if (t <= DT_F64)
            add_reductions(t);
    }
    add_typed_trials();
    add_attention(DT_F32);
    add_attention(DT_F16);
    add_attention(DT_BF16);
    struct cuda_set **sets = NEW_ARRAY(arena, struct cuda_set *, trials.count + 1);
    for (uint32_t i = 0; i < trials.count; i++)
        sets[i] = trials.at[i].set;
    model = compile_sets(sets, trials.count, arena);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    cuda_model_close(model);
    arena_free(arena);
    return 0;
}

/* ---- running ---- */

static uint64_t random_state = 1;
static double next_random(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (double)(random_state >> 33) / 2147483648.0;
}

static void fill(const struct trial *t, struct tensor *x)
{
    static const double floats[] = {0,
                                    -0.0,
                                    1,
                                    -1,
                                    0.5,
                                    -0.5,
                                    1.5,
                                    2.5,
                                    -2.5,
                                    1e-3,
                                    -1e-7,
                                    (double)NAN,
                                    3,
                                    88.5,
                                    -87,
                                    -103,
                                    1e-40,
                                    1e30,
                                    -1e30,
                                    65504,
                                    300,
                                    -300,
                                    (double)INFINITY,
                                    -(double)INFINITY};
    static const int64_t ints[] = {0,      1,     -1,        2,         -2,        3,        7,   8,
                                   31,     32,    63,        64,        127,       -128,     255, 32767,
                                   -32768, 65535, INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN};
    for (size_t i = 0; i < x->count; i++) {
        bool special = t->wild && next_random() < 0.3;
        double r = next_random();
        if (x->dtype == DT_BOOL)
            dtype_store_i64(x->dtype, x->data, i, r < 0.5);
        else if (dtype_is_float(x->dtype))
            dtype_store_f64(x->dtype, x->data, i,
                            special ? floats[(size_t)(r * (sizeof floats / sizeof floats[0]))] : r * 4 - 2);
        else
            dtype_store_i64(x->dtype, x->data, i,
                            special ? ints[(size_t)(r * (sizeof ints / sizeof ints[0]))] : (int64_t)(r * 5) % 3);
    }
}

static struct tensor *inputs_of(const struct trial *t, const int64_t *size)
{
    static const char *const names[] = {"b", "s", "p", "n"};
    const struct graph *g = t->program->graph;
    struct tensor *inputs = NEW_ARRAY(arena, struct tensor, g->inputs.count + 1);
    int64_t *of = NEW_ARRAY(arena, int64_t, dims_symbol_count(g->dims) + 1);
    for (uint32_t s = 0; s < dims_symbol_count(g->dims); s++)
        for (int i = 0; i < 4; i++)
            if (dims_symbol(g->dims, s)->name && strcmp(dims_symbol(g->dims, s)->name, names[i]) == 0)
                of[s] = size[i];
    for (uint32_t i = 0; i < g->inputs.count; i++) {
        const struct node *n = graph_node(g, g->inputs.at[i].value);
        int64_t shape[MAX_RANK];
        for (uint32_t a = 0; a < n->rank; a++)
            assert_true(dim_eval(g->dims, n->shape[a], of, &shape[a]));
        assert_true(tensor_new(arena, &inputs[i], n->dtype, n->rank, shape));
        fill(t, &inputs[i]);
    }
    return inputs;
}

/* Of functions that the library computes by other means than ours: in units of the last place. */
static void compare(const struct trial *t, const struct tensor *got, const struct tensor *wanted)
{
    const struct graph *g = t->program->graph;
    for (uint32_t i = 0; i < g->outputs.count; i++) {
        struct difference d;
        double relative = t->tolerance[wanted[i].dtype], magnitude = 0;
        if (dtype_is_float(wanted[i].dtype) && !t->wild) {
            (void)tensor_compare(&got[i], &wanted[i], 0, 0, &d);
            magnitude = d.largest < 1e30 ? d.largest : 0;
        }
        if (!tensor_compare(&got[i], &wanted[i], relative, t->wild ? 1e-37 : relative * fmax(magnitude, 1), &d))
            fail_msg("%s: '%s': %zu differ, [%zu] is %.9g, wanted %.9g", t->name, g->outputs.at[i].name, d.count, d.at,
                     d.got, d.wanted);
    }
}

static void run_trial(const struct trial *t)
{
    for (uint32_t i = 0; i < t->sizes; i++) {
        const struct graph *g = t->program->graph;
        struct interpretation x;
        struct tensor *inputs = inputs_of(t, t->size[i]);
        struct tensor *outputs = NEW_ARRAY(arena, struct tensor, g->outputs.count + 1);
        if (interpret_same(g, NULL, inputs, arena, &diag, &x) != TPC_OK)
            fail_msg("%s: %s", t->name, lines);
        uint32_t processors = i % 2 ? 1 : 132; /* few: longer rows per warp */
        int64_t fault = execute_cuda(t->name, t->set, t->program, model, x.of[0], processors, inputs, outputs, arena);
        if (fault != 0)
            fail_msg("%s: fault %lld", t->name, (long long)fault);
        compare(t, outputs, x.output);
        for (uint32_t k = 0; k < g->outputs.count; k++)
            free(outputs[k].data);
    }
}

static void programs(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < trials.count; i++)
        run_trial(&trials.at[i]);
}

/* An index that is out of range is told with its step and node, the first of several steps, and nothing outside is touched. */
static void faults(void **state)
{
    (void)state;
    bool found = getenv("CASE") != NULL;
    for (uint32_t i = 0; i < trials.count; i++) {
        const struct trial *t = &trials.at[i];
        const struct graph *g = t->program->graph;
        struct interpretation x;
        struct tensor outputs[8];
        if (strcmp(t->name, "gather f32") != 0)
            continue;
        found = true;
        struct tensor *inputs = inputs_of(t, t->size[0]);
        assert_int_equal(interpret_same(g, NULL, inputs, arena, &diag, &x), TPC_OK);
        for (int bad = 0; bad < 3; bad++) {
            for (uint32_t k = 0; k < g->inputs.count; k++)
                if (dtype_is_int(inputs[k].dtype)) {
                    dtype_store_i64(inputs[k].dtype, inputs[k].data, 1, bad == 0 ? 1 : bad == 1 ? 11 : -1);
                }
            int64_t fault = execute_cuda(t->name, t->set, t->program, model, x.of[0], 4, inputs, outputs, arena);
            assert_int_equal(fault != 0, bad != 0);
            if (bad)
                assert_int_equal(graph_node(g, cuda_fault_node(t->set, fault))->op, OP_GATHER);
            if (bad)
                assert_int_equal(cuda_fault_step(fault), 0);
            for (uint32_t k = 0; k < g->outputs.count; k++)
                free(outputs[k].data);
        }
    }
    assert_true(found);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(programs), cmocka_unit_test(faults)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
