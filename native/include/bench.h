/* bench.h: one op at a time, on the shapes of a student, for `onceupon bench`.
 * Part of libstudent; same rules as student.h. */
#ifndef STUDENT_BENCH_H
#define STUDENT_BENCH_H

#include <stddef.h>
#include <stdint.h>

#include "student.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct student_bench student_bench;

/* The shapes of a student at work: a batch of `stories` stories of `length`
 * tokens; N = stories * length. */
typedef struct student_bench_shape {
    size_t size;
    int32_t stories, length, width, heads, vocabulary;
} student_bench_shape;

typedef struct student_bench_cost {
    size_t size;
    double flops;              /* of one call: multiplications and additions of the formula */
    double bytes;              /* every array of the formula read or written once */
    int32_t rows, cols, depth; /* of a multiplication, else 0: out (rows,cols), summed over depth */
} student_bench_cost;

int32_t student_bench_ops(void);
const char *student_bench_op(int32_t index); /* NULL beyond the last */

int student_bench_create(int32_t op, const student_bench_shape *shape, const char *backend, const char *isa,
                         const char *kernels, int32_t threads, student_bench **out, student_bench_cost *cost,
                         char *message, size_t capacity);
void student_bench_destroy(student_bench *b);
/* Calls the op `times` times. */
void student_bench_run(student_bench *b, int64_t times);

/* The ops of a student's calls from start to stop, by the clock; a student
 * that is not profiled pays nothing. Backends ref and cpu. Uploads, downloads
 * and the per-token ops of PPO are not among them. */
typedef struct student_profile student_profile;
typedef struct student_profiled_op {
    size_t size;
    char name[64]; /* of a multiplication with its columns in and out: matmul_forward_256x1024 */
    int64_t calls;
    double seconds, flops; /* of all calls; flops of multiplications and attention */
} student_profiled_op;

int student_profile_start(student *s, student_profile **out, char *message, size_t capacity);
/* 0 beyond the last; the order is that of the first calls. */
int32_t student_profile_read(const student_profile *p, int32_t index, student_profiled_op *op);
void student_profile_stop(student_profile *p);

/* What the machine gives `threads` threads: multiply-adds from registers,
 * counted as two, with the vectors of an isa, in FLOP/s; the same with bf16
 * factors and fp32 sums, 0 where neither isa nor processor has them; and bytes read from
 * an array much larger than the caches, in B/s. The best of several rounds
 * that take about `seconds` together. */
int student_bench_roofline(const char *isa, int32_t threads, double seconds, double *flops, double *bf16_flops,
                           double *bytes, char *message, size_t capacity);

#ifdef __cplusplus
}
#endif
#endif
