/* Memory of the device and of the host. */
#include "runtime.h"

#include <map>
#include <memory>
#include <mutex>
#include <stdlib.h>
#include <string.h>

using emulation::report;

namespace
{
const size_t device_bytes = (size_t)8 << 30;
typedef std::map<const char *, size_t> blocks; /* by address */

std::mutex guard;
blocks device, pinned;
size_t used;

bool covers(const blocks &all, const void *memory, size_t bytes)
{
    std::lock_guard<std::mutex> lock(guard);
    auto after = all.upper_bound((const char *)memory);
    if (after == all.begin())
        return false;
    const auto &block = *--after;
    return (const char *)memory + bytes <= block.first + block.second;
}

cudaError_t take(blocks &all, void **memory, size_t bytes)
{
    *memory = nullptr;
    emulation::counts.allocations++;
    if (posix_memalign(memory, 256, bytes ? bytes : 1))
        return report(cudaErrorMemoryAllocation);
    memset(*memory, 0xff, bytes); /* NaN: a read of what was never written shows */
    all[(const char *)*memory] = bytes;
    return cudaSuccess;
}

/* The bytes that were given back, or -1. */
long give(blocks &all, void *memory)
{
    auto found = all.find((const char *)memory);
    if (found == all.end())
        return -1;
    long bytes = (long)found->second;
    all.erase(found);
    free(memory);
    return bytes;
}

size_t device_limit() { return emulation::device_is("small") ? (size_t)1 << 20 : device_bytes; }
} // namespace

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total)
{
    std::lock_guard<std::mutex> lock(guard);
    *total = device_limit();
    *free_bytes = used < *total ? *total - used : 0;
    return cudaSuccess;
}

cudaError_t emulation_malloc(void **memory, size_t bytes)
{
    std::lock_guard<std::mutex> lock(guard);
    if (bytes > device_limit() - used)
        return report(cudaErrorMemoryAllocation);
    cudaError_t error = take(device, memory, bytes);
    used += error == cudaSuccess ? bytes : 0;
    return error;
}

cudaError_t emulation_malloc_host(void **memory, size_t bytes)
{
    std::lock_guard<std::mutex> lock(guard);
    return take(pinned, memory, bytes);
}

cudaError_t cudaFree(void *memory)
{
    cudaDeviceSynchronize();
    std::lock_guard<std::mutex> lock(guard);
    long bytes = memory ? give(device, memory) : 0;
    if (bytes < 0)
        return report(cudaErrorInvalidValue);
    used -= (size_t)bytes;
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *memory)
{
    cudaDeviceSynchronize();
    std::lock_guard<std::mutex> lock(guard);
    return !memory || give(pinned, memory) >= 0 ? cudaSuccess : report(cudaErrorInvalidValue);
}

/* As on a card: pageable memory of the host is read before the call returns and
 * has been written when it returns; pinned memory is touched when the stream
 * comes to it. */
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream)
{
    bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    if ((from_device && !covers(device, from, bytes)) || (to_device && !covers(device, to, bytes)))
        return report(cudaErrorInvalidValue);
    if (!emulation::capturing(stream) && kind == cudaMemcpyHostToDevice && !covers(pinned, from, bytes)) {
        auto kept = std::make_shared<std::vector<char>>((const char *)from, (const char *)from + bytes);
        return emulation::enqueue(stream, [=] { memcpy(to, kept->data(), bytes); });
    }
    cudaError_t error = emulation::enqueue(stream, [=] { memmove(to, from, bytes); });
    if (error == cudaSuccess && !emulation::capturing(stream) && kind == cudaMemcpyDeviceToHost &&
        !covers(pinned, to, bytes))
        emulation::drain(stream);
    return error;
}
cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind)
{
    cudaError_t error = cudaMemcpyAsync(to, from, bytes, kind);
    return error == cudaSuccess ? cudaStreamSynchronize(nullptr) : error;
}
cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream)
{
    if (!covers(device, to, bytes))
        return report(cudaErrorInvalidValue);
    return emulation::enqueue(stream, [=] { memset(to, value, bytes); });
}
cudaError_t cudaMemset(void *to, int value, size_t bytes) { return cudaMemsetAsync(to, value, bytes); }
