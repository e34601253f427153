/* tests/unit/cuda_skinny_test.c - products of 1 to 8 rows with weights, on the model of CUDA against the reference interpreter: either way that a weight may lie, k and n
 * that are no multiples of anything but 16 bytes, tiny and long ones, on GPUs of 1 and of 132 multiprocessors, alone and with what follows; and that
 * the work is shared out as the size asks for.
 */
#include "ir/interpret.h"
#include "tests/support/cuda_trial.h"
#include "tests/support/execute_gpu.h"
#include "tests/test.h"

#include <stdlib.h>

/* Weights [N, K] and [K, N], made at load; behind each a bias, an activation and a residual, or nothing. */
static const char product_form[] =
    "%x: $[b, s, K] = input as \"x\"\n%r: $[b, s, N] = input as \"r\"\n%c: $[N] = input as \"c\"\n"
    "%i: i64[N, K] = iota axis 0\n%j: i64[N, K] = iota axis 1\n%t: i64[] = constant data [7]\n"
    "%t2: i64[N, K] = broadcast %t\n%i7 = mul %i, %t2\n%ij = add %i7, %j\n%f: f32[N, K] = cast %ij\n%g = sin %f\n"
    "%w: $[N, K] = cast %g\n%y = dot %x, %w contract 1\n%c3: $[b, s, N] = broadcast %c list [2]\n%z = add %y, %c3\n"
    "%h = tanh %z\n%o = add %h, %r\noutput \"o\" %o\n"
    "%k: i64[K, N] = iota axis 0\n%l: i64[K, N] = iota axis 1\n%t3: i64[K, N] = broadcast %t\n%k7 = mul %k, %t3\n"
    "%kl = add %k7, %l\n%m: f32[K, N] = cast %kl\n%n = sin %m\n%v: $[K, N] = cast %n\n"
    "%vt = transpose %v list [1, 0]\n%p = dot %x, %vt contract 1\noutput \"p\" %p\n"
    "%q = dot %x, %w contract 1\noutput \"q\" %q\n"
    "%d = dot %x, %vt contract 1\n%e = add %d, %r\noutput \"e\" %e\n";

/* A norm of a residual sum that is used again; two products with its rows. Rows less their maxima; two products with them that one kernel multiplies; a product
 * with that. Weights lie along k. */
static const char layer_form[] =
    "%a: $[b, s, K] = input as \"a\"\n%b: $[b, s, K] = input as \"b\"\n%g: $[K] = input as \"g\"\n"
    "%h = add %a, %b\n%hh = mul %h, %h\n%sum = reduce_sum %hh list [2]\n%e: $[] = constant data [0.5]\n"
    "%e2: $[b, s] = broadcast %e\n%more = add %sum, %e2\n%root = sqrt %more\n%one = recip %root\n"
    "%one3: $[b, s, K] = broadcast %one list [0, 1]\n%n = mul %h, %one3\n%g3: $[b, s, K] = broadcast %g list [2]\n"
    "%x = mul %n, %g3\n"
    "%i: i64[N, K] = iota axis 0\n%j: i64[N, K] = iota axis 1\n%t: i64[] = constant data [7]\n"
    "%t2: i64[N, K] = broadcast %t\n%i7 = mul %i, %t2\n%ij = add %i7, %j\n%f: f32[N, K] = cast %ij\n%si = sin %f\n"
    "%w: $[N, K] = cast %si\n%co = cos %f\n%v: $[N, K] = cast %co\n%ta = tanh %si\n%u: $[N, K] = cast %ta\n"
    "%c: $[N] = input as \"c\"\n%c3: $[b, s, N] = broadcast %c list [2]\n"
    "%q = dot %x, %w contract 1\n%k = dot %x, %v contract 1\n%kb = add %k, %c3\n"
    "%qm = reduce_max %q list [2]\n%qm3: $[b, s, N] = broadcast %qm list [0, 1]\n%qd = sub %q, %qm3\n"
    "%qk = mul %qd, %kb\noutput \"qk\" %qk\n%top = reduce_max %qk list [2]\n"
    "%top3: $[b, s, K] = broadcast %top list [0, 1]\n%ho = add %h, %top3\noutput \"h\" %ho\n"
    "%l = reduce_max %b list [2]\n%l3: $[b, s, K] = broadcast %l list [0, 1]\n%y = sub %b, %l3\n"
    "%ga = dot %y, %u contract 1\n%up = dot %y, %v contract 1\n%th = tanh %ga\n%m = mul %th, %up\n"
    "%wt = transpose %w list [1, 0]\n%d = dot %m, %wt contract 1\noutput \"d\" %d\n";
/* Rows of a table, less their maxima; two products with them. */
static const char gather_form[] =
    "%z: $[11, K] = input as \"z\"\n%id: i64[b, s] = input as \"id\"\n%r = gather %z, %id batch 0 axis 0\n"
    "%l = reduce_max %r list [2]\n%l3: $[b, s, K] = broadcast %l list [0, 1]\n%x = sub %r, %l3\n"
    "%i: i64[N, K] = iota axis 0\n%j: i64[N, K] = iota axis 1\n%t: i64[] = constant data [7]\n"
    "%t2: i64[N, K] = broadcast %t\n%i7 = mul %i, %t2\n%ij = add %i7, %j\n%f: f32[N, K] = cast %ij\n%si = sin %f\n"
    "%w: $[N, K] = cast %si\n%co = cos %f\n%v: $[N, K] = cast %co\n%q = dot %x, %w contract 1\n"
    "%k = dot %x, %v contract 1\n%qm = reduce_max %q list [2]\n%qm3: $[b, s, N] = broadcast %qm list [0, 1]\n"
    "%qd = sub %q, %qm3\n%o = mul %qd, %k\noutput \"o\" %o\n";
/* The same along n: weights are made the other way round. */
static const char *const turned[][2] = {
    {"i64[N, K] = iota axis 0", "i64[K, N] = iota axis 1"},
    {"i64[N, K] = iota axis 1", "i64[K, N] = iota axis 0"},
    {"i64[N, K]", "i64[K, N]"},
    {"f32[N, K]", "f32[K, N]"},
    {"%w: $[N, K] = cast %si", "%w0: $[K, N] = cast %si\n%w = transpose %w0 list [1, 0]"},
    {"%v: $[N, K] = cast %co", "%v0: $[K, N] = cast %co\n%v = transpose %v0 list [1, 0]"},
    {"%u: $[N, K] = cast %ta", "%u0: $[K, N] = cast %ta\n%u = transpose %u0 list [1, 0]"}};

static const char *turn(const char *text)
{
    struct text out = {.arena = trial_arena};
    while (*text) {
        size_t i = 0, count = sizeof turned / sizeof turned[0];
        while (i < count && strncmp(text, turned[i][0], strlen(turned[i][0])) != 0)
            i++;
        if (i < count) {
            text_put(&out, turned[i][1]);
            text += strlen(turned[i][0]);
        } else {
            text_putn(&out, text++, 1);
        }
    }
    return out.at;
}

/* The form with numbers for K and N, as a trial of type t. */
static struct cuda_trial *add_form(const char *name, const char *form, dtype t, int k, int n, bool joined)
{
    struct text text = {.arena = trial_arena};
    for (const char *at = form; *at; at++) {
        bool number = (*at == 'K' || *at == 'N') && strchr(" [,", at[-1]) && strchr("],", at[1]);
        if (number)
            text_printf(&text, "%d", *at == 'K' ? k : n);
        else
            text_putn(&text, at, 1);
    }
    struct cuda_trial *trial =
        trial_typed(arena_printf(trial_arena, "%s[%d x %d]%s", name, k, n, joined ? "" : " alone"), text.at, t);
    if (trial && joined)
        cuda_join_steps(trial->set, trial->program);
    return trial;
}

/* Launches of these functions by their grid's y and the most of it; steps that stay products. */
struct launches {
    uint32_t skinny, shared, products;
    uint32_t blocks;
};

static struct launches count(const struct cuda_trial *trial, int64_t rows, uint32_t processors)
{
    struct launches found = {0};
    for (uint32_t i = 0; i < trial->program->steps.count; i++) {
        int64_t of[64] = {0};
        struct cuda_step step;
        for (uint32_t s = 0; s < dims_symbol_count(trial->program->graph->dims); s++)
            of[s] = strcmp(dims_symbol(trial->program->graph->dims, s)->name, "s") == 0 ? rows : 1;
        assert_int_equal(cuda_step(trial->set, i, of, processors, trial_arena, &step), TPC_OK);
        found.products += step.way == CUDA_PRODUCT ? step.count : 0;
        if (step.way != CUDA_LAUNCH ||
            strncmp(cuda_function_at(trial->set, step.launch[0].function)->name, "tpc_skinny", 10) != 0)
            continue;
        uint32_t blocks = step.launch[0].grid[0] * step.launch[0].grid[1];
        found.skinny++;
        found.shared += step.launch[0].grid[1] > 1;
        found.blocks = blocks > found.blocks ? blocks : found.blocks;
        assert_true(step.launch[0].grid[1] == 1 || step.workspace > 0);
    }
    return found;
}

static void add_type(dtype t)
{
    static const int sizes[][2] = {{8, 8}, {264, 72}, {1112, 24}, {72, 264}, {4400, 8}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct cuda_trial *trial = add_form("", product_form, t, sizes[i][0], sizes[i][1], true);
        if (!trial)
            continue;
        trial_size(trial, 1, 1, 0, 0); /* of 132 multiprocessors */
        trial_size(trial, 1, 1, 0, 0); /* of one */
        if (i == 0 || (i == 1 && t == DT_BF16) || (i == 2 && t == DT_F32)) {
            trial_size(trial, 2, 4, 0, 0);
            trial_size(trial, 3, 1, 0, 0);
        }
    }
    struct cuda_trial *alone = add_form("", product_form, t, 264, 72, false);
    if (alone)
        trial_size(alone, 1, 1, 0, 0);
}

static void add_layers(dtype t)
{
    static const int sizes[][2] = {{72, 136}, {520, 40}};
    for (size_t i = 0; i < 4; i++) {
        struct cuda_trial *trial = add_form(i % 2 ? "layer n " : "layer k ", i % 2 ? turn(layer_form) : layer_form, t,
                                            sizes[i / 2][0], sizes[i / 2][1], true);
        if (!trial)
            continue;
        trial->tolerance[DT_F32] = 1e-4; /* products of products, whose terms cancel */
        trial->tolerance[DT_F16] = 0x1p-6;
        trial->tolerance[DT_BF16] = 0x1p-3;
        trial_size(trial, 1, 1, 0, 0);
        trial_size(trial, 1, 1, 0, 0);
        trial_size(trial, 1, 3, 0, 0);
    }
}

static void add_gather(void)
{
    struct cuda_trial *trial = add_form("gather ", gather_form, DT_F32, 72, 40, true);
    if (!trial)
        return;
    trial->tolerance[DT_F32] = 1e-5;
    trial_size(trial, 1, 1, 0, 0);
    trial_size(trial, 3, 1, 0, 0);
}

static int setup(void **state)
{
    (void)state;
    trial_start();
    add_type(DT_F32);
    add_type(DT_F16);
    add_type(DT_BF16);
    add_layers(DT_F32);
    add_layers(DT_F16);
    add_layers(DT_BF16);
    add_gather();
    trial_compile();
    return 0;
}

/* On a large GPU a long weight is shared by many blocks a tile; on one of a single multiprocessor by the three that it has room for; many rows are a product. */
static void sharing(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < trials->count; i++) {
        const struct cuda_trial *t = &trials->at[i];
        if (strcmp(t->name, "[1112 x 24] bf16") != 0)
            continue;
        struct launches large = count(t, 1, 132), small = count(t, 1, 1), many = count(t, 9, 132);
        assert_int_equal(large.skinny, 4);
        assert_int_equal(large.shared, 2);
        assert_int_equal(large.blocks, 12); /* parts of 96 */
        assert_int_equal(small.skinny, 4);
        assert_int_equal(small.blocks, 3);
        assert_int_equal(many.skinny, 0);
        assert_int_equal(many.products, 4);
    }
}

/* One row: three launches do all but what is done with q and k. Several rows: the norms are kernels of their own. */
static void joining(void **state)
{
    (void)state;
    uint32_t found = 0;
    for (uint32_t i = 0; i < trials->count; i++) {
        const struct cuda_trial *t = &trials->at[i];
        if (strncmp(t->name, "layer", 5) != 0)
            continue;
        assert_int_equal(count(t, 1, 132).skinny, 3);
        assert_int_equal(count(t, 3, 132).skinny, 3);
        assert_int_equal(count(t, 9, 132).products, 5);
        found++;
    }
    assert_true(found == 12 || getenv("CASE"));
}

/* An index out of range within a product's norm is told with the node that has it. */
static void faults(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < trials->count; i++) {
        const struct cuda_trial *t = &trials->at[i];
        const struct graph *g = t->program->graph;
        struct interpretation x;
        struct tensor outputs[8];
        if (strncmp(t->name, "gather", 6) != 0)
            continue;
        assert_int_equal(count(t, 1, 132).skinny, 1);
        struct tensor *inputs = trial_inputs(t, t->size[0]);
        assert_int_equal(interpret_same(g, NULL, inputs, trial_arena, &trial_diag, &x), TPC_OK);
        dtype_store_i64(inputs[1].dtype, inputs[1].data, 0, 11);
        int64_t fault = trial_execute(t, x.of[0], 132, inputs, outputs);
        assert_true(fault != 0);
        if (!gpu_wanted())
            assert_int_equal(graph_node(g, cuda_fault_node(t->set, fault))->op, OP_GATHER);
        for (uint32_t k = 0; k < g->outputs.count; k++)
            free(outputs[k].data);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(trial_programs), cmocka_unit_test(sharing),
                                       cmocka_unit_test(joining), cmocka_unit_test(faults)};
    return cmocka_run_group_tests(tests, setup, trial_end);
}
