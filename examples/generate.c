/* examples/generate.c - writes text with a plan: token ids as arguments, the ids that follow on stdout.
 *
 *     cc examples/generate.c $(pkg-config --cflags --libs tpc) -o generate && ./generate plan.bin 5 6 7
 */
#include <stdio.h>
#include <stdlib.h>
#include <tpc.h>

static bool show(void *user, size_t rows, const int64_t *token)
{
    (void)user;
    (void)rows; /* one */
    printf("%lld\n", (long long)token[0]);
    return true;
}

int main(int argc, char **argv)
{
    tpc_model *model = NULL;
    int64_t prompt[64];
    size_t count = 0;
    for (int i = 2; i < argc && count < 64; i++)
        prompt[count++] = strtoll(argv[i], NULL, 10);
    int code = argc > 2 ? tpc_open(argv[1], 0, &model) : TPC_RESULT_USAGE;
    if (code == 0) {
        const int64_t *rows[] = {prompt};
        tpc_generation what = {.prompt = rows, .prompt_length = &count, .rows = 1, .count = 10, .step = show};
        code = tpc_generate(model, &what);
    }
    if (code != 0)
        fprintf(stderr, "%s\n", argc > 2 ? tpc_error() : "usage: generate PLAN ID...");
    tpc_close(model);
    return code;
}
