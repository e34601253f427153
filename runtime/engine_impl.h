/* runtime/engine_impl.h - what the engine's files share; private to them.
 *
 * Invariant: `struct engine` is written by the thread that called engine_*; a rank's `struct rank` by that rank's thread while a command runs, and by the
 * engine's otherwise. Graph, program and dims are only read.
 */
#ifndef TPC_RUNTIME_ENGINE_IMPL_H
#define TPC_RUNTIME_ENGINE_IMPL_H

#include "ir/weights.h"
#include "runtime/comm.h"
#include "runtime/device.h"
#include "runtime/engine.h"
#include "runtime/layout.h"
#include "runtime/sample.h"
#include "runtime/sync.h"

#include <pthread.h>

enum { SHAPE_PLANS = 4 };

/* A collective in numbers. */
struct exchange {
    uint32_t subaxes;
    int64_t elements; /* of the operand */
    uint64_t bytes;   /* of the larger of operand and result */
    uint64_t shape;   /* a hash of the cuts that follow */
    struct comm_cut cut;
    struct comm_exchange both;
};

/* All that follows from the values of the symbols, for one rank. */
struct shape_plan {
    struct arena *arena; /* rewound when the plan is made for other shapes */
    struct arena_mark mark;
    size_t held;      /* bytes that the arena holds in one piece */
    uint64_t age;     /* of its last use; 0: empty */
    int64_t *of;      /* symbols */
    uint64_t *bytes;  /* per buffer */
    uint64_t *offset; /* per buffer: in the arena, UINT64_MAX for other kinds */
    uint64_t arena_bytes;
    const void **prepared;       /* per step: of a device that prepares. It has none of what follows but exchanges */
    struct dot_view *const *dot; /* per step; NULL where it is none. So the next three */
    struct kernel_job *const *kernel;
    struct exchange *const *exchange;
    struct builtin_call *const *builtin;
};

/* struct engine_lines, kept; `place` is there for `room` rows. */
struct wanted_lines {
    uint64_t step;
    bool placed;
    int64_t *place;
    size_t room;
};

/* A run as a rank does it: its numbers and where its buffers are. */
struct course {
    struct shape_plan *plan;
    void *const *address; /* per buffer */
    uint32_t slot;        /* 0 or 1, in turn */
    const struct wanted_lines *lines;
    uint64_t key; /* of shapes, addresses, and what is wanted beside the outputs */
};

/* Memory that is made larger on demand. */
struct store {
    void *at;
    uint64_t capacity;
};

/* A state that is written in place. */
struct state_store {
    struct store store;
    uint64_t capacity; /* entries that its rows are apart */
};

struct rank {
    struct engine *engine;
    uint32_t index;
    pthread_t thread; /* ranks behind 0 */
    bool started;
    pthread_t warmer; /* while weights are loaded */
    bool warming;
    struct comm *comm;   /* between hosts' memories */
    struct comm *queued; /* in the device's queue; NULL: none */
    struct device *device;
    struct store best;      /* words of engine_best.c */
    struct store staged[2]; /* host memory for collectives that go through it */
    struct arena *scratch;
    struct shape_plan plan[SHAPE_PLANS];
    struct shape_plan *now; /* of this run */
    uint64_t clock;
    void **address, **next_address; /* per buffer: of this run, of the one that is expected */
    bool ready;                     /* for the expected one: */
    struct course next;
    bool began, marked; /* which has begun; all of it is queued */
    struct store temporaries;
    struct store weights; /* copied slices */
    struct store kept, constants;
    double upload_seconds;
    struct workers *fillers; /* while weights are loaded to a device */
    struct store
        *input; /* per graph input: this rank's part of a cut one; on a device that reads no host memory all, in: */
    struct store inputs;
    struct store *output;      /* 2 per graph output: states are written to the one that the last run did not write */
    struct state_store *state; /* per state */
    struct engine_rank_stats stats;
    double *step_seconds; /* profile */
    /* what came of the command */
    status result;
    bool stopped;    /* another rank failed */
    value failed_at; /* program node; 0: none */
    struct failure failure;
};

enum command { COMMAND_LOAD, COMMAND_RUN, COMMAND_QUIT };

struct engine {
    const struct program *program;
    const struct graph *graph;
    struct links links;
    struct engine_options options;
    struct arena *arena, *scratch;
    struct comm_world *world;   /* ranks are threads; else: */
    struct comm *alone;         /* of the one rank that this process is */
    struct kernel_set *kernels; /* ENGINE_CPU */
    struct cuda_set *cuda;      /* ENGINE_CUDA */
    struct device **device;     /* local, until ranks have them */
    struct weights *weights;
    const void *const **param; /* runs of bytes of the params that buffers use (ir/weights.h) */
    _Atomic uint32_t *copies;  /* per param: copies of slices that are still to be made; then its pages need not stay */
    bool *stays;               /* per param: some rank reads it where it is mapped */
    bool *cut_input, *cut_output; /* per input, output: a rank holds a part only */
    uint32_t *state_of_input;     /* per input: 1 + graph->states index, 0 none */
    bool *state_output;           /* per output: the end of a state */
    uint32_t *state_buffer;       /* per state: 1 + its memory's buffer, 0: it is not written in place */
    int64_t *capacity;            /* per capacity of the program: entries */
    int64_t context;              /* what states that grow have room for; 0: as much as they need */
    uint32_t ranks, local;        /* of the program; of this process */
    struct rank *rank;            /* local */
    /* the command that runs */
    enum command command;
    struct signal go, done;
    _Atomic uint32_t left;
    int64_t *of;                /* input symbols, as bound on rank 0 */
    const struct tensor *input; /* whole, of this run; shapes filled in for kept ones */
    const bool *keep;
    struct taken {
        struct engine *from;
        uint32_t output;
    } * taken; /* per input: from another engine; from NULL: not */
    struct expected {
        bool given;
        struct tensor *input; /* shapes */
        bool *keep;
        bool begin; /* at once, with these inputs' elements */
        struct wanted_lines lines;
    } expected;               /* the run behind it */
    struct expected foreseen; /* what was expected of this one, when the last one ran */
    bool as_foreseen;         /* it is just that, and ranks are ready for it */
    bool began, early;        /* the next run has begun already; this one has */
    uint64_t *begun;          /* per input, a hash of the elements that it began with */
    /* the last run */
    bool ran;
    uint32_t turn;        /* which of a state's two stores holds its last value */
    struct store *joined; /* per output: a cut one, put together */
    struct wanted_best {
        uint32_t output;
        uint32_t buffer; /* where it is */
        uint32_t gather; /* 1 + the step that puts it together, 0: none */
        int64_t rows;    /* 0: none */
        uint32_t input;  /* of the next run that they are; UINT32_MAX: none */
        bool draws;      /* from the lines, not their largest: */
        struct sampling sampling;
        struct wanted_lines lines; /* of the run that comes now */
    } best;
    struct engine_stats stats;
    struct engine_rank_stats *rank_stats; /* what stats.rank points to */
};

/* ---- engine_shape.c ---- */
/* Finds or makes rank's shape plan for these input symbols and this rank's own. It stays until SHAPE_PLANS others have been asked for. */
status shape_plan_find(struct rank *r, const int64_t *symbols, struct shape_plan **out);
/* Shape of program value v; false: overflow. Sets data NULL. */
bool shape_of_value(const struct graph *g, value v, const int64_t *of, struct tensor *t);

/* ---- engine_next.c ---- */
/* Symbols that these inputs (of which only shapes are looked at) give. */
status bind_inputs(const struct engine *e, const struct tensor *whole, struct arena *arena, struct diag *diag,
                   int64_t *of);
/* What addresses depend on beside shapes. */
struct sides {
    const bool *keep;
    uint32_t turn;
    const int64_t *capacity;
};
/* Where all buffers of a run are. false: memory has to be taken first; address[] is then of no use. */
bool addresses_of(const struct rank *r, const struct shape_plan *plan, const struct sides *x, void **address);
struct course course_of(const struct rank *r, struct shape_plan *plan, void *const *address, uint32_t slot,
                        const struct wanted_lines *lines);
/* On the engine's thread: is this the run that ranks are ready for? */
bool as_foreseen(const struct engine *e, const struct tensor *inputs, const bool *keep);
/* While the device computes: makes ready what is expected behind this run. */
void expect_next(struct rank *r);
/* Begins it, if it can be on all ranks: r->began. Not TPC_OK: another rank has ended this run. */
status begin_next(struct rank *r);
/* On the engine's thread: has this very run begun? */
bool as_begun(const struct engine *e, const struct tensor *inputs, const bool *keep);
/* Between runs: waits for what has begun and is not wanted. */
void drop_begun(struct engine *e);

/* ---- engine_input.c ---- */
/* To where the rank's kernels read them; all that are not kept, `but` one. r->now is set. */
status bring_inputs(struct rank *r, const struct tensor *inputs, const bool *keep, uint32_t but);

/* ---- engine_load.c ---- */
/* On the engine's thread: which bytes each param has, and who will copy of them. Ranks have devices. */
status find_weights(struct engine *e, const char *folder, struct diag *diag);
/* On the rank's: addresses of weights and constants; memory for what is kept. r->now is set. */
status load_weights(struct rank *r);

/* ---- engine_best.c ---- */
/* Copies; false: out of memory. */
bool wanted_lines_set(const struct engine *e, struct wanted_lines *to, const struct engine_lines *from);
bool wanted_lines_same(const struct engine *e, const struct wanted_lines *a, const struct wanted_lines *b);
/* A hash of what is wanted. */
uint64_t best_key(const struct engine *e, const struct wanted_lines *lines, uint32_t slot);
/* Does a run with these symbols find what is wanted? */
bool best_is_there(const struct engine *e, const struct wanted_lines *lines, const int64_t *of);
/* That step is left out, since run_best does with less. */
bool best_instead_of(const struct rank *r, const struct shape_plan *plan, uint32_t step);
/* Memory that it takes, in r->best. */
uint64_t best_bytes(const struct rank *r, const struct shape_plan *now);
/* Behind the steps of a run. */
status run_best(struct rank *r, const struct course *c);

/* ---- engine_state.c ---- */
void states_know(struct engine *e);
bool state_in_place(const struct engine *e, uint32_t state);
uint32_t state_of_output(const struct engine *e, uint32_t index);
/* Capacities of a run whose symbols are `of`, where they go too. e->capacity: those of now. */
status states_measure(const struct engine *e, struct arena *arena, const bool *keep, struct diag *diag, int64_t *of,
                      int64_t *capacity);
/* On the rank's: memory of states; r->now is set. */
status states_place(struct rank *r);
/* Of the present that the last run left on this rank: its size, and itself, dense, to host memory. */
bool state_bytes(const struct rank *r, uint32_t state, uint64_t *bytes);
status state_read(struct rank *r, uint32_t state, void *host);

/* ---- engine_device.c ---- */
/* On the engine's thread: e->device[] and the kernels for them. */
status open_devices(struct engine *e, struct diag *diag);
/* On the rank's, when all ranks are in the same command: its communicator in the device's queue, if it has one. */
status open_queued(struct rank *r);
/* After a run that failed, no rank works: if one's communicator has ended, all are to be made anew. */
void give_up_queued(struct engine *e);
void close_devices(struct engine *e); /* those that no rank has taken */
/* Does the rank's memory hold `wanted` more bytes and what the plan expects of intermediate values? */
status check_memory(struct rank *r, uint64_t wanted);
/* Another rank, or process, has ended the run. */
bool run_is_over(void *rank);

/* ---- engine_output.c ---- */
/* Shape of output `index` of a run with these symbols (a rank's), whole. */
/* Where rank r's part of an output of the last run is, that is no state in place. */
void *part_of_output(const struct engine *e, uint32_t r, uint32_t index);
bool output_shape(const struct engine *e, uint32_t index, const int64_t *of, struct tensor *out);

/* ---- executor.c ---- */
/* Runs the steps of one phase. */
status execute(struct rank *r, const struct course *c, enum step_phase phase);
/* At least `bytes`, contents undefined. */
status store_reserve(struct rank *r, struct store *s, uint64_t bytes);
void store_free(struct rank *r, struct store *s);
/* The same in host memory, whatever the device. */
status host_reserve(struct rank *r, struct store *s, uint64_t bytes);
/* While the device computes: what can be done already for a run that will come. */
void make_ready(struct rank *r, const struct course *c);
/* A call of a communicator was false. */
status comm_failed(struct rank *r, const struct comm *comm);
double seconds_now(void);

#endif
