/* tests/unit/cuda_abi_test.c - our declarations of CUDA's entry points (runtime/cuda_api.h) against the toolkit's headers, where they are installed: same
 * functions (a call with our arguments compiles against theirs, sizes and all), same constants, same structs.
 */
#include "runtime/cuda_api.h"

#include <setjmp.h>
#include <stdlib.h>

#include <cmocka.h>

#define CALLS(call) ((void)sizeof(call)) /* compiles, calls nothing, needs no library */

#if defined(TPC_CUDA_HEADERS)
#include <assert.h>
#include <cublasLt.h>
#include <cuda.h>

/* ---- constants ---- */

static_assert(CU_OK == (int)CUDA_SUCCESS && CU_OUT_OF_MEMORY == (int)CUDA_ERROR_OUT_OF_MEMORY, "results");
static_assert(CU_NO_DEVICE == (int)CUDA_ERROR_NO_DEVICE && CU_NOT_READY == (int)CUDA_ERROR_NOT_READY, "results");
static_assert(CU_STREAM_PRIVATE == (int)CU_STREAM_NON_BLOCKING && CU_EVENT_UNTIMED == (int)CU_EVENT_DISABLE_TIMING,
              "flags");
static_assert(CU_CAPTURE_THREAD == (int)CU_STREAM_CAPTURE_MODE_THREAD_LOCAL, "capture");
static_assert(CU_DEVICE_PROCESSORS == (int)CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, "attributes");
static_assert(CU_DEVICE_MAJOR == (int)CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, "attributes");
static_assert(CU_DEVICE_MINOR == (int)CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, "attributes");
static_assert(CU_FUNCTION_SHARED_BYTES == (int)CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, "attributes");
static_assert(CU_LAUNCH_OVERLAPPED == (int)CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION, "attributes");
static_assert(sizeof(struct cu_launch) == sizeof(CUlaunchConfig) &&
                  offsetof(struct cu_launch, grid) == offsetof(CUlaunchConfig, gridDimX) &&
                  offsetof(struct cu_launch, block) == offsetof(CUlaunchConfig, blockDimX) &&
                  offsetof(struct cu_launch, shared_bytes) == offsetof(CUlaunchConfig, sharedMemBytes) &&
                  offsetof(struct cu_launch, stream) == offsetof(CUlaunchConfig, hStream) &&
                  offsetof(struct cu_launch, attribute) == offsetof(CUlaunchConfig, attrs) &&
                  offsetof(struct cu_launch, attributes) == offsetof(CUlaunchConfig, numAttrs),
              "structs");
static_assert(sizeof(struct cu_launch_attribute) == sizeof(CUlaunchAttribute) &&
                  offsetof(struct cu_launch_attribute, value) ==
                      offsetof(CUlaunchAttribute, value.programmaticStreamSerializationAllowed),
              "structs");
static_assert(sizeof(struct cu_edge) == sizeof(CUgraphEdgeData) &&
                  offsetof(struct cu_edge, type) == offsetof(CUgraphEdgeData, type) &&
                  CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC == 1,
              "structs");
static_assert(sizeof(struct cu_kernel_node) == sizeof(CUDA_KERNEL_NODE_PARAMS_v2) &&
                  offsetof(struct cu_kernel_node, grid) == offsetof(CUDA_KERNEL_NODE_PARAMS_v2, gridDimX) &&
                  offsetof(struct cu_kernel_node, block) == offsetof(CUDA_KERNEL_NODE_PARAMS_v2, blockDimX) &&
                  offsetof(struct cu_kernel_node, shared_bytes) ==
                      offsetof(CUDA_KERNEL_NODE_PARAMS_v2, sharedMemBytes) &&
                  offsetof(struct cu_kernel_node, parameters) == offsetof(CUDA_KERNEL_NODE_PARAMS_v2, kernelParams) &&
                  offsetof(struct cu_kernel_node, kernel) == offsetof(CUDA_KERNEL_NODE_PARAMS_v2, kern) &&
                  offsetof(struct cu_kernel_node, context) == offsetof(CUDA_KERNEL_NODE_PARAMS_v2, ctx),
              "structs");
static_assert(sizeof(cu_pointer) == sizeof(CUdeviceptr) && sizeof(cu_result) == sizeof(CUresult), "types");
static_assert(sizeof(cu_device) == sizeof(CUdevice), "types");

static_assert(BLAS_TYPE_F32 == (int)CUDA_R_32F && BLAS_TYPE_F64 == (int)CUDA_R_64F, "types");
static_assert(BLAS_TYPE_F16 == (int)CUDA_R_16F && BLAS_TYPE_BF16 == (int)CUDA_R_16BF, "types");
static_assert(BLAS_COMPUTE_F32 == (int)CUBLAS_COMPUTE_32F && BLAS_COMPUTE_F64 == (int)CUBLAS_COMPUTE_64F, "types");
static_assert(BLAS_OPERATION_TRANSPOSE_A == (int)CUBLASLT_MATMUL_DESC_TRANSA, "attributes");
static_assert(BLAS_OPERATION_TRANSPOSE_B == (int)CUBLASLT_MATMUL_DESC_TRANSB, "attributes");
static_assert(BLAS_OPERATION_EPILOGUE == (int)CUBLASLT_MATMUL_DESC_EPILOGUE, "attributes");
static_assert(BLAS_OPERATION_BIAS == (int)CUBLASLT_MATMUL_DESC_BIAS_POINTER, "attributes");
static_assert(BLAS_EPILOGUE_BIAS == (int)CUBLASLT_EPILOGUE_BIAS, "epilogues");
static_assert(BLAS_PLAIN == (int)CUBLAS_OP_N && BLAS_TRANSPOSED == (int)CUBLAS_OP_T, "operations");
static_assert(BLAS_LAYOUT_BATCH == (int)CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, "attributes");
static_assert(BLAS_LAYOUT_BATCH_STRIDE == (int)CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, "attributes");
static_assert(BLAS_PREFER_WORKSPACE == (int)CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, "attributes");
static_assert(BLAS_PREFER_ALIGNMENT_A == (int)CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, "attributes");
static_assert(BLAS_PREFER_ALIGNMENT_D == (int)CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, "attributes");
static_assert(sizeof(struct blas_algorithm) == sizeof(cublasLtMatmulAlgo_t), "structs");
static_assert(sizeof(struct blas_choice) == sizeof(cublasLtMatmulHeuristicResult_t), "structs");
static_assert(offsetof(struct blas_choice, workspace) == offsetof(cublasLtMatmulHeuristicResult_t, workspaceSize) &&
                  offsetof(struct blas_choice, state) == offsetof(cublasLtMatmulHeuristicResult_t, state),
              "structs");

/* ---- functions: as many parameters, each of the same size and kind of register ---- */

/* One function type of theirs and ours in terms of what the calling convention sees: pointers are pointers, integers have their size. */
static void driver_functions(void)
{
#define P(x) ((void *)(uintptr_t)(x))
    /* Each line compiles only where theirs takes what ours declares. */
    cu_pointer memory = 0;
    size_t n = 0;
    CALLS(cuInit(0u));
    CALLS(cuDriverGetVersion((int *)NULL));
    CALLS(cuDeviceGetCount((int *)NULL));
    CALLS(cuDeviceGet((cu_device *)NULL, 0));
    CALLS(cuDeviceGetName((char *)NULL, 0, (cu_device)0));
    CALLS(cuDeviceGetAttribute((int *)NULL, CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK, (cu_device)0));
    CALLS(cuDevicePrimaryCtxRetain((cu_context *)NULL, (cu_device)0));
    CALLS(cuDevicePrimaryCtxRelease((cu_device)0));
    CALLS(cuCtxSetCurrent((cu_context)NULL));
    CALLS(cuMemGetInfo(&n, &n));
    CALLS(cuMemAlloc((CUdeviceptr *)P(&memory), n));
    CALLS(cuMemFree(memory));
    CALLS(cuMemHostAlloc((void **)NULL, n, 0u));
    CALLS(cuMemFreeHost(NULL));
    CALLS(cuMemcpyHtoDAsync(memory, (const void *)NULL, n, (cu_stream)NULL));
    CALLS(cuMemcpyDtoHAsync((void *)NULL, memory, n, (cu_stream)NULL));
    CALLS(cuMemcpyDtoDAsync(memory, memory, n, (cu_stream)NULL));
    CALLS(cuMemsetD8Async(memory, (unsigned char)0, n, (cu_stream)NULL));
    CALLS(cuStreamCreate((cu_stream *)NULL, 0u));
    CALLS(cuStreamDestroy((cu_stream)NULL));
    CALLS(cuStreamQuery((cu_stream)NULL));
    CALLS(cuStreamSynchronize((cu_stream)NULL));
    CALLS(cuEventCreate((cu_event *)NULL, 0u));
    CALLS(cuEventRecord((cu_event)NULL, (cu_stream)NULL));
    CALLS(cuEventSynchronize((cu_event)NULL));
    CALLS(cuEventDestroy((cu_event)NULL));
    CALLS(cuModuleLoadData((cu_module *)NULL, (const void *)NULL));
    CALLS(cuModuleUnload((cu_module)NULL));
    CALLS(cuModuleGetFunction((cu_function *)NULL, (cu_module)NULL, (const char *)NULL));
    CALLS(cuFuncSetAttribute((cu_function)NULL, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 0));
    CALLS(cuLaunchKernelEx((const CUlaunchConfig *)NULL, (cu_function)NULL, (void **)NULL, (void **)NULL));
    CALLS(cuStreamBeginCapture((cu_stream)NULL, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    CALLS(cuStreamEndCapture((cu_stream)NULL, (cu_graph *)NULL));
    CALLS(cuGraphInstantiateWithFlags((cu_graph_exec *)NULL, (cu_graph)NULL, 0ull));
    CALLS(cuGraphExecKernelNodeSetParams_v2((cu_graph_exec)NULL, (cu_graph_node)NULL,
                                            (const CUDA_KERNEL_NODE_PARAMS *)NULL));
    CALLS(cuStreamGetCaptureInfo_v3((cu_stream)NULL, (CUstreamCaptureStatus *)NULL, (cuuint64_t *)NULL,
                                    (cu_graph *)NULL, (const cu_graph_node **)NULL, (const CUgraphEdgeData **)NULL,
                                    (size_t *)NULL));
    CALLS(cuGraphGetEdges_v2((cu_graph)NULL, (cu_graph_node *)NULL, (cu_graph_node *)NULL, (CUgraphEdgeData *)NULL,
                             (size_t *)NULL));
    CALLS(cuGraphLaunch((cu_graph_exec)NULL, (cu_stream)NULL));
    CALLS(cuGraphExecDestroy((cu_graph_exec)NULL));
    CALLS(cuGraphDestroy((cu_graph)NULL));
    CALLS(cuGetErrorName((CUresult)0, (const char **)NULL));
    CALLS(cuGetErrorString((CUresult)0, (const char **)NULL));
#undef P
}

static void blas_functions(void)
{
    cublasLtMatmulDesc_t operation = NULL;
    cublasLtMatrixLayout_t layout = NULL;
    cublasLtMatmulPreference_t preference = NULL;
    blas_handle handle = NULL;
    CALLS(cublasLtCreate((blas_handle *)NULL));
    CALLS(cublasLtDestroy(handle));
    CALLS(cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    CALLS(cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_TRANSA, (const void *)NULL, (size_t)0));
    CALLS(cublasLtMatrixLayoutCreate(&layout, CUDA_R_32F, (uint64_t)0, (uint64_t)0, (int64_t)0));
    CALLS(cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_LD, (const void *)NULL, (size_t)0));
    CALLS(cublasLtMatmulPreferenceCreate(&preference));
    CALLS(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_IMPL_MASK, (const void *)NULL,
                                               (size_t)0));
    CALLS(cublasLtMatmulAlgoGetHeuristic(handle, operation, layout, layout, layout, layout, preference, 1,
                                         (cublasLtMatmulHeuristicResult_t *)NULL, (int *)NULL));
    CALLS(cublasLtMatmul(handle, operation, (const void *)NULL, (const void *)NULL, layout, (const void *)NULL, layout,
                         (const void *)NULL, (const void *)NULL, layout, (void *)NULL, layout,
                         (const cublasLtMatmulAlgo_t *)NULL, (void *)NULL, (size_t)0, (cu_stream)NULL));
    CALLS(cublasLtMatmulDescDestroy(operation));
    CALLS(cublasLtMatrixLayoutDestroy(layout));
    CALLS(cublasLtMatmulPreferenceDestroy(preference));
    CALLS(cublasLtGetVersion());
}

void (*const cuda_abi_checked[])(void);
void (*const cuda_abi_checked[])(void) = {driver_functions, blas_functions};
#endif

#if defined(TPC_NCCL_HEADERS)
#include <assert.h>
#include <nccl.h>

static_assert(NCCL_OK == (int)ncclSuccess && NCCL_IN_PROGRESS == (int)ncclInProgress &&
                  NCCL_INVALID_ARGUMENT == (int)ncclInvalidArgument,
              "results");
static_assert(NCCL_SUM == (int)ncclSum && NCCL_PRODUCT == (int)ncclProd && NCCL_MAXIMUM == (int)ncclMax &&
                  NCCL_MINIMUM == (int)ncclMin,
              "operations");
static_assert(NCCL_I8 == (int)ncclInt8 && NCCL_U8 == (int)ncclUint8 && NCCL_I32 == (int)ncclInt32, "types");
static_assert(NCCL_U32 == (int)ncclUint32 && NCCL_I64 == (int)ncclInt64 && NCCL_U64 == (int)ncclUint64, "types");
static_assert(NCCL_F16 == (int)ncclFloat16 && NCCL_F32 == (int)ncclFloat32 && NCCL_F64 == (int)ncclFloat64 &&
                  NCCL_BF16 == (int)ncclBfloat16,
              "types");
static_assert(NCCL_ID_BYTES == NCCL_UNIQUE_ID_BYTES && sizeof(struct nccl_id) == sizeof(ncclUniqueId), "the id");
static_assert(offsetof(struct nccl_config, magic) == offsetof(ncclConfig_t, magic) &&
                  offsetof(struct nccl_config, blocking) == offsetof(ncclConfig_t, blocking) &&
                  offsetof(struct nccl_config, net_name) == offsetof(ncclConfig_t, netName) &&
                  offsetof(struct nccl_config, split_share) == offsetof(ncclConfig_t, splitShare),
              "the configuration");
static_assert(NCCL_UNDEFINED == NCCL_CONFIG_UNDEF_INT, "the configuration");

static void nccl_functions(void)
{
    nccl_comm comm = NULL;
    ncclUniqueId id = {{0}};
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    const void *in = NULL;
    void *out = NULL;
    size_t n = 0;
    CALLS(ncclGetVersion((int *)NULL));
    CALLS(ncclGetUniqueId(&id));
    CALLS(ncclCommInitRankConfig(&comm, 1, id, 0, &config));
    CALLS(ncclCommSplit(comm, 0, 0, &comm, &config));
    CALLS(ncclCommAbort(comm));
    CALLS(ncclCommGetAsyncError(comm, (ncclResult_t *)NULL));
    CALLS(ncclGroupStart());
    CALLS(ncclGroupEnd());
    CALLS(ncclAllReduce(in, out, n, ncclFloat, ncclSum, comm, (cu_stream)NULL));
    CALLS(ncclAllGather(in, out, n, ncclFloat, comm, (cu_stream)NULL));
    CALLS(ncclReduceScatter(in, out, n, ncclFloat, ncclSum, comm, (cu_stream)NULL));
    CALLS(ncclReduce(in, out, n, ncclFloat, ncclSum, 0, comm, (cu_stream)NULL));
    CALLS(ncclBroadcast(in, out, n, ncclFloat, 0, comm, (cu_stream)NULL));
    CALLS(ncclSend(in, n, ncclFloat, 0, comm, (cu_stream)NULL));
    CALLS(ncclRecv(out, n, ncclFloat, 0, comm, (cu_stream)NULL));
    CALLS(ncclGetErrorString(ncclSuccess));
    CALLS(ncclGetLastError(comm));
}

void (*const nccl_abi_checked[])(void);
void (*const nccl_abi_checked[])(void) = {nccl_functions};
#endif

static void headers_agree(void **state)
{
    (void)state;
#if !defined(TPC_CUDA_HEADERS)
    print_message("CUDA's headers are not installed: nothing to compare with\n");
    skip();
#endif
}

/* Without CUDA there is one line that names what is missing, each time the same. */
static void missing_is_named(void **state)
{
    (void)state;
    const char *missing[2] = {NULL, NULL};
    for (int i = 0; i < 2; i++)
        if (cuda_driver(&missing[i])) {
            assert_string_equal(missing[i], "");
            missing[i] = "driver";
        }
    assert_true(*missing[0] && strchr(missing[0], '\n') == NULL);
    assert_string_equal(missing[0], missing[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(headers_agree), cmocka_unit_test(missing_is_named)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
