/* Log-probability and entropy of rows of logits (n,V), and their gradient;
 * formulas in native/ref/logprob.c. One pass: a thread keeps, relative to the
 * largest logit m that it has seen,
 *   sum = sum exp(z - m),  weighted = sum exp(z - m) (z - m)
 * so that entropy = log sum - weighted / sum does not cancel; threads are
 * merged in one order. Logits are fp32. */
#include <float.h>

#include "ops.cuh"

enum { LOGPROB_THREADS = 256 };

size_t cuda_logprob_workspace(const backend_limits *limits)
{
    (void)limits;
    return 0;
}

struct softmax_sums {
    float max, sum, weighted;
};

/* Largest of both, and what each has to be multiplied with. -FLT_MAX, the
 * maximum of nothing, leaves no infinity to be subtracted from itself. */
__device__ __forceinline__ softmax_sums merged(softmax_sums a, softmax_sums b)
{
    const float max = fmaxf(a.max, b.max), fa = expf(a.max - max), fb = expf(b.max - max);
    return {max, a.sum * fa + b.sum * fb,
            (a.weighted + a.sum * (a.max - max)) * fa + (b.weighted + b.sum * (b.max - max)) * fb};
}

__device__ __forceinline__ void add(softmax_sums &s, float z)
{
    const float x = z - s.max, e = expf(x);
    s.sum += e;
    s.weighted = fmaf(e, x, s.weighted);
}

__device__ __forceinline__ void raise(softmax_sums &s, float max)
{
    if (max > s.max)
        s = merged(s, {max, 0, 0});
}

/* A block a row: V * 4 bytes read, V exponentials; bound by the memory. */
static __global__ void __launch_bounds__(LOGPROB_THREADS)
    logprob_row(float *logprob, float *entropy, float *lse, const float *logits, const int32_t *targets, int V)
{
    SHARED(softmax_sums, of_warp, [LOGPROB_THREADS / 32]);
    const int n = (int)blockIdx.x, lane = (int)threadIdx.x & 31, warp = (int)threadIdx.x >> 5;
    const float *z = logits + (size_t)n * V;
    softmax_sums s = {-FLT_MAX, 0, 0};
    if (V % 4 == 0)
        for (int j = (int)threadIdx.x * 4; j < V; j += LOGPROB_THREADS * 4) {
            const float4 v = load4(z + j);
            raise(s, fmaxf(fmaxf(v.x, v.y), fmaxf(v.z, v.w)));
            add(s, v.x);
            add(s, v.y);
            add(s, v.z);
            add(s, v.w);
        }
    else
        for (int j = (int)threadIdx.x; j < V; j += LOGPROB_THREADS) {
            raise(s, z[j]);
            add(s, z[j]);
        }
#pragma unroll
    for (int bits = 16; bits > 0; bits >>= 1) {
        const softmax_sums other = {__shfl_xor_sync(FULL_WARP, s.max, bits), __shfl_xor_sync(FULL_WARP, s.sum, bits),
                                    __shfl_xor_sync(FULL_WARP, s.weighted, bits)};
        s = merged(s, other);
    }
    if (lane == 0)
        of_warp[warp] = s;
    __syncthreads();
    if (threadIdx.x)
        return;
    for (int w = 1; w < LOGPROB_THREADS / 32; w++)
        s = merged(s, of_warp[w]);
    const int target = targets[n];
    const float log_sum = logf(s.sum);
    lse[n] = s.max + log_sum;
    logprob[n] = target < 0 ? 0 : (z[target] - s.max) - log_sum;
    entropy[n] = target < 0 ? 0 : log_sum - s.weighted / s.sum;
}

void cuda_logprob_forward(backend *b, float *logprob, float *entropy, float *lse, tensor logits, const int32_t *targets)
{
    LAUNCH(logprob_row, (unsigned)logits.rows, LOGPROB_THREADS, 0, cuda(b)->stream, logprob, entropy, lse, logits.data,
           targets, logits.cols);
    CUDA_OP_END(b);
}

__device__ __forceinline__ float slope(float z, int j, float lse, int target, float by)
{
    return by * ((j == target ? 1.0f : 0.0f) - expf(z - lse));
}

/* A thread has EACH neighbours of row blockIdx.x. dlogits may be the logits. 4
 * bytes read and 2 or 4 written a logit: bound by the memory. */
template <class T, int EACH>
static __global__ void __launch_bounds__(LOGPROB_THREADS)
    logprob_slopes(T *dlogits, const float *logits, const float *lse, const int32_t *targets, const float *dlogprob,
                   int V)
{
    const int n = (int)blockIdx.x, j = (int)(blockIdx.y * LOGPROB_THREADS + threadIdx.x) * EACH, target = targets[n];
    if (j >= V)
        return;
    const float l = lse[n], by = dlogprob[n];
    const float *z = logits + (size_t)n * V + j;
    T *dz = dlogits + (size_t)n * V + j;
    if constexpr (EACH == 4) {
        const float4 v = load4(z);
        store4(dz, target < 0 ? make_float4(0, 0, 0, 0)
                              : make_float4(slope(v.x, j, l, target, by), slope(v.y, j + 1, l, target, by),
                                            slope(v.z, j + 2, l, target, by), slope(v.w, j + 3, l, target, by)));
    } else
        *dz = from_float<T>(target < 0 ? 0 : slope(*z, j, l, target, by));
}

template <class T, int EACH>
static void launch_slopes(backend *b, tensor dlogits, tensor logits, const float *lse, const int32_t *targets,
                          const float *dlogprob)
{
    const unsigned across = blocks_for((size_t)logits.cols, LOGPROB_THREADS * EACH);
    LAUNCH((logprob_slopes<T, EACH>), dim3((unsigned)logits.rows, across), LOGPROB_THREADS, 0, cuda(b)->stream,
           (T *)dlogits.data, logits.data, lse, targets, dlogprob, logits.cols);
}

void cuda_logprob_backward(backend *b, tensor dlogits, tensor logits, const float *lse, const int32_t *targets,
                           const float *dlogprob)
{
    cuda_by_type(dlogits.type, [&](auto *element) {
        typedef typename std::remove_pointer<decltype(element)>::type T;
        if (logits.cols % 4 == 0)
            launch_slopes<T, 4>(b, dlogits, logits, lse, targets, dlogprob);
        else
            launch_slopes<T, 1>(b, dlogits, logits, lse, targets, dlogprob);
    });
    CUDA_OP_END(b);
}
