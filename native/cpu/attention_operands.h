/* What attention multiplies: fp32 numbers; or, for processors with VDPBF16PS,
 * pairs of numbers rounded to bf16 (to nearest, ties to even) whose products
 * are added to an fp32 sum one after the other. A pair is two neighbours along
 * what is summed over: two elements of a head for scores, two keys for weighted
 * sums, two queries for the gradients of keys and values. An odd end is filled
 * with 0. Scores, their exponentials and all sums are fp32. */
#ifndef ONCEUPON_ATTENTION_OPERANDS_H
#define ONCEUPON_ATTENTION_OPERANDS_H

#include "simd.h"

static inline int padded(int n) { return (n + LANES - 1) / LANES * LANES; }

#if defined(__AVX512BF16__)
#include "bf16_pairs.h"
#define PAIR 2
typedef uint32_t operand; /* the first of the pair in the lower half */
typedef __m512bh operands;
static inline operands operands_load(const operand *p) { return (operands)_mm512_loadu_si512(p); }
static inline operands operands_set(operand x) { return (operands)_mm512_set1_epi32((int)x); }
static inline vec multiply_add(operands a, operands b, vec sum) { return _mm512_dpbf16_ps(sum, a, b); }
#else
#define PAIR 1
typedef float operand;
typedef vec operands;
static inline operands operands_load(const operand *p) { return vec_load(p); }
static inline operands operands_set(operand x) { return vec_set(x); }
static inline vec multiply_add(operands a, operands b, vec sum) { return vec_fma(a, b, sum); }
#endif

/* Factors of n numbers. */
static inline int depth(int n) { return (n + PAIR - 1) / PAIR; }

/* to [depth(n)] = x [n] paired with itself; to may be x. */
static inline void pack_row(operand *to, const float *x, int n)
{
#if PAIR == 2
    int i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES)
        _mm512_storeu_si512(to + i / 2, neighbours(vec_load(x + i), vec_load(x + i + LANES)));
    if (i < n)
        store_first(to + i / 2, depth(n - i),
                    neighbours(load_first(x + i, n - i), load_first(x + i + LANES, n - i - LANES)));
#else
    if (to != x)
        memcpy(to, x, (size_t)n * sizeof(float));
#endif
}

/* Rows of x [rows][n], `stride` apart, each paired with itself; x where nothing
 * has to be done. */
static inline const operand *packed_rows(operand *to, const float *x, size_t *stride, int rows, int n)
{
#if PAIR == 1
    (void)to, (void)stride, (void)rows, (void)n;
    return x;
#else
    for (int r = 0; r < rows; r++)
        pack_row(to + (size_t)r * (size_t)depth(n), x + (size_t)r * *stride, n);
    *stride = (size_t)depth(n);
    return to;
#endif
}

/* to [n] = rows a and b of x paired with each other; b NULL: with 0. */
static inline void pack_stack(operand *to, const float *a, const float *b, int n)
{
#if PAIR == 2
    int i = 0;
    for (; b && i + LANES <= n; i += LANES)
        _mm512_storeu_si512(to + i, paired(vec_load(a + i), vec_load(b + i)));
    for (; i < n; i += LANES)
        store_first(to + i, n - i, paired(load_first(a + i, n - i), b ? load_first(b + i, n - i) : vec_set(0)));
#else
    (void)b;
    memcpy(to, a, (size_t)n * sizeof(float));
#endif
}

/* to [n] = the first numbers of the pairs `first` with x as the second. */
static inline void pack_second(operand *to, const operand *first, const float *x, int n)
{
#if PAIR == 2
    for (int i = 0; i < n; i += LANES) {
        __m512i low =
            _mm512_and_si512(_mm512_maskz_loadu_epi32(first_pairs(n - i), first + i), _mm512_set1_epi32(0xffff));
        store_first(to + i, n - i, _mm512_or_si512(low, paired(vec_set(0), load_first(x + i, n - i))));
    }
#else
    (void)to, (void)first, (void)x, (void)n;
#endif
}

/* Rows of x [rows][n] paired with each other: [depth(rows)][n padded], zero
 * filled; x where nothing has to be done. */
static inline const operand *stacked_rows(operand *to, const float *x, size_t *stride, int rows, int n)
{
#if PAIR == 1
    if (n % LANES == 0)
        return x;
#endif
    size_t width = (size_t)padded(n);
    for (int r = 0; r < rows; r += PAIR, to += width) {
        const float *row = x + (size_t)r * *stride;
        pack_stack(to, row, r + 1 < rows ? row + *stride : NULL, n);
        memset(to + n, 0, (width - (size_t)n) * sizeof *to);
    }
    *stride = width;
    return to - (size_t)depth(rows) * width;
}

/* to [n][keys padded] = x [keys][n] of operands, rows `stride` apart, zero filled. */
static inline void turn(operand *to, const operand *x, size_t stride, int keys, int n)
{
    int width = padded(keys);
    const float *from = (const float *)x;
    for (int j = 0; j < keys; j += LANES)
        for (int d = 0; d < n; d += LANES) {
            vec r[LANES];
            int rows = keys - j < LANES ? keys - j : LANES, cols = n - d < LANES ? n - d : LANES;
            if (cols == LANES) {
#pragma GCC unroll 16
                for (int i = 0; i < LANES; i++)
                    r[i] = i < rows ? vec_load(from + (size_t)(j + i) * stride + d) : vec_set(0);
            } else {
                for (int i = 0; i < LANES; i++)
                    r[i] = i < rows ? vec_load_part(from + (size_t)(j + i) * stride + d, cols, 0) : vec_set(0);
            }
            vec_transpose(r);
            for (int i = 0; i < cols; i++)
                vec_store((float *)to + (size_t)(d + i) * (size_t)width + j, r[i]);
        }
}

#endif
