/* Rows of elements, by vectors of which the last may be a part: what fused and
 * single ops share, so that both give the same bits. */
#ifndef ONCEUPON_CPU_ELEMENTS_H
#define ONCEUPON_CPU_ELEMENTS_H

#include "cpu.h"
#include "dropout.h"
#include "simd.h"

static inline vec load(const float *p, int n) { return n >= LANES ? vec_load(p) : vec_load_part(p, n, 0); }

static inline void store(float *p, int n, vec v)
{
    if (n >= LANES)
        vec_store(p, v);
    else
        vec_store_part(p, n, v);
}

/* Layer norm of row k, or of what is left of it, from column c on. */
static inline vec norm_value(vec x, const row_norm *norm, int k, size_t c, int left)
{
    vec normal = (x - vec_set(norm->mean[k])) * vec_set(norm->rstd[k]);
    return vec_fma(normal, load(norm->gain + c, left), load(norm->bias + c, left));
}

/* GELU and its slope; formulas in native/ref/gelu.c. (1 + tanh u) / 2 is
 * 1 / (1 + e^-2u), and e^-2u is 2^(x (A + B x^2)); its bounds do not show in fp32. */
static inline vec gelu_power(vec x, vec square)
{
    vec power = x * vec_fma(square, vec_set(-0.10294324f), vec_set(-2.3022082f));
    return vec_exp2(vec_min(vec_max(power, vec_set(-100.0f)), vec_set(100.0f)));
}

static inline vec gelu_value(vec x) { return x / (vec_set(1) + gelu_power(x, x * x)); }

/* With s for the share: s + x s (1 - s) 2 du/dx, where 1 - s, which would cancel,
 * is e^-2u s. */
static inline vec gelu_slope(vec x)
{
    vec square = x * x, e = gelu_power(x, square), s = vec_set(1) / (vec_set(1) + e);
    vec twice = vec_fma(square, vec_set(0.214064449f), vec_set(1.59576912f));
    return vec_fma(x * (e * s * s), twice, s);
}

/* Elements whose dropout factors are made at a time. */
#define DROPPED 1024

/* out = x times the factors of the elements from `first` on. */
static __attribute__((noinline, unused)) void drop_elements(float *out, const float *x, size_t count, dropout drop,
                                                            uint64_t first)
{
    float room[DROPPED + 2 * DROPOUT_BLOCK];
    for (size_t i = 0; i < count; i += DROPPED) {
        int block = (int)(count - i < DROPPED ? count - i : DROPPED);
        const float *f = dropout_factors(room, drop, first + i, block);
        for (int k = 0; k < block; k += LANES)
            store(out + i + k, block - k, load(x + i + k, block - k) * load(f + k, block - k));
    }
}

/* out = x, dropped, added to a where there is one; elements from `first` on. */
static inline void add_dropped(float *out, const float *a, const float *x, size_t count, dropout drop, uint64_t first)
{
    float room[DROPPED];
    for (size_t i = 0; i < count; i += LANES) {
        int left = count - i < LANES ? (int)(count - i) : LANES;
        const float *from = x + i;
        if (drop.probability > 0) {
            if (i % DROPPED == 0)
                drop_elements(room, from, count - i < DROPPED ? count - i : DROPPED, drop, first + i);
            from = room + i % DROPPED;
        }
        vec y = load(from, left);
        if (a)
            y = load(a + i, left) + y;
        store(out + i, left, y);
    }
}

#endif
