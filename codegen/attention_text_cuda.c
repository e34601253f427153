/* codegen/attention_text_cuda.c - what the functions of attention on CUDA have in common: their arguments, how a row is found, the expression of a score, and
 * how tiles of keys and rows of q come to shared memory.
 *
 * A function's text is a form (struct cuda_attention_form) around what is printed for the kernel. Start at cuda_add_attention.
 */
#include "codegen/cuda_impl.h"

static const char head_form[] =
    "struct $N_arguments {\n"
    "    const $E *q, *k, *v;\n"
    "    $E *out;\n"
    "    float *part; /* [tile of rows][split][row]: $P floats: result, maximum, sum; where there are several splits "
    "*/\n"
    "    int64_t q_offset, k_offset, v_offset, out_offset;\n"
    "    struct {\n"
    "        int64_t extent, by_extent, inner, outer; /* strides of q and k; of out and v */\n"
    "    } first[$A], second[$B]; /* rows, outermost first */\n"
    "    int64_t q_step, k_step, v_step, out_step, k_next, v_next;\n"
    "    int64_t items, group, tiles, keys, splits, per_split; /* items: tiles of rows x splits */\n"
    "    int64_t by_splits, by_tiles;\n";

static const char locate_text[] =
    "/* Moves two places to row `at`. */\n"
    "#define LOCATE(axes, count, at, to_inner, to_outer) \\\n"
    "    for (int a = (count) - 1; a >= 0; a--) { \\\n"
    "        const uint32_t rest = a ? tpc_divide(at, arguments.axes[a].by_extent) : 0; \\\n"
    "        const int64_t i = at - rest * (uint32_t)arguments.axes[a].extent; \\\n"
    "        at = rest; \\\n"
    "        to_inner += i * arguments.axes[a].inner; \\\n"
    "        to_outer += i * arguments.axes[a].outer; \\\n"
    "    }\n";

/* LOCATE_ROW: q_at, k_at, v_at and out_at, moved to `row`. Where both products have the same axes, what is known of extents and strides is in the text. */
static void print_locate_row(const struct cuda_set *set, const struct cuda_attention *a, struct text *out)
{
    const struct dot *first = set->program->steps.at[a->scores].dot, *second = set->program->steps.at[a->product].dot;
    const struct dims *t = set->program->graph->dims;
    if (!a->alike) {
        text_printf(out,
                    "#define LOCATE_ROW \\\n    uint32_t at_first = row, at_second = row; \\\n"
                    "    LOCATE(first, %u, at_first, q_at, k_at) \\\n    LOCATE(second, %u, at_second, out_at, v_at)\n",
                    (unsigned)(cuda_rows_axes(first) ? cuda_rows_axes(first) : 1),
                    (unsigned)(cuda_rows_axes(second) ? cuda_rows_axes(second) : 1));
        return;
    }
    text_put(out, "#define LOCATE_ROW { \\\n    uint32_t rest, i, at = row; \\\n");
    for (uint32_t x = cuda_rows_axes(first); x-- > 0;) {
        const struct {
            const char *place, *member;
            dim stride;
        } moved[] = {{"q_at", "first", first->stride[0][x]},
                     {"k_at", "first", first->stride[1][x]},
                     {"out_at", "second", second->stride[2][x]},
                     {"v_at", "second", second->stride[1][x]}};
        int64_t extent = 0, stride;
        bool known = dim_is_const(t, first->extent[x], &extent);
        if (extent == 1)
            continue;
        if (x == 0)
            text_put(out, "    rest = 0; \\\n");
        else if (known)
            text_printf(out, "    rest = at / %lluu; \\\n", (unsigned long long)extent);
        else
            text_printf(out, "    rest = tpc_divide(at, arguments.first[%u].by_extent); \\\n", (unsigned)x);
        text_printf(out, "    i = at - rest * (uint32_t)%s; \\\n    at = rest; \\\n",
                    known ? arena_printf(out->arena, "%lluu", (unsigned long long)extent)
                          : arena_printf(out->arena, "arguments.first[%u].extent", (unsigned)x));
        for (size_t k = 0; k < sizeof moved / sizeof moved[0]; k++) {
            bool fixed = dim_is_const(t, moved[k].stride, &stride);
            if (fixed && stride != 0)
                text_printf(out, "    %s += (int64_t)i * %lld; \\\n", moved[k].place, (long long)stride);
            else if (!fixed)
                text_printf(out, "    %s += (int64_t)i * arguments.%s[%u].%s; \\\n", moved[k].place, moved[k].member,
                            (unsigned)x, k % 2 ? "outer" : "inner");
        }
    }
    text_put(out, "    (void)at; }\n");
}

/* Coordinates of `row`, of which there are fewer than 2^31. */
static void print_coordinates(struct printer *p)
{
    const struct nest *n = p->nest;
    int64_t extent;
    if (n->points > 1)
        print_line(p, "uint32_t rest = row, more;");
    for (uint32_t i = n->points; i-- > 1;) {
        unsigned axis = (unsigned)n->point[i];
        if (dim_is_const(n->dims, n->kernel->extent[n->point[i]], &extent) && extent > 0)
            print_line(p, "more = rest / %lluu;", (unsigned long long)extent);
        else
            print_line(p, "more = tpc_divide(rest, arguments.by_point[%u]);", (unsigned)i);
        print_line(p, "const int64_t c%u = rest - more * (uint32_t)n%u;", axis, axis);
        print_line(p, "rest = more;");
    }
    if (n->points)
        print_line(p, "const int64_t c%u = %s;", (unsigned)n->point[0], n->points > 1 ? "rest" : "row");
}

/* [wide or not]: tiles of $K keys in shared memory, for $G rows. */
const char *const cuda_attention_stage_form[2] = {
    "/* Keys (or values) from `first` on into shared memory; zeros behind the last. */\n"
    "static __device__ inline void stage($E *to, const $E *from, int first, int stop, int64_t next, int64_t step,\n"
    "                                    int width, int pitch)\n"
    "{\n"
    "    for (int i = threadIdx.x; i < $K * width; i += $M) {\n"
    "        const int key = next == 1 ? i % $K : i / width, d = next == 1 ? i / $K : i % width;\n"
    "        to[key * pitch + d] = first + key < stop ? __ldg(from + (int64_t)(first + key) * next + d * step) : "
    "($E)0;\n"
    "    }\n"
    "}\n"
    "/* $G rows per block; keys and values $K at a time. */\n",
    "/* Keys (or values) from `first` on into shared memory; zeros behind the last. A thread has every so many chunks "
    "of 16 bytes of a key. */\n"
    "static __device__ inline void stage($E *to, const $E *from, int first, int stop, int64_t next, int64_t step,\n"
    "                                    int width, int pitch)\n"
    "{\n"
    "    const int chunks = width / $V, threads = $M / chunks; /* per key; keys at once */\n"
    "    const int thread = tpc_thread(), own = thread / chunks, d = thread % chunks * $V;\n"
    "    const int count = stop - first < $K ? stop - first : $K;\n"
    "    const $E *at = from + (int64_t)(first + own) * next + d;\n"
    "    to += own * pitch + d;\n"
    "    if ($M % chunks == 0 && $K % threads == 0 && count == $K) { /* nothing to ask */\n"
    "        UNROLL for (int key = 0; key < $K; key += threads, at += threads * next)\n"
    "            tpc_copy_async_16(to + key * pitch, at, true);\n"
    "        return;\n"
    "    }\n"
    "    ROLLED for (int key = 0; key < $K; key += threads, at += threads * next)\n"
    "        if (own < threads && key + own < $K)\n"
    "            tpc_copy_async_16(to + key * pitch, at, key + own < count);\n"
    "}\n"
    "/* $G rows per block; keys and values $K at a time, copied 16 bytes per access. */\n"};

/* Items in the order of their tiles, from the last, so that what takes longest under a causal mask begins first, and neighbours, which may share keys, run together. */
const char cuda_attention_items_form[] =
    "    for (uint32_t item = blockIdx.x; item < (uint32_t)arguments.items; item += gridDim.x) {\n"
    "        const uint32_t groups = (uint32_t)arguments.items / (uint32_t)arguments.tiles, group = item % groups;\n"
    "        const uint32_t in_group = ((uint32_t)arguments.tiles - 1 - item / groups) * $G;\n"
    "        const uint32_t here = (uint32_t)arguments.group - in_group;\n"
    "        const uint32_t base = group * (uint32_t)arguments.group + in_group;\n"
    "        int64_t k_at = arguments.k_offset, v_at = arguments.v_offset;\n";

static void no_accumulator(struct printer *p, uint32_t i)
{
    (void)p;
    (void)i;
}

/* rounded: a product as it would be in memory, where there is more than `product`. */
static void print_staged(struct printer *p, const struct cuda_attention *a, const char *rounded)
{
    const struct instruction *load = &p->nest->kernel->instruction[a->load];
    struct text element = {.arena = p->arena};
    if (!rounded)
        p->dialect->store(&element, load->type, "product");
    p->staged[a->load] = rounded ? rounded : element.at;
}

/* What the softmax is of, from `product`, in the kernel's coordinates, into `score`. mask: whose conditions on a key are known, or NULL. */
static void print_score(struct printer *p, const struct cuda_attention *a, const struct cuda_mask *mask)
{
    print_indices(p, nest_fast_depth(p->nest), 0);
    if (mask) {
        cuda_attention_print_masked(p, mask, a->score);
        return;
    }
    print_values(p, nest_fast_depth(p->nest), 0);
    print_line(p, "score = (float)%s;", print_value(p, (uint32_t)a->score));
}

static const char *sink_text(const struct printer *p, const struct cuda_attention *a)
{
    return a->sink >= 0 ? arena_printf(p->arena, "(float)%s", print_value(p, (uint32_t)a->sink)) : "-INFINITY";
}

/* What is known with a row, or of all rows of a thread: among it whether it gives 0 whatever the scores are. */
static void print_row(struct printer *p, const struct cuda_attention *a, const struct cuda_attention_form *form,
                      const struct cuda_letters *l)
{
    const struct nest *n = p->nest;
    const char *zero = a->zero >= 0 ? print_value(p, (uint32_t)a->zero) : "false", *sink = sink_text(p, a);
    p->indent = 2;
    if (form->rows) {
        print_line(p, "int64_t coordinate[%u][%d];", (unsigned)(n->points ? n->points : 1), form->row_count);
        print_line(p, "bool zero[%d];", form->row_count);
        print_line(p, "float sink[%d];", form->row_count);
        cuda_fill(p->out, form->rows, l);
    }
    p->indent = form->row_indent;
    if (form->rows)
        cuda_print_coordinates(p, n->point, n->points, "row");
    else
        print_coordinates(p);
    if (!form->rows || a->zero >= 0 || a->sink >= 0) {
        print_indices(p, DEPTH_POINT, 0);
        print_values(p, DEPTH_POINT, 0);
    }
    for (uint32_t i = 0; i < n->points && form->rows; i++)
        print_line(p, "coordinate[%u][own] = c%u;", (unsigned)i, (unsigned)n->point[i]);
    print_line(p, form->rows ? "zero[own] = %s;" : "const bool zero = %s;", zero);
    print_line(p, form->rows ? "sink[own] = %s;" : "const float sink = %s;", sink);
    text_put(p->out, form->rows ? "        }\n" : "");
}

/* The same in shared memory, by a thread for row `r`; NULL where the form keeps rows otherwise. */
static const char *place_of(struct printer *p, const struct cuda_attention *a, const struct cuda_attention_form *form)
{
    const struct nest *n = p->nest;
    struct text out = {.arena = p->arena};
    if (!form->place)
        return NULL;
    text_put(&out, form->place);
    for (uint32_t i = 0; i < n->points; i++)
        text_printf(&out, "                coordinate[%u][r] = (uint32_t)c%u;\n", (unsigned)i, (unsigned)n->point[i]);
    if (a->sink >= 0)
        text_printf(&out, "                sink_of[r] = %s;\n", sink_text(p, a));
    text_printf(&out, "                zero_of[r] = %s;\n            }\n",
                a->zero >= 0 ? print_value(p, (uint32_t)a->zero) : "false");
    return out.at;
}

/* Coordinates of row `own` of a thread, and what is known with them. Those of the first `axes` are of all rows. */
static void print_own(struct printer *p, const char *own, uint32_t axes)
{
    const struct nest *n = p->nest;
    for (uint32_t i = 0; i < n->points; i++)
        print_line(p, "const int64_t c%u = coordinate[%u][%s];", (unsigned)n->point[i], (unsigned)i,
                   i < axes ? "0" : own);
    print_indices(p, DEPTH_POINT, 0);
    print_values(p, DEPTH_POINT, 0);
}

/* What the softmax is of, where neither the end of the keys nor a condition is near. */
static void print_plain(struct printer *p, const struct cuda_attention_form *form, const struct cuda_mask *mask,
                        const struct cuda_letters *l)
{
    cuda_fill(p->out, form->plain, l);
    p->indent = form->element_indent + 1;
    print_own(p, "r", mask->axes);
    cuda_fill(p->out, form->element, l);
    p->indent = form->score_indent + 1;
    print_indices(p, nest_fast_depth(p->nest), 0);
    cuda_attention_print_plain(p, mask);
    cuda_fill(p->out, form->otherwise, l);
}

static void print_main(struct cuda_set *set, const struct cuda_attention *a, const struct cuda_attention_form *form,
                       const struct cuda_mask *mask, const struct cuda_letters *l, const struct nest *n,
                       struct text *out)
{
    struct dialect d = dialect_cuda_of(n->kernel);
    d.accumulate = no_accumulator;
    struct printer p = {.nest = n, .dialect = &d, .arena = set->arena, .out = out};
    bool *skip = NEW_ARRAY(set->arena, bool, n->kernel->buffer_count + 1);
    skip[a->from] = skip[a->to] = true;
    p.index_of = NEW_ARRAY(set->arena, uint32_t, n->kernel->instruction_count + 1);
    p.staged = NEW_ARRAY(set->arena, const char *, n->kernel->instruction_count + 1);
    cuda_fill(out, head_form, l);
    p.indent = 1;
    print_line(&p, "int64_t by_point[%u];", (unsigned)(n->points ? n->points : 1));
    cuda_print_members(&p, skip);
    text_put(out, "};\n");
    text_put(out, locate_text);
    if (!form->tiles)
        print_locate_row(set, a, out);
    cuda_fill(out, form->functions, l);
    cuda_fill(out, arena_printf(set->arena, "ENTRY_EARLY_OF($N, %u, %d)\n{\n", form->threads, form->blocks), l);
    cuda_print_locals(&p, skip);
    if (form->tiles)
        print_line(&p, "const bool sinks = %s;", a->sink >= 0 ? "true" : "false");
    cuda_fill(out, form->start, l);
    p.indent = 2;
    print_indices(&p, DEPTH_ENTRY, 0);
    print_values(&p, DEPTH_ENTRY, 0);
    if (form->tiles) {
        cuda_attention_print_range(&p, mask, l, place_of(&p, a, form));
        cuda_fill(out, form->fetch, l);
    }
    if (!form->place)
        print_row(&p, a, form, l);
    if (!form->tiles)
        cuda_attention_print_seen(&p, mask, form->align, l);
    cuda_fill(out, form->loop, l);
    print_staged(&p, a, form->rounded);
    if (form->plain) {
        cuda_attention_print_look(&p, mask, l);
        cuda_fill(out, form->copies, l);
        cuda_attention_print_bits(&p, mask, l);
        cuda_fill(out, form->products, l);
        print_plain(&p, form, mask, l);
    }
    if (form->element) {
        p.indent = form->element_indent;
        print_own(&p, form->rows ? "own" : "r", form->rows ? 0 : mask->axes);
        cuda_fill(out, form->element, l);
    }
    p.indent = form->score_indent;
    print_score(&p, a, form->place ? mask : NULL);
    cuda_fill(out, form->end, l);
    if (form->out)
        cuda_fill(out, form->out, l);
    cuda_fill(out, "        __syncthreads(); /* before the next rows */\n    }\n", l);
    p.indent = 1;
    cuda_print_fault_reports(&p);
    text_put(out, "}\n");
}

static void put_number(struct cuda_set *set, struct cuda_letters *l, char letter, int64_t number)
{
    l->of[letter - 'A'] = cuda_number(set->arena, number);
}

static struct cuda_letters letters_of(struct cuda_set *set, const struct cuda_attention *a,
                                      const struct cuda_mask *mask)
{
    const struct step *first = &set->program->steps.at[a->scores], *second = &set->program->steps.at[a->product];
    const struct dialect d = dialect_cuda();
    struct cuda_letters l = {0};
    int64_t key = 0, row = 0;
    dtype t = set->program->buffers.at[second->arg[2]].type;
    (void)cuda_attention_widths(set, a, &key, &row);
    l.of['E' - 'A'] = d.element[t];
    l.of['Z' - 'A'] = a->nan_is_zero ? "x != x ? 0.0f : x" : "x";
    put_number(set, &l, 'A', cuda_rows_axes(first->dot) ? cuda_rows_axes(first->dot) : 1);
    put_number(set, &l, 'B', cuda_rows_axes(second->dot) ? cuda_rows_axes(second->dot) : 1);
    put_number(set, &l, 'C', set->kernel[set->program->steps.at[a->softmax].kernel].nest.loop[0]);
    put_number(set, &l, 'D', key);
    put_number(set, &l, 'W', row);
    uint32_t points = set->kernel[set->program->steps.at[a->softmax].kernel].nest.points;
    put_number(set, &l, 'Q', points ? points : 1);
    put_number(set, &l, 'P', cuda_attention_pitch(row));
    put_number(set, &l, 'R', mask->finite ? 3 : 1);
    l.of['F' - 'A'] = mask->finite && mask->steady ? "true" : "false";
    l.of['O' - 'A'] = arena_printf(set->arena, "(%.9ef)", mask->least);
    return l;
}

static struct cuda_attention_form form_of(struct cuda_set *set, struct cuda_letters *l, int form, dtype t, dtype scores,
                                          const struct cuda_mask *mask, int64_t key, int64_t row)
{
    if (form == CUDA_ATTENTION_FEW_MATRIX)
        return cuda_attention_narrow(set, l, t, key, row);
    if (form <= CUDA_ATTENTION_FEW || form == CUDA_ATTENTION_FEW_ACROSS)
        return cuda_attention_few(set, l, t, form, key, row);
    return t == DT_F32
               ? cuda_attention_many(set, l, form == CUDA_ATTENTION_MANY_WIDE, key, row)
               : cuda_attention_matrix(set, l, t, form == CUDA_ATTENTION_MANY_WIDE, scores == t, mask, key, row);
}

/* May the form be of use, for some shapes? */
static bool may_take(const struct cuda_attention *a, int form, dtype t, int64_t key, int64_t row)
{
    bool wide = cuda_attention_may_be_wide(t, key, row), narrow = cuda_attention_may_be_narrow(t, key, row);
    switch (form) {
    case CUDA_ATTENTION_FEW:
        return true;
    case CUDA_ATTENTION_FEW_ACROSS:
        return wide && a->across;
    case CUDA_ATTENTION_FEW_MATRIX:
        return narrow && !a->across;
    case CUDA_ATTENTION_MANY:
        return true;
    case CUDA_ATTENTION_MANY_WIDE:
        return wide && !a->across;
    default:
        return wide && !a->across && !narrow;
    }
}

void cuda_add_attention(struct cuda_set *set, struct cuda_attention *a)
{
    const struct program *p = set->program;
    const struct step *softmax = &p->steps.at[a->softmax], *product = &p->steps.at[a->product];
    const struct nest *n = &set->kernel[softmax->kernel].nest;
    const struct cuda_mask mask = cuda_attention_mask(n, a->score, a->load, set->arena);
    dtype t = p->buffers.at[product->arg[2]].type;
    char kernel[KERNEL_NAME];
    a->axes = mask.axes;
    kernel_name(n->kernel, p->graph->dims, set->arena, kernel);
    const struct dot *d = p->steps.at[a->scores].dot;
    uint32_t axes = cuda_rows_axes(d);
    a->across = dim_is(p->graph->dims, d->stride[1][axes], 1) && !dim_is(p->graph->dims, d->stride[1][axes + 1], 1);
    a->steady = mask.steady;
    for (int i = 0; i < CUDA_ATTENTION_FORMS; i++) {
        struct cuda_letters l = letters_of(set, a, &mask);
        int64_t key = 0, row = 0;
        (void)cuda_attention_widths(set, a, &key, &row);
        if (!may_take(a, i, t, key, row))
            continue;
        struct cuda_attention_form form = form_of(set, &l, i, t, n->kernel->instruction[a->load].type, &mask, key, row);
        struct text body = {.arena = set->arena};
        l.of['N' - 'A'] =
            arena_printf(set->arena, "tpc_attention_%s_%s_%s_%s_%s_%s_%s", form.name, kernel + 6, dtype_name(t),
                         l.of['D' - 'A'], l.of['W' - 'A'], l.of['A' - 'A'], l.of['B' - 'A']);
        cuda_put_element(&body, t);
        print_main(set, a, &form, &mask, &l, n, &body);
        a->rows[i] = form.group;
        a->bytes[i] = form.bytes;
        a->function[i] = cuda_add(set, l.of['N' - 'A'], body.at, form.threads, product->node);
    }
}
