/* codegen/attention_mask_cuda.c - which keys a score's expression may hide from a row, as far as that follows from the expression: causal masks, windows.
 *
 * A score is hidden where it is a large negative number whatever the product is: a select between the rest and such a number, or a sum with such a select.
 * What is selected by is a conjunction; of it those comparisons are taken that change at most once along the keys (one side grows with the key or
 * falls, by its index, the other does not depend on it). Such a condition is false for a whole range of keys when it is false at both of its ends: so the
 * function finds for a tile of rows the first and the last tile of keys that some row may see, without reading anything per key.
 *
 * With few rows no tile is looked at: where the two sides are integers whose difference changes by one from key to key, what it is at key 0 says which keys hold
 * (cuda_attention_print_seen).
 *
 * With a mask of minus infinity nothing is lost by leaving out the rest. A finite one hides only where the row has a score that is far larger: where
 * some row has not, the function takes the rest too. Start at cuda_attention_mask.
 */
#include "codegen/cuda_impl.h"

#include <math.h>

enum { UNKNOWN = 2 };

/* A number this large and negative, added to a score, hides it (masks of f16 have -65504, others less). */
static const double most_addend = -30000;

static const struct instruction *at(const struct nest *n, int32_t i)
{
    return &n->kernel->instruction[i];
}

static bool is_map(const struct nest *n, int32_t i, op o)
{
    return at(n, i)->kind == INST_MAP && at(n, i)->op == o;
}

/* ---- conditions ---- */

static int opposite(int direction)
{
    return direction == UNKNOWN ? UNKNOWN : -direction;
}

static int sum_of(int a, int b)
{
    return a == 0 ? b : b == 0 || a == b ? a : UNKNOWN;
}

/* How a value changes along the keys: 0 not, 1 it never falls, -1 it never grows. */
static int direction_of(const struct nest *n, int32_t i)
{
    const struct instruction *a = at(n, i);
    if (n->value[i].depth < nest_fast_depth(n) || a->kind == INST_CONST)
        return 0;
    if (a->kind == INST_INDEX) {
        enum nest_motion motion = nest_motion_of(n->dims, a->index, nest_fast_axis(n));
        return motion == NEST_STANDS ? 0 : motion == NEST_RUNS ? 1 : UNKNOWN;
    }
    if (a->kind != INST_MAP)
        return UNKNOWN;
    bool wide = a->type == DT_I64 || a->type == DT_I32 || a->type == DT_F32 || a->type == DT_F64;
    switch ((int)a->op) {
    case OP_CAST:
        return wide && at(n, a->arg[0])->type != DT_BOOL ? direction_of(n, a->arg[0]) : UNKNOWN;
    case OP_ADD:
        return wide ? sum_of(direction_of(n, a->arg[0]), direction_of(n, a->arg[1])) : UNKNOWN;
    case OP_SUB:
        return wide ? sum_of(direction_of(n, a->arg[0]), opposite(direction_of(n, a->arg[1]))) : UNKNOWN;
    case OP_NEG:
        return wide ? opposite(direction_of(n, a->arg[0])) : UNKNOWN;
    default:
        return UNKNOWN;
    }
}

/* By how much an integer grows from key to key, where that is -1, 0 or 1 everywhere; else UNKNOWN. */
static int slope_of(const struct nest *n, int32_t i)
{
    const struct instruction *a = at(n, i);
    if (a->type != DT_I64 && a->type != DT_I32)
        return UNKNOWN;
    if (n->value[i].depth < nest_fast_depth(n) || a->kind != INST_MAP)
        return direction_of(n, i); /* an index runs by 1 */
    int first = slope_of(n, a->arg[0]), second = a->arg[1] >= 0 ? slope_of(n, a->arg[1]) : 0;
    if (first == UNKNOWN || second == UNKNOWN)
        return UNKNOWN;
    int slope = a->op == OP_CAST  ? first
                : a->op == OP_NEG ? -first
                : a->op == OP_ADD ? first + second
                : a->op == OP_SUB ? first - second
                                  : UNKNOWN;
    return slope >= -1 && slope <= 1 ? slope : UNKNOWN;
}

static void need(const struct nest *n, int32_t i, struct cuda_mask *out)
{
    const struct instruction *a = at(n, i);
    if (out->needed[i])
        return;
    out->needed[i] = true;
    for (int k = 0; k < 3 && a->kind == INST_MAP; k++)
        if (a->arg[k] >= 0)
            need(n, a->arg[k], out);
}

/* Takes what can be taken of a condition without which a score is `hidden`. */
static void add_condition(const struct nest *n, int32_t i, double hidden, bool added, struct cuda_mask *out)
{
    if (is_map(n, i, OP_AND)) {
        add_condition(n, at(n, i)->arg[0], hidden, added, out);
        add_condition(n, at(n, i)->arg[1], hidden, added, out);
        return;
    }
    if (!is_map(n, i, OP_LE) && !is_map(n, i, OP_LT))
        return;
    int direction = sum_of(direction_of(n, at(n, i)->arg[0]), opposite(direction_of(n, at(n, i)->arg[1])));
    if (direction == UNKNOWN || direction == 0 || out->count == CUDA_MASK_CONDITIONS)
        return;
    double least = added ? hidden / 2 : hidden + 128; /* above it, e to the power of the difference is 0 */
    bool finite = hidden > -(double)INFINITY;
    int first = slope_of(n, at(n, i)->arg[0]), second = slope_of(n, at(n, i)->arg[1]);
    int slope = first == UNKNOWN || second == UNKNOWN ? 0 : first - second;
    out->slope[out->count] = slope == 1 || slope == -1 ? slope : 0;
    out->steady |= out->slope[out->count] != 0;
    out->condition[out->count++] = i;
    out->least = finite && (!out->finite || least > out->least) ? least : out->least;
    out->finite = out->finite || finite;
    need(n, i, out);
}

/* ---- scores ---- */

static bool is_number(const struct nest *n, int32_t i, double *number)
{
    *number = at(n, i)->kind == INST_CONST ? at(n, i)->number : 0;
    return at(n, i)->kind == INST_CONST && dtype_is_float(at(n, i)->type);
}

/* added: the value is a term of the score, not the score. */
static void find(const struct nest *n, int32_t i, bool added, struct cuda_mask *out)
{
    const struct instruction *a = at(n, i);
    double hidden;
    if (is_map(n, i, OP_CAST) && dtype_is_float(at(n, a->arg[0])->type)) {
        find(n, a->arg[0], added, out);
    } else if (is_map(n, i, OP_ADD)) {
        find(n, a->arg[0], true, out);
        find(n, a->arg[1], true, out);
    } else if (is_map(n, i, OP_SELECT) && is_number(n, a->arg[2], &hidden) && hidden <= (added ? most_addend : -1)) {
        add_condition(n, a->arg[0], hidden, added, out);
        find(n, a->arg[1], added, out);
    }
}

struct cuda_mask cuda_attention_mask(const struct nest *n, int32_t score, struct arena *arena)
{
    struct cuda_mask mask = {.needed = NEW_ARRAY(arena, bool, n->kernel->instruction_count + 1)};
    find(n, score, false, &mask);
    return mask;
}

/* ---- text ---- */

static const char start_form[] = "        int first_tile = 0, end_tile = (int)((arguments.keys + $K - 1) / $K); /* of "
                                 "keys that some row may see */\n"
                                 "        int first_plain = 0, end_plain = end_tile; /* of keys that no condition on "
                                 "positions hides from a row */\n";

static const char range_form[] = "        {\n"
                                 "            const uint32_t r = threadIdx.x % $G, row = base + (r < here ? r : 0);\n";

static const char scan_form[] =
    "            const bool upward = threadIdx.x < $M / 2; /* who looks for the first, who for the last */\n"
    "            const int tiles_of_keys = end_tile;\n"
    "            for (int plain = 0; plain < 2; plain++) {\n"
    "                int tile = upward ? 0 : tiles_of_keys - 1;\n"
    "                for (; tile >= 0 && tile < tiles_of_keys; tile += upward ? 1 : -1) {\n"
    "                    bool some[$H], each[$H], all = true;\n"
    "                    UNROLL for (int i = 0; i < $H; i++) {\n"
    "                        some[i] = false;\n"
    "                        each[i] = true;\n"
    "                    }\n"
    "                    UNROLL for (int edge = 0; edge < 2; edge++) {\n"
    "                        const int64_t last = arguments.keys - (int64_t)tile * $K - 1;\n"
    "                        const int64_t c$C = (int64_t)tile * $K + (!edge ? 0 : last < $K ? last : $K - 1);\n";

static const char found_form[] =
    "                    }\n"
    "                    UNROLL for (int i = 0; i < $H; i++)\n"
    "                        all = all && (plain ? each[i] : some[i]);\n"
    "                    if (all)\n"
    "                        break;\n"
    "                }\n"
    "                UNROLL for (int distance = 16; distance > 0; distance >>= 1) {\n"
    "                    const int other = __shfl_xor_sync(0xffffffffu, tile, distance);\n"
    "                    tile = (other < tile) == (upward != (plain == 1)) ? other : tile;\n"
    "                }\n"
    "                if (threadIdx.x % 32 == 0)\n"
    "                    edge_tile[plain][threadIdx.x / 32] = tile;\n"
    "            }\n"
    "            __syncthreads();\n"
    "            first_tile = edge_tile[0][0];\n"
    "            end_tile = edge_tile[0][$M / 64] + 1;\n"
    "            first_plain = edge_tile[1][0];\n"
    "            end_plain = edge_tile[1][$M / 64] + 1;\n"
    "            UNROLL for (int w = 1; w < $M / 64; w++) {\n"
    "                const int first[2] = {edge_tile[0][w], edge_tile[1][w]};\n"
    "                const int end[2] = {edge_tile[0][$M / 64 + w] + 1, edge_tile[1][$M / 64 + w] + 1};\n"
    "                first_tile = first[0] < first_tile ? first[0] : first_tile;\n"
    "                end_tile = end[0] > end_tile ? end[0] : end_tile;\n"
    "                first_plain = first[1] > first_plain ? first[1] : first_plain;\n"
    "                end_plain = end[1] < end_plain ? end[1] : end_plain;\n"
    "            }\n"
    "            first_tile = first_tile < end_tile ? first_tile : end_tile;\n"
    "        }\n";

/* The values of a key, but those that are left out. */
static void print_some(struct printer *p, const bool *left_out)
{
    struct nest narrowed = *p->nest;
    uint32_t count = narrowed.kernel->instruction_count;
    narrowed.value = NEW_ARRAY(p->arena, struct nest_value, count + 1);
    memcpy(narrowed.value, p->nest->value, count * sizeof *narrowed.value);
    for (uint32_t i = 0; i < count; i++)
        if (left_out[i] && narrowed.value[i].depth == nest_fast_depth(p->nest))
            narrowed.value[i].depth = UINT32_MAX;
    struct printer inner = *p;
    inner.nest = &narrowed;
    print_values(&inner, nest_fast_depth(&narrowed), 0);
}

static void print_conditions(struct printer *p, const struct cuda_mask *mask)
{
    bool *left_out = NEW_ARRAY(p->arena, bool, p->nest->kernel->instruction_count + 1);
    for (uint32_t i = 0; i < p->nest->kernel->instruction_count; i++)
        left_out[i] = !mask->needed[i];
    print_some(p, left_out);
    for (uint32_t i = 0; i < mask->count; i++) {
        print_line(p, "some[%u] |= %s;", (unsigned)i, print_value(p, (uint32_t)mask->condition[i]));
        print_line(p, "each[%u] &= %s;", (unsigned)i, print_value(p, (uint32_t)mask->condition[i]));
    }
}

void cuda_attention_print_plain(struct printer *p, const struct cuda_mask *mask)
{
    bool *left_out = NEW_ARRAY(p->arena, bool, p->nest->kernel->instruction_count + 1);
    for (uint32_t i = 0; i < mask->count; i++) {
        left_out[mask->condition[i]] = true;
        print_line(p, "const bool %s = true;", print_value(p, (uint32_t)mask->condition[i]));
    }
    print_some(p, left_out);
}

void cuda_attention_print_range(struct printer *p, const struct cuda_mask *mask, const struct cuda_letters *letters)
{
    struct cuda_letters l = *letters;
    const struct nest *n = p->nest;
    cuda_fill(p->out, start_form, &l);
    if (mask->count == 0)
        return;
    l.of['H' - 'A'] = cuda_number(p->arena, mask->count);
    cuda_fill(p->out, "        SHARED(int, edge_tile, [2][$M / 32]);\n", &l);
    cuda_fill(p->out, range_form, &l);
    p->indent = 3;
    cuda_print_coordinates(p, n->point, n->points, "row");
    print_indices(p, DEPTH_POINT, 0);
    print_values(p, DEPTH_POINT, 0);
    cuda_fill(p->out, scan_form, &l);
    p->indent = 6;
    print_conditions(p, mask);
    cuda_fill(p->out, found_form, &l);
}

/* ---- few rows ---- */

static const char seen_form[] =
    "        uint32_t low = 0, high = (uint32_t)arguments.keys; /* keys that some row of the tile may see */\n"
    "        {\n"
    "            int64_t first = 0, end = arguments.keys; /* of this row */\n"
    "            const int64_t c$C = 0;\n";

/* A row that sees nothing may have its end before its first. Of all rows of the warp's. */
static const char tile_form[] =
    "            first = first < end ? first : end;\n"
    "            low = (uint32_t)(first > 0 ? first : 0);\n"
    "            high = (uint32_t)(end > 0 ? end : 0);\n"
    "            UNROLL for (int distance = $X; distance < $Y; distance <<= 1) {\n"
    "                const uint32_t other_low = __shfl_xor_sync(0xffffffffu, low, distance);\n"
    "                const uint32_t other_high = __shfl_xor_sync(0xffffffffu, high, distance);\n"
    "                low = other_low < low ? other_low : low;\n"
    "                high = other_high > high ? other_high : high;\n"
    "            }\n"
    "        }\n";

static const char per_split_form[] =
    "        const uint32_t per_split = ((uint32_t)((uint64_t)(high - low + splits) * (uint32_t)arguments.per_split >> "
    "32) + $J - 1) / $J * $J;\n";

static const char all_form[] = "        uint32_t low = 0, high = (uint32_t)arguments.keys;\n"
                               "        const uint32_t per_split = (uint32_t)arguments.per_split;\n";

void cuda_attention_print_seen(struct printer *p, const struct cuda_mask *mask, int align, const struct cuda_letters *l)
{
    const struct nest *n = p->nest;
    if (!mask->steady) {
        cuda_fill(p->out, all_form, l);
        return;
    }
    cuda_fill(p->out, seen_form, l);
    p->indent = 3;
    bool *left_out = NEW_ARRAY(p->arena, bool, n->kernel->instruction_count + 1);
    for (uint32_t i = 0; i < n->kernel->instruction_count; i++)
        left_out[i] = !mask->needed[i];
    print_some(p, left_out);
    for (uint32_t i = 0; i < mask->count; i++) {
        const struct instruction *a = at(n, mask->condition[i]);
        const char *left = print_value(p, (uint32_t)a->arg[0]), *right = print_value(p, (uint32_t)a->arg[1]);
        bool up = mask->slope[i] > 0; /* it holds up to some key; else from some key on */
        if (mask->slope[i] == 0)
            continue;
        print_line(p, "const int64_t d%u = tpc_difference(%s, %s);", (unsigned)i, up ? right : left, up ? left : right);
        bool one = up == (a->op == OP_LE); /* behind the last, up to and with d; the first, behind d */
        if (up)
            print_line(p, "end = d%u < end ? d%u%s : end;", (unsigned)i, (unsigned)i, one ? " + 1" : "");
        else
            print_line(p, "first = d%u >= first ? d%u%s : first;", (unsigned)i, (unsigned)i, one ? " + 1" : "");
    }
    cuda_fill(p->out, tile_form, l);
    p->indent = 2;
    if (align)
        print_line(p, "low -= low %% %d;", align);
    cuda_fill(p->out, per_split_form, l);
}
