/* element.cuh: elements of tensors, float or bf16; kernels are templates over
 * them and compute in float. */
#ifndef CUDA_ELEMENT_CUH
#define CUDA_ELEMENT_CUH

typedef __nv_bfloat16 bf16;

__device__ __forceinline__ float to_float(float v) { return v; }
__device__ __forceinline__ float to_float(bf16 v) { return __bfloat162float(v); }

template <class T> __device__ __forceinline__ T from_float(float v);
template <> __device__ __forceinline__ float from_float<float>(float v) { return v; }
template <> __device__ __forceinline__ bf16 from_float<bf16>(float v) { return __float2bfloat16(v); }

/* Two bf16 in the register of an mma fragment, the first in the low half. */
__device__ __forceinline__ uint32_t pack_bf16(float low, float high)
{
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    uint32_t bits;
    memcpy(&bits, &pair, sizeof bits);
    return bits;
}
__device__ __forceinline__ float low_bf16(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high_bf16(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

/* 16 bytes of elements: 4 floats or 8 bf16. */
template <class T> struct __align__(16) wide {
    static constexpr int count = 16 / (int)sizeof(T);
    T at[count];
};

/* Pointers must be multiples of 16 bytes. */
template <class T> __device__ __forceinline__ wide<T> load_wide(const T *from) { return *(const wide<T> *)from; }
template <class T> __device__ __forceinline__ void store_wide(T *to, wide<T> v) { *(wide<T> *)to = v; }

/* 4 elements as floats; pointers must be multiples of 4 elements. */
__device__ __forceinline__ float4 load4(const float *from) { return *(const float4 *)from; }
__device__ __forceinline__ float4 load4(const bf16 *from)
{
    uint2 u = *(const uint2 *)from;
    return make_float4(low_bf16(u.x), high_bf16(u.x), low_bf16(u.y), high_bf16(u.y));
}
__device__ __forceinline__ void store4(float *to, float4 v) { *(float4 *)to = v; }
__device__ __forceinline__ void store4(bf16 *to, float4 v)
{
    *(uint2 *)to = make_uint2(pack_bf16(v.x, v.y), pack_bf16(v.z, v.w));
}

/* 2 elements as floats; pointers must be multiples of 2 elements. */
__device__ __forceinline__ float2 load2(const float *from) { return *(const float2 *)from; }
__device__ __forceinline__ float2 load2(const bf16 *from)
{
    uint32_t u = *(const uint32_t *)from;
    return make_float2(low_bf16(u), high_bf16(u));
}
__device__ __forceinline__ void store2(float *to, float2 v) { *(float2 *)to = v; }
__device__ __forceinline__ void store2(bf16 *to, float2 v) { *(uint32_t *)to = pack_bf16(v.x, v.y); }

#endif
