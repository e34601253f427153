/* frontend/steer_plan.c - a solution's own styles as a plan file: what `tpc dump --tp-plan` prints and `--tp-plan` reads back to the same plan.
 *
 * "exact" in the file makes what a style leaves open mean: no conversion. So every switch point's five numbers are determined, and with them every
 * decision of the solver; it then finds the same plan again, since of equal ones it takes the first. Start with steer_print_plan.
 */
#include "frontend/json.h"
#include "frontend/steer.h"

struct printer {
    struct arena *arena;
    const struct graph *g;
    const struct solution *s;
    cJSON *styles, *plan;
    uint32_t ranks;          /* of the tensor axis */
    struct map by_name;      /* a name of nodes, or of weights -> 1 + index of its first layer; or AMBIGUOUS */
    LIST(const char *) said; /* per layer: its style */
};
enum { AMBIGUOUS = INT32_MAX };

static const char *side(struct arena *arena, uint32_t parts)
{
    return parts <= 1 ? "whole" : arena_printf(arena, "cut:%u", parts);
}

/* An own style that says it all. */
static const char *own_style(struct printer *p, const struct layer *l)
{
    const struct layer_parts *x = &l->parts;
    struct text weight = {.arena = p->arena};
    const struct {
        uint32_t parts;
        const char *word;
    } terms[] = {{x->batch, "expert"}, {x->in, "row"}, {x->out, "column"}};
    for (int i = 0; i < 3; i++)
        if (terms[i].parts > 1)
            text_printf(&weight, "%s%s:%u", weight.length ? "+" : "", terms[i].word, terms[i].parts);
    const char *in = side(p->arena, x->arrives), *w = weight.length ? weight.at : "whole",
               *out = side(p->arena, x->leaves);
    const char *name = arena_printf(p->arena, "%s in, %s, %s out", in, w, out);
    if (!cJSON_GetObjectItemCaseSensitive(p->styles, name)) {
        cJSON *o = cJSON_AddObjectToObject(p->styles, name);
        cJSON_AddStringToObject(o, "input", in);
        cJSON_AddStringToObject(o, "weight", w);
        cJSON_AddStringToObject(o, "output", out);
    }
    return name;
}

static bool is_part(uint32_t want, uint32_t have, uint32_t open)
{
    return (want == PARTS_ANY ? open : want) == have;
}

/* Whether the style with `parts` parts, exact, means what the layer has. */
static bool says(const struct style *style, uint32_t parts, const struct layer *l, bool embedding)
{
    struct layer_parts want;
    const struct layer_parts *have = &l->parts;
    const char *wrong = NULL;
    bool packed = have->in > 1 ? l->packed_in : l->packed_out;
    if (style->values != VALUES_NONE || style->local || !(style->fits & (embedding ? FITS_EMBEDDING : FITS_LINEAR)) ||
        !style_parts(style, parts, &want, &wrong))
        return false;
    if ((style->packed == PACKED_YES && !packed) || (style->packed == PACKED_NO && packed && !embedding))
        return false;
    return is_part(want.batch, have->batch, PARTS_WHOLE) && is_part(want.in, have->in, 0) &&
           is_part(want.out, have->out, 0) && (embedding || is_part(want.arrives, have->arrives, have->in)) &&
           is_part(want.leaves, have->leaves, have->out);
}

static const char *style_of(struct printer *p, const struct layer *l)
{
    bool embedding = graph_node(p->g, l->node)->op == OP_GATHER;
    const struct layer_parts *x = &l->parts;
    uint32_t parts = x->in > x->out ? x->in : x->out;
    parts = x->batch > parts ? x->batch : parts;
    for (const struct style *s = styles; s->name; s++)
        if (says(s, parts > 1 ? parts : 0, l, embedding))
            return parts > 1 && parts != p->ranks ? arena_printf(p->arena, "%s:%u", s->name, parts) : s->name;
    return own_style(p, l);
}

/* A pattern that is exactly this name; NULL when it would not be one. */
static const char *exact_pattern(struct arena *arena, const char *name)
{
    if (!name || !*name || strpbrk(name, "*=%") || strlen(name) > 1000)
        return NULL;
    return name[0] == '/' ? name : arena_printf(arena, "/%s", name);
}

static const char *plain(struct arena *arena, const char *name)
{
    char *out = arena_strdup(arena, name);
    size_t n = 0;
    for (const char *at = name; *at; at++) { /* as patterns see it */
        char ch = *at == '/' ? '.' : *at;
        if (ch == '.' && (!n || out[n - 1] == '.'))
            continue;
        out[n++] = ch;
    }
    out[n] = 0;
    return out;
}

/* Notes that layer `i` is called so. */
static void note(struct printer *p, const char *prefix, const char *name, uint32_t i)
{
    if (!name || !*name)
        return;
    const char *key = arena_printf(p->arena, "%s%s", prefix, plain(p->arena, name));
    bool added;
    uint32_t *slot = map_put(&p->by_name, key, strlen(key), &added);
    if (added)
        *slot = i + 1;
    else if (*slot != AMBIGUOUS && strcmp(p->said.at[*slot - 1], p->said.at[i]) != 0)
        *slot = AMBIGUOUS;
}

static bool is_point(const struct layer *l)
{
    return l->parts.in != 0; /* a loss has none */
}

static const char *weight_of(const struct printer *p, const struct layer *l)
{
    return l->param == UINT32_MAX ? NULL : p->g->params.at[l->param].name;
}

static bool usable(struct printer *p, const char *prefix, const char *name)
{
    if (!exact_pattern(p->arena, name))
        return false;
    const char *key = arena_printf(p->arena, "%s%s", prefix, plain(p->arena, name));
    const uint32_t *slot = map_find(&p->by_name, key, strlen(key));
    return slot && *slot != AMBIGUOUS;
}

static const char *pattern_of(struct printer *p, const struct layer *l)
{
    const char *node = p->g->origins.at[graph_node(p->g, l->node)->origin].name, *weight = weight_of(p, l);
    if (usable(p, "node ", node))
        return exact_pattern(p->arena, node);
    if (usable(p, "weight ", weight) &&
        !map_find(&p->by_name, arena_printf(p->arena, "node %s", plain(p->arena, weight)),
                  5 + strlen(plain(p->arena, weight))))
        return exact_pattern(p->arena, weight);
    return arena_printf(p->arena, "%%%u", l->node);
}

static void add_layers(struct printer *p)
{
    for (uint32_t i = 0; i < p->s->layer_count; i++) {
        const struct layer *l = &p->s->layers[i];
        *PUSH(p->arena, &p->said) = is_point(l) ? style_of(p, l) : "";
        if (!is_point(l))
            continue;
        const struct node *n = graph_node(p->g, l->node);
        const struct origin *o = &p->g->origins.at[n->origin];
        note(p, "node ", o->name, i);
        note(p, "node ", o->scope, i);
        note(p, "node ", n->name, i);
        note(p, "weight ", weight_of(p, l), i);
    }
    for (uint32_t i = 0; i < p->s->layer_count; i++) {
        const struct layer *l = &p->s->layers[i];
        const char *pattern = is_point(l) ? pattern_of(p, l) : NULL;
        if (pattern && !cJSON_GetObjectItemCaseSensitive(p->plan, pattern))
            cJSON_AddStringToObject(p->plan, pattern, p->said.at[i]);
    }
}

const char *steer_print_plan(struct arena *arena, const struct graph *g, const struct solution *s,
                             const struct steering *steering)
{
    struct printer p = {.arena = arena, .g = g, .s = s};
    cJSON *root = json_object(arena);
    p.ranks = 1;
    p.by_name.arena = arena;
    for (uint32_t i = 0; i < s->mesh->count; i++)
        p.ranks *= strcmp(s->mesh->axis[i], "tp") == 0 ? s->mesh->size[i] : 1;
    cJSON_AddNumberToObject(root, "tp", p.ranks);
    cJSON_AddTrueToObject(root, "exact");
    p.styles = cJSON_AddObjectToObject(root, "styles");
    p.plan = cJSON_AddObjectToObject(root, "plan");
    for (uint32_t i = 0; steering && i < steering->entries.count;
         i++) /* what concerns more than switch points stays as it was said */
        if (steering->entries.at[i].style->values != VALUES_NONE)
            cJSON_AddStringToObject(p.plan, steering->entries.at[i].pattern, steering->entries.at[i].style->name);
    add_layers(&p);
    return json_text(arena, root);
}
