/* gelu.cuh: GELU as its gate, for the kernels that compute it: the elementwise
 * ones and the epilogues of multiplications, which must agree to the bit.
 *   y = x/2 (1 + tanh u) = x s,  s = 1 / (1 + exp(-2u)),
 *   u = sqrt(2/pi) (x + 0.044715 x^3);  dy/dx = s + x s (1 - s) 2 du/dx
 * (native/ref/gelu.c). The gate does not cancel at negative x, as 1 + tanh
 * does. T is the type that the result is stored in: fp32 takes the exact exp
 * and division; bf16 keeps 8 bits, so that the device's approximations (ex2,
 * rcp: 2 instructions each) lose nothing and an epilogue stays short. */
#ifndef CUDA_GELU_CUH
#define CUDA_GELU_CUH

#include "device.cuh"

#define GELU_ROOT 0.79788456080286535588f /* sqrt(2 / pi) */
#define GELU_CUBIC 0.044715f

/* -2u; the fused multiply-add is written out, so that every kernel has it. */
__device__ __forceinline__ float gelu_argument(float x) { return -2.0f * GELU_ROOT * fmaf(GELU_CUBIC * x * x, x, x); }

template <class T> __device__ __forceinline__ float gelu_gate(float x);
template <> __device__ __forceinline__ float gelu_gate<float>(float x)
{
    return 1.0f / (1.0f + expf(gelu_argument(x)));
}
template <> __device__ __forceinline__ float gelu_gate<bf16>(float x)
{
    return __fdividef(1.0f, 1.0f + __expf(gelu_argument(x)));
}

template <class T> __device__ __forceinline__ float gelu_value(float x) { return x * gelu_gate<T>(x); }

template <class T> __device__ __forceinline__ float gelu_slope(float x)
{
    float s = gelu_gate<T>(x);
    return s + x * s * (1.0f - s) * (2.0f * GELU_ROOT * (1.0f + 3.0f * GELU_CUBIC * x * x));
}

#endif
