/* codegen/draw_cuda.c - draws from lines of logits as CUDA functions: what runtime/sample.h defines, in the same operations, for lines that may be parts of longer ones.
 *
 * First the cuts: the least order of a logit that may come is found digit by digit. A round adds up what elements weigh by their next digit (tpc_tally), over all parts of a
 * line; the launch behind it sees from these sums which digit it is. Then the largest of logit and noise among what is left (tpc_draw), of each block a candidate,
 * for cuda_merge. Sums are of integers and the rest is largest of largest, so that neither blocks nor parts matter.
 *
 * Invariant: every product of doubles goes through mul(), which is not contracted with an addition. Start at cuda_draw_plan.
 */
#include "codegen/cuda_impl.h"

enum { THREADS = 256, DIGIT = 11 };

static const char number_form[] = "static __device__ inline double mul(double x, double y)\n"
                                  "{\n"
                                  "    return __dmul_rn(x, y);\n"
                                  "}\n"
                                  "static __device__ inline double double_of(uint64_t bits)\n"
                                  "{\n"
                                  "    return __longlong_as_double((int64_t)bits);\n"
                                  "}\n"
                                  "/* Of a logit, in the upper bits; and back. */\n"
                                  "static __device__ inline uint64_t order_of($V x)\n"
                                  "{\n"
                                  "    return narrow_order(x) << $S;\n"
                                  "}\n"
                                  "static __device__ inline double number_of(uint64_t order)\n"
                                  "{\n"
                                  "$B"
                                  "}\n";

static const char *const number_of_order[2] = {
    "    const uint32_t half = (uint32_t)order;\n"
    "    return (double)__uint_as_float(half >> 31 ? half & 0x7fffffffu : ~half);\n",
    "    return double_of(order >> 63 ? order & ~(UINT64_C(1) << 63) : ~order);\n",
};

/* What the rounds before have found, for a row. */
static const char cut_form[] =
    "struct $N_cut {\n"
    "    uint64_t least, prefix, above, goal; /* least: below it nothing comes; prefix: the next one's digits so far; "
    "above: what larger orders weigh */\n"
    "};\n"
    "struct $N_before {\n"
    "    int64_t bins, state, digit, first, shift; /* of the last round: where its sums are; its cut, -1: none; shift: "
    "-1, or it was the cut's last one */\n"
    "    int64_t goal;\n"
    "    double share;\n"
    "};\n"
    "/* All threads get the cut that the last round leads to. */\n"
    "static __device__ inline struct $N_cut cut_of(const uint64_t *area, const struct $N_before *before, int64_t row)\n"
    "{\n"
    "    SHARED(uint64_t, sums, [$T]);\n"
    "    SHARED(struct $N_cut, found, [1]);\n"
    "    struct $N_cut cut = {0, 0, 0, 0};\n"
    "    if (before->bins < 0)\n"
    "        return cut;\n"
    "    const int64_t bins = INT64_C(1) << before->digit, own = bins < $T ? 1 : bins / $T;\n"
    "    const uint64_t *const bin = area + before->bins + row * bins;\n"
    "    const int64_t first = bins - 1 - own * (int64_t)threadIdx.x; /* from the largest digit down */\n"
    "    uint64_t sum = 0;\n"
    "    if (before->state >= 0)\n"
    "        cut = ((const struct $N_cut *)(area + before->state))[row];\n"
    "    for (int64_t i = first; i > first - own && i >= 0; i--)\n"
    "        sum += bin[i];\n"
    "    sums[threadIdx.x] = sum;\n"
    "    __syncthreads();\n"
    "    for (uint32_t distance = 1; distance < $T; distance *= 2) {\n"
    "        const uint64_t more = threadIdx.x >= distance ? sums[threadIdx.x - distance] : 0;\n"
    "        __syncthreads();\n"
    "        sums[threadIdx.x] += more;\n"
    "        __syncthreads();\n"
    "    }\n"
    "    if (before->first) {\n"
    "        const uint64_t total = sums[$T - 1];\n"
    "        const double part = mul(before->share, (double)total);\n"
    "        uint64_t goal = (uint64_t)part + ((double)(uint64_t)part < part);\n"
    "        goal = goal < 1 ? 1 : goal > total ? total : goal;\n"
    "        cut.goal = before->share > 0 ? goal : (uint64_t)before->goal;\n"
    "    }\n"
    "    uint64_t above = cut.above + (threadIdx.x > 0 ? sums[threadIdx.x - 1] : 0);\n"
    "    if (above < cut.goal && cut.goal <= cut.above + sums[threadIdx.x]) { /* one thread */\n"
    "        int64_t digit = first;\n"
    "        while (above + bin[digit] < cut.goal)\n"
    "            above += bin[digit--];\n"
    "        cut.prefix = cut.prefix << before->digit | (uint64_t)digit;\n"
    "        cut.above = above;\n"
    "        if (before->shift >= 0) {\n"
    "            cut.least = cut.prefix << before->shift;\n"
    "            cut.prefix = cut.above = 0;\n"
    "        }\n"
    "        found[0] = cut;\n"
    "    }\n"
    "    __syncthreads();\n"
    "    cut = found[0];\n"
    "    __syncthreads();\n"
    "    return cut;\n"
    "}\n";

static const char tally_form[] =
    "struct $N_arguments {\n"
    "    const $E *from;\n"
    "    uint64_t *area;\n"
    "    int64_t lines, first, step, extent, row, blocks, each;\n"
    "    struct $N_before before;\n"
    "    int64_t state; /* where the cut so far goes, or -1 */\n"
    "    int64_t bins, shift, digit; /* of this round: the digit lies below `shift` */\n"
    "    int64_t most, scale; /* -1, or elements weigh by how much they are below the largest: its order */\n"
    "    double factor;\n"
    "};\n"
    "/* exp(factor * (x - most)) times 2 to the power of scale */\n"
    "static __device__ inline uint64_t weight(double x, double most, double factor, int64_t scale)\n"
    "{\n"
    "    if (!(x < most))\n"
    "        return UINT64_C(1) << scale;\n"
    "    const double y = mul(mul(x - most, factor), 1.4426950408889634);\n"
    "    if (!(y > -(double)(scale + 1)))\n"
    "        return 0;\n"
    "    const int64_t whole = (int64_t)(y - 0.5);\n"
    "    const double part = mul(y - (double)whole, 0.6931471805599453);\n"
    "    double sum = 1;\n"
    "    UNROLL for (int k = 13; k > 0; k--)\n"
    "        sum = mul(mul(sum, part), 1.0 / k) + 1;\n"
    "    return (uint64_t)mul(sum, double_of((uint64_t)(1023 + scale + whole) << 52));\n"
    "}\n"
    "/* `blocks` for each line, each of so many elements. */\n"
    "ENTRY($N, $T)\n"
    "{\n"
    "    SHARED(uint64_t, bin, [$D]);\n"
    "    for (int64_t job = blockIdx.x; job < arguments.lines * arguments.blocks; job += gridDim.x) {\n"
    "        const int64_t line = job / arguments.blocks, block = job % arguments.blocks, row = arguments.row + line;\n"
    "        const $E *const from = arguments.from + (arguments.first + line * arguments.step) * arguments.extent;\n"
    "        const struct $N_cut cut = cut_of(arguments.area, &arguments.before, row);\n"
    "        const int64_t bins = INT64_C(1) << arguments.digit, shift = arguments.shift;\n"
    "        const double most = arguments.most < 0 ? 0 : number_of(arguments.area[arguments.most + 2 * row]);\n"
    "        const int64_t end = (block + 1) * arguments.each;\n"
    "        if (arguments.state >= 0 && block == 0 && threadIdx.x == 0)\n"
    "            ((struct $N_cut *)(arguments.area + arguments.state))[row] = cut;\n"
    "        for (int64_t i = threadIdx.x; i < bins; i += $T)\n"
    "            bin[i] = 0;\n"
    "        __syncthreads();\n"
    "        for (int64_t i = block * arguments.each + threadIdx.x; i < end && i < arguments.extent; i += $T) {\n"
    "            const $V x = value_of(__ldg(&from[i]));\n"
    "            const uint64_t order = order_of(x);\n"
    "            if (order < cut.least || (shift < 64 && order >> shift != cut.prefix))\n"
    "                continue;\n"
    "            const uint64_t more = arguments.most < 0 ? 1 : weight((double)x, most, arguments.factor, "
    "arguments.scale);\n"
    "            if (more > 0)\n"
    "                atomicAdd((unsigned long long *)&bin[order >> (shift - arguments.digit) & (uint64_t)(bins - 1)], "
    "more);\n"
    "        }\n"
    "        __syncthreads();\n"
    "        for (int64_t i = threadIdx.x; i < bins; i += $T)\n"
    "            if (bin[i] > 0)\n"
    "                atomicAdd((unsigned long long *)&arguments.area[arguments.bins + row * bins + i], bin[i]);\n"
    "        __syncthreads();\n"
    "    }\n"
    "}\n";

static const char noise_form[] =
    "/* Philox4x32-10 */\n"
    "static __device__ inline uint64_t token_bits(uint64_t seed, int64_t row, uint64_t step, uint64_t token)\n"
    "{\n"
    "    uint32_t key0 = (uint32_t)seed, key1 = (uint32_t)(seed >> 32);\n"
    "    uint32_t c0 = (uint32_t)(token / 2), c1 = (uint32_t)row, c2 = (uint32_t)step, c3 = (uint32_t)(step >> 32);\n"
    "    UNROLL for (int round = 0; round < 10; round++) {\n"
    "        const uint64_t x = (uint64_t)c0 * 0xd2511f53u, y = (uint64_t)c2 * 0xcd9e8d57u;\n"
    "        c0 = (uint32_t)(y >> 32) ^ c1 ^ key0;\n"
    "        c1 = (uint32_t)y;\n"
    "        c2 = (uint32_t)(x >> 32) ^ c3 ^ key1;\n"
    "        c3 = (uint32_t)x;\n"
    "        key0 += 0x9e3779b9u;\n"
    "        key1 += 0xbb67ae85u;\n"
    "    }\n"
    "    return token % 2 ? c2 | (uint64_t)c3 << 32 : c0 | (uint64_t)c1 << 32;\n"
    "}\n"
    "static __device__ inline double log_ratio(double s)\n"
    "{\n"
    "    const double z = mul(s, s);\n"
    "    double sum = 1.0 / 21;\n"
    "    UNROLL for (int k = 19; k > 0; k -= 2)\n"
    "        sum = mul(sum, z) + 1.0 / k;\n"
    "    return mul(mul(2, s), sum);\n"
    "}\n"
    "static __device__ inline double logarithm(double x)\n"
    "{\n"
    "    const uint64_t bits = (uint64_t)__double_as_longlong(x);\n"
    "    double m = double_of((bits & ((UINT64_C(1) << 52) - 1)) | UINT64_C(1023) << 52);\n"
    "    double exponent = (double)((int64_t)(bits >> 52) - 1023);\n"
    "    if (m > 1.4142135623730951) {\n"
    "        m = mul(m, 0.5);\n"
    "        exponent = exponent + 1;\n"
    "    }\n"
    "    return mul(exponent, 0.6931471805599453) + log_ratio((m - 1) / (m + 1));\n"
    "}\n"
    "/* 64 bits are a u in (0, 1): -ln(-ln(1 - u)) */\n"
    "static __device__ inline double gumbel(uint64_t bits)\n"
    "{\n"
    "    const double u = mul((double)bits + 0.5, 5.42101086242752217e-20);\n"
    "    const double rest = mul((double)~bits + 0.5, 5.42101086242752217e-20);\n"
    "    return -logarithm(u < 0.25 ? log_ratio(u / (2 - u)) : -logarithm(rest));\n"
    "}\n";

static const char draw_form[] =
    "struct $N_arguments {\n"
    "    const $E *from;\n"
    "    uint64_t *area;\n"
    "    int64_t lines, first, step, extent, row, blocks, each;\n"
    "    struct $N_before before;\n"
    "    int64_t to, rows, base; /* per block and row: an order, and where that is */\n"
    "    double factor;\n"
    "    uint64_t seed, number;\n"
    "};\n"
    "ENTRY($N, $T)\n"
    "{\n"
    "    for (int64_t job = blockIdx.x; job < arguments.lines * arguments.blocks; job += gridDim.x) {\n"
    "        const int64_t line = job / arguments.blocks, block = job % arguments.blocks, row = arguments.row + line;\n"
    "        const $E *const from = arguments.from + (arguments.first + line * arguments.step) * arguments.extent;\n"
    "        const struct $N_cut cut = cut_of(arguments.area, &arguments.before, row);\n"
    "        const int64_t end = (block + 1) * arguments.each;\n"
    "        struct $N_found best = {0, UINT64_MAX};\n"
    "        double score = -INFINITY;\n"
    "        for (int64_t i = block * arguments.each + threadIdx.x; i < end && i < arguments.extent; i += $T) {\n"
    "            const $V x = value_of(__ldg(&from[i]));\n"
    "            const uint64_t token = (uint64_t)(arguments.base + i);\n"
    "            if (order_of(x) < cut.least)\n"
    "                continue;\n"
    "            const uint64_t bits = token_bits(arguments.seed, row, arguments.number, token);\n"
    "            const double scaled = mul((double)x, arguments.factor);\n"
    "            if (scaled + mul(__clzll((int64_t)bits) + 1, 0.6932) < score) /* there is no such noise */\n"
    "                continue;\n"
    "            const double y = scaled + gumbel(bits);\n"
    "            meet(&best, order_of_score(y), token);\n"
    "            score = y > score ? y : score;\n"
    "        }\n"
    "        meet_block(&best);\n"
    "        if (threadIdx.x == 0) {\n"
    "            uint64_t *const to = arguments.area + arguments.to + 2 * (block * arguments.rows + row);\n"
    "            to[0] = best.order;\n"
    "            to[1] = best.at;\n"
    "        }\n"
    "    }\n"
    "}\n";

static const char clear_form[] = "struct tpc_clear_arguments {\n"
                                 "    uint64_t *to, *unused;\n"
                                 "    int64_t count;\n"
                                 "};\n"
                                 "ENTRY(tpc_clear, $T)\n"
                                 "{\n"
                                 "    for (int64_t i = (int64_t)blockIdx.x * $T + threadIdx.x; i < arguments.count;\n"
                                 "         i += (int64_t)gridDim.x * $T)\n"
                                 "        arguments.to[i] = 0;\n"
                                 "}\n";

/* ---- the functions -------------------------------------------------------------------------------------------------------------- */

static const char *name_of(struct arena *arena, const char *what, dtype type)
{
    return arena_printf(arena, "tpc_%s_%s", what, dtype_name(type));
}

static void add(struct cuda_set *set, bool draws, dtype type, value node)
{
    const char *const tally[] = {number_form, cut_form, tally_form, NULL};
    const char *const draw[] = {number_form, cut_form, noise_form, cuda_found_form, draw_form, NULL};
    const struct dialect d = dialect_cuda();
    struct text body = {.arena = set->arena};
    struct cuda_letters l = {0};
    l.of['N' - 'A'] = name_of(set->arena, draws ? "draw" : "tally", type);
    l.of['E' - 'A'] = d.element[type];
    l.of['V' - 'A'] = d.type[type];
    l.of['B' - 'A'] = number_of_order[type == DT_F64];
    l.of['S' - 'A'] = type == DT_F64 ? "0" : "32";
    l.of['T' - 'A'] = cuda_number(set->arena, THREADS);
    l.of['D' - 'A'] = cuda_number(set->arena, 1 << DIGIT);
    cuda_put_element(&body, type);
    cuda_put_order(&body, "narrow_order", type);
    if (draws)
        cuda_put_order(&body, "order_of_score", DT_F64);
    for (const char *const *form = draws ? draw : tally; *form; form++)
        cuda_fill(&body, *form, &l);
    (void)cuda_add(set, l.of['N' - 'A'], body.at, THREADS, node);
}

void cuda_add_draw(struct cuda_set *set, dtype type, value node)
{
    struct cuda_letters l = {.of = {['T' - 'A'] = cuda_number(set->arena, THREADS)}};
    struct text clear = {.arena = set->arena};
    add(set, false, type, node);
    add(set, true, type, node);
    cuda_fill(&clear, clear_form, &l);
    (void)cuda_add(set, "tpc_clear", clear.at, THREADS, node);
}

/* ---- what a draw takes --------------------------------------------------------------------------------------------------------- */

static void plan_cut(struct cuda_draw_plan *p, dtype type, bool weighs, int64_t rows)
{
    int end = 64 - dtype_significant_bits(type);
    for (int shift = 64; shift > end;) {
        int digit = shift - end < DIGIT ? shift - end : DIGIT;
        p->round[p->rounds++] = (struct cuda_round){.shift = shift,
                                                    .digit = digit,
                                                    .weighs = weighs,
                                                    .first = shift == 64,
                                                    .last = shift - digit == end,
                                                    .bins = p->words,
                                                    .words = (uint64_t)rows << digit};
        p->words += (uint64_t)rows << digit;
        shift -= digit;
    }
}

void cuda_draw_plan(dtype type, const struct cuda_draw *d, struct cuda_draw_plan *out)
{
    enum { PAIR = 2, CUT = 4 };
    uint64_t rows = (uint64_t)d->rows;
    *out = (struct cuda_draw_plan){.own = PAIR * rows}; /* the largest come first */
    out->own_words = PAIR * rows * (uint64_t)d->blocks;
    out->words = out->own + out->own_words;
    if (d->top_k > 0 && d->top_k < d->extent)
        plan_cut(out, type, false, d->rows);
    if (d->share > 0 && d->share < 1)
        plan_cut(out, type, true, d->rows);
    out->cleared = out->words;
    for (uint32_t i = 0; i + 1 < out->rounds; i++, out->words += CUT * rows)
        out->round[i].state = (int64_t)out->words;
}

static void put_double(struct cuda_making *m, double x)
{
    int64_t bits;
    memcpy(&bits, &x, sizeof bits);
    cuda_put_number(m, bits);
}

/* What both functions are told of lines, and of the round before number `round`. */
static void put_lines(struct cuda_making *m, const struct cuda_lines *lines, const struct cuda_draw *d,
                      const struct cuda_draw_plan *p, uint32_t round)
{
    const struct cuda_round *before = round > 0 ? &p->round[round - 1] : NULL;
    const int64_t numbers[] = {lines->count, lines->first, lines->step,   lines->extent,
                               lines->row,   d->blocks,    CUDA_DRAW_EACH};
    cuda_put_address(m);
    cuda_put_address(m);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        cuda_put_number(m, numbers[i]);
    cuda_put_number(m, before ? (int64_t)before->bins : -1);
    cuda_put_number(m, round > 1 ? before[-1].state : -1);
    cuda_put_number(m, before ? before->digit : 0);
    cuda_put_number(m, before && before->first);
    cuda_put_number(m, before && before->last ? before->shift - before->digit : -1);
    cuda_put_number(m, d->top_k);
    put_double(m, before && before->weighs ? d->share : 0);
}

static bool launch(struct cuda_making *m, const char *name, int64_t blocks, struct cuda_launch *out)
{
    const uint32_t *function = map_find(&m->set->by_name, name, strlen(name));
    if (!function || blocks <= 0)
        return false;
    *out = cuda_launch_of(m, *function, blocks, THREADS, 1, 0);
    return true;
}

bool cuda_draw_clear(const struct cuda_set *set, const struct cuda_draw_plan *p, struct arena *arena,
                     struct cuda_launch *out)
{
    struct cuda_making m = {.set = set, .arena = arena};
    cuda_put_address(&m);
    cuda_put_address(&m);
    cuda_put_number(&m, (int64_t)p->cleared);
    return launch(&m, "tpc_clear", (int64_t)(p->cleared + THREADS - 1) / THREADS, out);
}

bool cuda_draw_tally(const struct cuda_set *set, dtype type, const struct cuda_lines *lines, const struct cuda_draw *d,
                     const struct cuda_draw_plan *p, uint32_t round, struct arena *arena, struct cuda_launch *out)
{
    struct cuda_making m = {.set = set, .arena = arena};
    const struct cuda_round *r = &p->round[round];
    put_lines(&m, lines, d, p, round);
    cuda_put_number(&m, round > 0 ? r[-1].state : -1);
    cuda_put_number(&m, (int64_t)r->bins);
    cuda_put_number(&m, r->shift);
    cuda_put_number(&m, r->digit);
    cuda_put_number(&m, r->weighs ? 0 : -1);
    cuda_put_number(&m, d->scale);
    put_double(&m, d->factor);
    return launch(&m, name_of(arena, "tally", type), lines->extent > 0 ? lines->count * d->blocks : 0, out);
}

bool cuda_draw_tokens(const struct cuda_set *set, dtype type, const struct cuda_lines *lines, const struct cuda_draw *d,
                      const struct cuda_draw_plan *p, struct arena *arena, struct cuda_launch *out)
{
    struct cuda_making m = {.set = set, .arena = arena};
    put_lines(&m, lines, d, p, p->rounds);
    cuda_put_number(&m, (int64_t)p->own);
    cuda_put_number(&m, d->rows);
    cuda_put_number(&m, lines->base);
    put_double(&m, d->factor);
    cuda_put_number(&m, (int64_t)d->seed);
    cuda_put_number(&m, (int64_t)d->step);
    return launch(&m, name_of(arena, "draw", type), lines->extent > 0 ? lines->count * d->blocks : 0, out);
}
