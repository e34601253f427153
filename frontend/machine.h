/* frontend/machine.h - machine files (docs/machine.md): JSON that says what devices and links can do.
 *
 * Section: machine.c
 */
#ifndef TPC_FRONTEND_MACHINE_H
#define TPC_FRONTEND_MACHINE_H

#include "solver/solver.h"

/* `name`: a built-in machine, else a file. The machine lives in `arena`. TPC_NOINPUT, TPC_IO; TPC_DATA with one line that names the field. */
status machine_load(struct arena *arena, const char *name, struct diag *diag, const struct machine **out);
/* From memory; `name` is for messages. */
status machine_parse(struct arena *arena, const char *name, const char *text, size_t length, struct diag *diag,
                     const struct machine **out);
/* As a file that machine_parse reads back to the same. */
void machine_print(const struct machine *m, struct text *out);

#endif
