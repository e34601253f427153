/* frontend/onnx/operators.c - the table of operators, and what is missing from it.
 *
 * To add an operator: a row in ops.def, and the lowering that it names in the lower_*.c of its family.
 */
#include "frontend/onnx/compose.h"

#define LATEST INT64_MAX

static const struct operator_row rows[] = {
#define OPERATOR(domain, name, since, until, function, argument)                                                       \
    {domain, name, since, until, lower_##function, argument},
#include "frontend/onnx/ops.def"
#undef OPERATOR
};
enum { ROWS = sizeof rows / sizeof *rows };

/* The newest version of the default domain whose operators were looked through when ops.def was written. */
enum { KNOWN_OPSET = 28 };

const struct operator_row *operator_find(const char *domain, const char *name, int64_t version)
{
    if (!*domain && version > KNOWN_OPSET)
        return NULL;
    for (size_t i = 0; i < ROWS; i++)
        if (strcmp(rows[i].name, name) == 0 && strcmp(rows[i].domain, domain) == 0 && rows[i].since <= version &&
            version <= rows[i].until)
            return &rows[i];
    return NULL;
}

bool operator_known(const char *domain, const char *name)
{
    for (size_t i = 0; i < ROWS; i++)
        if (strcmp(rows[i].name, name) == 0 && strcmp(rows[i].domain, domain) == 0)
            return true;
    return false;
}

void missing_add(struct importer *im, const char *domain, const char *op_type, int64_t version, const char *detail,
                 const char *where)
{
    for (uint32_t i = 0; i < im->missing.count; i++) {
        struct missing *m = &im->missing.at[i];
        if (strcmp(m->domain, domain) == 0 && strcmp(m->op_type, op_type) == 0 && m->version == version &&
            strcmp(m->detail, detail) == 0) {
            m->count++;
            return;
        }
    }
    *PUSH(im->scratch, &im->missing) = (struct missing){.domain = arena_strdup(im->scratch, domain),
                                                        .op_type = arena_strdup(im->scratch, op_type),
                                                        .detail = arena_strdup(im->scratch, detail),
                                                        .first = arena_strdup(im->scratch, where),
                                                        .version = version,
                                                        .count = 1};
}

status missing_report(struct importer *im)
{
    for (uint32_t i = 0; i < im->missing.count; i++) {
        const struct missing *m = &im->missing.at[i];
        diag_error(im->diag, TPC_UNSUPPORTED, m->first, "%s%s%s, version %lld, is not supported%s%s (%u node%s)",
                   m->domain, *m->domain ? "." : "", m->op_type, (long long)m->version, *m->detail ? ": " : "",
                   m->detail, m->count, m->count == 1 ? "" : "s");
    }
    return im->missing.count ? TPC_UNSUPPORTED : TPC_OK;
}

void onnx_print_operators(struct text *out)
{
    text_put(out, "| domain | operator | since | until |\n|---|---|---|---|\n");
    for (size_t i = 0; i < ROWS; i++) {
        if (rows[i].lower == lower_refused)
            continue;
        text_printf(out, "| %s | %s | %lld | ", *rows[i].domain ? rows[i].domain : "ai.onnx", rows[i].name,
                    (long long)rows[i].since);
        if (rows[i].until == LATEST)
            text_put(out, "|\n");
        else
            text_printf(out, "%lld |\n", (long long)rows[i].until);
    }
    text_put(out, "\nRefused by name:\n\n| operator | because |\n|---|---|\n");
    for (size_t i = 0; i < ROWS; i++)
        if (rows[i].lower == lower_refused)
            text_printf(out, "| %s | %s |\n", rows[i].name, refused_reason(rows[i].argument));
}
