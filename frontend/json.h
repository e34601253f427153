/* frontend/json.h - JSON trees that end with an arena, so that an unwinding for want of memory leaves none behind. */
#ifndef TPC_FRONTEND_JSON_H
#define TPC_FRONTEND_JSON_H

#include "ir/base.h"

#include <cjson/cJSON.h>

/* The tree is deleted with the arena. NULL stays NULL. */
cJSON *json_keep(struct arena *arena, cJSON *root);
/* An empty object. */
cJSON *json_object(struct arena *arena);
/* The tree as text, which lives as long as the arena. */
const char *json_text(struct arena *arena, const cJSON *root);

#endif
