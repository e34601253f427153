/* tests/fake_cuda/nvrtc.c - the fake libnvrtc: takes a text and gives it back as an image, which the fake driver compiles for the CPU. A text with the word
 * tpc_does_not_compile does not. */
#include "tests/fake_cuda/fake.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct program {
    char *name, *source;
    bool failed;
};

static const char complaint[] = "fake.cu(1): error: identifier \"tpc_does_not_compile\" is undefined\n";

FAKE_API int nvrtcVersion(int *major, int *minor);
FAKE_API int nvrtcVersion(int *major, int *minor)
{
    *major = 13;
    *minor = 0;
    return 0;
}

FAKE_API const char *nvrtcGetErrorString(int result);
FAKE_API const char *nvrtcGetErrorString(int result)
{
    return result == 0 ? "NVRTC_SUCCESS" : result == 6 ? "NVRTC_ERROR_COMPILATION" : "NVRTC_ERROR";
}

FAKE_API int nvrtcGetNumSupportedArchs(int *count);
FAKE_API int nvrtcGetNumSupportedArchs(int *count)
{
    *count = 3;
    return 0;
}

FAKE_API int nvrtcGetSupportedArchs(int *archs);
FAKE_API int nvrtcGetSupportedArchs(int *archs)
{
    const int known[] = {80, 90, 100};
    memcpy(archs, known, sizeof known);
    return 0;
}

FAKE_API int nvrtcCreateProgram(struct program **out, const char *source, const char *name, int headers,
                                const char *const *header, const char *const *include);
FAKE_API int nvrtcCreateProgram(struct program **out, const char *source, const char *name, int headers,
                                const char *const *header, const char *const *include)
{
    (void)headers;
    (void)header;
    (void)include;
    if (fake_call(__func__))
        return 1;
    struct program *p = calloc(1, sizeof *p);
    p->name = strdup(name);
    p->source = strdup(source);
    p->name[strcspn(p->name, ".")] = 0; /* NAME.cu */
    fake_own(1);
    *out = p;
    return 0;
}

FAKE_API int nvrtcDestroyProgram(struct program **p);
FAKE_API int nvrtcDestroyProgram(struct program **p)
{
    free((*p)->name);
    free((*p)->source);
    free(*p);
    *p = NULL;
    fake_own(-1);
    return 0;
}

FAKE_API int nvrtcCompileProgram(struct program *p, int count, const char *const *options);
FAKE_API int nvrtcCompileProgram(struct program *p, int count, const char *const *options)
{
    (void)count;
    (void)options;
    p->failed = fake_call(__func__) || strstr(p->source, "tpc_does_not_compile");
    return p->failed ? 6 : 0;
}

FAKE_API int nvrtcGetProgramLogSize(struct program *p, size_t *bytes);
FAKE_API int nvrtcGetProgramLogSize(struct program *p, size_t *bytes)
{
    *bytes = p->failed ? sizeof complaint : 1;
    return 0;
}

FAKE_API int nvrtcGetProgramLog(struct program *p, char *log);
FAKE_API int nvrtcGetProgramLog(struct program *p, char *log)
{
    strcpy(log, p->failed ? complaint : "");
    return 0;
}

FAKE_API int nvrtcGetCUBINSize(struct program *p, size_t *bytes);
FAKE_API int nvrtcGetCUBINSize(struct program *p, size_t *bytes)
{
    *bytes = sizeof FAKE_IMAGE - 1 + strlen(p->name) + strlen(p->source) + 2;
    return 0;
}

FAKE_API int nvrtcGetCUBIN(struct program *p, char *image);
FAKE_API int nvrtcGetCUBIN(struct program *p, char *image)
{
    size_t at = sizeof FAKE_IMAGE - 1;
    memcpy(image, FAKE_IMAGE, at);
    strcpy(image + at, p->name);
    strcpy(image + at + strlen(p->name) + 1, p->source);
    return 0;
}
