/* reduce.cuh: sums and maxima of a warp or a block, in one order, so that the
 * same bits come out every time; every thread gets the result. Blocks are one-
 * dimensional and of whole warps. */
#ifndef CUDA_REDUCE_CUH
#define CUDA_REDUCE_CUH

#define FULL_WARP 0xffffffffu

template <class T> __device__ __forceinline__ T warp_sum(T v)
{
#pragma unroll
    for (int bits = 16; bits > 0; bits >>= 1)
        v += __shfl_xor_sync(FULL_WARP, v, bits);
    return v;
}

__device__ __forceinline__ float warp_max(float v)
{
#pragma unroll
    for (int bits = 16; bits > 0; bits >>= 1)
        v = fmaxf(v, __shfl_xor_sync(FULL_WARP, v, bits));
    return v;
}

/* `scratch` holds a value a warp, 32 at most, and may be used again at once. */
template <class T> __device__ __forceinline__ T block_sum(T v, T *scratch)
{
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
    v = warp_sum(v);
    __syncthreads();
    if (lane == 0)
        scratch[warp] = v;
    __syncthreads();
    return warp_sum(lane < warps ? scratch[lane] : T(0));
}

__device__ __forceinline__ float block_max(float v, float *scratch)
{
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
    v = warp_max(v);
    __syncthreads();
    if (lane == 0)
        scratch[warp] = v;
    __syncthreads();
    return warp_max(lane < warps ? scratch[lane] : -INFINITY);
}

#endif
