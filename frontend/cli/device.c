/* frontend/cli/device.c - where a command computes: --device, --gpus, --collectives, and what a plan says of memory.
 *
 * Without --device `tpc run` takes the GPUs where CUDA's driver is and each rank of this process can have one of its own, else the CPU.
 */
#include "frontend/cli/cli.h"
#include "runtime/cuda_api.h"
#include "runtime/launch.h"

#include <cjson/cJSON.h>
#include <stdlib.h>

/* "0,1,1": one GPU for each rank of this process. */
static status parse_gpus(struct arena *arena, const char *text, uint32_t ranks, const uint32_t **out, struct diag *diag)
{
    uint32_t *gpus = NEW_ARRAY(arena, uint32_t, ranks + 1), count = 0;
    const char *at = text;
    while (*at) {
        char *end = NULL;
        unsigned long x = *at >= '0' && *at <= '9' ? strtoul(at, &end, 10) : 0;
        if (!end || (*end && *end != ',') || x > 1023) {
            count = 0;
            break;
        }
        if (count < ranks)
            gpus[count] = (uint32_t)x;
        count++;
        at = *end ? end + 1 : end;
    }
    if (count < ranks || count == 0)
        return diag_error(diag, TPC_USAGE, NULL, "--gpus is '%s' but must be %u numbers of GPUs such as 0,1", text,
                          (unsigned)ranks);
    *out = gpus;
    return TPC_OK;
}

uint64_t cli_planned_activations(const struct plan *plan)
{
    cJSON *root = cJSON_ParseWithLength(plan->decisions, plan->decisions_length);
    const cJSON *memory = cJSON_GetObjectItemCaseSensitive(root, "memory"), *one;
    double most = 0;
    cJSON_ArrayForEach(one, memory)
    {
        const cJSON *x = cJSON_GetObjectItemCaseSensitive(one, "activations");
        if (cJSON_IsNumber(x) && x->valuedouble > most && x->valuedouble < 1e15)
            most = x->valuedouble;
    }
    cJSON_Delete(root);
    return (uint64_t)most;
}

/* Why the GPUs cannot be the default: NULL when they can. */
static const char *no_gpus(struct arena *arena, uint32_t wanted)
{
    const char *missing = NULL;
    int count = 0;
    const struct cuda_driver *d = cuda_driver(&missing);
    if (!d)
        return missing;
    if (d->device_count(&count) == CU_OK && (uint32_t)count >= wanted)
        return NULL;
    return arena_printf(arena, "there are %d GPUs for %u ranks", count, (unsigned)wanted);
}

/* A launcher that shows each process one GPU only: there it is GPU 0, whatever the process's place on the host. */
static bool shown_one(void)
{
    int count = 0;
    const char *shown = getenv("CUDA_VISIBLE_DEVICES");
    const struct cuda_driver *d = shown && *shown ? cuda_driver(NULL) : NULL;
    return d && d->device_count(&count) == CU_OK && count == 1;
}

status cli_device(struct arena *arena, const struct args *args, uint32_t ranks, bool gpus_by_default, struct diag *diag,
                  struct engine_options *out)
{
    const char *kind = args_value(args, "--device", NULL), *gpus = args_value(args, "--gpus", NULL);
    const char *way = args_value(args, "--collectives", NULL);
    uint32_t here = out->processes ? 1 : ranks;
    if (out->processes && (!kind || strcmp(kind, "cuda") == 0) && shown_one())
        out->local_rank = 0;
    uint32_t needed = out->processes ? out->local_rank + 1 : here;
    if (kind && strcmp(kind, "cuda") != 0 && strcmp(kind, "cpu") != 0)
        return diag_error(diag, TPC_USAGE, NULL, "--device is '%s' but must be cuda or cpu", kind);
    if (way && strcmp(way, "nccl") != 0 && strcmp(way, "host") != 0)
        return diag_error(diag, TPC_USAGE, NULL, "--collectives is '%s' but must be nccl or host", way);
    bool cpu = kind && strcmp(kind, "cpu") == 0;
    if (cpu && (gpus || way))
        return diag_error(diag, TPC_USAGE, NULL, "--device cpu and %s exclude each other: give one",
                          gpus ? "--gpus" : "--collectives");
    if (cpu || (!kind && !gpus && !way && (!gpus_by_default || no_gpus(arena, needed))))
        return TPC_OK;
    if (gpus) {
        status s = parse_gpus(arena, gpus, here, &out->gpus, diag);
        if (s != TPC_OK)
            return s;
    }
    const char *why = gpus ? NULL : no_gpus(arena, needed);
    if (why)
        return diag_error(diag, TPC_UNSUPPORTED, NULL, "%s: %s", kind ? "--device cuda" : "--collectives", why);
    out->kind = ENGINE_CUDA;
    out->host_collectives = way && strcmp(way, "host") == 0;
    return TPC_OK;
}
