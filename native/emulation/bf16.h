/* bf16.h: CUDA's bf16 type and the conversions that kernels use; rounding is
 * to nearest, ties to even, NaN becomes 0x7fff as on the device. */
#ifndef EMULATION_BF16_H
#define EMULATION_BF16_H

#include <stdint.h>
#include <string.h>

struct __nv_bfloat16_raw {
    uint16_t x;
};

struct __nv_bfloat16 {
    uint16_t bits;
    __nv_bfloat16() = default;
    __nv_bfloat16(__nv_bfloat16_raw raw) : bits(raw.x) {}
    __nv_bfloat16(float value)
    {
        uint32_t u;
        memcpy(&u, &value, sizeof u);
        bits = (uint16_t)((u & 0x7fffffffu) > 0x7f800000u ? 0x7fffu : (u + 0x7fffu + (u >> 16 & 1)) >> 16);
    }
    operator float() const
    {
        uint32_t u = (uint32_t)bits << 16;
        float value;
        memcpy(&value, &u, sizeof value);
        return value;
    }
};

struct alignas(4) __nv_bfloat162 {
    __nv_bfloat16 x, y;
};

inline float __bfloat162float(__nv_bfloat16 v) { return v; }
inline __nv_bfloat16 __float2bfloat16(float v) { return v; }
inline __nv_bfloat16 __float2bfloat16_rn(float v) { return v; }
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return {x, y}; }
inline __nv_bfloat162 __float22bfloat162_rn(float2 v) { return {v.x, v.y}; }
inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) { return {x, y}; }
inline float2 __bfloat1622float2(__nv_bfloat162 v) { return {v.x, v.y}; }
inline float __low2float(__nv_bfloat162 v) { return v.x; }
inline float __high2float(__nv_bfloat162 v) { return v.y; }
inline uint16_t __bfloat16_as_ushort(__nv_bfloat16 v) { return v.bits; }
inline __nv_bfloat16 __ushort_as_bfloat16(uint16_t v) { return __nv_bfloat16_raw{v}; }

#endif
