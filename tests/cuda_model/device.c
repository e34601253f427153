/* tests/cuda_model/device.c - CUDA's model of execution on a CPU: linked into every object of kernels that the tests compile.
 *
 * Blocks run one after the other; the threads of a block are fibres, each with a stack of its own, that run until they wait (at a barrier, for
 * their warp) or end. Every access of the kernels' text comes here (as the callbacks of -fsanitize=thread), and must lie in the
 * thread's own stack, in one array of shared memory, or in one buffer of the launch. Each byte of those knows who touched it last: two
 * threads that touch one byte, one of them writing, with no barrier of the block (or, in a warp, no meeting of the warp) between, are a race.
 * The first thing found ends the launch. Start at model_launch.
 */
#include "tests/cuda_model/device.h"

#include "tests/cuda_model/cuda_model.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

enum {
    THREADS = 1024,
    STACK = 256 << 10,
    DYNAMIC = 256 << 10,
    LANES = 32,
    SLOT = 64,
    WARPS = THREADS / LANES,
    ARRAYS = 4096
};

/* ---- who touched a byte ---- */

enum { ONE = 0, OF_WARP = 1, SEVERAL = 2, ADDED = 3 }; /* ADDED: by atomics, that do not mind each other */

struct mark {
    uint32_t block; /* 1 + number; 0: nobody */
    uint16_t thread;
    uint16_t many; /* beside that thread: others of its warp, or of other warps and blocks */
    uint32_t barrier, meeting;
};

struct shadow {
    struct mark written, read;
};

/* Where a block has arrived (tpc_arrive): one counter per block is enough for the kernels that there are. */
struct arrival {
    const uint32_t *counter;
    uint32_t barrier;
};

/* ---- state ---- */

typedef enum { READY, AT_BARRIER, AT_MEETING, DONE } waiting;

struct fibre {
    struct model_thread at; /* first: what model_now points to */
    void *stack_pointer;
    char *stack;
    waiting waits;
};

struct warp {
    uint32_t meetings, arrived;
    unsigned char slot[2][LANES][MODEL_SLOT]; /* by parity of the meeting */
};

const struct model_thread *model_now;
struct model_index model_block, model_block_extent, model_grid_extent;

static struct {
    const struct model_launch *launch;
    char *error;
    size_t error_bytes;
    bool failed;
    uint32_t threads, block, barriers, at_barrier, done;
    struct fibre fibre[THREADS], *now;
    struct warp warp[WARPS];
    void *scheduler; /* stack pointer */
    struct shadow *global[MODEL_RANGES];
    struct shadow *shared;
    struct arrival *arrival;        /* per block of the launch */
    bool progress, adds;            /* adds: the access in hand is an atomicAdd */
    bool used[ARRAYS];              /* per shared array: since it was last spoilt */
    bool spoilt;                    /* all of them once */
    const struct model_range *last; /* of them, touched */
} m;

static _Alignas(16) unsigned char dynamic_shared[DYNAMIC] __attribute__((section("cuda_shared")));
extern char __start_cuda_shared[], __stop_cuda_shared[];
static const struct model_range dynamic_range __attribute__((section("cuda_ranges"), used)) = {dynamic_shared, DYNAMIC};
extern const struct model_range __start_cuda_ranges[], __stop_cuda_ranges[];
extern char __ehdr_start[] __attribute__((visibility("hidden"))), _end[] __attribute__((visibility("hidden")));

/* ---- fibres ---- */

#if defined(__x86_64__)
__asm__(".text\n"
        ".hidden model_switch\n"
        ".type model_switch,@function\n"
        "model_switch:\n"
        "    pushq %rbp\n    pushq %rbx\n    pushq %r12\n    pushq %r13\n    pushq %r14\n    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n    popq %r14\n    popq %r13\n    popq %r12\n    popq %rbx\n    popq %rbp\n"
        "    ret\n"
        ".size model_switch,.-model_switch\n");
/* Saves what a call must keep on the stack, the stack's pointer in *from, and goes on where `to` was saved. */
void model_switch(void **from, void *to);
#elif defined(__aarch64__)
__asm__(".text\n"
        ".hidden model_switch\n"
        ".type model_switch,%function\n"
        "model_switch:\n"
        "    sub sp, sp, #160\n"
        "    stp x19, x20, [sp]\n    stp x21, x22, [sp, #16]\n    stp x23, x24, [sp, #32]\n"
        "    stp x25, x26, [sp, #48]\n    stp x27, x28, [sp, #64]\n    stp x29, x30, [sp, #80]\n"
        "    stp d8, d9, [sp, #96]\n    stp d10, d11, [sp, #112]\n    stp d12, d13, [sp, #128]\n"
        "    stp d14, d15, [sp, #144]\n"
        "    mov x9, sp\n    str x9, [x0]\n    mov sp, x1\n"
        "    ldp x19, x20, [sp]\n    ldp x21, x22, [sp, #16]\n    ldp x23, x24, [sp, #32]\n"
        "    ldp x25, x26, [sp, #48]\n    ldp x27, x28, [sp, #64]\n    ldp x29, x30, [sp, #80]\n"
        "    ldp d8, d9, [sp, #96]\n    ldp d10, d11, [sp, #112]\n    ldp d12, d13, [sp, #128]\n"
        "    ldp d14, d15, [sp, #144]\n"
        "    add sp, sp, #160\n    ret\n"
        ".size model_switch,.-model_switch\n");
void model_switch(void **from, void *to);
#else
#error "fibres are written for x86-64 and AArch64"
#endif

static void leave(waiting why)
{
    struct fibre *f = m.now;
    f->waits = why;
    model_switch(&f->stack_pointer, m.scheduler);
}

static void fibre_main(void)
{
    m.launch->entry(m.launch->words);
    m.done++;
    m.progress = true;
    leave(DONE);
    abort();
}

static void fibre_reset(struct fibre *f)
{
    void **top = (void **)(void *)(f->stack + STACK);
#if defined(__x86_64__)
    top -= 1; /* as behind a call: 8 bytes off a multiple of 16 */
    *--top = (void *)fibre_main;
    top -= 6;
#else
    top -= 20;
    memset(top, 0, 160);
    top[11] = (void *)fibre_main; /* x30 */
#endif
    f->stack_pointer = top;
    f->waits = READY;
}

void model_failed(const char *format, ...)
{
    if (!m.failed) {
        va_list list;
        va_start(list, format);
        int length = snprintf(m.error, m.error_bytes, "block %u thread %u: ", (unsigned)m.block,
                              m.now ? (unsigned)m.now->at.number : 0);
        (void)vsnprintf(m.error + length, m.error_bytes - (size_t)length, format, list);
        va_end(list);
    }
    m.failed = true;
    if (m.now) {
        leave(DONE);
        abort();
    }
}

/* ---- threads together ---- */

void __syncthreads(void)
{
    uint32_t barrier = m.barriers;
    m.progress = true;
    if (m.done)
        model_failed("waits at a barrier that threads which have ended never reach");
    if (++m.at_barrier == m.threads) {
        m.at_barrier = 0;
        m.barriers++;
        return;
    }
    while (m.barriers == barrier)
        leave(AT_BARRIER);
}

static struct warp *own_warp(void)
{
    return &m.warp[m.now->at.number / LANES];
}

/* All lanes leave `bytes` at `from`; what they left, by lane. Good until the meeting after the next. */
unsigned char (*model_meet(uint32_t mask, const void *from, size_t bytes))[MODEL_SLOT]
{
    struct warp *w = own_warp();
    uint32_t meeting = w->meetings, first = m.now->at.number / LANES * LANES;
    uint32_t lanes = m.threads - first < LANES ? m.threads - first : LANES;
    if (mask != (lanes == LANES ? UINT32_MAX : (1u << lanes) - 1))
        model_failed("exchanges in a warp of %u lanes with mask %08x", (unsigned)lanes, (unsigned)mask);
    for (uint32_t i = first; i < first + lanes; i++)
        if (m.fibre[i].waits == DONE)
            model_failed("waits for lane %u of its warp, which has ended", (unsigned)(i - first));
    unsigned char(*slots)[MODEL_SLOT] = w->slot[meeting % 2];
    if (bytes)
        memcpy(slots[m.now->at.number % LANES], from, bytes);
    m.progress = true;
    if (++w->arrived == lanes) {
        w->arrived = 0;
        w->meetings++;
        return slots;
    }
    while (w->meetings == meeting)
        leave(AT_MEETING);
    return slots;
}

static uint32_t whole_warp(void)
{
    uint32_t first = m.now->at.number / LANES * LANES, lanes = m.threads - first;
    return lanes >= LANES ? UINT32_MAX : (1u << lanes) - 1;
}

void __syncwarp(void)
{
    (void)model_meet(whole_warp(), NULL, 0);
}

void model_shuffle(uint32_t mask, const void *from, void *to, size_t bytes, uint32_t lane)
{
    memcpy(to, model_meet(mask, from, bytes)[lane % LANES], bytes);
}

uint32_t model_vote(uint32_t mask, int predicate)
{
    unsigned char mine = predicate != 0;
    unsigned char(*all)[MODEL_SLOT] = model_meet(mask, &mine, 1);
    uint32_t ballot = 0;
    for (uint32_t i = 0; i < LANES; i++)
        ballot |= mask >> i & 1 ? (uint32_t)all[i][0] << i : 0;
    return ballot;
}

unsigned char *model_dynamic_shared(void)
{
    return dynamic_shared;
}

/* ---- memory ---- */

/* Another block did it before it arrived where this one has arrived later, and a barrier each lies between. */
static bool was_left(const struct mark *a)
{
    const struct arrival *theirs = &m.arrival[a->block - 1], *ours = &m.arrival[m.block];
    return theirs->counter && theirs->counter == ours->counter && a->barrier < theirs->barrier &&
           m.barriers > ours->barrier;
}

static bool is_before(const struct mark *a, bool shared)
{
    const struct model_thread *t = &m.now->at;
    if (a->block == 0)
        return true;
    if (a->block != m.block + 1)
        return shared || was_left(a); /* another block's shared memory is another memory */
    if (a->many <= OF_WARP && a->barrier == m.barriers) {
        bool own = a->thread == t->number && a->many == ONE;
        bool same_warp = a->thread / LANES == t->number / LANES;
        return own || (same_warp && a->meeting < own_warp()->meetings);
    }
    return a->barrier < m.barriers;
}

static void note(struct mark *a, bool is_earlier)
{
    struct mark now = {m.block + 1, (uint16_t)m.now->at.number, ONE, m.barriers, own_warp()->meetings};
    if (is_earlier) {
        *a = now;
        return;
    }
    bool same_block = a->block == now.block;
    if (same_block && a->thread == now.thread && a->many == ONE)
        return;
    now.many = same_block && a->many <= OF_WARP && a->thread / LANES == now.thread / LANES ? OF_WARP : SEVERAL;
    *a = now;
}

static void touch_bytes(struct shadow *s, size_t bytes, bool write, bool shared, const char *what, uint64_t offset)
{
    for (size_t i = 0; i < bytes; i++) {
        bool both_add = m.adds && s[i].written.many == ADDED && (!shared || s[i].written.block == m.block + 1);
        bool after_write = both_add || is_before(&s[i].written, shared), after_read = is_before(&s[i].read, shared);
        if (!after_write || (write && !after_read)) {
            const struct mark *other = after_write ? &s[i].read : &s[i].written;
            model_failed("a race in %s, byte %llu: it %s what thread %u of block %u has %s", what,
                         (unsigned long long)(offset + i), write ? "writes" : "reads", (unsigned)other->thread,
                         (unsigned)other->block - 1, after_write ? "read" : "written");
        }
        const struct mark *last = &s[i].written;
        if (m.adds && last->many != ADDED && last->block == m.block + 1 && last->barrier == m.barriers)
            continue; /* that it was set just now is what others may not have seen */
        note(write ? &s[i].written : &s[i].read, write ? after_write : after_read);
        s[i].written.many = m.adds ? ADDED : s[i].written.many;
    }
}

/* Of what this launch may use. */
static uint64_t shared_size(const struct model_range *r)
{
    return r->at == (const void *)dynamic_shared ? m.launch->shared_bytes : r->bytes;
}

/* The array that `at` lies in, or whose guard it lies in. */
static const struct model_range *array_of(const char *at)
{
    if (m.last && at >= (const char *)m.last->at && at < (const char *)m.last->at + m.last->bytes)
        return m.last;
    for (uint64_t guard = 0; guard <= 256; guard += 256)
        for (const struct model_range *r = __start_cuda_ranges; r < __stop_cuda_ranges; r++)
            if (at >= (const char *)r->at && at < (const char *)r->at + r->bytes + guard) {
                if (r - __start_cuda_ranges < ARRAYS)
                    m.used[r - __start_cuda_ranges] = true;
                return m.last = r;
            }
    return NULL;
}

void model_touch_shared(const char *at, size_t bytes, bool write)
{
    const struct model_range *r = array_of(at);
    if (!r)
        model_failed("%s shared memory outside of every array", write ? "writes" : "reads");
    const char *from = r->at;
    if (at + bytes > from + shared_size(r))
        model_failed("%s byte %lld of a shared array of %llu bytes", write ? "writes" : "reads", (long long)(at - from),
                     (unsigned long long)shared_size(r));
    touch_bytes(m.shared + (at - __start_cuda_shared), bytes, write, true, "shared memory", (uint64_t)(at - from));
}

static void touch_global(const char *at, size_t bytes, bool write)
{
    for (uint32_t i = 0; i < m.launch->range_count; i++) {
        const struct model_buffer *b = &m.launch->range[i];
        const char *from = b->at;
        if (at < from || at + bytes > from + b->bytes)
            continue;
        if (write && !b->written)
            model_failed("writes byte %llu of buffer %u, which is only read", (unsigned long long)(at - from),
                         (unsigned)i);
        if (m.global[i])
            touch_bytes(m.global[i] + (at - from), bytes, write, false, "a buffer", (uint64_t)(at - from));
        return;
    }
    const char *nearest = "";
    static char text[64];
    for (uint32_t i = 0; i < m.launch->range_count; i++) {
        const char *from = m.launch->range[i].at;
        if (at + 4096 > from && at < from + m.launch->range[i].bytes + 4096) {
            (void)snprintf(text, sizeof text, " (byte %lld of buffer %u of %llu)", (long long)(at - from), (unsigned)i,
                           (unsigned long long)m.launch->range[i].bytes);
            nearest = text;
        }
    }
    model_failed("%s outside of every buffer%s", write ? "writes" : "reads", nearest);
}

void model_touch(const void *address, size_t bytes, bool write)
{
    const char *at = address;
    if (!m.now || m.failed)
        return;
    if (at >= m.now->stack && at < m.now->stack + STACK)
        return;
    if (at >= __start_cuda_shared && at < __stop_cuda_shared)
        model_touch_shared(at, bytes, write);
    else if ((at < __ehdr_start || at >= _end) && !(at >= (const char *)m.launch->words && !write &&
                                                    at < (const char *)(m.launch->words + m.launch->word_count)))
        touch_global(at, bytes, write);
}

static void touch_aligned(const void *address, size_t bytes, bool write)
{
    if ((uintptr_t)address % bytes != 0)
        model_failed("%s %u bytes at an address that is no multiple of that", write ? "writes" : "reads",
                     (unsigned)bytes);
    model_touch(address, bytes, write);
}

unsigned long long atomicCAS(unsigned long long *at, unsigned long long seen, unsigned long long wanted)
{
    unsigned long long found = *at;
    if (found == seen)
        *at = wanted;
    return found;
}

unsigned long long atomicAdd(unsigned long long *at, unsigned long long more)
{
    m.adds = true;
    touch_aligned(at, sizeof *at, true);
    m.adds = false;
    *at += more;
    return *at - more;
}

uint32_t tpc_arrive(uint32_t *counter)
{
    struct arrival *ours = &m.arrival[m.block];
    if (ours->counter && ours->counter != counter)
        model_failed("arrives at a second counter, which the model does not know");
    ours->counter = counter;
    ours->barrier = m.barriers;
    return (*counter)++;
}

/* ---- the compiler's callbacks ---- */

#define HIDDEN __attribute__((visibility("hidden")))
#define ACCESS(bytes)                                                                                                  \
    HIDDEN void __tsan_read##bytes(void *at);                                                                          \
    void __tsan_read##bytes(void *at)                                                                                  \
    {                                                                                                                  \
        touch_aligned(at, bytes, false);                                                                               \
    }                                                                                                                  \
    HIDDEN void __tsan_write##bytes(void *at);                                                                         \
    void __tsan_write##bytes(void *at)                                                                                 \
    {                                                                                                                  \
        touch_aligned(at, bytes, true);                                                                                \
    }                                                                                                                  \
    HIDDEN void __tsan_unaligned_read##bytes(void *at);                                                                \
    void __tsan_unaligned_read##bytes(void *at)                                                                        \
    {                                                                                                                  \
        model_touch(at, bytes, false);                                                                                 \
    }                                                                                                                  \
    HIDDEN void __tsan_unaligned_write##bytes(void *at);                                                               \
    void __tsan_unaligned_write##bytes(void *at)                                                                       \
    {                                                                                                                  \
        model_touch(at, bytes, true);                                                                                  \
    }                                                                                                                  \
    HIDDEN void __tsan_volatile_read##bytes(void *at);                                                                 \
    void __tsan_volatile_read##bytes(void *at)                                                                         \
    {                                                                                                                  \
        touch_aligned(at, bytes, false);                                                                               \
    }                                                                                                                  \
    HIDDEN void __tsan_volatile_write##bytes(void *at);                                                                \
    void __tsan_volatile_write##bytes(void *at)                                                                        \
    {                                                                                                                  \
        touch_aligned(at, bytes, true);                                                                                \
    }
ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)

HIDDEN void __tsan_read_range(void *at, unsigned long bytes);
void __tsan_read_range(void *at, unsigned long bytes)
{
    model_touch(at, bytes, false);
}
HIDDEN void __tsan_write_range(void *at, unsigned long bytes);
void __tsan_write_range(void *at, unsigned long bytes)
{
    model_touch(at, bytes, true);
}
HIDDEN void __tsan_func_entry(void *at);
void __tsan_func_entry(void *at)
{
    (void)at;
}
HIDDEN void __tsan_func_exit(void *at);
void __tsan_func_exit(void *at)
{
    (void)at;
}
HIDDEN void __tsan_init(void);
void __tsan_init(void)
{
}
HIDDEN void *__tsan_memcpy(void *to, const void *from, unsigned long bytes);
void *__tsan_memcpy(void *to, const void *from, unsigned long bytes)
{
    model_touch(from, bytes, false);
    model_touch(to, bytes, true);
    return memcpy(to, from, bytes);
}
HIDDEN void *__tsan_memset(void *to, int x, unsigned long bytes);
void *__tsan_memset(void *to, int x, unsigned long bytes)
{
    model_touch(to, bytes, true);
    return memset(to, x, bytes);
}

/* ---- a launch ---- */

/* Nothing may rely on what shared memory holds: no numbers, of every type of float, in all arrays that were used since. */
static void spoil_shared(void)
{
    for (const struct model_range *r = __start_cuda_ranges; r < __stop_cuda_ranges; r++) {
        ptrdiff_t number = r - __start_cuda_ranges;
        if (number >= ARRAYS || m.used[number] || !m.spoilt)
            memset(__start_cuda_shared + ((const char *)r->at - __start_cuda_shared), 0xff, r->bytes);
        if (number < ARRAYS)
            m.used[number] = false;
    }
    m.spoilt = true;
    m.last = NULL;
}

static void start_block(void)
{
    spoil_shared();
    memset(m.warp, 0, sizeof m.warp);
    m.barriers = m.at_barrier = m.done = 0;
    for (uint32_t i = 0; i < m.threads; i++) {
        struct model_index e = model_block_extent;
        m.fibre[i].at = (struct model_thread){{i % e.x, i / e.x % e.y, i / e.x / e.y}, i};
        fibre_reset(&m.fibre[i]);
    }
}

static void run_block(void)
{
    start_block();
    while (m.done < m.threads && !m.failed) {
        m.progress = false;
        for (uint32_t i = 0; i < m.threads && !m.failed; i++) {
            if (m.fibre[i].waits == DONE)
                continue;
            m.now = &m.fibre[i];
            model_now = &m.now->at;
            model_switch(&m.scheduler, m.now->stack_pointer);
        }
        m.now = NULL;
        if (!m.progress)
            model_failed("its threads wait for each other: %u at a barrier, %u of %u have ended",
                         (unsigned)m.at_barrier, (unsigned)m.done, (unsigned)m.threads);
    }
    m.now = NULL;
}

static void give_stacks(void)
{
    for (uint32_t i = 0; i < m.threads; i++)
        if (!m.fibre[i].stack) {
            m.fibre[i].stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (m.fibre[i].stack == MAP_FAILED)
                abort();
        }
}

static struct shadow *new_shadow(size_t bytes)
{
    struct shadow *s = mmap(NULL, (bytes + 1) * sizeof *s, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (s == MAP_FAILED)
        abort();
    return s;
}

bool model_launch(const struct model_launch *launch, char *error, size_t error_bytes)
{
    uint64_t blocks = (uint64_t)launch->grid[0] * launch->grid[1] * launch->grid[2];
    size_t shared = (size_t)(__stop_cuda_shared - __start_cuda_shared);
    m.launch = launch;
    m.error = error;
    m.error_bytes = error_bytes;
    m.failed = m.adds = false;
    m.now = NULL;
    m.threads = launch->block[0] * launch->block[1] * launch->block[2];
    if (m.threads == 0 || m.threads > launch->max_threads || m.threads > THREADS || blocks == 0 ||
        launch->shared_bytes > DYNAMIC - 256 || launch->range_count > MODEL_RANGES) {
        model_failed("a launch of %u threads and %llu blocks with %u bytes is not possible", (unsigned)m.threads,
                     (unsigned long long)blocks, (unsigned)launch->shared_bytes);
        return false;
    }
    give_stacks();
    m.arrival = calloc(blocks, sizeof *m.arrival);
    if (!m.arrival)
        abort();
    m.shared = new_shadow(shared);
    for (uint32_t i = 0; i < launch->range_count; i++)
        m.global[i] = launch->range[i].bytes < MODEL_SHADOW_LIMIT ? new_shadow(launch->range[i].bytes) : NULL;
    model_block_extent = (struct model_index){launch->block[0], launch->block[1], launch->block[2]};
    model_grid_extent = (struct model_index){launch->grid[0], launch->grid[1], launch->grid[2]};
    for (uint64_t b = 0; b < blocks && !m.failed; b++) {
        m.block = (uint32_t)b;
        model_block.x = (uint32_t)(b % launch->grid[0]);
        model_block.y = (uint32_t)(b / launch->grid[0] % launch->grid[1]);
        model_block.z = (uint32_t)(b / launch->grid[0] / launch->grid[1]);
        run_block();
    }
    free(m.arrival);
    munmap(m.shared, (shared + 1) * sizeof *m.shared);
    for (uint32_t i = 0; i < launch->range_count; i++)
        if (m.global[i])
            munmap(m.global[i], (launch->range[i].bytes + 1) * sizeof *m.global[i]);
    return !m.failed;
}
