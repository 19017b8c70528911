/* dropout.cuh: the factors of native/ref/dropout.c, the same to the bit. One
 * Philox call decides four elements. */
#ifndef CUDA_DROPOUT_CUH
#define CUDA_DROPOUT_CUH

#include "ops.cuh"
#include "packet.cuh"

struct dropout_mask {
    uint64_t seed, step;
    uint32_t site, threshold; /* an element stays when its 32 bits reach the threshold */
    float kept;               /* its factor then */
    bool on;
};

static inline dropout_mask dropout_mask_of(dropout d)
{
    if (!(d.probability > 0))
        return {0, 0, 0, 0, 1, false};
    return {d.seed, d.step, d.site, (uint32_t)(d.probability * 4294967296.0), 1 / (1 - d.probability), true};
}

/* Factors of elements 4 * quad .. 4 * quad + 3. */
__device__ __forceinline__ void dropout_quad(float *factors, const dropout_mask &m, uint64_t quad)
{
    uint32_t draws[4];
    philox_dropout(m.seed, m.step, m.site, quad, draws);
#pragma unroll
    for (int i = 0; i < 4; i++)
        factors[i] = draws[i] < m.threshold ? 0.0f : m.kept;
}

__device__ __forceinline__ float dropout_factor(const dropout_mask &m, uint64_t element)
{
    if (!m.on)
        return 1;
    uint32_t draws[4];
    philox_dropout(m.seed, m.step, m.site, element / 4, draws);
    uint32_t low = element & 1 ? draws[1] : draws[0], high = element & 1 ? draws[3] : draws[2];
    return (element & 2 ? high : low) < m.threshold ? 0.0f : m.kept;
}

/* p times the factors of the elements from `first` on, a multiple of four. */
__device__ __forceinline__ void drop_quads(packet &p, const dropout_mask &m, uint64_t first)
{
    if (!m.on)
        return;
    packet factors;
    dropout_quad(factors.at, m, first / 4);
    dropout_quad(factors.at + 4, m, first / 4 + 1);
#pragma unroll
    for (int i = 0; i < PACKET; i++)
        p.at[i] *= factors.at[i];
}

/* The same from any element on; a Philox call each where `aligned` is false. */
__device__ __forceinline__ void drop_packet(packet &p, const dropout_mask &m, uint64_t first, bool aligned)
{
    if (aligned) {
        drop_quads(p, m, first);
        return;
    }
#pragma unroll 1
    for (int i = 0; i < PACKET; i++) {
        float factor = dropout_factor(m, first + (uint64_t)i);
#pragma unroll
        for (int k = 0; k < PACKET; k++)
            p.at[k] *= k == i ? factor : 1.0f;
    }
}

#endif
