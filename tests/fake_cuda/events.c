/* tests/fake_cuda/events.c - the fake driver's events: how many of their marks a stream has still to reach. */
#include "runtime/cuda_api.h"
#include "tests/fake_cuda/fake.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct event {
    atomic_int pending;
};

static void reach(void *argument)
{
    struct event *e;
    memcpy(&e, argument, sizeof(void *));
    atomic_fetch_sub(&e->pending, 1);
}

FAKE_API cu_result cuEventCreate(cu_event *out, unsigned flags)
{
    CALL(CU_OUT_OF_MEMORY);
    (void)flags;
    *out = calloc(1, sizeof(struct event));
    fake_own(1);
    return CU_OK;
}

FAKE_API cu_result cuEventRecord(cu_event event, cu_stream stream)
{
    CALL(LAUNCH_FAILED);
    atomic_fetch_add(&((struct event *)event)->pending, 1);
    return fake_enqueue(stream, reach, &event, sizeof(void *)) ? CU_OK : INVALID;
}

FAKE_API cu_result cuEventSynchronize(cu_event event)
{
    CALL(LAUNCH_FAILED);
    while (atomic_load(&((struct event *)event)->pending) > 0)
        nanosleep(&(struct timespec){.tv_nsec = 10000}, NULL);
    return CU_OK;
}

FAKE_API cu_result cuEventQuery(cu_event event)
{
    CALL(LAUNCH_FAILED);
    return atomic_load(&((struct event *)event)->pending) > 0 ? CU_NOT_READY : CU_OK;
}

FAKE_API cu_result cuEventDestroy_v2(cu_event event)
{
    bool fails = fake_call(__func__);
    free(event);
    fake_own(-1);
    return fails ? ILLEGAL_ADDRESS : CU_OK;
}
