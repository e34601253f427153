/* codegen/attention_mask_cuda.c - which keys a score's expression may hide from a row, as far as that follows from the expression: causal masks, windows.
 *
 * A score is hidden where it is a large negative number whatever the product is: a select between the rest and such a number, or a sum with such a select.
 * What is selected by is a conjunction; of it those comparisons are taken that change at most once along the keys (one side grows with the key or
 * falls, by its index, the other does not depend on it). So a row sees a range of keys at most, whose ends the function finds by halving, a thread for
 * each row, without reading anything per key. Others that do not depend on a row's innermost coordinates (a mask of padding, by key) are looked at once for a
 * tile of keys, by the lanes of a warp, where a tile of rows has one value of all the others (the launch sees to that).
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

static void need(const struct nest *n, int32_t i, struct cuda_conditions *out)
{
    const struct instruction *a = at(n, i);
    if (out->needed[i])
        return;
    out->needed[i] = true;
    for (int k = 0; k < 3 && a->kind == INST_MAP; k++)
        if (a->arg[k] >= 0)
            need(n, a->arg[k], out);
    if (a->kind == INST_LOAD && a->dynamic >= 0)
        need(n, a->dynamic, out);
    if (a->kind == INST_LOAD && a->predicate >= 0)
        need(n, a->predicate, out);
}

/* Does a value not depend on a product? axes: then so many of a point's axes, the outermost, are all that it may depend on, beside the key. */
static bool is_of_key(const struct nest *n, int32_t i, int32_t product, uint32_t *axes)
{
    const struct instruction *a = at(n, i);
    bool all = true;
    switch ((int)a->kind) {
    case INST_CONST:
        return true;
    case INST_INDEX:
    case INST_LOAD:
        for (uint32_t p = *axes; p < n->points; p++)
            *axes = nest_motion_of(n->dims, a->index, n->point[p]) == NEST_STANDS ? *axes : p + 1;
        return i != product && (a->kind == INST_INDEX || (a->dynamic < 0 && a->predicate < 0));
    case INST_MAP:
        for (int k = 0; k < 3; k++)
            all = all && (a->arg[k] < 0 || is_of_key(n, a->arg[k], product, axes));
        return all;
    default:
        return false;
    }
}

/* What is looked for, and in which kernel. */
struct search {
    const struct nest *n;
    int32_t product;
    struct cuda_mask *mask;
};

static void take(const struct search *s, int32_t i, enum cuda_mask_kind kind, int slope)
{
    struct cuda_conditions *c = &s->mask->of[kind];
    for (uint32_t k = 0; k < c->count; k++)
        if (c->at[k] == i)
            return;
    c->slope[c->count] = slope;
    c->at[c->count++] = i;
    need(s->n, i, c);
}

/* Takes what can be taken of a condition without which a score is `hidden`; true: that is all of it. */
static bool add_condition(const struct search *s, int32_t i, double hidden, bool added)
{
    const struct nest *n = s->n;
    struct cuda_mask *mask = s->mask;
    if (is_map(n, i, OP_AND)) {
        bool left = add_condition(s, at(n, i)->arg[0], hidden, added);
        return add_condition(s, at(n, i)->arg[1], hidden, added) && left;
    }
    int direction = UNKNOWN;
    if (is_map(n, i, OP_LE) || is_map(n, i, OP_LT))
        direction = sum_of(direction_of(n, at(n, i)->arg[0]), opposite(direction_of(n, at(n, i)->arg[1])));
    bool on_positions = direction == 1 || direction == -1;
    enum cuda_mask_kind kind = !on_positions ? CUDA_MASK_OF_KEY : direction < 0 ? CUDA_MASK_GROWS : CUDA_MASK_FALLS;
    uint32_t axes = 0;
    if (mask->of[kind].count == CUDA_MASK_CONDITIONS || n->value[i].depth < nest_fast_depth(n) ||
        (!on_positions && (!is_of_key(n, i, s->product, &axes) || axes == n->points)))
        return false;
    int first = on_positions ? slope_of(n, at(n, i)->arg[0]) : UNKNOWN;
    int second = on_positions ? slope_of(n, at(n, i)->arg[1]) : UNKNOWN;
    int slope = first == UNKNOWN || second == UNKNOWN ? 0 : first - second;
    slope = slope == 1 || slope == -1 ? slope : 0;
    take(s, i, kind, slope);
    mask->steady |= slope != 0;
    mask->axes = axes > mask->axes ? axes : mask->axes;
    if (!on_positions)
        return true;
    double least = added ? hidden / 2 : hidden + 128; /* above it, e to the power of the difference is 0 */
    bool finite = hidden > -(double)INFINITY;
    mask->least = finite && (!mask->finite || least > mask->least) ? least : mask->least;
    mask->finite = mask->finite || finite;
    return true;
}

/* ---- scores ---- */

static bool is_number(const struct nest *n, int32_t i, double *number)
{
    *number = at(n, i)->kind == INST_CONST ? at(n, i)->number : 0;
    return at(n, i)->kind == INST_CONST && dtype_is_float(at(n, i)->type);
}

static void mark(const struct cuda_mask *mask, int first_kind, bool as, bool *of)
{
    for (int kind = first_kind; kind < CUDA_MASK_KINDS; kind++)
        for (uint32_t i = 0; i < mask->of[kind].count; i++)
            of[mask->of[kind].at[i]] = as;
}

enum { NOTHING = -1 };

/* added: the value is a term of the score, not the score. Gives an instruction of that value where all conditions hold, NOTHING: it adds nothing. */
static int32_t find(const struct search *s, int32_t i, bool added)
{
    const struct nest *n = s->n;
    const struct instruction *a = at(n, i);
    double hidden, zero;
    if (is_map(n, i, OP_CAST) && dtype_is_float(at(n, a->arg[0])->type)) {
        return find(s, a->arg[0], added) == NOTHING ? NOTHING : i;
    } else if (is_map(n, i, OP_ADD)) {
        int32_t left = find(s, a->arg[0], true), right = find(s, a->arg[1], true);
        return left == NOTHING ? right : right == NOTHING ? left : i;
    } else if (is_map(n, i, OP_SELECT) && is_number(n, a->arg[2], &hidden) && hidden <= (added ? most_addend : -1)) {
        bool all = add_condition(s, a->arg[0], hidden, added);
        (void)find(s, a->arg[1], added);
        return all && added && is_number(n, a->arg[1], &zero) && zero == 0 ? NOTHING : i;
    }
    return i;
}

struct cuda_mask cuda_attention_mask(const struct nest *n, int32_t score, int32_t product, struct arena *arena)
{
    struct cuda_mask mask = {0};
    const struct search search = {n, product, &mask};
    for (int kind = 0; kind < CUDA_MASK_KINDS; kind++)
        mask.of[kind].needed = NEW_ARRAY(arena, bool, n->kernel->instruction_count + 1);
    struct cuda_conditions all = {.needed = NEW_ARRAY(arena, bool, n->kernel->instruction_count + 1)};
    mask.plain = find(&search, score, false);
    mark(&mask, CUDA_MASK_OF_KEY, true, all.needed);
    need(n, score, &all);
    for (uint32_t i = 0; i < n->kernel->instruction_count; i++) {
        if (!all.needed[i] || (int32_t)i == product || n->value[i].depth < nest_fast_depth(n) ||
            mask.of[CUDA_MASK_OF_KEY].needed[i])
            continue;
        mask.loads = mask.loads || at(n, (int32_t)i)->kind == INST_LOAD;
        mask.operations += at(n, (int32_t)i)->kind == INST_MAP;
    }
    mask.plain = mask.plain == NOTHING ? score : mask.plain;
    return mask;
}

/* ---- text ---- */

static const char start_form[] = "        int first_tile = 0, end_tile = (int)((arguments.keys + $K - 1) / $K); /* of "
                                 "keys that some row may see */\n"
                                 "        enum { NO_TILE = 0x7fffffff }; /* before it, where there are no rows */\n";

static const char row_form[] = "        {\n"
                               "            const int thread = tpc_thread();\n"
                               "            const uint32_t r = thread / 32 * ($G / 4) + thread % ($G / 4);\n"
                               "            const uint32_t row = base + (r < here ? r : 0);\n";

static const char bounds_form[] =
    "            int64_t bound[2] = {0, arguments.keys}; /* of the keys that the row may see */\n";

/* The first key for which all conditions that grow hold, the first for which one that falls does not. */
static const char halve_form[] =
    "            for (int64_t first = 0, end = arguments.keys; first < end; bound[$H] = first) {\n"
    "                const int64_t c$C = (first + end) / 2;\n";

static const char halved_form[] = "                first = beyond ? first : c$C + 1;\n"
                                  "                end = beyond ? c$C : end;\n"
                                  "            }\n";

static const char reduce_form[] =
    "            int edge[4] = {(int)(bound[0] / $K), -(int)((bound[1] + $K - 1) / $K), -(int)((bound[0] + $K - 1) / "
    "$K),\n"
    "                           (int)(bound[1] / $K)}; /* the least of each */\n"
    "            UNROLL for (int i = 0; i < 4; i++) {\n"
    "                edge[i] = r < here ? edge[i] : NO_TILE;\n"
    "                UNROLL for (int distance = 16; distance > 0; distance >>= 1) {\n"
    "                    const int other = __shfl_xor_sync(0xffffffffu, edge[i], distance);\n"
    "                    edge[i] = other < edge[i] ? other : edge[i];\n"
    "                }\n"
    "            }\n"
    "            if (thread % 32 == 0)\n"
    "                UNROLL for (int i = 0; i < 4; i++)\n"
    "                    edge_of[thread / 32][i] = i == 1 || i == 2 ? -edge[i] : edge[i];\n"
    "        }\n"
    "        __syncthreads();\n"
    "        end_tile = 0;\n"
    "        UNROLL for (int w = 0; w < 4; w++)\n"
    "            end_tile = edge_of[w][1] > end_tile ? edge_of[w][1] : end_tile;\n"
    "        first_tile = end_tile;\n"
    "        UNROLL for (int w = 0; w < 4; w++)\n"
    "            first_tile = edge_of[w][0] < first_tile ? edge_of[w][0] : first_tile;\n";

/* The values of a key that are needed. */
static void print_needed(struct printer *p, const bool *needed)
{
    struct nest narrowed = *p->nest;
    uint32_t count = narrowed.kernel->instruction_count;
    narrowed.value = NEW_ARRAY(p->arena, struct nest_value, count + 1);
    memcpy(narrowed.value, p->nest->value, count * sizeof *narrowed.value);
    for (uint32_t i = 0; i < count; i++)
        if (!needed[i] && narrowed.value[i].depth == nest_fast_depth(p->nest))
            narrowed.value[i].depth = UINT32_MAX;
    struct printer inner = *p;
    inner.nest = &narrowed;
    print_values(&inner, nest_fast_depth(&narrowed), 0);
}

/* Which bit stands for an element's key. */
static const char of_element[] = "[(e / 2 * 8 + e % 2) / 32] >> (e / 2 * 8 + e % 2) % 32 & 1";

/* A score from conditions that are known, those of some kinds; `known` of the number of one and its place among them. */
static void print_known(struct printer *p, const struct cuda_mask *mask, int first_kind, int32_t score,
                        const char *known)
{
    struct cuda_conditions all = {.needed = NEW_ARRAY(p->arena, bool, p->nest->kernel->instruction_count + 1)};
    mark(mask, first_kind, true, all.needed); /* what they are made of is not needed, */
    need(p->nest, score, &all);
    mark(mask, first_kind, false, all.needed); /* nor are they printed again */
    for (int kind = first_kind; kind < CUDA_MASK_KINDS; kind++)
        for (uint32_t i = 0; i < mask->of[kind].count; i++)
            print_line(p, "const bool %s = %s%s;", print_value(p, (uint32_t)mask->of[kind].at[i]), known,
                       *known ? arena_printf(p->arena, "[%u]%s", (unsigned)i, of_element) : "true");
    print_needed(p, all.needed);
    print_line(p, "score = (float)%s;", print_value(p, (uint32_t)score));
}

void cuda_attention_print_plain(struct printer *p, const struct cuda_mask *mask)
{
    print_known(p, mask, CUDA_MASK_GROWS, mask->plain, "");
}

void cuda_attention_print_masked(struct printer *p, const struct cuda_mask *mask, int32_t score)
{
    print_known(p, mask, CUDA_MASK_OF_KEY, score, "seen");
}

/* A lane looks at the keys of its number, and keeps the bits of all from those of its pair on. */
static const char look_form[] = "            bool looked[$N][$K / 32];\n"
                                "            UNROLL for (int part = 0; part < $K / 32; part++) {\n"
                                "                const int key = part * 32 + tpc_thread() % 32;\n"
                                "                const int64_t c$C = (uint32_t)(from + (key < last ? key : last));\n";

static const char seen_form[] =
    "            uint32_t every = 0xffffffffu, seen[$N][$K / 32];\n"
    "            UNROLL for (int i = 0; i < $N * ($K / 32); i++) {\n"
    "                const uint32_t all = __ballot_sync(0xffffffffu, looked[i / ($K / 32)][i % ($K / 32)]);\n"
    "                every &= all;\n"
    "                seen[i / ($K / 32)][i % ($K / 32)] = all >> tpc_thread() % 4 * 2;\n"
    "            }\n";

void cuda_attention_print_look(struct printer *p, const struct cuda_mask *mask, const struct cuda_letters *letters)
{
    const struct cuda_conditions *c = &mask->of[CUDA_MASK_OF_KEY];
    struct cuda_letters l = *letters;
    if (c->count == 0)
        return;
    l.of['N' - 'A'] = cuda_number(p->arena, c->count);
    cuda_fill(p->out, look_form, &l);
    p->indent = 4;
    for (uint32_t i = 0; i < p->nest->points; i++)
        print_line(p, "const int64_t c%u = coordinate[%u][0];", (unsigned)p->nest->point[i], (unsigned)i);
    print_indices(p, DEPTH_POINT, 0);
    print_values(p, DEPTH_POINT, 0);
    print_indices(p, nest_fast_depth(p->nest), 0);
    print_needed(p, c->needed);
    for (uint32_t i = 0; i < c->count; i++)
        print_line(p, "looked[%u][part] = %s;", (unsigned)i, print_value(p, (uint32_t)c->at[i]));
    text_put(p->out, "            }\n");
}

void cuda_attention_print_bits(struct printer *p, const struct cuda_mask *mask, const struct cuda_letters *letters)
{
    struct cuda_letters l = *letters;
    l.of['N' - 'A'] = cuda_number(p->arena, mask->of[CUDA_MASK_OF_KEY].count);
    cuda_fill(p->out,
              mask->of[CUDA_MASK_OF_KEY].count ? seen_form : "            const uint32_t every = 0xffffffffu;\n", &l);
}

void cuda_attention_print_range(struct printer *p, const struct cuda_mask *mask, const struct cuda_letters *letters,
                                const char *place)
{
    struct cuda_letters l = *letters;
    const struct nest *n = p->nest;
    bool some = mask->of[CUDA_MASK_GROWS].count + mask->of[CUDA_MASK_FALLS].count > 0;
    cuda_fill(p->out, start_form, &l);
    if (!some && !place)
        return;
    text_put(p->out, "        SHARED(int, edge_of, [4][4]);\n");
    cuda_fill(p->out, row_form, &l);
    p->indent = 3;
    cuda_print_coordinates(p, n->point, n->points, "row");
    print_indices(p, DEPTH_POINT, 0);
    print_values(p, DEPTH_POINT, 0);
    if (place)
        cuda_fill(p->out, place, &l);
    text_put(p->out, bounds_form);
    for (int kind = CUDA_MASK_GROWS; kind <= CUDA_MASK_FALLS; kind++) {
        if (mask->of[kind].count == 0)
            continue;
        l.of['H' - 'A'] = cuda_number(p->arena, kind);
        cuda_fill(p->out, halve_form, &l);
        p->indent = 4;
        print_indices(p, nest_fast_depth(n), 0);
        print_needed(p, mask->of[kind].needed);
        print_line(p, "bool all = true;");
        for (uint32_t i = 0; i < mask->of[kind].count; i++)
            print_line(p, "all = all & %s;", print_value(p, (uint32_t)mask->of[kind].at[i]));
        print_line(p, "const bool beyond = %sall;", kind == CUDA_MASK_GROWS ? "" : "!");
        cuda_fill(p->out, halved_form, &l);
    }
    cuda_fill(p->out, reduce_form, &l);
}

/* ---- few rows ---- */

static const char low_form[] =
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

/* Where a condition with a slope changes. */
static void print_change(struct printer *p, int32_t condition, int slope)
{
    const struct instruction *a = at(p->nest, condition);
    const char *left = print_value(p, (uint32_t)a->arg[0]), *right = print_value(p, (uint32_t)a->arg[1]);
    unsigned i = (unsigned)condition;
    bool up = slope > 0; /* it holds up to some key; else from some key on */
    if (slope == 0)
        return;
    print_line(p, "const int64_t d%u = tpc_difference(%s, %s);", i, up ? right : left, up ? left : right);
    bool one = up == (a->op == OP_LE); /* behind the last, up to and with d; the first, behind d */
    if (up)
        print_line(p, "end = d%u < end ? d%u%s : end;", i, i, one ? " + 1" : "");
    else
        print_line(p, "first = d%u >= first ? d%u%s : first;", i, i, one ? " + 1" : "");
}

void cuda_attention_print_seen(struct printer *p, const struct cuda_mask *mask, int align, const struct cuda_letters *l)
{
    const struct nest *n = p->nest;
    if (!mask->steady) {
        cuda_fill(p->out, all_form, l);
        return;
    }
    cuda_fill(p->out, low_form, l);
    p->indent = 3;
    bool *needed = NEW_ARRAY(p->arena, bool, n->kernel->instruction_count + 1);
    for (uint32_t i = 0; i < n->kernel->instruction_count; i++)
        needed[i] = mask->of[CUDA_MASK_GROWS].needed[i] || mask->of[CUDA_MASK_FALLS].needed[i];
    print_needed(p, needed);
    for (int kind = CUDA_MASK_GROWS; kind <= CUDA_MASK_FALLS; kind++)
        for (uint32_t i = 0; i < mask->of[kind].count; i++)
            print_change(p, mask->of[kind].at[i], mask->of[kind].slope[i]);
    cuda_fill(p->out, tile_form, l);
    p->indent = 2;
    if (align)
        print_line(p, "low -= low %% %d;", align);
    cuda_fill(p->out, per_split_form, l);
}
