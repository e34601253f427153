/* tests/unit/plan_test.c - the plan file: there and back, and every damage refused before anything is believed. */
#include "frontend/compile.h"
#include "ir/weights.h"
#include "runtime/plan.h"

#include <setjmp.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char last_line[1100];

static void keep_line(void *user, severity level, const char *line)
{
    (void)user;
    (void)level;
    snprintf(last_line, sizeof last_line, "%s", line);
}

static struct diag quiet = {.sink = keep_line};

/* ---- a model: x[batch, 12] . w[24, 12] -> relu-like -> . v[12, 24], and a state that grows -------------------------- */

enum { IN = 12, WIDE = 24 };

static uint32_t add_param(struct graph *g, const char *name, int64_t rows, int64_t columns, const float *data)
{
    int64_t *shape = NEW_ARRAY(g->arena, int64_t, 2);
    shape[0] = rows;
    shape[1] = columns;
    *PUSH(g->arena, &g->params) = (struct param){.name = name,
                                                 .dtype = DT_F32,
                                                 .rank = 2,
                                                 .shape = shape,
                                                 .file = NO_FILE,
                                                 .length = (uint64_t)(rows * columns) * 4,
                                                 .data = data};
    return g->params.count - 1;
}

static float *numbers(struct arena *arena, size_t count)
{
    float *x = NEW_ARRAY(arena, float, count);
    for (size_t i = 0; i < count; i++)
        x[i] = (float)(i % 17) - 8;
    return x;
}

/* weight_file: as it is written here; path: as the graph names it. NULL: all weights in the graph. */
static struct graph *model(struct arena *arena, const char *weight_file, const char *path)
{
    struct graph *g = graph_new(arena);
    graph_set_origin(g, graph_add_origin(g, "model.onnx", 0, "mlp \"quoted\"", "MatMul"));
    g->model_path = "model.onnx";
    dim shape[] = {dim_symbol(g->dims, "batch"), dim_const(g->dims, IN)};
    value x = graph_input(g, "x", DT_F32, 2, shape);
    uint32_t w = add_param(g, "w", WIDE, IN, numbers(arena, WIDE * IN)),
             v = add_param(g, "v", IN, WIDE, numbers(arena, WIDE * IN));
    if (weight_file) {
        FILE *f = fopen(weight_file, "wb");
        assert_non_null(f);
        assert_int_equal(fwrite("1234", 1, 4, f), 4);
        assert_int_equal(fwrite(g->params.at[w].data, 1, WIDE * IN * 4, f), WIDE * IN * 4);
        fclose(f);
        char all[WIDE * IN * 4 + 4];
        f = fopen(weight_file, "rb");
        assert_int_equal(fread(all, 1, sizeof all, f), sizeof all);
        fclose(f);
        *PUSH(arena, &g->files) = (struct weight_file){
            .path = path, .size = sizeof all, .fingerprint = weight_fingerprint(sizeof all, all, all, sizeof all)};
        g->params.at[w].file = 0;
        g->params.at[w].offset = 4;
        g->params.at[w].data = NULL;
    }
    value up = graph_dot(g, x, graph_param(g, w), 0, 1);
    value down = graph_dot(g, graph_unary(g, OP_TANH, up), graph_param(g, v), 0, 1);
    graph_output(g, "y", down);
    return g;
}

static struct plan_contents contents_for(struct arena *arena, struct graph *g, uint32_t ranks)
{
    struct compiled c;
    struct compile_options o = {.ranks = ranks};
    struct diag loud = {0};
    assert_int_equal(compile_graph(arena, g, &o, &loud, &c), TPC_OK);
    struct plan_contents contents = {.program = c.program, .decisions = "{\"schema_version\": 1}"};
    contents.links.input = NEW_ARRAY(arena, const struct placement *, g->inputs.count);
    for (uint32_t i = 0; i < g->inputs.count; i++)
        contents.links.input[i] = c.solution->result[c.graph->inputs.at[i].value];
    contents.links.output = c.solution->output;
    return contents;
}

static const char *program_text(struct arena *arena, const struct program *p)
{
    struct text t = {.arena = arena};
    program_print(p, &t);
    return t.at;
}

static void there_and_back(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct plan_contents c = contents_for(arena, model(arena, NULL, NULL), 2);
    struct diag loud = {0};
    assert_int_equal(plan_write(arena, "there.bin", &c, &loud), TPC_OK);
    struct plan *p = NULL;
    assert_int_equal(plan_read(arena, "there.bin", &loud, &p), TPC_OK);
    assert_string_equal(p->decisions, c.decisions);
    assert_int_equal(p->program->graph->files.count, 0);
    assert_string_equal(program_text(arena, p->program), program_text(arena, c.program));
    /* The same contents, the same bytes; nothing but the plan is left in the folder. */
    assert_int_equal(plan_write(arena, "again.bin", &c, &loud), TPC_OK);
    assert_int_equal(system("cmp there.bin again.bin && test -z \"$(ls -A | grep -E '^[.](there|again)')\""), 0);
    remove("there.bin");
    remove("again.bin");
    arena_free(arena);
}

static void weights_by_reference(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct diag loud = {0};
    (void)mkdir("model dir", 0777);
    (void)mkdir("plans", 0777);
    struct plan_contents c = contents_for(arena, model(arena, "model dir/weights.bin", "weights.bin"), 2);
    c.weight_folder = "model dir";
    assert_int_equal(plan_write(arena, "plans/p.bin", &c, &loud), TPC_OK);
    struct plan *p = NULL;
    const void *bytes = NULL;
    assert_int_equal(plan_read(arena, "plans/p.bin", &loud, &p), TPC_OK);
    assert_string_equal(p->folder, "plans/../model dir");
    struct weights *w = weights_new(arena, p->program->graph, p->folder);
    assert_int_equal(weights_param(w, 0, &loud, &bytes), TPC_OK);
    assert_memory_equal(bytes, numbers(arena, WIDE * IN), WIDE * IN * 4);
    /* The plan was moved alone: the file is found where it was. Both were moved: it is found beside the plan. */
    (void)mkdir("other", 0777);
    (void)mkdir("other/plans", 0777);
    assert_int_equal(rename("plans/p.bin", "other/plans/p.bin"), 0);
    assert_int_equal(plan_read(arena, "other/plans/p.bin", &loud, &p), TPC_OK);
    assert_int_equal(p->folder[0], '/');
    assert_int_equal(rename("model dir", "other/model dir"), 0);
    assert_int_equal(plan_read(arena, "other/plans/p.bin", &loud, &p), TPC_OK);
    assert_string_equal(p->folder, "other/plans/../model dir");
    w = weights_new(arena, p->program->graph, p->folder);
    assert_int_equal(weights_param(w, 0, &loud, &bytes), TPC_OK);
    /* Gone, and changed. */
    assert_int_equal(rename("other/model dir/weights.bin", "other/gone"), 0);
    assert_int_equal(plan_read(arena, "other/plans/p.bin", &loud, &p), TPC_OK);
    w = weights_new(arena, p->program->graph, p->folder);
    assert_int_equal(weights_param(w, 0, &quiet, &bytes), TPC_NOINPUT);
    assert_int_equal(rename("other/gone", "other/model dir/weights.bin"), 0);
    FILE *f = fopen("other/model dir/weights.bin", "r+b");
    fseek(f, 100, SEEK_SET);
    fputc('!', f);
    fclose(f);
    w = weights_new(arena, p->program->graph, p->folder);
    assert_int_equal(weights_param(w, 0, &quiet, &bytes), TPC_DATA);
    assert_int_equal(system("rm -r 'other' plans"), 0);
    arena_free(arena);
}

static void weights_embedded(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct diag loud = {0};
    struct plan_contents c = contents_for(arena, model(arena, "embed.weights", "embed.weights"), 3);
    c.embed_weights = true;
    assert_int_equal(plan_write(arena, "embed.bin", &c, &loud), TPC_OK);
    remove("embed.weights");
    struct plan *p = NULL;
    assert_int_equal(plan_read(arena, "embed.bin", &loud, &p), TPC_OK);
    assert_int_equal(p->program->graph->files.count, 0);
    for (uint32_t i = 0; i < p->program->graph->params.count; i++) {
        assert_int_equal(p->program->graph->params.at[i].file, NO_FILE);
        assert_memory_equal(p->program->graph->params.at[i].data, numbers(arena, WIDE * IN), WIDE * IN * 4);
    }
    remove("embed.bin");
    arena_free(arena);
}

static unsigned char *read_whole(struct arena *arena, const char *path, size_t *length)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    *length = (size_t)ftell(f);
    rewind(f);
    unsigned char *bytes = arena_alloc(arena, *length + 1);
    assert_int_equal(fread(bytes, 1, *length, f), *length);
    fclose(f);
    return bytes;
}

static void expect_refused(const unsigned char *bytes, size_t length)
{
    struct arena *arena = arena_new();
    struct plan *p = NULL;
    struct diag counting = {.sink = keep_line};
    assert_int_equal(plan_parse(arena, "p.bin", NULL, bytes, length, &counting, &p), TPC_DATA);
    assert_int_equal(counting.errors, 1);
    assert_null(p);
    arena_free(arena);
}

static void every_damage_is_refused(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct plan_contents c = contents_for(arena, model(arena, NULL, NULL), 2);
    size_t length = 0;
    struct diag loud = {0};
    assert_int_equal(plan_write(arena, "damage.bin", &c, &loud), TPC_OK);
    unsigned char *bytes = read_whole(arena, "damage.bin", &length);
    struct plan *p = NULL;
    assert_int_equal(plan_parse(arena, "p.bin", NULL, bytes, length, &loud, &p), TPC_OK);
    for (size_t i = 0; i < length; i++) {
        static const unsigned char masks[] = {1, 0x80, 0xff};
        for (size_t m = 0; m < 3; m++) {
            bytes[i] ^= masks[m];
            expect_refused(bytes, length);
            bytes[i] ^= masks[m];
        }
    }
    for (size_t n = 0; n < length; n++) {
        unsigned char *cut = malloc(n ? n : 1);
        memcpy(cut, bytes, n);
        expect_refused(cut, n);
        free(cut);
    }
    expect_refused(bytes, length + 1);
    bytes[8] = 2;
    expect_refused(bytes, length);
    assert_non_null(strstr(last_line, "version 2"));
    remove("damage.bin");
    arena_free(arena);
}

/* Contents that lie although all checksums are right: written with a section replaced. */
static void right_checksums_wrong_contents(void **state)
{
    (void)state;
    static const char *const links[] = {"input 0 = [",
                                        "input 9 = [batch, 12]",
                                        "weights \"x\"",
                                        "nonsense",
                                        "input 0 = [batch, 12 @ 77]",
                                        "input 0 = [batch, 13]",
                                        "output 0 = [batch ; 2, 12]",
                                        "input 0 = [other, 12]",
                                        "input 0 = [batch, 12] input 0 = [batch, 12]"};
    struct arena *arena = arena_new();
    struct diag loud = {0};
    struct plan_contents c = contents_for(arena, model(arena, NULL, NULL), 2);
    struct links l;
    struct plan_place place;
    for (size_t i = 0; i < sizeof links / sizeof *links; i++)
        assert_int_equal(links_parse(arena, "links", links[i], strlen(links[i]), c.program, &quiet, &l, &place),
                         TPC_DATA);
    assert_int_equal(links_parse(arena, "links", "", 0, c.program, &loud, &l, &place), TPC_OK);
    arena_free(arena);
}

static void bad_places(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct plan_contents c = contents_for(arena, model(arena, NULL, NULL), 2);
    struct plan *p = NULL;
    assert_int_equal(plan_write(arena, "/no/such/folder/p.bin", &c, &quiet), TPC_NOINPUT);
    assert_int_equal(plan_write(arena, "/dev/null", &c, &quiet), TPC_IO);
    assert_int_equal(plan_write(arena, ".", &c, &quiet), TPC_IO);
    assert_int_equal(plan_read(arena, "no such.bin", &quiet, &p), TPC_NOINPUT);
    assert_int_equal(plan_read(arena, "/dev/zero", &quiet, &p), TPC_DATA);
    assert_int_equal(plan_read(arena, ".", &quiet, &p), TPC_DATA);
    arena_free(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(there_and_back),
        cmocka_unit_test(weights_by_reference),
        cmocka_unit_test(weights_embedded),
        cmocka_unit_test(every_damage_is_refused),
        cmocka_unit_test(right_checksums_wrong_contents),
        cmocka_unit_test(bad_places),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
