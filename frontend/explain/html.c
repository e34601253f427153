/* frontend/explain/html.c - one self-contained page: page.html with the plan's document and its folds in their places.
 *
 * The page fetches nothing (its content policy forbids it), and shows what the document says as text only. JSON inside of a page must not end its
 * script element, so `<` is written as an escape. Start with explain_html.
 */
#include "frontend/explain/explain.h"
#include "frontend/explain/page.h" /* made of page.html by the build: page_html, ended by a zero */

static void put_json(struct text *out, const char *json, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (json[i] == '<') {
            text_put(out, "\\u003c");
        } else {
            text_putn(out, &json[i], 1);
        }
    }
}

static void put_folds(const struct document *d, struct text *out)
{
    fold_list folds = fold_layers(d);
    text_put(out, "[");
    for (uint32_t i = 0; i < folds.count; i++) {
        text_printf(out, "%s{\"first\":%u,\"period\":%u,\"repeat\":%u}", i == 0 ? "" : ",", folds.at[i].first,
                    folds.at[i].period, folds.at[i].repeat);
    }
    text_put(out, "]");
}

void explain_html(const struct document *d, struct text *out)
{
    static const char plan[] = "@PLAN@", folds[] = "@FOLDS@";
    const char *page = (const char *)page_html, *at = strstr(page, plan), *behind = strstr(page, folds);
    text_putn(out, page, (size_t)(at - page));
    put_json(out, d->text, d->length);
    at += sizeof plan - 1;
    text_putn(out, at, (size_t)(behind - at));
    put_folds(d, out);
    text_put(out, behind + sizeof folds - 1);
}
