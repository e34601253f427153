/* tests/unit/plan_fault_test.c - plans whose Program is wrong in one number. As it is, such a file is refused by its checksum. With checksums made right again
 * it is another plan, and must be refused by what reads or runs it, or show in the outputs; nothing may crash, hang or reach outside.
 *
 * Kernels are interpreted. TPC_FAULTS=N tries N faults per plan and prints what became of them.
 */
#include "frontend/compile.h"
#include "runtime/engine.h"
#include "tests/support/model_inputs.h"
#include "tests/test.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

struct tally {
    uint32_t faults, by_checksum, by_reader, by_engine, by_numbers, equal;
};

struct victim {
    struct arena *arena;
    const char *name, *folder;
    const struct tensor *inputs;
    unsigned char *bytes; /* the plan */
    size_t length;
    LIST(size_t) digits;   /* where in the file: of numbers in the Program's text */
    struct tensor *wanted; /* outputs of the sound plan */
    uint32_t outputs;
};

static void swallow(void *user, severity level, const char *line)
{
    (void)user;
    (void)level;
    (void)line;
}
static struct diag quiet = {.sink = swallow};

/* ---- a plan, read and run ---- */

struct attempt {
    const struct victim *v;
    struct arena *arena;
    const unsigned char *bytes;
    struct plan *plan;
    struct engine *engine;
    struct tensor *outputs;
};

static status parse(void *context)
{
    struct attempt *a = context;
    return plan_parse(a->arena, "plan", a->v->folder, a->bytes, a->v->length, &quiet, &a->plan);
}

static status run(void *context)
{
    struct attempt *a = context;
    struct engine_options one = {.threads = 1};
    const struct graph *g = a->plan->program->graph;
    status s = engine_open(a->plan->program, &a->plan->links, a->plan->folder, &one, &quiet, &a->engine);
    s = s != TPC_OK ? s : engine_run(a->engine, a->v->inputs, NULL, &quiet);
    a->outputs = NEW_ARRAY(a->arena, struct tensor, g->outputs.count + 1);
    for (uint32_t i = 0; i < g->outputs.count && s == TPC_OK; i++)
        s = engine_output(a->engine, i, &quiet, &a->outputs[i]);
    return s;
}

static bool same_outputs(const struct victim *v, const struct attempt *a)
{
    if (a->plan->program->graph->outputs.count != v->outputs)
        return false;
    for (uint32_t i = 0; i < v->outputs; i++) {
        struct difference d;
        if (!tensor_compare(&a->outputs[i], &v->wanted[i], 1e-6, 1e-7, &d))
            return false;
    }
    return true;
}

/* ---- faults ---- */

/* Digits of numbers in the Program's text, outside of quotes. */
static void find_digits(struct victim *v)
{
    size_t begin = (size_t)get_little(v->bytes + PLAN_HEADER + SECTION_PROGRAM * PLAN_ENTRY + 8, 8),
           length = (size_t)get_little(v->bytes + PLAN_HEADER + SECTION_PROGRAM * PLAN_ENTRY + 16, 8);
    bool quoted = false;
    for (size_t i = begin; i < begin + length; i++) {
        quoted ^= v->bytes[i] == '"' && v->bytes[i - 1] != '\\';
        if (!quoted && isdigit(v->bytes[i]))
            *PUSH(v->arena, &v->digits) = i;
    }
}

static void mend(unsigned char *b)
{
    unsigned char *entry = b + PLAN_HEADER + SECTION_PROGRAM * PLAN_ENTRY;
    put_little(entry + 24, hash_bytes(b + get_little(entry + 8, 8), (size_t)get_little(entry + 16, 8), 0), 8);
    put_little(b + PLAN_HASH_AT, plan_table_hash(b), 8);
}

/* What becomes of a file of these bytes. */
static uint32_t *judge(const struct victim *v, const unsigned char *bytes, struct tally *t)
{
    struct attempt a = {.v = v, .arena = arena_new(), .bytes = bytes};
    uint32_t *count = &t->by_reader;
    if (guard_run(&quiet, parse, &a) == TPC_OK) {
        count = guard_run(&quiet, run, &a) != TPC_OK ? &t->by_engine : same_outputs(v, &a) ? &t->equal : &t->by_numbers;
        engine_close(a.engine);
    }
    arena_free(a.arena);
    return count;
}

static void try_fault(struct victim *v, size_t at, unsigned char digit, struct tally *t)
{
    unsigned char was = v->bytes[at], hash[16];
    struct tally unmended = {0};
    memcpy(hash, v->bytes + PLAN_HASH_AT, 8);
    memcpy(hash + 8, v->bytes + PLAN_HEADER + SECTION_PROGRAM * PLAN_ENTRY + 24, 8);
    v->bytes[at] = digit;
    t->faults++;
    t->by_checksum += judge(v, v->bytes, &unmended) == &unmended.by_reader;
    mend(v->bytes);
    ++*judge(v, v->bytes, t);
    v->bytes[at] = was;
    memcpy(v->bytes + PLAN_HASH_AT, hash, 8);
    memcpy(v->bytes + PLAN_HEADER + SECTION_PROGRAM * PLAN_ENTRY + 24, hash + 8, 8);
}

/* ---- plans ---- */

static void write_plan(struct victim *v, uint32_t ranks)
{
    struct graph *g = NULL;
    struct compiled c = {0};
    struct compile_options o = {.ranks = ranks};
    assert_int_equal(onnx_import(v->arena, arena_printf(v->arena, "%s/model.onnx", v->folder), NULL, &quiet, &g),
                     TPC_OK);
    assert_int_equal(compile_graph(v->arena, g, &o, &quiet, &c), TPC_OK);
    struct plan_contents contents = {.program = c.program, .decisions = "{}", .weight_folder = v->folder};
    contents.links.input = NEW_ARRAY(v->arena, const struct placement *, c.graph->inputs.count + 1);
    for (uint32_t i = 0; i < c.graph->inputs.count; i++)
        contents.links.input[i] = c.solution->result[c.graph->inputs.at[i].value];
    contents.links.output = c.solution->output;
    v->inputs = model_inputs(v->arena, c.graph, v->folder, &quiet);
    assert_int_equal(plan_write(v->arena, "sound.bin", &contents, &quiet), TPC_OK);
    FILE *f = fopen("sound.bin", "rb");
    assert_non_null(f);
    v->bytes = NEW_ARRAY(v->arena, unsigned char, 8 << 20);
    v->length = fread(v->bytes, 1, 8 << 20, f);
    fclose(f);
    unlink("sound.bin");
    assert_true(v->length > PLAN_TABLE && v->length < 8 << 20);
}

static void take_outputs(struct victim *v)
{
    struct attempt a = {.v = v, .arena = arena_new_in(v->arena), .bytes = v->bytes};
    assert_int_equal(guard_run(&quiet, parse, &a), TPC_OK);
    assert_int_equal(guard_run(&quiet, run, &a), TPC_OK);
    v->outputs = a.plan->program->graph->outputs.count;
    v->wanted = NEW_ARRAY(v->arena, struct tensor, v->outputs + 1);
    for (uint32_t i = 0; i < v->outputs; i++) {
        v->wanted[i] = a.outputs[i];
        v->wanted[i].data = arena_copy(v->arena, a.outputs[i].data, tensor_bytes(&a.outputs[i]));
    }
    engine_close(a.engine);
}

static void try_plan(const char *name, uint32_t ranks, uint32_t faults, struct tally *t)
{
    struct victim v = {.arena = arena_new(), .name = name};
    uint32_t seed = 1;
    v.folder = model_folder(v.arena, name);
    write_plan(&v, ranks);
    take_outputs(&v);
    find_digits(&v);
    assert_true(v.digits.count > faults);
    for (uint32_t i = 0; i < faults; i++) { /* spread over the text */
        seed = seed * 1664525u + 1013904223u;
        size_t at = v.digits.at[(uint64_t)i * v.digits.count / faults + (seed >> 8) % (v.digits.count / faults)];
        try_fault(&v, at, (unsigned char)('0' + ((uint32_t)v.bytes[at] - '0' + 1 + (seed >> 20) % 9) % 10), t);
    }
    arena_free(v.arena);
}

static void faults_are_caught(void **state)
{
    (void)state;
    const char *wanted = getenv("TPC_FAULTS");
    uint32_t faults = wanted ? (uint32_t)strtoul(wanted, NULL, 10) : 110;
    struct tally t = {0};
    try_plan("llama-past-opt18", 2, faults, &t);
    try_plan("gpt2-ts17", 3, faults, &t);
    try_plan("bert-ts17", 4, faults, &t);
    if (wanted)
        print_message("%u faults: %u refused by checksum; mended: %u refused by the reader, %u by the engine, %u other "
                      "numbers, %u the same\n",
                      t.faults, t.by_checksum, t.by_reader, t.by_engine, t.by_numbers, t.equal);
    assert_int_equal(t.by_checksum, t.faults);
    assert_int_equal(t.by_reader + t.by_engine + t.by_numbers + t.equal, t.faults);
    assert_true(t.by_reader + t.by_engine > t.faults / 3);
}

int main(void)
{
    setenv("CC", "/nonexistent", 1);
    alarm(280); /* a hang is a failure */
    const struct CMUnitTest tests[] = {cmocka_unit_test(faults_are_caught)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
