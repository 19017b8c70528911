/* GELU and the residual stream; formulas in native/ref/gelu.c and residual.c.
 * A thread moves one packet of eight elements. Bytes an element, bf16 (fp32):
 *   gelu_forward       4 (8)     gelu_backward      6 (12)
 *   residual_forward  10 (12)    residual_backward  6 (8)
 * All are bound by memory (estimates): at 3.35 TB/s and 1.7 GHz an SM of an
 * H100 gets 15 bytes a cycle, 1.5 elements of residual_forward, and issues 85
 * instructions for each; Philox takes about 25 of them, GELU about 20. */
#include "ops.cuh"
#include "dropout.cuh"
#include "gelu.cuh"

enum { THREADS = 256 };

size_t cuda_elementwise_workspace(const backend_limits *) { return 0; }

/* Where this thread's packet starts. */
__device__ __forceinline__ size_t packet_start() { return ((size_t)blockIdx.x * THREADS + threadIdx.x) * PACKET; }

__device__ __forceinline__ int packet_left(size_t start, size_t count)
{
    return count - start < PACKET ? (int)(count - start) : PACKET;
}

static unsigned packet_blocks(size_t count) { return blocks_for(count, THREADS * PACKET); }

template <class T>
static __global__ void __launch_bounds__(THREADS)
    gelu_forward(T *__restrict__ out, const T *__restrict__ x, size_t count, bool aligned)
{
    size_t i = packet_start();
    if (i >= count)
        return;
    int left = packet_left(i, count);
    packet p = load_part(x + i, left, aligned);
#pragma unroll
    for (int k = 0; k < PACKET; k++)
        p.at[k] = gelu_value<T>(p.at[k]);
    store_part(out + i, p, left, aligned);
}

void cuda_gelu_forward(backend *b, tensor out, tensor x)
{
    size_t count = tensor_count(out);
    cuda_by_type(out.type, [&](auto *e) {
        typedef typename std::remove_pointer<decltype(e)>::type T;
        LAUNCH((gelu_forward<T>), packet_blocks(count), THREADS, 0, cuda(b)->stream, (T *)out.data, (const T *)x.data,
               count, all_aligned(out.data, x.data));
    });
    CUDA_OP_END(b);
}

/* dx may be dout: a thread reads its packet before it writes it. */
template <class T>
static __global__ void __launch_bounds__(THREADS)
    gelu_backward(T *dx, const T *dout, const T *__restrict__ x, size_t count, bool aligned)
{
    size_t i = packet_start();
    if (i >= count)
        return;
    int left = packet_left(i, count);
    packet p = load_part(x + i, left, aligned), d = load_part(dout + i, left, aligned);
#pragma unroll
    for (int k = 0; k < PACKET; k++)
        d.at[k] *= gelu_slope<T>(p.at[k]);
    store_part(dx + i, d, left, aligned);
}

void cuda_gelu_backward(backend *b, tensor dx, tensor dout, tensor x)
{
    size_t count = tensor_count(dx);
    cuda_by_type(dx.type, [&](auto *e) {
        typedef typename std::remove_pointer<decltype(e)>::type T;
        LAUNCH((gelu_backward<T>), packet_blocks(count), THREADS, 0, cuda(b)->stream, (T *)dx.data,
               (const T *)dout.data, (const T *)x.data, count, all_aligned(dx.data, dout.data, x.data));
    });
    CUDA_OP_END(b);
}

/* out may be a. */
template <class T>
static __global__ void __launch_bounds__(THREADS)
    residual_forward(float *out, const float *a, const T *__restrict__ x, size_t count, dropout_mask mask, bool aligned)
{
    size_t i = packet_start();
    if (i >= count)
        return;
    int left = packet_left(i, count);
    packet p = load_part(x + i, left, aligned), sum = load_part(a + i, left, aligned);
    drop_quads(p, mask, i);
#pragma unroll
    for (int k = 0; k < PACKET; k++)
        sum.at[k] = __fadd_rn(sum.at[k], p.at[k]);
    store_part(out + i, sum, left, aligned);
}

void cuda_residual_forward(backend *b, tensor out, tensor a, tensor x, dropout drop)
{
    size_t count = tensor_count(out);
    cuda_by_type(x.type, [&](auto *e) {
        typedef typename std::remove_pointer<decltype(e)>::type T;
        LAUNCH((residual_forward<T>), packet_blocks(count), THREADS, 0, cuda(b)->stream, out.data, a.data,
               (const T *)x.data, count, dropout_mask_of(drop), all_aligned(out.data, a.data, x.data));
    });
    CUDA_OP_END(b);
}

template <class T>
static __global__ void __launch_bounds__(THREADS)
    residual_backward(T *__restrict__ dx, const float *__restrict__ dout, size_t count, dropout_mask mask, bool aligned)
{
    size_t i = packet_start();
    if (i >= count)
        return;
    int left = packet_left(i, count);
    packet d = load_part(dout + i, left, aligned);
    drop_quads(d, mask, i);
    store_part(dx + i, d, left, aligned);
}

void cuda_residual_backward(backend *b, tensor dx, tensor dout, dropout drop)
{
    size_t count = tensor_count(dx);
    cuda_by_type(dx.type, [&](auto *e) {
        typedef typename std::remove_pointer<decltype(e)>::type T;
        LAUNCH((residual_backward<T>), packet_blocks(count), THREADS, 0, cuda(b)->stream, (T *)dx.data, dout.data,
               count, dropout_mask_of(drop), all_aligned(dx.data, dout.data));
    });
    CUDA_OP_END(b);
}
