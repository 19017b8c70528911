/* Errors and the device. */
#include "runtime.h"

#include <stdlib.h>
#include <string.h>

static thread_local cudaError_t last_error = cudaSuccess;
static thread_local int current;

cudaError_t emulation::report(cudaError_t error)
{
    if (error != cudaSuccess)
        last_error = error;
    return error;
}

#define NAMES(X)                                                                                                       \
    X(cudaSuccess, "no error")                                                                                         \
    X(cudaErrorInvalidValue, "invalid argument")                                                                       \
    X(cudaErrorMemoryAllocation, "out of memory")                                                                      \
    X(cudaErrorInvalidConfiguration, "invalid configuration argument")                                                 \
    X(cudaErrorInsufficientDriver, "CUDA driver version is insufficient for CUDA runtime version")                     \
    X(cudaErrorNoDevice, "no CUDA-capable device is detected")                                                         \
    X(cudaErrorInvalidDevice, "invalid device ordinal")                                                                \
    X(cudaErrorNoKernelImageForDevice, "no kernel image is available for execution on the device")                     \
    X(cudaErrorInvalidResourceHandle, "invalid resource handle")                                                       \
    X(cudaErrorNotReady, "device not ready")                                                                           \
    X(cudaErrorLaunchFailure, "unspecified launch failure")                                                            \
    X(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing")

const char *cudaGetErrorString(cudaError_t error)
{
#define CASE(name, text)                                                                                               \
    case name:                                                                                                         \
        return text;
    switch (error) {
        NAMES(CASE)
    }
#undef CASE
    return "unrecognized error code";
}

const char *cudaGetErrorName(cudaError_t error)
{
#define CASE(name, text)                                                                                               \
    case name:                                                                                                         \
        return #name;
    switch (error) {
        NAMES(CASE)
    }
#undef CASE
    return "unrecognized error code";
}

cudaError_t cudaGetLastError()
{
    cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}
cudaError_t cudaPeekAtLastError() { return last_error; }

bool emulation::device_is(const char *kind)
{
    const char *set = getenv("EMULATION_DEVICE");
    return set && !strcmp(set, kind);
}

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = 0;
    if (emulation::device_is("none"))
        return emulation::report(cudaErrorNoDevice);
    if (emulation::device_is("old"))
        return emulation::report(cudaErrorInsufficientDriver);
    *count = emulation::device_is("two") ? 2 : 1;
    return cudaSuccess;
}
cudaError_t cudaGetDevice(int *device)
{
    *device = current;
    return cudaSuccess;
}
static bool there(int device) { return device == 0 || (device == 1 && emulation::device_is("two")); }
cudaError_t cudaSetDevice(int device)
{
    if (!there(device))
        return emulation::report(cudaErrorInvalidDevice);
    current = device;
    return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int *version)
{
    *version = emulation::device_is("none") ? 0 : emulation::device_is("old") ? 12020 : 13000;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = 13000;
    return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device)
{
    if (!there(device))
        return emulation::report(cudaErrorInvalidDevice);
    *p = {"emulation", (size_t)8 << 30, emulation::MAX_SHARED, 9, 0, 4, 4 << 20, 65536, 2048};
    if (emulation::device_is("sm_70"))
        p->major = 7;
    return cudaSuccess;
}
cudaError_t emulation_has_kernels()
{
    return emulation::device_is("sm_70") ? emulation::report(cudaErrorNoKernelImageForDevice) : cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device)
{
    cudaDeviceProp p;
    cudaError_t error = cudaGetDeviceProperties(&p, device);
    if (error != cudaSuccess)
        return error;
    switch (attribute) {
    case cudaDevAttrClockRate:
    case cudaDevAttrMemoryClockRate:
    case cudaDevAttrGlobalMemoryBusWidth:
        *value = 0; /* not known: a peak of an emulation says nothing */
        break;
    case cudaDevAttrMultiProcessorCount:
        *value = p.multiProcessorCount;
        break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = (int)p.sharedMemPerBlockOptin;
        break;
    case cudaDevAttrComputeCapabilityMajor:
        *value = p.major;
        break;
    case cudaDevAttrComputeCapabilityMinor:
        *value = p.minor;
        break;
    }
    return cudaSuccess;
}
