/* The norm of the gradient and AdamW; formulas in native/ref/adamw.c. Nobody
 * waits for the norm: adamw reads it on the card.
 *
 * Bytes a parameter: gradient_norm 4, adamw 28 (w, m, v read and written, g
 * read). Bound by memory (estimates): four packets of 16 bytes a thread in
 * flight for the norm; for adamw 64 bytes a thread, 128 kB an SM. A double
 * multiply-add a parameter keeps up on cards with fp64 units (A100, H100);
 * elsewhere, at two a cycle and SM, the norm takes about as long as its bytes. */
#include "ops.cuh"

enum { THREADS = 256, NORM_BLOCKS = 1024, NORM_AHEAD = 4, ADAMW_ELEMENTS = 4 };

size_t cuda_optimizer_workspace(const backend_limits *) { return NORM_BLOCKS * sizeof(double); }

__device__ __forceinline__ double square(float g) { return (double)g * (double)g; }

/* partial[block] = sum of squares of the block's share: every gridDim-th tile of
 * THREADS * NORM_AHEAD vectors. The order depends on count alone. */
static __global__ void __launch_bounds__(THREADS)
    sum_squares(double *__restrict__ partial, const float *__restrict__ g, size_t count)
{
    SHARED(double, scratch, [32]);
    const size_t vectors = count / 4, stride = (size_t)gridDim.x * THREADS * NORM_AHEAD;
    double sum = 0;
    for (size_t first = (size_t)blockIdx.x * THREADS * NORM_AHEAD + threadIdx.x; first < vectors; first += stride) {
        float4 v[NORM_AHEAD];
#pragma unroll
        for (int k = 0; k < NORM_AHEAD; k++) {
            size_t i = first + (size_t)k * THREADS;
            v[k] = i < vectors ? load4(g + 4 * i) : make_float4(0, 0, 0, 0);
        }
#pragma unroll
        for (int k = 0; k < NORM_AHEAD; k++)
            sum += square(v[k].x) + square(v[k].y) + square(v[k].z) + square(v[k].w);
    }
    if (blockIdx.x == 0 && threadIdx.x < count % 4)
        sum += square(g[4 * vectors + threadIdx.x]);
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0)
        partial[blockIdx.x] = sum;
}

static __global__ void __launch_bounds__(THREADS) root_of_sum(double *norm, const double *partial, int blocks)
{
    SHARED(double, scratch, [32]);
    double sum = 0;
    for (int i = (int)threadIdx.x; i < blocks; i += THREADS)
        sum += partial[i];
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0)
        *norm = sqrt(sum);
}

void cuda_gradient_norm(backend *b, double *norm, const float *g, size_t count)
{
    double *partial = (double *)cuda_workspace(b, NORM_BLOCKS * sizeof(double), __func__);
    if (!partial)
        return;
    unsigned blocks = blocks_for(count, THREADS * NORM_AHEAD * 4);
    blocks = blocks < 1 ? 1 : blocks < NORM_BLOCKS ? blocks : (unsigned)NORM_BLOCKS;
    LAUNCH(sum_squares, blocks, THREADS, 0, cuda(b)->stream, partial, g, count);
    LAUNCH(root_of_sum, 1, THREADS, 0, cuda(b)->stream, norm, partial, (int)blocks);
    CUDA_OP_END(b);
}

/* What does not depend on the element or the norm, as fp32. */
struct adamw_factors {
    float beta1, rest1, beta2, rest2, keep, step, root_scale, epsilon, max_grad_norm;
    size_t decayed;
};

__device__ __forceinline__ void adamw_element(float &w, float g, float &m, float &v, float scale, size_t i,
                                              const adamw_factors &f)
{
    const float keep = i < f.decayed ? f.keep : 1;
    g *= scale;
    m = fmaf(f.rest1, g, f.beta1 * m);
    v = fmaf(f.rest2, g * g, f.beta2 * v);
    w = w * keep - f.step * m / (sqrtf(v) * f.root_scale + f.epsilon);
}

static __global__ void __launch_bounds__(THREADS)
    adamw(float *__restrict__ w, const float *__restrict__ g, float *__restrict__ m, float *__restrict__ v,
          size_t count, const double *__restrict__ norm, adamw_factors f)
{
    /* One division in double a block: fp64 is slow on most cards. */
    SHARED(float, shared_scale, [1]);
    if (threadIdx.x == 0)
        shared_scale[0] = isfinite(*norm) ? (float)adamw_gradient_scale(*norm, f.max_grad_norm) : NAN;
    __syncthreads();
    const float scale = shared_scale[0];
    const size_t i = ((size_t)blockIdx.x * THREADS + threadIdx.x) * ADAMW_ELEMENTS;
    if (isnan(scale) || i >= count)
        return;
    if (i + ADAMW_ELEMENTS <= count) {
        float4 wi = load4(w + i), gi = load4(g + i), mi = load4(m + i), vi = load4(v + i);
        adamw_element(wi.x, gi.x, mi.x, vi.x, scale, i, f);
        adamw_element(wi.y, gi.y, mi.y, vi.y, scale, i + 1, f);
        adamw_element(wi.z, gi.z, mi.z, vi.z, scale, i + 2, f);
        adamw_element(wi.w, gi.w, mi.w, vi.w, scale, i + 3, f);
        store4(w + i, wi);
        store4(m + i, mi);
        store4(v + i, vi);
        return;
    }
    for (size_t k = i; k < count; k++)
        adamw_element(w[k], g[k], m[k], v[k], scale, k, f);
}

void cuda_adamw(backend *b, float *w, const float *g, float *m, float *v, size_t count, const double *norm,
                adamw_options o)
{
    double correction1 = 1 - pow(o.beta1, (double)o.step), correction2 = 1 - pow(o.beta2, (double)o.step);
    adamw_factors f = {.beta1 = (float)o.beta1,
                       .rest1 = (float)(1 - o.beta1),
                       .beta2 = (float)o.beta2,
                       .rest2 = (float)(1 - o.beta2),
                       .keep = (float)(1 - o.lr * o.weight_decay),
                       .step = (float)(o.lr / correction1),
                       .root_scale = (float)(1 / sqrt(correction2)),
                       .epsilon = (float)o.epsilon,
                       .max_grad_norm = o.max_grad_norm,
                       .decayed = o.decayed};
    LAUNCH(adamw, blocks_for(count, THREADS * ADAMW_ELEMENTS), THREADS, 0, cuda(b)->stream, w, g, m, v, count, norm, f);
    CUDA_OP_END(b);
}
