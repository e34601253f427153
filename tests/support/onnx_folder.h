/* tests/support/onnx_folder.h - runs an ONNX test folder: import, the reference interpreter, comparison with the expected outputs.
 *
 * A folder holds model.onnx and test_data_set_N/{input,output}_K.pb. Inputs that decide shapes are bound: when a first import refuses, small
 * inputs of the first data set are tried as constants.
 */
#ifndef TPC_TESTS_SUPPORT_ONNX_FOLDER_H
#define TPC_TESTS_SUPPORT_ONNX_FOLDER_H

#include "ir/base.h"

enum onnx_verdict { ONNX_PASSED, ONNX_REFUSED, ONNX_FAILED, ONNX_VERDICTS };
struct onnx_log {
    char first[1000]; /* why it was refused, or what differs */
};
enum onnx_verdict onnx_folder_run(const char *folder, double rtol, double atol, struct onnx_log *log);

#endif
