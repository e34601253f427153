/* tests/cuda_model/device.h - what tests/support/cuda_model.c asks of a compiled object: one launch. */
#ifndef TPC_TESTS_CUDA_MODEL_DEVICE_H
#define TPC_TESTS_CUDA_MODEL_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MODEL_RANGES = 4096, MODEL_SHADOW_LIMIT = 64 << 20 };

/* Memory that a kernel may touch. */
struct model_buffer {
    void *at;
    uint64_t bytes;
    bool written;
};

struct model_launch {
    void (*entry)(const void *words);
    uint32_t max_threads;
    uint32_t grid[3], block[3], shared_bytes;
    const uint64_t *words;
    uint32_t word_count;
    const struct model_buffer *range;
    uint32_t range_count;
};

/* false: what went wrong is in `error`. One launch at a time per object. */
typedef bool model_launch_function(const struct model_launch *launch, char *error, size_t error_bytes);
model_launch_function model_launch;

/* ---- between the files of the model ---- */

enum { MODEL_SLOT = 64 };
/* All lanes of a warp leave `bytes` at `from`; what they left, by lane. Good until the meeting after the next. */
unsigned char (*model_meet(uint32_t mask, const void *from, size_t bytes))[MODEL_SLOT];
void model_touch_shared(const char *at, size_t bytes, bool write);
void model_touch(const void *at, size_t bytes, bool write); /* any memory */
/* Ends the launch; does not return to a thread. */
void model_failed(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
