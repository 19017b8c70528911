/* philox.h: the counter-based generator behind sampling and dropout:
 * Philox 4x32 with 10 rounds (Salmon et al., "Parallel random numbers: as
 * easy as 1, 2, 3", SC 2011). No state: the same key and counter give the
 * same bits on every backend, in any order. */
#ifndef ONCEUPON_PHILOX_H
#define ONCEUPON_PHILOX_H

#include <stdint.h>

#ifdef __CUDACC__
#define PHILOX_FN static __host__ __device__ inline
#else
#define PHILOX_FN static inline
#endif

PHILOX_FN void philox4x32(const uint32_t counter[4], uint64_t key, uint32_t out[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* The uniform number in [0, 1) that decides token `position` of a story. */
PHILOX_FN double philox_uniform(uint64_t seed, uint64_t story, uint32_t position)
{
    const uint32_t counter[4] = {position, (uint32_t)story, (uint32_t)(story >> 32), 0x73746f72u};
    uint32_t r[4];
    philox4x32(counter, seed, r);
    return (double)(((uint64_t)r[0] << 21) ^ (r[1] >> 11)) * 0x1p-53;
}

/* Four dropout draws: elements 4 * quad .. 4 * quad + 3 of a site. */
PHILOX_FN void philox_dropout(uint64_t seed, uint64_t step, uint32_t site, uint64_t quad, uint32_t out[4])
{
    const uint32_t counter[4] = {(uint32_t)quad, (uint32_t)(quad >> 32), site, (uint32_t)step};
    philox4x32(counter, seed ^ (step >> 32 << 32), out);
}

#endif
