/* The cuda backend lies in a library of its own, opened when it is asked for:
 * the one that ONCEUPON_CUDA_LIBRARY names, or libstudent_cuda.so beside the
 * program. What is missing is said in one line; no other backend steps in. */
#include <dlfcn.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cuda_library.h"
#include "model.h"

enum { PATH_BYTES = 4096 };

static int library_path(char *path)
{
    const char *named = getenv("ONCEUPON_CUDA_LIBRARY");
    if (named && *named)
        return snprintf(path, PATH_BYTES, "%s", named) < PATH_BYTES;
    char program[PATH_BYTES];
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    if (length < 0)
        return 0;
    program[length] = 0;
    return snprintf(path, PATH_BYTES, "%s/libstudent_cuda.so", dirname(program)) < PATH_BYTES;
}

/* The library stays open: its code may be in use until the process ends. */
static const cuda_library *open_library(char *message, size_t capacity)
{
    char path[PATH_BYTES];
    if (!library_path(path)) {
        fail(message, capacity, 0, "cuda: the path of the library is too long");
        return NULL;
    }
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!handle && access(path, F_OK)) {
        fail(message, capacity, 0,
             "cuda: there is no %s; `make cuda` builds it, ONCEUPON_CUDA_LIBRARY can name another place", path);
        return NULL;
    }
    if (!handle) {
        fail(message, capacity, 0, "cuda: %s", dlerror());
        return NULL;
    }
    const cuda_library *(*ask)(void);
    *(void **)&ask = dlsym(handle, CUDA_LIBRARY_SYMBOL);
    const cuda_library *l = ask ? ask() : NULL;
    if (!l || l->abi != CUDA_LIBRARY_ABI || l->student_abi != STUDENT_ABI_VERSION ||
        l->op_table_bytes != sizeof(op_table) || l->limits_bytes != sizeof(backend_limits) ||
        l->sums_bytes != sizeof(student_ppo_sums) || l->device_bytes != sizeof(student_device)) {
        fail(message, capacity, 0, "cuda: %s is of another version than this program; build both from the same sources",
             path);
        return NULL;
    }
    return l;
}

int backend_cuda_create(backend *b, const backend_limits *limits, char *message, size_t capacity)
{
    const cuda_library *l = open_library(message, capacity);
    return l ? l->create(b, limits, message, capacity) : STUDENT_E_CAPABILITY;
}

/* 0 without the library: a plan can be made where the library is not. */
size_t backend_cuda_workspace(const backend_limits *limits)
{
    const cuda_library *l = open_library(NULL, 0);
    return l ? l->workspace(limits) : 0;
}

int student_cuda_device(student_device *device, char *message, size_t capacity)
{
    if (!device || device->size != sizeof *device)
        return fail(message, capacity, STUDENT_E_ARGUMENT, "student_device has another size than the library's");
    const cuda_library *l = open_library(message, capacity);
    return l ? l->describe(device, message, capacity) : STUDENT_E_CAPABILITY;
}
