/* tests/test.h - cmocka, with the standard headers that it wants before itself. */
#ifndef TPC_TESTS_TEST_H
#define TPC_TESTS_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#endif
