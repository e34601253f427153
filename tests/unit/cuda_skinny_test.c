/* tests/unit/cuda_skinny_test.c - products of 1 to 8 rows with weights, on the model of CUDA against the reference interpreter: either way that a weight may lie, k and n
 * that are no multiples of anything but 16 bytes, tiny and long ones, on GPUs of 1 and of 132 multiprocessors, alone and with what follows; and that
 * the work is shared out as the size asks for.
 */
#include "tests/support/cuda_trial.h"
#include "tests/test.h"

/* Weights [N, K] and [K, N], made at load; behind each a bias, an activation and a residual, or nothing. */
static const char form[] =
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

/* The form with numbers for K and N, as a trial of type t. */
static struct cuda_trial *add_product(dtype t, int k, int n, bool joined)
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
        trial_typed(arena_printf(trial_arena, "[%d x %d]%s", k, n, joined ? "" : " alone"), text.at, t);
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
        found.products += step.way == CUDA_PRODUCT;
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
        struct cuda_trial *trial = add_product(t, sizes[i][0], sizes[i][1], true);
        if (!trial)
            continue;
        trial_size(trial, 1, 1, 0, 0); /* of 132 multiprocessors */
        trial_size(trial, 1, 1, 0, 0); /* of one */
        if (i == 0 || (i == 1 && t == DT_BF16) || (i == 2 && t == DT_F32)) {
            trial_size(trial, 2, 4, 0, 0);
            trial_size(trial, 3, 1, 0, 0);
        }
    }
    struct cuda_trial *alone = add_product(t, 264, 72, false);
    if (alone)
        trial_size(alone, 1, 1, 0, 0);
}

static int setup(void **state)
{
    (void)state;
    trial_start();
    add_type(DT_F32);
    add_type(DT_F16);
    add_type(DT_BF16);
    trial_compile();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    trial_end();
    return 0;
}

static void programs(void **state)
{
    (void)state;
    trial_run_all();
}

/* On a large GPU a long weight is shared by several blocks a tile; on one of a single multiprocessor by none; many rows are a product. */
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
        assert_int_equal(small.blocks, 2);
        assert_int_equal(many.skinny, 0);
        assert_int_equal(many.products, 4);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(programs), cmocka_unit_test(sharing)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
