/* tests/unit/cuda_program_test.c - fused Programs as CUDA launches, on the model of CUDA, compute what the reference interpreter computes: every row of
 * ops.def (the cases of interpret_rows.txt), every pointwise row on every type, rows, transposes, gathers and products in awkward sizes. The
 * model also watches every access: out of bounds, misaligned, or racing ones fail.
 *
 * All sources are compiled at once, before anything runs. CASE=TEXT runs the cases whose names hold TEXT; ALL=1 all of interpret_rows.txt (else every
 * sixth).
 */
#include "ir/interpret.h"
#include "tests/support/cuda_trial.h"
#include "tests/support/execute_gpu.h"
#include "tests/test.h"

#include <stdlib.h>

static void add_rows(void)
{
    const char *source = getenv("SOURCE");
    FILE *f = fopen(arena_printf(trial_arena, "%s/tests/unit/interpret_rows.txt", source ? source : "."), "rb");
    if (!f)
        fail_msg("interpret_rows.txt is missing");
    char *text = arena_alloc(trial_arena, 4 << 20);
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
        if (!getenv("ALL") && !getenv("CASE") && number++ % 6 != 0)
            continue;
        struct cuda_trial *t = trial_text(name, body, (size_t)(at - body));
        if (t)
            trial_size(t, 2, 3, 4, 5);
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
            graph_output(g, arena_printf(trial_arena, "%s.%s.%d", op_info(o)->text, dtype_name(to), (int)mode), y);
        }
}

/* The graph's outputs, each one operation on inputs, as one kernel. */
static struct program *as_one_kernel(struct graph *g)
{
    struct program *p = NEW(trial_arena, struct program);
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
            *PUSH(trial_arena, &list) = map;
            access.arg[0] = (int32_t)list.count - 1;
        }
        *PUSH(trial_arena, &list) = access;
        *PUSH(trial_arena, &buffers) = (struct kernel_buffer){n->dtype, !in};
        *PUSH(trial_arena, &args) = i;
        *PUSH(trial_arena, &p->buffers) = (struct buffer){.kind = in ? BUFFER_INPUT : BUFFER_OUTPUT,
                                                          .type = n->dtype,
                                                          .elements = dim_product(g->dims, n->shape, n->rank),
                                                          .index = number,
                                                          .node = v};
    }
    *PUSH(trial_arena, &p->kernels) = (struct kernel){.outer = first->rank,
                                                      .extent = first->shape,
                                                      .buffer_count = buffers.count,
                                                      .buffer = buffers.at,
                                                      .instruction_count = list.count,
                                                      .instruction = list.at};
    *PUSH(trial_arena, &p->steps) = (struct step){.kind = STEP_KERNEL,
                                                  .phase = PHASE_RUN,
                                                  .arg_count = args.count,
                                                  .arg = args.at,
                                                  .node = g->outputs.at[0].value};
    return p;
}

/* columns 8: accesses are wide. */
static void add_pointwise(dtype t, int64_t columns)
{
    struct graph *g = graph_new(trial_arena);
    mesh_init(&g->mesh, "tp", 1);
    dim shape[2] = {dim_symbol(g->dims, "n"), dim_const(g->dims, columns)};
    uint32_t rank = columns == 1 ? 1 : 2;
    value x[3] = {graph_input(g, "p", DT_BOOL, rank, shape), graph_input(g, "a", t, rank, shape),
                  graph_input(g, "b", t, rank, shape)};
    for (op o = OP_NONE + 1; o < OP_COUNT; o++)
        if (takes(o, t))
            add_outputs(g, o, t, x);
    struct cuda_trial *trial =
        trial_program(arena_printf(trial_arena, "pointwise %s %d", dtype_name(t), (int)columns), as_one_kernel(g));
    if (!trial)
        return;
    static const int64_t sizes[] = {1, 5, 13, 0, 300};
    trial->wild = true;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        trial_size(trial, 0, 0, 0, sizes[i]);
}

/* ---- rows, transposes, gathers, products ---- */

/* All reductions of a type over the inner axis, the outer ones, and both; their results are put together, so that each is one kernel. */
static void add_reductions(dtype t)
{
    static const char *const axes[] = {"[2]", "[1]", "[1, 2]", "[0, 1]", "[2]"};
    struct text text = {.arena = trial_arena};
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
    struct cuda_trial *trial = trial_text(arena_printf(trial_arena, "reduce %s", name), text.at, text.length);
    if (!trial)
        return;
    trial->tolerance[DT_F32] = 1e-5;
    trial_size(trial, 2, 5, 0, 11);
    trial_size(trial, 3, 1, 0, 0);
    if (t == DT_F32 || t == DT_I64)
        trial_size(trial, 1, 2, 0, 1100); /* longer than a block */
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

/* A layer norm of so many elements: what is read of a row stays in registers while there are few enough. */
static void add_long_norm(int64_t length, dtype type)
{
    static const char form[] =
        "%x: $[b, s, #] = input as \"x\"\n%y: $[b, s, #] = input as \"y\"\n%g: $[#] = input as \"g\"\n"
        "%w: $[] = constant data [#]\n%w2: $[b, s] = broadcast %w\n%h = add %x, %y\n%m = reduce_sum %h list [2]\n"
        "%m1 = div %m, %w2\n%m3: $[b, s, #] = broadcast %m1 list [0, 1]\n%d = sub %h, %m3\n%q = mul %d, %d\n"
        "%v = reduce_sum %q list [2]\n%v1 = div %v, %w2\n%r = sqrt %v1\n%c = recip %r\n"
        "%c3: $[b, s, #] = broadcast %c list [0, 1]\n%n = mul %d, %c3\n%g3: $[b, s, #] = broadcast %g list [2]\n"
        "%o = mul %n, %g3\noutput \"o\" %o\noutput \"h\" %h\n";
    struct text text = {.arena = trial_arena};
    for (const char *at = form; *at; at++)
        if (*at == '#')
            text_printf(&text, "%lld", (long long)length);
        else
            text_putn(&text, at, 1);
    struct cuda_trial *t = trial_typed(arena_printf(trial_arena, "norm of %lld", (long long)length), text.at, type);
    if (!t)
        return;
    trial_size(t, 1, 2, 0, 0);
    if (length < 2000)
        trial_size(t, 1, 70, 0, 0);
}

static void add_typed_trials(void)
{
    static const int64_t lengths[] = {24, 200, 1032, 1100, 4096, 9000};
    static const dtype floats[] = {DT_F32, DT_F16, DT_BF16, DT_F64};
    static const dtype several[] = {DT_F32, DT_F16, DT_I8, DT_I64};
    static const struct {
        const char *name, *form;
        bool rows;
    } forms[] = {{"softmax", softmax_text, true},
                 {"norm", norm_text, true},
                 {"transpose", transpose_text, false},
                 {"gather", gather_text, false},
                 {"dot", dot_text, false}};
    for (size_t f = 0; f < sizeof forms / sizeof forms[0]; f++)
        for (size_t i = 0; i < 4; i++) {
            struct cuda_trial *t = trial_typed(forms[f].name, forms[f].form, forms[f].rows ? floats[i] : several[i]);
            if (!t)
                continue;
            trial_size(t, 2, 5, 0, 11);
            trial_size(t, 1, 70, 0, 37);
            if (forms[f].form == softmax_text)
                trial_size(t, 1, 2, 0, 2100);
        }
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        add_long_norm(lengths[i], DT_F32);
        add_long_norm(lengths[i], DT_BF16);
    }
}

static int setup(void **state)
{
    (void)state;
    trial_start();
    add_rows();
    for (dtype t = DT_NONE + 1; t < DT_COUNT; t++) {
        add_pointwise(t, t == DT_F32 || t == DT_BF16 || t == DT_I8 ? 8 : 1);
        if (t <= DT_F64)
            add_reductions(t);
    }
    add_typed_trials();
    trial_compile();
    return 0;
}

/* An index that is out of range is told with its step and node, the first of several steps, and nothing outside is touched. */
static void faults(void **state)
{
    (void)state;
    bool found = getenv("CASE") != NULL;
    for (uint32_t i = 0; i < trials->count; i++) {
        const struct cuda_trial *t = &trials->at[i];
        const struct graph *g = t->program->graph;
        struct interpretation x;
        struct tensor outputs[8];
        if (strcmp(t->name, "gather f32") != 0)
            continue;
        found = true;
        struct tensor *inputs = trial_inputs(t, t->size[0]);
        assert_int_equal(interpret_same(g, NULL, inputs, trial_arena, &trial_diag, &x), TPC_OK);
        for (int bad = 0; bad < 3; bad++) {
            for (uint32_t k = 0; k < g->inputs.count; k++)
                if (dtype_is_int(inputs[k].dtype)) {
                    dtype_store_i64(inputs[k].dtype, inputs[k].data, 1, bad == 0 ? 1 : bad == 1 ? 11 : -1);
                }
            int64_t fault = trial_execute(t, x.of[0], 4, inputs, outputs);
            assert_int_equal(fault != 0, bad != 0);
            if (bad && !gpu_wanted()) {
                assert_int_equal(graph_node(g, cuda_fault_node(t->set, fault))->op, OP_GATHER);
                assert_int_equal(cuda_fault_step(fault), 0);
            }
            for (uint32_t k = 0; k < g->outputs.count; k++)
                free(outputs[k].data);
        }
    }
    assert_true(found);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(trial_programs), cmocka_unit_test(faults)};
    return cmocka_run_group_tests(tests, setup, trial_end);
}
