/* runtime/cuda_api.h - the entry points of CUDA's driver, cuBLASLt and NCCL that tpc calls, as tables: declared here, found at run time.
 *
 * These are our own declarations of a published, stable binary interface: tpc builds without CUDA's headers and one binary runs with and without
 * CUDA. Where the headers are installed, tests/unit/cuda_abi_test.c compares. Sources: CUDA Driver API, cuBLAS and NCCL reference manuals.
 *
 * A table is loaded whole or not at all: what is missing is named in one line. NVRTC is codegen's (codegen/cuda.h).
 *
 * Section: cuda_api.c
 */
#ifndef TPC_RUNTIME_CUDA_API_H
#define TPC_RUNTIME_CUDA_API_H

#include "ir/base.h"

/* ---- driver: libcuda.so.1, from 12.0 on ----------------------------------------------------------------------- */

typedef int cu_result; /* 0: success */
typedef int cu_device;
typedef uint64_t cu_pointer; /* device memory */
typedef struct CUctx_st *cu_context;
typedef struct CUmod_st *cu_module;
typedef struct CUfunc_st *cu_function;
typedef struct CUstream_st *cu_stream;
typedef struct CUevent_st *cu_event;
typedef struct CUgraph_st *cu_graph;
typedef struct CUgraphNode_st *cu_graph_node;
typedef struct CUgraphExec_st *cu_graph_exec;

enum {
    CU_OK = 0,
    CU_OUT_OF_MEMORY = 2,
    CU_NO_DEVICE = 100,
    CU_NOT_READY = 600,
    CU_STREAM_PRIVATE = 1,        /* CU_STREAM_NON_BLOCKING */
    CU_EVENT_UNTIMED = 2,         /* CU_EVENT_DISABLE_TIMING */
    CU_CAPTURE_THREAD = 1,        /* CU_STREAM_CAPTURE_MODE_THREAD_LOCAL */
    CU_DEVICE_PROCESSORS = 16,    /* CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT */
    CU_DEVICE_MAJOR = 75,         /* CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR */
    CU_DEVICE_MINOR = 76,         /* CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR */
    CU_FUNCTION_SHARED_BYTES = 8, /* CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES */
    CU_LAUNCH_OVERLAPPED = 6,     /* CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION */
    CU_OVERLAP_DRIVER = 12030,    /* the first that captures such launches */
    CU_OLDEST_DRIVER = 12000
};

struct cu_launch_attribute {
    int attribute;
    union {
        int number;
        char room[64];
        uint64_t aligned;
    } value;
};

struct cu_launch {
    unsigned grid[3], block[3], shared_bytes;
    cu_stream stream;
    struct cu_launch_attribute *attribute;
    unsigned attributes;
};

struct cu_edge {
    unsigned char from_port, to_port, type; /* type 1: programmatic, the later node may start early */
    unsigned char reserved[5];
};

struct cu_kernel_node {
    cu_function function;
    unsigned grid[3], block[3], shared_bytes;
    void **parameters, **extra;
    void *kernel, *context; /* NULL: `function` says it */
};

/* X(slot, symbol, parameters) */
#define CUDA_DRIVER(X)                                                                                                 \
    X(init, cuInit, (unsigned flags))                                                                                  \
    X(driver_version, cuDriverGetVersion, (int *version))                                                              \
    X(device_count, cuDeviceGetCount, (int *count))                                                                    \
    X(device_get, cuDeviceGet, (cu_device * device, int ordinal))                                                      \
    X(device_name, cuDeviceGetName, (char *name, int length, cu_device device))                                        \
    X(device_attribute, cuDeviceGetAttribute, (int *value, int attribute, cu_device device))                           \
    X(context_retain, cuDevicePrimaryCtxRetain, (cu_context * context, cu_device device))                              \
    X(context_release, cuDevicePrimaryCtxRelease_v2, (cu_device device))                                               \
    X(context_set, cuCtxSetCurrent, (cu_context context))                                                              \
    X(memory_info, cuMemGetInfo_v2, (size_t * free_bytes, size_t * total))                                             \
    X(alloc, cuMemAlloc_v2, (cu_pointer * at, size_t bytes))                                                           \
    X(free, cuMemFree_v2, (cu_pointer at))                                                                             \
    X(host_alloc, cuMemHostAlloc, (void **at, size_t bytes, unsigned flags))                                           \
    X(host_free, cuMemFreeHost, (void *at))                                                                            \
    X(upload, cuMemcpyHtoDAsync_v2, (cu_pointer to, const void *from, size_t bytes, cu_stream stream))                 \
    X(download, cuMemcpyDtoHAsync_v2, (void *to, cu_pointer from, size_t bytes, cu_stream stream))                     \
    X(copy, cuMemcpyDtoDAsync_v2, (cu_pointer to, cu_pointer from, size_t bytes, cu_stream stream))                    \
    X(fill, cuMemsetD8Async, (cu_pointer to, unsigned char byte, size_t bytes, cu_stream stream))                      \
    X(stream_create, cuStreamCreate, (cu_stream * stream, unsigned flags))                                             \
    X(stream_destroy, cuStreamDestroy_v2, (cu_stream stream))                                                          \
    X(stream_query, cuStreamQuery, (cu_stream stream))                                                                 \
    X(stream_wait, cuStreamSynchronize, (cu_stream stream))                                                            \
    X(event_create, cuEventCreate, (cu_event * event, unsigned flags))                                                 \
    X(event_record, cuEventRecord, (cu_event event, cu_stream stream))                                                 \
    X(event_wait, cuEventSynchronize, (cu_event event))                                                                \
    X(event_query, cuEventQuery, (cu_event event))                                                                     \
    X(event_destroy, cuEventDestroy_v2, (cu_event event))                                                              \
    X(module_load, cuModuleLoadData, (cu_module * module, const void *image))                                          \
    X(module_unload, cuModuleUnload, (cu_module module))                                                               \
    X(module_function, cuModuleGetFunction, (cu_function * function, cu_module module, const char *name))              \
    X(function_set, cuFuncSetAttribute, (cu_function function, int attribute, int value))                              \
    X(launch, cuLaunchKernelEx,                                                                                        \
      (const struct cu_launch *launch, cu_function function, void **parameters, void **extra))                         \
    X(capture_begin, cuStreamBeginCapture_v2, (cu_stream stream, int mode))                                            \
    X(capture_end, cuStreamEndCapture, (cu_stream stream, cu_graph * graph))                                           \
    X(graph_instantiate, cuGraphInstantiateWithFlags,                                                                  \
      (cu_graph_exec * executable, cu_graph graph, unsigned long long flags))                                          \
    X(graph_kernel_set, cuGraphExecKernelNodeSetParams_v2,                                                             \
      (cu_graph_exec executable, cu_graph_node node, const struct cu_kernel_node *kernel))                             \
    X(graph_launch, cuGraphLaunch, (cu_graph_exec executable, cu_stream stream))                                       \
    X(graph_exec_destroy, cuGraphExecDestroy, (cu_graph_exec executable))                                              \
    X(graph_destroy, cuGraphDestroy, (cu_graph graph))                                                                 \
    X(error_name, cuGetErrorName, (cu_result error, const char **name))                                                \
    X(error_text, cuGetErrorString, (cu_result error, const char **text))

/* The same, but NULL where the driver is older than what is said. 12.3: */
#define CUDA_DRIVER_LATER(X)                                                                                           \
    X(capture_info, cuStreamGetCaptureInfo_v3,                                                                         \
      (cu_stream stream, int *state, uint64_t *id, cu_graph *graph, const cu_graph_node **node, const void **edge,     \
       size_t *nodes))                                                                                                 \
    X(graph_edges, cuGraphGetEdges_v2,                                                                                 \
      (cu_graph graph, cu_graph_node * from, cu_graph_node * to, struct cu_edge * edge, size_t * count))

#define API_SLOT(slot, symbol, parameters) cu_result(*slot) parameters;
struct cuda_driver {
    CUDA_DRIVER(API_SLOT)
    CUDA_DRIVER_LATER(API_SLOT)
    int version;      /* 12040 is 12.4 */
    const char *path; /* of the library */
};

/* ---- cuBLASLt: libcublasLt.so.12, .13 --------------------------------------------------------------------------- */

typedef struct cublasLtContext *blas_handle;
typedef struct blas_opaque *blas_operation, *blas_layout, *blas_preference;

struct blas_algorithm {
    uint64_t data[8];
};
struct blas_choice {
    struct blas_algorithm algorithm;
    size_t workspace;
    int state; /* 0: good */
    float waves;
    int reserved[4];
};

enum {
    BLAS_TYPE_F32 = 0, /* cudaDataType_t */
    BLAS_TYPE_F64 = 1,
    BLAS_TYPE_F16 = 2,
    BLAS_TYPE_BF16 = 14,
    BLAS_COMPUTE_F32 = 68, /* cublasComputeType_t */
    BLAS_COMPUTE_F64 = 70,
    BLAS_OPERATION_TRANSPOSE_A = 3, /* cublasLtMatmulDescAttributes_t; values: */
    BLAS_OPERATION_TRANSPOSE_B = 4,
    BLAS_OPERATION_EPILOGUE = 7,
    BLAS_OPERATION_BIAS = 8,
    BLAS_PLAIN = 0,
    BLAS_TRANSPOSED = 1,
    BLAS_EPILOGUE_BIAS = 4, /* cublasLtEpilogue_t */
    BLAS_LAYOUT_BATCH = 5,  /* cublasLtMatrixLayoutAttribute_t */
    BLAS_LAYOUT_BATCH_STRIDE = 6,
    BLAS_PREFER_WORKSPACE = 1, /* cublasLtMatmulPreferenceAttributes_t */
    BLAS_PREFER_ALIGNMENT_A = 5,
    BLAS_PREFER_ALIGNMENT_B = 6,
    BLAS_PREFER_ALIGNMENT_C = 7,
    BLAS_PREFER_ALIGNMENT_D = 8
};

#define CUDA_BLAS(X)                                                                                                   \
    X(create, cublasLtCreate, (blas_handle * handle))                                                                  \
    X(destroy, cublasLtDestroy, (blas_handle handle))                                                                  \
    X(operation_create, cublasLtMatmulDescCreate, (blas_operation * operation, int compute, int scale_type))           \
    X(operation_destroy, cublasLtMatmulDescDestroy, (blas_operation operation))                                        \
    X(operation_set, cublasLtMatmulDescSetAttribute,                                                                   \
      (blas_operation operation, int attribute, const void *value, size_t bytes))                                      \
    X(layout_create, cublasLtMatrixLayoutCreate,                                                                       \
      (blas_layout * layout, int type, uint64_t rows, uint64_t columns, int64_t leading))                              \
    X(layout_destroy, cublasLtMatrixLayoutDestroy, (blas_layout layout))                                               \
    X(layout_set, cublasLtMatrixLayoutSetAttribute,                                                                    \
      (blas_layout layout, int attribute, const void *value, size_t bytes))                                            \
    X(preference_create, cublasLtMatmulPreferenceCreate, (blas_preference * preference))                               \
    X(preference_destroy, cublasLtMatmulPreferenceDestroy, (blas_preference preference))                               \
    X(preference_set, cublasLtMatmulPreferenceSetAttribute,                                                            \
      (blas_preference preference, int attribute, const void *value, size_t bytes))                                    \
    X(choose, cublasLtMatmulAlgoGetHeuristic,                                                                          \
      (blas_handle handle, blas_operation operation, blas_layout a, blas_layout b, blas_layout c, blas_layout d,       \
       blas_preference preference, int wanted, struct blas_choice *choices, int *got))                                 \
    X(multiply, cublasLtMatmul,                                                                                        \
      (blas_handle handle, blas_operation operation, const void *alpha, const void *a, blas_layout a_layout,           \
       const void *b, blas_layout b_layout, const void *beta, const void *c, blas_layout c_layout, void *d,            \
       blas_layout d_layout, const struct blas_algorithm *algorithm, void *workspace, size_t workspace_bytes,          \
       cu_stream stream))

struct cuda_blas {
    CUDA_BLAS(API_SLOT)
    size_t (*get_version)(void); /* cublasLtGetVersion */
    size_t version;              /* 120805 is 12.8.5 */
    const char *path;
};

/* ---- NCCL: libnccl.so.2, from 2.18 on ------------------------------------------------------------------------------ */

typedef struct ncclComm *nccl_comm;
enum { NCCL_ID_BYTES = 128 };
struct nccl_id {
    char bytes[NCCL_ID_BYTES];
};
/* As of 2.18; later libraries take it by its size and version. */
struct nccl_config {
    size_t size;
    unsigned magic, version;
    int blocking, cga_cluster_size, least_ctas, most_ctas;
    const char *net_name;
    int split_share;
};
enum {
    NCCL_OK = 0,
    NCCL_INVALID_ARGUMENT = 4,
    NCCL_IN_PROGRESS = 7,
    NCCL_CONFIG_VERSION = 21800,
    NCCL_UNDEFINED = INT32_MIN,
    NCCL_SUM = 0,
    NCCL_PRODUCT = 1,
    NCCL_MAXIMUM = 2,
    NCCL_MINIMUM = 3,
    NCCL_I8 = 0,
    NCCL_U8 = 1,
    NCCL_I32 = 2,
    NCCL_U32 = 3,
    NCCL_I64 = 4,
    NCCL_U64 = 5,
    NCCL_F16 = 6,
    NCCL_F32 = 7,
    NCCL_F64 = 8,
    NCCL_BF16 = 9,
    NCCL_OLDEST = 21800
};
#define NCCL_CONFIG_MAGIC 0xcafebeefu

#define CUDA_NCCL(X)                                                                                                   \
    X(get_version, ncclGetVersion, (int *version))                                                                     \
    X(get_id, ncclGetUniqueId, (struct nccl_id * id))                                                                  \
    X(open, ncclCommInitRankConfig,                                                                                    \
      (nccl_comm * comm, int ranks, struct nccl_id id, int rank, struct nccl_config *config))                          \
    X(split, ncclCommSplit, (nccl_comm comm, int color, int key, nccl_comm *out, struct nccl_config *config))          \
    X(abort, ncclCommAbort, (nccl_comm comm))                                                                          \
    X(state, ncclCommGetAsyncError, (nccl_comm comm, int *state))                                                      \
    X(group_start, ncclGroupStart, (void))                                                                             \
    X(group_end, ncclGroupEnd, (void))                                                                                 \
    X(all_reduce, ncclAllReduce,                                                                                       \
      (const void *in, void *out, size_t count, int type, int operation, nccl_comm comm, cu_stream stream))            \
    X(all_gather, ncclAllGather,                                                                                       \
      (const void *in, void *out, size_t count, int type, nccl_comm comm, cu_stream stream))                           \
    X(reduce_scatter, ncclReduceScatter,                                                                               \
      (const void *in, void *out, size_t count, int type, int operation, nccl_comm comm, cu_stream stream))            \
    X(reduce, ncclReduce,                                                                                              \
      (const void *in, void *out, size_t count, int type, int operation, int root, nccl_comm comm, cu_stream stream))  \
    X(broadcast, ncclBroadcast,                                                                                        \
      (const void *in, void *out, size_t count, int type, int root, nccl_comm comm, cu_stream stream))                 \
    X(send, ncclSend, (const void *in, size_t count, int type, int peer, nccl_comm comm, cu_stream stream))            \
    X(receive, ncclRecv, (void *out, size_t count, int type, int peer, nccl_comm comm, cu_stream stream))

struct cuda_nccl {
    CUDA_NCCL(API_SLOT)
    const char *(*error_text)(int result);     /* ncclGetErrorString */
    const char *(*last_error)(nccl_comm comm); /* ncclGetLastError */
    int version;                               /* 22703 is 2.27.3 */
    const char *path;
};
#undef API_SLOT

/* ---- loading: cuda_api.c --------------------------------------------------------------------------------------------- */

/* NULL: `missing` says in one line what is not there, or too old. The first call of the process looks, later ones get the same answer; texts live as
 * long as the process. The driver is initialised (cuInit). */
const struct cuda_driver *cuda_driver(const char **missing);
const struct cuda_blas *cuda_blas(const char **missing);
const struct cuda_nccl *cuda_nccl(const char **missing);

/* "CUDA_ERROR_OUT_OF_MEMORY (out of memory)" */
const char *cuda_error(const struct cuda_driver *d, cu_result error, char *to, size_t room);

#endif
