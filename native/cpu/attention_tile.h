/* The three small multiplications of attention, over blocks of QUERIES rows.
 * Every element is one chain of fused multiply-adds in rising order of the
 * summed index, so it does not matter in which block it is computed: decoding
 * one token gives the bits of the training forward. */
#ifndef ONCEUPON_ATTENTION_TILE_H
#define ONCEUPON_ATTENTION_TILE_H

#include "simd.h"

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

static inline int padded(int n) { return (n + LANES - 1) / LANES * LANES; }

/* to [D][keys padded] = x [keys][D], rows `stride` apart, zero filled. */
static inline void turn(float *to, const float *x, size_t stride, int keys, int D)
{
    int width = padded(keys);
    for (int j = 0; j < keys; j += LANES)
        for (int d = 0; d < D; d += LANES) {
            vec r[LANES];
            int rows = keys - j < LANES ? keys - j : LANES, cols = D - d < LANES ? D - d : LANES;
            if (rows == LANES && cols == LANES) {
#pragma GCC unroll 16
                for (int i = 0; i < LANES; i++)
                    r[i] = vec_load(x + (size_t)(j + i) * stride + d);
            } else {
                for (int i = 0; i < LANES; i++)
                    r[i] = i < rows ? vec_load_part(x + (size_t)(j + i) * stride + d, cols, 0) : vec_set(0);
            }
            vec_transpose(r);
            for (int i = 0; i < cols; i++)
                vec_store(to + (size_t)(d + i) * (size_t)width + j, r[i]);
        }
}

/* to [rows][D padded] = x [rows][D], zero filled; x itself when it is whole. */
static inline const float *whole_rows(float *to, const float *x, size_t *stride, int rows, int D)
{
    if (D % LANES == 0)
        return x;
    size_t width = (size_t)padded(D);
    for (int t = 0; t < rows; t++) {
        memcpy(to + (size_t)t * width, x + (size_t)t * *stride, (size_t)D * sizeof(float));
        memset(to + (size_t)t * width + D, 0, (width - (size_t)D) * sizeof(float));
    }
    *stride = width;
    return to;
}

/* out[r][j] = scale * sum_d x[r][d] turned[d][j] for G vectors of j. */
static inline __attribute__((always_inline)) void score_tile(float *out, size_t out_stride, const float *x,
                                                             size_t stride, const float *turned, size_t width, int D,
                                                             float scale, const int R, const int G)
{
    vec acc[QUERIES][GROUP], factor = vec_set(scale);
    for (int r = 0; r < R; r++)
        for (int g = 0; g < G; g++)
            acc[r][g] = vec_set(0);
    for (int d = 0; d < D; d++) {
        vec k[GROUP];
        for (int g = 0; g < G; g++)
            k[g] = vec_load(turned + (size_t)d * width + g * LANES);
        for (int r = 0; r < R; r++) {
            vec q = vec_set(x[(size_t)r * stride + (size_t)d]);
            for (int g = 0; g < G; g++)
                acc[r][g] = vec_fma(q, k[g], acc[r][g]);
        }
    }
    for (int r = 0; r < R; r++)
        for (int g = 0; g < G; g++)
            vec_store(out + (size_t)r * out_stride + g * LANES, acc[r][g] * factor);
}

/* out[r][j] = scale * x[r] . key j, for the keys of `turned` up to `keys`,
 * padded. */
static inline void scores(float *out, size_t out_stride, const float *x, size_t stride, int rows, const float *turned,
                          size_t width, int keys, int D, float scale)
{
    int j = 0, end = padded(keys);
    for (; j + GROUP * LANES <= end; j += GROUP * LANES)
        if (rows == QUERIES)
            score_tile(out + j, out_stride, x, stride, turned + j, width, D, scale, QUERIES, GROUP);
        else
            for (int r = 0; r < rows; r++)
                score_tile(out + (size_t)r * out_stride + j, 0, x + (size_t)r * stride, 0, turned + j, width, D, scale,
                           1, GROUP);
    for (; j < end; j += LANES)
        if (rows == QUERIES)
            score_tile(out + j, out_stride, x, stride, turned + j, width, D, scale, QUERIES, 1);
        else
            for (int r = 0; r < rows; r++)
                score_tile(out + (size_t)r * out_stride + j, 0, x + (size_t)r * stride, 0, turned + j, width, D, scale,
                           1, 1);
}

static inline __attribute__((always_inline)) void mix_tile(float *out, size_t out_stride, int left, const float *p,
                                                           size_t p_stride, const float *v, size_t stride, int keys,
                                                           const float *start, size_t start_stride, const float *factor,
                                                           const int R, const int G)
{
    vec acc[QUERIES][GROUP];
    for (int r = 0; r < R; r++)
        for (int g = 0; g < G; g++)
            acc[r][g] = start ? vec_load(start + (size_t)r * start_stride + g * LANES) : vec_set(0);
    for (int j = 0; j < keys; j++) {
        vec x[GROUP];
        for (int g = 0; g < G; g++)
            x[g] = vec_load(v + (size_t)j * stride + g * LANES);
        for (int r = 0; r < R; r++) {
            vec w = vec_set(p[(size_t)r * p_stride + (size_t)j]);
            for (int g = 0; g < G; g++)
                acc[r][g] = vec_fma(w, x[g], acc[r][g]);
        }
    }
    for (int r = 0; r < R; r++)
        for (int g = 0; g < G; g++) {
            vec y = acc[r][g] * vec_set(factor[r]);
            if (G > 1 || left >= LANES) /* only a last single vector may be a part */
                vec_store(out + (size_t)r * out_stride + g * LANES, y);
            else
                vec_store_part(out + (size_t)r * out_stride, left & (LANES - 1), y);
        }
}

/* out[r][d] = factor[r] * (start[r][d] + sum_j p[r][j] v[j][d]); rows of v and
 * start are whole vectors, those of start padded(D) apart; no start is 0. */
static inline void mix(float *out, size_t out_stride, const float *p, size_t p_stride, int rows, const float *v,
                       size_t stride, int keys, int D, const float *start, const float *factor)
{
    size_t width = (size_t)padded(D);
    for (int d = 0, g; d < D; d += g * LANES) {
        g = d + GROUP * LANES <= D ? GROUP : 1;
        const float *from = start ? start + d : NULL;
        if (rows == QUERIES && g == GROUP)
            mix_tile(out + d, out_stride, D - d, p, p_stride, v + d, stride, keys, from, width, factor, QUERIES, GROUP);
        else if (rows == QUERIES)
            mix_tile(out + d, out_stride, D - d, p, p_stride, v + d, stride, keys, from, width, factor, QUERIES, 1);
        else
            for (int r = 0; r < rows; r++, from = from ? from + width : NULL)
                if (g == GROUP)
                    mix_tile(out + (size_t)r * out_stride + d, 0, D - d, p + (size_t)r * p_stride, 0, v + d, stride,
                             keys, from, 0, factor + r, 1, GROUP);
                else
                    mix_tile(out + (size_t)r * out_stride + d, 0, D - d, p + (size_t)r * p_stride, 0, v + d, stride,
                             keys, from, 0, factor + r, 1, 1);
    }
}

static inline __attribute__((always_inline)) void spread_tile(float *to, size_t width, const float *w, size_t w_stride,
                                                              const float *x, size_t stride, int keys, const int R,
                                                              const int G)
{
    vec rows[QUERIES][GROUP];
    for (int r = 0; r < R; r++)
        for (int g = 0; g < G; g++)
            rows[r][g] = vec_load(x + (size_t)r * stride + g * LANES);
    for (int j = 0; j < keys; j++) {
        vec acc[GROUP];
        for (int g = 0; g < G; g++)
            acc[g] = vec_load(to + (size_t)j * width + g * LANES);
        for (int r = 0; r < R; r++) {
            vec f = vec_set(w[(size_t)r * w_stride + (size_t)j]);
            for (int g = 0; g < G; g++)
                acc[g] = vec_fma(f, rows[r][g], acc[g]);
        }
        for (int g = 0; g < G; g++)
            vec_store(to + (size_t)j * width + g * LANES, acc[g]);
    }
}

/* to[j][d] += sum_r w[r][j] x[r][d]; rows of x and to are whole vectors. */
static inline void spread(float *to, size_t width, const float *w, size_t w_stride, int rows, const float *x,
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
