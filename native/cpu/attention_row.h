/* One row of attention: from scores to weights. Training and decoding share
 * it, so that a token has the same bits in both. */
#ifndef ONCEUPON_ATTENTION_ROW_H
#define ONCEUPON_ATTENTION_ROW_H

#include "attention_operands.h"
#include "cpu.h"
#include "dropout.h"
#include "simd.h"

/* Dropout element of (row, key): row * ATTENTION_STRIDE + key. */
#define ATTENTION_STRIDE 65536u

/* A worker's scratch, handed out from the front. */
static inline float *take(float **scratch, size_t floats)
{
    float *p = *scratch;
    *scratch += (floats + 15) / 16 * 16;
    return p;
}

static inline operand *take_operands(float **scratch, size_t count) { return (operand *)take(scratch, count); }

static inline float highest(const float *x, int count)
{
    vec max = vec_set(-INFINITY);
    int j = 0;
    for (; j + LANES <= count; j += LANES)
        max = vec_max(max, vec_load(x + j));
    if (j < count)
        max = vec_max(max, vec_load_part(x + j, count - j, -INFINITY));
    return vec_highest(max);
}

/* scores[j] = exp(x[j] - max) for scores x; returns their sum. */
static inline float exponentials(float *x, float max, int count)
{
    vec sum = vec_set(0), shift = vec_set(max);
    int j = 0;
    for (; j + LANES <= count; j += LANES) {
        vec e = vec_exp(vec_load(x + j) - shift);
        vec_store(x + j, e);
        sum = sum + e;
    }
    if (j < count) {
        vec e = vec_exp(vec_load_part(x + j, count - j, max) - shift);
        vec_store_part(x + j, count - j, e);
        sum = sum + vec_load_part(x + j, count - j, 0);
    }
    return vec_sum(sum);
}

/* Scores of one query, of which max is the highest, become weights times the
 * sum that is returned. */
static inline float weights(float *x, float max, int count, dropout drop, uint64_t element, float *factors)
{
    float sum = exponentials(x, max, count);
    if (drop.probability > 0) {
        const float *kept = dropout_factors(factors, drop, element, count);
        for (int j = 0; j < count; j++)
            x[j] *= kept[j];
    }
    return sum;
}

#endif
