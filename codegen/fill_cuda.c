/* codegen/fill_cuda.c - CUDA functions that are no Kernels: their text is a form with letters for types and numbers, filled in here. */
#include "codegen/cuda_impl.h"

#include <assert.h>

void cuda_fill(struct text *out, const char *form, const struct cuda_letters *l)
{
    for (const char *at = form; *at; at++) {
        if (at[0] != '$' || at[1] < 'A' || at[1] > 'Z') {
            text_putn(out, at, 1);
            continue;
        }
        const char *filling = l->of[*++at - 'A'];
        assert(filling);
        text_put(out, filling);
    }
}

const char *cuda_number(struct arena *arena, int64_t number)
{
    return arena_printf(arena, "%lld", (long long)number);
}

void cuda_put_element(struct text *out, dtype t)
{
    const struct dialect d = dialect_cuda();
    struct text loaded = {.arena = out->arena}, stored = {.arena = out->arena};
    d.load(&loaded, t, "x");
    d.store(&stored, t, "x");
    text_printf(out, "static __device__ inline %s value_of(%s x) { return %s; }\n", d.type[t], d.element[t], loaded.at);
    text_printf(out, "static __device__ inline %s element_of(%s x) { return %s; }\n", d.element[t], d.type[t],
                stored.at);
}
