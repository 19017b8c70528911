/* The bf16 register tile of gemm.c for processors with VDPBF16PS: factors are
 * rounded to bf16 (to nearest, ties to even) while they are packed, pairs of
 * products are added to fp32 sums in the order of the depth. Sums, bias and
 * everything outside the multiplication stay fp32.
 *
 * A packed element is a pair (k, k + 1) of one row, k in the lower half; an
 * odd depth ends with a pair whose upper half is 0. */
#include "bf16_pairs.h"

#define ROWS 14
#define VECTORS 2
#define COLS (VECTORS * LANES)
#define DEPTH (2 * GEMM_DEPTH)
#define LINE_STEPS 1
#define A_STRIDE (DEPTH / 2 + 16) /* as in gemm_fp32.h */
typedef uint32_t packed;

static inline int steps(int depth) { return (depth + 1) / 2; }

static inline size_t panel_size(int width, int depth) { return (size_t)width * (size_t)steps(depth); }

static inline void pack_turned(packed *to, const float *x, size_t row, int count, int width, int depth)
{
    int pairs = steps(depth);
    for (int first = 0; first < width; first += LANES) {
        int left = width - first < LANES ? width - first : LANES;
        for (int pair = 0; pair < pairs; pair += LANES) {
            vec r[LANES];
            int k = 2 * pair;
#pragma GCC unroll 16
            for (int i = 0; i < LANES; i++) {
                const float *from = x + (size_t)(first + i) * row + k;
                r[i] = first + i < count && i < left
                           ? (vec)neighbours(load_first(from, depth - k), load_first(from + LANES, depth - k - LANES))
                           : vec_set(0);
            }
            vec_transpose(r);
            for (int i = 0; i < LANES && pair + i < pairs; i++)
                store_first(to + (size_t)(pair + i) * (size_t)width + first, left, (__m512i)r[i]);
        }
    }
}

static inline void pack_straight(packed *to, size_t panel, const float *x, size_t col, int count, int width, int depth,
                                 const int gelu, const row_norm *norm)
{
    for (int pair = 0, pairs = steps(depth); pair < pairs; pair++, to += width, x += 2 * col) {
        int both = 2 * pair + 1 < depth;
        packed *into = to;
        for (int first = 0; first < count; first += width, into += panel)
            for (int i = 0; i < width; i += LANES) {
                const float *from = x + first + i;
                int left = width - i, there = count - first - i;
                __builtin_prefetch(from + PACK_AHEAD * col);
                __builtin_prefetch(from + (PACK_AHEAD + 1) * col);
                vec low = load_first(from, there), high = both ? load_first(from + col, there) : vec_set(0);
                if (norm && there > 0) {
                    low = norm_value(low, norm, 2 * pair, (size_t)(first + i), there);
                    high = both ? norm_value(high, norm, 2 * pair + 1, (size_t)(first + i), there) : high;
                }
                __m512i v = gelu ? paired(gelu_value(low), gelu_value(high)) : paired(low, high);
                /* Past a narrow row lies the next one, which is written later. */
                if (left >= LANES || pair + 1 < pairs)
                    _mm512_storeu_si512(into + i, v);
                else
                    store_first(into + i, left, v);
            }
    }
}

static inline __attribute__((always_inline)) void pack_row(packed *to, const float *x, int depth, const int gelu)
{
    for (int k = 0; k < depth; k += 2 * LANES) {
        vec low = load_first(x + k, depth - k), high = load_first(x + k + LANES, depth - k - LANES);
        _mm512_storeu_si512(to + k / 2, gelu ? neighbours(gelu_value(low), gelu_value(high)) : neighbours(low, high));
    }
}

static inline __attribute__((always_inline)) void multiply_add(vec acc[ROWS][VECTORS], const packed *restrict a,
                                                               const packed *restrict b, int pairs, const int rows,
                                                               const int by_rows, fetch *ahead, fetch *later)
{
    fetch f = *ahead, slow = later ? *later : f;
    for (int k = 0; k < pairs; k++) {
        fetch_line(&f, 0);
        if (later)
            fetch_line(&slow, 1);
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
    if (later)
        *later = slow;
}
