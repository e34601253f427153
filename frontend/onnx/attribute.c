/* frontend/onnx/attribute.c - a node's attributes by name, through a function's references and defaults. */
#include "frontend/onnx/import.h"

static const Onnx__AttributeProto *find(size_t count, Onnx__AttributeProto *const *list, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (list[i]->name && strcmp(list[i]->name, name) == 0)
            return list[i];
    return NULL;
}

const Onnx__AttributeProto *attribute(struct call *c, const char *name)
{
    const Onnx__AttributeProto *a = find(c->proto->n_attribute, c->proto->attribute, name);
    if (!a || !a->ref_attr_name || !*a->ref_attr_name)
        return a;
    const struct frame *f = c->frame;
    const Onnx__AttributeProto *given = find(f->attribute_count, f->attribute, a->ref_attr_name);
    return given ? given : find(f->default_count, f->defaults, a->ref_attr_name);
}

int64_t attribute_int(struct call *c, const char *name, int64_t fallback)
{
    const Onnx__AttributeProto *a = attribute(c, name);
    return a ? a->i : fallback;
}

double attribute_real(struct call *c, const char *name, double fallback)
{
    const Onnx__AttributeProto *a = attribute(c, name);
    return a ? (double)a->f : fallback;
}

const char *attribute_text(struct call *c, const char *name, const char *fallback)
{
    const Onnx__AttributeProto *a = attribute(c, name);
    return a ? arena_strndup(c->im->scratch, (const char *)a->s.data, a->s.len) : fallback;
}

const int64_t *attribute_ints(struct call *c, const char *name, uint32_t *count)
{
    static const int64_t none = 0;
    const Onnx__AttributeProto *a = attribute(c, name);
    if (!a)
        return NULL;
    if (a->n_ints > MAX_RANK * MAX_RANK)
        call_fail(c, "attribute '%s' has %zu numbers, which is too many", name, a->n_ints);
    *count = (uint32_t)a->n_ints;
    return a->n_ints ? a->ints : &none;
}

const float *attribute_reals(struct call *c, const char *name, uint32_t *count)
{
    const Onnx__AttributeProto *a = attribute(c, name);
    if (!a || a->n_floats > UINT32_MAX)
        return NULL;
    *count = (uint32_t)a->n_floats;
    return a->floats;
}
