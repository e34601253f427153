/* runtime/plan.h - the plan file (docs/plan-file.md): a Program, what was decided, where the weights are, and checksums of all of it.
 *
 * Invariant: a plan that was read is, byte for byte, what was written: each byte is under a checksum or must be zero. What it says is
 * still checked: it is data from outside.
 *
 * Sections: plan_write.c, plan_read.c, plan_links.c (the LINKS section)
 */
#ifndef TPC_RUNTIME_PLAN_H
#define TPC_RUNTIME_PLAN_H

#include "ir/placement.h"
#include "ir/program.h"

enum { PLAN_VERSION = 1 };

/* How an input or output lies on the ranks: NULL is whole. */
struct links {
    const struct placement **input, **output; /* per graph->inputs, graph->outputs */
};

struct plan {
    struct program *program;
    struct links links;
    const char *decisions; /* the JSON document of `tpc dump --json`; terminated */
    size_t decisions_length;
    const char *folder; /* that paths of weight files start from: the model's, as found from where the plan is now */
    uint64_t hash;      /* of all that the file says: equal plans have equal ones */
};

struct plan_contents {
    const struct program *program;
    struct links links; /* arrays may be NULL: all whole */
    const char *decisions;
    const char
        *weight_folder; /* that graph->files' paths start from: the model's; "" or NULL is the working directory */
    bool embed_weights;
};

/* Writes a temporary file beside `path` and renames it: either the old file or a whole new one is there. `arena` is for scratch. */
status plan_write(struct arena *arena, const char *path, const struct plan_contents *contents, struct diag *diag);
/* The file stays mapped until `arena` is freed. TPC_NOINPUT, TPC_IO, TPC_DATA with one line. */
status plan_read(struct arena *arena, const char *path, struct diag *diag, struct plan **out);
/* The same from memory, which must stay until `arena` is freed. `folder`: the plan's; NULL: look for no files. */
status plan_parse(struct arena *arena, const char *name, const char *folder, const void *bytes, size_t length,
                  struct diag *diag, struct plan **out);

/* ---- between the files of the plan -------------------------------------------------------------------------------- */

enum plan_section { SECTION_PROGRAM, SECTION_LINKS, SECTION_DECISIONS, SECTION_DATA, SECTIONS };
enum {
    PLAN_HEADER = 64,
    PLAN_ENTRY = 32,
    PLAN_TABLE = PLAN_HEADER + SECTIONS * PLAN_ENTRY,
    PLAN_ALIGNMENT = 64,
    PLAN_HASH_AT = 24
};
extern const unsigned char plan_magic[8];
extern const char *const plan_section_names[SECTIONS];
/* Of the header and the table, all but the hash itself. */
uint64_t plan_table_hash(const unsigned char table[PLAN_TABLE]);

static inline void put_little(unsigned char *to, uint64_t x, int bytes)
{
    for (int i = 0; i < bytes; i++)
        to[i] = (unsigned char)(x >> 8 * i);
}
static inline uint64_t get_little(const unsigned char *from, int bytes)
{
    uint64_t x = 0;
    for (int i = 0; i < bytes; i++)
        x |= (uint64_t)from[i] << 8 * i;
    return x;
}

/* Where the model's folder is: seen from the plan's, and absolutely. Both NULL: nothing is referred to. */
struct plan_place {
    const char *relative, *absolute;
};
void links_print(const struct program *p, const struct links *links, const struct plan_place *place, struct text *out);
status links_parse(struct arena *arena, const char *name, const char *text, size_t length, const struct program *p,
                   struct diag *diag, struct links *links, struct plan_place *place);

#endif
