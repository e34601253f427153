/* codegen/attention_many_cuda.c - the text of attention on CUDA for many rows in f32: products by plain multiplication, since tensor cores round to fewer bits.
 *
 * A block takes $G rows and goes through keys and values $K at a time. 8 threads share $X rows: each has every 8th key's score of all of them, and of
 * the result every 8th group of 4 columns; so 16 bytes from shared memory serve many multiplications. Values of a tile are copied while its scores are
 * computed, the next tile's keys while values are summed.
 */
#include "codegen/cuda_impl.h"

enum { LANES = 8, MOST_KEYS = 32, SHARED_LIMIT = 96 << 10 };

static const char start_form[] =
    "    DYNAMIC_SHARED(memory);\n"
    "    SHARED(int, of_warp, [4]);\n"
    "    float *const q_rows = (float *)memory, *const k_rows = q_rows + $G * $I, *const v_rows = k_rows + $K * $I;\n"
    "    float *const p_rows = v_rows + $K * $J;\n"
    "    const int lane = threadIdx.x % 8, first_row = threadIdx.x / 8 * $X;\n"
    "    for (int i = threadIdx.x; i < $K; i += 128)\n"
    "        for (int d = $D; d < $F; d++)\n"
    "            k_rows[i * $I + d] = 0;\n";

static const char item_form[] =
    "        const uint32_t copied = threadIdx.x / ($M / $G); /* row of q, by this thread */\n"
    "        int64_t q_at = arguments.q_offset, out_at = 0;\n"
    "        uint32_t at_first = base + (copied < here ? copied : 0), at_second = base;\n"
    "        LOCATE(first, $A, at_first, q_at, k_at)\n"
    "        LOCATE(second, $B, at_second, out_at, v_at)\n"
    "        WAIT_FOR_PREVIOUS();\n";

static const char fetch_form[] =
    "        const int keys = (int)arguments.keys;\n"
    "        int from = first_tile * $K, stop = end_tile * $K;\n"
    "        stop = stop < keys ? stop : keys;\n"
    "        stage(k_rows, arguments.k + k_at, from, stop, arguments.k_next, arguments.k_step, $D, $I);\n"
    "        tpc_commit_async();\n"
    /* row `copied` of q, by $M / $G threads */
    "        const int share = threadIdx.x % ($M / $G);\n"
    "        if ($D % $V == 0 && arguments.q_step == 1 && (uint64_t)(arguments.q + q_at) % 16 == 0) {\n"
    "            UNROLL for (int d = share * $V; d < $D; d += $M / $G * $V) {\n"
    "                ALIGNED(16) $E x[$V];\n"
    "                tpc_read_16(x, arguments.q + q_at + d);\n"
    "                tpc_write_16(&q_rows[copied * $I + d], x);\n"
    "            }\n"
    "            for (int d = $D + share; d < $F; d += $M / $G)\n"
    "                q_rows[copied * $I + d] = 0;\n"
    "        } else {\n"
    "            for (int d = share; d < $F; d += $M / $G)\n"
    "                q_rows[copied * $I + d] = d < $D ? __ldg(&arguments.q[q_at + d * arguments.q_step]) : ($E)0;\n"
    "        }\n";

static const char rows_form[] = "        UNROLL for (int own = 0; own < $X; own++) {\n"
                                "            const uint32_t r = first_row + own, row = base + (r < here ? r : 0);\n";

static const char loop_form[] =
    "        float most[$X], sum[$X], result[$X][$Y][4];\n"
    "        UNROLL for (int own = 0; own < $X; own++) {\n"
    "            most[own] = sinks ? sink[own] : -INFINITY;\n"
    "            sum[own] = most[own] > -INFINITY && lane == 0 ? 1 : 0;\n"
    "            UNROLL for (int i = 0; i < $Y * 4; i++)\n"
    "                result[own][i / 4][i % 4] = 0;\n"
    "        }\n"
    "        for (int pass = 0; pass < $R; pass++) {\n"
    "        for (; from < stop; from += $K) {\n"
    "            stage(v_rows, arguments.v + v_at, from, stop, arguments.v_next, arguments.v_step, $W, $J);\n"
    "            tpc_commit_async();\n"
    "            tpc_wait_async(); /* for all but the last */\n"
    "            __syncthreads();\n"
    "            float s[$X][$K / 8];\n"
    "            UNROLL for (int own = 0; own < $X; own++)\n"
    "                UNROLL for (int j = 0; j < $K / 8; j++)\n"
    "                    s[own][j] = 0;\n"
    "            for (int d = 0; d < $F; d += 4) {\n"
    "                ALIGNED(16) float q[$X][4];\n"
    "                UNROLL for (int own = 0; own < $X; own++)\n"
    "                    tpc_write_16(q[own], &q_rows[(first_row + own) * $I + d]);\n"
    "                UNROLL for (int j = 0; j < $K / 8; j++) {\n"
    "                    ALIGNED(16) float k[4];\n"
    "                    tpc_write_16(k, &k_rows[(j * 8 + lane) * $I + d]);\n"
    "                    UNROLL for (int own = 0; own < $X; own++)\n"
    "                        UNROLL for (int i = 0; i < 4; i++)\n"
    "                            s[own][j] += q[own][i] * k[i];\n"
    "                }\n"
    "            }\n"
    "            const int last = stop - from > $K ? $K - 1 : stop - from - 1; /* key */\n"
    "            bool grows = false;\n"
    "            float scale[$X];\n"
    "            UNROLL for (int own = 0; own < $X; own++) {\n";

static const char element_form[] =
    "                float best = most[own];\n"
    "                UNROLL for (int j = 0; j < $K / 8; j++) {\n"
    "                    const int key = j * 8 + lane;\n"
    "                    const int64_t c$C = (uint32_t)(from + (key < last ? key : last));\n"
    "                    const float product = s[own][j];\n"
    "                    float score;\n"
    "                    {\n";

static const char end_form[] =
    "                    }\n"
    "                    score = key <= last ? score : -INFINITY;\n"
    "                    s[own][j] = score;\n"
    "                    best = score > best ? score : best;\n"
    "                }\n"
    "                UNROLL for (int distance = 1; distance < 8; distance <<= 1) {\n"
    "                    const float other = __shfl_xor_sync(0xffffffffu, best, distance);\n"
    "                    best = other > best ? other : best;\n"
    "                }\n"
    "                scale[own] = most[own] == best ? 1.0f : expf(most[own] - best);\n"
    "                grows = grows || scale[own] != 1.0f;\n"
    "                most[own] = best;\n"
    "                const float least = best == -INFINITY ? 0.0f : best;\n"
    "                sum[own] *= scale[own];\n"
    "                UNROLL for (int j = 0; j < $K / 8; j++) {\n"
    "                    const float p = tpc_exp_near(s[own][j] - least);\n"
    "                    p_rows[(first_row + own) * ($K + 4) + j * 8 + lane] = p;\n"
    "                    sum[own] += p;\n"
    "                }\n"
    "            }\n"
    "            if (__any_sync(0xffffffffu, grows))\n"
    "                UNROLL for (int own = 0; own < $X; own++)\n"
    "                    UNROLL for (int i = 0; i < $Y * 4; i++)\n"
    "                        result[own][i / 4][i % 4] *= scale[own];\n"
    "            __syncthreads(); /* the keys are done with */\n"
    "            if (from + $K < stop)\n"
    "                stage(k_rows, arguments.k + k_at, from + $K, stop, arguments.k_next, arguments.k_step, $D, $I);\n"
    "            tpc_commit_async();\n"
    "            tpc_wait_async();\n"
    "            __syncthreads();\n"
    "            for (int key = 0; key < $K; key += 4) {\n"
    "                ALIGNED(16) float p[$X][4];\n"
    "                UNROLL for (int own = 0; own < $X; own++)\n"
    "                    tpc_write_16(p[own], &p_rows[(first_row + own) * ($K + 4) + key]);\n"
    "                UNROLL for (int i = 0; i < 4; i++)\n"
    "                    UNROLL for (int c = 0; c < $Y; c++) {\n"
    "                        ALIGNED(16) float v[4];\n"
    "                        tpc_write_16(v, &v_rows[(key + i) * $J + c * 32 + lane * 4]);\n"
    "                        UNROLL for (int own = 0; own < $X; own++)\n"
    "                            UNROLL for (int e = 0; e < 4; e++)\n"
    "                                result[own][c][e] += p[own][i] * v[e];\n"
    "                    }\n"
    "            }\n"
    "            __syncthreads(); /* the values are done with */\n"
    "        }\n"
    "        if (pass == 2 || $R == 1)\n"
    "            break;\n"
    "        if (pass == 0) { /* does every row see something? else what was left out counts too */\n"
    "            bool sees = true;\n"
    "            UNROLL for (int own = 0; own < $X; own++)\n"
    "                sees = sees && (most[own] > $O || first_row + own >= (int)here);\n"
    "            sees = __all_sync(0xffffffffu, sees);\n"
    "            if (threadIdx.x % 32 == 0)\n"
    "                of_warp[threadIdx.x / 32] = sees;\n"
    "            __syncthreads();\n"
    "            if (of_warp[0] && of_warp[1] && of_warp[2] && of_warp[3])\n"
    "                break;\n"
    "        }\n"
    "        from = pass == 0 ? 0 : end_tile * $K;\n"
    "        stop = pass == 0 ? first_tile * $K : keys;\n"
    "        if (from < stop)\n"
    "            stage(k_rows, arguments.k + k_at, from, stop, arguments.k_next, arguments.k_step, $D, $I);\n"
    "        tpc_commit_async();\n"
    "        }\n";

static const char out_form[] =
    "        UNROLL for (int own = 0; own < $X; own++) {\n"
    "            UNROLL for (int distance = 1; distance < 8; distance <<= 1)\n"
    "                sum[own] += __shfl_xor_sync(0xffffffffu, sum[own], distance);\n"
    "            const uint32_t r = first_row + own;\n"
    "            at_second = base + (r < here ? r : 0);\n"
    "            out_at = arguments.out_offset;\n"
    "            LOCATE(second, $B, at_second, out_at, v_at)\n"
    "            const bool lies = $W % 4 == 0 && arguments.out_step == 1 && (uint64_t)(arguments.out + out_at) % 16 "
    "== 0;\n"
    "            UNROLL for (int c = 0; c < $Y; c++) {\n"
    "                const int first = c * 32 + lane * 4;\n"
    "                ALIGNED(16) float y[4];\n"
    "                UNROLL for (int i = 0; i < 4; i++) {\n"
    "                    const float x = zero[own] ? 0.0f : result[own][c][i] / sum[own];\n"
    "                    y[i] = $Z;\n"
    "                }\n"
    "                if (lies && r < here && first < $W)\n"
    "                    tpc_write_16(&arguments.out[out_at + first], y);\n"
    "                UNROLL for (int i = 0; i < 4; i++)\n"
    "                    if (!lies && r < here && first + i < $W)\n"
    "                        arguments.out[out_at + (first + i) * arguments.out_step] = y[i];\n"
    "            }\n"
    "        }\n";

static int64_t round_up(int64_t width, int64_t to)
{
    return (width + to - 1) / to * to;
}

/* Floats of a row in shared memory: neighbouring rows start 4 banks apart. */
static int64_t pitch(int64_t width)
{
    return round_up(width, 32) + 4;
}

static int64_t bytes_for(int64_t rows, int64_t keys, int64_t key, int64_t row)
{
    return 4 * (rows * pitch(key) + keys * (pitch(key) + pitch(row)) + rows * (keys + 4));
}

struct cuda_attention_form cuda_attention_many(struct cuda_set *set, struct cuda_letters *l, bool wide, int64_t key,
                                               int64_t row)
{
    int64_t rows = bytes_for(64, MOST_KEYS, key, row) > SHARED_LIMIT ? 32 : 64, keys = MOST_KEYS;
    int64_t own = rows * LANES / CUDA_ATTENTION_THREADS;
    while (keys > LANES && bytes_for(rows, keys, key, row) > SHARED_LIMIT)
        keys /= 2;
    const struct {
        char letter;
        int64_t number;
    } numbers[] = {
        {'G', rows},       {'K', keys},       {'V', 4},   {'M', CUDA_ATTENTION_THREADS}, {'F', round_up(key, 4)},
        {'I', pitch(key)}, {'J', pitch(row)}, {'X', own}, {'Y', round_up(row, 32) / 32}};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        l->of[numbers[i].letter - 'A'] = cuda_number(set->arena, numbers[i].number);
    return (struct cuda_attention_form){
        .name = wide ? "many_wide" : "many",
        .functions = cuda_attention_stage_form[wide],
        .start = arena_printf(set->arena, "%s%s%s", start_form, cuda_attention_items_form, item_form),
        .fetch = fetch_form,
        .rows = rows_form,
        .loop = loop_form,
        .element = element_form,
        .end = end_form,
        .out = out_form,
        .tiles = true,
        .row_count = (int)own,
        .row_indent = 3,
        .element_indent = 4,
        .score_indent = 6,
        .threads = CUDA_ATTENTION_THREADS,
        .blocks = 2,
        .group = rows,
        .bytes = bytes_for(rows, keys, key, row)};
}
