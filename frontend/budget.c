/* frontend/budget.c - the pipeline run until its plan fits: see budget.h. Every plan that is handed out was measured by predict_peak.
 *
 * For one number of ranks, in this order: the plan of the objective; with OBJECTIVE_LATENCY the fastest that fits among those that trade bytes for time at
 * one price (docs/solver.md, Memory); the plan of fewest bytes; that with sequence shards. Start with compile_within.
 */
#include "frontend/budget.h"
#include "frontend/predict.h"

enum { MOST_RANKS = 64, PRICES = 24 };

struct attempt {
    struct arena *arena; /* of its own: what does not win is freed */
    struct compiled compiled;
    struct compile_options options;
    status status;
    uint64_t peak; /* of the rank that needs most */
};

struct trial {
    struct arena *arena;
    const char *path;
    const struct compile_options *options;
    const struct budget *budget;
    struct diag *diag;
    struct text tried; /* for people */
};

static void ignore(void *user, severity level, const char *line)
{
    (void)user;
    (void)level;
    (void)line;
}

static struct attempt try_options(struct trial *t, const struct compile_options *o, struct diag *diag)
{
    struct attempt a = {.arena = arena_new_in(t->arena), .options = *o, .peak = UINT64_MAX};
    a.options.dump_after = NULL; /* that is for the plan that wins, */
    a.options.prices = false;    /* and so are these */
    a.status = compile_model(a.arena, t->path, &a.options, diag, &a.compiled);
    if (a.status != TPC_OK) {
        return a;
    }
    uint32_t ranks = a.compiled.program->graph->mesh.ranks;
    struct rank_memory *m = NEW_ARRAY(a.arena, struct rank_memory, ranks);
    if (predict_peak(a.arena, &a.compiled, m)) {
        a.peak = 0;
        for (uint32_t r = 0; r < ranks; r++) {
            a.peak = rank_memory_total(&m[r]) > a.peak ? rank_memory_total(&m[r]) : a.peak;
        }
    }
    return a;
}

static bool fits(const struct trial *t, const struct attempt *a)
{
    return a->status == TPC_OK && (t->budget->memory == 0 || a->peak <= t->budget->memory);
}

/* The better stays, the other is freed. */
static void keep(struct attempt *best, struct attempt other, bool other_is_better)
{
    struct attempt worse = other_is_better ? *best : other;
    *best = other_is_better ? other : *best;
    arena_free(worse.arena);
}

/* Between the fastest plan, which does not fit, and that of fewest bytes, which does: bytes fall as their price rises, so the price is halved down to.
 * Only plans that fit are taken. */
static void lower_price(struct trial *t, struct attempt *best)
{
    struct diag quiet = {.sink = ignore};
    int low = 0, high = PRICES; /* prices are powers of four, in picoseconds per KiB */
    while (low < high) {
        int middle = low + (high - low) / 2;
        struct compile_options o = *t->options;
        o.ranks = best->options.ranks;
        o.sequence = best->options.sequence;
        o.byte_price = (int64_t)1 << 2 * middle;
        struct attempt a = try_options(t, &o, &quiet);
        bool good = fits(t, &a);
        keep(best, a, good && a.compiled.solution->time <= best->compiled.solution->time);
        *(good ? &high : &low) = good ? middle : middle + 1;
    }
}

/* The best plan for `ranks`; when it does not fit, the smallest one. */
static struct attempt plan_for(struct trial *t, uint32_t ranks, struct diag *diag)
{
    struct compile_options o = *t->options;
    struct diag quiet = {.sink = ignore};
    o.ranks = ranks;
    struct attempt best = try_options(t, &o, diag);
    if (best.status != TPC_OK || fits(t, &best)) {
        return best;
    }
    bool cheaper = o.objective == OBJECTIVE_LATENCY;
    o.objective = OBJECTIVE_BYTES;
    for (int sequence = 0; sequence < 2 && !fits(t, &best); sequence++) {
        struct attempt a = {.peak = UINT64_MAX};
        if (sequence != 0 && o.sequence == SEQUENCE_SPLIT) {
            break;
        }
        o.sequence = sequence != 0 ? SEQUENCE_SPLIT : o.sequence;
        if (sequence == 0 && !cheaper) {
            continue;
        }
        a = try_options(t, &o, &quiet);
        keep(&best, a, a.peak < best.peak);
    }
    if (cheaper && fits(t, &best)) {
        lower_price(t, &best);
    }
    return best;
}

static const char *size_text(struct arena *arena, uint64_t bytes)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    double n = (double)bytes;
    uint32_t unit = 0;
    for (; n >= 1024 && unit < 4; unit++) {
        n /= 1024;
    }
    return arena_printf(arena, "%.4g %s", n, units[unit]);
}

static void note_tried(struct trial *t, const struct attempt *a)
{
    bool first = t->tried.length == 0;
    text_printf(&t->tried, "%s%u%s %s", first ? "" : ", ", (unsigned)a->options.ranks,
                !first                  ? " need"
                : a->options.ranks == 1 ? " rank needs"
                                        : " ranks need",
                size_text(t->arena, a->peak));
    if (t->options->objective == OBJECTIVE_LATENCY) {
        text_printf(&t->tried, " and %.3g ms", 1e3 * a->compiled.solution->time);
    }
}

/* Fewest ranks that fit, or the fastest. */
static struct attempt choose_ranks(struct trial *t)
{
    struct diag quiet = {.sink = ignore};
    bool fastest = t->options->objective == OBJECTIVE_LATENCY;
    struct attempt best = {.status = TPC_OK, .peak = UINT64_MAX};
    for (uint32_t n = 1; n <= t->budget->most; n++) {
        struct attempt a = plan_for(t, n, &quiet);
        if (a.status !=
            TPC_OK) { /* a size for which there is no plan, by demands or the mesh; else there is none for any */
            bool other = a.status == TPC_USAGE || best.arena != NULL;
            arena_free(a.arena);
            if (other && (n < t->budget->most || best.arena != NULL)) {
                continue;
            }
            return plan_for(t, n, t->diag);
        }
        note_tried(t, &a);
        bool better =
            best.arena == NULL || (fits(t, &a) && !fits(t, &best)) ||
            (fits(t, &a) == fits(t, &best) &&
             (fits(t, &a) && fastest ? a.compiled.solution->time < best.compiled.solution->time : a.peak < best.peak));
        keep(&best, a, better);
        if (fits(t, &best) && !fastest) {
            break;
        }
    }
    if (fits(t, &best)) {
        diag_note(t->diag, t->path, "--tp auto takes %u: %s", (unsigned)best.options.ranks, t->tried.at);
    }
    return best;
}

/* The fewest ranks that fit, beyond those that were tried; 0: none. */
static uint32_t what_fits(struct trial *t, uint32_t after)
{
    struct diag quiet = {.sink = ignore};
    for (uint32_t n = after + 1; n <= MOST_RANKS && t->options->axis_count == 0; n++) {
        struct attempt a = plan_for(t, n, &quiet);
        bool found = fits(t, &a);
        arena_free(a.arena);
        if (found) {
            return n;
        }
    }
    return 0;
}

static status refuse(struct trial *t, const struct attempt *least)
{
    uint32_t from = t->budget->choose_ranks ? t->budget->most : least->options.ranks, n = what_fits(t, from);
    const char *more = n != 0 ? arena_printf(t->arena, "--tp %u is the smallest that fits", (unsigned)n)
                              : "no number of ranks up to 64 fits";
    return diag_error(
        t->diag, TPC_USAGE, t->path, "does not fit into %s per rank: the smallest plan on %u ranks needs %s%s%s",
        size_text(t->arena, t->budget->memory), (unsigned)least->options.ranks, size_text(t->arena, least->peak),
        t->options->axis_count == 0 ? "; " : "", t->options->axis_count == 0 ? more : "");
}

status compile_within(struct arena *arena, const char *path, const struct compile_options *options,
                      const struct budget *budget, struct diag *diag, struct compiled *out)
{
    struct trial t = {arena, path, options, budget, diag, {.arena = arena}};
    if (budget->memory == 0 && !budget->choose_ranks) {
        return compile_model(arena, path, options, diag, out);
    }
    struct attempt a = budget->choose_ranks ? choose_ranks(&t) : plan_for(&t, options->ranks, diag);
    if (a.status != TPC_OK) {
        return a.status;
    }
    if (!fits(&t, &a)) {
        return refuse(&t, &a);
    }
    *out = a.compiled;
    if (options->dump_after != NULL || options->prices) {
        a.options.dump_after = options->dump_after;
        a.options.prices = options->prices;
        status s = compile_model(arena, path, &a.options, diag, out);
        if (s != TPC_OK) {
            return s;
        }
    }
    out->memory_budget = budget->memory;
    out->objective = options->objective;
    return TPC_OK;
}
