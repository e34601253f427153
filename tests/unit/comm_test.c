/* tests/unit/comm_test.c - collectives against their definition: every type, uneven parts, sub-axes, more ranks than cores, and one
 * rank that gives up. The same for ranks as threads and for ranks as processes (each played by a thread here, with connections of its own).
 */
#include "runtime/processes.h"
#include "tests/test.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

enum { MOST_RANKS = 12 };

struct job {
    struct comm_world *world; /* NULL: processes */
    struct processes *process[MOST_RANKS];
    struct comm *comm[MOST_RANKS];
    uint16_t port;
    struct mesh mesh;
    uint32_t subaxes;
    int (*body)(struct job *job, struct comm *c); /* number of failures */
    dtype type;
    enum reduction reduction;
    int64_t elements;
};

struct thread {
    struct job *job;
    uint32_t rank;
    int failures;
    pthread_t thread;
};

static void *run_rank(void *argument)
{
    struct thread *t = argument;
    struct job *job = t->job;
    t->failures = job->body(job, job->world ? comm_threads_rank(job->world, t->rank) : job->comm[t->rank]);
    return NULL;
}

static int on_all_ranks(struct job *job)
{
    struct thread thread[MOST_RANKS];
    int failures = 0;
    for (uint32_t r = 0; r < job->mesh.ranks; r++) {
        thread[r] = (struct thread){.job = job, .rank = r};
        assert_int_equal(pthread_create(&thread[r].thread, NULL, run_rank, &thread[r]), 0);
    }
    for (uint32_t r = 0; r < job->mesh.ranks; r++) {
        pthread_join(thread[r].thread, NULL);
        failures += thread[r].failures;
    }
    return failures;
}

static void *join_rank(void *argument)
{
    struct thread *t = argument;
    struct job *job = t->job;
    struct processes_options o = {
        .launch = {.rank = t->rank, .ranks = job->mesh.ranks, .port = job->port}, .timeout = 20, .version = "test"};
    strcpy(o.launch.address, "127.0.0.1");
    t->failures = processes_join(&o, NULL, &job->process[t->rank]) != TPC_OK;
    job->comm[t->rank] = t->failures ? NULL : comm_processes_new(job->process[t->rank], &job->mesh);
    return NULL;
}

static void *leave_rank(void *argument)
{
    struct thread *t = argument;
    t->failures = processes_leave(t->job->process[t->rank], TPC_OK, NULL) != TPC_OK;
    return NULL;
}

static void each_rank(struct job *job, void *(*body)(void *))
{
    struct thread thread[MOST_RANKS];
    for (uint32_t r = 0; r < job->mesh.ranks; r++) {
        thread[r] = (struct thread){.job = job, .rank = r};
        assert_int_equal(pthread_create(&thread[r].thread, NULL, body, &thread[r]), 0);
    }
    for (uint32_t r = 0; r < job->mesh.ranks; r++) {
        pthread_join(thread[r].thread, NULL);
        assert_int_equal(thread[r].failures, 0);
    }
}

static void in_world(uint32_t ranks, struct job *job, bool processes)
{
    static uint16_t port;
    mesh_init(&job->mesh, "tp", ranks);
    if (!processes || ranks == 1) {
        job->world = comm_threads_new(&job->mesh);
        assert_non_null(job->world);
        return;
    }
    port = (uint16_t)(port ? port + 1 : 20000 + getpid() % 12000); /* below those that the kernel gives away */
    job->port = port;
    each_rank(job, join_rank);
}

static void end_world(struct job *job)
{
    if (!job->world)
        each_rank(job, leave_rank);
    comm_threads_free(job->world);
}

/* A number that depends on rank and place; small, so that integers of any width tell them apart. */
static double number(uint32_t rank, int64_t i)
{
    return (double)((rank * 7 + (uint64_t)i * 3) % 5) + (i % 3 == 0 ? 0.25 * rank : 0);
}

/* Ranks of c's group, by part. */
static uint32_t group_of(const struct job *job, const struct comm *c, uint32_t *members)
{
    uint32_t count = 0, others = ((1u << job->mesh.count) - 1) & ~job->subaxes;
    for (uint32_t r = 0; r < c->ranks; r++)
        if (mesh_part_of(&job->mesh, others, r) == mesh_part_of(&job->mesh, others, c->rank)) {
            members[mesh_part_of(&job->mesh, job->subaxes, r)] = r;
            count++;
        }
    return count;
}

static void fill(dtype type, void *to, uint32_t rank, int64_t elements)
{
    for (int64_t i = 0; i < elements; i++)
        dtype_store_f64(type, to, (size_t)i, number(rank, i));
}

static int reduce_one(const struct job *job, struct comm *c)
{
    uint32_t members[MOST_RANKS], count = group_of(job, c, members);
    size_t size = dtype_size(job->type);
    char *in = malloc((size_t)job->elements * size + 1), *out = malloc((size_t)job->elements * size + 1);
    char *other = malloc((size_t)job->elements * size + 1), *expected = malloc((size_t)job->elements * size + 1);
    int failures = 0;
    fill(job->type, in, c->rank, job->elements);
    const void *sources[MOST_RANKS];
    char *all = malloc((size_t)job->elements * size * count + 1);
    for (uint32_t p = 0; p < count; p++) {
        fill(job->type, all + (size_t)job->elements * size * p, members[p], job->elements);
        sources[p] = all + (size_t)job->elements * size * p;
    }
    reduce_sources(job->reduction, job->type, sources, count, 0, job->elements, expected);
    for (int round = 0; round < 3; round++) {
        bool in_place = round % 2;
        memcpy(other, in, (size_t)job->elements * size);
        void *to = in_place ? other : out;
        failures += !c->ops->all_reduce(c, job->subaxes, job->reduction, job->type, other, to, job->elements);
        failures += memcmp(to, expected, (size_t)job->elements * size) != 0;
    }
    free(in);
    free(out);
    free(other);
    free(expected);
    free(all);
    return failures;
}

static int reduce_body(struct job *job, struct comm *c)
{
    static const int64_t sizes[] = {0, 5, 700, 9013};
    int failures = 0;
    for (int t = 1; t < DT_COUNT; t++)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            struct job one = *job;
            if (sanitized() && sizes[s] > 1000 && (unsigned)t % 3 != job->subaxes % 3)
                continue;
            one.type = (dtype)t;
            one.elements = sizes[s];
            one.reduction = (enum reduction)(1 + (t + (int)s) % 4);
            failures += reduce_one(&one, c);
        }
    return failures;
}

static void reduces(void **state)
{
    for (uint32_t ranks = 1; ranks <= 6; ranks++) {
        struct job job = {.body = reduce_body};
        in_world(ranks, &job, *state);
        for (uint32_t mask = 0; mask < 1u << job.mesh.count; mask++) {
            job.subaxes = mask;
            assert_int_equal(on_all_ranks(&job), 0);
        }
        end_world(&job);
    }
}

/* The sums themselves, against double. */
static void sums_are_right(void **state)
{
    (void)state;
    for (int t = 1; t < DT_COUNT; t++)
        for (int reduction = 1; reduction <= 4; reduction++) {
            dtype type = (dtype)t;
            uint64_t a[700], b[700], c[700], to[700];
            fill(type, a, 0, 700);
            fill(type, b, 1, 700);
            fill(type, c, 2, 700);
            reduce_sources((enum reduction)reduction, type, (const void *const[]){a, b, c}, 3, 0, 700, to);
            for (size_t i = 0; i < 700; i++) {
                double x = dtype_load_f64(type, a, i), y = dtype_load_f64(type, b, i), z = dtype_load_f64(type, c, i);
                double most = x > y ? x : y, least = x < y ? x : y, expected = 0;
                if (reduction == REDUCTION_SUM)
                    expected = x + y + z;
                else if (reduction == REDUCTION_PROD)
                    expected = x * y * z;
                else if (reduction == REDUCTION_MAX)
                    expected = most > z ? most : z;
                else
                    expected = least < z ? least : z;
                uint64_t rounded;
                if (dtype_is_int(type)) /* wraps */
                    dtype_store_i64(type, &rounded, 0, (int64_t)expected);
                else
                    dtype_store_f64(type, &rounded, 0, expected);
                double got = dtype_load_f64(type, to, i), wanted = dtype_load_f64(type, &rounded, 0);
                assert_true(got == wanted || (isnan(got) && isnan(wanted)));
            }
        }
}

/* Uneven cuts, one part empty. */
static int64_t cuts(uint32_t parts, int64_t each, int64_t *offset)
{
    offset[0] = 0;
    for (uint32_t p = 0; p < parts; p++)
        offset[p + 1] = offset[p] + (p == 1 ? 0 : each + p);
    return offset[parts];
}

static int gather_body(struct job *job, struct comm *c)
{
    uint32_t members[MOST_RANKS], parts = group_of(job, c, members),
                                  me = mesh_part_of(&job->mesh, job->subaxes, c->rank);
    int64_t offset[MOST_RANKS + 1], extent = cuts(parts, job->elements, offset);
    enum { OUTER = 3, INNER = 5 };
    struct comm_cut cut = {OUTER, INNER, offset};
    int64_t own = offset[me + 1] - offset[me];
    int32_t *in = calloc((size_t)(OUTER * own * INNER) + 1, 4), *out = calloc((size_t)(OUTER * extent * INNER) + 1, 4);
    int32_t *back = calloc((size_t)(OUTER * own * INNER) + 1, 4);
    for (int64_t o = 0; o < OUTER; o++)
        for (int64_t i = 0; i < own * INNER; i++)
            in[o * own * INNER + i] = (int32_t)((o * extent + offset[me]) * INNER + i);
    int failures = 0;
    for (int round = 0; round < 3; round++) {
        failures += !c->ops->all_gather(c, job->subaxes, 4, &cut, in, out);
        for (int64_t i = 0; i < OUTER * extent * INNER; i++)
            failures += out[i] != i;
        failures += !c->ops->reduce_scatter(c, job->subaxes, REDUCTION_SUM, DT_I32, &cut, out, back);
        for (int64_t i = 0; i < OUTER * own * INNER; i++)
            failures += back[i] != in[i] * (int32_t)parts;
    }
    free(in);
    free(out);
    free(back);
    return failures;
}

static int exchange_body(struct job *job, struct comm *c)
{
    uint32_t members[MOST_RANKS], parts = group_of(job, c, members),
                                  me = mesh_part_of(&job->mesh, job->subaxes, c->rank);
    int64_t a[MOST_RANKS + 1], b[MOST_RANKS + 1], ea = cuts(parts, 2, a), eb = cuts(parts, job->elements, b);
    int failures = 0;
    for (int order = 0; order < 2; order++) {
        struct comm_exchange x = {2, 3, 4, order == 0, a, b};
        int64_t in_a = order == 0 ? a[me + 1] - a[me] : ea, in_b = order == 0 ? eb : b[me + 1] - b[me];
        int64_t out_a = order == 0 ? ea : a[me + 1] - a[me], out_b = order == 0 ? b[me + 1] - b[me] : eb;
        int64_t in_at_a = order == 0 ? a[me] : 0, in_at_b = order == 0 ? 0 : b[me];
        int64_t out_at_a = order == 0 ? 0 : a[me], out_at_b = order == 0 ? b[me] : 0;
        int16_t *in = calloc((size_t)(2 * in_a * 3 * in_b * 4) + 1, 2),
                *out = calloc((size_t)(2 * out_a * 3 * out_b * 4) + 1, 2);
        for (int64_t i = 0; i < 2 * in_a * 3 * in_b * 4; i++) {
            int64_t d = i % 4, y = i / 4 % in_b + in_at_b, k = i / 4 / in_b % 3, z = i / 12 / in_b % in_a + in_at_a;
            in[i] = (int16_t)((((i / 12 / in_b / in_a * ea + z) * 3 + k) * eb + y) * 4 + d);
        }
        failures += !c->ops->all_to_all(c, job->subaxes, 2, &x, in, out);
        for (int64_t i = 0; i < 2 * out_a * 3 * out_b * 4; i++) {
            int64_t d = i % 4, y = i / 4 % out_b + out_at_b, k = i / 4 / out_b % 3,
                    z = i / 12 / out_b % out_a + out_at_a;
            failures += out[i] != (int16_t)((((i / 12 / out_b / out_a * ea + z) * 3 + k) * eb + y) * 4 + d);
        }
        free(in);
        free(out);
    }
    return failures;
}

static int broadcast_body(struct job *job, struct comm *c)
{
    uint32_t members[MOST_RANKS], parts = group_of(job, c, members);
    int64_t elements = job->elements * 50; /* small and large */
    int64_t *in = calloc((size_t)elements, 8), *out = calloc((size_t)elements, 8);
    int failures = 0;
    for (uint32_t root = 0; root < parts; root++) {
        for (int64_t i = 0; i < elements; i++)
            in[i] = (int64_t)c->rank * 1000000 + i;
        void *to = root % 2 ? in : out;
        failures += !c->ops->broadcast(c, job->subaxes, root, (size_t)elements * 8, in, to);
        for (int64_t i = 0; i < elements; i++)
            failures += ((int64_t *)to)[i] != (int64_t)members[root] * 1000000 + i;
    }
    free(in);
    free(out);
    return failures;
}

static void moves(void **state)
{
    int (*const bodies[])(struct job *, struct comm *) = {gather_body, exchange_body, broadcast_body};
    static const uint32_t worlds[] = {1, 2, 3, 4, 8, 12};
    for (size_t w = 0; w < sizeof worlds / sizeof *worlds; w++) {
        struct job job = {0};
        in_world(worlds[w], &job, *state);
        for (uint32_t mask = 0; mask < 1u << job.mesh.count; mask++)
            for (size_t b = 0; b < 3; b++)
                for (int64_t elements = 1; elements < 500; elements *= 90) {
                    job.subaxes = mask;
                    job.body = bodies[b];
                    job.elements = elements;
                    assert_int_equal(on_all_ranks(&job), 0);
                }
        end_world(&job);
    }
}

/* Small and large ones in turn: the stages are reused only when all have read them. */
static int mixed_body(struct job *job, struct comm *c)
{
    int failures = 0;
    int32_t *x = calloc(20000, 4);
    for (int i = 0; i < 300; i++) {
        int64_t n = i % 7 == 3 ? 20000 : 1 + i % 50;
        for (int64_t k = 0; k < n; k++)
            x[k] = i + (int32_t)k + (int32_t)c->rank;
        failures += !c->ops->all_reduce(c, job->subaxes, REDUCTION_MAX, DT_I32, x, x, n);
        for (int64_t k = 0; k < n; k++)
            failures += x[k] != i + (int32_t)k + (int32_t)c->ranks - 1;
    }
    free(x);
    return failures;
}

static void mixed_sizes(void **state)
{
    for (uint32_t ranks = 2; ranks <= 5; ranks++) {
        struct job job = {.body = mixed_body};
        in_world(ranks, &job, *state);
        job.subaxes = (1u << job.mesh.count) - 1;
        assert_int_equal(on_all_ranks(&job), 0);
        end_world(&job);
    }
}

static int giving_up_body(struct job *job, struct comm *c)
{
    float x[8] = {0};
    for (int i = 0; i < 10; i++) {
        if (c->rank == 1 && i == 4) {
            c->ops->abort(c);
            return 0;
        }
        if (!c->ops->all_reduce(c, job->subaxes, REDUCTION_SUM, DT_F32, x, x, 8))
            return i < 3; /* the others must not get past the one that is missing */
    }
    return 1;
}

static void one_gives_up(void **state)
{
    (void)state;
    struct job job = {0};
    in_world(4, &job, false);
    job.subaxes = 3;
    for (int round = 0; round < 20; round++) {
        job.body = giving_up_body;
        assert_int_equal(on_all_ranks(&job), 0);
        assert_true(comm_threads_aborted(job.world));
        comm_threads_reset(job.world);
        job.body = mixed_body;
        if (round % 10 == 0)
            assert_int_equal(on_all_ranks(&job), 0);
    }
    end_world(&job);
}

/* Both ranks call, but not for the same: it must end, and say so. */
static int at_odds_body(struct job *job, struct comm *c)
{
    float x[8] = {0};
    return c->ops->all_reduce(c, job->subaxes, REDUCTION_SUM, DT_F32, x, x, c->rank == 0 ? 8 : 7);
}

static void *leave_at_odds(void *argument)
{
    struct thread *t = argument;
    t->failures = processes_leave(t->job->process[t->rank], TPC_RANKS, NULL) != TPC_RANKS;
    return NULL;
}

static void at_odds(void **state)
{
    (void)state;
    struct job job = {.body = at_odds_body};
    in_world(2, &job, true);
    job.subaxes = 1;
    assert_int_equal(on_all_ranks(&job), 0);
    each_rank(&job, leave_at_odds);
}

int main(void)
{
    static bool processes = true, *const p = &processes;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_are_right),
        cmocka_unit_test(reduces),
        cmocka_unit_test(moves),
        cmocka_unit_test(mixed_sizes),
        cmocka_unit_test(one_gives_up),
        cmocka_unit_test_prestate(reduces, p),
        cmocka_unit_test_prestate(moves, p),
        cmocka_unit_test_prestate(mixed_sizes, p),
        cmocka_unit_test(at_odds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
