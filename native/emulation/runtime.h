/* runtime.h: the part of the CUDA runtime that native/cuda uses, on host
 * memory. A stream is a queue: it runs at once, or, with EMULATION_STREAM=late,
 * when something waits for it. A graph is a recorded queue. */
#ifndef EMULATION_RUNTIME_H
#define EMULATION_RUNTIME_H

#include <stddef.h>
#include <tuple>

#include "counts.h"
#include "schedule.h"

enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInsufficientDriver = 35,
    cudaErrorNoDevice = 100,
    cudaErrorInvalidDevice = 101,
    cudaErrorNoKernelImageForDevice = 209,
    cudaErrorInvalidResourceHandle = 400,
    cudaErrorNotReady = 600,
    cudaErrorLaunchFailure = 719,
    cudaErrorStreamCaptureUnsupported = 900,
};
const char *cudaGetErrorString(cudaError_t error);
const char *cudaGetErrorName(cudaError_t error);
cudaError_t cudaGetLastError();
cudaError_t cudaPeekAtLastError();

struct cudaDeviceProp {
    char name[256];
    size_t totalGlobalMem, sharedMemPerBlockOptin;
    int major, minor, multiProcessorCount, l2CacheSize, regsPerMultiprocessor, maxThreadsPerMultiProcessor;
};
struct cudaFuncAttributes {
    size_t sharedSizeBytes;
    int numRegs, maxThreadsPerBlock, binaryVersion;
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
enum cudaDeviceAttr {
    cudaDevAttrClockRate = 13,
    cudaDevAttrMultiProcessorCount = 16,
    cudaDevAttrMemoryClockRate = 36,
    cudaDevAttrGlobalMemoryBusWidth = 37,
    cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
    cudaDevAttrComputeCapabilityMajor = 75,
    cudaDevAttrComputeCapabilityMinor = 76,
};
cudaError_t cudaGetDeviceCount(int *count);
cudaError_t cudaGetDevice(int *device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaDeviceSynchronize();
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int device);
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device);
cudaError_t cudaDriverGetVersion(int *version);
cudaError_t cudaRuntimeGetVersion(int *version);
inline cudaError_t emulation_function_attribute(size_t bytes)
{
    return bytes <= emulation::MAX_SHARED ? cudaSuccess : cudaErrorInvalidValue;
}
template <class F> cudaError_t cudaFuncSetAttribute(F, cudaFuncAttribute, int value)
{
    return emulation_function_attribute((size_t)value);
}
cudaError_t emulation_has_kernels();
template <class F> cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *a, F)
{
    *a = {0, 0, emulation::MAX_THREADS, 0};
    return emulation_has_kernels();
}
template <class F> cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, F, int threads, size_t)
{
    *blocks = threads <= 1024 ? 1 : 0;
    return cudaSuccess;
}

typedef struct emulation_stream *cudaStream_t;
typedef struct emulation_event *cudaEvent_t;
typedef struct emulation_graph *cudaGraph_t;
typedef struct emulation_graph *cudaGraphExec_t;

enum cudaMemcpyKind {
    cudaMemcpyHostToHost,
    cudaMemcpyHostToDevice,
    cudaMemcpyDeviceToHost,
    cudaMemcpyDeviceToDevice,
    cudaMemcpyDefault
};
cudaError_t cudaMemGetInfo(size_t *free, size_t *total);
cudaError_t emulation_malloc(void **memory, size_t bytes);
cudaError_t emulation_malloc_host(void **memory, size_t bytes);
template <class T> cudaError_t cudaMalloc(T **memory, size_t bytes) { return emulation_malloc((void **)memory, bytes); }
template <class T> cudaError_t cudaMallocHost(T **memory, size_t bytes)
{
    return emulation_malloc_host((void **)memory, bytes);
}
cudaError_t cudaFree(void *memory);
cudaError_t cudaFreeHost(void *memory);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream = nullptr);
cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind);
cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream = nullptr);
cudaError_t cudaMemset(void *to, int value, size_t bytes);

enum { cudaStreamDefault = 0, cudaStreamNonBlocking = 1, cudaEventDefault = 0, cudaEventDisableTiming = 2 };
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamQuery(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags = 0);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags);
cudaError_t cudaEventCreate(cudaEvent_t *event);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream = nullptr);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t from, cudaEvent_t to);

enum cudaStreamCaptureMode {
    cudaStreamCaptureModeGlobal,
    cudaStreamCaptureModeThreadLocal,
    cudaStreamCaptureModeRelaxed
};
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph);
enum cudaStreamCaptureStatus { cudaStreamCaptureStatusNone, cudaStreamCaptureStatusActive };
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus *status);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *executable, cudaGraph_t graph, unsigned long long flags = 0);
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable);

/* Of the driver there is cuTensorMapEncodeTiled alone. */
enum { cudaEnableDefault = 0 };
enum cudaDriverEntryPointQueryResult { cudaDriverEntryPointSuccess = 0, cudaDriverEntryPointSymbolNotFound = 1 };
cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned version,
                                             unsigned long long flags, cudaDriverEntryPointQueryResult *result);

namespace emulation
{
/* Of emulation_counted. */
extern emulation_counts counts;
/* Keeps an error for cudaGetLastError. */
cudaError_t report(cudaError_t error);
/* EMULATION_DEVICE stands for machines that the tests cannot have: none, old
 * (a driver too old), sm_70, small (1 MiB), lost (after EMULATION_LAUNCHES
 * launches), two (a kernel goes to a stream of the thread's own device only). */
bool device_is(const char *kind);
/* Adds work to a stream, or to the graph that it captures. */
cudaError_t enqueue(cudaStream_t stream, std::function<void()> work);
cudaError_t launch(cudaStream_t stream, dim3 grid, dim3 dimensions, size_t shared_bytes, std::function<void()> body);
/* As <<<>>>: the arguments are those of the moment of the launch. */
template <class... P, class... A>
cudaError_t launch_kernel(cudaStream_t stream, dim3 grid, dim3 dimensions, size_t shared_bytes, void (*kernel)(P...),
                          A... arguments)
{
    std::tuple<P...> bound(static_cast<P>(arguments)...);
    return launch(stream, grid, dimensions, shared_bytes, [=] { std::apply(kernel, bound); });
}
bool capturing(cudaStream_t stream);
/* Does all work of a stream. */
void drain(cudaStream_t stream);
} // namespace emulation

#endif
