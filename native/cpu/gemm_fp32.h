/* The fp32 register tile of gemm.c: ROWS x COLS sums in registers, one fused
 * multiply-add at a time over the depth. */
#include "simd.h"

#if LANES == 16
#define ROWS 14
#define DEPTH GEMM_DEPTH
#define LINE_STEPS 1
#elif LANES == 8
#define ROWS 6
#define DEPTH GEMM_NARROW_DEPTH
#define LINE_STEPS 4
#else
#define ROWS 4
#define DEPTH GEMM_DEPTH
#define LINE_STEPS 4
#endif
#define VECTORS 2
#define COLS (VECTORS * LANES)
#define A_STRIDE                                                                                                       \
    (DEPTH + 16) /* of packed rows; no multiple of the cache's way, so that rows do not evict each other               \
                  */
typedef float packed;

static inline int steps(int depth) { return depth; }

/* Elements of a panel of `width` rows and this depth. */
static inline size_t panel_size(int width, int depth) { return (size_t)width * (size_t)depth; }

/* A panel [depth][width] from rows that are contiguous in k: blocks of
 * LANES x LANES are turned in registers. A row of the panel may be narrower
 * than a vector, so a store runs over into the next row, which comes later. */
static inline void pack_turned(packed *to, const float *x, size_t row, int count, int width, int depth)
{
    for (int first = 0; first < width; first += LANES) {
        int left = width - first < LANES ? width - first : LANES, k = 0;
        for (; k + LANES <= depth; k += LANES) {
            vec r[LANES];
            int there = count - first < left ? count - first : left;
            if (there == LANES) {
#pragma GCC unroll 16
                for (int i = 0; i < LANES; i++)
                    r[i] = vec_load(x + (size_t)(first + i) * row + k);
            } else {
#pragma GCC unroll 16
                for (int i = 0; i < LANES; i++)
                    r[i] = i < there ? vec_load(x + (size_t)(first + i) * row + k) : vec_set(0);
            }
            vec_transpose(r);
            float *block = to + (size_t)k * (size_t)width + first;
            int whole = k + LANES < depth || left == LANES ? LANES : LANES - 1;
            for (int i = 0; i < whole; i++)
                vec_store(block + (size_t)i * (size_t)width, r[i]);
            if (whole < LANES)
                vec_store_part(block + (size_t)whole * (size_t)width, left, r[whole]);
        }
        for (; k < depth; k++)
            for (int i = 0; i < left; i++)
                to[(size_t)k * (size_t)width + first + i] = first + i < count ? x[(size_t)(first + i) * row + k] : 0;
    }
}

/* Panels, `panel` elements apart, of `count` columns that are contiguous: a row of
 * them all before the next, as memory has them. */
static inline void pack_straight(packed *to, size_t panel, const float *x, size_t col, int count, int width, int depth,
                                 const int gelu, const row_norm *norm)
{
    for (int k = 0; k < depth; k++, to += width, x += col) {
        packed *into = to;
        for (int first = 0; first < count; first += width, into += panel)
            for (int i = 0; i < width; i += LANES) {
                const float *from = x + first + i;
                int left = width - i, there = count - first - i;
                __builtin_prefetch(from + PACK_AHEAD * col);
                vec v = there >= LANES ? vec_load(from) : there > 0 ? vec_load_part(from, there, 0) : vec_set(0);
                if (gelu)
                    v = gelu_value(v);
                if (norm && there > 0)
                    v = norm_value(v, norm, k, (size_t)(first + i), there);
                /* Past a narrow row lies the next one, which is written later. */
                if (left >= LANES || k + 1 < depth)
                    vec_store(into + i, v);
                else
                    vec_store_part(into + i, left & (LANES - 1), v);
            }
    }
}

/* A row that is contiguous in k stays a row: the tile reads single elements. */
static inline __attribute__((always_inline)) void pack_row(packed *to, const float *x, int depth, const int gelu)
{
    for (int k = 0; k < depth; k += LANES) {
        vec v = load(x + k, depth - k);
        store(to + k, depth - k, gelu ? gelu_value(v) : v);
    }
}

static inline __attribute__((always_inline)) void multiply_step(vec acc[ROWS][VECTORS], const packed *restrict a,
                                                                const packed *restrict b, const int rows,
                                                                const int by_rows)
{
    vec b0 = vec_load(b), b1 = vec_load(b + LANES);
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
        vec x = vec_set(a[by_rows ? r * A_STRIDE : r]);
        acc[r][0] = vec_fma(x, b0, acc[r][0]);
        acc[r][1] = vec_fma(x, b1, acc[r][1]);
    }
}

/* by_rows: a holds rows A_STRIDE apart instead of a panel. A line is fetched
 * every LINE_STEPS steps of the depth: a step of narrow vectors is too short to
 * fetch beside it, and memory would be asked for a panel all at once. */
static inline __attribute__((always_inline)) void multiply_add(vec acc[ROWS][VECTORS], const packed *restrict a,
                                                               const packed *restrict b, int depth, const int rows,
                                                               const int by_rows, fetch *ahead, fetch *later)
{
    fetch f = *ahead, slow = later ? *later : f;
    const int next = by_rows ? 1 : ROWS;
    int k = 0;
    for (; k + LINE_STEPS <= depth; k += LINE_STEPS) {
        fetch_line(&f, 0);
        if (later)
            fetch_line(&slow, 1);
#pragma GCC unroll 4
        for (int step = 0; step < LINE_STEPS; step++, a += next, b += COLS)
            multiply_step(acc, a, b, rows, by_rows);
    }
    for (; k < depth; k++, a += next, b += COLS)
        multiply_step(acc, a, b, rows, by_rows);
    *ahead = f;
    if (later)
        *later = slow;
}

#if LANES == 4
/* Without fused multiply-adds every product is rounded too; sums of short
 * strips keep the error below that of the other ISAs. */
#define STRIP 16
static inline __attribute__((always_inline)) void strip(vec acc[ROWS][VECTORS], const packed *a, const packed *b,
                                                        int depth, const int rows, const int by_rows, fetch *ahead,
                                                        fetch *later)
{
    vec sum[ROWS][VECTORS] = {0};
    multiply_add(sum, a, b, depth, rows, by_rows, ahead, later);
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < VECTORS; v++)
            acc[r][v] = acc[r][v] + sum[r][v];
}
#endif
