/* What the files of native/bench share. */
#ifndef ONCEUPON_BENCH_INTERNAL_H
#define ONCEUPON_BENCH_INTERNAL_H

#include <stddef.h>

#define BENCH_ROOFLINE(isa)                                                                                            \
    void bench_multiply_##isa(void *sink, int task, int worker);                                                       \
    double bench_multiply_flops_##isa(void);                                                                           \
    float bench_read_##isa(const float *x, size_t count);
BENCH_ROOFLINE(avx512bf16)
BENCH_ROOFLINE(avx512)
BENCH_ROOFLINE(avx2)
BENCH_ROOFLINE(portable)
void bench_multiply_pairs_avx512bf16(void *sink, int task, int worker);

#endif
