/* tests/unit/cuda_joined_test.c - steps that CUDA takes together, on the model of CUDA against the reference interpreter: attention, and products of few rows
 * with what follows them, neighbouring kernels; and that it is those functions that are launched.
 */
#include "tests/support/cuda_trial.h"
#include "tests/test.h"

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

/* Weights that lie either way, made at load; bias, activation and residual behind the first, nothing behind the second. */
static const char skinny_text[] =
    "%x: $[b, s, 48] = input as \"x\"\n%r: $[b, s, 40] = input as \"r\"\n%c: $[40] = input as \"c\"\n"
    "%i: i64[40, 48] = iota axis 0\n%j: i64[40, 48] = iota axis 1\n%t: i64[] = constant data [7]\n"
    "%t2: i64[40, 48] = broadcast %t\n%i7 = mul %i, %t2\n%ij = add %i7, %j\n%f: f32[40, 48] = cast %ij\n%g = sin %f\n"
    "%w: $[40, 48] = cast %g\n%y = dot %x, %w contract 1\n%c3: $[b, s, 40] = broadcast %c list [2]\n%z = add %y, %c3\n"
    "%h = tanh %z\n%o = add %h, %r\noutput \"o\" %o\n"
    "%k: i64[48, 40] = iota axis 0\n%l: i64[48, 40] = iota axis 1\n%t3: i64[48, 40] = broadcast %t\n%k7 = mul %k, %t3\n"
    "%kl = add %k7, %l\n%m: f32[48, 40] = cast %kl\n%n = sin %m\n%v: $[48, 40] = cast %n\n"
    "%vt = transpose %v list [1, 0]\n%p = dot %x, %vt contract 1\noutput \"p\" %p\n"
    "%q = dot %x, %vt contract 1\n%e = neg %q\noutput \"e\" %e\n";

/* Norms of queries and keys and what turns them, beside what depends on neither; two transpositions. */
static const char neighbours_text[] =
    "%q: $[b, s, 3, 16] = input as \"q\"\n%k: $[b, s, 1, 16] = input as \"k\"\n%v: $[b, s, 40] = input as \"v\"\n"
    "%qq = mul %q, %q\n%qs = reduce_sum %qq list [3]\n%q4: $[b, s, 3, 16] = broadcast %qs list [0, 1, 2]\n"
    "%qn = div %q, %q4\n%q1: $[b, s, 3, 8] = slice %qn dims [0, 0, 0, 0] list [1, 1, 1, 1]\n"
    "%q2: $[b, s, 3, 8] = slice %qn dims [0, 0, 0, 8] list [1, 1, 1, 1]\n%q3 = neg %q2\n%qr = concat %q3, %q1 axis 3\n"
    "%qo = add %qn, %qr\n%qt = transpose %qo list [0, 2, 1, 3]\noutput \"qt\" %qt\n"
    "%kk = mul %k, %k\n%ks = reduce_sum %kk list [3]\n%k4: $[b, s, 1, 16] = broadcast %ks list [0, 1, 2]\n"
    "%kn = div %k, %k4\n%k1: $[b, s, 1, 8] = slice %kn dims [0, 0, 0, 0] list [1, 1, 1, 1]\n"
    "%k2: $[b, s, 1, 8] = slice %kn dims [0, 0, 0, 8] list [1, 1, 1, 1]\n%k3 = neg %k2\n%kr = concat %k3, %k1 axis 3\n"
    "%ko = add %kn, %kr\noutput \"ko\" %ko\n%vo = exp %v\noutput \"vo\" %vo\n"
    "%x: $[48, s] = input as \"x\"\n%y: $[40, s] = input as \"y\"\n%xt = transpose %x list [1, 0]\n%xo = neg %xt\n"
    "%yt = transpose %y list [1, 0]\n%yo = neg %yt\noutput \"xo\" %xo\noutput \"yo\" %yo\n";

/* Launches, those that are several kernels', and parts in all launches, for one size. */
static void expect_together(const struct cuda_trial *trial, int64_t size, uint32_t launches, uint32_t together,
                            uint32_t parts)
{
    uint32_t joined = 0, all = 0, launched = 0;
    for (uint32_t i = 0; i < trial->program->steps.count; i++) {
        int64_t of[64] = {0};
        struct cuda_step step;
        const uint32_t *steps;
        for (uint32_t s = 0; s < dims_symbol_count(trial->program->graph->dims); s++)
            of[s] = size;
        assert_int_equal(cuda_step(trial->set, i, of, 132, trial_arena, &step), TPC_OK);
        uint32_t count = cuda_steps_at(trial->set, i, &steps);
        assert_true(step.count <= 1);
        const char *name = step.way == CUDA_LAUNCH ? cuda_function_at(trial->set, step.launch[0].function)->name : "";
        assert_int_equal(strncmp(name, "tpc_j_", 6) == 0, count > 1);
        joined += count > 1;
        launched += step.way == CUDA_LAUNCH;
        all += step.way != CUDA_LAUNCH ? 0 : count ? count : 1;
    }
    assert_int_equal(launched, launches);
    assert_int_equal(joined, together);
    assert_int_equal(all, parts);
}

/* Dots of one left operand and one shape go to the library together, in the place of the last; one of another shape stands between, one that uses another's
 * result ends it. */
static const char alike_text[] =
    "%x: $[b, s, 16] = input as \"x\"\n%k: $[24, 16] = input as \"k\"\n%q: $[40, 16] = input as \"q\"\n"
    "%v: $[24, 16] = input as \"v\"\n%w: $[24, 24] = input as \"w\"\n%u: $[24, 16] = input as \"u\"\n"
    "%xk = dot %x, %k contract 1\n%xq = dot %x, %q contract 1\n%xv = dot %x, %v contract 1\n"
    "%kw = dot %xk, %w contract 1\n%xu = dot %x, %u contract 1\n"
    "output \"xk\" %xk\noutput \"xq\" %xq\noutput \"xv\" %xv\noutput \"kw\" %kw\noutput \"xu\" %xu\n";

static void add_alike(dtype t)
{
    struct cuda_trial *trial = trial_typed("alike", alike_text, t);
    if (!trial)
        return;
    cuda_join_steps(trial->set, trial->program);
    trial_size(trial, 3, 11, 0, 0);
    uint32_t products = 0, most = 0;
    for (uint32_t i = 0; i < trial->program->steps.count; i++) {
        int64_t of[64] = {0};
        struct cuda_step step;
        for (uint32_t s = 0; s < dims_symbol_count(trial->program->graph->dims); s++)
            of[s] = 11;
        assert_int_equal(cuda_step(trial->set, i, of, 132, trial_arena, &step), TPC_OK);
        products += step.way == CUDA_PRODUCT ? step.count : 0;
        most = step.way == CUDA_PRODUCT && step.count > most ? step.count : most;
    }
    assert_int_equal(products, 5);
    assert_int_equal(most, 2);
}

/* A residual's sum, which a norm behind it stores, is made by the product (%h); not where what is added is a product itself (%p), nor where a kernel reads the
 * product for something else, too (%e). */
static const char residual_text[] =
    "%x: $[b, s, 17] = input as \"x\"\n%r: $[b, s, 24] = input as \"r\"\n%w: $[24, 17] = input as \"w\"\n"
    "%u: $[24, 24] = input as \"u\"\n%y = dot %x, %w contract 1\n%h = add %r, %y\n%q = mul %h, %h\n"
    "%v = reduce_sum %q list [2]\n%c3: $[b, s, 24] = broadcast %v list [0, 1]\n%o = div %h, %c3\n"
    "output \"h\" %h\noutput \"o\" %o\n%p = dot %o, %u contract 1\n%p2 = dot %p, %u contract 1\n%i = add %p, %p2\n"
    "%j = mul %i, %i\n%k = reduce_max %j list [2]\n%k3: $[b, s, 24] = broadcast %k list [0, 1]\n%l = sub %i, %k3\n"
    "output \"i\" %i\noutput \"l\" %l\n%d = dot %l, %u contract 1\n%e = tanh %d\n%f = add %d, %l\n%g = add %f, %e\n"
    "output \"f\" %f\noutput \"g\" %g\n";

/* A bias alone, whose kernel goes (%y1); one along heads and their width (%y2); both kinds, the residual first or last (%h, %i); not a bias along the rows (%z1), one
 * whose sum is read twice before it is stored (%z2), nor one that repeats within a row (%z3). */
static const char bias_text[] =
    "%x: $[b, s, 17] = input as \"x\"\n%w: $[24, 17] = input as \"w\"\n%u: $[24, 24] = input as \"u\"\n"
    "%c: $[24] = input as \"c\"\n%ch: $[3, 8] = input as \"ch\"\n%cr: $[s] = input as \"cr\"\n%c8: $[8] = input as "
    "\"c8\"\n"
    "%r: $[b, s, 24] = input as \"r\"\n%c3: $[b, s, 24] = broadcast %c list [2]\n"
    "%p1 = dot %x, %w contract 1\n%y1 = add %p1, %c3\noutput \"y1\" %y1\n"
    "%e1: $[b, s, 17] = input as \"e1\"\n%p2 = dot %e1, %w contract 1\n%q2: $[b, s, 3, 8] = reshape %p2\n"
    "%cb: $[b, s, 3, 8] = broadcast %ch list [2, 3]\n%y2 = add %cb, %q2\noutput \"y2\" %y2\n"
    "%p3 = dot %y1, %u contract 1\n%s3 = add %r, %p3\n%h = add %s3, %c3\n%hh = mul %h, %h\n"
    "%hs = reduce_sum %hh list [2]\n%h3: $[b, s, 24] = broadcast %hs list [0, 1]\n%o = div %h, %h3\n"
    "%p4 = dot %o, %u contract 1\n%s4 = add %p4, %c3\n%i = add %h, %s4\n%ii = mul %i, %i\n"
    "%is = reduce_sum %ii list [2]\n%i3: $[b, s, 24] = broadcast %is list [0, 1]\n%j = div %i, %i3\noutput \"i\" %i\n"
    "output \"j\" %j\n%n: $[b, s, 17] = input as \"n\"\n%p5 = dot %n, %w contract 1\n%cq: $[b, s, 24] = broadcast %cr "
    "list [1]\n"
    "%z1 = add %p5, %cq\noutput \"z1\" %z1\n%t: $[b, s, 17] = input as \"t\"\n%p6 = dot %t, %w contract 1\n%s6 = add "
    "%p6, %c3\n"
    "%z2 = mul %s6, %s6\noutput \"z2\" %z2\n%a: $[b, s, 17] = input as \"a\"\n%p7 = dot %a, %w contract 1\n%q7: $[b, "
    "s, 3, 8] = reshape %p7\n"
    "%cw: $[b, s, 3, 8] = broadcast %c8 list [3]\n%z3 = add %q7, %cw\noutput \"z3\" %z3\n";

static void add_epilogue(const char *name, const char *text, dtype t, const uint32_t expected[4])
{
    struct cuda_trial *trial = trial_typed(name, text, t);
    if (!trial)
        return;
    cuda_join_steps(trial->set, trial->program);
    trial_size(trial, 3, 11, 0, 0);
    trial_size(trial, 1, 1, 0, 0);
    uint32_t added = 0, biased = 0, products = 0, launches = 0;
    for (uint32_t i = 0; i < trial->program->steps.count; i++) {
        int64_t of[64] = {0};
        struct cuda_step step;
        for (uint32_t s = 0; s < dims_symbol_count(trial->program->graph->dims); s++)
            of[s] = 11;
        assert_int_equal(cuda_step(trial->set, i, of, 132, trial_arena, &step), TPC_OK);
        products += step.way == CUDA_PRODUCT;
        added += step.way == CUDA_PRODUCT && step.product[0].adds;
        biased += step.way == CUDA_PRODUCT && step.product[0].biased;
        launches += step.way == CUDA_LAUNCH;
    }
    assert_int_equal(products, expected[0]);
    assert_int_equal(added, expected[1]);
    assert_int_equal(biased, expected[2]);
    assert_int_equal(launches, expected[3]);
}

static void add_neighbours(dtype t)
{
    struct cuda_trial *trial = trial_typed("neighbours", neighbours_text, t);
    if (!trial)
        return;
    cuda_join_steps(trial->set, trial->program);
    trial_size(trial, 1, 1, 0, 0);
    trial_size(trial, 2, 37, 0, 0);
    trial_size(trial, 1, 700, 0, 0);
    expect_together(trial, 2, 3, 3, trial->program->steps.count); /* norms; turns and %vo; transpositions */
}

/* Of one row and of several; with many, products for the library. */
static void add_skinny(dtype t)
{
    struct cuda_trial *trial = trial_typed("skinny", skinny_text, t);
    if (!trial)
        return;
    cuda_join_steps(trial->set, trial->program);
    trial_size(trial, 1, 1, 0, 0);
    trial_size(trial, 2, 3, 0, 0);
    trial_size(trial, 1, 8, 0, 0);
    trial_size(trial, 3, 7, 0, 0);
    for (int64_t rows = 1; rows <= 9; rows += 4) {
        uint32_t launches = 0, products = 0;
        for (uint32_t i = 0; i < trial->program->steps.count; i++) {
            int64_t of[64] = {0};
            struct cuda_step step;
            for (uint32_t s = 0; s < dims_symbol_count(trial->program->graph->dims); s++)
                of[s] = strcmp(dims_symbol(trial->program->graph->dims, s)->name, "s") == 0 ? rows : 1;
            assert_int_equal(cuda_step(trial->set, i, of, 132, trial_arena, &step), TPC_OK);
            const char *name =
                step.way == CUDA_LAUNCH ? cuda_function_at(trial->set, step.launch[0].function)->name : "";
            launches += strncmp(name, "tpc_skinny", 10) == 0;
            products += step.way == CUDA_PRODUCT;
        }
        assert_true(rows <= 8 ? launches >= 2 && products == 0 : launches == 0 && products >= 2);
    }
}

/* One function, and where keys are many and rows few, parts that the last block puts together. */
static void add_attention(dtype t)
{
    struct cuda_trial *trial = trial_typed("attention", attention_text, t);
    if (!trial)
        return;
    cuda_join_steps(trial->set, trial->program);
    uint32_t unused = 0;
    for (uint32_t i = 0; i < trial->program->buffers.count; i++)
        unused += cuda_buffer_unused(trial->set, i);
    assert_int_equal(unused, 2);     /* scores, probabilities */
    trial_size(trial, 1, 1, 0, 700); /* in parts */
    trial_size(trial, 2, 5, 0, 11);
    trial_size(trial, 1, 37, 0, 70);
    trial_size(trial, 2, 2, 0, 33);
    uint32_t attentions = 0, products = 0;
    for (uint32_t i = 0; i < trial->program->steps.count; i++) {
        int64_t of[64] = {0};
        struct cuda_step step;
        assert_true(dims_symbol_count(trial->program->graph->dims) <= 64);
        for (uint32_t s = 0; s < dims_symbol_count(trial->program->graph->dims); s++)
            of[s] = strcmp(dims_symbol(trial->program->graph->dims, s)->name, "n") == 0 ? 700 : 1;
        assert_int_equal(cuda_step(trial->set, i, of, 132, trial_arena, &step), TPC_OK);
        attentions += step.way == CUDA_LAUNCH && step.count == 1 && step.workspace > 0;
        products += step.way == CUDA_PRODUCT;
    }
    assert_int_equal(attentions, 1);
    assert_int_equal(products, 0);
}

static int setup(void **state)
{
    (void)state;
    trial_start();
    add_skinny(DT_F32);
    add_skinny(DT_F16);
    add_skinny(DT_BF16);
    add_attention(DT_F32);
    add_attention(DT_F16);
    add_attention(DT_BF16);
    add_alike(DT_F32);
    for (int i = 0; i < 2; i++) {
        dtype t = i ? DT_BF16 : DT_F32;
        add_epilogue("residual", residual_text, t, (const uint32_t[]){4, 1, 0, 3});
        add_epilogue("bias", bias_text, t, (const uint32_t[]){7, 2, 4, 5});
    }
    add_epilogue("bias", bias_text, DT_F64, (const uint32_t[]){7, 0, 0, 7});
    add_neighbours(DT_F32);
    add_neighbours(DT_BF16);
    trial_compile();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(trial_programs)};
    return cmocka_run_group_tests(tests, setup, trial_end);
}
