/* The three small multiplications of attention, over blocks of QUERIES rows.
 * Every element is one chain of fused multiply-adds in rising order of the
 * summed index, so it does not matter in which block it is computed: decoding
 * one token gives the bits of the training forward. What is summed over is
 * counted in operands (attention_operands.h). */
#ifndef ONCEUPON_ATTENTION_TILE_H
#define ONCEUPON_ATTENTION_TILE_H

#include "attention_operands.h"

#if LANES == 16
#define QUERIES 6
#define GROUP 4 /* vectors of a tile row: QUERIES * GROUP sums stay in registers */
#elif LANES == 8
#define QUERIES 6
#define GROUP 2
#else
#define QUERIES 4
#define GROUP 2
#endif

/* out[r][j] = scale * sum_d x[r][d] turned[d][j], of n operands d, for G vectors of j. */
static inline __attribute__((always_inline)) void score_tile(float *out, size_t out_stride, const operand *x,
                                                             size_t stride, const operand *turned, size_t width, int n,
                                                             float scale, const int R, const int G)
{
    vec acc[QUERIES][GROUP];
    for (int r = 0; r < R; r++)
        for (int g = 0; g < G; g++)
            acc[r][g] = vec_set(0);
    for (int d = 0; d < n; d++) {
        operands k[GROUP];
        for (int g = 0; g < G; g++)
            k[g] = operands_load(turned + (size_t)d * width + g * LANES);
        for (int r = 0; r < R; r++) {
            operands q = operands_set(x[(size_t)r * stride + (size_t)d]);
            for (int g = 0; g < G; g++)
                acc[r][g] = multiply_add(q, k[g], acc[r][g]);
        }
    }
    for (int r = 0; r < R; r++)
        for (int g = 0; g < G; g++)
            vec_store(out + (size_t)r * out_stride + g * LANES, acc[r][g] * vec_set(scale));
}

/* out[r][j] = scale * x[r] . key j, for the keys of `turned` up to `keys`,
 * padded. */
static inline void scores(float *out, size_t out_stride, const operand *x, size_t stride, int rows,
                          const operand *turned, size_t width, int keys, int n, float scale)
{
    int j = 0, end = padded(keys);
    for (; j + GROUP * LANES <= end; j += GROUP * LANES)
        if (rows == QUERIES)
            score_tile(out + j, out_stride, x, stride, turned + j, width, n, scale, QUERIES, GROUP);
        else
            for (int r = 0; r < rows; r++)
                score_tile(out + (size_t)r * out_stride + j, 0, x + (size_t)r * stride, 0, turned + j, width, n, scale,
                           1, GROUP);
    for (; j < end; j += LANES)
        if (rows == QUERIES)
            score_tile(out + j, out_stride, x, stride, turned + j, width, n, scale, QUERIES, 1);
        else
            for (int r = 0; r < rows; r++)
                score_tile(out + (size_t)r * out_stride + j, 0, x + (size_t)r * stride, 0, turned + j, width, n, scale,
                           1, 1);
}

static inline __attribute__((always_inline)) void mix_tile(float *out, size_t out_stride, int left, const operand *p,
                                                           size_t p_stride, const operand *v, size_t stride, int keys,
                                                           const float *start, size_t start_stride, const float *times,
                                                           const int R, const int G)
{
    vec acc[QUERIES][GROUP];
    for (int r = 0; r < R; r++)
        for (int g = 0; g < G; g++)
            acc[r][g] = start ? vec_load(start + (size_t)r * start_stride + g * LANES) : vec_set(0);
    for (int j = 0; j < keys; j++) {
        operands x[GROUP];
        for (int g = 0; g < G; g++)
            x[g] = operands_load(v + (size_t)j * stride + g * LANES);
        for (int r = 0; r < R; r++) {
            operands w = operands_set(p[(size_t)r * p_stride + (size_t)j]);
            for (int g = 0; g < G; g++)
                acc[r][g] = multiply_add(w, x[g], acc[r][g]);
        }
    }
    for (int r = 0; r < R; r++)
        for (int g = 0; g < G; g++) {
            vec y = acc[r][g];
            if (times)
                y = y * vec_set(times[r]);
            if (G > 1 || left >= LANES) /* only a last single vector may be a part */
                vec_store(out + (size_t)r * out_stride + g * LANES, y);
            else
                vec_store_part(out + (size_t)r * out_stride, left & (LANES - 1), y);
        }
}

/* out[r][d] = times[r] * (start[r][d] + sum_j p[r][j] v[j][d]); rows of v and
 * start are whole vectors, those of start padded(D) apart. No start is 0, no
 * times 1. */
static inline void mix(float *out, size_t out_stride, const operand *p, size_t p_stride, int rows, const operand *v,
                       size_t stride, int keys, int D, const float *start, const float *times)
{
    size_t width = (size_t)padded(D);
    for (int d = 0, g; d < D; d += g * LANES) {
        g = d + GROUP * LANES <= D ? GROUP : 1;
        const float *from = start ? start + d : NULL;
        if (rows == QUERIES && g == GROUP)
            mix_tile(out + d, out_stride, D - d, p, p_stride, v + d, stride, keys, from, width, times, QUERIES, GROUP);
        else if (rows == QUERIES)
            mix_tile(out + d, out_stride, D - d, p, p_stride, v + d, stride, keys, from, width, times, QUERIES, 1);
        else
            for (int r = 0; r < rows; r++, from = from ? from + width : NULL)
                if (g == GROUP)
                    mix_tile(out + (size_t)r * out_stride + d, 0, D - d, p + (size_t)r * p_stride, 0, v + d, stride,
                             keys, from, 0, times ? times + r : NULL, 1, GROUP);
                else
                    mix_tile(out + (size_t)r * out_stride + d, 0, D - d, p + (size_t)r * p_stride, 0, v + d, stride,
                             keys, from, 0, times ? times + r : NULL, 1, 1);
    }
}

static inline __attribute__((always_inline)) void spread_tile(float *to, size_t width, const operand *w,
                                                              size_t w_stride, const operand *x, size_t stride,
                                                              int keys, const int R, const int G)
{
    operands rows[QUERIES][GROUP];
    for (int r = 0; r < R; r++)
        for (int g = 0; g < G; g++)
            rows[r][g] = operands_load(x + (size_t)r * stride + g * LANES);
    for (int j = 0; j < keys; j++) {
        vec acc[GROUP];
        for (int g = 0; g < G; g++)
            acc[g] = vec_load(to + (size_t)j * width + g * LANES);
        for (int r = 0; r < R; r++) {
            operands f = operands_set(w[(size_t)r * w_stride + (size_t)j]);
            for (int g = 0; g < G; g++)
                acc[g] = multiply_add(f, rows[r][g], acc[g]);
        }
        for (int g = 0; g < G; g++)
            vec_store(to + (size_t)j * width + g * LANES, acc[g]);
    }
}

/* to[j][d] += sum_r w[r][j] x[r][d]; rows, of operands along r, of x and to are
 * whole vectors. */
static inline void spread(float *to, size_t width, const operand *w, size_t w_stride, int rows, const operand *x,
                          size_t stride, int keys)
{
    size_t d = 0;
    for (; d + GROUP * LANES <= width; d += GROUP * LANES)
        if (rows == QUERIES)
            spread_tile(to + d, width, w, w_stride, x + d, stride, keys, QUERIES, GROUP);
        else
            for (int r = 0; r < rows; r++)
                spread_tile(to + d, width, w + (size_t)r * w_stride, 0, x + (size_t)r * stride + d, 0, keys, 1, GROUP);
    for (; d < width; d += LANES)
        if (rows == QUERIES)
            spread_tile(to + d, width, w, w_stride, x + d, stride, keys, QUERIES, 1);
        else
            for (int r = 0; r < rows; r++)
                spread_tile(to + d, width, w + (size_t)r * w_stride, 0, x + (size_t)r * stride + d, 0, keys, 1, 1);
}

#endif
