/* tests/unit/contrib_test.c - every folder of tests/contrib (ONNX Runtime's own operators), imported and interpreted, gives what ONNX Runtime
 * gave. */
#include "tests/support/onnx_folder.h"

#include <glob.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h> /* needs those above */

static void test_folders(void **state)
{
    (void)state;
    const char *source = getenv("SOURCE");
    char pattern[4096];
    glob_t found;
    unsigned failed = 0;
    snprintf(pattern, sizeof pattern, "%s/tests/contrib/*/model.onnx", source ? source : ".");
    if (glob(pattern, 0, NULL, &found) != 0)
        fail_msg("no folders at %s", pattern);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        struct onnx_log log;
        *strrchr(found.gl_pathv[i], '/') = '\0';
        if (onnx_folder_run(found.gl_pathv[i], 1e-3, 1e-5, &log) == ONNX_PASSED)
            continue;
        print_message("%s: %s\n", found.gl_pathv[i], log.first);
        failed++;
    }
    globfree(&found);
    assert_int_equal(failed, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_folders)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
