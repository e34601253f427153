/* tests/support/onnx_folder.c - one ONNX test folder through the importer and the reference interpreter. Start reading at the end. */
#include "tests/support/onnx_folder.h"

#include <stdio.h>
#include <unistd.h>

#include "frontend/onnx/onnx.h"
#include "ir/interpret.h"

static void keep_first(void *user, severity level, const char *line)
{
    struct onnx_log *log = user;
    if (level == DIAG_ERROR && !log->first[0])
        snprintf(log->first, sizeof log->first, "%s", line);
}

enum { MOST = 64 };
struct set { /* the files of one data set, by position */
    uint32_t count;
    struct onnx_tensor at[MOST];
};

static status read_set(struct arena *arena, const char *folder, int number, const char *kind, struct diag *diag,
                       struct set *out)
{
    out->count = 0;
    for (; out->count < MOST; out->count++) {
        const char *path = arena_printf(arena, "%s/test_data_set_%d/%s_%u.pb", folder, number, kind, out->count);
        if (access(path, F_OK) != 0)
            break;
        status s = onnx_read_tensor_pb(arena, path, diag, &out->at[out->count]);
        if (s != TPC_OK)
            return s;
    }
    return TPC_OK;
}

static bool as_tensor(struct arena *arena, const struct onnx_tensor *from, struct tensor *to)
{
    if (!tensor_shape(to, from->dtype, from->rank, from->shape) || tensor_bytes(to) != from->size)
        return false;
    to->data = arena_copy(arena, from->bytes, from->size);
    return true;
}

/* Those inputs of the set that may decide a shape, as bindings. Names are the files' own: input K of the model has the name in input_K.pb. */
static uint32_t bind_small(const struct set *inputs, struct import_binding *out)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < inputs->count; i++) {
        const struct onnx_tensor *t = &inputs->at[i];
        bool small = t->size <= 512 && (t->rank <= 1 && (!dtype_is_float(t->dtype) || t->size <= 64));
        if (small && *t->name)
            out[count++] = (struct import_binding){.name = t->name, .tensor = t};
    }
    return count;
}

/* First as it is; where that is refused, with the small inputs of the first data set as constants. */
static status import_folder(struct arena *arena, const char *path, const char *folder, struct set *inputs,
                            struct onnx_log *log, struct diag *diag, struct graph **out)
{
    struct import_binding bindings[MOST];
    struct import_options options = {.binding = bindings};
    struct onnx_log first;
    status s = onnx_import(arena, path, NULL, diag, out);
    first = *log;
    if (s != TPC_UNSUPPORTED || read_set(arena, folder, 0, "input", diag, inputs) != TPC_OK ||
        (options.binding_count = bind_small(inputs, bindings)) == 0) {
        *log = first;
        return s;
    }
    log->first[0] = 0;
    return onnx_import(arena, path, &options, diag, out);
}

/* The set's tensors in the order of the graph's inputs. */
static bool pick_inputs(struct arena *arena, const struct graph *g, const struct set *inputs, struct tensor *out)
{
    for (uint32_t i = 0; i < g->inputs.count; i++) {
        const struct onnx_tensor *found = g->inputs.count == inputs->count ? &inputs->at[i] : NULL;
        for (uint32_t k = 0; k < inputs->count; k++)
            if (strcmp(inputs->at[k].name, g->inputs.at[i].name) == 0)
                found = &inputs->at[k];
        if (!found || !as_tensor(arena, found, &out[i]))
            return false;
    }
    return true;
}

static enum onnx_verdict run_set(struct arena *arena, const struct graph *g, const char *folder,
                                 const struct set *inputs, const struct set *outputs, double rtol, double atol,
                                 struct diag *diag, struct onnx_log *log)
{
    struct tensor *in = NEW_ARRAY(arena, struct tensor, g->inputs.count + 1);
    struct interpret_options how = {.weights = weights_new(arena, g, folder)};
    struct interpretation result;
    if (!pick_inputs(arena, g, inputs, in)) {
        snprintf(log->first, sizeof log->first, "the data set lacks an input");
        return ONNX_FAILED;
    }
    if (interpret(g, &how, in, arena, diag, &result) != TPC_OK)
        return ONNX_FAILED;
    for (uint32_t i = 0; i < g->outputs.count && i < outputs->count; i++) {
        struct tensor wanted;
        struct difference d = {.count = 0};
        const struct tensor *got = &result.output[i];
        if (!as_tensor(arena, &outputs->at[i], &wanted))
            return ONNX_FAILED;
        if (tensor_compare(got, &wanted, rtol, atol, &d))
            continue;
        snprintf(log->first, sizeof log->first,
                 "output %u (%s) is %s, wanted %s: %zu differ, [%zu] is %.9g, wanted %.9g", i, g->outputs.at[i].name,
                 tensor_type_text(got, arena), tensor_type_text(&wanted, arena), d.count, d.at, d.got, d.wanted);
        return ONNX_FAILED;
    }
    return ONNX_PASSED;
}

enum onnx_verdict onnx_folder_run(const char *folder, double rtol, double atol, struct onnx_log *log)
{
    struct arena *arena = arena_new();
    struct diag diag = {.sink = keep_first, .user = log};
    struct set *inputs = NEW(arena, struct set), *outputs = NEW(arena, struct set);
    struct graph *g = NULL;
    enum onnx_verdict verdict = ONNX_PASSED;
    log->first[0] = 0;
    const char *path = arena_printf(arena, "%s/model.onnx", folder);
    status s = import_folder(arena, path, folder, inputs, log, &diag, &g);
    if (s != TPC_OK)
        verdict = s == TPC_UNSUPPORTED ? ONNX_REFUSED : ONNX_FAILED;
    for (int number = 0; verdict == ONNX_PASSED && number < 8; number++) {
        if (access(arena_printf(arena, "%s/test_data_set_%d", folder, number), F_OK) != 0)
            break;
        s = read_set(arena, folder, number, "input", &diag, inputs);
        if (s == TPC_OK)
            s = read_set(arena, folder, number, "output", &diag, outputs);
        verdict = s == TPC_OK            ? run_set(arena, g, folder, inputs, outputs, rtol, atol, &diag, log)
                  : s == TPC_UNSUPPORTED ? ONNX_REFUSED
                                         : ONNX_FAILED;
    }
    arena_free(arena);
    return verdict;
}
