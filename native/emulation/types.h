/* types.h: the words of CUDA C++ as C++: qualifiers, vectors, dimensions. */
#ifndef EMULATION_TYPES_H
#define EMULATION_TYPES_H

#include <stdint.h>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __constant__ static
#define __align__(n) __attribute__((aligned(n)))

struct uint3 {
    unsigned x, y, z;
};

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};

#define EMULATION_VECTOR2(name, type)                                                                                  \
    struct alignas(2 * sizeof(type)) name {                                                                            \
        type x, y;                                                                                                     \
    };                                                                                                                 \
    inline name make_##name(type x, type y) { return {x, y}; }
#define EMULATION_VECTOR4(name, type)                                                                                  \
    struct alignas(sizeof(type) < 8 ? 4 * sizeof(type) : 16) name {                                                    \
        type x, y, z, w;                                                                                               \
    };                                                                                                                 \
    inline name make_##name(type x, type y, type z, type w) { return {x, y, z, w}; }

EMULATION_VECTOR2(float2, float)
EMULATION_VECTOR2(int2, int)
EMULATION_VECTOR2(uint2, unsigned)
EMULATION_VECTOR2(double2, double)
EMULATION_VECTOR4(float4, float)
EMULATION_VECTOR4(int4, int)
EMULATION_VECTOR4(uint4, unsigned)
#undef EMULATION_VECTOR2
#undef EMULATION_VECTOR4

#endif
