/* frontend/machine.c - machine files: read with nothing believed, written so that they read back. docs/machine.md is the contract.
 *
 * Every field is one row of `fields`; numbers must be finite and within the row's bounds. Start with machine_parse.
 */
#include "frontend/machine.h"
#include "frontend/json.h"
#include "frontend/read.h"

#include <math.h>
#include <unistd.h>

enum { FILE_LIMIT = 1 << 16, NAME_LIMIT = 64 };

struct reader {
    struct arena *arena;
    const char *file;
    struct diag *diag;
};

/* A number at `name` of `object`; what is missing leaves *out alone unless it is required. */
static status read_number(struct reader *r, const cJSON *object, const char *place, const char *name, bool required,
                          double least, double most, double *out)
{
    const cJSON *x = cJSON_GetObjectItemCaseSensitive(object, name);
    if (x == NULL && !required) {
        return TPC_OK;
    }
    if (x == NULL) {
        return diag_error(r->diag, TPC_DATA, r->file, "%s%s is missing: a number from %g to %g", place, name, least,
                          most);
    }
    if (!cJSON_IsNumber(x) || !(x->valuedouble >= least && x->valuedouble <= most)) {
        return diag_error(r->diag, TPC_DATA, r->file, "%s%s must be a number from %g to %g", place, name, least, most);
    }
    *out = x->valuedouble;
    return TPC_OK;
}

static status known_fields(struct reader *r, const cJSON *object, const char *place, const char *const *known)
{
    for (const cJSON *x = object->child; x != NULL; x = x->next) {
        bool found = false, again = false;
        struct text all = {.arena = r->arena};
        for (uint32_t i = 0; known[i] != NULL; i++) {
            found = found || strcmp(known[i], x->string) == 0;
            text_printf(&all, "%s%s", i == 0 ? "" : ", ", known[i]);
        }
        for (const cJSON *y = object->child; y != x; y = y->next) {
            again = again || strcmp(y->string, x->string) == 0;
        }
        if (!found || again) {
            return diag_error(r->diag, TPC_DATA, r->file, "%s%.64s %s (known: %s)", place, x->string,
                              again ? "is there twice" : "is no field", all.at);
        }
    }
    return TPC_OK;
}

static status read_flops(struct reader *r, const cJSON *root, struct machine *m)
{
    const cJSON *flops = cJSON_GetObjectItemCaseSensitive(root, "flops");
    const char *known[DT_COUNT] = {NULL};
    for (dtype t = DT_NONE + 1; t < DT_COUNT; t++) {
        known[t - 1] = dtype_name(t);
    }
    if (!cJSON_IsObject(flops)) {
        return diag_error(r->diag, TPC_DATA, r->file, "flops must be an object of numbers by type, f32 at least");
    }
    double f32 = 0, i8 = 0;
    status s = known_fields(r, flops, "flops.", known);
    s = s != TPC_OK ? s : read_number(r, flops, "flops.", "f32", true, 1, 1e21, &f32);
    i8 = f32;
    s = s != TPC_OK ? s : read_number(r, flops, "flops.", "i8", false, 1, 1e21, &i8);
    for (dtype t = DT_NONE + 1; t < DT_COUNT && s == TPC_OK; t++) {
        m->flops[t] = dtype_size(t) == 1 ? i8 : f32;
        s = read_number(r, flops, "flops.", dtype_name(t), false, 1, 1e21, &m->flops[t]);
    }
    return s;
}

static status read_links(struct reader *r, const cJSON *root, struct machine *m)
{
    static const char *const known[] = {"ranks", "latency", "bandwidth", NULL};
    const cJSON *links = cJSON_GetObjectItemCaseSensitive(root, "links");
    int count = cJSON_IsArray(links) ? cJSON_GetArraySize(links) : 0;
    if (count < 1 || count > MACHINE_LEVELS) {
        return diag_error(r->diag, TPC_DATA, r->file, "links must be a list of 1 to %d objects", MACHINE_LEVELS);
    }
    for (int i = 0; i < count; i++) {
        const cJSON *link = cJSON_GetArrayItem(links, i);
        const char *place = arena_printf(r->arena, "links[%d].", i);
        struct machine_link *to = &m->level[m->level_count++];
        double ranks = 0, least = i == 0 ? 2 : to[-1].ranks + 1.0;
        if (!cJSON_IsObject(link)) {
            return diag_error(r->diag, TPC_DATA, r->file, "links[%d] must be an object", i);
        }
        status s = known_fields(r, link, place, known);
        s = s != TPC_OK ? s : read_number(r, link, place, "ranks", true, least, MAX_RANKS, &ranks);
        s = s != TPC_OK ? s : read_number(r, link, place, "latency", true, 0, 10, &to->latency);
        s = s != TPC_OK ? s : read_number(r, link, place, "bandwidth", true, 1, 1e18, &to->bandwidth);
        if (s != TPC_OK) {
            return s;
        }
        to->ranks = (uint32_t)ranks;
        if (ranks != to->ranks) {
            return diag_error(r->diag, TPC_DATA, r->file, "%sranks must be a whole number", place);
        }
    }
    return TPC_OK;
}

static status read_machine(struct reader *r, const cJSON *root, struct machine *m)
{
    static const char *const known[] = {"name", "devices", "memory", "memory_bandwidth", "flops", "links", NULL};
    const cJSON *name = cJSON_GetObjectItemCaseSensitive(root, "name");
    double devices = 0, memory = 0;
    if (!cJSON_IsObject(root)) {
        return diag_error(r->diag, TPC_DATA, r->file, "a machine file is one JSON object");
    }
    status s = known_fields(r, root, "", known);
    if (s == TPC_OK && (!cJSON_IsString(name) || name->valuestring[0] == 0 || strlen(name->valuestring) > NAME_LIMIT)) {
        s = diag_error(r->diag, TPC_DATA, r->file, "name must be a text of 1 to %d bytes", NAME_LIMIT);
    }
    s = s != TPC_OK ? s : read_number(r, root, "", "devices", false, 0, MAX_RANKS, &devices);
    s = s != TPC_OK ? s : read_number(r, root, "", "memory", false, 0, 1e15, &memory);
    s = s != TPC_OK ? s : read_number(r, root, "", "memory_bandwidth", true, 1, 1e18, &m->memory_bandwidth);
    s = s != TPC_OK ? s : read_flops(r, root, m);
    s = s != TPC_OK ? s : read_links(r, root, m);
    if (s == TPC_OK && devices != floor(devices)) {
        s = diag_error(r->diag, TPC_DATA, r->file, "devices must be a whole number");
    }
    if (s == TPC_OK) {
        m->name = arena_strdup(r->arena, name->valuestring);
        m->devices = (uint32_t)devices;
        m->memory = (uint64_t)memory;
    }
    return s;
}

status machine_parse(struct arena *arena, const char *file, const char *text, size_t length, struct diag *diag,
                     const struct machine **out)
{
    struct reader r = {arena, file, diag};
    struct machine *m = NEW(arena, struct machine);
    const char *end = NULL;
    cJSON *root = json_keep(arena, cJSON_ParseWithLengthOpts(text, length, &end, false));
    if (root == NULL) {
        return diag_error(diag, TPC_DATA, file, "no JSON: it breaks off or is wrong at byte %zu",
                          end == NULL ? (size_t)0 : (size_t)(end - text));
    }
    for (; end < text + length; end++) {
        if (strchr(" \t\r\n", *end) == NULL || *end == 0) {
            return diag_error(diag, TPC_DATA, file, "something follows the JSON object at byte %zu",
                              (size_t)(end - text));
        }
    }
    *out = m;
    return read_machine(&r, root, m);
}

status machine_load(struct arena *arena, const char *name, struct diag *diag, const struct machine **out)
{
    *out = machine_builtin(name);
    if (*out != NULL) {
        return TPC_OK;
    }
    if (access(name, F_OK) != 0) {
        return diag_error(diag, TPC_NOINPUT, name, "no such machine file, and no built-in machine (these are: %s)",
                          machine_names(arena));
    }
    struct text t = {.arena = arena};
    status s = read_small_file(name, FILE_LIMIT, "a machine file", diag, &t);
    if (s != TPC_OK) {
        return s;
    }
    return machine_parse(arena, name, t.at == NULL ? "" : t.at, t.length, diag, out);
}

void machine_print(const struct machine *m, struct text *out)
{
    cJSON *root = json_object(out->arena);
    cJSON_AddStringToObject(root, "name", m->name);
    cJSON_AddNumberToObject(root, "devices", m->devices);
    cJSON_AddNumberToObject(root, "memory", (double)m->memory);
    cJSON_AddNumberToObject(root, "memory_bandwidth", m->memory_bandwidth);
    cJSON *flops = cJSON_AddObjectToObject(root, "flops");
    for (dtype t = DT_NONE + 1; t < DT_COUNT; t++) {
        if (m->flops[t] > 0) {
            cJSON_AddNumberToObject(flops, dtype_name(t), m->flops[t]);
        }
    }
    cJSON *links = cJSON_AddArrayToObject(root, "links");
    for (uint32_t i = 0; i < m->level_count; i++) {
        cJSON *link = cJSON_CreateObject();
        cJSON_AddNumberToObject(link, "ranks", m->level[i].ranks);
        cJSON_AddNumberToObject(link, "latency", m->level[i].latency);
        cJSON_AddNumberToObject(link, "bandwidth", m->level[i].bandwidth);
        cJSON_AddItemToArray(links, link);
    }
    text_put(out, json_text(out->arena, root));
    text_put(out, "\n");
}
