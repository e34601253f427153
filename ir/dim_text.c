/* ir/dim_text.c - dims as text, and back.
 *
 *   sum     = term { ("+" | "-") term }
 *   term    = unary { ("*" | "/" | "//" | "%") unary }   ("%" in a dim_param only)
 *   unary   = "-" unary | primary [ "**" integer ]
 *   primary = integer | name | '"' quoted name '"' | "(" sum ")" | function "(" sum { "," sum } ")"
 *
 * A printed dim parses to the same dim. Names of coordinates, partitions and the rank are c0, s:1, o:1, k:1, rank; an input symbol that looks
 * like one of them is quoted. Text of a model's dim_param goes through the same parser with those forms switched off.
 */
#include "ir/dim_table.h"
#include "ir/text_form.h"

#include <assert.h>

enum { PARSE_DEPTH_LIMIT = 100, EXPONENT_LIMIT = 16 };

/* ---- names ---- */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}
static bool is_name_start(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}
static bool is_name_part(char c)
{
    return is_name_start(c) || is_digit(c) || c == '.';
}
static char lower_case(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

enum function {
    NOT_A_FUNCTION,
    FUNCTION_MAX,
    FUNCTION_MIN,
    FUNCTION_MOD,
    FUNCTION_DIV,
    FUNCTION_CEILDIV,
    FUNCTION_SAME,
    FUNCTION_CEIL
};

static const struct {
    const char *name;
    enum function function;
} functions[] = {
    {"max", FUNCTION_MAX},        {"min", FUNCTION_MIN},         {"mod", FUNCTION_MOD},
    {"pythonmod", FUNCTION_MOD},  {"div", FUNCTION_DIV},         {"floordiv", FUNCTION_DIV},
    {"inttruediv", FUNCTION_DIV}, {"cleandiv", FUNCTION_DIV},    {"ceildiv", FUNCTION_CEILDIV},
    {"floor", FUNCTION_SAME},     {"floortoint", FUNCTION_SAME}, {"trunctoint", FUNCTION_SAME},
    {"ceil", FUNCTION_CEIL},      {"ceiling", FUNCTION_CEIL},    {"ceiltoint", FUNCTION_CEIL},
};

static enum function function_named(const char *name, size_t length)
{
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        const char *f = functions[i].name;
        size_t k = 0;
        while (k < length && f[k] && lower_case(name[k]) == f[k])
            k++;
        if (k == length && !f[k])
            return functions[i].function;
    }
    return NOT_A_FUNCTION;
}

/* "c12" -> true, 12: a name that the text form gives to coordinates. */
static bool coordinate_name(const char *name, size_t length, uint32_t *axis)
{
    uint64_t n = 0;
    if (length < 2 || length > 6 || name[0] != 'c')
        return false;
    for (size_t i = 1; i < length; i++) {
        if (!is_digit(name[i]))
            return false;
        n = n * 10 + (uint64_t)(name[i] - '0');
    }
    *axis = (uint32_t)n;
    return true;
}

static bool plain_name(const char *name)
{
    size_t length = strlen(name);
    uint32_t axis;
    if (!is_name_start(name[0]) || function_named(name, length) || strcmp(name, "rank") == 0 ||
        coordinate_name(name, length, &axis))
        return false;
    for (size_t i = 1; i < length; i++)
        if (!is_name_part(name[i]))
            return false;
    return true;
}

/* ---- printing ---- */

static void print_symbol(const struct symbol *s, struct text *out)
{
    if (s->kind != SYMBOL_INPUT || plain_name(s->name))
        text_put(out, s->name);
    else
        text_quote(out, s->name, strlen(s->name));
}

static void print_grouped(const struct dims *t, dim d, struct text *out)
{
    int64_t v;
    enum dim_op o = dim_node_at(t, d)->op;
    bool bare = o == DIM_SYMBOL || o == DIM_CEILDIV || o == DIM_MOD || o == DIM_MAX || o == DIM_MIN ||
                (dim_is_const(t, d, &v) && v >= 0);
    text_put(out, bare ? "" : "(");
    dim_print(t, d, out);
    text_put(out, bare ? "" : ")");
}

static void print_sum(const struct dims *t, const struct dim_node *n, struct text *out)
{
    bool constant_first = n->value > 0 && n->coefficient[0] < 0;
    if (constant_first)
        text_printf(out, "%lld", (long long)n->value);
    for (uint32_t i = 0; i < n->count; i++) {
        int64_t c = n->coefficient[i];
        bool first = i == 0 && !constant_first;
        text_put(out, first ? c < 0 ? "-" : "" : c < 0 ? " - " : " + ");
        unsigned long long magnitude = c < 0 ? 0 - (unsigned long long)c : (unsigned long long)c;
        if (magnitude != 1)
            text_printf(out, "%llu*", magnitude);
        bool division = dim_node_at(t, n->arg[i])->op == DIM_DIV && (magnitude != 1 || c < 0);
        text_put(out, division ? "(" : "");
        dim_print(t, n->arg[i], out);
        text_put(out, division ? ")" : "");
    }
    if (!constant_first && n->value != 0)
        text_printf(out, n->value < 0 ? " - %llu" : " + %llu",
                    n->value < 0 ? 0 - (unsigned long long)n->value : (unsigned long long)n->value);
}

static const char *pair_name(enum dim_op o)
{
    return o == DIM_CEILDIV ? "ceildiv" : o == DIM_MOD ? "mod" : o == DIM_MAX ? "max" : "min";
}

void dim_print(const struct dims *t, dim d, struct text *out)
{
    if (d == DIM_NONE) {
        text_put(out, "?");
        return;
    }
    const struct dim_node *n = dim_node_at(t, d);
    switch (n->op) {
    case DIM_CONST:
        text_printf(out, "%lld", (long long)n->value);
        return;
    case DIM_SYMBOL:
        print_symbol(&t->symbols.at[n->symbol], out);
        return;
    case DIM_SUM:
        print_sum(t, n, out);
        return;
    case DIM_PRODUCT:
        for (uint32_t i = 0; i < n->count; i++) {
            text_put(out, i ? "*" : "");
            print_grouped(t, n->arg[i], out);
        }
        return;
    case DIM_DIV:
        print_grouped(t, n->arg[0], out);
        text_put(out, "/");
        print_grouped(t, n->arg[1], out);
        return;
    case DIM_CEILDIV:
    case DIM_MOD:
    case DIM_MAX:
    case DIM_MIN:
        text_put(out, pair_name(n->op));
        text_put(out, "(");
        dim_print(t, n->arg[0], out);
        text_put(out, ", ");
        dim_print(t, n->arg[1], out);
        text_put(out, ")");
        return;
    }
    assert(false && "unknown dim op");
}

const char *dim_text(const struct dims *t, dim d, struct arena *arena)
{
    struct text out = {.arena = arena};
    dim_print(t, d, &out);
    return out.at;
}

/* ---- parsing ---- */

struct parser {
    struct dims *t;
    const char *at, *end;
    int depth;
    bool model;    /* a dim_param: every name is an input symbol */
    bool dry;      /* syntax alone: names stand for 1 and leave no symbol behind */
    bool round_up; /* inside ceil(...): a division rounds up */
    bool failed;
};

static dim parse_sum(struct parser *p);

static dim fail(struct parser *p)
{
    p->failed = true;
    return DIM_NONE;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* Where the next token starts; the cursor itself is moved only past what was parsed. */
static char peek(const struct parser *p, const char **token)
{
    const char *at = p->at;
    while (at < p->end && is_space(*at))
        at++;
    *token = at;
    return at < p->end ? *at : '\0';
}

static bool accept(struct parser *p, char c)
{
    const char *token;
    if (peek(p, &token) != c || token == p->end)
        return false;
    p->at = token + 1;
    return true;
}

static bool parse_integer(struct parser *p, int64_t *out)
{
    int64_t v = 0;
    const char *start = p->at;
    while (p->at < p->end && is_digit(*p->at)) {
        if (!i64_mul(v, 10, &v) || !i64_add(v, *p->at - '0', &v))
            return false;
        p->at++;
    }
    *out = v;
    return p->at > start;
}

static dim parse_number(struct parser *p)
{
    int64_t v;
    if (!parse_integer(p, &v) || (p->at < p->end && is_name_part(*p->at)))
        return fail(p);
    return dim_const(p->t, v);
}

static dim parse_quoted(struct parser *p)
{
    char *name;
    size_t length;
    if (!text_unquote(&p->at, p->end, p->t->arena, &name, &length) || strlen(name) != length)
        return fail(p);
    return dim_symbol(p->t, name);
}

static dim apply(struct parser *p, enum function f, dim a, dim b)
{
    switch (f) {
    case FUNCTION_MAX:
        return dim_max(p->t, a, b);
    case FUNCTION_MIN:
        return dim_min(p->t, a, b);
    case FUNCTION_MOD:
        return dim_mod(p->t, a, b);
    case FUNCTION_DIV:
        return p->round_up ? dim_ceildiv(p->t, a, b) : dim_div(p->t, a, b);
    case FUNCTION_CEILDIV:
        return dim_ceildiv(p->t, a, b);
    case FUNCTION_SAME:
    case FUNCTION_CEIL:
    case NOT_A_FUNCTION:
        break;
    }
    return fail(p);
}

/* After "name(". */
static dim parse_call(struct parser *p, enum function f)
{
    bool outer = p->round_up;
    p->round_up = f == FUNCTION_CEIL;
    dim a = parse_sum(p);
    uint32_t count = 1;
    while (!p->failed && accept(p, ',')) {
        dim b = parse_sum(p);
        bool many = f == FUNCTION_MAX || f == FUNCTION_MIN;
        if (p->failed || (count++ > 1 && !many))
            return fail(p);
        p->round_up = outer;
        a = apply(p, f, a, b);
    }
    p->round_up = outer;
    bool single = f == FUNCTION_SAME || f == FUNCTION_CEIL;
    if (p->failed || (count == 1) != single || !accept(p, ')'))
        return fail(p);
    return a;
}

static dim parse_name(struct parser *p)
{
    const char *start = p->at, *token;
    while (p->at < p->end && is_name_part(*p->at))
        p->at++;
    size_t length = (size_t)(p->at - start);
    enum function f = function_named(start, length);
    if (f && peek(p, &token) == '(') {
        p->at = token + 1;
        return parse_call(p, f);
    }
    uint32_t index;
    int64_t number;
    if (!p->model && length == 1 && strchr("sok", *start) && p->end - p->at >= 2 && p->at[0] == ':' &&
        is_digit(p->at[1])) {
        p->at++;
        if (!parse_integer(p, &number) || number > UINT32_MAX)
            return fail(p);
        if (*start == 'k')
            return dim_capacity(p->t, (uint32_t)number);
        return *start == 's' ? dim_part_size(p->t, (uint32_t)number) : dim_part_offset(p->t, (uint32_t)number);
    }
    if (!p->model && length == 4 && memcmp(start, "rank", 4) == 0)
        return dim_rank(p->t);
    if (!p->model && coordinate_name(start, length, &index))
        return dim_coordinate(p->t, index);
    return p->dry ? p->t->one : dim_symbol(p->t, arena_strndup(p->t->arena, start, length));
}

static dim parse_primary(struct parser *p)
{
    char c = peek(p, &p->at);
    if (is_digit(c))
        return parse_number(p);
    if (c == '"' && !p->model)
        return parse_quoted(p);
    if (is_name_start(c))
        return parse_name(p);
    if (!accept(p, '('))
        return fail(p);
    dim d = parse_sum(p);
    return !p->failed && accept(p, ')') ? d : fail(p);
}

static dim parse_power(struct parser *p)
{
    dim base = parse_primary(p), power = base;
    const char *token;
    int64_t exponent;
    if (p->failed || peek(p, &token) != '*' || token + 1 >= p->end || token[1] != '*')
        return base;
    p->at = token + 2;
    (void)peek(p, &p->at);
    if (!parse_integer(p, &exponent) || exponent > EXPONENT_LIMIT)
        return fail(p);
    if (exponent == 0)
        return dim_const(p->t, 1);
    for (int64_t i = 1; i < exponent; i++)
        power = dim_mul(p->t, power, base);
    return power;
}

static dim parse_unary(struct parser *p)
{
    const char *token;
    if (peek(p, &token) != '-')
        return parse_power(p);
    if (p->depth >= PARSE_DEPTH_LIMIT)
        return fail(p);
    p->at = token + 1;
    p->depth++;
    dim d = parse_unary(p);
    p->depth--;
    return dim_sub(p->t, dim_const(p->t, 0), d);
}

static dim parse_term(struct parser *p)
{
    dim d = parse_unary(p);
    const char *token;
    while (!p->failed) {
        char c = peek(p, &token);
        bool value = c == '%' && !p->model; /* in the text form "%1" begins a node; remainders are mod(a, b) there */
        if (value || (c != '*' && c != '/' && c != '%'))
            break;
        p->at = token + 1;
        if (c == '/' && p->at < p->end && *p->at == '/')
            p->at++;
        dim right = parse_unary(p);
        d = c == '*' ? dim_mul(p->t, d, right) : apply(p, c == '/' ? FUNCTION_DIV : FUNCTION_MOD, d, right);
    }
    return d;
}

static dim parse_sum(struct parser *p)
{
    if (p->depth >= PARSE_DEPTH_LIMIT)
        return fail(p);
    p->depth++;
    dim d = parse_term(p);
    const char *token;
    while (!p->failed) {
        char c = peek(p, &token);
        bool arrow = c == '-' && token + 1 < p->end && token[1] == '>';
        if ((c != '+' && c != '-') || arrow)
            break;
        p->at = token + 1;
        dim right = parse_term(p);
        d = c == '+' ? dim_add(p->t, d, right) : dim_sub(p->t, d, right);
    }
    p->depth--;
    return d;
}

dim dim_parse(struct dims *t, const char **cursor, const char *end)
{
    struct parser p = {.t = t, .at = *cursor, .end = end};
    dim d = parse_sum(&p);
    *cursor = p.at;
    return p.failed ? DIM_NONE : d;
}

static bool is_expression(struct dims *t, const char *text, size_t length)
{
    struct parser p = {.t = t, .at = text, .end = text + length, .model = true, .dry = true};
    (void)parse_sum(&p);
    const char *rest;
    return !p.failed && (peek(&p, &rest), rest == p.end);
}

static bool is_identifier(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (!is_name_part(text[i]))
            return false;
    return length > 0 && is_name_start(text[0]);
}

dim dim_parse_param(struct dims *t, const char *text, size_t length)
{
    char *whole = arena_strndup(t->arena, text, length);
    length = strlen(whole);
    if (length == 0)
        return DIM_NONE;
    if (is_identifier(whole, length))
        return dim_symbol(t, whole);
    if (!is_expression(t, whole, length))
        return dim_symbol(t, whole);
    struct parser p = {.t = t, .at = whole, .end = whole + length, .model = true};
    dim d = parse_sum(&p);
    int64_t v;
    return dim_is_const(t, d, &v) && v < 0 ? dim_symbol(t, whole) : d;
}
