/* codegen/attention_narrow_cuda.c - the text of attention on CUDA for up to 8 rows per group of keys in f16 and bf16: as attention_few_cuda.c, with products by
 * tensor cores, which take few instructions even where half of what they compute is of no use.
 *
 * A warp takes 16 keys at a time, straight from memory into the registers of the instruction's fragments, 16 bytes per access: a contraction may run over the
 * head in any order, so a lane's 8 neighbouring elements stand for what the instruction calls columns 2t, 2t+1, 2t+8, 2t+9 of two steps; of values, a lane has 8 columns
 * of 4 keys, which are 8 columns of 8 products. Rows 8 to 15 of the instruction are zeros.
 */
#include "codegen/cuda_impl.h"

enum { ROWS = 8, MOST_WIDTH = 128 };

static const char functions_form[] =
    "struct $N_keys {\n"
    "    ALIGNED(16) uint32_t k[2][$H][4], v[4][$I][4];\n"
    "};\n"
    "/* What belongs to this lane of 16 keys and values from `first` on; behind the last, it is that again. */\n"
    "static __device__ inline void fetch(struct $N_keys *to, const $E *k, const $E *v, uint32_t first, uint32_t last,\n"
    "                                    int64_t k_next, int64_t v_next)\n"
    "{\n"
    "    const uint32_t row = threadIdx.x % 32 / 4, pair = threadIdx.x % 4;\n"
    "    UNROLL for (int n = 0; n < 2; n++) {\n"
    "        const uint32_t key = first + n * 8 + row;\n"
    "        const $E *const at = k + (key < last ? key : last) * k_next + pair * 8;\n"
    "        UNROLL for (int j = 0; j < $H; j++) {\n"
    "            if ($D % 32 != 0) /* what q has no columns for */\n"
    "                UNROLL for (int i = 0; i < 4; i++)\n"
    "                    to->k[n][j][i] = 0;\n"
    "            if (j * 32 + pair * 8 < $D)\n"
    "                tpc_read_16(to->k[n][j], at + j * 32);\n"
    "        }\n"
    "    }\n"
    "    UNROLL for (int n = 0; n < 4; n++) {\n"
    "        const uint32_t key = first + n / 2 * 8 + pair * 2 + n % 2;\n"
    "        const $E *const at = v + (key < last ? key : last) * v_next + row * 8;\n"
    "        UNROLL for (int j = 0; j < $I; j++) {\n"
    "            if ($W % 64 != 0)\n"
    "                UNROLL for (int i = 0; i < 4; i++)\n"
    "                    to->v[n][j][i] = 0;\n"
    "            if (j * 64 + row * 8 < $W)\n"
    "                tpc_read_16(to->v[n][j], at + j * 64);\n"
    "        }\n"
    "    }\n"
    "}\n"
    "/* Tiles of rows: splits that are done, 0 between launches. */\n"
    "static __device__ uint32_t $N_arrived[$S];\n"
    "/* Up to 8 rows per block, whose warps take 16 keys at a time. */\n";

static const char lanes_form[] =
    "    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, own = lane / 4, pair = lane % 4;\n";

static const char start_form[] = "        ALIGNED(16) uint32_t q[$H][4];\n"
                                 "        UNROLL for (int j = 0; j < $H; j++) {\n"
                                 "            UNROLL for (int i = 0; i < 4; i++)\n"
                                 "                q[j][i] = 0;\n"
                                 "            if (j * 32 + pair * 8 < $D)\n"
                                 "                tpc_read_16(q[j], arguments.q + q_at + j * 32 + pair * 8);\n"
                                 "        }\n";

static const char loop_form[] =
    "        const bool first = warp == 0 && (split == 0 || whole); /* counts the row's sink, in one lane */\n"
    "        float most = first ? sink : -INFINITY, sum = most > -INFINITY && pair == 0 ? 1 : 0;\n"
    "        float result[$I * 8][4];\n"
    "        UNROLL for (int n = 0; n < $I * 8; n++)\n"
    "            UNROLL for (int i = 0; i < 4; i++)\n"
    "                result[n][i] = 0;\n"
    "        for (uint32_t from = start + warp * 16; from < stop; from += 64) {\n"
    "            struct $N_keys keys;\n"
    "            fetch(&keys, arguments.k + k_at, arguments.v + v_at, from, stop - 1, arguments.k_next, "
    "arguments.v_next);\n"
    "            float s[2][4] = {{0, 0, 0, 0}, {0, 0, 0, 0}};\n"
    "            UNROLL for (int j = 0; j < $H; j++)\n"
    "                UNROLL for (int step = 0; step < 4; step += 2) {\n"
    "                    const uint32_t rows_of_q[4] = {q[j][step], 0, q[j][step + 1], 0};\n"
    "                    tpc_mma_$T(s[0], rows_of_q, keys.k[0][j] + step);\n"
    "                    tpc_mma_$T(s[1], rows_of_q, keys.k[1][j] + step);\n"
    "                }\n"
    "            float best = most;\n"
    "            UNROLL for (int e = 0; e < 4; e++) {\n"
    "                const uint32_t key = from + e / 2 * 8 + pair * 2 + e % 2;\n"
    "                const int64_t c$C = key < stop ? key : stop - 1;\n"
    "                const float product = s[e / 2][e % 2];\n"
    "                float score;\n"
    "                {\n";

static const char end_form[] =
    "                }\n"
    "                s[e / 2][e % 2] = key < stop ? score : -INFINITY;\n"
    "                best = fmaxf(best, s[e / 2][e % 2]);\n"
    "            }\n"
    "            UNROLL for (int distance = 1; distance < 4; distance <<= 1)\n"
    "                best = fmaxf(best, __shfl_xor_sync(0xffffffffu, best, distance));\n"
    "            const float scale = most == best ? 1.0f : tpc_exp_near(most - best);\n"
    "            const float least = best == -INFINITY ? 0.0f : best;\n"
    "            most = best;\n"
    "            sum *= scale;\n"
    "            UNROLL for (int e = 0; e < 4; e++) {\n"
    "                s[e / 2][e % 2] = tpc_exp_near(s[e / 2][e % 2] - least);\n"
    "                sum += s[e / 2][e % 2];\n"
    "            }\n"
    "            if (__any_sync(0xffffffffu, scale != 1.0f))\n"
    "                UNROLL for (int n = 0; n < $I * 8; n++) {\n"
    "                    result[n][0] *= scale;\n"
    "                    result[n][1] *= scale;\n"
    "                }\n"
    "            const uint32_t p[4] = {tpc_pack_$T(s[0][0], s[0][1]), 0, tpc_pack_$T(s[1][0], s[1][1]), 0};\n"
    "            UNROLL for (int j = 0; j < $I; j++)\n"
    "                UNROLL for (int c = 0; c < 8; c++) {\n"
    "                    const uint32_t column[2] = {tpc_halves(keys.v[0][j][c / 2], keys.v[1][j][c / 2], c % 2),\n"
    "                                                tpc_halves(keys.v[2][j][c / 2], keys.v[3][j][c / 2], c % 2)};\n"
    "                    tpc_mma_$T(result[j * 8 + c], p, column);\n"
    "                }\n"
    "        }\n"
    "        UNROLL for (int distance = 1; distance < 4; distance <<= 1)\n"
    "            sum += __shfl_xor_sync(0xffffffffu, sum, distance);\n"
    "        UNROLL for (int n = 0; n < $I * 8; n += 4)\n"
    "            UNROLL for (int i = 0; i < 2; i++) {\n"
    "                const int d = n / 8 * 64 + (pair * 2 + i) * 8 + n % 8;\n"
    "                ALIGNED(16) const float x[4] = {result[n][i], result[n + 1][i], result[n + 2][i], result[n + "
    "3][i]};\n"
    "                if (d < $W)\n"
    "                    tpc_write_16(&parts[warp][own][d], x);\n"
    "            }\n"
    "        if (pair == 0) {\n"
    "            parts[warp][own][$P - 4] = most;\n"
    "            parts[warp][own][$P - 3] = sum;\n"
    "            if (warp == 0) {\n"
    "                out_of[own] = out_at;\n"
    "                zero_of[own] = zero;\n"
    "            }\n"
    "        }\n";

bool cuda_attention_may_be_narrow(dtype t, int64_t key, int64_t row)
{
    return t != DT_F32 && key <= MOST_WIDTH && row <= MOST_WIDTH && cuda_attention_may_be_wide(t, key, row);
}

struct cuda_attention_form cuda_attention_narrow(struct cuda_set *set, struct cuda_letters *l, dtype t, int64_t key,
                                                 int64_t row)
{
    l->of['G' - 'A'] = cuda_number(set->arena, ROWS);
    l->of['H' - 'A'] = cuda_number(set->arena, (key + 31) / 32);
    l->of['I' - 'A'] = cuda_number(set->arena, (row + 63) / 64);
    l->of['S' - 'A'] = cuda_number(set->arena, CUDA_ATTENTION_TILES);
    l->of['T' - 'A'] = dtype_name(t);
    l->of['J' - 'A'] = "64";
    l->of['X' - 'A'] = "4";
    l->of['Y' - 'A'] = "32";
    return (struct cuda_attention_form){.name = "few_matrix",
                                        .functions = functions_form,
                                        .start = arena_printf(set->arena, "%s%s%s%s", cuda_attention_shared_form,
                                                              lanes_form, cuda_attention_place_form, start_form),
                                        .loop = arena_printf(set->arena, "%s%s", cuda_attention_turns_form, loop_form),
                                        .end = end_form,
                                        .out = cuda_attention_gather_form,
                                        .row_indent = 2,
                                        .score_indent = 5,
                                        .threads = CUDA_ATTENTION_THREADS,
                                        .blocks = 2,
                                        .group = ROWS};
}
