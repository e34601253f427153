/* frontend/steer_match.c - patterns on names: docs/steering.md, Patterns.
 *
 * A name is parts, divided by '.' or '/' (empty ones do not count): "/layers.0/mlp/up/MatMul" is layers, 0, mlp, up, MatMul. A pattern is parts too;
 * '*' stands for any run of characters within a part, a part "**" for any number of parts. It may begin at any part of the name, and the name may go
 * on behind it for `tail` parts. A pattern that begins with '/' is the whole name. Start with pattern_matches.
 */
#include "frontend/steer.h"

enum { MOST_PARTS = 128, LONGEST = 4096 };

struct part {
    const char *at;
    size_t length;
};

static uint32_t split(const char *text, struct part *out)
{
    uint32_t count = 0;
    while (*text && count < MOST_PARTS) {
        size_t n = strcspn(text, "./");
        if (n)
            out[count++] = (struct part){text, n};
        text += n + (text[n] != 0);
    }
    return count;
}

/* Whether a pattern's part matches a name's: '*' is any run. Goes back to the last '*' only, which is enough. */
static bool part_matches(const struct part *p, const struct part *n)
{
    size_t i = 0, k = 0, star = SIZE_MAX, resume = 0;
    while (k < n->length) {
        if (i < p->length && p->at[i] == '*') {
            star = i++;
            resume = k;
        } else if (i < p->length && p->at[i] == n->at[k]) {
            i++, k++;
        } else if (star != SIZE_MAX) {
            i = star + 1;
            k = ++resume;
        } else {
            return false;
        }
    }
    while (i < p->length && p->at[i] == '*')
        i++;
    return i == p->length;
}

static bool is_any(const struct part *p)
{
    return p->length == 2 && p->at[0] == '*' && p->at[1] == '*';
}

/* Whether all of the pattern matches name[from, end) for an end that leaves at most `tail` parts: the same walk, with parts for characters. */
static bool parts_match(const struct part *pattern, uint32_t np, const struct part *name, uint32_t from, uint32_t nn,
                        uint32_t tail)
{
    bool here[MOST_PARTS + 1] = {false}; /* pattern parts so far may end behind name part k */
    here[from] = true;
    for (uint32_t i = 0; i < np; i++) {
        bool any = is_any(&pattern[i]);
        for (uint32_t k = nn + 1; k-- > from;)
            if (!any)
                here[k] = k > from && here[k - 1] && part_matches(&pattern[i], &name[k - 1]);
        for (uint32_t k = from + 1; any && k <= nn; k++)
            here[k] = here[k] || here[k - 1];
    }
    for (uint32_t k = from; k <= nn; k++)
        if (here[k] && nn - k <= tail)
            return true;
    return false;
}

bool pattern_matches(const char *pattern, const char *name, uint32_t tail)
{
    struct part p[MOST_PARTS], n[MOST_PARTS];
    uint32_t np = split(pattern, p), nn = split(name, n);
    if (!np || !nn)
        return false;
    if (pattern[0] == '/')
        return parts_match(p, np, n, 0, nn, 0);
    for (uint32_t from = 0; from < nn; from++)
        if (parts_match(p, np, n, from, nn, tail))
            return true;
    return false;
}

uint32_t text_distance(struct arena *arena, const char *a, const char *b, bool whole)
{
    size_t na = strlen(a), nb = strlen(b);
    na = na > LONGEST ? LONGEST : na;
    nb = nb > LONGEST ? LONGEST : nb;
    struct arena_mark mark = arena_mark(arena);
    uint32_t *row = NEW_ARRAY(arena, uint32_t, na + 1), least = UINT32_MAX; /* row[i]: from the first i of a */
    for (size_t i = 0; i <= na; i++)
        row[i] = (uint32_t)i;
    least = row[na];
    for (size_t k = 0; k < nb; k++) {
        uint32_t corner = row[0];
        row[0] = whole ? (uint32_t)k + 1 : 0;
        for (size_t i = 0; i < na; i++) {
            uint32_t replaced = corner + (a[i] != b[k]), other = (row[i] < row[i + 1] ? row[i] : row[i + 1]) + 1;
            corner = row[i + 1];
            row[i + 1] = replaced < other ? replaced : other;
        }
        least = row[na] < least ? row[na] : least;
    }
    uint32_t distance = whole ? row[na] : least;
    arena_rewind(arena, mark);
    return distance;
}
