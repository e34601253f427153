/* frontend/steer_styles.c - the table of styles: a name, and where input, weight and output lie. docs/steering.md prints it for people.
 *
 * Names of the Hugging Face registry mean here what they mean there; what differs between its names only in how tensors are wrapped is one thing here.
 * Start with `styles`.
 */
#include "frontend/steer.h"

#include <stdlib.h>

enum { BOTH = FITS_LINEAR | FITS_EMBEDDING };

const struct style styles[] = {
    /* name, fits, input, weight, output, packed, instead, values, local */
    {"embedding_rowwise", FITS_EMBEDDING, "any", "row", "whole", PACKED_ANY, NULL, VALUES_NONE, false},
    {"embedding_colwise", FITS_EMBEDDING, "any", "column", "whole", PACKED_ANY, NULL, VALUES_NONE, false},
    {"colwise", BOTH, "any", "column", "cut", PACKED_NO, "packed_colwise", VALUES_NONE, false},
    {"packed_colwise", FITS_LINEAR, "any", "column", "cut", PACKED_YES, "colwise", VALUES_NONE, false},
    {"colwise_gather_output", BOTH, "any", "column", "whole", PACKED_ANY, NULL, VALUES_NONE, false},
    {"colwise_rep", BOTH, "any", "column", "whole", PACKED_ANY, NULL, VALUES_NONE, false},
    {"rowwise", BOTH, "cut", "row", "whole", PACKED_NO, "packed_rowwise", VALUES_NONE, false},
    {"packed_rowwise", FITS_LINEAR, "cut", "row", "whole", PACKED_YES, "rowwise", VALUES_NONE, false},
    {"rowwise_split_input", FITS_LINEAR, "whole", "row", "whole", PACKED_ANY, NULL, VALUES_NONE, false},
    {"rowwise_rep", FITS_LINEAR, "whole", "row", "whole", PACKED_ANY, NULL, VALUES_NONE, false},
    {"whole", BOTH, "any", "whole", "any", PACKED_ANY, NULL, VALUES_NONE, false},
    {"local_colwise", BOTH, "any", "column", "cut", PACKED_NO, "packed_colwise", VALUES_NONE, false},
    {"local_rowwise", BOTH, "cut", "row", "any", PACKED_NO, "local_packed_rowwise", VALUES_NONE, false},
    {"local_packed_rowwise", FITS_LINEAR, "cut", "row", "any", PACKED_YES, "local_rowwise", VALUES_NONE, false},
    {"grouped_gemm", FITS_LINEAR, "any", "expert", "any", PACKED_ANY, NULL, VALUES_NONE, false},
    {"replicate", BOTH | FITS_VALUE, "any", "whole", "whole", PACKED_ANY, NULL, VALUES_WHOLE, false},
    {"replicated_with_grad_allreduce", BOTH | FITS_VALUE, "any", "whole", "any", PACKED_ANY, NULL, VALUES_WEIGHTS,
     false},
    {"mla_kv_a_proj", FITS_LINEAR, "any", "whole", "any", PACKED_ANY, NULL, VALUES_NONE, false},
    {"ep_router", FITS_LINEAR, "any", "whole", "any", PACKED_ANY, NULL, VALUES_NONE, false},
    {"megamoe_router", FITS_LINEAR, "any", "whole", "any", PACKED_ANY, NULL, VALUES_NONE, false},
    {"sequence_parallel", FITS_VALUE, "any", "any", "any", PACKED_ANY, NULL, VALUES_SEQUENCE, false},
    {"sequence", FITS_VALUE, "any", "any", "any", PACKED_ANY, NULL, VALUES_SEQUENCE, false},
    {"gather", FITS_VALUE, "any", "any", "any", PACKED_ANY, NULL, VALUES_OUTPUT, false},
    {"all_reduce", FITS_VALUE, "any", "any", "any", PACKED_ANY, NULL, VALUES_OUTPUT, false},
    {"moe_tp_experts", FITS_VALUE, "any", "any", "any", PACKED_ANY, NULL, VALUES_OUTPUT, false},
    {"megamoe_experts", FITS_VALUE, "any", "any", "any", PACKED_ANY, NULL, VALUES_OUTPUT, false},
    {"local", BOTH, "any", "any", "any", PACKED_ANY, NULL, VALUES_NONE, true},
    {"isolated", BOTH, "any", "any", "any", PACKED_ANY, NULL, VALUES_NONE, true},
    {"moe_identity_expert", BOTH, "any", "any", "any", PACKED_ANY, NULL, VALUES_NONE, true},
    {"column", FITS_LINEAR, "any", "column", "any", PACKED_ANY, NULL, VALUES_NONE, false},
    {"row", FITS_LINEAR, "any", "row", "any", PACKED_ANY, NULL, VALUES_NONE, false},
    {"vocab", FITS_EMBEDDING, "any", "row", "any", PACKED_ANY, NULL, VALUES_NONE, false},
    {"feature", FITS_EMBEDDING, "any", "column", "any", PACKED_ANY, NULL, VALUES_NONE, false},
    {0},
};

/* ---- words ---- */

/* [at, end) is `word`, or `word:N`, N >= 2: then *parts is N. */
static bool is_word(const char *at, const char *end, const char *word, uint32_t *parts)
{
    size_t n = strlen(word), length = (size_t)(end - at);
    if (length < n || memcmp(at, word, n) != 0)
        return false;
    if (length == n)
        return true;
    char *rest = NULL;
    unsigned long count = at[n] == ':' && at[n + 1] >= '0' && at[n + 1] <= '9' ? strtoul(at + n + 1, &rest, 10) : 0;
    if (rest != end || count < 2 || count > MAX_RANKS)
        return false;
    *parts = (uint32_t)count;
    return true;
}

static bool side_parts(const char *text, uint32_t parts, uint32_t *out)
{
    uint32_t count = parts ? parts : PARTS_CUT;
    const char *end = text + strlen(text);
    if (strcmp(text, "any") == 0)
        *out = PARTS_ANY;
    else if (strcmp(text, "whole") == 0)
        *out = PARTS_WHOLE;
    else if (is_word(text, end, "cut", &count))
        *out = count;
    else
        return false;
    return true;
}

static bool weight_parts(const char *text, uint32_t parts, struct layer_parts *out)
{
    bool any = strcmp(text, "any") == 0;
    out->in = out->out = any ? PARTS_ANY : PARTS_WHOLE;
    out->batch = PARTS_ANY;
    if (any || strcmp(text, "whole") == 0) {
        out->batch = out->in;
        return true;
    }
    for (const char *at = text; at;) {
        const char *plus = strchr(at, '+'), *end = plus ? plus : at + strlen(at);
        uint32_t count = parts ? parts : PARTS_CUT;
        if (is_word(at, end, "row", &count) || is_word(at, end, "vocab", &count))
            out->in = count;
        else if (is_word(at, end, "column", &count) || is_word(at, end, "feature", &count))
            out->out = count;
        else if (is_word(at, end, "expert", &count))
            out->batch = count;
        else
            return false;
        at = plus ? plus + 1 : NULL;
    }
    return true;
}

bool style_parts(const struct style *s, uint32_t parts, struct layer_parts *out, const char **wrong)
{
    *out = (struct layer_parts){0};
    *wrong = s->input;
    if (!side_parts(s->input, parts, &out->arrives))
        return false;
    *wrong = s->weight;
    if (!weight_parts(s->weight, parts, out))
        return false;
    *wrong = s->output;
    return side_parts(s->output, parts, &out->leaves);
}

/* ---- names ---- */

const struct style *style_find(const char *text, uint32_t *parts)
{
    *parts = 0;
    for (const struct style *s = styles; s->name; s++)
        if (is_word(text, text + strlen(text), s->name, parts))
            return s;
    return NULL;
}

const char *style_nearest(const char *text)
{
    uint32_t parts;
    const char *colon = strchr(text, ':');
    struct arena *copies = colon ? arena_new() : NULL;
    const struct style *known = copies ? style_find(arena_strndup(copies, text, (size_t)(colon - text)), &parts) : NULL;
    arena_free(copies);
    if (known)
        return known->name; /* its number of parts is none */
    const char *best = styles[0].name;
    uint32_t least = UINT32_MAX;
    struct arena *arena = arena_new();
    for (const struct style *s = styles; arena && s->name; s++) {
        uint32_t distance = text_distance(arena, text, s->name, true);
        if (distance < least)
            best = s->name, least = distance;
    }
    arena_free(arena);
    return best;
}
