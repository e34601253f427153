/* ir/output.c - see output.h. */
#include "ir/output.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void forget(struct output_file *out)
{
    free(out->target);
    free(out->temporary);
    *out = (struct output_file){.path = out->path};
}

status output_open(const char *path, struct diag *diag, struct output_file *out)
{
    struct stat st;
    char *target = realpath(path, NULL); /* NULL: nothing is there yet */
    bool direct = stat(path, &st) == 0 && !S_ISREG(st.st_mode);
    *out = (struct output_file){.path = path, .target = target ? target : strdup(path)};
    if (!out->target)
        guard_out_of_memory(0);
    if (!direct) {
        size_t length = strlen(out->target) + sizeof ".tmp." + 20;
        out->temporary = malloc(length);
        if (!out->temporary)
            guard_out_of_memory(length);
        snprintf(out->temporary, length, "%s.tmp.%ld", out->target, (long)getpid());
    }
    out->to = fopen(direct ? path : out->temporary, "wb");
    if (out->to)
        return TPC_OK;
    int why = errno;
    forget(out);
    return diag_error(diag, TPC_IO, path, "cannot write: %s", strerror(why));
}

status output_close(struct output_file *out, bool good, struct diag *diag)
{
    good = good && fflush(out->to) == 0;
    int why = errno;
    if (fclose(out->to) != 0 && good) {
        why = errno;
        good = false;
    }
    if (good && out->temporary && rename(out->temporary, out->target) != 0) {
        why = errno;
        good = false;
    }
    if (!good && out->temporary)
        (void)unlink(out->temporary);
    forget(out);
    return good ? TPC_OK : diag_error(diag, TPC_IO, out->path, "cannot write: %s", strerror(why));
}
