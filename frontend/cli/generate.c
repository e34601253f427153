/* frontend/cli/generate.c - tpc run --generate: prompts from the command line or a file, tokens to stdout as they come. Start with cli_generate. */
#include "runtime/generate.h"
#include "frontend/cli/cli.h"
#include "frontend/onnx/import.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

enum { BYTES = 256 }; /* rows of a byte-level model's token table */

typedef LIST(int64_t) id_list;
typedef LIST(struct prompt) prompt_list;

struct writing {
    struct arena *arena;
    const struct args *args;
    struct diag *diag;
    const struct plan *plan;
    struct generate_options o;
    bool as_text;
    prompt_list prompts;
    id_list *row; /* of a batch of texts: what was written */
    double last;  /* --profile, --times: when the last step was over, else 0 */
    unsigned steps;
};

/* ---- prompts ----------------------------------------------------------------------------------------------------------- */

/* "1,2,3" of `length` bytes. false: it is no such list. */
static bool parse_ids(struct arena *arena, const char *text, size_t length, id_list *out)
{
    const char *at = text, *end = text + length;
    while (at < end) {
        int64_t id = 0;
        const char *digits = at;
        for (; at < end && *at >= '0' && *at <= '9'; at++)
            if (!i64_mul(id, 10, &id) || !i64_add(id, *at - '0', &id))
                return false;
        if (at == digits || (at < end && *at != ',') || at + 1 == end)
            if (at == digits || at < end)
                return false;
        *PUSH(arena, out) = id;
        at += at < end;
    }
    return out->count > 0;
}

static void add_bytes(struct writing *w, const char *text, size_t length)
{
    int64_t *token = NEW_ARRAY(w->arena, int64_t, length + 1);
    for (size_t i = 0; i < length; i++)
        token[i] = (unsigned char)text[i];
    *PUSH(w->arena, &w->prompts) = (struct prompt){token, length};
}

static status need_bytes(const struct writing *w)
{
    int64_t rows = generate_vocabulary(w->plan, &w->o, w->arena);
    if (rows == BYTES)
        return TPC_OK;
    if (rows == 0)
        return diag_error(
            w->diag, TPC_UNSUPPORTED, NULL,
            "--prompt needs a byte-level model, and this one does not show a table of tokens: give token ids");
    return diag_error(
        w->diag, TPC_UNSUPPORTED, NULL,
        "--prompt needs a byte-level model (a table of 256 tokens), and this one's has %lld: give token ids",
        (long long)rows);
}

/* The next line of a file, without its end. */
static bool next_line(const char **at, const char *end, const char **line, size_t *length)
{
    if (*at == end)
        return false;
    const char *stop = memchr(*at, '\n', (size_t)(end - *at));
    *line = *at;
    *length = (size_t)((stop ? stop : end) - *at);
    *at = stop ? stop + 1 : end;
    if (*length > 0 && (*line)[*length - 1] == '\r')
        --*length;
    return true;
}

/* The first line that is no list of ids; 0: all are, and are the prompts. */
static unsigned line_without_ids(struct writing *w, const char *at, const char *end)
{
    const char *line;
    size_t length;
    for (unsigned number = 1; next_line(&at, end, &line, &length); number++) {
        id_list ids = {0};
        if (!parse_ids(w->arena, line, length, &ids)) {
            w->prompts.count = 0;
            return number;
        }
        *PUSH(w->arena, &w->prompts) = (struct prompt){ids.at, ids.count};
    }
    return 0;
}

static status read_batch(struct writing *w, const char *path)
{
    const unsigned char *bytes = NULL;
    size_t length = 0, line_length;
    status s = file_map(w->arena, w->diag, path, &bytes, &length);
    if (s != TPC_OK)
        return s;
    const char *at = (const char *)bytes, *end = at + length, *line;
    unsigned wrong = 1;
    if (length == 0)
        return diag_error(w->diag, TPC_DATA, path, "there is no prompt in it");
    if (!args_flag(w->args, "--text") && (wrong = line_without_ids(w, at, end)) == 0)
        return TPC_OK;
    int64_t rows = generate_vocabulary(w->plan, &w->o, w->arena);
    if (rows != BYTES)
        return diag_error(
            w->diag, TPC_UNSUPPORTED, path,
            "line %u is no list of token ids such as 1,2,3, and texts need a byte-level model (a table of "
            "256 tokens, this one's has %lld)",
            wrong, (long long)rows);
    for (unsigned number = 1; next_line(&at, end, &line, &line_length); number++) {
        if (line_length == 0)
            return diag_error(w->diag, TPC_DATA, path, "line %u is empty", number);
        add_bytes(w, line, line_length);
    }
    w->as_text = true;
    return TPC_OK;
}

static status check_ids(const struct writing *w)
{
    int64_t rows = generate_vocabulary(w->plan, &w->o, w->arena);
    for (uint32_t p = 0; p < w->prompts.count && rows > 0; p++)
        for (size_t i = 0; i < w->prompts.at[p].count; i++)
            if (w->prompts.at[p].token[i] >= rows)
                return diag_error(w->diag, TPC_DATA, NULL, "token %lld of prompt %u is not below %lld, the model's",
                                  (long long)w->prompts.at[p].token[i], (unsigned)p + 1, (long long)rows);
    return TPC_OK;
}

static status read_prompts(struct writing *w)
{
    const char *text = args_value(w->args, "--prompt", NULL), *ids = args_value(w->args, "--prompt-ids", NULL);
    const char *file = args_value(w->args, "--batch-file", NULL);
    if ((text != NULL) + (ids != NULL) + (file != NULL) != 1)
        return diag_error(w->diag, TPC_USAGE, NULL,
                          "run: --generate needs one of --prompt, --prompt-ids and --batch-file");
    if (file != NULL) {
        status s = read_batch(w, file);
        return s == TPC_OK ? check_ids(w) : s;
    }
    if (text != NULL) {
        w->as_text = true;
        add_bytes(w, text, strlen(text));
        return need_bytes(w);
    }
    id_list list = {0};
    if (!parse_ids(w->arena, ids, strlen(ids), &list))
        return diag_error(w->diag, TPC_USAGE, NULL, "run: --prompt-ids is '%s' but must be token ids such as 1,2,3",
                          ids);
    *PUSH(w->arena, &w->prompts) = (struct prompt){list.at, list.count};
    return check_ids(w);
}

/* ---- options ----------------------------------------------------------------------------------------------------------- */

static status read_sampling(struct writing *w)
{
    struct sampling *s = &w->o.sampling;
    int64_t seed = 0;
    bool narrow = args_value(w->args, "--top-k", NULL) || args_value(w->args, "--top-p", NULL);
    s->temperature = narrow ? 1 : 0;
    status result = args_real(w->args, "--temperature", &s->temperature, w->diag);
    if (result == TPC_OK)
        result = args_number(w->args, "--top-k", 1, INT32_MAX, &s->top_k, w->diag);
    if (result == TPC_OK)
        result = args_real(w->args, "--top-p", &s->top_p, w->diag);
    if (result == TPC_OK)
        result = args_number(w->args, "--seed", 0, INT64_MAX, &seed, w->diag);
    if (result == TPC_OK && (s->top_p > 1 || (args_value(w->args, "--top-p", NULL) && s->top_p == 0)))
        result = diag_error(w->diag, TPC_USAGE, NULL, "run: --top-p must be a number above 0 and at most 1");
    if (result == TPC_OK && s->temperature == 0 && (narrow || args_value(w->args, "--seed", NULL)))
        result = diag_error(w->diag, TPC_USAGE, NULL,
                            "run: %s has no meaning at temperature 0, where the likeliest token is taken",
                            narrow ? "--top-k or --top-p" : "--seed");
    s->seed = (uint64_t)seed;
    return result;
}

static status read_stops(struct writing *w)
{
    id_list stops = {0};
    for (uint32_t i = 0; i < w->args->given.count; i++) {
        const struct given *g = &w->args->given.at[i];
        if (strcmp(g->name, "--eos") == 0 && !parse_ids(w->arena, g->value, strlen(g->value), &stops))
            return diag_error(w->diag, TPC_USAGE, NULL, "run: --eos is '%s' but must be token ids such as 2 or 2,7",
                              g->value);
    }
    w->o.stop = stops.at;
    w->o.stop_count = stops.count;
    return TPC_OK;
}

static status read_bindings(struct writing *w)
{
    struct role_binding *binding = NEW_ARRAY(w->arena, struct role_binding, w->args->given.count + 1);
    for (uint32_t i = 0; i < w->args->given.count; i++) {
        const struct given *g = &w->args->given.at[i];
        if (strcmp(g->name, "--bind") != 0)
            continue;
        const char *equals = strrchr(g->value, '=');
        role r = equals ? role_from_text(equals + 1) : ROLE_NONE;
        if (r == ROLE_NONE)
            return diag_error(w->diag, TPC_USAGE, NULL,
                              "run: --bind is '%s' but must be INPUT=tokens|mask|positions|past_length|total_length",
                              g->value);
        const struct graph *graph = w->plan->program->graph;
        const char *name = arena_strndup(w->arena, g->value, (size_t)(equals - g->value));
        status s = args_once(w->args, i, strlen(name), w->diag);
        for (uint32_t k = 0; k < graph->inputs.count && s == TPC_OK; k++)
            if (w->o.given[k].dtype != DT_NONE && r != ROLE_GIVEN && strcmp(graph->inputs.at[k].name, name) == 0)
                s = diag_error(w->diag, TPC_USAGE, NULL, "run: --bind and --input both say what '%s' gets: give one",
                               name);
        if (s != TPC_OK)
            return s;
        binding[w->o.binding_count++] = (struct role_binding){name, r};
    }
    w->o.binding = binding;
    return TPC_OK;
}

/* ---- what comes -------------------------------------------------------------------------------------------------------- */

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* One text: bytes as they come, or an id per line. A batch: a line per step with each row's id (- behind its end), or at last a line per text. */
static bool show_step(void *user, size_t rows, const int64_t *token)
{
    struct writing *w = user;
    if (w->last > 0) {
        double now = seconds();
        fprintf(stderr, "step %u: %.3f ms\n", w->steps++, 1e3 * (now - w->last));
        w->last = now;
    }
    for (size_t r = 0; r < rows; r++) {
        if (w->as_text && rows > 1) {
            if (token[r] >= 0)
                *PUSH(w->arena, &w->row[r]) = token[r];
        } else if (w->as_text) {
            putchar((int)(token[r] & 255));
        } else if (token[r] < 0) {
            printf("%s-", r ? " " : "");
        } else {
            printf("%s%lld", r ? " " : "", (long long)token[r]);
        }
    }
    if (!w->as_text)
        putchar('\n');
    return fflush(stdout) == 0;
}

static void show_texts(const struct writing *w)
{
    for (uint32_t p = 0; p < w->prompts.count; p++) {
        for (size_t i = 0; i < w->prompts.at[p].count; i++)
            putchar((int)w->prompts.at[p].token[i]);
        for (uint32_t i = 0; i < w->row[p].count; i++)
            putchar((int)(w->row[p].at[i] & 255));
        putchar('\n');
    }
}

static status write_all(struct writing *w, struct engine *engine)
{
    struct arena *scratch = arena_new_in(w->arena);
    bool batch = w->prompts.count > 1;
    if (w->as_text && !batch)
        for (size_t i = 0; i < w->prompts.at[0].count; i++)
            putchar((int)w->prompts.at[0].token[i]);
    double begin = seconds();
    bool times = args_flag(w->args, "--profile") || args_flag(w->args, "--times");
    w->last = times && engine_leads(engine) ? begin : 0;
    status s = generate(engine, w->plan, &w->o, scratch, w->diag);
    double took = seconds() - begin;
    if (w->as_text && !batch)
        putchar('\n');
    else if (w->as_text && s == TPC_OK)
        show_texts(w);
    if (s == TPC_OK && engine_leads(engine))
        fprintf(stderr, "%zu tokens in %.3f s, %.1f per second\n", w->o.written, took,
                took > 0 ? (double)w->o.written / took : 0.0);
    return s;
}

status cli_generate(struct arena *arena, const struct args *args, const struct plan *plan, struct engine *engine,
                    const struct tensor *given, const struct generate_first *first, int64_t count, struct diag *diag)
{
    struct writing w = {.arena = arena, .args = args, .diag = diag, .plan = plan};
    w.o = (struct generate_options){
        .count = (size_t)count, .given = given, .first = first, .step = show_step, .user = &w};
    status s = read_bindings(&w);
    if (s == TPC_OK)
        s = read_sampling(&w);
    if (s == TPC_OK)
        s = read_stops(&w);
    if (s == TPC_OK)
        s = args_number(args, "--context", 1, INT32_MAX, &w.o.context, diag);
    if (s == TPC_OK)
        s = read_prompts(&w);
    if (s != TPC_OK)
        return s;
    w.o.prompt = w.prompts.at;
    w.o.rows = w.prompts.count;
    w.row = NEW_ARRAY(arena, id_list, w.prompts.count);
    return write_all(&w, engine);
}
