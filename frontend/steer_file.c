/* frontend/steer_file.c - entries from the command line and from plan files (docs/steering.md, docs/tp-plan.schema.json).
 *
 * A plan file is an object of patterns and styles, as Hugging Face's tp_plan; or, to say more, an object with "plan" in it. It is untrusted: every
 * key is known or refused. Start with steer_read_plan.
 */
#include "frontend/json.h"
#include "frontend/read.h"
#include "frontend/steer.h"

enum { LARGEST = 16 << 20 };

struct plan_file {
    struct arena *arena;
    struct steering *out;
    const char *path;
    struct diag *diag;
    LIST(struct style) own;
    bool exact;
};

static status add(struct arena *arena, struct steering *out, const char *pattern, const struct style *style,
                  uint32_t parts, const char *said, const char *file, bool exact)
{
    *PUSH(arena, &out->entries) = (struct steer_entry){
        .pattern = pattern,
        .style = style,
        .parts = parts,
        .text = arena_printf(arena, "'%s=%s'", pattern, said),
        .file = file,
        .exact = exact && style->values == VALUES_NONE,
    };
    return TPC_OK;
}

status steer_add_pin(struct arena *arena, struct steering *out, const char *text, struct diag *diag)
{
    const char *equals = strrchr(text, '=');
    uint32_t parts = 0;
    if (!equals || equals == text || !equals[1])
        return diag_error(diag, TPC_USAGE, NULL, "--pin '%s' must be PATTERN=STYLE", text);
    const char *pattern = arena_strndup(arena, text, (size_t)(equals - text));
    const struct style *style = style_find(equals + 1, &parts);
    if (!style)
        return diag_error(diag, TPC_USAGE, NULL,
                          "--pin '%s': unknown style '%s'; did you mean '%s' (or that and :N, N from 2 to 64)?", text,
                          equals + 1, style_nearest(equals + 1));
    return add(arena, out, pattern, style, parts, equals + 1, NULL, false);
}

/* ---- files ---- */

static status parse(struct plan_file *p, cJSON **out)
{
    struct text t = {.arena = p->arena};
    const char *end = NULL;
    status s = read_small_file(p->path, LARGEST, "a plan file", p->diag, &t);
    if (s != TPC_OK)
        return s;
    cJSON *root = t.length ? json_keep(p->arena, cJSON_ParseWithLengthOpts(t.at, t.length + 1, &end, true)) : NULL;
    if (!root)
        return diag_error(p->diag, TPC_DATA, p->path, "not JSON%s%.20s", end && *end ? ", from: " : "",
                          end && *end ? end : "");
    if (!cJSON_IsObject(root))
        return diag_error(p->diag, TPC_DATA, p->path, "must be an object {\"PATTERN\": \"STYLE\", ...}");
    *out = root;
    return TPC_OK;
}

/* ---- own styles ---- */

static status read_word(struct plan_file *p, const char *style, const cJSON *o, const char **out)
{
    if (!cJSON_IsString(o) || !*o->valuestring)
        return diag_error(p->diag, TPC_DATA, p->path, "style '%s': \"%s\" must be a word", style, o->string);
    *out = o->valuestring;
    return TPC_OK;
}

/* {"input": ..., "weight": ..., "output": ..., "packed": true} */
static status read_style(struct plan_file *p, const char *name, const cJSON *o, struct style *out)
{
    const cJSON *x = NULL;
    struct layer_parts parts;
    const char *wrong = NULL;
    *out = (struct style){.name = name,
                          .fits = FITS_LINEAR | FITS_EMBEDDING,
                          .input = "any",
                          .weight = "any",
                          .output = "any",
                          .instead = "\"packed\": true or false as the weight is"};
    if (!cJSON_IsObject(o))
        return diag_error(p->diag, TPC_DATA, p->path, "style '%s' must be an object of input, weight, output", name);
    cJSON_ArrayForEach(x, o)
    {
        status s = TPC_OK;
        if (strcmp(x->string, "input") == 0)
            s = read_word(p, name, x, &out->input);
        else if (strcmp(x->string, "weight") == 0)
            s = read_word(p, name, x, &out->weight);
        else if (strcmp(x->string, "output") == 0)
            s = read_word(p, name, x, &out->output);
        else if (strcmp(x->string, "packed") == 0 && cJSON_IsBool(x))
            out->packed = cJSON_IsTrue(x) ? PACKED_YES : PACKED_NO;
        else
            s = diag_error(
                p->diag, TPC_DATA, p->path,
                "style '%s' has '%s', which is none of input, weight, output (words) and packed (true, false)", name,
                x->string);
        if (s != TPC_OK)
            return s;
    }
    if (style_parts(out, 0, &parts, &wrong))
        return TPC_OK;
    return diag_error(
        p->diag, TPC_DATA, p->path,
        "style '%s': '%s' is no placement (input, output: any, whole, cut; weight: any, whole, row, column, "
        "expert, joined by +; each with :N for a number of parts from 2 on)",
        name, wrong);
}

static status read_styles(struct plan_file *p, const cJSON *o)
{
    const cJSON *x = NULL;
    if (!cJSON_IsObject(o))
        return diag_error(p->diag, TPC_DATA, p->path, "\"styles\" must be an object");
    cJSON_ArrayForEach(x, o)
    {
        uint32_t parts = 0;
        struct style own;
        if (style_find(x->string, &parts))
            return diag_error(p->diag, TPC_DATA, p->path, "style '%s' is built in: give yours another name", x->string);
        status s = read_style(p, x->string, x, &own);
        if (s != TPC_OK)
            return s;
        *PUSH(p->arena, &p->own) = own;
    }
    return TPC_OK;
}

/* ---- entries ---- */

static status read_entry(struct plan_file *p, const cJSON *x)
{
    const struct style *style = NULL;
    uint32_t parts = 0;
    if (!*x->string)
        return diag_error(p->diag, TPC_DATA, p->path, "a pattern is empty");
    if (cJSON_IsObject(x)) {
        struct style *own = NEW(p->arena, struct style);
        status s = read_style(p, x->string, x, own);
        return s != TPC_OK
                   ? s
                   : add(p->arena, p->out, arena_strdup(p->arena, x->string), own, 0, "{...}", p->path, p->exact);
    }
    if (!cJSON_IsString(x))
        return diag_error(p->diag, TPC_DATA, p->path, "pattern '%s': its style must be a name or an object", x->string);
    for (uint32_t i = 0; i < p->own.count && !style; i++)
        if (strcmp(p->own.at[i].name, x->valuestring) == 0) {
            style = (const struct style *)arena_copy(p->arena, &p->own.at[i], sizeof *style);
        }
    if (!style)
        style = style_find(x->valuestring, &parts);
    if (!style)
        return diag_error(p->diag, TPC_DATA, p->path, "pattern '%s': unknown style '%s'; did you mean '%s'?", x->string,
                          x->valuestring, style_nearest(x->valuestring));
    return add(p->arena, p->out, arena_strdup(p->arena, x->string), style, parts,
               arena_strdup(p->arena, x->valuestring), p->path, p->exact);
}

static status read_plan(struct plan_file *p, const cJSON *plan)
{
    const cJSON *x = NULL;
    status s = TPC_OK;
    cJSON_ArrayForEach(x, plan)
    {
        if (s == TPC_OK)
            s = read_entry(p, x);
    }
    return s;
}

/* The form with "plan" in it. */
static status read_full(struct plan_file *p, const cJSON *root, uint32_t ranks)
{
    const cJSON *x = NULL;
    status s = TPC_OK;
    cJSON_ArrayForEach(x, root)
    {
        if (strcmp(x->string, "exact") == 0 && cJSON_IsBool(x))
            p->exact = cJSON_IsTrue(x);
        else if (strcmp(x->string, "tp") == 0 && cJSON_IsNumber(x) && ranks && x->valuedouble != ranks)
            s = diag_error(p->diag, TPC_DATA, p->path,
                           "is a plan for %g ranks, not for %u; leave \"tp\" out if it fits", x->valuedouble, ranks);
        else if (strcmp(x->string, "styles") == 0)
            s = read_styles(p, x);
        else if (strcmp(x->string, "plan") != 0 && strcmp(x->string, "$schema") != 0 &&
                 !(strcmp(x->string, "tp") == 0 && cJSON_IsNumber(x)))
            s = diag_error(p->diag, TPC_DATA, p->path,
                           "has '%.100s', which is none of plan, styles, tp (a number), exact", x->string);
        if (s != TPC_OK)
            return s;
    }
    return read_plan(p, cJSON_GetObjectItemCaseSensitive(root, "plan"));
}

status steer_read_plan(struct arena *arena, struct steering *out, const char *path, uint32_t ranks, struct diag *diag)
{
    struct plan_file p = {.arena = arena, .out = out, .path = path, .diag = diag};
    cJSON *root = NULL;
    status s = parse(&p, &root);
    if (s != TPC_OK)
        return s;
    return cJSON_IsObject(cJSON_GetObjectItemCaseSensitive(root, "plan")) ? read_full(&p, root, ranks)
                                                                          : read_plan(&p, root);
}
