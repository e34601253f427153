/* ir/text_print.c - a Graph or Program as text, exactly: docs/text-form.md. text_parse.c reads it back.
 *
 * Order: what others refer to by number stands before them, so that one pass reads it. Nothing is left to defaults that a reader
 * could not see, except attributes that are 0.
 */
#include "ir/graph.h"
#include "ir/text_form.h"

static void put_string(struct text *out, const char *s)
{
    text_quote(out, s, strlen(s));
}

/* " word value" for a number that is not 0. */
static void put_number(struct text *out, const char *word, int64_t number)
{
    if (number)
        text_printf(out, " %s %lld", word, (long long)number);
}

/* ---- tables ---- */

static void print_model(const struct graph *g, struct text *out)
{
    if (g->model_path || g->model_hash || g->ir_version) {
        text_put(out, "model ");
        put_string(out, g->model_path ? g->model_path : "");
        text_printf(out, " hash 0x%llx ir %lld\n", (unsigned long long)g->model_hash, (long long)g->ir_version);
    }
    for (uint32_t i = 0; i < g->opsets.count; i++) {
        text_put(out, "opset ");
        put_string(out, g->opsets.at[i].domain);
        text_printf(out, " %lld\n", (long long)g->opsets.at[i].version);
    }
}

static void print_symbols(const struct graph *g, struct text *out)
{
    for (uint32_t i = 0; i < dims_symbol_count(g->dims); i++) {
        const struct symbol *s = dims_symbol(g->dims, i);
        text_put(out, "symbol ");
        dim_print(g->dims, dim_of_symbol(g->dims, i), out);
        if (s->lower != 0)
            text_printf(out, " >= %lld", (long long)s->lower);
        if (s->upper != INT64_MAX)
            text_printf(out, " <= %lld", (long long)s->upper);
        text_put(out, "\n");
    }
}

static void print_mesh(const struct graph *g, struct text *out)
{
    if (g->mesh.ranks == 0)
        return;
    text_printf(out, "mesh %u =", (unsigned)g->mesh.ranks);
    for (uint32_t i = 0; i < g->mesh.count; i++) {
        text_put(out, " ");
        put_string(out, g->mesh.axis[i]);
        text_printf(out, " %u", (unsigned)g->mesh.size[i]);
    }
    text_put(out, "\n");
}

static void print_partitions(const struct graph *g, struct text *out)
{
    for (uint32_t i = 1; i < g->partitions.count; i++) {
        const struct partition *p = &g->partitions.at[i];
        text_printf(out, "partition %u = ", (unsigned)i);
        dim_print(g->dims, p->extent, out);
        text_printf(out, " unit %lld over 0x%x", (long long)p->unit, (unsigned)p->subaxes);
        for (uint32_t k = 0; p->offset && k <= p->parts; k++)
            text_printf(out, "%s%lld%s", k ? ", " : " at [", (long long)p->offset[k], k == p->parts ? "]" : "");
        text_put(out, "\n");
    }
}

static void print_files(const struct graph *g, struct text *out)
{
    for (uint32_t i = 0; i < g->files.count; i++) {
        const struct weight_file *f = &g->files.at[i];
        text_printf(out, "file %u = ", (unsigned)i);
        put_string(out, f->path);
        text_printf(out, " size %llu mtime %lld fingerprint 0x%llx\n", (unsigned long long)f->size, (long long)f->mtime,
                    (unsigned long long)f->fingerprint);
    }
}

static void print_origins(const struct graph *g, struct text *out)
{
    for (uint32_t i = 1; i < g->origins.count; i++) {
        const struct origin *o = &g->origins.at[i];
        text_printf(out, "origin %u = ", (unsigned)i);
        put_string(out, o->file ? o->file : "");
        text_printf(out, " %lld ", (long long)o->index);
        put_string(out, o->name);
        text_put(out, " ");
        put_string(out, o->op_type);
        text_put(out, "\n");
    }
}

static void print_params(const struct graph *g, struct text *out)
{
    for (uint32_t i = 0; i < g->params.count; i++) {
        const struct param *p = &g->params.at[i];
        text_printf(out, "param %u = ", (unsigned)i);
        put_string(out, p->name);
        text_printf(out, " %s[", dtype_name(p->dtype));
        for (uint32_t k = 0; k < p->rank; k++)
            text_printf(out, "%s%lld", k ? ", " : "", (long long)p->shape[k]);
        text_put(out, "]");
        if (p->part_count) {
            text_put(out, " parts [");
            for (uint32_t k = 0; k < p->part_count; k++)
                text_printf(out, "%s%u", k ? ", " : "", (unsigned)p->part[k]);
            text_put(out, "]");
        } else if (p->file == NO_FILE) {
            text_put(out, " data ");
            text_elements(out, p->dtype, p->data, (size_t)p->length / dtype_size(p->dtype));
        } else {
            text_printf(out, " file %u offset %llu length %llu", (unsigned)p->file, (unsigned long long)p->offset,
                        (unsigned long long)p->length);
        }
        text_put(out, "\n");
    }
}

static bool intervals_same(const struct intervals *a, const struct intervals *b)
{
    return a->count == b->count && (a->count == 0 || memcmp(a->at, b->at, a->count * sizeof *a->at) == 0);
}

static void print_intervals(const struct intervals *v, struct text *out)
{
    for (uint32_t i = 0; i < v->count; i++)
        text_printf(out, "%s%lld:%lld", i ? ", " : "", (long long)v->at[i].lo, (long long)v->at[i].hi);
}

static void print_shards(const struct graph *g, struct text *out)
{
    for (uint32_t i = 0; i < g->shards.count; i++) {
        const struct shard *s = &g->shards.at[i];
        text_printf(out, "shard %u = param %u", (unsigned)i, (unsigned)s->param);
        for (uint32_t axis = 0; axis < s->rank; axis++) {
            const struct intervals *of = &s->of[(size_t)axis * g->mesh.ranks];
            uint32_t same = 1;
            while (same < g->mesh.ranks && intervals_same(&of[0], &of[same]))
                same++;
            bool all = same >= g->mesh.ranks;
            text_put(out, all ? " [all " : " [");
            for (uint32_t r = 0; r < (all ? 1 : g->mesh.ranks); r++) {
                text_put(out, r ? " | " : "");
                print_intervals(&of[r], out);
            }
            text_put(out, "]");
        }
        text_put(out, "\n");
    }
}

static void print_guards(const struct graph *g, struct text *out)
{
    for (uint32_t i = 0; i < g->guards.count; i++) {
        text_put(out, "guard ");
        dim_print(g->dims, g->guards.at[i].a, out);
        text_put(out, " == ");
        dim_print(g->dims, g->guards.at[i].b, out);
        text_printf(out, " @%u ", (unsigned)g->guards.at[i].origin);
        put_string(out, g->guards.at[i].why);
        text_put(out, "\n");
    }
}

/* ---- nodes ---- */

static void print_attribute(const struct graph *g, const struct node *n, struct text *out)
{
    const struct attribute *a = &n->attribute;
    unsigned uses = op_info(n->op)->attributes;
    if (uses & A_INDEX)
        text_printf(out, " index %u", (unsigned)a->index);
    if (n->op == OP_INPUT && a->index < g->inputs.count) {
        text_put(out, " as ");
        put_string(out, g->inputs.at[a->index].name);
    }
    put_number(out, "axis", uses & A_AXIS ? a->axis : 0);
    put_number(out, "mode", uses & A_MODE ? a->mode : 0);
    put_number(out, "batch", uses & A_BATCH ? a->nbatch : 0);
    put_number(out, "contract", uses & A_CONTRACT ? a->ncontract : 0);
    put_number(out, "part", uses & A_PART ? a->partition : 0);
    for (uint32_t i = 0; i < a->list_count; i++)
        text_printf(out, "%s%d%s", i ? ", " : " list [", (int)a->list[i], i + 1 == a->list_count ? "]" : "");
    if (a->dims_count) {
        text_put(out, " dims ");
        text_shape(out, g->dims, a->dims_count, a->dims);
    }
    if (uses & A_DATA) {
        text_put(out, " data ");
        text_elements(out, n->dtype, a->data, a->data_size / dtype_size(n->dtype));
    }
}

void graph_print_node(const struct graph *g, value v, struct text *out)
{
    const struct node *n = graph_node(g, v);
    text_printf(out, "%%%u: %s", (unsigned)v, dtype_name(n->dtype));
    text_shape(out, g->dims, n->rank, n->shape);
    text_printf(out, " = %s", op_info(n->op)->text);
    for (uint32_t i = 0; i < n->operand_count; i++)
        text_printf(out, "%s%%%u", i ? ", " : " ", (unsigned)n->operand[i]);
    print_attribute(g, n, out);
    if (n->origin)
        text_printf(out, " @%u", (unsigned)n->origin);
    if (n->name) {
        text_put(out, " ");
        put_string(out, n->name);
    }
    if (v < g->source.count && g->source.at[v])
        text_printf(out, " from %u", (unsigned)g->source.at[v]);
    text_put(out, "\n");
}

void graph_print(const struct graph *g, struct text *out)
{
    print_model(g, out);
    print_symbols(g, out);
    print_mesh(g, out);
    print_partitions(g, out);
    print_files(g, out);
    print_origins(g, out);
    print_params(g, out);
    print_shards(g, out);
    print_guards(g, out);
    if (g->source.count)
        text_printf(out, "sources %u\n", (unsigned)g->source.count);
    for (value v = 1; v < g->nodes.count; v++)
        graph_print_node(g, v, out);
    for (uint32_t i = 0; i < g->outputs.count; i++) {
        text_put(out, "output ");
        put_string(out, g->outputs.at[i].name);
        text_printf(out, " %%%u\n", (unsigned)g->outputs.at[i].value);
    }
    for (uint32_t i = 0; i < g->states.count; i++) {
        const struct state *s = &g->states.at[i];
        text_printf(out, "state %u %u axis %u %s\n", (unsigned)s->input, (unsigned)s->output, (unsigned)s->axis,
                    s->appended ? "appended" : "scattered");
    }
}
