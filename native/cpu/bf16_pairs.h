/* Pairs of numbers rounded to bf16 (to nearest, ties to even), as VDPBF16PS
 * multiplies them: the first in the lower half of 32 bits. */
#ifndef ONCEUPON_BF16_PAIRS_H
#define ONCEUPON_BF16_PAIRS_H

#include "simd.h"

/* Numbers 0..n-1 of p, then zeros; n of any size. */
static inline vec load_first(const float *p, int n)
{
    return n >= LANES ? vec_load(p) : n <= 0 ? vec_set(0) : vec_load_part(p, n, 0);
}

/* Neighbours of 2 LANES numbers: those of `low`, then those of `high`. */
static inline __m512i neighbours(vec low, vec high) { return (__m512i)_mm512_cvtne2ps_pbh(high, low); }

/* Pairs (a[i], b[i]). */
static inline __m512i paired(vec a, vec b)
{
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                           21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, neighbours(a, b));
}

/* The first n pairs. */
static inline __mmask16 first_pairs(int n) { return (__mmask16)(n >= LANES ? 0xffff : (1u << n) - 1); }

static inline void store_first(uint32_t *to, int n, __m512i x) { _mm512_mask_storeu_epi32(to, first_pairs(n), x); }

#endif
