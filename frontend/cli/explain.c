/* frontend/cli/explain.c - tpc explain: a plan told to people, from the plan alone. */
#include "frontend/explain/explain.h"
#include "frontend/cli/cli.h"
#include "frontend/steer.h"
#include "ir/output.h"
#include "runtime/plan.h"

static const struct option_info options[] = {
    {"--diff", "OTHER", .help = "what the plan OTHER does otherwise"},
    {"--html", "FILE",
     .help = "one self-contained page: layers by colour, collectives, weights per rank; click for reasons"},
    {"--dot", "FILE", .help = "the folded graph for Graphviz (- is standard output)"},
    {0},
};

static status read_document(struct arena *arena, const char *path, struct diag *diag, struct document *out)
{
    struct plan *p = NULL;
    status s = plan_read(arena, path, diag, &p);
    return s != TPC_OK ? s : document_parse(arena, path, p->decisions, p->decisions_length, diag, out);
}

/* The whole text or, when that fails, no file. */
static status write_file(const char *path, const struct text *t, struct diag *diag)
{
    if (strcmp(path, "-") == 0) {
        fwrite(t->at, 1, t->length, stdout);
        return TPC_OK;
    }
    struct output_file file;
    status s = output_open(path, diag, &file);
    return s != TPC_OK ? s : output_close(&file, fwrite(t->at, 1, t->length, file.to) == t->length, diag);
}

/* The layer or weight that is called most like it. */
static const char *nearest(struct arena *arena, const struct document *d, const char *name)
{
    const char *best = NULL;
    uint32_t least = UINT32_MAX;
    for (uint32_t i = 0; i < 2 * d->layer_count; i++) {
        const char *known = i % 2 ? d->layer[i / 2].weight : d->layer[i / 2].node;
        uint32_t distance = known == NULL ? UINT32_MAX : text_distance(arena, name, known, false);
        if (distance < least) {
            best = known;
            least = distance;
        }
    }
    return best == NULL ? "" : arena_printf(arena, "; the nearest is '%s'", best);
}

static status explain_names(struct arena *arena, const struct args *args, const struct document *d, struct diag *diag)
{
    struct text t = {.arena = arena};
    for (uint32_t i = 1; i < args->positional.count; i++) {
        if (!explain_one(d, args->positional.at[i], &t)) {
            return diag_error(diag, TPC_USAGE, args->positional.at[0],
                              "no layer, weight or value is called '%s'%s; `tpc explain %s` lists the layers, and * "
                              "in a name stands for anything",
                              args->positional.at[i], nearest(arena, d, args->positional.at[i]),
                              args->positional.at[0]);
        }
    }
    fwrite(t.at, 1, t.length, stdout);
    return TPC_OK;
}

static status explain_plan(struct arena *arena, const struct args *args, struct diag *diag)
{
    const char *other = args_value(args, "--diff", NULL), *html = args_value(args, "--html", NULL),
               *dot = args_value(args, "--dot", NULL);
    struct document d, with;
    struct text t = {.arena = arena};
    int printed = (html != NULL && strcmp(html, "-") == 0) + (dot != NULL && strcmp(dot, "-") == 0) +
                  (other != NULL || args->positional.count > 1);
    if (other != NULL && args->positional.count > 1) {
        return diag_error(diag, TPC_USAGE, NULL, "explain: --diff tells of whole plans: leave '%s' out",
                          args->positional.at[1]);
    }
    if (printed > 1) {
        return diag_error(diag, TPC_USAGE, NULL,
                          "explain: more than one thing would go to standard output; name a "
                          "file for the picture");
    }
    status s = read_document(arena, args->positional.at[0], diag, &d);
    for (uint32_t i = 0; s == TPC_OK && i < 4; i++) {
        const char *out = i & 1 ? html : dot, *in = i & 2 ? other : args->positional.at[0];
        if (out != NULL && in != NULL && cli_same_file(out, in)) {
            s = diag_error(diag, TPC_USAGE, out, "would be written over the plan that is read; name another file");
        }
    }
    if (s == TPC_OK && html != NULL) {
        struct text page = {.arena = arena};
        explain_html(&d, &page);
        s = write_file(html, &page, diag);
    }
    if (s == TPC_OK && dot != NULL) {
        struct text picture = {.arena = arena};
        explain_dot(&d, &picture);
        s = write_file(dot, &picture, diag);
    }
    if (s == TPC_OK && other != NULL) {
        if ((s = read_document(arena, other, diag, &with)) != TPC_OK) {
            return s;
        }
        explain_diff(&d, &with, &t);
    }
    if (s != TPC_OK || args->positional.count > 1) {
        return s != TPC_OK ? s : explain_names(arena, args, &d, diag);
    }
    if (html == NULL && dot == NULL && other == NULL) {
        explain_summary(&d, &t);
    }
    return t.length == 0 ? TPC_OK : write_file("-", &t, diag);
}

const struct command command_explain = {
    .name = "explain",
    .usage = "PLAN [NODE|WEIGHT]... [--diff OTHER] [--html FILE] [--dot FILE]",
    .summary = "why a plan is as it is: on one page, per layer, beside another plan, as a picture",
    .examples = "  tpc explain plan.bin\n  tpc explain plan.bin '*layers.0*up_proj*'\n  tpc explain plan.bin --diff "
                "other.bin\n  tpc explain plan.bin --html plan.html\n  tpc explain plan.bin --dot - | dot -Tsvg\n",
    .options = options,
    .least = 1,
    .most = 64,
    .run = explain_plan,
};
