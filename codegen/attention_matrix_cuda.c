/* codegen/attention_matrix_cuda.c - the text of attention on CUDA for many rows in f16 and bf16: products by tensor cores, accumulated in f32.
 *
 * A block takes $G rows and goes through keys and values $K at a time, two tiles in shared memory: the next one is copied while the last is computed with. A warp
 * takes 16 rows and one half of the keys of every tile, and the two halves of a row are put together at the end: so there are enough warps to hide each
 * other's waits. Scores, the running maxima and sums, and the result stay in registers, in the layout of the instruction's fragments: a lane has rows
 * lane / 4 and lane / 4 + 8 of its warp, and of 8 columns those at lane % 4 * 2 and behind it. Probabilities are the left operand of the second product as they are,
 * rounded to 16 bits. Rows of shared memory are an odd number of 16-byte chunks, so that 8 of them lie in different banks.
 */
#include "codegen/cuda_impl.h"

enum { STEP = 16, MOST_ROWS = 64, MOST_KEYS = 64, SHARED_LIMIT = 96 << 10, KEPT_WIDTH = 128 };

static const char start_form[] =
    "    DYNAMIC_SHARED(memory);\n"
    "    $E *const q_rows = ($E *)memory, *const k_rows = q_rows + $G * $I, *const v_rows = k_rows + 2 * $K * $I;\n"
    "    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % ($G / 16), half = threadIdx.x / ($M / 2);\n"
    "    const int pair = lane % 4, part = half * $S; /* its keys of a tile */\n"
    "    SHARED(float, most_of, [2][$G]);\n"
    "    SHARED(int, of_warp, [$M / 32]);\n"
    "    const uint32_t tiles = (uint32_t)arguments.tiles;\n"
    "    for (int i = threadIdx.x; i < 2 * $K; i += $M)\n"
    "        for (int d = $D; d < $F; d++)\n"
    "            k_rows[i * $I + d] = 0;\n"
    "    for (uint32_t item = blockIdx.x; item < (uint32_t)arguments.items; item += gridDim.x) {\n"
    "        const uint32_t group = item / tiles, in_group = (tiles - 1 - (item - group * tiles)) * $G;\n"
    "        const uint32_t here = (uint32_t)arguments.group - in_group, base = group * (uint32_t)arguments.group + "
    "in_group;\n"
    "        const uint32_t copied = threadIdx.x / ($M / $G); /* row of q, by this thread */\n"
    "        int64_t q_at = arguments.q_offset, k_at = arguments.k_offset, v_at = arguments.v_offset, out_at = 0;\n"
    "        uint32_t at_first = base + (copied < here ? copied : 0), at_second = base;\n"
    "        LOCATE(first, $A, at_first, q_at, k_at)\n"
    "        LOCATE(second, $B, at_second, out_at, v_at)\n"
    "        WAIT_FOR_PREVIOUS();\n";

static const char fetch_form[] =
    "        int64_t from = (int64_t)first_tile * $K, stop = (int64_t)end_tile * $K;\n"
    "        stop = stop < arguments.keys ? stop : arguments.keys;\n"
    "        stage(k_rows, arguments.k + k_at, from, stop, arguments.k_next, arguments.k_step, $D, $I);\n"
    "        stage(v_rows, arguments.v + v_at, from, stop, arguments.v_next, arguments.v_step, $W, $J);\n"
    "        tpc_commit_async();\n";

static const char rows_form[] = "        UNROLL for (int own = 0; own < 2; own++) {\n"
                                "            const uint32_t r = warp * 16 + own * 8 + lane / 4;\n"
                                "            const uint32_t row = base + (r < here ? r : 0);\n";

/* Fragments of q: kept, or loaded for every tile of keys. */
static const char *const load_form[2] = {
    "        __syncthreads(); /* q is there */\n"
    "        float most[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0}, result[$Y][4];\n"
    "        UNROLL for (int n = 0; n < $Y; n++)\n"
    "            UNROLL for (int i = 0; i < 4; i++)\n"
    "                result[n][i] = 0;\n"
    "        for (int pass = 0, buffer = 0; pass < $R; pass++) {\n"
    "        for (; from < stop; from += $K, buffer ^= 1) {\n",
    "        __syncthreads(); /* q is there */\n"
    "        float most[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0}, result[$Y][4];\n"
    "        UNROLL for (int n = 0; n < $Y; n++)\n"
    "            UNROLL for (int i = 0; i < 4; i++)\n"
    "                result[n][i] = 0;\n"
    "        uint32_t q[$U][4];\n"
    "        UNROLL for (int step = 0; step < $U; step++)\n"
    "            tpc_load_matrices(q[step], q_rows + (warp * 16 + lane % 16) * $I + step * 16 + lane / 16 * 8);\n"
    "        for (int pass = 0, buffer = 0; pass < $R; pass++) {\n"
    "        for (; from < stop; from += $K, buffer ^= 1) {\n"};

static const char first_form[] =
    "            if (from + $K < stop) {\n"
    "                stage(k_rows + (buffer ^ 1) * $K * $I, arguments.k + k_at, from + $K, stop, arguments.k_next,\n"
    "                      arguments.k_step, $D, $I);\n"
    "                stage(v_rows + (buffer ^ 1) * $K * $J, arguments.v + v_at, from + $K, stop, arguments.v_next,\n"
    "                      arguments.v_step, $W, $J);\n"
    "            }\n"
    "            tpc_commit_async();\n"
    "            tpc_wait_async(); /* for all but the last */\n"
    "            __syncthreads();\n"
    "            const $E *const k_tile = k_rows + buffer * $K * $I, *const v_tile = v_rows + buffer * $K * $J;\n"
    "            const int count = stop - from > $K ? $K : (int)(stop - from);\n"
    "            if (part < count) {\n"
    "                float s[$X][4];\n"
    "                UNROLL for (int n = 0; n < $X; n++)\n"
    "                    UNROLL for (int i = 0; i < 4; i++)\n"
    "                        s[n][i] = 0;\n"
    "                UNROLL for (int step = 0; step < $U; step++) {\n";

static const char *const step_form[2] = {
    "                    uint32_t q[4];\n"
    "                    tpc_load_matrices(q, q_rows + (warp * 16 + lane % 16) * $I + step * 16 + lane / 16 * 8);\n",
    ""};

static const char second_form[] = "                    UNROLL for (int n = 0; n < $X; n += 2) {\n"
                                  "                        uint32_t k[4];\n"
                                  "                        tpc_load_matrices(k, k_tile + (part + n * 8 + lane / 16 * 8 "
                                  "+ lane % 8) * $I + step * 16 +\n"
                                  "                                                 lane / 8 % 2 * 8);\n"
                                  "                        tpc_mma_$T(s[n], $Q, k);\n"
                                  "                        tpc_mma_$T(s[n + 1], $Q, k + 2);\n"
                                  "                    }\n"
                                  "                }\n"
                                  "                const int last = count - part - 1; /* key */\n"
                                  "                float best[2] = {most[0], most[1]}, scale[2];\n";

static const char plain_form[] =
    "                alike = __all_sync(0xffffffffu, alike);\n"
    "                if (alike && from >= (int64_t)first_plain * $K && from + $K <= (int64_t)end_plain * $K &&\n"
    "                    count == $K) {\n"
    "                    const int last = $S - 1;\n"
    "                    UNROLL for (int own = 0; own < 2; own++) {\n";

static const char otherwise_form[] = "                        }\n"
                                     "                        s[e / 2][own * 2 + e % 2] = score;\n"
                                     "                        best[own] = fmaxf(best[own], score);\n"
                                     "                    }\n"
                                     "                    }\n"
                                     "                } else {\n"
                                     "                    UNROLL for (int own = 0; own < 2; own++) {\n";

static const char element_form[] =
    "                    UNROLL for (int e = 0; e < 2 * $X; e++) {\n"
    "                        const int key = e / 2 * 8 + pair * 2 + e % 2;\n"
    "                        const int64_t c$C = from + part + (key < last ? key : last);\n"
    "                        const float product = s[e / 2][own * 2 + e % 2];\n"
    "                        float score;\n"
    "                        {\n";

static const char end_form[] =
    "                        }\n"
    "                        score = key <= last ? score : -INFINITY;\n"
    "                        s[e / 2][own * 2 + e % 2] = score;\n"
    "                        best[own] = fmaxf(best[own], score);\n"
    "                    }\n"
    "                    }\n"
    "                }\n"
    "                UNROLL for (int own = 0; own < 2; own++) {\n"
    "                    UNROLL for (int distance = 1; distance < 4; distance <<= 1)\n"
    "                        best[own] = fmaxf(best[own], __shfl_xor_sync(0xffffffffu, best[own], distance));\n"
    "                    scale[own] = most[own] == best[own] ? 1.0f : tpc_exp_near(most[own] - best[own]);\n"
    "                    most[own] = best[own];\n"
    "                    const float least = best[own] == -INFINITY ? 0.0f : best[own];\n"
    "                    sum[own] *= scale[own];\n"
    "                    UNROLL for (int e = 0; e < 2 * $X; e++) {\n"
    /* the difference first: with the factor first an FMA would leave a rounding of masks such as -1e38, which is no 0 */
    "                        const float p = tpc_exp_near(s[e / 2][own * 2 + e % 2] - least);\n"
    "                        s[e / 2][own * 2 + e % 2] = p;\n"
    "                        sum[own] += p;\n"
    "                    }\n"
    "                }\n"
    "                if (__any_sync(0xffffffffu, scale[0] != 1.0f || scale[1] != 1.0f))\n"
    "                    UNROLL for (int n = 0; n < $Y; n++)\n"
    "                        UNROLL for (int i = 0; i < 4; i++)\n"
    "                            result[n][i] *= scale[i / 2];\n"
    "                UNROLL for (int k = 0; k < $X; k += 2) {\n"
    "                    uint32_t p[4];\n"
    "                    UNROLL for (int i = 0; i < 4; i++)\n"
    "                        p[i] = tpc_pack_$T(s[k + i / 2][i % 2 * 2], s[k + i / 2][i % 2 * 2 + 1]);\n"
    "                    UNROLL for (int n = 0; n < $Y; n += 2) {\n"
    "                        uint32_t v[4];\n"
    "                        tpc_load_matrices_transposed(v, v_tile + (part + k * 8 + lane % 16) * $J + n * 8 + lane / "
    "16 * 8);\n"
    "                        tpc_mma_$T(result[n], p, v);\n"
    "                        tpc_mma_$T(result[n + 1], p, v + 2);\n"
    "                    }\n"
    "                }\n"
    "            }\n"
    "            __syncthreads(); /* the tile is done with */\n"
    "        }\n"
    "            if (pass == 2 || $R == 1)\n"
    "                break;\n"
    "            if (pass == 0) { /* does every row see something? else what was left out counts too */\n"
    "                UNROLL for (int own = 0; own < 2; own++)\n"
    "                    if (pair == 0)\n"
    "                        most_of[half][warp * 16 + own * 8 + lane / 4] = most[own];\n"
    "                __syncthreads();\n"
    "                bool sees = true;\n"
    "                if (threadIdx.x < here && threadIdx.x < $G)\n"
    "                    sees = most_of[0][threadIdx.x] > $O || most_of[1][threadIdx.x] > $O;\n"
    "                sees = __all_sync(0xffffffffu, sees);\n"
    "                if (lane == 0)\n"
    "                    of_warp[threadIdx.x / 32] = sees;\n"
    "                __syncthreads();\n"
    "                UNROLL for (int w = 0; w < $M / 32; w++)\n"
    "                    sees = sees && of_warp[w];\n"
    "                if (sees)\n"
    "                    break;\n"
    "            }\n"
    "            from = pass == 0 ? 0 : (int64_t)end_tile * $K;\n"
    "            stop = pass == 0 ? (int64_t)first_tile * $K : arguments.keys;\n"
    "            if (from < stop) {\n"
    "                stage(k_rows + buffer * $K * $I, arguments.k + k_at, from, stop, arguments.k_next, "
    "arguments.k_step,\n"
    "                      $D, $I);\n"
    "                stage(v_rows + buffer * $K * $J, arguments.v + v_at, from, stop, arguments.v_next, "
    "arguments.v_step,\n"
    "                      $W, $J);\n"
    "                tpc_commit_async();\n"
    "            }\n"
    "        }\n";

/* The second half of the keys goes to shared memory, to the lane that has the same of the first. */
static const char out_form[] =
    "        float *const other = (float *)k_rows + threadIdx.x % ($M / 2);\n"
    "        if (half == 1) {\n"
    "            UNROLL for (int own = 0; own < 2; own++) {\n"
    "                other[own * ($M / 2)] = most[own];\n"
    "                other[(2 + own) * ($M / 2)] = sum[own];\n"
    "            }\n"
    "            UNROLL for (int n = 0; n < $Y; n++)\n"
    "                UNROLL for (int i = 0; i < 4; i++)\n"
    "                    other[(4 + n * 4 + i) * ($M / 2)] = result[n][i];\n"
    "        }\n"
    "        __syncthreads();\n"
    "        if (half == 0) {\n"
    "            UNROLL for (int own = 0; own < 2; own++) {\n"
    "                const float theirs = other[own * ($M / 2)], best = theirs > most[own] ? theirs : most[own];\n"
    "                const float of_ours = most[own] == best ? 1.0f : tpc_exp_near(most[own] - best);\n"
    "                const float of_theirs = theirs == best ? 1.0f : tpc_exp_near(theirs - best);\n"
    "                sum[own] = of_ours * sum[own] + of_theirs * other[(2 + own) * ($M / 2)];\n"
    "                UNROLL for (int distance = 1; distance < 4; distance <<= 1)\n"
    "                    sum[own] += __shfl_xor_sync(0xffffffffu, sum[own], distance);\n"
    "                const float inverse = 1.0f / sum[own];\n"
    "                const uint32_t r = warp * 16 + own * 8 + lane / 4;\n"
    "                at_second = base + (r < here ? r : 0);\n"
    "                out_at = arguments.out_offset;\n"
    "                LOCATE(second, $B, at_second, out_at, v_at)\n"
    "                const bool lies = $W % 2 == 0 && arguments.out_step == 1 && (uint64_t)(arguments.out + out_at) % "
    "4 == "
    "0;\n"
    "                UNROLL for (int n = 0; n < $Y; n++) {\n"
    "                    const int d = n * 8 + pair * 2;\n"
    "                    ALIGNED(4) $E y[2];\n"
    "                    UNROLL for (int i = 0; i < 2; i++) {\n"
    "                        const float both = of_ours * result[n][own * 2 + i] +\n"
    "                                       of_theirs * other[(4 + n * 4 + own * 2 + i) * ($M / 2)];\n"
    "                        const float x = zero[own] ? 0.0f : both * inverse;\n"
    "                        y[i] = element_of($Z);\n"
    "                    }\n"
    "                    if (lies && r < here && d < $W)\n"
    "                        tpc_write_4(&arguments.out[out_at + d], y);\n"
    "                    UNROLL for (int i = 0; i < 2; i++)\n"
    "                        if (!lies && r < here && d + i < $W)\n"
    "                            arguments.out[out_at + (d + i) * arguments.out_step] = y[i];\n"
    "                }\n"
    "            }\n"
    "        }\n";

static int64_t padded(int64_t width)
{
    return (width + STEP - 1) / STEP * STEP;
}

/* Elements of a row in shared memory. */
static int64_t pitch(int64_t width)
{
    return padded(width) + 8;
}

/* Of q, and of keys and values or of a half's results. */
static int64_t bytes_for(int64_t rows, int64_t keys, int64_t key, int64_t row)
{
    int64_t tiles = 2 * 2 * keys * (pitch(key) + pitch(row)), half = 4 * 2 * rows * (padded(row) / 2 + 4);
    return 2 * rows * pitch(key) + (tiles > half ? tiles : half);
}

static int64_t keys_for(int64_t key, int64_t row)
{
    return bytes_for(MOST_ROWS, MOST_KEYS, key, row) > SHARED_LIMIT ? MOST_KEYS / 2 : MOST_KEYS;
}

int64_t cuda_attention_matrix_rows(int64_t key, int64_t row)
{
    return bytes_for(MOST_ROWS, keys_for(key, row), key, row) > SHARED_LIMIT ? MOST_ROWS / 2 : MOST_ROWS;
}

int64_t cuda_attention_matrix_bytes(int64_t key, int64_t row)
{
    return bytes_for(cuda_attention_matrix_rows(key, row), keys_for(key, row), key, row);
}

struct cuda_attention_form cuda_attention_matrix(struct cuda_set *set, struct cuda_letters *l, dtype t, bool wide,
                                                 int64_t key, int64_t row)
{
    int64_t rows = cuda_attention_matrix_rows(key, row), keys = keys_for(key, row);
    bool kept = padded(key) <= KEPT_WIDTH;
    const struct {
        char letter;
        int64_t number;
    } numbers[] = {{'G', rows},       {'M', 4 * rows},       {'F', padded(key)},        {'I', pitch(key)},
                   {'J', pitch(row)}, {'K', keys},           {'U', padded(key) / STEP}, {'S', keys / 2},
                   {'X', keys / 16},  {'Y', padded(row) / 8}};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        l->of[numbers[i].letter - 'A'] = cuda_number(set->arena, numbers[i].number);
    l->of['T' - 'A'] = dtype_name(t);
    l->of['L' - 'A'] = row > KEPT_WIDTH ? "ROLLED" : "UNROLL"; /* the result leaves few registers */
    l->of['V' - 'A'] = cuda_number(set->arena, 16 / (int64_t)dtype_size(t));
    l->of['Q' - 'A'] = kept ? "q[step]" : "q";
    return (struct cuda_attention_form){
        .name = wide ? "matrix_wide" : "matrix",
        .functions = cuda_attention_stage_form[wide],
        .start = start_form,
        .fetch = fetch_form,
        .rows = rows_form,
        .loop = arena_printf(set->arena, "%s%s%s%s", load_form[kept], first_form, step_form[kept], second_form),
        .plain = plain_form,
        .otherwise = otherwise_form,
        .element = element_form,
        .end = end_form,
        .out = out_form,
        .tiles = true,
        .row_count = 2,
        .row_indent = 3,
        .element_indent = 5,
        .score_indent = 7,
        .threads = 4 * (uint32_t)rows,
        .blocks = rows == MOST_ROWS ? 1 : 2};
}
