/* Creation of the cuda backend. What the machine lacks is said in one line:
 * what was found and what is needed. */
#include "backend.cuh"

#include <new>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { NEEDED_DRIVER = 13000 }; /* CUDA 13.0, as cudaDriverGetVersion counts */

static int refuse(char *message, size_t capacity, int status, const char *format, ...)
{
    if (message && capacity) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(message, capacity, format, arguments);
        va_end(arguments);
    }
    return status;
}

static __global__ void probe() {}

/* Whether the library has a kernel that this device can run. */
static bool runs_here()
{
    cudaFuncAttributes attributes;
    bool fine = cudaFuncGetAttributes(&attributes, probe) == cudaSuccess;
    cudaGetLastError();
    return fine;
}

int cuda_choose_device(cuda_state *s, char *message, size_t capacity)
{
    int driver = 0, count = 0;
    cudaDriverGetVersion(&driver);
    if (!driver)
        return refuse(message, capacity, STUDENT_E_CAPABILITY,
                      "cuda: no NVIDIA driver found; a card with a driver for CUDA 13.0 (580 or later) is needed");
    if (driver < NEEDED_DRIVER)
        return refuse(message, capacity, STUDENT_E_CAPABILITY,
                      "cuda: the driver is for CUDA %d.%d; one for 13.0 or later (580 or later) is needed",
                      driver / 1000, driver % 1000 / 10);
    cudaError_t error = cudaGetDeviceCount(&count);
    cudaGetLastError();
    if (error != cudaSuccess || !count)
        return refuse(message, capacity, STUDENT_E_CAPABILITY, "cuda: no device found (%s); one is needed",
                      cudaGetErrorString(error));
    const char *asked = getenv("ONCEUPON_CUDA_DEVICE");
    char *end = nullptr;
    long wanted = asked ? strtol(asked, &end, 10) : 0;
    if (asked && (end == asked || *end || wanted < 0 || wanted >= count))
        return refuse(message, capacity, STUDENT_E_CAPABILITY,
                      "cuda: ONCEUPON_CUDA_DEVICE is %s; devices 0 to %d were found", asked, count - 1);
    cudaDeviceProp p = {};
    for (int d = asked ? (int)wanted : 0; d < (asked ? (int)wanted + 1 : count); d++) {
        error = cudaGetDeviceProperties(&p, d);
        if (error == cudaSuccess)
            error = cudaSetDevice(d);
        if (error != cudaSuccess)
            return refuse(message, capacity, STUDENT_E_CAPABILITY, "cuda: device %d does not answer: %s", d,
                          cudaGetErrorString(error));
        if (runs_here()) {
            s->device = d;
            s->multiprocessors = p.multiProcessorCount;
            s->architecture = 10 * p.major + p.minor;
            s->shared_limit = p.sharedMemPerBlockOptin;
            snprintf(s->device_name, sizeof s->device_name, "%.50s (sm_%d)", p.name, s->architecture);
            return STUDENT_OK;
        }
    }
    return refuse(message, capacity, STUDENT_E_CAPABILITY,
                  "cuda: %.50s is sm_%d%d; this library has kernels for %s and later", p.name, p.major, p.minor,
                  cuda_architectures());
}

static int choose_activations(const char *isa)
{
    if (!isa || !strcmp(isa, "auto") || !strcmp(isa, "bf16"))
        return TENSOR_BF16;
    return strcmp(isa, "fp32") ? -1 : TENSOR_F32;
}

static size_t weights_bytes(const backend_limits *limits, int activations)
{
    return activations == TENSOR_BF16 ? (2 * limits->parameters + 255) / 256 * 256 : 0;
}

size_t cuda_own_bytes(const backend_limits *limits)
{
    return cuda_workspace_bytes(limits) + weights_bytes(limits, choose_activations(limits->isa));
}

/* An array more costs up to 256 bytes; a student has fewer than 256 of them. */
static size_t arena_size(const backend_limits *limits)
{
#if defined(__SANITIZE_ADDRESS__)
    (void)limits; /* arrays of their own, so that one end too far is seen */
    return 0;
#else
    return limits->bytes ? limits->bytes + 256 * 256 : 0;
#endif
}

static int take_memory(cuda_state *s, char *message, size_t capacity)
{
    size_t free_bytes = 0, total = 0, own = cuda_own_bytes(&s->limits),
           weights = weights_bytes(&s->limits, s->activations);
    s->workspace_bytes = cuda_workspace_bytes(&s->limits);
    s->arena_bytes = arena_size(&s->limits);
    cudaMemGetInfo(&free_bytes, &total);
    cudaError_t error = cudaMalloc(&s->own, own);
    if (error == cudaSuccess && s->arena_bytes)
        error = cudaMalloc(&s->arena, s->arena_bytes);
    if (error == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        return refuse(message, capacity, STUDENT_E_MEMORY, "cuda: %s has %zu MiB of %zu MiB free; %zu MiB are needed",
                      s->device_name, free_bytes >> 20, total >> 20, (own + s->arena_bytes + (1 << 20) - 1) >> 20);
    }
    if (error == cudaSuccess)
        error = cudaMallocHost(&s->pinned, CUDA_PINNED_BYTES);
    if (error == cudaSuccess)
        error = cudaMallocHost(&s->staging, CUDA_STAGING_BYTES);
    if (error == cudaSuccess)
        error = cudaStreamCreateWithFlags(&s->stream, cudaStreamNonBlocking);
    if (error != cudaSuccess)
        return refuse(message, capacity, STUDENT_E_CAPABILITY, "cuda: %s: %s", s->device_name,
                      cudaGetErrorString(error));
    s->weights_bf16 = weights ? (bf16 *)s->own : nullptr;
    s->workspace = s->own + weights;
    return STUDENT_OK;
}

int cuda_create(backend *b, const backend_limits *limits, char *message, size_t capacity)
{
    int activations = choose_activations(limits->isa);
    if (activations < 0)
        return refuse(message, capacity, STUDENT_E_ARGUMENT, "cuda: isa %s is neither bf16, fp32 nor auto",
                      limits->isa);
    cuda_state *s = new (std::nothrow) cuda_state();
    if (!s)
        return refuse(message, capacity, STUDENT_E_MEMORY, "cuda: no memory for a backend");
    s->limits = *limits;
    s->activations = activations;
    b->state = s;
    int status = cuda_choose_device(s, message, capacity);
    if (!status)
        status = cuda_matmul_create(b, message, capacity);
    if (!status)
        status = take_memory(s, message, capacity);
    if (!status)
        status = cuda_matmul_measure(b, message, capacity);
    if (status) {
        cuda_destroy(b);
        return status;
    }
    b->ops = cuda_table(activations);
    b->isa = activations == TENSOR_BF16 ? "bf16" : "fp32";
    return STUDENT_OK;
}

void cuda_destroy(backend *b)
{
    cuda_state *s = cuda(b);
    if (s->stream)
        cudaStreamSynchronize(s->stream);
    cuda_recordings_destroy(b);
    cuda_matmul_destroy(b);
    if (s->stream)
        cudaStreamDestroy(s->stream);
    cudaFree(s->arena);
    cudaFree(s->own);
    cudaFreeHost(s->pinned);
    cudaFreeHost(s->staging);
    cudaGetLastError();
    delete s;
    b->state = nullptr;
    b->ops = nullptr;
}

void cuda_note(backend *b, cudaError_t error, const char *op)
{
    cuda_state *s = cuda(b);
    if (error != cudaSuccess && !s->error[0])
        snprintf(s->error, sizeof s->error, "cuda: %s: %s on %s", op, cudaGetErrorString(error), s->device_name);
}

const char *cuda_error(backend *b) { return cuda(b)->error[0] ? cuda(b)->error : nullptr; }
