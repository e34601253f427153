/* codegen/attention_many_cuda.c - the text of attention on CUDA for many rows per group of keys.
 *
 * A block takes $Q rows, $L threads each, and goes through keys and values $Y at a time: scores, the running maximum and sum (rescaled when the maximum
 * grows), and the result in registers. Products are of f32 by plain multiplication.
 */
#include "codegen/cuda_impl.h"

enum { LANES = 8, ROWS = CUDA_ATTENTION_THREADS / LANES, MOST_KEYS = 32, SHARED_LIMIT = 48 << 10 };

static const char start_form[] =
    "    SHARED(float, q_rows, [$Q][$D]);\n"
    "    SHARED(float, k_rows, [$Y][$D + 1]);\n"
    "    SHARED(float, v_rows, [$Y][$W]);\n"
    "    SHARED(float, p_rows, [$Q][$Y + 1]);\n"
    "    const uint32_t lane = threadIdx.x % $L, own = threadIdx.x / $L;\n"
    "    const uint32_t tiles = (uint32_t)arguments.tiles;\n"
    "    for (uint32_t item = blockIdx.x; item < (uint32_t)arguments.items; item += gridDim.x) {\n"
    "        const uint32_t group = item / tiles, in_group = (item - group * tiles) * $Q;\n"
    "        const bool inside = own < (uint32_t)arguments.group - in_group;\n"
    "        const uint32_t row = group * (uint32_t)arguments.group + in_group + (inside ? own : 0);\n"
    "        const int64_t stop = arguments.keys;\n"
    "        int64_t q_at = arguments.q_offset, k_at = arguments.k_offset, v_at = arguments.v_offset;\n"
    "        int64_t out_at = arguments.out_offset;\n"
    "        uint32_t at_first = row, at_second = row;\n"
    "        LOCATE(first, $A, at_first, q_at, k_at)\n"
    "        LOCATE(second, $B, at_second, out_at, v_at)\n"
    "        WAIT_FOR_PREVIOUS();\n"
    "        for (int d = lane; d < $D; d += $L)\n"
    "            q_rows[own][d] = value_of(__ldg(&arguments.q[q_at + d * arguments.q_step]));\n";

static const char loop_form[] = "        float most = -INFINITY, sum = 0, result[$R] = {0};\n"
                                "        for (int64_t from = 0; from < stop; from += $Y) {\n"
                                "            __syncthreads(); /* the last keys are done with */\n"
                                "            for (int i = threadIdx.x; i < $Y * $D; i += 128) {\n"
                                "                const int64_t key = from + i / $D;\n"
                                "                k_rows[i / $D][i % $D] = key < stop\n"
                                "                    ? value_of(__ldg(&arguments.k[k_at + key * arguments.k_next + i % "
                                "$D * arguments.k_step])) : 0.0f;\n"
                                "            }\n"
                                "            for (int i = threadIdx.x; i < $Y * $W; i += 128) {\n"
                                "                const int64_t key = from + i / $W;\n"
                                "                v_rows[i / $W][i % $W] = key < stop\n"
                                "                    ? value_of(__ldg(&arguments.v[v_at + key * arguments.v_next + i % "
                                "$W * arguments.v_step])) : 0.0f;\n"
                                "            }\n"
                                "            __syncthreads();\n"
                                "            float scores[$Y / $L], best = most;\n"
                                "            UNROLL for (int j = 0; j < $Y / $L; j++) {\n"
                                "                float product = 0;\n"
                                "                for (int d = 0; d < $D; d++)\n"
                                "                    product += q_rows[own][d] * k_rows[lane + j * $L][d];\n"
                                "                scores[j] = -INFINITY;\n"
                                "                if (from + lane + j * $L < stop) {\n"
                                "                    const int64_t c$C = from + lane + j * $L;\n"
                                "                    float score;\n";

static const char end_form[] =
    "                    scores[j] = score;\n"
    "                }\n"
    "                best = scores[j] > best ? scores[j] : best;\n"
    "            }\n"
    "            for (int distance = $L / 2; distance > 0; distance >>= 1) {\n"
    "                const float other = __shfl_xor_sync(0xffffffffu, best, distance);\n"
    "                best = other > best ? other : best;\n"
    "            }\n"
    "            const float scale = most == best ? 1.0f : expf(most - best);\n"
    "            float more = 0;\n"
    "            UNROLL for (int j = 0; j < $Y / $L; j++) {\n"
    "                const float p = scores[j] == -INFINITY ? 0.0f : expf(scores[j] - best);\n"
    "                p_rows[own][lane + j * $L] = p;\n"
    "                more += p;\n"
    "            }\n"
    "            for (int distance = $L / 2; distance > 0; distance >>= 1)\n"
    "                more += __shfl_xor_sync(0xffffffffu, more, distance);\n"
    "            sum = sum * scale + more;\n"
    "            most = best;\n"
    "            __syncwarp();\n"
    "            UNROLL for (int i = 0; i < $R; i++) {\n"
    "                const int d = lane + i * $L;\n"
    "                float x = result[i] * scale;\n"
    "                if (d < $W)\n"
    "                    for (int key = 0; key < $Y; key++)\n"
    "                        x += p_rows[own][key] * v_rows[key][d];\n"
    "                result[i] = x;\n"
    "            }\n"
    "        }\n"
    "        UNROLL for (int i = 0; i < $R; i++) {\n"
    "            const int d = lane + i * $L;\n"
    "            const float x = result[i] / sum;\n"
    "            if (inside && d < $W)\n"
    "                arguments.out[out_at + d * arguments.out_step] = element_of($Z);\n"
    "        }\n";

/* Keys in shared memory at a time. */
static int64_t keys_for(int64_t key, int64_t row)
{
    int64_t keys = MOST_KEYS;
    while (keys > LANES && 4 * (ROWS * key + keys * (key + 1) + keys * row + ROWS * (keys + 1)) > SHARED_LIMIT)
        keys /= 2;
    return keys;
}

struct cuda_attention_form cuda_attention_many(struct cuda_set *set, struct cuda_letters *l, dtype t, int64_t key,
                                               int64_t row)
{
    (void)t;
    l->of['L' - 'A'] = cuda_number(set->arena, LANES);
    l->of['Q' - 'A'] = cuda_number(set->arena, ROWS);
    l->of['R' - 'A'] = cuda_number(set->arena, (row + LANES - 1) / LANES);
    l->of['Y' - 'A'] = cuda_number(set->arena, keys_for(key, row));
    return (struct cuda_attention_form){.name = "many",
                                        .functions =
                                            "/* $Q rows per block, $L threads each; keys and values $Y at a time. */\n",
                                        .start = start_form,
                                        .loop = loop_form,
                                        .end = end_form,
                                        .row_indent = 2,
                                        .score_indent = 5,
                                        .blocks = 1};
}
