/* codegen/attention_split_cuda.c - the text of attention on CUDA for few rows: how rows and keys are shared out, and put together again.
 *
 * Keys are in splits, one for each block, and a split's in the block's four warps. Each leaves a part: results, the maximum and the sum of each row. A block puts
 * its warps' together; with several splits it leaves that in the workspace and arrives, and the last to come, whichever that is, puts those together in their
 * order: so the bits are the same in every run. Both are one loop, since its text runs once: instructions that are not in the cache yet are
 * what a short past takes its time for.
 *
 * Splits divide the keys that some row of the tile may see. Where it then turns out that a row sees none but those that a finite number hides, the last
 * block takes a second turn, over all keys.
 */
#include "codegen/cuda_impl.h"

const char cuda_attention_shared_form[] =
    "    SHARED(float, parts, [4][$G][$P]); /* of the warps: results, maximum, sum */\n"
    "    SHARED(int64_t, out_of, [$G]);\n"
    "    SHARED(bool, zero_of, [$G]);\n"
    "    SHARED(bool, unseen, [$G]); /* a row has no score but what a number hides */\n"
    "    SHARED(uint32_t, arrived, [1]);\n";

/* Where a block works, once lane, warp and own, its row, are known: loops over items. */
const char cuda_attention_place_form[] =
    "    const uint32_t splits = (uint32_t)arguments.splits;\n"
    "    for (uint32_t item = blockIdx.x; item < (uint32_t)arguments.items; item += gridDim.x) {\n"
    "        const uint32_t of_tile = tpc_divide(item, arguments.by_splits), split = item - of_tile * splits;\n"
    "        const uint32_t group = tpc_divide(of_tile, arguments.by_tiles);\n"
    "        const uint32_t in_group = (of_tile - group * (uint32_t)arguments.tiles) * $G;\n"
    "        const uint32_t here = (uint32_t)arguments.group - in_group;\n"
    "        const uint32_t row = group * (uint32_t)arguments.group + in_group + (own < here ? own : 0);\n"
    "        int64_t q_at = arguments.q_offset, k_at = arguments.k_offset, v_at = arguments.v_offset;\n"
    "        int64_t out_at = arguments.out_offset;\n"
    "        LOCATE_ROW\n"
    "        WAIT_FOR_PREVIOUS();\n";

/* Once it is known which keys are seen: low .. high, per_split. Ends in cuda_attention_gather_form. */
const char cuda_attention_turns_form[] =
    "        bool whole = false; /* the second turn: all keys, by one block */\n"
    "        for (uint32_t shares = splits;; shares = 1, whole = true, low = 0, high = (uint32_t)arguments.keys) {\n"
    "        const uint32_t start = low + (whole ? 0 : split * per_split);\n"
    "        const uint32_t stop = whole || high - low < (split + 1) * per_split ? high : start + per_split;\n";

/* A thread has 4 columns of a row, and reads those of 8 parts at once; what is read beyond the last part counts nothing. Splits behind what is seen have no keys. */
const char cuda_attention_gather_form[] =
    "        const uint32_t rows = here < $G ? here : $G;\n"
    "        bool merges = false, again = false;\n"
    "        const float *from = parts[0][0];\n"
    "        __syncthreads();\n"
    "        ROLLED for (uint32_t count = 4, each = 0;; count = splits, each = per_split) {\n"
    "            ROLLED for (uint32_t unit = threadIdx.x; unit < rows * ($P / 4 - 1); unit += 128) {\n"
    "                const uint32_t r = unit / ($P / 4 - 1), d = unit % ($P / 4 - 1) * 4;\n"
    "                float best = -INFINITY, total = 0;\n"
    "                ALIGNED(16) float x[4] = {0, 0, 0, 0};\n"
    "                ROLLED for (uint32_t s = 0; s == 0 || (s < count && s * each < high - low); s += 8) {\n"
    "                    ALIGNED(16) float y[8][4], of_part[8][2];\n"
    "                    float top = best;\n"
    "                    UNROLL for (int u = 0; u < 8; u++) {\n"
    "                        const float *const at = from + ((s + u < count ? s + u : count - 1) * $G + r) * $P;\n"
    "                        tpc_write_16(y[u], at + d);\n"
    "                        tpc_write_8(of_part[u], at + $P - 4);\n"
    "                    }\n"
    "                    UNROLL for (int u = 0; u < 8; u++) {\n"
    "                        of_part[u][0] = s + u < count ? of_part[u][0] : -INFINITY;\n"
    "                        top = fmaxf(top, of_part[u][0]);\n"
    "                    }\n"
    "                    const float least = top == -INFINITY ? 0.0f : top, scale = tpc_exp_near(best - least);\n"
    "                    total *= scale;\n"
    "                    UNROLL for (int i = 0; i < 4; i++)\n"
    "                        x[i] *= scale;\n"
    "                    UNROLL for (int u = 0; u < 8; u++) {\n"
    "                        const float weight = tpc_exp_near(of_part[u][0] - least);\n"
    "                        total += weight * of_part[u][1];\n"
    "                        UNROLL for (int i = 0; i < 4; i++)\n"
    "                            x[i] += weight * y[u][i];\n"
    "                    }\n"
    "                    best = top;\n"
    "                }\n"
    "                if (merges || shares == 1) {\n"
    "                    const float inverse = 1.0f / total;\n"
    "                    UNROLL for (int i = 0; i < 4; i++) {\n"
    "                        const float value = x[i] * inverse;\n"
    "                        if (d + i < $W) {\n"
    "                            const float x = zero_of[r] ? 0.0f : value;\n"
    "                            arguments.out[out_of[r] + (d + i) * arguments.out_step] = element_of($Z);\n"
    "                        }\n"
    "                    }\n"
    "                } else {\n"
    "                    float *const part = arguments.part + ((int64_t)item * $G + r) * $P;\n"
    "                    ALIGNED(16) const float of_block[4] = {best, total, 0, 0};\n"
    "                    tpc_store_16(part + d, x);\n"
    "                    if (d == 0)\n"
    "                        tpc_store_16(part + $P - 4, of_block);\n"
    "                }\n"
    "                if ($F && d == 0)\n"
    "                    unseen[r] = best <= $O;\n"
    "            }\n"
    "            if (merges || shares == 1)\n"
    "                break;\n"
    "            __syncthreads();\n"
    "            if (threadIdx.x == 0)\n"
    "                arrived[0] = tpc_arrive(&$N_arrived[of_tile]);\n"
    "            __syncthreads();\n"
    "            if (arrived[0] != splits - 1)\n"
    "                break;\n"
    "            merges = true;\n"
    "            from = arguments.part + (int64_t)(item - split) * $G * $P;\n"
    "        }\n"
    "        if (merges && threadIdx.x == 0)\n"
    "            $N_arrived[of_tile] = 0;\n"
    "        if ($F && (merges || shares == 1) && (low > 0 || high < (uint32_t)arguments.keys)) {\n"
    "            __syncthreads();\n"
    "            for (uint32_t r = 0; r < rows; r++)\n"
    "                again |= unseen[r];\n"
    "        }\n"
    "        if (!again)\n"
    "            break;\n"
    "        __syncthreads(); /* some row sees nothing: then what numbers hide counts */\n"
    "        }\n";
