/* tests/cuda_model/matrix.c - what CUDA's kernels have in PTX: 16-bit floats, and the tensor cores' operations of a warp. */
#include "tests/cuda_model/device.h"

#include "tests/cuda_model/cuda_model.h"

/* ---- numbers ---- */

float tpc_from_f16(uint16_t h)
{
    uint32_t magnitude = (uint32_t)(h & 0x7fff) << 13, sign = (uint32_t)(h & 0x8000) << 16;
    uint32_t finite = __float_as_uint(__uint_as_float(magnitude) * 0x1p112f);
    return __uint_as_float((magnitude >= 0x0f800000u ? magnitude | 0x7f800000u : finite) | sign);
}

uint16_t tpc_to_f16(float x)
{
    uint32_t bits = __float_as_uint(x), sign = bits >> 16 & 0x8000u, a = bits & 0x7fffffffu;
    if (a > 0x7f800000u)
        return 0x7fff; /* as the hardware's */
    if (a >= 0x477ff000u)
        return (uint16_t)(sign | 0x7c00u);
    if (a < 0x38800000u)
        return (uint16_t)(sign | (__float_as_uint(__uint_as_float(a) + 0.5f) - 0x3f000000u));
    return (uint16_t)(sign | (a - 0x38000000u + 0xfffu + (a >> 13 & 1u)) >> 13);
}

uint16_t tpc_to_bf16(float x)
{
    uint32_t bits = __float_as_uint(x);
    return x != x ? 0x7fff : (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

float tpc_exp2_near(float x)
{
    float y = exp2f(x);
    return y < 0x1p-126f ? 0 : y;
}

float tpc_exp_near(float x)
{
    return tpc_exp2_near(x * 1.44269504f);
}

uint32_t tpc_pack_bf16(float low, float high)
{
    return tpc_to_bf16(low) | (uint32_t)tpc_to_bf16(high) << 16;
}

uint32_t tpc_pack_f16(float low, float high)
{
    return tpc_to_f16(low) | (uint32_t)tpc_to_f16(high) << 16;
}

/* ---- tensor cores ---- */

static float half_of(uint32_t pair, uint32_t which, bool bf16)
{
    uint16_t h = (uint16_t)(pair >> 16 * which);
    return bf16 ? __uint_as_float((uint32_t)h << 16) : tpc_from_f16(h);
}

static void multiply(float d[4], const uint32_t a[4], const uint32_t b[2], bool bf16)
{
    uint32_t mine[6], lane = model_lane();
    memcpy(mine, a, 16);
    memcpy(mine + 4, b, 8);
    unsigned char(*all)[MODEL_SLOT] = model_meet(UINT32_MAX, mine, sizeof mine);
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        for (uint32_t k = 0; k < 16; k++) {
            uint32_t left, right;
            memcpy(&left, all[row % 8 * 4 + k % 8 / 2] + 4 * (row / 8 + k / 8 * 2), 4);
            memcpy(&right, all[column * 4 + k % 8 / 2] + 4 * (4 + k / 8), 4);
            d[i] += half_of(left, k % 2, bf16) * half_of(right, k % 2, bf16);
        }
    }
}

void tpc_mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    multiply(d, a, b, true);
}

void tpc_mma_f16(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    multiply(d, a, b, false);
}

static void load_matrices(uint32_t to[4], const void *row, bool transposed)
{
    uint32_t lane = model_lane();
    if ((uintptr_t)row % 16)
        model_failed("a row of a matrix that is not aligned to 16 bytes");
    model_touch_shared(row, 16, false);
    unsigned char(*all)[MODEL_SLOT] = model_meet(UINT32_MAX, row, 16);
    for (uint32_t i = 0; i < 4; i++)
        for (uint32_t half = 0; half < 2; half++) {
            uint32_t r = transposed ? lane % 4 * 2 + half : lane / 4, c = transposed ? lane / 4 : lane % 4 * 2 + half;
            memcpy((char *)&to[i] + 2 * half, all[8 * i + r] + 2 * c, 2);
        }
}

void tpc_load_matrices(uint32_t to[4], const void *row)
{
    load_matrices(to, row, false);
}

void tpc_load_matrices_transposed(uint32_t to[4], const void *row)
{
    load_matrices(to, row, true);
}
