/* codegen/prelude_matrix_cuda.c - what functions in CUDA's text call for tensor cores, as PTX: products of a warp, matrices from shared memory, copies to shared memory
 * that are waited for later. The model of CUDA (tests/cuda_model) has functions of these names, and says there what they do.
 */
#include "codegen/cuda_impl.h"

/* clang-format off */
const struct prelude_function prelude_functions_matrix[] = {
    {"tpc_pack_bf16", "#ifdef __CUDACC_RTC__\n"
     "static __device__ __forceinline__ uint32_t tpc_pack_bf16(float low, float high)\n"
     "{\n"
     "    uint32_t pair;\n"
     "    asm(\"cvt.rn.bf16x2.f32 %0, %1, %2;\" : \"=r\"(pair) : \"f\"(high), \"f\"(low));\n"
     "    return pair;\n"
     "}\n"
     "#endif\n"},
    {"tpc_mma_bf16", "#ifdef __CUDACC_RTC__\n"
     "static __device__ __forceinline__ void tpc_mma_bf16(float *d, const uint32_t *a, const uint32_t *b)\n"
     "{\n"
     "    asm volatile(\"mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\"\n"
     "                 : \"+f\"(d[0]), \"+f\"(d[1]), \"+f\"(d[2]), \"+f\"(d[3])\n"
     "                 : \"r\"(a[0]), \"r\"(a[1]), \"r\"(a[2]), \"r\"(a[3]), \"r\"(b[0]), \"r\"(b[1]));\n"
     "}\n"
     "#endif\n"},
    {"tpc_pack_f16", "#ifdef __CUDACC_RTC__\n"
     "static __device__ __forceinline__ uint32_t tpc_pack_f16(float low, float high)\n"
     "{\n"
     "    uint32_t pair;\n"
     "    asm(\"cvt.rn.f16x2.f32 %0, %1, %2;\" : \"=r\"(pair) : \"f\"(high), \"f\"(low));\n"
     "    return pair;\n"
     "}\n"
     "#endif\n"},
    {"tpc_mma_f16", "#ifdef __CUDACC_RTC__\n"
     "static __device__ __forceinline__ void tpc_mma_f16(float *d, const uint32_t *a, const uint32_t *b)\n"
     "{\n"
     "    asm volatile(\"mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\"\n"
     "                 : \"+f\"(d[0]), \"+f\"(d[1]), \"+f\"(d[2]), \"+f\"(d[3])\n"
     "                 : \"r\"(a[0]), \"r\"(a[1]), \"r\"(a[2]), \"r\"(a[3]), \"r\"(b[0]), \"r\"(b[1]));\n"
     "}\n"
     "#endif\n"},
    {"tpc_load_matrices", "#ifdef __CUDACC_RTC__\n"
     "static __device__ __forceinline__ void tpc_load_matrices(uint32_t *to, const void *row)\n"
     "{\n"
     "    asm volatile(\"ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\"\n"
     "                 : \"=r\"(to[0]), \"=r\"(to[1]), \"=r\"(to[2]), \"=r\"(to[3])\n"
     "                 : \"r\"((uint32_t)__cvta_generic_to_shared(row)));\n"
     "}\n"
     "#endif\n"},
    {"tpc_load_matrices_transposed", "#ifdef __CUDACC_RTC__\n"
     "static __device__ __forceinline__ void tpc_load_matrices_transposed(uint32_t *to, const void *row)\n"
     "{\n"
     "    asm volatile(\"ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\"\n"
     "                 : \"=r\"(to[0]), \"=r\"(to[1]), \"=r\"(to[2]), \"=r\"(to[3])\n"
     "                 : \"r\"((uint32_t)__cvta_generic_to_shared(row)));\n"
     "}\n"
     "#endif\n"},
    {"tpc_copy_async_16", "#ifdef __CUDACC_RTC__\n"
     "static __device__ __forceinline__ void tpc_copy_async_16(void *to, const void *from, bool there)\n"
     "{\n"
     "    asm volatile(\"cp.async.cg.shared.global [%0], [%1], 16, %2;\"\n"
     "                 : : \"r\"((uint32_t)__cvta_generic_to_shared(to)), \"l\"(from), \"r\"(there ? 16 : 0) : \"memory\");\n"
     "}\n"
     "#endif\n"},
    {"tpc_commit_async", "#ifdef __CUDACC_RTC__\n"
     "static __device__ __forceinline__ void tpc_commit_async()\n"
     "{\n"
     "    asm volatile(\"cp.async.commit_group;\" ::: \"memory\");\n"
     "}\n"
     "#endif\n"},
    {"tpc_wait_async", "#ifdef __CUDACC_RTC__\n"
     "static __device__ __forceinline__ void tpc_wait_async()\n"
     "{\n"
     "    asm volatile(\"cp.async.wait_group 1;\" ::: \"memory\");\n"
     "}\n"
     "#endif\n"},
    {"tpc_thread", "#ifdef __CUDACC_RTC__\n"
     "/* threadIdx.x, read again: what is computed from it is not kept in registers between two uses. */\n"
     "static __device__ __forceinline__ int tpc_thread()\n"
     "{\n"
     "    int x;\n"
     "    asm volatile(\"mov.u32 %0, %%tid.x;\" : \"=r\"(x));\n"
     "    return x;\n"
     "}\n"
     "#endif\n"},
    {"tpc_wait_all_async", "#ifdef __CUDACC_RTC__\n"
     "static __device__ __forceinline__ void tpc_wait_all_async()\n"
     "{\n"
     "    asm volatile(\"cp.async.wait_all;\" ::: \"memory\");\n"
     "}\n"
     "#endif\n"},
    {"tpc_exp2_near", "#ifdef __CUDACC_RTC__\n"
     "static __device__ __forceinline__ float tpc_exp2_near(float x)\n"
     "{\n"
     "    float y;\n"
     "    asm(\"ex2.approx.ftz.f32 %0, %1;\" : \"=f\"(y) : \"f\"(x));\n"
     "    return y;\n"
     "}\n"
     "#endif\n"},
    {"tpc_exp_near", "#ifdef __CUDACC_RTC__\n"
     "static __device__ __forceinline__ float tpc_exp_near(float x)\n"
     "{\n"
     "    float y;\n"
     "    asm(\"ex2.approx.ftz.f32 %0, %1;\" : \"=f\"(y) : \"f\"(x * 1.44269504f));\n"
     "    return y;\n"
     "}\n"
     "#endif\n"},
};
/* clang-format on */
const uint32_t prelude_function_count_matrix = sizeof prelude_functions_matrix / sizeof prelude_functions_matrix[0];
