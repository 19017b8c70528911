/* The two limits of a machine (Williams, Waterman & Patterson 2009): the peak
 * of its multiply-add units, in fp32 and where there are such in bf16, and the rate at which it reads memory. Compiled
 * once per ISA. */
#include "bench_internal.h"
#include "simd.h"

#define CHAINS 12 /* independent sums: enough to hide the latency of a multiply-add */
#define ROUNDS 100000

void CPU_NAME(bench_multiply)(void *sink, int task, int worker)
{
    (void)task;
    vec acc[CHAINS], x = vec_set(0.999f), y = vec_set(1e-3f);
    for (int c = 0; c < CHAINS; c++)
        acc[c] = vec_set((float)c);
    for (int i = 0; i < ROUNDS; i++) {
#pragma GCC unroll 12
        for (int c = 0; c < CHAINS; c++)
            acc[c] = vec_fma(acc[c], x, y);
    }
    vec sum = acc[0];
    for (int c = 1; c < CHAINS; c++)
        sum = sum + acc[c];
    ((double *)sink)[worker] = vec_sum(sum);
}

double CPU_NAME(bench_multiply_flops)(void) { return 2.0 * LANES * CHAINS * ROUNDS; }

#if defined(__AVX512BF16__)
/* Two products a lane. */
void CPU_NAME(bench_multiply_pairs)(void *sink, int task, int worker)
{
    (void)task;
    vec acc[CHAINS];
    __m512bh x = _mm512_cvtne2ps_pbh(vec_set(0.999f), vec_set(0.5f));
    for (int c = 0; c < CHAINS; c++)
        acc[c] = vec_set((float)c);
    for (int i = 0; i < ROUNDS; i++) {
#pragma GCC unroll 12
        for (int c = 0; c < CHAINS; c++)
            acc[c] = (vec)_mm512_dpbf16_ps((__m512)acc[c], x, x);
    }
    vec sum = acc[0];
    for (int c = 1; c < CHAINS; c++)
        sum = sum + acc[c];
    ((double *)sink)[worker] = vec_sum(sum);
}
#endif

float CPU_NAME(bench_read)(const float *x, size_t count)
{
    vec sum[8];
    for (int c = 0; c < 8; c++)
        sum[c] = vec_set(0);
    for (size_t i = 0; i + 8 * LANES <= count; i += 8 * LANES)
#pragma GCC unroll 8
        for (int c = 0; c < 8; c++)
            sum[c] = sum[c] + vec_load(x + i + c * LANES);
    for (int c = 1; c < 8; c++)
        sum[0] = sum[0] + sum[c];
    return vec_sum(sum[0]);
}
