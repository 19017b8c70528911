/* simd.h: one float vector type for every ISA. Each file of native/cpu that
 * includes it is compiled once per ISA (CMakeLists.txt), with CPU_ISA set to
 * avx512, avx2 or portable; CPU_NAME gives its functions their suffix.
 *
 * Multiplications and additions are fused only where vec_fma says so
 * (-ffp-contract=off), so that two kernels which compute the same element
 * agree to the bit. */
#ifndef ONCEUPON_SIMD_H
#define ONCEUPON_SIMD_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define CPU_PASTE_(name, isa) name##_##isa
#define CPU_PASTE(name, isa) CPU_PASTE_(name, isa)
#define CPU_NAME(name) CPU_PASTE(name, CPU_ISA)

#if defined(__AVX512F__)
#include <immintrin.h>
#define LANES 16
typedef __m512 vec;
static inline vec vec_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void vec_store(float *p, vec v) { _mm512_storeu_ps(p, v); }
static inline vec vec_set(float x) { return _mm512_set1_ps(x); }
static inline vec vec_fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
static inline vec vec_max(vec a, vec b) { return _mm512_max_ps(a, b); }
static inline vec vec_min(vec a, vec b) { return _mm512_min_ps(a, b); }
static inline vec vec_sqrt(vec a) { return _mm512_sqrt_ps(a); }
/* 2^n for integral n in -126..127 */
static inline vec vec_exp2i(vec n)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23));
}
static inline vec vec_scale(vec a, vec n) { return _mm512_scalef_ps(a, n); }
static inline vec vec_round(vec a) { return _mm512_roundscale_ps(a, 0); }
#elif defined(__AVX2__)
#include <immintrin.h>
#define LANES 8
typedef __m256 vec;
static inline vec vec_load(const float *p) { return _mm256_loadu_ps(p); }
static inline void vec_store(float *p, vec v) { _mm256_storeu_ps(p, v); }
static inline vec vec_set(float x) { return _mm256_set1_ps(x); }
static inline vec vec_fma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
static inline vec vec_max(vec a, vec b) { return _mm256_max_ps(a, b); }
static inline vec vec_min(vec a, vec b) { return _mm256_min_ps(a, b); }
static inline vec vec_sqrt(vec a) { return _mm256_sqrt_ps(a); }
static inline vec vec_exp2i(vec n)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}
static inline vec vec_round(vec a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
#else
#define LANES 4
typedef float vec __attribute__((vector_size(16)));
typedef int32_t vec_int __attribute__((vector_size(16)));
static inline vec vec_load(const float *p)
{
    vec v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline void vec_store(float *p, vec v) { memcpy(p, &v, sizeof v); }
static inline vec vec_set(float x) { return (vec){x, x, x, x}; }
static inline vec vec_fma(vec a, vec b, vec c) { return a * b + c; }
static inline vec vec_max(vec a, vec b)
{
    vec_int greater = a > b;
    return (vec)((greater & (vec_int)a) | (~greater & (vec_int)b));
}
static inline vec vec_min(vec a, vec b)
{
    vec_int less = a < b;
    return (vec)((less & (vec_int)a) | (~less & (vec_int)b));
}
static inline vec vec_sqrt(vec a) { return (vec){sqrtf(a[0]), sqrtf(a[1]), sqrtf(a[2]), sqrtf(a[3])}; }
static inline vec vec_exp2i(vec n) { return (vec)((__builtin_convertvector(n, vec_int) + 127) << 23); }
/* Adding and taking away 1.5 * 2^23 rounds to the nearest even integer. */
static inline vec vec_round(vec a) { return (a + 12582912.0f) - 12582912.0f; }
#endif

#if LANES < 16
static inline vec vec_scale(vec a, vec n) { return a * vec_exp2i(n); }
#endif

/* Rows and columns of a LANES x LANES block change places: for every bit of
 * an index, the elements that have it in one index only are exchanged. */
typedef int32_t vec_index __attribute__((vector_size(4 * LANES)));
#define TRANSPOSE_LOW(i, s) ((i) & (s) ? LANES + (i) - (s) : (i))
#define TRANSPOSE_HIGH(i, s) ((i) & (s) ? LANES + (i) : (i) + (s))
#if LANES == 16
#define TRANSPOSE_INDEX(F, s)                                                                                          \
    {F(0, s), F(1, s), F(2, s),  F(3, s),  F(4, s),  F(5, s),  F(6, s),  F(7, s),                                      \
     F(8, s), F(9, s), F(10, s), F(11, s), F(12, s), F(13, s), F(14, s), F(15, s)}
#elif LANES == 8
#define TRANSPOSE_INDEX(F, s) {F(0, s), F(1, s), F(2, s), F(3, s), F(4, s), F(5, s), F(6, s), F(7, s)}
#else
#define TRANSPOSE_INDEX(F, s) {F(0, s), F(1, s), F(2, s), F(3, s)}
#endif
#define TRANSPOSE_STEP(s)                                                                                              \
    do {                                                                                                               \
        const vec_index low = TRANSPOSE_INDEX(TRANSPOSE_LOW, s), high = TRANSPOSE_INDEX(TRANSPOSE_HIGH, s);            \
        _Pragma("GCC unroll 16") for (int i = 0; i < LANES; i++) if (!(i & (s)))                                       \
        {                                                                                                              \
            vec a = r[i], b = r[i + (s)];                                                                              \
            r[i] = __builtin_shuffle(a, b, low);                                                                       \
            r[i + (s)] = __builtin_shuffle(a, b, high);                                                                \
        }                                                                                                              \
    } while (0)

static inline __attribute__((always_inline)) void vec_transpose(vec r[LANES])
{
    TRANSPOSE_STEP(1);
    TRANSPOSE_STEP(2);
#if LANES >= 8
    TRANSPOSE_STEP(4);
#endif
#if LANES >= 16
    TRANSPOSE_STEP(8);
#endif
}

/* The first n < LANES floats of p, then `fill`. */
static inline vec vec_load_part(const float *p, int n, float fill)
{
#if LANES == 16
    return _mm512_mask_loadu_ps(_mm512_set1_ps(fill), (__mmask16)((1u << n) - 1), p);
#else
    float buffer[LANES];
    for (int i = 0; i < LANES; i++)
        buffer[i] = i < n ? p[i] : fill;
    return vec_load(buffer);
#endif
}

static inline void vec_store_part(float *p, int n, vec v)
{
#if LANES == 16
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), v);
#else
    float buffer[LANES];
    vec_store(buffer, v);
    memcpy(p, buffer, (size_t)n * sizeof(float));
#endif
}

/* Horizontal sum in a fixed order: halves are folded onto each other. */
static inline float vec_sum(vec v)
{
#if LANES == 16
    __m256 w =
        _mm256_add_ps(_mm512_castps512_ps256(v), _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(v), 1)));
#elif LANES == 8
    __m256 w = v;
#endif
#if LANES >= 8
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(w), _mm256_extractf128_ps(w, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
#else
    return (v[0] + v[2]) + (v[1] + v[3]);
#endif
}

static inline float vec_highest(vec v)
{
#if LANES == 16
    return _mm512_reduce_max_ps(v);
#else
    float x[LANES];
    vec_store(x, v);
    for (int i = 1; i < LANES; i++)
        x[0] = x[i] > x[0] ? x[i] : x[0];
    return x[0];
#endif
}

/* e^x to about 1 ulp for x in -87..88, clamped outside: x = n ln 2 + r,
 * |r| <= ln 2 / 2, and the polynomial of vec_exp2, whose argument is r / ln 2. */
static inline vec vec_exp(vec x)
{
    x = vec_min(vec_max(x, vec_set(-87.0f)), vec_set(88.0f));
    vec n = vec_round(x * vec_set(1.44269504088896341f));
    vec r = vec_fma(n, vec_set(-0.693359375f), x);
    r = vec_fma(n, vec_set(2.12194440e-4f), r);
    vec p = vec_set(0.00138368458f);
    p = vec_fma(p, r, vec_set(0.00837481581f));
    p = vec_fma(p, r, vec_set(0.0416682251f));
    p = vec_fma(p, r, vec_set(0.166664198f));
    p = vec_fma(p, r, vec_set(0.499999911f));
    p = vec_fma(p, r, vec_set(1.0f));
    p = vec_fma(p, r, vec_set(1.0f));
    return vec_scale(p, n);
}

/* 2^x to about 1 ulp for x in -126..127: x = n + f, |f| <= 1/2, minimax polynomial
 * of degree 6 in f (relative error 2e-9). */
static inline vec vec_exp2(vec x)
{
    vec n = vec_round(x), f = x - n, p = vec_set(1.53458122e-4f);
    p = vec_fma(p, f, vec_set(1.33999312e-3f));
    p = vec_fma(p, f, vec_set(9.61848896e-3f));
    p = vec_fma(p, f, vec_set(5.55032878e-2f));
    p = vec_fma(p, f, vec_set(2.40226469e-1f));
    p = vec_fma(p, f, vec_set(6.93147206e-1f));
    p = vec_fma(p, f, vec_set(1.0f));
    return vec_scale(p, n);
}

/* Sum of a[i] * b[i]; four partial sums hide the latency of the FMA. */
static inline float dot_product(const float *a, const float *b, int n)
{
    vec s0 = vec_set(0), s1 = s0, s2 = s0, s3 = s0;
    int i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES) {
        s0 = vec_fma(vec_load(a + i), vec_load(b + i), s0);
        s1 = vec_fma(vec_load(a + i + LANES), vec_load(b + i + LANES), s1);
        s2 = vec_fma(vec_load(a + i + 2 * LANES), vec_load(b + i + 2 * LANES), s2);
        s3 = vec_fma(vec_load(a + i + 3 * LANES), vec_load(b + i + 3 * LANES), s3);
    }
    for (; i + LANES <= n; i += LANES)
        s0 = vec_fma(vec_load(a + i), vec_load(b + i), s0);
    if (i < n)
        s1 = vec_fma(vec_load_part(a + i, n - i, 0), vec_load_part(b + i, n - i, 0), s1);
    return vec_sum((s0 + s1) + (s2 + s3));
}

/* y += f * x */
static inline void add_scaled(float *y, float f, const float *x, int n)
{
    vec factor = vec_set(f);
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        vec_store(y + i, vec_fma(factor, vec_load(x + i), vec_load(y + i)));
    if (i < n)
        vec_store_part(y + i, n - i, vec_fma(factor, vec_load_part(x + i, n - i, 0), vec_load_part(y + i, n - i, 0)));
}

#endif
