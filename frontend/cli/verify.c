/* frontend/cli/verify.c - tpc verify: N ranks against one rank against the reference interpreter, and against a test folder's expected outputs.
 *
 * When something differs, the model is compiled once more with every value as an output, and the first node whose value differs from the
 * interpreter's is named.
 */
#include "frontend/cli/cli.h"
#include "ir/interpret.h"

#include <sys/stat.h>

enum { RANDOM_SETS = 2 };

static const struct option_info options[] = {
    CLI_MESH_OPTIONS,
    CLI_STEER_OPTIONS,
    CLI_DEVICE_OPTIONS,
    {"--rtol", "R", .help = "relative tolerance (1e-3; at least the spacing of the output's type)"},
    {"--atol", "A", .help = "absolute tolerance (1e-5 of the tensor's largest magnitude)"},
    {"--set", "SYMBOL=N", .help = "fix a dynamic extent", .many = true},
    {"--bind", "INPUT=VALUE", .help = "make an input a constant, the same everywhere", .many = true},
    {"--size", "SYMBOL=N", .help = "a dynamic extent of the made-up inputs (8)", .many = true},
    {0},
};

struct verification {
    struct arena *arena;
    const struct args *args;
    struct diag *diag;
    const char *model, *folder;  /* file; folder of its weights */
    const char *tests;           /* the test folder, NULL */
    struct compile_options many; /* the mesh */
    double rtol, atol;           /* atol < 0: by magnitude */
    struct graph *imported;
    bool bind_small; /* the model wants small inputs as constants: those that decide shapes */
    struct import_binding *binding;
    uint32_t binding_count;
    struct interpret_options reference;
    bool different;
};

static status import(struct verification *v, struct diag *diag, struct graph **out)
{
    struct import_options o;
    status s = cli_import_options(v->arena, v->args, v->diag, &o);
    if (s == TPC_OK && v->binding_count > 0) {
        struct import_binding *all = NEW_ARRAY(v->arena, struct import_binding, o.binding_count + v->binding_count);
        memcpy(all, v->binding, v->binding_count * sizeof *all);
        for (uint32_t i = 0; i < o.binding_count; i++) {
            all[v->binding_count + i] = o.binding[i];
        }
        o.binding = all;
        o.binding_count += v->binding_count;
    }
    return s != TPC_OK ? s : onnx_import(v->arena, v->model, &o, diag, out);
}

static const struct compile_options on_one_rank = {.ranks = 1};

static status compile_for(struct verification *v, const struct compile_options *mesh, bool every_value,
                          struct compiled *c)
{
    struct graph *g = NULL; /* its own: solving adds to it */
    struct compile_options o = *mesh;
    o.every_value = every_value;
    status s = import(v, v->diag, &g);
    return s != TPC_OK ? s : compile_graph(v->arena, g, &o, v->diag, c);
}

static status run(struct verification *v, const struct compiled *c, const struct tensor *inputs, struct tensor *outputs)
{
    struct engine *e = NULL;
    struct links links = cli_links(v->arena, c);
    struct engine_options o = {.threads = 0};
    status s = cli_device(v->arena, v->args, c->program->graph->mesh.ranks, false, v->diag, &o);
    uint32_t runs = o.kind == ENGINE_CUDA ? 3 : 1; /* on a GPU the third is a replay of what the second recorded */
    s = s != TPC_OK ? s : engine_open(c->program, &links, v->folder, &o, v->diag, &e);
    for (uint32_t i = 0; i < runs && s == TPC_OK; i++) {
        s = engine_run(e, inputs, NULL, v->diag);
    }
    for (uint32_t i = 0; i < c->graph->outputs.count && s == TPC_OK; i++) {
        struct tensor t;
        s = engine_output(e, i, v->diag, &t);
        if (s == TPC_OK) {
            outputs[i] = t;
            outputs[i].data = arena_copy(v->arena, t.data, tensor_bytes(&t));
        }
    }
    engine_close(e);
    return s;
}

static bool agree(const struct verification *v, const struct tensor *got, const struct tensor *wanted,
                  struct difference *d)
{
    bool is_float = dtype_is_float(wanted->dtype);
    double atol = v->atol;
    if (atol < 0) {
        (void)tensor_compare(got, wanted, 0, 0, d);
        atol = 1e-5 * d->largest;
    }
    double spacing = is_float ? dtype_spacing(wanted->dtype) : 0; /* one unit in the last place is no difference */
    return tensor_compare(got, wanted, is_float && spacing < v->rtol ? v->rtol : spacing, is_float ? atol : 0, d);
}

static void say_difference(struct verification *v, const char *what, const char *name, const struct tensor *got,
                           const struct tensor *wanted, const struct difference *d)
{
    v->different = true;
    if (d->count == SIZE_MAX) {
        diag_error(v->diag, TPC_DIFFERENT, NULL, "output '%s': %s: %s where %s is wanted", name, what,
                   tensor_type_text(got, v->arena), tensor_type_text(wanted, v->arena));
        return;
    }
    diag_error(v->diag, TPC_DIFFERENT, NULL,
               "output '%s': %s: %zu of %zu elements differ; the worst is element %zu: %.9g where %.9g is wanted "
               "(largest magnitude %.9g)",
               name, what, d->count, wanted->count, d->at, d->got, d->wanted, d->largest);
}

/* Compares output lists; says each that differs. */
static double compare_all(struct verification *v, const char *what, const struct graph *g, const struct tensor *got,
                          const struct tensor *wanted)
{
    double worst = 0;
    for (uint32_t i = 0; i < v->imported->outputs.count; i++) {
        struct difference d;
        if (!agree(v, &got[i], &wanted[i], &d)) {
            say_difference(v, what, g->outputs.at[i].name, &got[i], &wanted[i], &d);
        }
        double relative = d.largest > 0 ? d.worst / d.largest : d.worst;
        worst = relative > worst ? relative : worst;
    }
    return worst;
}

/* The first node, in order, whose value differs between N ranks and the interpreter. */
static status name_first(struct verification *v, const struct tensor *inputs)
{
    struct compiled c;
    status s = compile_for(v, &v->many, true, &c);
    if (s != TPC_OK) {
        return s;
    }
    struct tensor *got = NEW_ARRAY(v->arena, struct tensor, c.graph->outputs.count);
    struct interpretation wanted;
    struct interpret_options every = {.weights = weights_new(v->arena, c.graph, v->folder)};
    if ((s = run(v, &c, inputs, got)) != TPC_OK ||
        (s = interpret(c.graph, &every, inputs, v->arena, v->diag, &wanted)) != TPC_OK) {
        return s;
    }
    value first = 0;
    for (uint32_t i = 0; i < c.graph->outputs.count; i++) {
        struct difference d;
        value at = c.graph->outputs.at[i].value;
        if (!agree(v, &got[i], &wanted.output[i], &d) && (first == 0 || at < first)) {
            first = at;
        }
    }
    if (first == 0) {
        diag_note(v->diag, v->model,
                  "no single node differs when every value is kept: the difference comes from fusing or from rounding");
    } else {
        diag_note(v->diag, graph_where(c.graph, first, v->arena), "is the first node whose value differs on %u ranks",
                  v->many.ranks);
    }
    return TPC_OK;
}

static status verify_set(struct verification *v, const char *label, const struct tensor *inputs,
                         const struct tensor *expected)
{
    struct compiled one, many;
    uint32_t n = v->imported->outputs.count;
    struct tensor *on_one = NEW_ARRAY(v->arena, struct tensor, n + 1),
                  *on_many = NEW_ARRAY(v->arena, struct tensor, n + 1);
    struct interpretation truth;
    status s = interpret(v->imported, &v->reference, inputs, v->arena, v->diag, &truth);
    if (s != TPC_OK || (s = compile_for(v, &on_one_rank, false, &one)) != TPC_OK ||
        (s = compile_for(v, &v->many, false, &many)) != TPC_OK || (s = run(v, &one, inputs, on_one)) != TPC_OK ||
        (s = run(v, &many, inputs, on_many)) != TPC_OK) {
        return s;
    }
    double a = compare_all(v, "one rank against the reference interpreter", one.graph, on_one, truth.output);
    double b =
        compare_all(v, arena_printf(v->arena, "%u ranks against one", v->many.ranks), many.graph, on_many, on_one);
    if (v->different) {
        return name_first(v, inputs);
    }
    double e = expected == NULL ? 0 : compare_all(v, "against the expected output", many.graph, on_many, expected);
    if (v->different) {
        diag_note(v->diag, v->model,
                  "%u ranks, one and the reference interpreter agree with each other: is what is expected of this "
                  "model and these inputs?",
                  v->many.ranks);
        return TPC_OK;
    }
    printf(
        "%s: %u outputs agree; largest error: %.2g of the largest magnitude one rank to interpreter, %.2g to %u ranks",
        label, n, a, b, v->many.ranks);
    if (expected != NULL) {
        printf(", %.2g to the expected", e);
    }
    printf("\n");
    return TPC_OK;
}

/* ---- test folders ---- */

enum { MOST_FILES = 256, SMALL_BYTES = 512 };
struct set { /* input_K.pb, K = 0, 1, ... */
    uint32_t count;
    struct onnx_tensor at[MOST_FILES];
};

static status read_inputs(struct verification *v, const char *set, struct set *out)
{
    struct stat st;
    for (out->count = 0; out->count < MOST_FILES; out->count++) {
        const char *path = arena_printf(v->arena, "%s/input_%u.pb", set, out->count);
        if (stat(path, &st) != 0) {
            break;
        }
        status s = onnx_read_tensor_pb(v->arena, path, v->diag, &out->at[out->count]);
        if (s != TPC_OK) {
            return s;
        }
    }
    return TPC_OK;
}

/* Scalars and short lists may decide shapes: as constants they are known when the model is compiled. */
static void bind_small_inputs(struct verification *v, const struct set *inputs)
{
    v->binding = NEW_ARRAY(v->arena, struct import_binding, inputs->count + 1);
    v->binding_count = 0;
    for (uint32_t i = 0; i < inputs->count && v->bind_small; i++) {
        const struct onnx_tensor *t = &inputs->at[i];
        if (t->rank <= 1 && t->size <= SMALL_BYTES && t->name[0] != 0) {
            v->binding[v->binding_count++] = (struct import_binding){.name = t->name, .tensor = t};
        }
    }
}

/* The set's tensors in the order of the model's inputs: by name, or by position where there is one for each. */
static status pick_inputs(struct verification *v, const struct set *inputs, struct tensor *out)
{
    const struct graph *g = v->imported;
    for (uint32_t i = 0; i < g->inputs.count; i++) {
        const struct onnx_tensor *t = g->inputs.count == inputs->count ? &inputs->at[i] : NULL;
        for (uint32_t k = 0; k < inputs->count; k++) {
            t = strcmp(inputs->at[k].name, g->inputs.at[i].name) == 0 ? &inputs->at[k] : t;
        }
        if (t == NULL || !tensor_shape(&out[i], t->dtype, t->rank, t->shape) || tensor_bytes(&out[i]) != t->size) {
            return diag_error(v->diag, t == NULL ? TPC_NOINPUT : TPC_DATA, v->tests,
                              "the data set has no good tensor for input '%s'", g->inputs.at[i].name);
        }
        out[i].data = arena_copy(v->arena, t->bytes, t->size);
    }
    return TPC_OK;
}

static void ignore_line(void *user, severity level, const char *line)
{
    (void)user;
    (void)level;
    (void)line;
}

/* Reads the set and imports the model for it, with the small inputs bound where it cannot be compiled without. A model that is refused either way is
 * refused by name, whatever its files hold. */
static status import_for_set(struct verification *v, const char *set, struct set *inputs)
{
    struct diag quiet = {.sink = ignore_line}, *loud = v->diag;
    v->binding_count = 0;
    bool refused = import(v, &quiet, &v->imported) == TPC_UNSUPPORTED;
    v->diag = refused ? &quiet : loud;
    status s = read_inputs(v, set, inputs);
    v->diag = loud;
    if (refused && s == TPC_OK) {
        v->bind_small = true;
        bind_small_inputs(v, inputs);
    }
    if (s == TPC_OK || refused) {
        s = import(v, v->diag, &v->imported);
    }
    v->reference.weights = s == TPC_OK ? weights_new(v->arena, v->imported, v->folder) : NULL;
    return s;
}

static status verify_folder(struct verification *v)
{
    uint32_t sets = 0;
    for (;; sets++) {
        struct stat st;
        struct set *inputs = NEW(v->arena, struct set);
        const char *set = arena_printf(v->arena, "%s/test_data_set_%u", v->tests, sets);
        if (stat(set, &st) != 0) {
            break;
        }
        status s = import_for_set(v, set, inputs);
        if (s != TPC_OK) {
            return s;
        }
        struct tensor *in = NEW_ARRAY(v->arena, struct tensor, v->imported->inputs.count + 1),
                      *expected = NEW_ARRAY(v->arena, struct tensor, v->imported->outputs.count + 1);
        s = pick_inputs(v, inputs, in);
        s = s != TPC_OK ? s : cli_read_folder(v->arena, set, "output", v->imported->outputs.count, expected, v->diag);
        s = s != TPC_OK ? s : verify_set(v, set, in, expected);
        if (s != TPC_OK || v->different) {
            return s;
        }
    }
    return sets > 0 ? TPC_OK : diag_error(v->diag, TPC_NOINPUT, v->tests, "no test_data_set_0 in the folder");
}

static status verify_random(struct verification *v)
{
    status imported = import(v, v->diag, &v->imported);
    if (imported != TPC_OK) {
        return imported;
    }
    v->reference.weights = weights_new(v->arena, v->imported, v->folder);
    for (uint32_t set = 0; set < RANDOM_SETS; set++) {
        int64_t *extent = NULL;
        struct tensor *inputs = NEW_ARRAY(v->arena, struct tensor, v->imported->inputs.count + 1);
        status s = cli_extents(v->arena, v->args, v->imported, &extent, v->diag);
        for (uint32_t i = 0; i < v->imported->inputs.count && s == TPC_OK; i++) {
            s = cli_random_input(v->arena, v->imported, NULL, i, 1000 * (set + 1), extent, &inputs[i], v->diag);
        }
        s = s != TPC_OK ? s : verify_set(v, arena_printf(v->arena, "random inputs %u", set), inputs, NULL);
        if (s != TPC_OK || v->different) {
            return s;
        }
    }
    return TPC_OK;
}

static status verify(struct arena *arena, const struct args *args, struct diag *diag)
{
    struct stat st;
    const char *path = args->positional.at[0];
    struct verification v = {.arena = arena, .args = args, .diag = diag, .model = path, .rtol = 1e-3, .atol = -1};
    v.many.ranks = 2;
    status s = cli_mesh(arena, args, diag, &v.many);
    if (s != TPC_OK || (s = cli_steering(arena, args, diag, &v.many)) != TPC_OK ||
        (s = args_real(args, "--rtol", &v.rtol, diag)) != TPC_OK ||
        (s = args_real(args, "--atol", &v.atol, diag)) != TPC_OK) {
        return s;
    }
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
        v.tests = path;
        if (args_flag(args, "--size")) {
            return diag_error(diag, TPC_USAGE, path, "--size is for made-up inputs, and the folder has its own");
        }
        v.model = arena_printf(arena, "%s/model.onnx", path);
    }
    v.folder = cli_folder_of(arena, v.model);
    struct annotations annotations = {0};
    v.many.annotations = &annotations;
    if (v.many.use_annotations &&
        (s = onnx_read_annotations(arena, v.model, v.many.ranks, diag, &annotations)) != TPC_OK) {
        return s;
    }
    s = v.tests != NULL ? verify_folder(&v) : verify_random(&v);
    return s == TPC_OK && v.different ? TPC_DIFFERENT : s;
}

const struct command command_verify = {
    .name = "verify",
    .usage = "MODEL.onnx|TEST_DIR --tp N|--mesh AXES [--rtol R] [--atol A]",
    .summary = "compare N ranks with one rank, the reference interpreter and expected outputs",
    .examples = "  tpc verify model.onnx --tp 4\n  tpc verify tests/models/llama-ts17 --tp 3 --rtol 1e-3 --atol 1e-5\n",
    .options = options,
    .least = 1,
    .most = 1,
    .run = verify,
};
