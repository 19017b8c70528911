/* Memory of the card: one allocation at the start, out of which the arrays of a
 * student are cut; copies in and out; the bf16 form of the weights. */
#include "backend.cuh"

#include <stdio.h>

/* Arrays start on the 256 bytes that cudaMalloc gives. */
static size_t padded(size_t bytes) { return (bytes + 255) / 256 * 256; }

void *cuda_allocate(backend *b, size_t bytes)
{
    cuda_state *s = cuda(b);
    void *memory = nullptr;
    if (s->arena && padded(bytes) <= s->arena_bytes - s->arena_used) {
        memory = s->arena + s->arena_used;
        s->arena_used += padded(bytes);
    } else {
        cudaError_t error = cudaMalloc(&memory, bytes ? bytes : 1);
        if (error != cudaSuccess) {
            size_t free_bytes = 0, total = 0;
            cudaGetLastError();
            cudaMemGetInfo(&free_bytes, &total);
            if (!s->error[0])
                snprintf(s->error, sizeof s->error, "%s has %zu MiB of %zu MiB free, %zu MiB more are needed",
                         s->device_name, free_bytes >> 20, total >> 20, bytes >> 20);
            return nullptr;
        }
    }
    cuda_zero(b, memory, bytes);
    return memory;
}

/* What lies in the arena goes with it. */
void cuda_release(backend *b, void *memory)
{
    cuda_state *s = cuda(b);
    bool inside = s->arena && (char *)memory >= s->arena && (char *)memory < s->arena + s->arena_bytes;
    if (!inside)
        cuda_note(b, cudaFree(memory), __func__);
}

/* The caller's memory may change when this returns, and the card must not be
 * waited for: the bytes go through a pinned ring, whose wrap is the only wait. */
void cuda_upload(backend *b, void *to, const void *from_host, size_t bytes)
{
    cuda_state *s = cuda(b);
    for (size_t done = 0; done < bytes;) {
        if (s->staging_used == CUDA_STAGING_BYTES) {
            cuda_note(b, cudaStreamSynchronize(s->stream), __func__);
            s->staging_used = 0;
        }
        size_t room = CUDA_STAGING_BYTES - s->staging_used, part = bytes - done < room ? bytes - done : room;
        char *staged = s->staging + s->staging_used;
        memcpy(staged, (const char *)from_host + done, part);
        cuda_note(b, cudaMemcpyAsync((char *)to + done, staged, part, cudaMemcpyHostToDevice, s->stream), __func__);
        s->staging_used += part;
        done += part;
    }
}

void cuda_download(backend *b, void *to_host, const void *from, size_t bytes)
{
    cuda_state *s = cuda(b);
    if (bytes)
        cuda_note(b, cudaMemcpyAsync(to_host, from, bytes, cudaMemcpyDeviceToHost, s->stream), __func__);
    cuda_note(b, cudaStreamSynchronize(s->stream), __func__);
    s->staging_used = 0;
}

void cuda_fetch(backend *b, const void *from, size_t bytes, const char *op)
{
    cuda_state *s = cuda(b);
    cudaError_t error = bytes <= CUDA_PINNED_BYTES ? cudaSuccess : cudaErrorInvalidValue;
    if (error == cudaSuccess)
        error = cudaMemcpyAsync(s->pinned, from, bytes, cudaMemcpyDeviceToHost, s->stream);
    if (error == cudaSuccess)
        error = cudaStreamSynchronize(s->stream);
    s->staging_used = 0;
    cuda_note(b, error, op);
}

void cuda_copy(backend *b, void *to, const void *from, size_t bytes)
{
    if (bytes)
        cuda_note(b, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, cuda(b)->stream), __func__);
}

void cuda_zero(backend *b, void *memory, size_t bytes)
{
    if (bytes)
        cuda_note(b, cudaMemsetAsync(memory, 0, bytes, cuda(b)->stream), __func__);
}

void *cuda_workspace(backend *b, size_t bytes, const char *op)
{
    cuda_state *s = cuda(b);
    if (bytes <= s->workspace_bytes)
        return s->workspace;
    if (!s->error[0])
        snprintf(s->error, sizeof s->error, "%s needs %zu bytes of workspace, %zu were asked for at creation", op,
                 bytes, s->workspace_bytes);
    return nullptr;
}

static __global__ void round_weights(bf16 *to, const float *from, size_t count)
{
    size_t first = 4 * ((size_t)blockIdx.x * blockDim.x + threadIdx.x);
    if (first + 4 <= count)
        store4(to + first, load4(from + first));
    else
        for (size_t i = first; i < count; i++)
            to[i] = from_float<bf16>(from[i]);
}

void cuda_weights_changed(backend *b, const float *w, size_t count)
{
    cuda_state *s = cuda(b);
    if (!s->weights_bf16 || count > s->limits.parameters)
        return;
    s->weights = w;
    s->weights_count = count;
    if (!count)
        return;
    LAUNCH(round_weights, blocks_for(count, 4 * 256), 256, 0, s->stream, s->weights_bf16, w, count);
    CUDA_OP_END(b);
}
