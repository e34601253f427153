/* frontend/cli/tensors.c - tensors between files, the command line and the engine. */
#include "frontend/cli/cli.h"
#include "runtime/layout.h"
#include "runtime/tensor_file.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

enum { DEFAULT_EXTENT = 8 };

static status from_pb(struct arena *arena, const char *path, struct tensor *out, struct diag *diag)
{
    struct onnx_tensor t;
    status s = onnx_read_tensor_pb(arena, path, diag, &t);
    if (s != TPC_OK) {
        return s;
    }
    if (!tensor_shape(out, t.dtype, t.rank, t.shape) || tensor_bytes(out) != t.size) {
        return diag_error(diag, TPC_DATA, path, "the tensor's bytes do not fit its shape");
    }
    out->data = arena_copy(arena, t.bytes, t.size);
    return TPC_OK;
}

static bool ends_with(const char *s, const char *tail)
{
    size_t n = strlen(s), m = strlen(tail);
    return n >= m && strcmp(s + n - m, tail) == 0;
}

status cli_read_tensor(struct arena *arena, const char *spec, dtype wanted, struct tensor *out, struct diag *diag)
{
    status s = spec[0] != '@'           ? tensor_parse(arena, spec, diag, out)
               : ends_with(spec, ".pb") ? from_pb(arena, spec + 1, out, diag)
                                        : npy_read(arena, spec + 1, diag, out);
    if (s == TPC_OK) {
        tensor_as(out, wanted);
    }
    return s;
}

status cli_read_folder(struct arena *arena, const char *folder, const char *stem, uint32_t count, struct tensor *out,
                       struct diag *diag)
{
    for (uint32_t i = 0; i < count; i++) {
        status s = from_pb(arena, arena_printf(arena, "%s/%s_%u.pb", folder, stem, i), &out[i], diag);
        if (s != TPC_OK) {
            return s;
        }
    }
    return TPC_OK;
}

status cli_write_tensor(struct arena *arena, const char *path, const char *name, const struct tensor *t,
                        struct diag *diag)
{
    if (!ends_with(path, ".pb")) {
        return npy_write(arena, path, t, diag);
    }
    struct onnx_tensor x = {name, t->dtype, t->rank, t->shape, tensor_bytes(t), t->data};
    return onnx_write_tensor_pb(path, &x, diag);
}

status cli_extents(struct arena *arena, const struct args *args, const struct graph *g, int64_t **extent,
                   struct diag *diag)
{
    uint32_t n = dims_symbol_count(g->dims);
    *extent = NEW_ARRAY(arena, int64_t, n + 1);
    for (uint32_t s = 0; s < n; s++) {
        const struct symbol *y = dims_symbol(g->dims, s);
        (*extent)[s] = y->kind == SYMBOL_INPUT ? (y->upper < DEFAULT_EXTENT ? y->upper : DEFAULT_EXTENT) : 0;
    }
    for (uint32_t i = 0; i < args->given.count; i++) {
        const char *v = args->given.at[i].value, *equals = v == NULL ? NULL : strrchr(v, '=');
        if (strcmp(args->given.at[i].name, "--size") != 0) {
            continue;
        }
        struct text known = {.arena = arena};
        bool found = false;
        char *end = NULL;
        errno = 0;
        long long k = equals == NULL || equals[1] < '0' || equals[1] > '9' ? -1 : strtoll(equals + 1, &end, 10);
        for (uint32_t s = 0; s < n; s++) {
            const struct symbol *y = dims_symbol(g->dims, s);
            if (y->kind != SYMBOL_INPUT) {
                continue;
            }
            text_printf(&known, "%s%s", known.length == 0 ? "" : ", ", y->name);
            if (equals != NULL && strlen(y->name) == (size_t)(equals - v) &&
                memcmp(y->name, v, (size_t)(equals - v)) == 0) {
                (*extent)[s] = k;
                found = true;
            }
        }
        if (!found || k < 0 || k > INT32_MAX || errno != 0 || *end != 0) {
            return diag_error(
                diag, TPC_USAGE, NULL,
                "--size is '%s' but must be SYMBOL=N, N from 0 to %d, for one of the model's dynamic extents (%s)", v,
                INT32_MAX, known.at == NULL ? "there are none" : known.at);
        }
        status once = args_once(args, i, (size_t)(equals - v), diag);
        if (once != TPC_OK) {
            return once;
        }
    }
    for (uint32_t s = 0; s < n; s++) { /* what a guard has made of a symbol */
        const struct symbol *y = dims_symbol(g->dims, s);
        if (y->equal != DIM_NONE) {
            (void)dim_eval(g->dims, dim_resolve(g->dims, y->equal), *extent, &(*extent)[s]);
        }
    }
    return TPC_OK;
}

status cli_random_input(struct arena *arena, const struct graph *g, const struct links *links, uint32_t i,
                        uint64_t seed, const int64_t *extent, struct tensor *out, struct diag *diag)
{
    const struct node *n = graph_node(g, g->inputs.at[i].value);
    int64_t shape[MAX_RANK], limit = 1;
    bool ok = true;
    if (links != NULL && links->input != NULL && links->input[i] != NULL) {
        ok = layout_whole(g, links->input[i], extent, shape);
    } else {
        for (uint32_t a = 0; a < n->rank; a++) {
            ok = ok && dim_eval(g->dims, n->shape[a], extent, &shape[a]);
        }
    }
    if (!ok || !tensor_shape(out, n->dtype, n->rank, shape)) {
        return diag_error(diag, TPC_DATA, NULL, "input '%s' has no size for these extents", g->inputs.at[i].name);
    }
    double there = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    if ((double)tensor_bytes(out) > there || !tensor_new(arena, out, n->dtype, n->rank, shape)) {
        return diag_error(diag, TPC_NOMEM, NULL, "input '%s' of these extents has %.3g GB, and this machine %.3g",
                          g->inputs.at[i].name, 1e-9 * (double)tensor_bytes(out), 1e-9 * there);
    }
    bool index = !dtype_is_float(n->dtype) && input_index_limit(g, i, extent, &limit);
    if (dtype_is_float(n->dtype) || index) {
        tensor_random(out, seed + i, limit < 1 ? 1 : limit);
        return TPC_OK;
    }
    for (size_t k = 0; k < out->count; k++) {
        dtype_store_i64(n->dtype, out->data, k, 1);
    }
    return TPC_OK;
}
