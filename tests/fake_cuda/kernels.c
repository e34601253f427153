/* tests/fake_cuda/kernels.c - the fake driver's modules and launches: a function's text, compiled for the model of CUDA when the first of those that wait is
 * launched, and kept in a folder under a hash of them all.
 */
#include "runtime/cuda_api.h"
#include "tests/fake_cuda/fake.h"
#include "tests/support/cuda_model.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* A function's text, each once; compiled with all others that wait, when the first of them is launched. */
struct unit {
    struct unit *next;
    const char *name, *source;
    struct cuda_model *model;
    uint32_t uses;
    _Atomic uint32_t words; /* 0: not known yet */
};
static struct unit *texts;
static pthread_mutex_t kernel_lock = PTHREAD_MUTEX_INITIALIZER; /* of texts, and while a kernel runs */

static uint64_t hash_text(const char *text, uint64_t seed)
{
    for (; *text; text++)
        seed = (seed ^ (unsigned char)*text) * UINT64_C(1099511628211);
    return seed;
}

FAKE_API cu_result cuModuleLoadData(cu_module *module, const void *image)
{
    const char *at = image;
    CALL(CU_OUT_OF_MEMORY);
    if (strncmp(at, FAKE_IMAGE, sizeof FAKE_IMAGE - 1) != 0)
        return 200; /* CUDA_ERROR_INVALID_IMAGE */
    const char *name = at + sizeof FAKE_IMAGE - 1, *source = name + strlen(name) + 1;
    pthread_mutex_lock(&kernel_lock);
    struct unit *t = texts;
    while (t && (strcmp(t->name, name) != 0 || strcmp(t->source, source) != 0))
        t = t->next;
    if (!t) {
        t = calloc(1, sizeof *t);
        *t = (struct unit){.next = texts, .name = strdup(name), .source = strdup(source)};
        texts = t;
    }
    t->uses++;
    pthread_mutex_unlock(&kernel_lock);
    fake_own(1);
    *module = (cu_module)t;
    return CU_OK;
}

FAKE_API cu_result cuModuleUnload(cu_module module)
{
    bool fails = fake_call(__func__);
    pthread_mutex_lock(&kernel_lock);
    ((struct unit *)module)->uses--;
    pthread_mutex_unlock(&kernel_lock);
    fake_own(-1);
    return fails ? ILLEGAL_ADDRESS : CU_OK;
}

FAKE_API cu_result cuModuleGetFunction(cu_function *function, cu_module module, const char *name)
{
    CALL(500); /* CUDA_ERROR_NOT_FOUND */
    if (strcmp(((struct unit *)module)->name, name) != 0)
        return 500;
    *function = (cu_function)module;
    return CU_OK;
}

FAKE_API cu_result cuFuncSetAttribute(cu_function function, int attribute, int value)
{
    CALL(INVALID);
    return function && attribute == CU_FUNCTION_SHARED_BYTES && value <= 227 * 1024 ? CU_OK : INVALID;
}

static const char *object_folder(void)
{
    static char made[64] = "/tmp/tpc-fake-XXXXXX";
    static bool there;
    const char *wish = getenv("TPC_FAKE_OBJECTS");
    if (wish && *wish) {
        (void)mkdir(wish, 0777);
        return wish;
    }
    if (!there)
        there = mkdtemp(made) != NULL;
    return made;
}

static bool is_listed(const struct cuda_text *list, uint32_t count, const char *name)
{
    for (uint32_t i = 0; i < count; i++)
        if (strcmp(list[i].name, name) == 0)
            return true;
    return false;
}

/* Under the lock. Of texts of one name, in modules of two plans, the others wait on. */
static bool compile_waiting(void)
{
    struct cuda_text list[1024];
    struct unit *unit[1024];
    uint32_t count = 0;
    uint64_t key = UINT64_C(14695981039346656037);
    char path[4200], error[4096] = "";
    for (struct unit *t = texts; t && count < 1024; t = t->next)
        if (!t->model && t->uses && !is_listed(list, count, t->name)) {
            unit[count] = t;
            list[count++] = (struct cuda_text){t->name, t->source};
            key = hash_text(t->source, key);
        }
    (void)snprintf(path, sizeof path, "%s/%016llx.so", object_folder(), (unsigned long long)key);
    if (access(path, R_OK) != 0 && !cuda_model_compile(list, count, path, error, sizeof error)) {
        fake_break(NULL, error);
        return false;
    }
    struct cuda_model *model = cuda_model_open(path);
    for (uint32_t i = 0; i < count && model; i++) {
        unit[i]->model = model;
        unit[i]->words = cuda_model_words(model, unit[i]->name);
    }
    return model != NULL;
}

struct launching {
    struct unit *text;
    uint32_t grid[3], block[3], shared_bytes;
    uint64_t words[512];
};

static void run_launch(void *argument)
{
    struct launching *l = argument;
    static struct model_buffer range[FAKE_BLOCKS];
    char error[1024] = "";
    if (fake_idles())
        return;
    pthread_mutex_lock(&kernel_lock);
    bool good = true;
    while (good && !l->text->model)
        good = compile_waiting();
    struct model_launch m = {
        .shared_bytes = l->shared_bytes, .words = l->words, .word_count = l->text->words, .range = range};
    memcpy(m.grid, l->grid, sizeof m.grid);
    memcpy(m.block, l->block, sizeof m.block);
    m.range_count = fake_ranges(range);
    if (good && !cuda_model_launch(l->text->model, l->text->name, &m, error, sizeof error))
        fake_break(NULL, error);
    pthread_mutex_unlock(&kernel_lock);
}

static bool set_launch(struct launching *l, cu_function function, const unsigned *grid, const unsigned *block,
                       unsigned shared_bytes, void **parameters)
{
    *l = (struct launching){.text = (struct unit *)function,
                            .grid = {grid[0], grid[1], grid[2]},
                            .block = {block[0], block[1], block[2]},
                            .shared_bytes = shared_bytes};
    if (!function || !parameters || grid[0] * grid[1] * grid[2] == 0 || block[0] * block[1] * block[2] == 0 ||
        block[0] * block[1] * block[2] > 1024 || grid[1] > 65535 || grid[2] > 65535)
        return false;
    uint32_t known = l->text->words;
    memcpy(l->words, parameters[0], known ? known * sizeof *l->words : sizeof l->words);
    return true;
}

bool fake_launch_set(fake_work *work, void *argument, const struct cu_kernel_node *kernel)
{
    struct launching l;
    if (work != run_launch || kernel->extra || kernel->kernel || kernel->context ||
        (cu_function)((struct launching *)argument)->text != kernel->function ||
        !set_launch(&l, kernel->function, kernel->grid, kernel->block, kernel->shared_bytes, kernel->parameters))
        return false;
    memcpy(argument, &l, sizeof l);
    return true;
}

/* How many words there are is known once the text is compiled: until then as many as there can be are read. */
FAKE_API cu_result cuLaunchKernelEx(const struct cu_launch *launch, cu_function function, void **parameters,
                                    void **extra)
{
    struct launching l;
    CALL(LAUNCH_FAILED);
    if (extra || !set_launch(&l, function, launch->grid, launch->block, launch->shared_bytes, parameters))
        return INVALID;
    for (unsigned i = 0; i < launch->attributes; i++)
        if (launch->attribute[i].attribute != CU_LAUNCH_OVERLAPPED || fake_compute() < 90)
            return INVALID;
    if (launch->attributes)
        fake_graph_overlap();
    return fake_enqueue(launch->stream, run_launch, &l, sizeof l) ? CU_OK : INVALID;
}
