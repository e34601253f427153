/* frontend/read.c - whole small files, from untrusted places. */
#include "frontend/read.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* Opened without waiting, since a pipe has perhaps no writer. */
static status open_regular(const char *path, const char *what, struct diag *diag, int *out)
{
    struct stat facts;
    *out = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (*out < 0) {
        return diag_error(diag, errno == ENOENT ? TPC_NOINPUT : TPC_IO, path, "cannot open: %s", strerror(errno));
    }
    if (fstat(*out, &facts) == 0 && S_ISREG(facts.st_mode)) {
        return TPC_OK;
    }
    close(*out);
    return diag_error(diag, TPC_DATA, path, "%s must be a regular file", what);
}

status read_small_file(const char *path, size_t limit, const char *what, struct diag *diag, struct text *out)
{
    char part[4096];
    size_t before = out->length;
    ssize_t n = 0;
    int file = -1;
    status s = open_regular(path, what, diag, &file);
    if (s != TPC_OK) {
        return s;
    }
    while (out->length - before <= limit && (n = read(file, part, sizeof part)) > 0) {
        text_putn(out, part, (size_t)n);
    }
    close(file);
    if (n < 0) {
        return diag_error(diag, TPC_IO, path, "cannot read: %s", strerror(errno));
    }
    if (out->length - before > limit) {
        return diag_error(diag, TPC_DATA, path, "%s may have %zu bytes at most", what, limit);
    }
    return TPC_OK;
}
