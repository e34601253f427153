/* tests/test.h - cmocka, with the standard headers that it wants before itself, and what tests ask about their run. */
#ifndef TPC_TESTS_TEST_H
#define TPC_TESTS_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

/* Sanitizers are slow: then a share of the cases serves, the release build's run takes all. */
static inline bool sanitized(void)
{
    const char *with = getenv("TPC_SANITIZE");
    return with && *with;
}

#endif
