/* ir/output.h - files that are written whole or not at all.
 *
 * Invariant: at the path is what was there before, or the whole new file, never a part of one. It is written beside the path under another name and renamed.
 * What is there and is no regular file (a device, a pipe) is written into as it stands: it is never replaced and never removed. A symbolic link
 * is followed. Plans are stricter and bring their own writer (runtime/plan_write.c).
 */
#ifndef IR_OUTPUT_H
#define IR_OUTPUT_H

#include "ir/base.h"

#include <stdio.h>

struct output_file {
    FILE *to;         /* write here */
    const char *path; /* as it was asked for */
    char *target;     /* behind symbolic links */
    char *temporary;  /* NULL: written into directly */
};

/* Errors: TPC_IO (no such folder, no right to write). */
status output_open(const char *path, struct diag *diag, struct output_file *out);

/* Puts the file in place when `good` (the caller's writes succeeded) and closing does, else leaves nothing. Errors: TPC_IO. Always call it once. */
status output_close(struct output_file *out, bool good, struct diag *diag);

#endif
