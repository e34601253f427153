/* examples/embed.c - runs a plan from a C program: every input is made up of zeros with each dynamic extent 4, and the first numbers of each
 * output are printed.
 *
 *     cc examples/embed.c $(pkg-config --cflags --libs tpc) -o embed && ./embed plan.bin
 */
#include <stdio.h>
#include <stdlib.h>
#include <tpc.h>

static int fail(tpc_model *model, int code)
{
    fprintf(stderr, "%s\n", tpc_error());
    tpc_close(model);
    return code;
}

int main(int argc, char **argv)
{
    tpc_model *model = NULL;
    tpc_tensor t;
    int code = argc == 2 ? tpc_open(argv[1], 0, &model) : TPC_RESULT_USAGE;
    if (code != 0)
        return fail(model, code);
    for (size_t i = 0; i < tpc_input_count(model); i++) {
        if ((code = tpc_input_type(model, i, &t)) != 0)
            return fail(model, code);
        size_t count = 1;
        for (uint32_t a = 0; a < t.rank; a++)
            count *= (size_t)(t.shape[a] = t.shape[a] < 0 ? 4 : t.shape[a]);
        t.data = calloc(count + 1, 8); /* is the program's own, and is read by tpc_run */
        if ((code = tpc_bind(model, i, &t)) != 0)
            return fail(model, code);
    }
    if ((code = tpc_run(model)) != 0)
        return fail(model, code);
    for (size_t i = 0; i < tpc_output_count(model); i++) {
        if ((code = tpc_output(model, i, &t)) != 0)
            return fail(model, code);
        printf("%s", tpc_output_name(model, i));
        for (uint32_t a = 0; a < t.rank; a++)
            printf("%s%lld", a == 0 ? " " : "x", (long long)t.shape[a]);
        if (t.type == TPC_TYPE_F32)
            printf(": %.6g", (double)*(float *)t.data);
        printf("\n");
    }
    tpc_close(model);
    return 0;
}
