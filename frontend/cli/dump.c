/* frontend/cli/dump.c - tpc dump: what was decided, for people (a table) or programs (--json), and the Program itself (--program). */
#include "frontend/cli/cli.h"
#include "frontend/json.h"
#include "runtime/plan.h"

static const struct option_info options[] = {
    {"--json", NULL, .help = "the whole document (docs/plan-json.md)", .not_with = "--tp-plan --program"},
    {"--tp-plan", NULL, .help = "the decisions as a plan file, which compile --tp-plan reads back (docs/steering.md)",
     .not_with = "--program"},
    {"--program", NULL, .help = "the scheduled Program as text (docs/text-form.md)"},
    {0},
};

static const char *text_of(const cJSON *o, const char *name)
{
    const cJSON *x = cJSON_GetObjectItemCaseSensitive(o, name);
    return cJSON_IsString(x) ? x->valuestring : "-";
}

static double number_of(const cJSON *o, const char *name)
{
    const cJSON *x = cJSON_GetObjectItemCaseSensitive(o, name);
    return cJSON_IsNumber(x) ? x->valuedouble : -1;
}

static const cJSON *list_of(const cJSON *o, const char *name)
{
    return cJSON_GetObjectItemCaseSensitive(o, name);
}

/* "model X over 8 ranks (dp 2 x tp 4)" */
static void print_head(const cJSON *root)
{
    const cJSON *mesh = list_of(root, "mesh"), *axes = list_of(mesh, "axes"), *axis = NULL;
    printf("model %s over %.0f ranks", text_of(list_of(root, "model"), "path"), number_of(mesh, "ranks"));
    const char *before = cJSON_GetArraySize(axes) > 1 ? " (" : NULL;
    cJSON_ArrayForEach(axis, axes)
    {
        if (before != NULL) {
            printf("%s%s %.0f", before, text_of(axis, "name"), number_of(axis, "size"));
            before = " x ";
        }
    }
    printf("%s\n", before != NULL ? ")" : "");
}

/* "fewest bytes first, on machine 'default'", and the extents that this is said for. */
static void print_terms(const cJSON *root)
{
    static const char *const phases[] = {"nominal", "nominal_decode"};
    const cJSON *cost = list_of(root, "cost"), *x = NULL;
    printf("  %s first, on machine '%s'",
           strcmp(text_of(cost, "objective"), "latency") == 0 ? "least time" : "fewest bytes",
           text_of(cost, "machine"));
    for (size_t i = 0; i < sizeof phases / sizeof *phases; i++) {
        const cJSON *nominal = list_of(cost, phases[i]);
        const char *before = i == 0 ? "\n  prefill at " : "; decode at ";
        cJSON_ArrayForEach(x, nominal)
        {
            printf("%s%s %.0f", before, x->string, x->valuedouble);
            before = ", ";
        }
    }
    printf("\n");
}

static void print_sizes(const cJSON *root)
{
    const cJSON *m = NULL;
    print_terms(root);
    cJSON_ArrayForEach(m, list_of(root, "memory"))
    {
        printf("  rank %-3.0f weights %12.0f bytes   activations %12.0f bytes   peak %12.0f bytes\n",
               number_of(m, "rank"), number_of(m, "weights"), number_of(m, "activations"), number_of(m, "peak"));
    }
}

static void print_rows(const cJSON *root)
{
    const cJSON *r = NULL;
    cJSON_ArrayForEach(r, list_of(root, "rows"))
    {
        printf("%s %s over %s\n", text_of(r, "kind"), text_of(r, "extent"), text_of(r, "over"));
    }
}

static void print_layers(const cJSON *root)
{
    const cJSON *l = NULL;
    printf("layers:\n");
    cJSON_ArrayForEach(l, list_of(root, "layers"))
    {
        double axis = number_of(l, "axis");
        printf("  %-13s %-40s %s", text_of(l, "style"), text_of(l, "node"), text_of(l, "weight"));
        if (axis >= 0) {
            printf(" axis %.0f", axis);
        }
        printf("\n  %13s   %s\n", "", text_of(l, "reason"));
    }
}

static void print_collectives(const cJSON *root)
{
    const cJSON *c = NULL;
    printf("collectives:\n");
    cJSON_ArrayForEach(c, list_of(root, "collectives"))
    {
        printf("  %-14s of %-50s %12.0f bytes at the nominal extents\n", text_of(c, "kind"), text_of(c, "value"),
               number_of(c, "bytes"));
    }
    if (cJSON_GetArraySize(list_of(root, "collectives")) == 0) {
        printf("  none\n");
    }
}

static void print_guards(const cJSON *root)
{
    const cJSON *g = NULL;
    cJSON_ArrayForEach(g, list_of(root, "guards"))
    {
        printf("guard: %s (%s)\n", text_of(g, "equal"), text_of(g, "why"));
    }
}

/* Names come from a model's file and go to a terminal. */
static void make_printable(struct arena *arena, cJSON *o)
{
    cJSON *x = NULL;
    cJSON_ArrayForEach(x, o)
    {
        if (cJSON_IsString(x)) {
            (void)cJSON_SetValuestring(x, arena_printable(arena, x->valuestring));
        }
        make_printable(arena, x);
    }
}

static status print_plan(struct arena *arena, const cJSON *root, const char *path, struct diag *diag)
{
    const cJSON *plan = list_of(root, "tp_plan");
    if (!cJSON_IsObject(plan)) {
        return diag_error(diag, TPC_DATA, path, "the plan was written without its styles; compile the model again");
    }
    puts(json_text(arena, plan));
    return TPC_OK;
}

static status dump(struct arena *arena, const struct args *args, struct diag *diag)
{
    struct plan *p = NULL;
    status s = plan_read(arena, args->positional.at[0], diag, &p);
    if (s != TPC_OK) {
        return s;
    }
    if (args_flag(args, "--json")) {
        puts(p->decisions);
        return TPC_OK;
    }
    if (args_flag(args, "--program")) {
        struct text t = {.arena = arena};
        program_print(p->program, &t);
        fwrite(t.at, 1, t.length, stdout);
        return TPC_OK;
    }
    cJSON *root = json_keep(arena, cJSON_ParseWithLength(p->decisions, p->decisions_length));
    if (root == NULL) {
        return diag_error(diag, TPC_DATA, args->positional.at[0], "the plan's decisions are no JSON document");
    }
    if (args_flag(args, "--tp-plan")) {
        return print_plan(arena, root, args->positional.at[0], diag);
    }
    make_printable(arena, root);
    print_head(root);
    if (cJSON_IsString(list_of(root, "note"))) {
        printf("note: %s\n", text_of(root, "note"));
    }
    print_sizes(root);
    print_rows(root);
    print_layers(root);
    print_collectives(root);
    print_guards(root);
    return TPC_OK;
}

const struct command command_dump = {
    .name = "dump",
    .usage = "PLAN [--json | --tp-plan | --program]",
    .summary = "what the solver decided, layer by layer, and why",
    .examples = "  tpc dump plan.bin\n  tpc dump plan.bin --json | jq '.layers[] | [.node, .style]'\n  tpc dump "
                "plan.bin --program | less\n",
    .options = options,
    .least = 1,
    .most = 1,
    .run = dump,
};
