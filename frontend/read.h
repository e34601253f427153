/* frontend/read.h - small files that people write: plan files, machines, Graphs as text. */
#ifndef TPC_FRONTEND_READ_H
#define TPC_FRONTEND_READ_H

#include "ir/base.h"

/* The whole of a regular file of at most `limit` bytes, behind what `out` holds. `what` names its kind in messages ("a plan file"). TPC_NOINPUT, TPC_IO; TPC_DATA for
 * what is no regular file (a pipe would be waited for) or is longer. */
status read_small_file(const char *path, size_t limit, const char *what, struct diag *diag, struct text *out);

#endif
