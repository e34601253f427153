/* tests/support/fake_gpus.h - tests of the engine on GPUs: the fake libraries of tests/fake_cuda as the ones that are found, and what was said.
 *
 * Section: fake_gpus.c
 */
#ifndef TPC_TESTS_SUPPORT_FAKE_GPUS_H
#define TPC_TESTS_SUPPORT_FAKE_GPUS_H

#include "ir/base.h"

struct fake_gpus {
    void (*fail_after)(uint64_t n);                /* the n-th call of the fakes from now on fails; 0: none */
    void (*fail_of)(const char *name, uint64_t n); /* the n-th call of that name (of the driver) */
    uint64_t (*calls)(void);                       /* so far */
    int64_t (*live)(void);                         /* objects of theirs that nobody has given back */
    struct diag diag;                              /* keeps the last line, and counts */
    char last_line[1100];
    int lines;
};
extern struct fake_gpus fakes;

/* Four GPUs, which are given launches that overlap. For cmocka's set-up of a group: 0. */
int open_fakes(void **state);

#endif
