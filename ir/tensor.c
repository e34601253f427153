/* ir/tensor.c - dense arrays: sizes and comparison. */
#include "ir/tensor.h"

#include <math.h>

bool tensor_shape(struct tensor *t, dtype type, uint32_t rank, const int64_t *shape)
{
    struct tensor r = {.dtype = type, .rank = rank, .count = 1};
    bool empty = false;
    size_t bytes;
    for (uint32_t a = 0; a < rank; a++) {
        r.shape[a] = shape[a];
        empty = empty || shape[a] == 0;
        if (shape[a] < 0 || (shape[a] > 0 && !size_mul(r.count, (size_t)shape[a], &r.count))) {
            return false;
        }
    }
    if (!size_mul(r.count, 8, &bytes) || bytes > PTRDIFF_MAX) {
        return false;
    }
    r.count = empty ? 0 : r.count;
    *t = r;
    return true;
}

bool tensor_new(struct arena *arena, struct tensor *t, dtype type, uint32_t rank, const int64_t *shape)
{
    if (!tensor_shape(t, type, rank, shape)) {
        return false;
    }
    t->data = arena_alloc(arena, tensor_bytes(t));
    return true;
}

const char *tensor_type_text(const struct tensor *t, struct arena *arena)
{
    struct text s = {.arena = arena};
    for (uint32_t a = 0; a < t->rank; a++) {
        text_printf(&s, "%lldx", (long long)t->shape[a]);
    }
    text_put(&s, dtype_name(t->dtype));
    return s.at;
}

static double gap(const struct tensor *got, const struct tensor *wanted, size_t i, double *g, double *w)
{
    if (!dtype_is_float(wanted->dtype)) {
        int64_t a = dtype_load_i64(got->dtype, got->data, i), b = dtype_load_i64(wanted->dtype, wanted->data, i);
        *g = (double)a;
        *w = (double)b;
        double d = fabs((double)a - (double)b);
        return a != b && d == 0 ? 1 : d;
    }
    *g = dtype_load_f64(got->dtype, got->data, i);
    *w = dtype_load_f64(wanted->dtype, wanted->data, i);
    if (*g == *w || (isnan(*g) && isnan(*w))) {
        return 0;
    }
    double d = fabs(*g - *w);
    return isfinite(d) ? d : INFINITY;
}

bool tensor_compare(const struct tensor *got, const struct tensor *wanted, double rtol, double atol,
                    struct difference *d)
{
    *d = (struct difference){0};
    bool same = got->dtype == wanted->dtype && got->rank == wanted->rank;
    for (uint32_t a = 0; same && a < got->rank; a++) {
        same = got->shape[a] == wanted->shape[a];
    }
    if (!same) {
        d->count = SIZE_MAX;
        return false;
    }
    for (size_t i = 0; i < wanted->count; i++) {
        double g, w, e = gap(got, wanted, i, &g, &w), magnitude = fabs(w);
        if (isfinite(magnitude) && magnitude > d->largest) {
            d->largest = magnitude;
        }
        d->count += e > 0 && !(e <= atol + rtol * magnitude) ? 1 : 0;
        if (e > d->worst || (e > 0 && d->worst == 0)) {
            d->worst = e;
            d->at = i;
            d->got = g;
            d->wanted = w;
        }
    }
    return d->count == 0;
}
