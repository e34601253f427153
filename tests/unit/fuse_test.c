/* tests/unit/fuse_test.c - fused Programs compute what the reference interpreter computes: every row of ops.def (the cases of interpret_rows.txt), and the
 * structures that fusion is for, by interpreted and by compiled kernels; how many steps, kernels and buffers those make; the text of Programs.
 */
#include "codegen/codegen.h"
#include "ir/interpret.h"
#include "passes/passes.h"
#include "tests/support/execute.h"
#include "tests/test.h"

#include <math.h>
#include <stdlib.h>

static struct arena *arena;
static char lines[4000];

static void note(void *user, severity level, const char *line)
{
    (void)user;
    (void)level;
    size_t used = strlen(lines);
    snprintf(lines + used, sizeof lines - used, "%s\n", line);
}
static struct diag diag = {.sink = note};

static int setup(void **state)
{
    (void)state;
    arena = arena_new();
    lines[0] = '\0';
    return 0;
}
static int teardown(void **state)
{
    (void)state;
    arena_free(arena);
    return 0;
}

/* ---- from a text to a Program, and back ---- */

static struct graph *parse(const char *name, const char *text, size_t length)
{
    struct graph *g = NULL;
    if (graph_parse(arena, name, text, length, &diag, &g) != TPC_OK)
        fail_msg("%s: %s", name, lines);
    return g;
}

static const char *print(const struct program *p)
{
    struct text out = {.arena = arena};
    program_print(p, &out);
    return out.at;
}

static struct program *fused(const char *name, struct graph *g)
{
    struct program *p = NULL, *again = NULL;
    if (fuse(arena, g, &diag, &p) != TPC_OK || schedule(p, &diag) != TPC_OK || program_verify(p, &diag) != TPC_OK)
        fail_msg("%s: %s\n%s", name, lines, p != NULL ? print(p) : "");
    const char *text = print(p);
    if (program_parse(arena, name, text, strlen(text), &diag, &again) != TPC_OK)
        fail_msg("%s: %s\n%s", name, lines, text);
    if (strcmp(print(again), text) != 0)
        fail_msg("%s: printed again it is another text:\n%s----\n%s", name, text, print(again));
    return again;
}

/* ---- comparison with the reference interpreter ---- */

static struct kernel_set *load(const char *name, const struct program *p, bool interpreted)
{
    struct kernel_set *set = NULL;
    struct codegen_options options = {.no_compiler = interpreted};
    if (kernels_load(arena, p, &options, &diag, &set) != TPC_OK)
        fail_msg("%s: %s", name, lines);
    return set;
}

static void compare(const char *name, const struct graph *g, const struct tensor *got, const struct tensor *wanted,
                    bool exact)
{
    static const double within[DT_COUNT] = {[DT_F16] = 0x1p-8, [DT_BF16] = 0x1p-5, [DT_F32] = 3e-6, [DT_F64] = 1e-12};
    for (uint32_t i = 0; i < g->outputs.count; i++) {
        struct difference d;
        double relative = exact ? 0 : within[wanted[i].dtype], least = relative;
        double magnitude = 0;
        if (!exact && dtype_is_float(wanted[i].dtype)) {
            (void)tensor_compare(&got[i], &wanted[i], 0, 0, &d);
            magnitude = d.largest < 1e30 ? d.largest : 0;
        }
        if (!tensor_compare(&got[i], &wanted[i], relative, least * (magnitude > 1 ? magnitude : 1), &d))
            fail_msg("%s: '%s': %zu differ, [%zu] is %.9g, wanted %.9g", name, g->outputs.at[i].name, d.count, d.at,
                     d.got, d.wanted);
    }
}

static void run_both(const char *name, const struct program *p, const struct tensor *inputs, bool exact, bool compiled)
{
    const struct graph *g = p->graph;
    struct interpretation x;
    struct tensor *outputs = NEW_ARRAY(arena, struct tensor, g->outputs.count + 1);
    if (interpret_same(g, NULL, inputs, arena, &diag, &x) != TPC_OK)
        fail_msg("%s: %s", name, lines);
    for (int way = 0; way <= compiled; way++) {
        struct kernel_set *set = load(name, p, way == 0);
        int64_t fault = execute_alone(name, p, set, x.of[0], inputs, outputs, way == 1, arena);
        if (fault != 0)
            fail_msg("%s: fault %lld", name, (long long)fault);
        compare(name, g, outputs, x.output, exact);
        for (uint32_t i = 0; i < g->outputs.count; i++)
            free(outputs[i].data);
    }
}

/* ---- every row ---- */

static char *read_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        fail_msg("cannot open %s", path);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    long size = ftell(f);
    assert_true(size > 0);
    rewind(f);
    char *text = arena_alloc(arena, (size_t)size + 1);
    assert_int_equal(fread(text, 1, (size_t)size, f), (size_t)size);
    assert_int_equal(fclose(f), 0);
    return text;
}

static void test_rows(void **state)
{
    (void)state;
    const char *source = getenv("SOURCE"), *only = getenv("CASE");
    char *at = read_file(arena_printf(arena, "%s/tests/unit/interpret_rows.txt", source ? source : "."));
    while (*at) {
        char *name = at, *body = strchr(at, '\n'), *next = strstr(at + 1, "\n==");
        *body++ = '\0';
        at = next ? next + 1 : body + strlen(body);
        if (strstr(name, "cross") != NULL || (only != NULL && strstr(name, only) == NULL))
            continue;
        struct arena *outer = arena;
        arena = arena_new();
        struct graph *g = parse(name, body, (size_t)(at - body));
        run_both(name, fused(name, g), NULL, false, false);
        arena_free(arena);
        arena = outer;
    }
}

/* ---- structures ---- */

static uint32_t seed;

static double next_random(void)
{
    seed = seed * 1664525u + 1013904223u;
    return (double)(seed >> 8) / (double)(1u << 24);
}

struct size {
    const char *symbol;
    int64_t value;
};

/* Inputs for these symbol values: floats in [-2, 2), integers in [0, 5), bools. */
static struct tensor *random_inputs(const struct graph *g, const struct size *sizes)
{
    struct tensor *inputs = NEW_ARRAY(arena, struct tensor, g->inputs.count + 1);
    int64_t *of = NEW_ARRAY(arena, int64_t, dims_symbol_count(g->dims) + 1);
    for (uint32_t s = 0; s < dims_symbol_count(g->dims); s++)
        for (const struct size *z = sizes; z->symbol != NULL; z++)
            of[s] = strcmp(dims_symbol(g->dims, s)->name, z->symbol) == 0 ? z->value : of[s];
    for (uint32_t i = 0; i < g->inputs.count; i++) {
        const struct node *n = graph_node(g, g->inputs.at[i].value);
        int64_t shape[MAX_RANK];
        for (uint32_t a = 0; a < n->rank; a++)
            assert_true(dim_eval(g->dims, n->shape[a], of, &shape[a]));
        assert_true(tensor_new(arena, &inputs[i], n->dtype, n->rank, shape));
        for (size_t k = 0; k < inputs[i].count; k++)
            if (dtype_is_float(n->dtype))
                dtype_store_f64(n->dtype, inputs[i].data, k, next_random() * 4 - 2);
            else
                dtype_store_i64(n->dtype, inputs[i].data, k, (int64_t)(next_random() * (n->dtype == DT_BOOL ? 2 : 5)));
    }
    return inputs;
}

struct counts {
    uint32_t load, kernels, dots, copies, distinct;
};

static struct counts count_steps(const struct program *p)
{
    struct counts c = {.distinct = p->kernels.count};
    for (uint32_t i = 0; i < p->steps.count; i++) {
        c.load += p->steps.at[i].phase == PHASE_LOAD;
        c.kernels += p->steps.at[i].kind == STEP_KERNEL;
        c.dots += p->steps.at[i].kind == STEP_DOT;
        c.copies += p->steps.at[i].kind == STEP_COPY;
    }
    return c;
}

/* The text as a Program, run at two sizes of its symbols (b, s, p, n) and, as far as it has them, at 0. */
static const struct program *run_text(const char *name, const char *text)
{
    static const struct size sizes[][5] = {{{"b", 2}, {"s", 5}, {"p", 7}, {"n", 11}, {NULL, 0}},
                                           {{"b", 1}, {"s", 13}, {"p", 0}, {"n", 3}, {NULL, 0}},
                                           {{"b", 3}, {"s", 1}, {"p", 1}, {"n", 1}, {NULL, 0}}};
    const struct program *p = fused(name, parse(name, text, strlen(text)));
    for (size_t i = 0; i < 3; i++)
        run_both(name, p, random_inputs(p->graph, sizes[i]), false, true);
    return p;
}

static void expect_steps(const char *name, const struct program *p, uint32_t kernels, uint32_t dots)
{
    struct counts c = count_steps(p);
    if (c.kernels != kernels || c.dots != dots || c.copies != 0)
        fail_msg("%s: %u kernels, %u dots, %u copies instead of %u, %u, 0:\n%s", name, (unsigned)c.kernels,
                 (unsigned)c.dots, (unsigned)c.copies, (unsigned)kernels, (unsigned)dots, print(p));
}

static void test_softmax_is_one_kernel(void **state)
{
    (void)state;
    const struct program *p = run_text("softmax", "%x: f32[b, 3, s, n] = input as \"x\"\n"
                                                  "%m: bool[b, 1, s, n] = input as \"m\"\n"
                                                  "%c: f32[] = constant data [0.25]\n"
                                                  "%low: f32[] = constant data [-10000]\n"
                                                  "%zero: f32[] = constant data [0]\n"
                                                  "%c4: f32[b, 3, s, n] = broadcast %c\n"
                                                  "%low4: f32[b, 1, s, n] = broadcast %low\n"
                                                  "%zero4: f32[b, 1, s, n] = broadcast %zero\n"
                                                  "%bias = select %m, %zero4, %low4\n"
                                                  "%bias3: f32[b, 3, s, n] = broadcast %bias list [0, 1, 2, 3]\n"
                                                  "%scaled = mul %x, %c4\n"
                                                  "%y = add %scaled, %bias3\n"
                                                  "%max = reduce_max %y list [3]\n"
                                                  "%max4: f32[b, 3, s, n] = broadcast %max list [0, 1, 2]\n"
                                                  "%low0 = sub %y, %max4\n"
                                                  "%e = exp %low0\n"
                                                  "%sum = reduce_sum %e list [3]\n"
                                                  "%sum4: f32[b, 3, s, n] = broadcast %sum list [0, 1, 2]\n"
                                                  "%r = div %e, %sum4\n"
                                                  "output \"r\" %r\n");
    expect_steps("softmax", p, 1, 0);
}

#define LAYER_NORM(in, out)                                                                                            \
    "%" out ".sum = reduce_sum %" in " list [2]\n"                                                                     \
    "%" out ".mean1 = div %" out ".sum, %width2\n"                                                                     \
    "%" out ".mean: f32[b, s, 24] = broadcast %" out ".mean1 list [0, 1]\n"                                            \
    "%" out ".d = sub %" in ", %" out ".mean\n"                                                                        \
    "%" out ".sq = mul %" out ".d, %" out ".d\n"                                                                       \
    "%" out ".var = reduce_sum %" out ".sq list [2]\n"                                                                 \
    "%" out ".var1 = div %" out ".var, %width2\n"                                                                      \
    "%" out ".var2 = add %" out ".var1, %eps2\n"                                                                       \
    "%" out ".root = sqrt %" out ".var2\n"                                                                             \
    "%" out ".rs = recip %" out ".root\n"                                                                              \
    "%" out ".rs3: f32[b, s, 24] = broadcast %" out ".rs list [0, 1]\n"                                                \
    "%" out ".n = mul %" out ".d, %" out ".rs3\n"                                                                      \
    "%" out ".g: f32[b, s, 24] = broadcast %gain list [2]\n"                                                           \
    "%" out " = mul %" out ".n, %" out ".g\n"

#define LAYER_NORM_CONSTANTS                                                                                           \
    "%gain: f32[24] = param index 0\n%width: f32[] = constant data [24]\n%eps: f32[] = constant data [1e-05]\n"        \
    "%width2: f32[b, s] = broadcast %width\n%eps2: f32[b, s] = broadcast %eps\n"

/* A residual sum is stored by the kernel that normalises it, and read by the next sum. */
static void test_norm_takes_its_residual(void **state)
{
    (void)state;
    const struct program *p = run_text(
        "norm", "param 0 = \"g\" f32[24] data all(1.5)\nparam 1 = \"w\" f32[24, 24] data all(0.125)\n"
                "%x: f32[b, s, 24] = input as \"x\"\n%y: f32[b, s, 24] = input as \"y\"\n" LAYER_NORM_CONSTANTS
                "%w: f32[24, 24] = param index 1\n"
                "%h = add %x, %y\n" LAYER_NORM("h", "n1") "%f = dot %n1, %w contract 1\n"
                                                          "%h2 = add %h, %f\n" LAYER_NORM(
                                                              "h2", "n2") "output \"h2\" %h2\noutput \"n2\" %n2\n");
    expect_steps("norm", p, 2, 1);
    uint32_t temporaries = 0;
    for (uint32_t i = 0; i < p->buffers.count; i++)
        temporaries += p->buffers.at[i].kind == BUFFER_TEMP;
    assert_int_equal(temporaries, 3); /* h, n1, f */
}

/* Grouped heads, a cache, a causal mask: nothing but copies into the cache, the softmax and the products. */
#define ATTENTION                                                                                                      \
    "%q4: f32[b, s, 6, 8] = reshape %q\n%q5 = transpose %q4 list [0, 2, 1, 3]\n"                                       \
    "%k4: f32[b, s, 2, 8] = reshape %k\n%k5 = transpose %k4 list [0, 2, 1, 3]\n"                                       \
    "%v4: f32[b, s, 2, 8] = reshape %v\n%v5 = transpose %v4 list [0, 2, 1, 3]\n"                                       \
    "%kc = concat %kp, %k5 axis 2\n%vc = concat %vp, %v5 axis 2\n"                                                     \
    "%kg: f32[b, 2, 3, p + s, 8] = broadcast %kc list [0, 1, 3, 4]\n%kh: f32[b, 6, p + s, 8] = reshape %kg\n"          \
    "%vg: f32[b, 2, 3, p + s, 8] = broadcast %vc list [0, 1, 3, 4]\n%vh: f32[b, 6, p + s, 8] = reshape %vg\n"          \
    "%root: f32[] = constant data [0.353553]\n%root4: f32[b, 6, p + s, 8] = broadcast %root\n%ks = mul %kh, %root4\n"  \
    "%scores = dot %q5, %ks batch 2 contract 1\n"                                                                      \
    "%row: i64[s, p + s] = iota axis 0\n%column: i64[s, p + s] = iota axis 1\n%past = dim dims [p]\n"                  \
    "%past2: i64[s, p + s] = broadcast %past\n%last = add %row, %past2\n%seen = le %column, %last\n"                   \
    "%seen4: bool[b, 6, s, p + s] = broadcast %seen list [2, 3]\n"                                                     \
    "%low: f32[] = constant data [-1e+30]\n%low4: f32[b, 6, s, p + s] = broadcast %low\n"                              \
    "%masked = select %seen4, %scores, %low4\n%max = reduce_max %masked list [3]\n"                                    \
    "%max4: f32[b, 6, s, p + s] = broadcast %max list [0, 1, 2]\n%shifted = sub %masked, %max4\n%e = exp %shifted\n"   \
    "%sum = reduce_sum %e list [3]\n%sum4: f32[b, 6, s, p + s] = broadcast %sum list [0, 1, 2]\n%pr = div %e, %sum4\n" \
    "%vt = transpose %vh list [0, 1, 3, 2]\n%a = dot %pr, %vt batch 2 contract 1\n"                                    \
    "%a4 = transpose %a list [0, 2, 1, 3]\n%am: f32[b, s, 48] = reshape %a4\n"

static void test_attention_moves_nothing(void **state)
{
    (void)state;
    const struct program *p = run_text(
        "attention", "param 0 = \"w\" f32[5, 48] data all(0.25)\n"
                     "%q: f32[b, s, 48] = input as \"q\"\n%k: f32[b, s, 16] = input as \"k\"\n"
                     "%v: f32[b, s, 16] = input as \"v\"\n"
                     "%kp: f32[b, 2, p, 8] = input as \"kp\"\n%vp: f32[b, 2, p, 8] = input as \"vp\"\n" ATTENTION
                     "%w: f32[5, 48] = param index 0\n%o = dot %am, %w contract 1\n"
                     "output \"o\" %o\noutput \"kc\" %kc\noutput \"vc\" %vc\n");
    expect_steps("attention", p, 5, 3);
}

static void test_rotary_is_one_kernel(void **state)
{
    (void)state;
    const struct program *p =
        run_text("rotary", "param 0 = \"f\" f32[6] data [1, 0.5, 0.25, 0.125, 0.0625, 0.03125]\n"
                           "%x: f32[b, s, 36] = input as \"x\"\n%pos: i64[b, s] = input as \"pos\"\n"
                           "%f: f32[6] = param index 0\n%pf: f32[b, s] = cast %pos\n"
                           "%f3: f32[b, s, 6] = broadcast %f list [2]\n%p3: f32[b, s, 6] = broadcast %pf list [0, 1]\n"
                           "%t = mul %p3, %f3\n%c6 = cos %t\n%s6 = sin %t\n"
                           "%c12 = concat %c6, %c6 axis 2\n%s12 = concat %s6, %s6 axis 2\n"
                           "%c: f32[b, 3, s, 12] = broadcast %c12 list [0, 2, 3]\n"
                           "%sn: f32[b, 3, s, 12] = broadcast %s12 list [0, 2, 3]\n"
                           "%x4: f32[b, s, 3, 12] = reshape %x\n%xt = transpose %x4 list [0, 2, 1, 3]\n"
                           "%x1: f32[b, 3, s, 6] = slice %xt list [1, 1, 1, 1] dims [0, 0, 0, 0]\n"
                           "%x2: f32[b, 3, s, 6] = slice %xt list [1, 1, 1, 1] dims [0, 0, 0, 6]\n"
                           "%n2 = neg %x2\n%turned = concat %n2, %x1 axis 3\n"
                           "%l = mul %xt, %c\n%r = mul %turned, %sn\n%y = add %l, %r\noutput \"y\" %y\n");
    struct counts c = count_steps(p);
    assert_true(c.kernels <= 3); /* the tables are made once for all heads */
}

/* Layers of one shape share their kernels. */
static void test_depth_adds_no_kernel(void **state)
{
    (void)state;
    uint32_t distinct[2];
    for (int deep = 0; deep < 2; deep++) {
        struct text t = {.arena = arena};
        uint32_t layers = deep ? 8 : 2;
        text_put(&t, "param 0 = \"g\" f32[24] data all(1.5)\n");
        for (uint32_t l = 0; l < layers; l++)
            text_printf(&t, "param %u = \"w%u\" f32[24, 24] data all(0.125)\n", (unsigned)l + 1, (unsigned)l);
        text_put(&t, "%x: f32[b, s, 24] = input as \"x\"\n%h0: f32[b, s, 24] = input as \"y\"\n" LAYER_NORM_CONSTANTS);
        for (uint32_t l = 0; l < layers; l++) {
            struct text norm = {.arena = arena};
            text_put(&norm, LAYER_NORM("HH", "NN"));
            for (const char *c = norm.at; *c != '\0'; c++) { /* the layer's own labels */
                bool in = strncmp(c, "HH", 2) == 0, out = strncmp(c, "NN", 2) == 0;
                if (in || out)
                    text_printf(&t, "%c%u", in ? 'h' : 'n', (unsigned)l);
                else
                    text_putn(&t, c, 1);
                c += in || out;
            }
            text_printf(&t,
                        "%%w%u: f32[24, 24] = param index %u\n%%f%u = dot %%n%u, %%w%u contract 1\n%%t%u = tanh "
                        "%%f%u\n%%h%u = add %%h%u, %%t%u\n",
                        (unsigned)l, (unsigned)l + 1, (unsigned)l, (unsigned)l, (unsigned)l, (unsigned)l, (unsigned)l,
                        (unsigned)l + 1, (unsigned)l, (unsigned)l);
        }
        text_printf(&t, "output \"h\" %%h%u\n", (unsigned)layers);
        const struct program *p = run_text("depth", t.at);
        distinct[deep] = count_steps(p).distinct;
        expect_steps("depth", p, layers + 1, layers);
    }
    assert_int_equal(distinct[0], distinct[1]);
}

static void test_what_is_known_is_made_at_load(void **state)
{
    (void)state;
    const struct program *p = run_text(
        "static", "param 0 = \"w\" f32[8, 8] data all(0.5)\nparam 1 = \"g\" f32[8] data all(2)\n"
                  "%x: f32[s, 8] = input as \"x\"\n%w: f32[8, 8] = param index 0\n%g: f32[8] = param index 1\n"
                  "%e = exp %w\n%y = dot %x, %e contract 1\n%t = tanh %g\n%t2: f32[s, 8] = broadcast %t list [1]\n"
                  "%z = mul %y, %t2\noutput \"z\" %z\n");
    struct counts c = count_steps(p);
    assert_int_equal(c.load, 2);
    for (uint32_t i = 0; i < p->buffers.count; i++)
        if (p->buffers.at[i].kind == BUFFER_KEPT)
            assert_true(dim_is_const(p->graph->dims, p->buffers.at[i].elements, NULL));
}

static void test_outputs_share_values(void **state)
{
    (void)state;
    const struct program *p = run_text(
        "outputs", "param 0 = \"w\" f32[3] data [1, 2, 3]\n"
                   "%x: f32[b, s] = input as \"x\"\n%w: f32[3] = param index 0\n%c: i32[2] = constant data [5, 6]\n"
                   "%y = exp %x\n%flat: f32[b*s] = reshape %y\n%t = transpose %y list [1, 0]\n%d = dim dims [b*s]\n"
                   "%i: i32[s] = iota axis 0\n"
                   "output \"y\" %y\noutput \"again\" %y\noutput \"flat\" %flat\noutput \"t\" %t\n"
                   "output \"x\" %x\noutput \"w\" %w\noutput \"c\" %c\noutput \"d\" %d\noutput \"i\" %i\n");
    assert_int_equal(count_steps(p).copies, 5);
}

static void test_windows_and_padding(void **state)
{
    (void)state;
    const struct program *p =
        run_text("convolution", "param 0 = \"w\" f32[4, 3, 3] data all(0.5)\n%x: f32[b, 3, 11] = input as \"x\"\n"
                                "%w: f32[4, 3, 3] = param index 0\n%z: f32[] = constant data [0]\n"
                                "%p: f32[b, 3, 13] = pad %x, %z dims [0, 0, 1]\n"
                                "%u = window %p axis 2 list [3, 2, 1]\n%t = transpose %u list [0, 2, 1, 3]\n"
                                "%y = dot %t, %w contract 2\n%o = transpose %y list [0, 2, 1]\noutput \"o\" %o\n");
    expect_steps("convolution", p, 1, 1); /* the padded copy; the dot writes its result transposed */
}

/* Angles of a rotation, behind themselves once more, and through a dot's operand. */
static void test_a_value_behind_itself(void **state)
{
    (void)state;
    const struct program *p = run_text(
        "angles", "%f: f32[1, 4, 1] = input as \"f\"\n%i: i64[1, s] = input as \"i\"\n%x: f32[1, s] = cast %i\n"
                  "%x3: f32[1, s, 1] = reshape %x\n%a = dot %x3, %f batch 1 contract 1\n"
                  "%aa = concat %a, %a axis 2\n%c = cos %aa\n%s = sin %aa\n"
                  "output \"c\" %c\noutput \"s\" %s\n");
    expect_steps("angles", p, 2, 0);
    p = run_text("repeated", "%x: f32[b, 3] = input as \"x\"\n%y: f32[n, 9] = input as \"y\"\n"
                             "%xxx = concat %x, %x, %x axis 1\n%z = dot %xxx, %y contract 1\noutput \"z\" %z\n"
                             "%xx = concat %x, %x axis 0\noutput \"xx\" %xx\n");
    expect_steps("repeated", p, 2, 1); /* of an unknown extent it is written in two parts */
}

/* Reshapes that cut and join axes in ways that no loop nest follows, and ones that it does. */
static void test_reshapes(void **state)
{
    (void)state;
    (void)run_text(
        "reshape",
        "%x: f32[b, 6, 4] = input as \"x\"\n%y: f32[b, 4, 6] = input as \"y\"\n"
        "%a: f32[b, 4, 6] = reshape %x\n%m = mul %a, %y\n%t = transpose %m list [0, 2, 1]\n"
        "%f: f32[24*b] = reshape %t\n%g: f32[b, 2, 3, 2, 2] = reshape %f\n%h = transpose %g list [3, 0, 2, 4, 1]\n"
        "%k: f32[4*b, 6] = reshape %h\n%sum = reduce_sum %k list [1]\n%e = exp %k\noutput \"sum\" %sum\noutput \"e\" "
        "%e\n");
    (void)run_text("reverse",
                   "%x: f32[b, s, 5] = input as \"x\"\n%r = reverse %x list [1, 2]\n%c = concat %r, %x, %r axis 1\n"
                   "%w = exp %c\n%sl: f32[b, s, 2] = slice %w list [1, 1, 2] dims [0, s, 1]\n%q = reduce_max %sl list "
                   "[0, 2]\noutput \"q\" %q\n");
}

static void test_gather_faults(void **state)
{
    (void)state;
    const char *text =
        "param 0 = \"w\" f32[4, 3] data [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]\n%i: i64[n] = input as \"i\"\n"
        "%w: f32[4, 3] = param index 0\n%g = gather %w, %i axis 0\n%e = neg %g\noutput \"e\" %e\n"
        "%z = gather %w, %i axis 0 mode 1 dims [2]\noutput \"z\" %z\n";
    const struct program *p = fused("gather", parse("gather", text, strlen(text)));
    for (int64_t bad = -1; bad < 5; bad++) {
        int64_t index[3] = {3, bad, 0}, shape = 3, *of = NEW_ARRAY(arena, int64_t, dims_symbol_count(p->graph->dims));
        struct tensor in, out[2];
        assert_true(tensor_shape(&in, DT_I64, 1, &shape));
        in.data = index;
        assert_int_equal(bind_symbols(p->graph, 0, &in, arena, &diag, of), TPC_OK);
        int64_t fault = execute_alone("gather", p, load("gather", p, bad % 2 == 0), of, &in, out, false, arena);
        assert_int_equal(fault != 0, bad < 0 || bad >= 4);
        if (fault == 0) {
            assert_true(((float *)out[0].data)[3] == -(float)(bad * 3 + 1));
            assert_true(((float *)out[1].data)[3] == (bad >= 2 ? (float)((bad - 2) * 3 + 1) : 0.0f));
        }
        free(out[0].data);
        free(out[1].data);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_rows, setup, teardown),
        cmocka_unit_test_setup_teardown(test_softmax_is_one_kernel, setup, teardown),
        cmocka_unit_test_setup_teardown(test_norm_takes_its_residual, setup, teardown),
        cmocka_unit_test_setup_teardown(test_attention_moves_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rotary_is_one_kernel, setup, teardown),
        cmocka_unit_test_setup_teardown(test_depth_adds_no_kernel, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_known_is_made_at_load, setup, teardown),
        cmocka_unit_test_setup_teardown(test_outputs_share_values, setup, teardown),
        cmocka_unit_test_setup_teardown(test_windows_and_padding, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_value_behind_itself, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reshapes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_gather_faults, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
