/* examples/embed.c - runs a plan from a C program: inputs of zeros with each dynamic extent 4; the first number of each output on stdout.
 *
 *     cc examples/embed.c $(pkg-config --cflags --libs tpc) -o embed && ./embed plan.bin
 */
#include <stdio.h>
#include <stdlib.h>
#include <tpc.h>

int main(int argc, char **argv)
{
    tpc_model *model = NULL;
    tpc_tensor t;
    int code = tpc_open(argc == 2 ? argv[1] : "plan.bin", 0, &model);
    for (size_t i = 0; code == 0 && i < tpc_input_count(model); i++) {
        code = tpc_input_type(model, i, &t);
        size_t count = 1;
        for (uint32_t a = 0; a < t.rank; a++)
            count *= (size_t)(t.shape[a] = t.shape[a] < 0 ? 4 : t.shape[a]);
        t.data = calloc(count + 1, 8); /* stays the program's own */
        code = code == 0 ? tpc_bind(model, i, &t) : code;
    }
    code = code == 0 ? tpc_run(model) : code;
    for (size_t i = 0; code == 0 && i < tpc_output_count(model); i++) {
        code = tpc_output(model, i, &t);
        if (code == 0 && t.type == TPC_TYPE_F32)
            printf("%s: %g\n", tpc_output_name(model, i), (double)*(float *)t.data);
    }
    if (code != 0)
        fprintf(stderr, "%s\n", tpc_error());
    tpc_close(model);
    return code;
}
