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

static inline __m512i widened(__m512 x) { return _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(x)); }

static inline void pack_straight(packed *to, const float *x, size_t col, int count, int width, int depth)
{
    for (int k = 0; k < depth; k += 2)
        for (int first = 0; first < width; first += LANES) {
            int left = width - first < LANES ? width - first : LANES;
            const float *from = x + k * col + first;
            __m512i low = widened(load_first(from, count - first));
            __m512i high = k + 1 < depth ? widened(load_first(from + col, count - first)) : _mm512_setzero_si512();
            store_first(to + (size_t)(k / 2) * (size_t)width + first, left,
                        _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
        }
}

static inline void pack_row(packed *to, const float *x, int depth)
{
    for (int k = 0; k < depth; k += 2 * LANES)
        _mm512_storeu_si512(to + k / 2, (__m512i)_mm512_cvtne2ps_pbh(load_first(x + k + LANES, depth - k - LANES),
                                                                     load_first(x + k, depth - k)));
}

/* out (rows,COLS) = start + a * b panel, as in gemm_fp32.h. */
static inline __attribute__((always_inline)) void tile(float *out, size_t out_row, const float *start, size_t start_row,
                                                       const packed *restrict a, const packed *restrict b, int depth,
                                                       const int rows, const int by_rows, const packed *ahead)
{
    __m512 acc[ROWS][VECTORS];
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; v++)
            acc[r][v] = _mm512_loadu_ps(start + r * start_row + v * LANES);
    for (int k = 0; k < depth; k += 2) {
        __builtin_prefetch(ahead);
        __m512bh b0 = (__m512bh)_mm512_loadu_si512(b), b1 = (__m512bh)_mm512_loadu_si512(b + LANES);
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++) {
            __m512bh x = (__m512bh)_mm512_set1_epi32((int)a[by_rows ? r * A_STRIDE : r]);
            acc[r][0] = _mm512_dpbf16_ps(acc[r][0], x, b0);
            acc[r][1] = _mm512_dpbf16_ps(acc[r][1], x, b1);
        }
        a += by_rows ? 1 : ROWS;
        b += COLS;
        ahead += LANES;
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; v++)
            _mm512_storeu_ps(out + r * out_row + v * LANES, acc[r][v]);
}
