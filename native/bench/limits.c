/* student_bench_roofline: runs the loops of roofline.c on a pool of threads. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench.h"
#include "bench_internal.h"
#include "student.h"
#include "threads.h"

#define ARRAY_FLOATS ((size_t)64 << 20) /* 256 MiB: many times a last-level cache */
#define MAX_THREADS 1024

typedef struct isa_loops {
    const char *name;
    thread_body multiply;
    double (*flops)(void);
    float (*read)(const float *x, size_t count);
} isa_loops;

static const isa_loops all[] = {
#if defined(__x86_64__)
    {"avx512bf16", bench_multiply_avx512bf16, bench_multiply_flops_avx512bf16, bench_read_avx512bf16},
    {"avx512", bench_multiply_avx512, bench_multiply_flops_avx512, bench_read_avx512},
    {"avx2", bench_multiply_avx2, bench_multiply_flops_avx2, bench_read_avx2},
#endif
    {"portable", bench_multiply_portable, bench_multiply_flops_portable, bench_read_portable},
};

typedef struct reading {
    const isa_loops *loops;
    const float *x;
    int threads;
    double sink[MAX_THREADS];
} reading;

static void read_part(void *argument, int task, int worker)
{
    reading *r = argument;
    size_t part = ARRAY_FLOATS / (size_t)r->threads;
    r->sink[worker] += r->loops->read(r->x + (size_t)task * part, part);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The least time of one run of the pool, in rounds that last `seconds`. */
static double least(thread_pool *pool, int threads, thread_body body, void *argument, double seconds)
{
    double best = 1e30, end = now() + seconds;
    do {
        double start = now();
        thread_pool_run(pool, threads, body, argument);
        double took = now() - start;
        best = took < best ? took : best;
    } while (now() < end);
    return best;
}

int student_bench_roofline(const char *isa, int32_t threads, double seconds, double *flops, double *bf16_flops,
                           double *bytes, char *message, size_t capacity)
{
    const isa_loops *loops = NULL;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (!strcmp(isa, all[i].name))
            loops = &all[i];
    if (!loops || threads < 1 || threads > MAX_THREADS) {
        snprintf(message, capacity, "no roofline for isa %s and %d threads", isa, threads);
        return STUDENT_E_ARGUMENT;
    }
    thread_pool *pool = thread_pool_create(threads);
    reading *r = calloc(1, sizeof *r);
    float *x = malloc(ARRAY_FLOATS * sizeof(float));
    if (!pool || !r || !x) {
        thread_pool_destroy(pool);
        free(r);
        free(x);
        snprintf(message, capacity, "the roofline needs %zu MiB and %d threads", (ARRAY_FLOATS * 4) >> 20, threads);
        return STUDENT_E_MEMORY;
    }
    for (size_t i = 0; i < ARRAY_FLOATS; i++)
        x[i] = 1;
    *r = (reading){.loops = loops, .x = x, .threads = threads};
    *flops = loops->flops() * threads / least(pool, threads, loops->multiply, r->sink, seconds / 3);
    *bf16_flops = 0;
#if defined(__x86_64__)
    if (!strncmp(isa, "avx512", 6) && __builtin_cpu_supports("avx512bf16"))
        *bf16_flops =
            2 * loops->flops() * threads / least(pool, threads, bench_multiply_pairs_avx512bf16, r->sink, seconds / 3);
#endif
    *bytes = (double)(ARRAY_FLOATS * sizeof(float)) / least(pool, threads, read_part, r, seconds / 3);
    thread_pool_destroy(pool);
    free(r);
    free(x);
    return STUDENT_OK;
}
