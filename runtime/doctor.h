/* runtime/doctor.h - what this machine offers: for `tpc doctor`.
 *
 * Section: doctor.c
 */
#ifndef TPC_RUNTIME_DOCTOR_H
#define TPC_RUNTIME_DOCTOR_H

#include "ir/base.h"

/* One line per thing found, then one per warning ("warning: ..."). */
void doctor_print(struct arena *arena, struct text *out);

#endif
