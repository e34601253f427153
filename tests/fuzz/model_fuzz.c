/* tests/fuzz/model_fuzz.c - libFuzzer target: any bytes as a model file. Whatever they are, the importer ends with a status. */
#include "frontend/onnx/onnx.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static void ignore(void *user, severity level, const char *line)
{
    (void)user;
    (void)level;
    (void)line;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct diag diag = {.sink = ignore};
    struct graph *g = NULL;
    struct arena *arena = arena_new();
    if (arena)
        onnx_import_bytes(arena, "no-such-folder/model.onnx", bytes, length, NULL, &diag, &g);
    arena_free(arena);
    return 0;
}
