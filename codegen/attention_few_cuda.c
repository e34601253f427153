/* codegen/attention_few_cuda.c - the text of attention on CUDA for few rows per group of keys (decoding): bound by reading keys and values once.
 *
 * A warp takes $K keys at a time, and reads keys and values (the next ones before it computes) in 16-byte accesses: $L lanes share a key, each has $T of its
 * elements. The products of $U keys per lane with all rows are summed over the $L lanes by halving: a lane sends the half that the other keeps,
 * so in the end each has scores of its own ($M, of one row; or several lanes have the same one), and the expression of a score is computed once per score. Maxima and sums
 * are a warp's own; the warps of a block are put together at the end. No barrier is in the loop. Of keys that lie side by side, element by element (a cache that is kept
 * transposed), a lane has $U neighbours instead, and every $Lth of their elements.
 * attention_split_cuda.c has how blocks and warps share out the keys.
 */
#include "codegen/cuda_impl.h"

/* [by single elements, 16 bytes of a key at a time, 16 bytes along the keys at a time]; values of the last as those of the second. */
static const char *const fetch_form[3] = {
    "/* What belongs to this lane of the keys (or values) from `first` on; zeros behind the last. */\n"
    "static __device__ inline void fetch_keys(struct $N_keys *to, const $E *from, uint32_t first, uint32_t stop,\n"
    "                                         int64_t next, int64_t step, int width)\n"
    "{\n"
    "    UNROLL for (int u = 0; u < $U; u++)\n"
    "        UNROLL for (int i = 0; i < $T; i++) {\n"
    "            const uint32_t key = first + $H;\n"
    "            const int d = (i / $V * $L + threadIdx.x % $L) * $V + i % $V;\n"
    "            to->at[u][i] = key < stop && d < width ? __ldg(from + key * next + d * step) : ($E)0;\n"
    "        }\n"
    "}\n",
    "/* What belongs to this lane of the keys (or values) from `first` on; zeros behind the last. */\n"
    "static __device__ inline void fetch_keys(struct $N_keys *to, const $E *from, uint32_t first, uint32_t stop,\n"
    "                                         int64_t next, int64_t step, int width)\n"
    "{\n"
    "    UNROLL for (int u = 0; u < $U; u++)\n"
    "        UNROLL for (int i = 0; i < $T; i += $V) {\n"
    "            const uint32_t key = first + $H;\n"
    "            const int d = (i / $V * $L + threadIdx.x % $L) * $V;\n"
    "            UNROLL for (int j = 0; j < $V; j++)\n"
    "                to->at[u][i + j] = 0;\n"
    "            if (key < stop && d < width)\n"
    "                tpc_read_16(&to->at[u][i], from + key * next + d);\n"
    "        }\n"
    "}\n",
    "struct $N_across {\n"
    "    ALIGNED(16) $E at[$T][$U];\n"
    "};\n"
    "/* What belongs to this lane of the keys from `first` on: every $Lth element of $U neighbours. */\n"
    "static __device__ inline void fetch_across(struct $N_across *to, const $E *from, uint32_t first, uint32_t stop,\n"
    "                                           int64_t step)\n"
    "{\n"
    "    const uint32_t key = first + threadIdx.x % 32 / $L * $U;\n"
    "    UNROLL for (int i = 0; i < $T; i++) {\n"
    "        const int d = i * $L + threadIdx.x % $L;\n"
    "        UNROLL for (int u = 0; u < $U; u++)\n"
    "            to->at[i][u] = 0;\n"
    "        if (d < $D && key + $U <= stop)\n"
    "            tpc_read_16(to->at[i], from + key + d * step);\n"
    "        else if (d < $D)\n"
    "            UNROLL for (int u = 0; u < $U; u++)\n"
    "                if (key + u < stop)\n"
    "                    to->at[i][u] = __ldg(from + key + u + d * step);\n"
    "    }\n"
    "}\n"};

static const char *const row_form[3] = {
    "/* What belongs to this lane of a row of q. */\n"
    "static __device__ inline void fetch_row($E *to, const $E *from, int64_t step, int in_key)\n"
    "{\n"
    "    UNROLL for (int i = 0; i < $T; i++) {\n"
    "        const int d = (i / $V * $L + in_key) * $V + i % $V;\n"
    "        to[i] = d < $D ? __ldg(from + d * step) : ($E)0;\n"
    "    }\n"
    "}\n",
    "/* What belongs to this lane of a row of q. */\n"
    "static __device__ inline void fetch_row($E *to, const $E *from, int64_t step, int in_key)\n"
    "{\n"
    "    UNROLL for (int i = 0; i < $T; i += $V) {\n"
    "        const int d = (i / $V * $L + in_key) * $V;\n"
    "        UNROLL for (int j = 0; j < $V; j++)\n"
    "            to[i + j] = 0;\n"
    "        if (d < $D)\n"
    "            tpc_read_16(&to[i], from + d);\n"
    "    }\n"
    "}\n",
    "/* What belongs to this lane of a row of q. */\n"
    "static __device__ inline void fetch_row($E *to, const $E *from, int64_t step, int in_key)\n"
    "{\n"
    "    UNROLL for (int i = 0; i < $T; i++)\n"
    "        to[i] = i * $L + in_key < $D ? __ldg(from + (i * $L + in_key) * step) : ($E)0;\n"
    "}\n"};

static const char head_form[] = "struct $N_keys {\n"
                                "    ALIGNED(16) $E at[$U][$T];\n"
                                "};\n"
                                "/* Tiles of rows: splits that are done, 0 between launches. */\n"
                                "static __device__ uint32_t $N_arrived[$S];\n";

static const char lanes_form[] =
    "    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, in_key = lane % $L;\n"
    "    const uint32_t own = in_key / ($L / $G); /* row */\n";

static const char start_form[] =
    "        ALIGNED(16) $E q[$G][$T];\n"
    "        UNROLL for (int r = 0; r < $G; r++)\n"
    "            fetch_row(q[r], arguments.q + __shfl_sync(0xffffffffu, q_at, r * ($L / $G)), arguments.q_step, "
    "in_key);\n";

/* [along the head, along the keys]: what a warp has of its next keys. Along the keys that is more, so nothing is read ahead. */
static const char *const loop_form[2] = {
    "        struct $N_keys k, v, next_k, next_v;\n"
    "        fetch_keys(&k, arguments.k + k_at, start + warp * $K, stop, arguments.k_next, arguments.k_step, $D);\n"
    "        fetch_keys(&v, arguments.v + v_at, start + warp * $K, stop, arguments.v_next, arguments.v_step, $W);\n"
    "        for (uint32_t from = start + warp * $K; from < stop; from += 4 * $K) {\n"
    "            if (from + 4 * $K < stop) {\n"
    "                fetch_keys(&next_k, arguments.k + k_at, from + 4 * $K, stop, arguments.k_next, arguments.k_step, "
    "$D);\n"
    "                fetch_keys(&next_v, arguments.v + v_at, from + 4 * $K, stop, arguments.v_next, arguments.v_step, "
    "$W);\n"
    "            }\n",
    "        for (uint32_t from = start + warp * $K; from < stop; from += 4 * $K) {\n"
    "            struct $N_across k;\n"
    "            struct $N_keys v;\n"
    "            fetch_across(&k, arguments.k + k_at, from, stop, arguments.k_step);\n"
    "            fetch_keys(&v, arguments.v + v_at, from, stop, arguments.v_next, arguments.v_step, $W);\n"};

static const char first_form[] =
    "        const bool first = warp == 0 && (split == 0 || whole); /* counts the row's sink, in one lane */\n"
    "        float most = first ? sink : -INFINITY, result[$G][$T];\n"
    "        float sum = most > -INFINITY && lane < $L && in_key % ($L / $G) < $R ? 1 : 0;\n"
    "        UNROLL for (int r = 0; r < $G; r++)\n"
    "            UNROLL for (int i = 0; i < $T; i++)\n"
    "                result[r][i] = 0;\n";

static const char scores_form[] =
    "            float x[$G * $U]; /* [row][key] */\n"
    "            UNROLL for (int u = 0; u < $U; u++)\n"
    "                UNROLL for (int r = 0; r < $G; r++) {\n"
    "                    x[r * $U + u] = 0;\n"
    "                    UNROLL for (int i = 0; i < $T; i++)\n"
    "                        x[r * $U + u] += value_of(q[r][i]) * value_of(k.at[$Q]);\n"
    "                }\n"
    "            UNROLL for (int distance = $L / 2, count = $G * $U; distance > 0; distance >>= 1, count >>= 1) {\n"
    "                const bool upper = (lane & distance) != 0;\n"
    "                if (count <= 1) {\n"
    "                    x[0] += __shfl_xor_sync(0xffffffffu, x[0], distance);\n"
    "                } else {\n"
    "                    UNROLL for (int i = 0; i < $G * $U / 2; i++)\n"
    "                        if (i < count / 2) {\n"
    "                            const float low = x[i], high = x[i + count / 2];\n"
    "                            const float other = __shfl_xor_sync(0xffffffffu, upper ? low : high, distance);\n"
    "                            x[i] = (upper ? high : low) + other;\n"
    "                        }\n"
    "                }\n"
    "            }\n"
    "            float scores[$M], best = most;\n"
    "            UNROLL for (int j = 0; j < $M; j++) {\n"
    "                const uint32_t u = (in_key / $R * $M + j) % $U, key = from + $H;\n"
    "                const int64_t c$C = key < stop ? key : stop - 1;\n"
    "                const float product = x[j];\n"
    "                float score;\n"
    "                {\n";

static const char end_form[] =
    "                }\n"
    "                scores[j] = key < stop ? score : -INFINITY;\n"
    "                best = scores[j] > best ? scores[j] : best;\n"
    "            }\n"
    "            UNROLL for (int distance = $R; distance < 32; distance <<= 1)\n"
    "                if (distance < $L / $G || distance >= $L) {\n"
    "                    const float other = __shfl_xor_sync(0xffffffffu, best, distance);\n"
    "                    best = other > best ? other : best;\n"
    "                }\n"
    "            const float scale = most == best ? 1.0f : tpc_exp_near(most - best);\n"
    "            const float least = best == -INFINITY ? 0.0f : best;\n"
    "            most = best;\n"
    "            sum *= scale;\n"
    "            UNROLL for (int j = 0; j < $M; j++) {\n"
    "                scores[j] = tpc_exp_near(scores[j] - least);\n"
    "                sum += scores[j];\n"
    "            }\n"
    "            if (__any_sync(0xffffffffu, scale != 1.0f))\n"
    "                UNROLL for (int r = 0; r < $G; r++) {\n"
    "                    const float of_row = __shfl_sync(0xffffffffu, scale, lane / $L * $L + r * ($L / $G));\n"
    "                    UNROLL for (int i = 0; i < $T; i++)\n"
    "                        result[r][i] *= of_row;\n"
    "                }\n"
    "            UNROLL for (int u = 0; u < $U; u++)\n"
    "                UNROLL for (int r = 0; r < $G; r++) {\n"
    "                    const int from_lane = lane / $L * $L + (r * $U + u) / $M * $R;\n"
    "                    const float p = __shfl_sync(0xffffffffu, scores[(r * $U + u) % $M], from_lane);\n"
    "                    UNROLL for (int i = 0; i < $T; i++)\n"
    "                        result[r][i] += p * value_of(v.at[u][i]);\n"
    "                }\n";

static const char *const next_form[2] = {"            k = next_k;\n"
                                         "            v = next_v;\n",
                                         ""};

static const char parts_form[] =
    "        }\n"
    "        UNROLL for (int distance = $R; distance < 32; distance <<= 1)\n"
    "            if (distance < $L / $G || distance >= $L)\n"
    "                sum += __shfl_xor_sync(0xffffffffu, sum, distance);\n"
    "        UNROLL for (int r = 0; r < $G; r++)\n"
    "            UNROLL for (int i = 0; i < $T; i += 4) {\n"
    "                const int d = (i / $V * $L + in_key) * $V + i % $V;\n"
    "                UNROLL for (int distance = $L; distance < 32; distance <<= 1)\n"
    "                    UNROLL for (int j = i; j < i + 4; j++)\n"
    "                        result[r][j] += __shfl_xor_sync(0xffffffffu, result[r][j], distance);\n"
    "                ALIGNED(16) const float x[4] = {result[r][i], result[r][i + 1], result[r][i + 2], result[r][i + "
    "3]};\n"
    "                if (lane < $L && d < $W)\n"
    "                    tpc_write_16(&parts[warp][r][d], x);\n"
    "            }\n"
    "        if (lane < $L && in_key % ($L / $G) == 0) {\n"
    "            parts[warp][own][$P - 4] = most;\n"
    "            parts[warp][own][$P - 3] = sum;\n"
    "            if (warp == 0) {\n"
    "                out_of[own] = out_at;\n"
    "                zero_of[own] = zero;\n"
    "            }\n"
    "        }\n";

static uint32_t lanes_per_key(dtype t, int64_t key, int64_t row)
{
    int64_t width = 16 / (int64_t)dtype_size(t), most = key > row ? key : row;
    uint32_t lanes = 8;
    while (lanes < CUDA_WARP && lanes * width < most)
        lanes *= 2;
    return lanes;
}

/* Keys of a lane at a time: as many as registers hold, two tiles of them; or those that an access along them has. */
static uint32_t keys_per_lane(int form, dtype t, int64_t key, int64_t row)
{
    int64_t most = (key > row ? key : row) * (int64_t)dtype_size(t);
    if (form == CUDA_ATTENTION_FEW_ACROSS)
        return 16 / (uint32_t)dtype_size(t);
    return form < CUDA_ATTENTION_FEW && most <= 16 * CUDA_WARP ? 4 : 2;
}

uint32_t cuda_attention_keys(int form, dtype t, int64_t key, int64_t row)
{
    return keys_per_lane(form, t, key, row) * (CUDA_WARP / lanes_per_key(t, key, row));
}

struct cuda_attention_form cuda_attention_few(struct cuda_set *set, struct cuda_letters *l, dtype t, int form,
                                              int64_t key, int64_t row)
{
    int64_t width = 16 / (int64_t)dtype_size(t), most = key > row ? key : row;
    int64_t rows = form == 0 ? 1 : 4, unit = cuda_attention_keys(form, t, key, row);
    uint32_t lanes = lanes_per_key(t, key, row), keys = keys_per_lane(form, t, key, row),
             scores = (uint32_t)rows * keys;
    bool across = form == CUDA_ATTENTION_FEW_ACROSS, wide = form < CUDA_ATTENTION_FEW;
    const struct {
        char letter;
        int64_t number;
    } numbers[] = {{'G', rows},
                   {'L', lanes},
                   {'V', width},
                   {'T', (most + lanes * width - 1) / (lanes * width) * width},
                   {'U', keys},
                   {'S', CUDA_ATTENTION_TILES},
                   {'K', unit},
                   {'J', 4 * unit},
                   {'M', scores > lanes ? scores / lanes : 1},
                   {'X', lanes / rows},
                   {'Y', lanes},
                   {'R', lanes > scores ? lanes / scores : 1}};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        l->of[numbers[i].letter - 'A'] = cuda_number(set->arena, numbers[i].number);
    l->of['Q' - 'A'] = across ? "i][u" : "u][i";
    l->of['H' - 'A'] =
        arena_printf(set->arena, across ? "threadIdx.x %% 32 / %u * %u + u" : "u * (32 / %u) + threadIdx.x %% 32 / %u",
                     (unsigned)lanes, across ? (unsigned)keys : (unsigned)lanes);
    return (struct cuda_attention_form){
        .name = arena_printf(set->arena, "few%u%s", (unsigned)rows,
                             across ? "_across"
                             : wide ? "_wide"
                                    : ""),
        .functions = arena_printf(set->arena, "%s%s%s%s", head_form, across ? fetch_form[1] : "",
                                  fetch_form[across ? 2 : wide], row_form[across ? 2 : wide]),
        .start = arena_printf(set->arena, "%s%s%s%s", cuda_attention_shared_form, lanes_form, cuda_attention_place_form,
                              start_form),
        .loop =
            arena_printf(set->arena, "%s%s%s%s", cuda_attention_turns_form, first_form, loop_form[across], scores_form),
        .end = arena_printf(set->arena, "%s%s%s", end_form, next_form[across], parts_form),
        .out = cuda_attention_gather_form,
        .align = across ? (int)width : 0,
        .row_indent = 2,
        .score_indent = 5,
        .threads = CUDA_ATTENTION_THREADS,
        .group = rows,
        .blocks = rows == 1 && most * (int64_t)dtype_size(t) <= 512 ? 3 : 2};
}
