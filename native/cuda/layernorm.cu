/* Layer normalisation; formulas in native/ref/layernorm.c.
 *
 * Forward: a row is read once; mean and variance are two passes over registers.
 * Bytes an element, bf16 (fp32): layernorm_forward 6 (8), with the residual
 * fused 12 (16) instead of 16 (20) for the two ops. Bound by memory (estimate):
 * of a GPT-2 row of 768 a block of 96 threads has 3 to 7 kB in flight, and an
 * SM holds about twenty blocks, four times what its share of 3.35 TB/s needs. */
#include "layernorm.cuh"

/* mean and rstd of the row whose packets the threads hold; 0 beyond its end. */
__device__ __forceinline__ void row_moments(float &mean, float &rstd, const packet &p, bool inside, int C,
                                            float epsilon, float *scratch)
{
    float sum = 0, squares = 0;
#pragma unroll
    for (int i = 0; i < PACKET; i++)
        sum += p.at[i];
    mean = block_sum(sum, scratch) / (float)C;
#pragma unroll
    for (int i = 0; i < PACKET; i++)
        squares = fmaf(p.at[i] - mean, p.at[i] - mean, squares);
    rstd = rsqrtf(block_sum(inside ? squares : 0.0f, scratch) / (float)C + epsilon);
}

/* The row whose packets the threads hold, normalised. Both forward kernels end
 * with it, and no expression of it can be fused otherwise: the same bits. */
template <class T>
__device__ __forceinline__ void normalise_row(T *out, float *mean_of, float *rstd_of, const packet &p,
                                              const float *gain, const float *bias, int C, float epsilon)
{
    SHARED(float, scratch, [32]);
    const int c = (int)threadIdx.x * PACKET;
    const bool inside = c < C;
    float mean, rstd;
    row_moments(mean, rstd, p, inside, C, epsilon, scratch);
    if (inside) {
        packet g = load_packet(gain + c), shift = load_packet(bias + c);
#pragma unroll
        for (int i = 0; i < PACKET; i++)
            g.at[i] = fmaf(__fmul_rn(p.at[i] - mean, rstd), g.at[i], shift.at[i]);
        store_packet(out + (size_t)blockIdx.x * C + c, g);
    }
    if (threadIdx.x == 0) {
        mean_of[blockIdx.x] = mean;
        rstd_of[blockIdx.x] = rstd;
    }
}

template <class T>
static __global__ void __launch_bounds__(NORM_THREADS)
    norm_forward(T *__restrict__ out, float *__restrict__ mean, float *__restrict__ rstd, const float *__restrict__ x,
                 const float *__restrict__ gain, const float *__restrict__ bias, int C, float epsilon)
{
    const int c = (int)threadIdx.x * PACKET;
    packet p = {};
    if (c < C)
        p = load_packet(x + (size_t)blockIdx.x * C + c);
    normalise_row(out, mean, rstd, p, gain, bias, C, epsilon);
}

void cuda_layernorm_forward(backend *b, tensor out, float *mean, float *rstd, tensor x, const float *gain,
                            const float *bias, float epsilon)
{
    int C = x.cols;
    if (!norm_by_packets(C, out.data, x.data, gain, bias))
        norm_forward_plain(b, out, mean, rstd, x, gain, bias, epsilon);
    else
        cuda_by_type(out.type, [&](auto *e) {
            typedef typename std::remove_pointer<decltype(e)>::type T;
            LAUNCH((norm_forward<T>), x.rows, norm_threads(C), 0, cuda(b)->stream, (T *)out.data, mean, rstd, x.data,
                   gain, bias, C, epsilon);
        });
    CUDA_OP_END(b);
}

/* out may be a. */
template <class T>
static __global__ void __launch_bounds__(NORM_THREADS)
    residual_norm_forward(float *out, T *__restrict__ norm, float *__restrict__ mean, float *__restrict__ rstd,
                          const float *a, const T *__restrict__ x, const float *__restrict__ gain,
                          const float *__restrict__ bias, int C, float epsilon, dropout_mask mask)
{
    const int c = (int)threadIdx.x * PACKET;
    packet sum = {};
    if (c < C) {
        size_t i = (size_t)blockIdx.x * C + c;
        packet p = load_packet(x + i);
        sum = load_packet(a + i);
        drop_quads(p, mask, i);
#pragma unroll
        for (int k = 0; k < PACKET; k++)
            sum.at[k] = __fadd_rn(sum.at[k], p.at[k]);
        store_packet(out + i, sum);
    }
    normalise_row(norm, mean, rstd, sum, gain, bias, C, epsilon);
}

void cuda_residual_layernorm_forward(backend *b, tensor out, tensor norm, float *mean, float *rstd, tensor a, tensor x,
                                     const float *gain, const float *bias, float epsilon, dropout drop)
{
    int C = x.cols;
    if (!norm_by_packets(C, out.data, norm.data, a.data, x.data, gain, bias)) {
        cuda_residual_forward(b, out, a, x, drop);
        norm_forward_plain(b, norm, mean, rstd, out, gain, bias, epsilon);
    } else {
        cuda_by_type(norm.type, [&](auto *e) {
            typedef typename std::remove_pointer<decltype(e)>::type T;
            LAUNCH((residual_norm_forward<T>), x.rows, norm_threads(C), 0, cuda(b)->stream, out.data, (T *)norm.data,
                   mean, rstd, a.data, (const T *)x.data, gain, bias, C, epsilon, dropout_mask_of(drop));
        });
    }
    CUDA_OP_END(b);
}
