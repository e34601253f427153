/* tests/support/cuda_model.h - CUDA kernels on the CPU: compiles their text with the system's C compiler over tests/cuda_model, and launches them.
 *
 * A fake NVRTC may compile with cuda_model_compile, a fake driver load with cuda_model_open and launch with cuda_model_launch. One launch at a time per
 * object: whoever has several threads takes a lock.
 *
 * Section: cuda_model.c
 */
#ifndef TPC_TESTS_SUPPORT_CUDA_MODEL_H
#define TPC_TESTS_SUPPORT_CUDA_MODEL_H

#include "ir/base.h"
#include "tests/cuda_model/device.h"

struct cuda_text {
    const char *name; /* of the entry */
    const char *source;
};

struct cuda_model;

/* All texts into one shared object at `path` (the environment's SOURCE is where the sources of tpc are, CC the compiler; intermediate files lie beside).
 * false: the compiler's first words are in `error`. */
bool cuda_model_compile(const struct cuda_text *text, uint32_t count, const char *path, char *error,
                        size_t error_bytes);
/* NULL: no such object. */
struct cuda_model *cuda_model_open(const char *path);
void cuda_model_close(struct cuda_model *m);
/* Number of 8-byte words of an entry's arguments; 0: no such entry. */
uint32_t cuda_model_words(const struct cuda_model *m, const char *name);
/* Fills in launch->entry, max_threads; word_count must be what the entry has. false: what went wrong is in `error`. */
bool cuda_model_launch(const struct cuda_model *m, const char *name, struct model_launch *launch, char *error,
                       size_t error_bytes);

#endif
