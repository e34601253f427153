/* tests/onnx_node_driver.c - runs ONNX test folders by import and the reference interpreter, without solver or runtime.
 *
 *   onnx_node_driver [--rtol R] [--atol A] [--quiet] FOLDER...
 *
 * One line per folder: passed, refused (with the reason), or FAILED; then the counts. Exits with 1 when a folder failed.
 */
#include <stdio.h>
#include <stdlib.h>

#include "tests/support/onnx_folder.h"

int main(int argc, char **argv)
{
    double rtol = 1e-3, atol = 1e-7;
    bool quiet = false;
    unsigned counts[ONNX_VERDICTS] = {0};
    static const char *const names[ONNX_VERDICTS] = {"passed", "refused", "FAILED"};
    for (int i = 1; i < argc; i++) {
        struct onnx_log log;
        if (strcmp(argv[i], "--quiet") == 0) {
            quiet = true;
            continue;
        }
        if ((strcmp(argv[i], "--rtol") == 0 || strcmp(argv[i], "--atol") == 0) && i + 1 < argc) {
            *(argv[i][2] == 'r' ? &rtol : &atol) = strtod(argv[i + 1], NULL);
            i++;
            continue;
        }
        enum onnx_verdict v = onnx_folder_run(argv[i], rtol, atol, &log);
        counts[v]++;
        if (!quiet || v == ONNX_FAILED)
            printf("%s %s%s%s\n", names[v], argv[i], v == ONNX_PASSED ? "" : ": ", v == ONNX_PASSED ? "" : log.first);
        fflush(stdout);
    }
    printf("passed %u, refused %u, failed %u\n", counts[ONNX_PASSED], counts[ONNX_REFUSED], counts[ONNX_FAILED]);
    return counts[ONNX_FAILED] ? 1 : 0;
}
