/* codegen/attention_matrix_cuda.c - the text of attention on CUDA for many rows in f16 and bf16: products by tensor cores, accumulated in f32.
 *
 * A block of four warps takes $G rows and goes through keys and values $K at a time; each warp has $S of the rows and all keys of a tile. A fragment of keys or
 * values that comes from shared memory serves $H products (of 16 rows each), which is what shared memory's bandwidth asks for. There is one tile of keys and
 * one of values: values are copied while scores are computed, the next keys while values are summed; where a block waits, another on its multiprocessor works.
 * Scores, the running maxima and sums, and the result stay in registers, in the layout of the instruction's fragments: of each 16 rows a lane has
 * lane / 4 and lane / 4 + 8, and of 8 columns those at lane % 4 * 2 and behind it. Probabilities are the left operand of the second product as they are,
 * rounded to 16 bits. Rows of shared memory are an odd number of 16-byte chunks, so that 8 of them lie in different banks. Where a row lies, which
 * coordinates it has and whether it gives 0 is found once, by a thread for each row, and stands in shared memory.
 */
#include "codegen/cuda_impl.h"

enum { STEP = 16, WARPS = 4, MOST_KEYS = 64, SHARED_LIMIT = 80 << 10, TWICE_WIDTH = 128, FEW_OPERATIONS = 8 };

static const char functions_form[] = "/* A probability is 2 to the power of score * factor - mark, the mark being a "
                                     "score that is at most 5.5 below the row's largest so far: it moves seldom,\n"
                                     " * and what was summed need seldom be scaled. Where neighbours of it are 16 "
                                     "apart the factor is 1: a product's rounding would be no 0 there. */\n"
                                     "static __device__ inline float factor_of(float most)\n"
                                     "{\n"
                                     "    return fabsf(most) < 134217728.0f ? 1.44269504f : 1.0f;\n"
                                     "}\n"
                                     "static __device__ inline float mark_of(float most)\n"
                                     "{\n"
                                     "    return most == -INFINITY ? 0.0f : most * factor_of(most);\n"
                                     "}\n";

static const char start_form[] =
    "    DYNAMIC_SHARED(memory);\n"
    "    $E *const q_rows = ($E *)memory, *const k_rows = q_rows + $G * $I, *const v_rows = k_rows + $K * $I;\n"
    "    const int keys = (int)arguments.keys, lane = tpc_thread() % 32;\n"
    /* what this lane gives the addresses of */
    "    const $E *const q_own = q_rows + (tpc_thread() / 32 * $S + lane % 16) * $I + lane / 16 * 8;\n"
    "    const $E *const k_own = k_rows + (lane / 16 * 8 + lane % 8) * $I + lane / 8 % 2 * 8;\n"
    "    const $E *const v_own = v_rows + lane % 16 * $J + lane / 16 * 8;\n"
    "    SHARED(int64_t, q_of, [$G]);\n"
    "    SHARED(int64_t, out_of, [$G]);\n"
    "    SHARED(int64_t, keys_of, [2]); /* where keys and values lie */\n"
    "    SHARED(uint32_t, coordinate, [$Q][$G]);\n"
    "    SHARED(bool, zero_of, [$G]);\n"
    "    SHARED(float, sink_of, [$G]);\n"
    "    SHARED(int, of_warp, [4]);\n"
    "    for (int i = tpc_thread(); i < $G + $K; i += $M)\n"
    "        for (int d = $D; d < $F; d++)\n"
    "            q_rows[i * $I + d] = 0; /* and of keys, behind q */\n";

static const char place_form[] = "            int64_t q_at = arguments.q_offset, out_at = arguments.out_offset;\n"
                                 "            uint32_t at_first = row, at_second = row;\n"
                                 "            LOCATE(first, $A, at_first, q_at, k_at)\n"
                                 "            LOCATE(second, $B, at_second, out_at, v_at)\n"
                                 "            if (thread == 0) {\n"
                                 "                keys_of[0] = k_at;\n"
                                 "                keys_of[1] = v_at;\n"
                                 "            }\n"
                                 "            if (thread % 32 < $S) {\n"
                                 "                q_of[r] = q_at;\n"
                                 "                out_of[r] = r < here ? out_at : -1; /* no row */\n";

static const char fetch_form[] =
    "        int tile = first_tile, end = end_tile;\n"
    "        ROLLED for (int i = tpc_thread(); i < $G * (($D + $V - 1) / $V); i += $M) {\n"
    "            const int r = i / (($D + $V - 1) / $V), d = i % (($D + $V - 1) / $V) * $V;\n"
    "            const $E *const at = arguments.q + q_of[r] + d * arguments.q_step;\n"
    "            if ($D % $V == 0 && arguments.q_step == 1 && (uint64_t)at % 16 == 0)\n"
    "                tpc_copy_async_16(q_rows + r * $I + d, at, true);\n"
    "            else\n"
    "                for (int k = 0; k < $V && d + k < $D; k++)\n"
    "                    q_rows[r * $I + d + k] = __ldg(at + k * arguments.q_step);\n"
    "        }\n";

static const char loop_form[] =
    "        float most[2 * $H], sum[2 * $H], result[$H][$Y][4];\n"
    "        UNROLL for (int own = 0; own < 2 * $H; own++) {\n"
    "            most[own] = sinks ? sink_of[tpc_thread() / 32 * $S + own * 8 + tpc_thread() % 32 / 4] : -INFINITY;\n"
    "            sum[own] = most[own] > -INFINITY && tpc_thread() % 4 == 0 ? 1 : 0;\n"
    "            UNROLL for (int i = 0; i < $Y * 2; i++)\n"
    "                result[own / 2][i / 2][own % 2 * 2 + i % 2] = 0;\n"
    "        }\n"
    "        for (int pass = 0; pass < $R; pass++) {\n"
    "        if (tile < end)\n"
    "            stage(k_rows, arguments.k + keys_of[0], tile * $K, keys, arguments.k_next, "
    "arguments.k_step, $D, $I);\n"
    "        for (; tile < end; tile++) {\n"
    "            const int from = tile * $K;\n"
    "            const int *const edge = edge_of[tpc_thread() / 32];\n"
    "            const bool works = $R == 1 ? tile >= edge[0] && tile < edge[1] : edge[0] < NO_TILE;\n"
    "            const int last = keys - from > $K ? $K - 1 : keys - from - 1; /* key */\n";

static const char copies_form[] =
    "            tpc_wait_all_async();\n"
    "            __syncthreads(); /* the keys are there, the last values done with */\n"
    "            stage(v_rows, arguments.v + keys_of[1], from, keys, arguments.v_next, arguments.v_step, $W, $J);\n";

static const char products_form[] =
    "            float s[$H][$X][4];\n"
    "            if (works) {\n"
    "                UNROLL for (int i = 0; i < $H * $X * 4; i++)\n"
    "                    s[i / 4 / $X][i / 4 % $X][i % 4] = 0;\n"
    "                UNROLL for (int step = 0; step < $U; step++) {\n"
    "                    uint32_t q[$H][4];\n"
    "                    UNROLL for (int m = 0; m < $H; m++)\n"
    "                        tpc_load_matrices(q[m], q_own + m * 16 * $I + step * 16);\n"
    "                    UNROLL for (int n = 0; n < $X; n += 2) {\n"
    "                        uint32_t k[4];\n"
    "                        tpc_load_matrices(k, k_own + n * 8 * $I + step * 16);\n"
    "                        UNROLL for (int m = 0; m < $H; m++) {\n"
    "                            tpc_mma_$T(s[m][n], q[m], k);\n"
    "                            tpc_mma_$T(s[m][n + 1], q[m], k + 2);\n"
    "                        }\n"
    "                    }\n"
    "                }\n"
    "            }\n"
    "            tpc_wait_all_async();\n"
    "            __syncthreads(); /* the values are there, the keys done with */\n"
    "            if (tile + 1 < end)\n"
    "                stage(k_rows, arguments.k + keys_of[0], from + $K, keys, arguments.k_next, arguments.k_step, "
    "$D, "
    "$I);\n"
    "            if (works) {\n"
    "                const int thread = tpc_thread(), pair = thread % 4, first_row = thread / 32 * $S + thread % 32 / "
    "4;\n"
    "                float best[2 * $H];\n"
    "                UNROLL for (int own = 0; own < 2 * $H; own++)\n"
    "                    best[own] = most[own];\n";

/* Products as they would be in memory, two at a time. */
static const char round_form[] =
    "                uint32_t rounded[$H][$X][2];\n"
    "                UNROLL for (int i = 0; i < $H * $X * 2; i++) {\n"
    "                    const float *const two = &s[i / 2 / $X][i / 2 % $X][i % 2 * 2];\n"
    "                    rounded[i / 2 / $X][i / 2 % $X][i % 2] = tpc_pack_$T(two[0], two[1]);\n"
    "                }\n";

static const char plain_form[] = "                if (tile >= edge_of[thread / 32][2] && tile < edge_of[thread / "
                                 "32][3] && last == $K - 1 && every == 0xffffffffu) {\n"
                                 "                    UNROLL for (int own = 0; own < 2 * $H; own++) {\n"
                                 "                    const int r = first_row + own * 8;\n";

static const char otherwise_form[] = "                        }\n"
                                     "                        s[own / 2][e / 2][own % 2 * 2 + e % 2] = score;\n"
                                     "                        best[own] = fmaxf(best[own], score);\n"
                                     "                    }\n"
                                     "                    }\n"
                                     "                } else {\n"
                                     "                    UNROLL for (int own = 0; own < 2 * $H; own++) {\n"
                                     "                    const int r = first_row + own * 8;\n";

static const char element_form[] =
    "                    UNROLL for (int e = 0; e < 2 * $X; e++) {\n"
    "                        const int key = e / 2 * 8 + pair * 2 + e % 2;\n"
    "                        const int64_t c$C = (uint32_t)(from + (key < last || !$L ? key : last));\n"
    "                        const float product = s[own / 2][e / 2][own % 2 * 2 + e % 2];\n"
    "                        float score;\n"
    "                        {\n";

static const char end_form[] =
    "                        }\n"
    "                        score = key <= last ? score : -INFINITY;\n"
    "                        s[own / 2][e / 2][own % 2 * 2 + e % 2] = score;\n"
    "                        best[own] = fmaxf(best[own], score);\n"
    "                    }\n"
    "                    }\n"
    "                }\n"
    "                bool grows = false;\n"
    "                UNROLL for (int own = 0; own < 2 * $H; own++) {\n"
    "                    UNROLL for (int distance = 1; distance < 4; distance <<= 1)\n"
    "                        best[own] = fmaxf(best[own], __shfl_xor_sync(0xffffffffu, best[own], distance));\n"
    "                    best[own] = best[own] - most[own] > 5.5f ? best[own] : most[own];\n"
    "                    grows = grows || best[own] != most[own];\n"
    "                }\n"
    "                if (__any_sync(0xffffffffu, grows))\n"
    "                    UNROLL for (int own = 0; own < 2 * $H; own++) {\n"
    "                        const float scale =\n"
    "                            best[own] == most[own] ? 1.0f : tpc_exp2_near(most[own] * factor_of(most[own]) - "
    "mark_of(best[own]));\n"
    "                        most[own] = best[own];\n"
    "                        sum[own] *= scale;\n"
    "                        UNROLL for (int i = 0; i < $Y * 2; i++)\n"
    "                            result[own / 2][i / 2][own % 2 * 2 + i % 2] *= scale;\n"
    "                    }\n"
    "                UNROLL for (int own = 0; own < 2 * $H; own++) {\n"
    "                    const float factor = factor_of(most[own]), mark = mark_of(most[own]);\n"
    "                    UNROLL for (int e = 0; e < 2 * $X; e++) {\n"
    "                        const float p = tpc_exp2_near(fmaf(s[own / 2][e / 2][own % 2 * 2 + e % 2], factor, "
    "-mark));\n"
    "                        s[own / 2][e / 2][own % 2 * 2 + e % 2] = p;\n"
    "                        sum[own] += p;\n"
    "                    }\n"
    "                }\n"
    "                UNROLL for (int k = 0; k < $X; k += 2) {\n"
    "                    uint32_t p[$H][4];\n"
    "                    UNROLL for (int i = 0; i < $H * 4; i++)\n"
    "                        p[i / 4][i % 4] = tpc_pack_$T(s[i / 4][k + i % 4 / 2][i % 2 * 2], s[i / 4][k + i % 4 / "
    "2][i % 2 "
    "* 2 + 1]);\n"
    "                    UNROLL for (int n = 0; n < $Y; n += 2) {\n"
    "                        uint32_t v[4];\n"
    "                        tpc_load_matrices_transposed(v, v_own + k * 8 * $J + n * 8);\n"
    "                        UNROLL for (int m = 0; m < $H; m++) {\n"
    "                            tpc_mma_$T(result[m][n], p[m], v);\n"
    "                            tpc_mma_$T(result[m][n + 1], p[m], v + 2);\n"
    "                        }\n"
    "                    }\n"
    "                }\n"
    "            }\n"
    "        }\n"
    "            if (pass == 2 || $R == 1)\n"
    "                break;\n"
    "            if (pass == 0) { /* does every row see something? else what was left out counts too */\n"
    "                const int thread = tpc_thread();\n"
    "                bool sees = true;\n"
    "                UNROLL for (int own = 0; own < 2 * $H; own++)\n"
    "                    sees = sees && (most[own] > $O || out_of[thread / 32 * $S + own * 8 + thread % 32 / 4] < 0);\n"
    "                sees = __all_sync(0xffffffffu, sees);\n"
    "                if (thread % 32 == 0)\n"
    "                    of_warp[thread / 32] = sees;\n"
    "                __syncthreads();\n"
    "                if (of_warp[0] && of_warp[1] && of_warp[2] && of_warp[3])\n"
    "                    break;\n"
    "            }\n"
    "            tile = pass == 0 ? 0 : end_tile;\n"
    "            end = pass == 0 ? first_tile : (keys + $K - 1) / $K;\n"
    "        }\n";

static const char out_form[] =
    "        const int thread = tpc_thread(), pair = thread % 4;\n"
    "        UNROLL for (int own = 0; own < 2 * $H; own++) {\n"
    "            UNROLL for (int distance = 1; distance < 4; distance <<= 1)\n"
    "                sum[own] += __shfl_xor_sync(0xffffffffu, sum[own], distance);\n"
    "            const int r = thread / 32 * $S + own * 8 + thread % 32 / 4;\n"
    "            $E *const to = arguments.out + out_of[r];\n"
    "            const bool zero = zero_of[r], lies = $W % 2 == 0 && arguments.out_step == 1 && (uint64_t)to % 4 == "
    "0;\n"
    "            const float inverse = 1.0f / sum[own];\n"
    "            UNROLL for (int n = 0; n < $Y; n++) {\n"
    "                const int d = n * 8 + pair * 2;\n"
    "                ALIGNED(4) $E y[2];\n"
    "                UNROLL for (int i = 0; i < 2; i++) {\n"
    "                    const float x = zero ? 0.0f : result[own / 2][n][own % 2 * 2 + i] * inverse;\n"
    "                    y[i] = element_of($Z);\n"
    "                }\n"
    "                if (out_of[r] < 0)\n"
    "                    continue;\n"
    "                if (lies && d < $W)\n"
    "                    tpc_write_4(to + d, y);\n"
    "                UNROLL for (int i = 0; i < 2; i++)\n"
    "                    if (!lies && d + i < $W)\n"
    "                        to[(d + i) * arguments.out_step] = y[i];\n"
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

static int64_t bytes_for(int64_t rows, int64_t keys, int64_t key, int64_t row)
{
    return 2 * ((rows + keys) * pitch(key) + keys * pitch(row));
}

struct cuda_attention_form cuda_attention_matrix(struct cuda_set *set, struct cuda_letters *l, dtype t, bool wide,
                                                 bool rounds, const struct cuda_mask *mask, int64_t key, int64_t row)
{
    /* a warp has 32 rows where its registers have room for them, and for what a score needs beside */
    bool light = !mask->loads && mask->operations <= FEW_OPERATIONS;
    bool twice = wide && padded(row) <= (light ? TWICE_WIDTH : TWICE_WIDTH / 2) &&
                 bytes_for(2 * STEP * WARPS, MOST_KEYS, key, row) <= SHARED_LIMIT;
    int64_t rows = (twice ? 2 : 1) * STEP * WARPS;
    int64_t keys = bytes_for(rows, MOST_KEYS, key, row) > SHARED_LIMIT ? MOST_KEYS / 2 : MOST_KEYS;
    const struct {
        char letter;
        int64_t number;
    } numbers[] = {{'G', rows},
                   {'M', CUDA_WARP * WARPS},
                   {'F', padded(key)},
                   {'I', pitch(key)},
                   {'J', pitch(row)},
                   {'K', keys},
                   {'U', padded(key) / STEP},
                   {'S', rows / WARPS},
                   {'X', keys / 8},
                   {'Y', padded(row) / 8},
                   {'H', rows / WARPS / STEP},
                   {'V', 16 / (int64_t)dtype_size(t)}};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        l->of[numbers[i].letter - 'A'] = cuda_number(set->arena, numbers[i].number);
    l->of['T' - 'A'] = dtype_name(t);
    l->of['L' - 'A'] = mask->loads ? "true" : "false"; /* is something read at a key's place? */
    return (struct cuda_attention_form){
        .name = wide ? "matrix_wide" : "matrix",
        .functions = arena_printf(set->arena, "%s%s", functions_form, cuda_attention_stage_form[wide]),
        .start =
            arena_printf(set->arena, "%s%s%s", start_form, cuda_attention_items_form, "        WAIT_FOR_PREVIOUS();\n"),
        .place = place_form,
        .fetch = fetch_form,
        .loop = loop_form,
        .copies = copies_form,
        .products = arena_printf(set->arena, "%s%s", products_form, rounds ? round_form : ""),
        .plain = plain_form,
        .otherwise = otherwise_form,
        .element = element_form,
        .end = end_form,
        .out = out_form,
        .tiles = true,
        .rounded = rounds ? arena_printf(set->arena, "(%s)(rounded[own / 2][e / 2][own %% 2] >> 16 * (e %% 2))",
                                         l->of['E' - 'A'])
                          : NULL,
        .element_indent = 5,
        .score_indent = 7,
        .threads = CUDA_WARP * WARPS,
        .blocks = 2,
        .group = rows,
        .bytes = bytes_for(rows, keys, key, row)};
}
