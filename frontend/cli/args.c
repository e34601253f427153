/* frontend/cli/args.c - options as a table: `--name value`, `--name=value`, flags, and `--` before a positional that begins with '-'. */
#include "frontend/cli/cli.h"
#include "frontend/steer.h"

#include <errno.h>
#include <float.h>
#include <stdlib.h>

static const struct option_info *find_option(const struct command *c, const char *name, size_t length)
{
    for (const struct option_info *o = c->options; o->name != NULL; o++) {
        if (strlen(o->name) == length && memcmp(o->name, name, length) == 0) {
            return o;
        }
    }
    return NULL;
}

static const char *known_options(struct arena *arena, const struct command *c)
{
    struct text t = {.arena = arena};
    for (const struct option_info *o = c->options; o->name != NULL; o++) {
        text_printf(&t, "%s%s", t.length == 0 ? "" : ", ", o->name);
    }
    return t.at == NULL ? "none" : t.at;
}

/* What a misspelt option may have been: " did you mean --tp?"; "" where nothing is near. */
static const char *nearest_option(struct arena *arena, const struct command *c, const char *name)
{
    const char *best = NULL;
    uint32_t least = (uint32_t)strlen(name) / 2;
    for (const struct option_info *o = c->options; o->name != NULL; o++) {
        uint32_t distance = text_distance(arena, name, o->name, true);
        if (distance < least) {
            best = o->name;
            least = distance;
        }
    }
    return best == NULL ? "" : arena_printf(arena, ": did you mean %s?", best);
}

/* One option at argv[*i]; moves *i over its value. */
static status parse_option(struct arena *arena, const struct command *c, int argc, char **argv, int *i,
                           struct diag *diag, struct args *out)
{
    const char *word = argv[*i], *equals = strncmp(word, "--", 2) == 0 ? strchr(word, '=') : NULL;
    size_t length = equals == NULL ? strlen(word) : (size_t)(equals - word);
    const struct option_info *o = find_option(c, word, length);
    if (o == NULL) {
        const char *name = arena_strndup(arena, word, length);
        return diag_error(diag, TPC_USAGE, NULL, "%s: unknown option %s%s (known: %s)", c->name, name,
                          nearest_option(arena, c, name), known_options(arena, c));
    }
    const char *v = NULL;
    if (o->value == NULL && equals != NULL) {
        return diag_error(diag, TPC_USAGE, NULL, "%s: %s takes no value", c->name, o->name);
    }
    if (o->value != NULL) {
        v = equals != NULL ? equals + 1 : *i + 1 < argc ? argv[++*i] : NULL;
        if (v == NULL || *v == 0) {
            return diag_error(diag, TPC_USAGE, NULL, "%s: %s needs a value (%s)", c->name, o->name, o->value);
        }
    }
    const char *before = o->value != NULL && !o->many ? args_value(out, o->name, NULL) : NULL;
    if (before != NULL) {
        return diag_error(diag, TPC_USAGE, NULL, "%s: %s is given twice: %s and %s", c->name, o->name, before, v);
    }
    *PUSH(arena, &out->given) = (struct given){o->name, v};
    return TPC_OK;
}

/* The first of the options in `names` that was given; NULL: none. */
static const char *first_given(struct arena *arena, const struct args *a, const char *names)
{
    char *rest = NULL, *copy = arena_strdup(arena, names == NULL ? "" : names);
    for (char *name = strtok_r(copy, " ", &rest); name != NULL; name = strtok_r(NULL, " ", &rest)) {
        if (args_flag(a, name)) {
            return name;
        }
    }
    return NULL;
}

/* "--prompt TEXT or --prompt-ids 1,2,3" */
static const char *told(struct arena *arena, const struct command *c, const char *names)
{
    struct text t = {.arena = arena};
    for (const char *at = names; *at != 0; at += strspn(at, " ")) {
        size_t length = strcspn(at, " ");
        const struct option_info *o = find_option(c, at, length);
        text_printf(&t, "%s%s%s%s", at == names ? "" : " or ", o->name, o->value == NULL ? "" : " ",
                    o->value == NULL ? "" : o->value);
        at += length;
    }
    return t.at;
}

/* What the table says of options beside each other. */
static status check_together(struct arena *arena, const struct args *a, struct diag *diag)
{
    for (uint32_t i = 0; i < a->given.count; i++) {
        const char *name = a->given.at[i].name;
        const struct option_info *o = find_option(a->command, name, strlen(name));
        const char *other = first_given(arena, a, o->not_with);
        if (other != NULL) {
            return diag_error(diag, TPC_USAGE, NULL, "%s: %s and %s exclude each other: give one", a->command->name,
                              name, other);
        }
        if (o->needs != NULL && first_given(arena, a, o->needs) == NULL) {
            return diag_error(diag, TPC_USAGE, NULL, "%s: %s needs %s", a->command->name, name,
                              told(arena, a->command, o->needs));
        }
    }
    return TPC_OK;
}

status args_parse(struct arena *arena, const struct command *c, int argc, char **argv, struct diag *diag,
                  struct args *out)
{
    *out = (struct args){.command = c};
    bool only_positional = false;
    for (int i = 0; i < argc; i++) {
        if (only_positional || argv[i][0] != '-' || argv[i][1] == 0) {
            if (argv[i][0] == 0) {
                return diag_error(diag, TPC_USAGE, NULL, "%s: an argument is empty", c->name);
            }
            *PUSH(arena, &out->positional) = argv[i];
        } else if (strcmp(argv[i], "--") == 0) {
            only_positional = true;
        } else {
            status s = parse_option(arena, c, argc, argv, &i, diag, out);
            if (s != TPC_OK) {
                return s;
            }
        }
    }
    if (out->positional.count < c->least || out->positional.count > c->most) {
        return diag_error(diag, TPC_USAGE, NULL, "usage: tpc %s %s (see tpc %s --help)", c->name, c->usage, c->name);
    }
    return check_together(arena, out, diag);
}

void args_help(const struct command *c, FILE *to)
{
    fprintf(to, "tpc %s %s\n\n%s\n", c->name, c->usage, c->summary);
    if (c->options->name != NULL) {
        fprintf(to, "\nOptions:\n");
    }
    for (const struct option_info *o = c->options; o->name != NULL; o++) {
        char left[64];
        snprintf(left, sizeof left, "%s%s%s", o->name, o->value == NULL ? "" : " ", o->value == NULL ? "" : o->value);
        fprintf(to, "  %-28s %s%s\n", left, o->help, o->many ? "; may be repeated" : "");
    }
    fprintf(to, "\nExamples:\n%s", c->examples);
}

const char *args_value(const struct args *a, const char *name, const char *otherwise)
{
    for (uint32_t i = 0; i < a->given.count; i++) {
        if (strcmp(a->given.at[i].name, name) == 0) {
            return a->given.at[i].value;
        }
    }
    return otherwise;
}

bool args_flag(const struct args *a, const char *name)
{
    for (uint32_t i = 0; i < a->given.count; i++) {
        if (strcmp(a->given.at[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

status args_once(const struct args *a, uint32_t i, size_t length, struct diag *diag)
{
    const struct given *g = &a->given.at[i];
    for (uint32_t k = 0; k < i; k++) {
        const struct given *b = &a->given.at[k];
        if (strcmp(b->name, g->name) == 0 && strlen(b->value) > length && b->value[length] == '=' &&
            memcmp(b->value, g->value, length) == 0) {
            return diag_error(diag, TPC_USAGE, NULL, "%s: %s gives '%.*s' twice: %s and %s", a->command->name, g->name,
                              (int)length, g->value, b->value + length + 1, g->value + length + 1);
        }
    }
    return TPC_OK;
}

status args_number(const struct args *a, const char *name, int64_t least, int64_t most, int64_t *out, struct diag *diag)
{
    const char *v = args_value(a, name, NULL);
    if (v == NULL) {
        return TPC_OK;
    }
    char *end = NULL;
    errno = 0;
    long long n = strtoll(v, &end, 10);
    if (errno != 0 || strchr("-0123456789", *v) == NULL || end == v || *end != 0 || n < least || n > most) {
        return diag_error(diag, TPC_USAGE, NULL, "%s: %s is '%s' but must be a whole number from %lld to %lld",
                          a->command->name, name, v, (long long)least, (long long)most);
    }
    *out = n;
    return TPC_OK;
}

status args_real(const struct args *a, const char *name, double *out, struct diag *diag)
{
    const char *v = args_value(a, name, NULL);
    if (v == NULL) {
        return TPC_OK;
    }
    char *end = NULL;
    double x = strtod(v, &end);
    if (end == v || *end != 0 || !(x >= 0 && x <= FLT_MAX)) {
        return diag_error(diag, TPC_USAGE, NULL, "%s: %s is '%s' but must be a number from 0 to 3.4e38",
                          a->command->name, name, v);
    }
    *out = x;
    return TPC_OK;
}
