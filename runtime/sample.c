/* runtime/sample.c - one token from a row of logits. Start with sample_token.
 *
 * Invariant: no result depends on the order in which tokens are looked at. This file is compiled without contraction of a * b + c (CMakeLists.txt).
 */
#include "runtime/sample.h"

#include <math.h>

/* ---- noise ------------------------------------------------------------------------------------------------------------------- */

void sample_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c[4] = {counter[0], counter[1], counter[2], counter[3]}, k[2] = {key[0], key[1]};
    for (int round = 0; round < 10; round++) {
        uint64_t x = (uint64_t)c[0] * 0xd2511f53u, y = (uint64_t)c[2] * 0xcd9e8d57u;
        c[0] = (uint32_t)(y >> 32) ^ c[1] ^ k[0];
        c[1] = (uint32_t)y;
        c[2] = (uint32_t)(x >> 32) ^ c[3] ^ k[1];
        c[3] = (uint32_t)x;
        k[0] += 0x9e3779b9u;
        k[1] += 0xbb67ae85u;
    }
    memcpy(out, c, sizeof c);
}

static uint64_t bits_of(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static double from_bits(uint64_t bits)
{
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* ln((1 + s) / (1 - s)) for |s| < 0.172: the odd powers of its series, to 1e-16. */
static double log_ratio(double s)
{
    double z = s * s, sum = 1.0 / 21;
    for (int k = 19; k > 0; k -= 2)
        sum = sum * z + 1.0 / k;
    return 2 * s * sum;
}

/* ln x of a normal number > 0. */
static double logarithm(double x)
{
    uint64_t bits = bits_of(x);
    double m = from_bits((bits & ((UINT64_C(1) << 52) - 1)) | UINT64_C(1023) << 52);
    double exponent = (double)((int64_t)(bits >> 52) - 1023);
    if (m > 1.4142135623730951) {
        m = m * 0.5;
        exponent = exponent + 1;
    }
    return exponent * 0.6931471805599453 + log_ratio((m - 1) / (m + 1));
}

/* 64 bits are a u in (0, 1): -ln(-ln(1 - u)), with all its digits near both ends. */
static double gumbel(uint64_t bits)
{
    double u = ((double)bits + 0.5) * 0x1p-64, rest = ((double)~bits + 0.5) * 0x1p-64;
    return -logarithm(u < 0.25 ? log_ratio(u / (2 - u)) : -logarithm(rest));
}

static uint64_t token_bits(uint64_t seed, uint64_t row, uint64_t step, uint64_t token)
{
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)}, out[4];
    uint32_t counter[4] = {(uint32_t)(token / 2), (uint32_t)row, (uint32_t)step, (uint32_t)(step >> 32)};
    sample_philox(counter, key, out);
    return out[token % 2 * 2] | (uint64_t)out[token % 2 * 2 + 1] << 32;
}

double sample_noise(uint64_t seed, uint64_t row, uint64_t step, uint64_t token)
{
    return gumbel(token_bits(seed, row, step, token));
}

/* Not less than the noise: u is at least 2 to the power of -(1 + its leading zeros), and ln 2 < 0.6932. */
static double most_noise(uint64_t bits)
{
    int zeros = 0;
    while (zeros < 64 && !(bits >> (63 - zeros) & 1))
        zeros++;
    return (zeros + 1) * 0.6932;
}

/* ---- which tokens ------------------------------------------------------------------------------------------------------------ */

enum { DIGIT = 11, BINS = 1 << DIGIT };

struct row {
    const struct tensor *logits;
    size_t first, count;
    double most, factor;
    int scale; /* sample_scale */
};

static double logit(const struct row *r, size_t i)
{
    return dtype_load_f64(r->logits->dtype, r->logits->data, r->first + i);
}

/* Larger for larger numbers, in the upper bits; those of the type that are not always the same: dtype_significant_bits. */
static uint64_t order_of(double x, dtype type)
{
    if (type == DT_F64) {
        uint64_t bits = bits_of(x + 0.0);
        return bits >> 63 ? ~bits : bits | UINT64_C(1) << 63;
    }
    float narrow = (float)x + 0.0F;
    uint32_t bits;
    memcpy(&bits, &narrow, sizeof bits);
    return (uint64_t)(bits >> 31 ? ~bits : bits | 0x80000000u) << 32;
}

/* exp(factor * (x - most)) times 2 to the power of scale, as an integer. */
static uint64_t weight(const struct row *r, double x)
{
    if (!(x < r->most))
        return UINT64_C(1) << r->scale;
    double y = (x - r->most) * r->factor * 1.4426950408889634, sum = 1;
    if (!(y > -(r->scale + 1)))
        return 0;
    int64_t whole = (int64_t)(y - 0.5); /* the nearest */
    double part = (y - (double)whole) * 0.6931471805599453;
    for (int k = 13; k > 0; k--)
        sum = sum * part * (1.0 / k) + 1;
    return (uint64_t)(sum * from_bits((uint64_t)(1023 + r->scale + whole) << 52));
}

/* The largest order from which on there are `goal` tokens, or (share > 0) they weigh that share of all; of those from `least` on. */
static uint64_t find_least(const struct row *r, uint64_t least, uint64_t goal, double share)
{
    uint64_t bin[BINS], prefix = 0, above = 0; /* prefix: the order's digits so far; above: what larger orders weigh */
    dtype type = r->logits->dtype;
    for (int shift = 64, end = 64 - dtype_significant_bits(type); shift > end;) {
        int digit = shift - end < DIGIT ? shift - end : DIGIT;
        memset(bin, 0, sizeof bin);
        for (size_t i = 0; i < r->count; i++) {
            double x = logit(r, i);
            uint64_t order = order_of(x, type);
            if (order >= least && (shift == 64 || order >> shift == prefix))
                bin[order >> (shift - digit) & ((1u << digit) - 1)] += share > 0 ? weight(r, x) : 1;
        }
        if (shift == 64 && share > 0) {
            uint64_t total = 0;
            for (int b = 0; b < BINS; b++)
                total += bin[b];
            double part = share * (double)total;
            goal = (uint64_t)part + ((double)(uint64_t)part < part);
            goal = goal < 1 ? 1 : goal > total ? total : goal;
        }
        uint32_t b = (1u << digit) - 1;
        while (b > 0 && above + bin[b] < goal)
            above += bin[b--];
        prefix = prefix << digit | b;
        shift -= digit;
    }
    return prefix << (64 - dtype_significant_bits(type));
}

/* ---- a draw ------------------------------------------------------------------------------------------------------------------- */

double sample_factor(const struct sampling *s)
{
    return 1 / (s->temperature < 1e-30 ? 1e-30 : s->temperature);
}

int sample_scale(size_t count)
{
    int scale = 62;
    for (size_t left = count; left > 0; left /= 2)
        scale--;
    return scale;
}

static int64_t draw(const struct row *r, uint64_t least, uint64_t seed, uint64_t row, uint64_t step)
{
    double best = -(double)INFINITY;
    int64_t token = -1;
    for (size_t i = 0; i < r->count; i++) {
        double x = logit(r, i), scaled = x * r->factor;
        if (least > 0 && order_of(x, r->logits->dtype) < least)
            continue;
        uint64_t bits = token_bits(seed, row, step, i);
        if (scaled + most_noise(bits) < best) /* it takes no logarithm to see that */
            continue;
        double y = scaled + gumbel(bits);
        if (y > best) {
            best = y;
            token = (int64_t)i;
        }
    }
    return token;
}

int64_t sample_token(const struct sampling *s, const struct tensor *logits, size_t first, size_t count, uint64_t row,
                     uint64_t step)
{
    int64_t best = -1;
    struct row r = {logits, first, count, -(double)INFINITY, sample_factor(s), sample_scale(count)};
    for (size_t i = 0; i < count; i++) {
        double x = logit(&r, i);
        if (isnan(x))
            return -1;
        if (x > r.most) {
            r.most = x;
            best = (int64_t)i;
        }
    }
    if (best < 0 || sample_is_greedy(s) || isinf(r.most)) /* an infinite logit leaves no choice */
        return best;
    uint64_t least = 0;
    if (s->top_k > 0 && (uint64_t)s->top_k < count)
        least = find_least(&r, 0, (uint64_t)s->top_k, 0);
    if (s->top_p > 0 && s->top_p < 1)
        least = find_least(&r, least, 0, s->top_p);
    return draw(&r, least, s->seed, row, step);
}
