/* frontend/json.c - JSON trees owned by arenas. */
#include "frontend/json.h"

static void free_tree(void *root)
{
    cJSON_Delete(root);
}

cJSON *json_keep(struct arena *arena, cJSON *root)
{
    if (root != NULL) {
        arena_defer(arena, free_tree, root);
    }
    return root;
}

cJSON *json_object(struct arena *arena)
{
    cJSON *root = json_keep(arena, cJSON_CreateObject());
    if (root == NULL) {
        guard_out_of_memory(0);
    }
    return root;
}

const char *json_text(struct arena *arena, const cJSON *root)
{
    char *text = cJSON_Print(root);
    if (text == NULL) {
        guard_out_of_memory(0);
    }
    arena_defer(arena, cJSON_free, text);
    return text;
}
