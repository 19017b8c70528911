/* cpu.h: what the files of the cpu backend share. */
#ifndef ONCEUPON_CPU_H
#define ONCEUPON_CPU_H

#include "fetch.h"
#include "ops.h"
#include "ref.h"
#include "threads.h"

typedef struct cpu_state {
    op_table ops; /* the ISA's, with the variants that were asked for */
    thread_pool *pool;
    float *packed_a, *packed_b; /* factors of a multiplication (gemm.c): [threads][cpu_packed_rows()], shared */
    size_t packed_b_size;       /* floats */
    float *scratch;             /* [threads][scratch_size] */
    size_t scratch_size;
    fetch_list *later; /* [threads] */
} cpu_state;

static inline cpu_state *cpu(backend *b) { return b->state; }

static inline float *scratch_of(backend *b, int worker)
{
    return cpu(b)->scratch + (size_t)worker * cpu(b)->scratch_size;
}

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

/* Layer norm of rows whose mean and rstd are known (native/ref/layernorm.c). */
typedef struct row_norm {
    const float *mean, *rstd, *gain, *bias;
} row_norm;

/* out (M,N) = [out or 0 or bias +] a b, with a(m,k) = a[m * a_row + k * a_col]
 * and b likewise. */
typedef struct gemm_arguments {
    float *out;
    size_t out_row;
    int M, N, K;
    const float *a, *b;
    const float *packed_b; /* b as cpu_gemm_pack laid it out, or NULL */
    size_t a_row, a_col, b_row, b_col;
    const float *bias; /* [N] or NULL */
    float *sum;        /* [M] or NULL: sum[m] += sum_k a(m,k); needs a_row = 1 */
    const float *up;   /* as out, or NULL: out is multiplied by the slope of GELU there */
    int gelu_a;        /* GELU of a instead of a; needs a_col = 1 */
    int gelu_b;        /* GELU of b instead of b; needs b_col = 1 */
    row_norm norm_b;   /* where it has a mean: layer norm of b instead of b; needs b_col = 1 */
    int accumulate;
} gemm_arguments;

/* Rows of a factor that a worker packs at a time, and their elements of four
 * bytes: a depth block, of which the longest counts (DEPTH in gemm_fp32.h,
 * gemm_bf16.h), and a padding each. The highest tile may read 16 rows further. */
#define GEMM_DEPTH 384
#define GEMM_NARROW_DEPTH 256 /* of AVX2: a panel and the rows of a tile fit the first cache together */
#define GEMM_BLOCK_ROWS 112
#define GEMM_FEW_ROWS 256 /* that meet a panel of the other factor only once */
static inline size_t cpu_packed_rows(void) { return (size_t)(GEMM_FEW_ROWS + 16) * (GEMM_DEPTH + 16); }

/* Floats of workspace in which the shared factor of a multiplication is packed. */
size_t cpu_packed_floats(const backend_limits *limits);

#define LAYERNORM_PARTS 32 /* of a backward's rows at a time, each with sums of its own (layernorm.c) */

/* Floats of scratch that one worker needs: attention's backward of one head
 * of the longest story (attention.c), with widths rounded up to 16. */
size_t cpu_scratch_floats(const backend_limits *limits);

/* A kernel that takes the place of an ISA's own where it is asked for by name.
 * install puts its functions into the table, or says what it lacks. */
typedef struct kernel_variant {
    const char *op, *name;
    int (*install)(op_table *table, const backend_limits *limits, const char *isa, char *message, size_t capacity);
} kernel_variant;

int cpu_install_variants(op_table *table, const backend_limits *limits, const char *isa, char *message,
                         size_t capacity);
int cpu_matmul_openblas(op_table *table, const backend_limits *limits, const char *isa, char *message, size_t capacity);

#define CPU_OPS(isa) extern const op_table cpu_ops_##isa;
CPU_OPS(avx512bf16)
CPU_OPS(avx512)
CPU_OPS(avx2)
CPU_OPS(portable)

#endif
