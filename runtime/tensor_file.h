/* runtime/tensor_file.h - tensors from and to the outside: .npy files, text on the command line, random numbers.
 *
 * .npy: versions 1 to 3, both byte orders, C and Fortran order, all our dtypes; numpy has no bfloat16, so it is written as '<u2' (its bits) and read
 * from '<u2' where a bf16 is wanted (tensor_as), or from '|V2' (as ml_dtypes saves it).
 *
 * Section: tensor_file.c
 */
#ifndef TPC_RUNTIME_TENSOR_FILE_H
#define TPC_RUNTIME_TENSOR_FILE_H

#include "ir/tensor.h"

/* Into the arena, as native row-major. TPC_NOINPUT, TPC_IO, TPC_DATA. */
status npy_read(struct arena *arena, const char *path, struct diag *diag, struct tensor *out);
status npy_parse(struct arena *arena, const char *name, const void *bytes, size_t length, struct diag *diag,
                 struct tensor *out);
status npy_write(struct arena *arena, const char *path, const struct tensor *t, struct diag *diag);

/* "2x3xi64=1,2,3,4,5,6", "f32=0.5" (a scalar), "1x0xi64=" (empty), "4x4xf32=0" (one value for all). */
status tensor_parse(struct arena *arena, const char *text, struct diag *diag, struct tensor *out);

/* Sees u16 as bf16, and the other way round, and bytes as a type of few bits, where `wanted` says so; otherwise nothing changes. */
void tensor_as(struct tensor *t, dtype wanted);

/* Floats uniform in [-1, 1); integers in [0, limit), limit at least 1; bools. The same seed gives the same numbers everywhere. */
void tensor_random(struct tensor *t, uint64_t seed, int64_t limit);

#endif
