/* cpu.h: what the files of the cpu backend share. */
#ifndef ONCEUPON_CPU_H
#define ONCEUPON_CPU_H

#include "ops.h"
#include "ref.h"
#include "threads.h"

/* One tile of the multiplication is TILE_ROWS x TILE_COLS elements that stay
 * in registers; see gemm.c. */
typedef struct cpu_state {
    thread_pool *pool;
    float *packed_a, *packed_b; /* one depth block of each factor, packed */
    float *scratch;             /* [threads][scratch_size] */
    size_t scratch_size;
} cpu_state;

static inline cpu_state *cpu(backend *b) { return b->state; }

/* The share of worker-independent task `task` of `tasks` in 0..count, in
 * multiples of `grain`. */
static inline void cpu_share(size_t count, size_t grain, int task, int tasks, size_t *begin, size_t *end)
{
    size_t grains = (count + grain - 1) / grain;
    *begin = grains * (size_t)task / (size_t)tasks * grain;
    *end = grains * (size_t)(task + 1) / (size_t)tasks * grain;
    if (*end > count)
        *end = count;
}

/* out (M,N) = [out or 0 or bias +] a b, with a(m,k) = a[m * a_row + k * a_col]
 * and b likewise. */
typedef struct gemm_arguments {
    float *out;
    size_t out_row;
    int M, N, K;
    const float *a, *b;
    size_t a_row, a_col, b_row, b_col;
    const float *bias; /* [N] or NULL */
    int accumulate;
} gemm_arguments;

/* Floats of packing workspace for factors of at most `rows` rows or columns. */
size_t cpu_packed_floats(int rows);

/* Floats of scratch that one worker needs: scores of a row of attention. */
#define CPU_SCRATCH_FLOATS (4 * 65536)

#define CPU_OPS(isa) extern const op_table cpu_ops_##isa;
CPU_OPS(avx512)
CPU_OPS(avx2)
CPU_OPS(portable)

#endif
