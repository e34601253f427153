/* tests/support/model_inputs.c - see model_inputs.h. */
#include "tests/support/model_inputs.h"
#include "frontend/onnx/onnx.h"
#include "tests/test.h"

#include <stdlib.h>
#include <unistd.h>

const char *model_folder(struct arena *arena, const char *name)
{
    const char *source = getenv("SOURCE");
    return arena_printf(arena, "%s/tests/models/%s", source ? source : ".", name);
}

struct tensor *model_inputs(struct arena *arena, const struct graph *g, const char *folder, struct diag *diag)
{
    struct tensor *in = NEW_ARRAY(arena, struct tensor, g->inputs.count + 1);
    for (uint32_t i = 0; i < g->inputs.count; i++) {
        struct onnx_tensor t;
        bool found = false;
        for (uint32_t k = 0; !found; k++) {
            const char *path = arena_printf(arena, "%s/test_data_set_0/input_%u.pb", folder, k);
            if (access(path, R_OK) != 0 || onnx_read_tensor_pb(arena, path, diag, &t) != TPC_OK)
                fail_msg("%s has no input '%s'", folder, g->inputs.at[i].name);
            found = strcmp(t.name, g->inputs.at[i].name) == 0;
        }
        assert_true(tensor_shape(&in[i], t.dtype, t.rank, t.shape));
        in[i].data = arena_copy(arena, t.bytes, t.size);
    }
    return in;
}
