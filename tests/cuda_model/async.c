/* tests/cuda_model/async.c - copies from global to shared memory that a thread starts and waits for later, in groups: nothing arrives before it has
 * waited, so whoever reads earlier reads what was there; and the bytes count as written both when the copy starts and when it is waited for, so
 * that others race with it all the time between.
 */
#include "tests/cuda_model/device.h"

#include "tests/cuda_model/cuda_model.h"

enum { THREADS = 1024, PENDING = 512, BYTES = 16 };

struct copy {
    char *to;
    char bytes[BYTES];
    uint32_t group;
};

static struct {
    struct copy copy[PENDING];
    uint32_t count, group; /* group: committed so far */
    struct model_index block;
} of_thread[THREADS];

static void complete(uint32_t thread, uint32_t groups)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < of_thread[thread].count; i++) {
        const struct copy *c = &of_thread[thread].copy[i];
        if (c->group >= groups) {
            of_thread[thread].copy[kept++] = *c;
            continue;
        }
        model_touch_shared(c->to, BYTES, true);
        memcpy(c->to, c->bytes, BYTES);
    }
    of_thread[thread].count = kept;
}

void tpc_copy_async_16(void *to, const void *from, bool there)
{
    uint32_t thread = model_now->number;
    if (memcmp(&of_thread[thread].block, &model_block, sizeof model_block) != 0) {
        of_thread[thread].block = model_block;
        of_thread[thread].count = of_thread[thread].group = 0;
    }
    if ((uintptr_t)to % BYTES || (uintptr_t)from % BYTES)
        model_failed("copies 16 bytes from or to an address that is no multiple of that");
    if (of_thread[thread].count == PENDING)
        model_failed("has more than %d copies pending", (int)PENDING);
    struct copy *c = &of_thread[thread].copy[of_thread[thread].count++];
    *c = (struct copy){.to = to, .group = of_thread[thread].group};
    model_touch_shared(to, BYTES, true);
    if (there) {
        model_touch(from, BYTES, false);
        memcpy(c->bytes, from, BYTES);
    }
}

void tpc_commit_async(void)
{
    of_thread[model_now->number].group++;
}

void tpc_wait_async(void)
{
    uint32_t thread = model_now->number, groups = of_thread[thread].group;
    complete(thread, groups ? groups - 1 : 0);
}

void tpc_wait_all_async(void)
{
    complete(model_now->number, UINT32_MAX);
}
