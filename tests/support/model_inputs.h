/* tests/support/model_inputs.h - the inputs of a model of tests/models, as its test data has them.
 *
 * Section: model_inputs.c
 */
#ifndef TPC_TESTS_SUPPORT_MODEL_INPUTS_H
#define TPC_TESTS_SUPPORT_MODEL_INPUTS_H

#include "ir/tensor.h"

/* "SOURCE/tests/models/NAME". */
const char *model_folder(struct arena *arena, const char *name);
/* By name, from FOLDER/test_data_set_0; the test fails when one is missing. */
struct tensor *model_inputs(struct arena *arena, const struct graph *g, const char *folder, struct diag *diag);

#endif
