/* The bf16 register tile of gemm.c for processors with VDPBF16PS: factors are
 * rounded to bf16 (to nearest, ties to even) while they are packed, pairs of
 * products are added to fp32 sums in the order of the depth. Sums, bias and
 * everything outside the multiplication stay fp32.
 *
 * A packed element is a pair (k, k + 1) of one row, k in the lower half; an
 * odd depth ends with a pair whose upper half is 0. */
#include "simd.h"

#define ROWS 14
#define VECTORS 2
#define COLS (VECTORS * LANES)
#define DEPTH (2 * GEMM_DEPTH)
#define A_STRIDE (DEPTH / 2 + 16) /* as in gemm_fp32.h */
typedef uint32_t packed;

static inline size_t panel_size(int width, int depth) { return (size_t)width * (size_t)((depth + 1) / 2); }

/* Numbers 0..n-1 of p, then zeros. */
static inline __m512 load_first(const float *p, int n)
{
    return n >= LANES ? _mm512_loadu_ps(p)
           : n <= 0   ? _mm512_setzero_ps()
                      : _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}

static inline void store_first(packed *to, int n, __m512i x)
{
    _mm512_mask_storeu_epi32(to, (__mmask16)(n >= LANES ? 0xffff : (1u << n) - 1), x);
}

static inline void pack_turned(packed *to, const float *x, size_t row, int count, int width, int depth)
{
    int pairs = (depth + 1) / 2;
    for (int first = 0; first < width; first += LANES) {
        int left = width - first < LANES ? width - first : LANES;
        for (int pair = 0; pair < pairs; pair += LANES) {
            vec r[LANES];
            int k = 2 * pair;
#pragma GCC unroll 16
            for (int i = 0; i < LANES; i++) {
                const float *from = x + (size_t)(first + i) * row + k;
                r[i] = first + i < count && i < left
                           ? (vec)_mm512_cvtne2ps_pbh(load_first(from + LANES, depth - k - LANES),
                                                      load_first(from, depth - k))
                           : vec_set(0);
            }
            vec_transpose(r);
            for (int i = 0; i < LANES && pair + i < pairs; i++)
                store_first(to + (size_t)(pair + i) * (size_t)width + first, left, (__m512i)r[i]);
        }
    }
}

/* Numbers of two rows in pairs. */
static inline __m512i paired(__m512 low, __m512 high)
{
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                           21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(high, low));
}

static inline void pack_straight(packed *to, const float *x, size_t col, int count, int width, int depth)
{
    int pairs = (depth + 1) / 2;
    for (int first = 0; first < width; first += LANES) {
        int left = width - first, there = count - first;
        packed *into = to + first;
        const float *from = x + first;
        for (int pair = 0; pair < pairs; pair++, into += width, from += 2 * col) {
            int both = 2 * pair + 1 < depth;
            __m512i v = there >= LANES
                            ? paired(_mm512_loadu_ps(from), both ? _mm512_loadu_ps(from + col) : _mm512_setzero_ps())
                            : paired(load_first(from, there), load_first(from + col, both ? there : 0));
            /* Past a narrow row lies the next one, which is written later. */
            if (left >= LANES || pair + 1 < pairs)
                _mm512_storeu_si512(into, v);
            else
                store_first(into, left, v);
        }
    }
}

static inline void pack_row(packed *to, const float *x, int depth)
{
    int k = 0;
    for (; k + 2 * LANES <= depth; k += 2 * LANES)
        _mm512_storeu_si512(to + k / 2,
                            (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + k + LANES), _mm512_loadu_ps(x + k)));
    if (k < depth)
        _mm512_storeu_si512(to + k / 2, (__m512i)_mm512_cvtne2ps_pbh(load_first(x + k + LANES, depth - k - LANES),
                                                                     load_first(x + k, depth - k)));
}

static inline __attribute__((always_inline)) void multiply_add(__m512 acc[ROWS][VECTORS], const packed *restrict a,
                                                               const packed *restrict b, int pairs, const int rows,
                                                               const int by_rows, fetch *ahead)
{
    fetch f = *ahead;
    for (int k = 0; k < pairs; k++) {
        fetch_line(&f);
        __m512bh b0 = (__m512bh)_mm512_loadu_si512(b), b1 = (__m512bh)_mm512_loadu_si512(b + LANES);
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++) {
            __m512bh x = (__m512bh)_mm512_set1_epi32((int)a[by_rows ? r * A_STRIDE : r]);
            acc[r][0] = _mm512_dpbf16_ps(acc[r][0], x, b0);
            acc[r][1] = _mm512_dpbf16_ps(acc[r][1], x, b1);
        }
        a += by_rows ? 1 : ROWS;
        b += COLS;
    }
    *ahead = f;
}

/* out (rows,COLS) = start + a * b panel, as in gemm_fp32.h. */
static inline __attribute__((always_inline)) void tile(float *out, size_t out_row, const float *start, size_t start_row,
                                                       const packed *restrict a, const packed *restrict b, int depth,
                                                       const int rows, const int by_rows, fetch *soon, fetch *ahead)
{
    __m512 acc[ROWS][VECTORS];
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; v++)
            acc[r][v] = _mm512_loadu_ps(start + r * start_row + v * LANES);
    int pairs = (depth + 1) / 2, k = fetch_count(soon, pairs);
    multiply_add(acc, a, b, k, rows, by_rows, soon);
    multiply_add(acc, a + (size_t)k * (by_rows ? 1 : ROWS), b + (size_t)k * COLS, pairs - k, rows, by_rows, ahead);
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; v++)
            _mm512_storeu_ps(out + r * out_row + v * LANES, acc[r][v]);
}
