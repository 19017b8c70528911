/* bf16 of the tests: to nearest, ties to even; every NaN becomes one. */
#ifndef ONCEUPON_TEST_BF16_H
#define ONCEUPON_TEST_BF16_H

#include <stdint.h>
#include <string.h>

static inline uint16_t to_bf16(float v)
{
    uint32_t u;
    memcpy(&u, &v, sizeof u);
    if ((u & 0x7fffffffu) > 0x7f800000u)
        return 0x7fff;
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1)) >> 16);
}

static inline float from_bf16(uint16_t v)
{
    uint32_t u = (uint32_t)v << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

#endif
