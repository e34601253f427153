/* tests/unit/cuda_attention_test.c - attention of many kinds as one CUDA function, on the model of CUDA against the reference interpreter: masks, biases, softcap,
 * windows, rows without any key, heads in groups, widths of every kind, keys that lie either way. ALL=1: every kind in all its types, else in one.
 */
#include "codegen/cuda_impl.h"
#include "ir/interpret.h"
#include "tests/support/cuda_trial.h"
#include "tests/test.h"

#include <math.h>
#include <stdlib.h>

/* A kind of attention. Keys see rows up to p later; a mask by key, of bools, may leave a row without any. */
static const struct kind {
    const char *name;
    int heads, groups, key, row;
    bool causal, mask, bias, window, zero; /* zero: a row without any key gives 0, not NaN */
    bool told;                             /* which rows have none is computed before */
    bool across;                           /* keys lie as [width, keys] */
    bool added;                            /* a mask is a term, not a choice */
    int values;                            /* groups of values, if not as of keys */
    bool sink;   /* one more score of each head, as a concat before the softmax and a slice behind it */
    bool late;   /* keys from 64 on are not masked */
    bool common; /* all of a batch have the same keys and values */
    double low;  /* what hides; 0: minus infinity */
    int softcap;
    dtype types[3];
    int64_t size[5][4]; /* b, s, p, n; n 0: no more */
} kinds[] = {
    {"plain", 2, 2, 64, 64, .types = {DT_F32, DT_BF16, DT_F16},
     .size = {{1, 1, 0, 300}, {2, 3, 0, 17}, {1, 50, 0, 50}}},
    {"causal", 8, 2, 128, 128, .causal = true, .types = {DT_BF16}, .size = {{1, 1, 299, 300}, {1, 9, 91, 100}}},
    {"causal", 4, 2, 128, 128, .causal = true, .types = {DT_F32}, .size = {{1, 1, 99, 100}, {1, 33, 10, 43}}},
    {"masked", 4, 1, 32, 48, .mask = true, .zero = true, .types = {DT_F32, DT_F16},
     .size = {{3, 1, 0, 90}, {5, 2, 0, 3}, {2, 70, 0, 70}}},
    {"masked and causal", 2, 2, 16, 16, .mask = true, .causal = true, .zero = true, .types = {DT_BF16},
     .size = {{4, 1, 6, 7}, {2, 67, 3, 70}}},
    /* heads that fill tiles of rows, are one row longer, or share them, and tiles that no condition hides anything of */
    {"masked at first", 4, 2, 16, 24, .mask = true, .late = true, .causal = true, .zero = true,
     .types = {DT_BF16, DT_F32}, .size = {{1, 128, 64, 192}, {1, 129, 71, 200}, {2, 40, 90, 130}}},
    {"masked at first and added", 2, 1, 32, 16, .mask = true, .late = true, .causal = true, .low = -1e38, .added = true,
     .types = {DT_BF16, DT_F32}, .size = {{1, 140, 0, 140}, {2, 33, 127, 160}}},
    {"biased", 5, 5, 13, 11, .bias = true, .types = {DT_F32, DT_BF16},
     .size = {{1, 1, 0, 70}, {1, 5, 0, 40}, {1, 35, 0, 9}}},
    {"capped in a window", 6, 2, 80, 80, .causal = true, .window = true, .softcap = 5, .types = {DT_F16, DT_BF16},
     .size = {{1, 2, 128, 130}, {1, 66, 7, 73}}},
    {"wide heads", 2, 1, 256, 256, .causal = true, .types = {DT_F32, DT_BF16},
     .size = {{1, 1, 69, 70}, {1, 3, 30, 33}, {1, 40, 5, 45}}},
    {"narrow heads", 3, 3, 8, 8, .types = {DT_F32, DT_F16}, .size = {{1, 1, 0, 400}, {2, 37, 0, 37}}},
    {"odd heads", 2, 1, 3, 5, .types = {DT_F32, DT_F16}, .size = {{1, 1, 0, 40}, {1, 40, 0, 5}}},
    {"keys across", 4, 2, 64, 64, .across = true, .causal = true, .types = {DT_F32, DT_BF16},
     .size = {{1, 1, 79, 80}, {1, 40, 0, 40}, {1, 33, 1, 34}, {1, 2, 77, 79}}},
    {"few across", 8, 2, 128, 96, .across = true, .causal = true, .window = true, .types = {DT_BF16, DT_F32, DT_F16},
     .size = {{2, 1, 295, 296}, {1, 3, 197, 200}, {2, 1, 20, 304}, {1, 1, 40, 43}}},
    {"wide across", 2, 2, 256, 256, .across = true, .mask = true, .low = -1e4, .causal = true,
     .types = {DT_BF16, DT_F32}, .size = {{3, 1, 0, 80}, {2, 2, 90, 96}}},
    {"finite", 2, 1, 32, 32, .causal = true, .mask = true, .low = -1000, .types = {DT_F32, DT_BF16},
     .size = {{2, 70, 130, 200}, {2, 1, 40, 100}, {3, 67, 0, 67}}},
    {"finite and added", 2, 1, 16, 64, .causal = true, .window = true, .mask = true, .low = -1e38, .added = true,
     .types = {DT_BF16, DT_F32}, .size = {{2, 70, 130, 300}, {2, 2, 40, 100}, {3, 67, 0, 67}}},
    {"windows over tiles", 2, 2, 24, 24, .causal = true, .window = true, .types = {DT_BF16, DT_F32},
     .size = {{1, 70, 130, 200}, {1, 33, 200, 300}, {1, 130, 70, 200}}},
    {"window of few", 4, 2, 64, 64, .causal = true, .window = true, .types = {DT_BF16, DT_F32, DT_F16},
     .size = {{1, 1, 299, 300}, {2, 3, 297, 300}, {1, 1, 3, 5}, {1, 2, 150, 400}}},
    {"finite window of few", 4, 4, 16, 32, .causal = true, .window = true, .mask = true, .low = -1e4,
     .types = {DT_F32, DT_BF16}, .size = {{7, 1, 0, 300}, {7, 3, 0, 300}, {3, 1, 299, 300}, {3, 2, 280, 300}}},
    {"values of their own", 4, 1, 64, 32, .values = 4, .causal = true, .types = {DT_F16, DT_F32},
     .size = {{2, 1, 99, 100}, {1, 3, 40, 43}, {1, 40, 0, 40}}},
    {"sinks", 8, 2, 64, 64, .causal = true, .sink = true, .types = {DT_BF16, DT_F32, DT_F16},
     .size = {{1, 1, 299, 300}, {2, 3, 30, 33}, {1, 1, 0, 1}, {1, 50, 20, 70}}},
    {"sinks and a window", 4, 4, 40, 24, .causal = true, .window = true, .mask = true, .low = -3.4e38, .sink = true,
     .added = true, .types = {DT_F32, DT_BF16},
     .size = {{5, 1, 0, 100}, {5, 2, 90, 100}, {1, 1, 300, 400}, {2, 70, 30, 100}}},
    {"common keys", 2, 1, 16, 16, .mask = true, .zero = true, .common = true, .types = {DT_BF16},
     .size = {{3, 20, 0, 70}}},
    {"told rows", 4, 2, 32, 32, .causal = true, .mask = true, .told = true, .types = {DT_F32, DT_BF16},
     .size = {{5, 1, 1, 2}, {6, 20, 0, 3}, {6, 2, 1, 3}}},
};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

/* q [b, s, heads*key], k and v [b, n, groups*..]; scores over [b, heads, s, n] */
static void put_products(struct text *t, const struct kind *k)
{
    int h = k->heads, g = k->groups, d = k->key, w = k->row, repeat = h / g, gv = k->values ? k->values : g;
    text_printf(t, "%%q: $[b, s, %d] = input as \"q\"\n%%q4: $[b, s, %d, %d] = reshape %%q\n", h * d, h, d);
    text_put(t, "%qt = transpose %q4 list [0, 2, 1, 3]\n");
    if (k->common)
        text_printf(t,
                    "%%k: $[n, %d] = input as \"k\"\n%%k3: $[n, %d, %d] = reshape %%k\n"
                    "%%kt = transpose %%k3 list [1, 0, 2]\n%%v: $[n, %d] = input as \"v\"\n"
                    "%%v3: $[n, %d, %d] = reshape %%v\n%%vt = transpose %%v3 list [1, 0, 2]\n",
                    g * d, g, d, g * w, g, w);
    else if (k->across)
        text_printf(t, "%%kr: $[b, %d, %d, n] = input as \"k\"\n%%kt = transpose %%kr list [0, 1, 3, 2]\n", g, d);
    else
        text_printf(t,
                    "%%k: $[b, n, %d] = input as \"k\"\n%%k4: $[b, n, %d, %d] = reshape %%k\n"
                    "%%kt = transpose %%k4 list [0, 2, 1, 3]\n",
                    g * d, g, d);
    if (!k->common) {
        text_printf(t, "%%v: $[b, n, %d] = input as \"v\"\n%%v4: $[b, n, %d, %d] = reshape %%v\n", gv * w, gv, w);
        text_put(t, "%vt = transpose %v4 list [0, 2, 1, 3]\n");
    }
    text_printf(t,
                "%%kg: $[b, %d, %d, n, %d] = broadcast %%kt list [%s1, 3, 4]\n%%kh: $[b, %d, n, %d] = reshape %%kg\n",
                g, repeat, d, k->common ? "" : "0, ", h, d);
    text_printf(t,
                "%%vg: $[b, %d, %d, n, %d] = broadcast %%vt list [%s1, 3, 4]\n%%vh: $[b, %d, n, %d] = reshape %%vg\n",
                gv, h / gv, w, k->common ? "" : "0, ", h, w);
    text_put(t, "%vx = transpose %vh list [0, 1, 3, 2]\n%x0 = dot %qt, %kh batch 2 contract 1\n");
}

/* Keeps scores where %NAME, over the axes in `list`, holds. */
static int put_mask(struct text *t, const struct kind *k, int x, const char *name, const char *list)
{
    text_printf(t, "%%%s4: bool[b, %d, s, n] = broadcast %%%s list %s\n%%%sl: $[] = constant data [%s]\n", name,
                k->heads, name, list, name, k->low != 0 ? arena_printf(trial_arena, "%g", k->low) : "-inf");
    text_printf(t, "%%%sl4: $[b, %d, s, n] = broadcast %%%sl\n", name, k->heads, name);
    if (k->added) {
        text_printf(t, "%%%sz: $[] = constant data [0]\n%%%sz4: $[b, %d, s, n] = broadcast %%%sz\n", name, name,
                    k->heads, name);
        text_printf(t, "%%%sa = select %%%s4, %%%sz4, %%%sl4\n%%x%d = add %%x%d, %%%sa\n", name, name, name, name,
                    x + 1, x, name);
    } else {
        text_printf(t, "%%x%d = select %%%s4, %%x%d, %%%sl4\n", x + 1, name, x, name);
    }
    return x + 1;
}

static int put_score(struct text *t, const struct kind *k)
{
    int x = 1, h = k->heads;
    text_printf(t, "%%scale: $[] = constant data [%.6f]\n%%scale4: $[b, %d, s, n] = broadcast %%scale\n",
                1 / sqrt(k->key), h);
    text_put(t, "%x1 = mul %x0, %scale4\n");
    if (k->softcap) {
        text_printf(t, "%%c: $[] = constant data [%d]\n%%c4: $[b, %d, s, n] = broadcast %%c\n", k->softcap, h);
        text_put(t, "%xd = div %x1, %c4\n%xt = tanh %xd\n%x2 = mul %xt, %c4\n");
        x = 2;
    }
    if (k->bias) {
        text_printf(t, "%%o: $[%d, s, n] = input as \"bias\"\n%%o4: $[b, %d, s, n] = broadcast %%o list [1, 2, 3]\n", h,
                    h);
        text_printf(t, "%%x%d = add %%x%d, %%o4\n", x + 1, x);
        x++;
    }
    if (k->causal || k->window)
        text_put(t, "%pp: i64[p] = input as \"past\"\n%p0: i64[] = dim dims [p]\n%p1: i64[s, n] = broadcast %p0\n%r0: "
                    "i64[s, n] = iota axis 0\n"
                    "%r: i64[s, n] = add %r0, %p1\n%j: i64[s, n] = iota axis 1\n");
    if (k->causal) {
        text_put(t, "%near = le %j, %r\n");
        x = put_mask(t, k, x, "near", "[2, 3]");
    }
    if (k->window) {
        text_put(t, "%far = sub %r, %j\n%w0: i64[] = constant data [9]\n%w1: i64[s, n] = broadcast %w0\n"
                    "%inside = lt %far, %w1\n");
        x = put_mask(t, k, x, "inside", "[2, 3]");
    }
    if (k->mask) {
        text_put(t, "%keep: bool[b, n] = input as \"mask\"\n");
        if (k->late)
            text_put(t, "%kj: i64[b, n] = iota axis 1\n%tile: i64[] = constant data [64]\n"
                        "%tile2: i64[b, n] = broadcast %tile\n%late = le %tile2, %kj\n%seen = or %keep, %late\n");
        x = put_mask(t, k, x, k->late ? "seen" : "keep", "[0, 3]");
    }
    return x;
}

/* The largest is taken away twice, the second time in f32. */
static void put_sink(struct text *t, const struct kind *k, int x)
{
    int h = k->heads;
    text_printf(t, "%%k0: $[%d] = input as \"sink\"\n%%k1: $[b, %d, s, 1] = broadcast %%k0 list [1]\n", h, h);
    text_printf(t, "%%both = concat %%x%d, %%k1 axis 3\n%%top = reduce_max %%both list [3]\n", x);
    text_printf(t, "%%top4: $[b, %d, s, n + 1] = broadcast %%top list [0, 1, 2]\n%%less = sub %%both, %%top4\n", h);
    text_printf(t, "%%f: f32[b, %d, s, n + 1] = cast %%less\n%%max = reduce_max %%f list [3]\n", h);
    text_printf(t, "%%max4: f32[b, %d, s, n + 1] = broadcast %%max list [0, 1, 2]\n", h);
    text_put(t, "%low = sub %f, %max4\n%e = exp %low\n%sum = reduce_sum %e list [3]\n");
    text_printf(t, "%%sum4: f32[b, %d, s, n + 1] = broadcast %%sum list [0, 1, 2]\n%%g = div %%e, %%sum4\n", h);
    text_printf(t, "%%all: $[b, %d, s, n + 1] = cast %%g\n", h);
    text_printf(t, "%%soft: $[b, %d, s, n] = slice %%all dims [0, 0, 0, 0] list [1, 1, 1, 1]\n", h);
}

static void put_softmax(struct text *t, const struct kind *k, int x)
{
    int h = k->heads;
    text_printf(t, "%%max = reduce_max %%x%d list [3]\n%%max4: $[b, %d, s, n] = broadcast %%max list [0, 1, 2]\n", x,
                h);
    text_printf(t, "%%low = sub %%x%d, %%max4\n%%e = exp %%low\n%%sum = reduce_sum %%e list [3]\n", x);
    text_printf(t, "%%sum4: $[b, %d, s, n] = broadcast %%sum list [0, 1, 2]\n%%soft = div %%e, %%sum4\n", h);
}

static void put_rest(struct text *t, const struct kind *k, int x)
{
    int h = k->heads;
    if (k->sink)
        put_sink(t, k, x);
    else
        put_softmax(t, k, x);
    if (k->zero)
        text_printf(t,
                    "%%bad = isnan %%soft\n%%z: $[] = constant data [0]\n%%z4: $[b, %d, s, n] = broadcast %%z\n"
                    "%%prob = select %%bad, %%z4, %%soft\n",
                    h);
    if (k->told)
        text_printf(t,
                    "%%any = reduce_max %%keep list [1]\n%%none = not %%any\n"
                    "%%none4: bool[b, %d, s, n] = broadcast %%none list [0]\n%%z: $[] = constant data [0]\n"
                    "%%z4: $[b, %d, s, n] = broadcast %%z\n%%prob = select %%none4, %%z4, %%soft\n",
                    h, h);
    text_printf(t, "%%a = dot %%%s, %%vx batch 2 contract 1\n", k->zero || k->told ? "prob" : "soft");
    text_printf(t, "%%a4 = transpose %%a list [0, 2, 1, 3]\n%%out: $[b, s, %d] = reshape %%a4\noutput \"out\" %%out\n",
                h * k->row);
}

/* At the first of its sizes, which has few rows: the three steps are one launch, of keys by 16 bytes if they lie side by side so. */
static void expect_one(const struct cuda_trial *t, bool across)
{
    static const char names[] = "bspn";
    const struct dims *dims = t->program->graph->dims;
    int64_t of[64] = {0};
    uint32_t launches = 0;
    for (uint32_t i = 0; i < dims_symbol_count(dims); i++) {
        const char *name = dims_symbol(dims, i)->name, *at = name && *name ? strchr(names, *name) : NULL;
        of[i] = at ? t->size[0][at - names] : 0;
    }
    for (uint32_t i = 0; i < t->program->steps.count; i++) {
        struct cuda_step step;
        assert_int_equal(cuda_step(t->set, i, of, 132, trial_arena, &step), TPC_OK);
        const char *name = step.way == CUDA_LAUNCH ? cuda_function_at(t->set, step.launch[0].function)->name : "";
        launches += strncmp(name, "tpc_attention_few", 17) == 0 && (strstr(name, "_across_") != NULL) == across;
        if (t->program->steps.at[i].kind == STEP_DOT && !*name && step.way != CUDA_NOTHING)
            fail_msg("%s: a product of its own", t->name);
    }
    assert_int_equal(launches, 1);
}

static void add_kind(const struct kind *k, dtype type)
{
    struct text form = {.arena = trial_arena};
    put_products(&form, k);
    put_rest(&form, k, put_score(&form, k));
    struct cuda_trial *t = trial_typed(k->name, form.at, type);
    if (k->sink)
        t = trial_simplified(t);
    if (!t)
        return;
    t->tolerance[DT_F32] = 1e-5;
    cuda_join_steps(t->set, t->program);
    uint32_t unused = 0;
    for (uint32_t i = 0; i < t->program->buffers.count; i++)
        unused += cuda_buffer_unused(t->set, i);
    /* scores, probabilities; where axes differ, it depends on the shapes */
    if (unused != (k->values ? 0 : 2))
        fail_msg("%s: it is not one function", t->name);
    for (int i = 0; i < 5 && k->size[i][3]; i++)
        trial_size(t, k->size[i][0], k->size[i][1], k->size[i][2], k->size[i][3]);
    if (k->size[0][1] <= 4)
        expect_one(t, k->across && k->size[0][3] % 8 == 0);
}

static int setup(void **state)
{
    (void)state;
    trial_start();
    for (int i = 0; i < KINDS; i++) {
        int types = 0;
        while (types < 3 && kinds[i].types[types])
            types++;
        for (int t = 0; t < types; t++)
            if (getenv("ALL") || getenv("CASE") || t == i % types)
                add_kind(&kinds[i], kinds[i].types[t]);
    }
    trial_compile();
    return 0;
}

/* Makes NaN of all keys of an input [1, n, ..] but those from `first` to `end`. */
static void spoil(struct tensor *x, int64_t first, int64_t end)
{
    size_t each = x->count / (size_t)x->shape[1];
    for (size_t i = 0; i < x->count; i++)
        if ((int64_t)(i / each) < first || (int64_t)(i / each) >= end)
            dtype_store_f64(x->dtype, x->data, i, (double)NAN);
}

/* Few rows: keys that a causal mask or a window hides from all of them are left out, so that it does not matter what they and their values are. */
static void leaves_out(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < trials->count; i++) {
        const struct cuda_trial *t = &trials->at[i];
        for (uint32_t k = 0; k < t->sizes && strncmp(t->name, "window of few", 13) == 0; k++) {
            const int64_t *size = t->size[k];
            struct interpretation x;
            struct tensor *inputs = trial_inputs(t, size), got[1];
            if (size[0] != 1)
                continue;
            assert_int_equal(interpret_same(t->program->graph, NULL, inputs, trial_arena, &trial_diag, &x), TPC_OK);
            for (uint32_t n = 0; n < t->program->graph->inputs.count; n++)
                if (inputs[n].rank == 3 && inputs[n].shape[1] == size[3])
                    spoil(&inputs[n], size[2] - 8, size[2] + size[1]);
            for (uint32_t processors = 1; processors < 200; processors += 131) {
                struct difference d;
                assert_int_equal(trial_execute(t, x.of[0], processors, inputs, got), 0);
                if (!tensor_compare(&got[0], &x.output[0], t->tolerance[got[0].dtype], t->tolerance[got[0].dtype], &d))
                    fail_msg("%s: [%zu] is %.9g, wanted %.9g", t->name, d.at, d.got, d.wanted);
                free(got[0].data);
            }
        }
    }
}

/* A quotient by multiplication is exact wherever it is used. */
static void divisors(void **state)
{
    static const uint32_t near[] = {1, 2, 3, 5, 7, 8, 9, 33, 641, 65535, 65536, 65537, 1u << 30, INT32_MAX};
    (void)state;
    for (size_t i = 0; i < sizeof near / sizeof near[0]; i++)
        for (uint32_t k = 0; k < 1000; k++) {
            struct cuda_making m = {.arena = trial_arena};
            const uint32_t d = near[i];
            cuda_put_divisor(&m, d);
            const uint64_t by = (uint64_t)m.words.at[0].number, most = INT32_MAX / d;
            for (int e = -1; e <= 1; e++) {
                uint64_t n = (most * k / 999) * d + (uint64_t)(int64_t)e;
                n = n > INT32_MAX ? INT32_MAX : n;
                assert_int_equal(n * (uint32_t)by >> (by >> 32), n / d);
            }
        }
}

/* With ALL=1 (minutes), where there is NVRTC: it takes all of them for each architecture, and none spills. */
static void compiles(void **state)
{
    static const uint32_t architectures[] = {80, 90, 100};
    (void)state;
    for (uint32_t i = 0; i < trials->count && getenv("ALL"); i++)
        for (int k = 0; k < 3; k++) {
            struct cuda_set *set = NULL;
            const struct cuda_options options = {.compute = architectures[k]};
            trial_lines[0] = '\0';
            assert_int_equal(cuda_new(trial_arena, trials->at[i].program, &trial_diag, &set), TPC_OK);
            status s = cuda_compile(set, &options, &trial_diag);
            if (s == TPC_UNSUPPORTED)
                skip();
            if (s != TPC_OK)
                fail_msg("%s for sm_%u: %s", trials->at[i].name, (unsigned)architectures[k], trial_lines);
            for (uint32_t f = 0; f < cuda_function_count(set); f++) {
                const struct cuda_function *function = cuda_function_at(set, f);
                bool ours = strncmp(function->name, "tpc_attention", 13) == 0;
                if (ours)
                    print_message("%-50.50s sm_%u: %u registers, %u bytes spilled\n", function->name,
                                  (unsigned)architectures[k], (unsigned)function->registers,
                                  (unsigned)function->spill_bytes);
                assert_true(!ours || function->spill_bytes == 0 || getenv("TELL"));
            }
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(trial_programs), cmocka_unit_test(leaves_out),
                                       cmocka_unit_test(divisors), cmocka_unit_test(compiles)};
    return cmocka_run_group_tests(tests, setup, trial_end);
}
