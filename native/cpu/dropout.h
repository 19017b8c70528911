/* Dropout factors by vectors: the same bits as ref_dropout_factor, sixteen
 * groups of four elements at a time. */
#ifndef ONCEUPON_CPU_DROPOUT_H
#define ONCEUPON_CPU_DROPOUT_H

#include "ops.h"
#include "simd.h"

#define DROPOUT_QUADS 16
#define DROPOUT_BLOCK (4 * DROPOUT_QUADS)

#if LANES == 16
/* The halves of the 64-bit products of 16 numbers with m. */
static inline void multiply_wide(__m512i *high, __m512i *low, __m512i x, uint32_t m)
{
    __m512i factor = _mm512_set1_epi32((int)m);
    __m512i even = _mm512_mul_epu32(x, factor), odd = _mm512_mul_epu32(_mm512_srli_epi64(x, 32), factor);
    *high = _mm512_mask_blend_epi32(0xAAAA, _mm512_srli_epi64(even, 32), odd);
    *low = _mm512_mask_blend_epi32(0xAAAA, even, _mm512_slli_epi64(odd, 32));
}

/* Philox 4x32-10 (philox.h) of DROPOUT_QUADS counters that follow one another,
 * and the factors of their draws in the order of the elements. */
static inline void dropout_block(float *to, dropout drop, uint64_t quad, uint32_t threshold, float kept)
{
    uint64_t key = drop.seed ^ (drop.step >> 32 << 32);
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    __m512i first = _mm512_set1_epi32((int)(uint32_t)quad), one = _mm512_set1_epi32(1);
    __m512i x0 = _mm512_add_epi32(first, _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0));
    __m512i x1 = _mm512_set1_epi32((int)(quad >> 32));
    x1 = _mm512_mask_add_epi32(x1, _mm512_cmplt_epu32_mask(x0, first), x1, one);
    __m512i x2 = _mm512_set1_epi32((int)drop.site), x3 = _mm512_set1_epi32((int)(uint32_t)drop.step);
    for (int round = 0; round < 10; round++) {
        __m512i high0, low0, high2, low2;
        multiply_wide(&high0, &low0, x0, 0xD2511F53u);
        multiply_wide(&high2, &low2, x2, 0xCD9E8D57u);
        x0 = _mm512_xor_si512(_mm512_xor_si512(high2, x1), _mm512_set1_epi32((int)k0));
        x2 = _mm512_xor_si512(_mm512_xor_si512(high0, x3), _mm512_set1_epi32((int)k1));
        x1 = low2;
        x3 = low0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    __m512i least = _mm512_set1_epi32((int)threshold);
    vec value = vec_set(kept);
    vec f0 = _mm512_maskz_mov_ps(_mm512_cmpge_epu32_mask(x0, least), value);
    vec f1 = _mm512_maskz_mov_ps(_mm512_cmpge_epu32_mask(x1, least), value);
    vec f2 = _mm512_maskz_mov_ps(_mm512_cmpge_epu32_mask(x2, least), value);
    vec f3 = _mm512_maskz_mov_ps(_mm512_cmpge_epu32_mask(x3, least), value);
    /* Draw c of quad q is element 4 q + c: quads come together inside the four
     * quarters of a vector, then quarters change places. */
    __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(f0, f1)), b = _mm512_castps_pd(_mm512_unpackhi_ps(f0, f1));
    __m512d c = _mm512_castps_pd(_mm512_unpacklo_ps(f2, f3)), d = _mm512_castps_pd(_mm512_unpackhi_ps(f2, f3));
    vec q0 = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c)), q1 = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
    vec q2 = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d)), q3 = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
    vec low01 = _mm512_shuffle_f32x4(q0, q1, 0x44), low23 = _mm512_shuffle_f32x4(q2, q3, 0x44);
    vec high01 = _mm512_shuffle_f32x4(q0, q1, 0xEE), high23 = _mm512_shuffle_f32x4(q2, q3, 0xEE);
    vec_store(to, _mm512_shuffle_f32x4(low01, low23, 0x88));
    vec_store(to + 16, _mm512_shuffle_f32x4(low01, low23, 0xDD));
    vec_store(to + 32, _mm512_shuffle_f32x4(high01, high23, 0x88));
    vec_store(to + 48, _mm512_shuffle_f32x4(high01, high23, 0xDD));
}
#else
/* Philox 4x32-10 (philox.h) of DROPOUT_QUADS counters that follow one another. */
static inline void dropout_draws(uint32_t out[4][DROPOUT_QUADS], dropout drop, uint64_t quad)
{
    uint32_t k0 = (uint32_t)(drop.seed ^ (drop.step >> 32 << 32));
    uint32_t k1 = (uint32_t)((drop.seed ^ (drop.step >> 32 << 32)) >> 32);
    for (int q = 0; q < DROPOUT_QUADS; q++) {
        out[0][q] = (uint32_t)(quad + (uint64_t)q);
        out[1][q] = (uint32_t)((quad + (uint64_t)q) >> 32);
        out[2][q] = drop.site;
        out[3][q] = (uint32_t)drop.step;
    }
    for (int round = 0; round < 10; round++) {
        for (int q = 0; q < DROPOUT_QUADS; q++) {
            uint64_t p0 = (uint64_t)0xD2511F53u * out[0][q], p1 = (uint64_t)0xCD9E8D57u * out[2][q];
            out[0][q] = (uint32_t)(p1 >> 32) ^ out[1][q] ^ k0;
            out[2][q] = (uint32_t)(p0 >> 32) ^ out[3][q] ^ k1;
            out[1][q] = (uint32_t)p1;
            out[3][q] = (uint32_t)p0;
        }
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

static inline void dropout_block(float *to, dropout drop, uint64_t quad, uint32_t threshold, float kept)
{
    uint32_t draws[4][DROPOUT_QUADS];
    dropout_draws(draws, drop, quad);
    for (int q = 0; q < DROPOUT_QUADS; q++)
        for (int c = 0; c < 4; c++)
            to[4 * q + c] = draws[c][q] < threshold ? 0 : kept;
}
#endif

/* to[0..count) = factors of the elements from `first` on; to has room for
 * count + 2 * DROPOUT_BLOCK. Returns where the first factor stands. */
static inline const float *dropout_factors(float *to, dropout drop, uint64_t first, int count)
{
    first += drop.first;
    uint32_t threshold = (uint32_t)(drop.probability * 4294967296.0);
    float kept = 1 / (1 - drop.probability);
    int skip = (int)(first % 4);
    for (int i = 0; i < skip + count; i += DROPOUT_BLOCK)
        dropout_block(to + i, drop, (first - (uint64_t)skip + (uint64_t)i) / 4, threshold, kept);
    return to + skip;
}

#endif
