/* tests/compare_outputs.c - compare_outputs DIR DIR: are the tensors output_0.pb, output_1.pb, ... of two folders the same, but for 1e-5 of each one's largest
 * magnitude (1 in 100 for types of 16 bits)? For scripts/gpu-check, which compares what ranks under NCCL write with what ranks on CPUs do.
 */
#include "frontend/onnx/onnx.h"
#include "ir/tensor.h"

#include <unistd.h>

static void print_line(void *user, severity level, const char *line)
{
    (void)user;
    (void)level;
    (void)fprintf(stderr, "%s\n", line);
}

int main(int argc, char **argv)
{
    struct arena *arena = arena_new();
    struct diag diag = {.sink = print_line};
    uint32_t count = 0;
    double worst = 0;
    for (; argc == 3 && arena; count++) {
        struct tensor tensor[2];
        for (int i = 0; i < 2; i++) {
            const char *path = arena_printf(arena, "%s/output_%u.pb", argv[1 + i], (unsigned)count);
            if (i == 0 && count > 0 && access(path, R_OK) != 0) {
                printf("%u outputs agree, to %.2g of the largest magnitude\n", (unsigned)count, worst);
                return 0;
            }
            struct onnx_tensor x;
            if (onnx_read_tensor_pb(arena, path, &diag, &x) != TPC_OK)
                return 1;
            if (!tensor_shape(&tensor[i], x.dtype, x.rank, x.shape))
                return 1;
            tensor[i].data = (void *)(uintptr_t)x.bytes;
        }
        const struct tensor *got = &tensor[0], *wanted = &tensor[1];
        struct difference d;
        double part = dtype_size(wanted->dtype) == 2 ? 1e-2 : 1e-5;
        if (tensor_compare(got, wanted, 0, 0, &d))
            continue;
        worst = d.largest > 0 && d.worst / d.largest > worst ? d.worst / d.largest : worst;
        if (!dtype_is_float(wanted->dtype) || !tensor_compare(got, wanted, 0, part * d.largest, &d)) {
            printf("output %u: %zu differ, [%zu] is %.9g, wanted %.9g\n", (unsigned)count, d.count, d.at, d.got,
                   d.wanted);
            return 1;
        }
    }
    fprintf(stderr, "usage: compare_outputs DIR DIR\n");
    return 64;
}
