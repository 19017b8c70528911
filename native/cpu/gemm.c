/* Matrix multiplication: blocked over depth, packed, a register tile inside
 * (the scheme of Goto & van de Geijn 2008).
 *
 *   for every depth block of DEPTH:
 *     pack a into panels [M / ROWS][depth][ROWS], b into [N / COLS][depth][COLS]
 *     for every block of BLOCK_ROWS x BLOCK_COLS of out (a task):
 *       for every tile: acc(ROWS x COLS in registers) += a panel * b panel
 *
 * Each element is summed over k in rising order, one fused multiply-add at a
 * time, whatever M, N and the number of threads: a row of a decode batch has
 * the same bits as the same row in a training batch. */
#include "cpu.h"
#include "simd.h"

#if LANES == 16
#define ROWS 14
#define VECTORS 2
#elif LANES == 8
#define ROWS 6
#define VECTORS 2
#else
#define ROWS 4
#define VECTORS 2
#endif
#define COLS (VECTORS * LANES)
#define DEPTH 256
#define BLOCK_ROWS (6 * ROWS)
#define BLOCK_COLS (8 * COLS)

void CPU_NAME(cpu_gemm)(backend *b, const gemm_arguments *g);

typedef struct job {
    const gemm_arguments *g;
    float *packed_a, *packed_b;
    int k0, depth, first, blocks_n;
    int panels_a, panels_b;
} job;

/* Panels of `width` rows (element (i, k) at x[i * row + k * col]), zero filled. */
static void pack_panel(float *to, const float *x, size_t row, size_t col, int count, int width, int depth)
{
    if (count == width && row == 1) {
        for (int k = 0; k < depth; k++)
            memcpy(to + (size_t)k * width, x + k * col, (size_t)width * sizeof(float));
        return;
    }
    for (int i = 0; i < count; i++)
        for (int k = 0; k < depth; k++)
            to[(size_t)k * width + i] = x[i * row + k * col];
    for (int i = count; i < width; i++)
        for (int k = 0; k < depth; k++)
            to[(size_t)k * width + i] = 0;
}

static void pack_task(void *argument, int task, int worker)
{
    (void)worker;
    const job *j = argument;
    const gemm_arguments *g = j->g;
    if (task < j->panels_a) {
        int m = task * ROWS, count = g->M - m < ROWS ? g->M - m : ROWS;
        pack_panel(j->packed_a + (size_t)task * ROWS * j->depth, g->a + m * g->a_row + j->k0 * g->a_col, g->a_row,
                   g->a_col, count, ROWS, j->depth);
    } else {
        int panel = task - j->panels_a, n = panel * COLS, count = g->N - n < COLS ? g->N - n : COLS;
        pack_panel(j->packed_b + (size_t)panel * COLS * j->depth, g->b + n * g->b_col + j->k0 * g->b_row, g->b_col,
                   g->b_row, count, COLS, j->depth);
    }
}

/* acc += a panel * b panel; acc starts from start[ROWS][COLS]. */
static inline void tile(float *restrict out, size_t out_row, const float *restrict a, const float *restrict b,
                        int depth)
{
    vec acc[ROWS][VECTORS];
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; v++)
            acc[r][v] = vec_load(out + r * out_row + v * LANES);
    for (int k = 0; k < depth; k++) {
        vec b0 = vec_load(b), b1 = vec_load(b + LANES);
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++) {
            vec x = vec_set(a[r]);
            acc[r][0] = vec_fma(x, b0, acc[r][0]);
            acc[r][1] = vec_fma(x, b1, acc[r][1]);
        }
        a += ROWS;
        b += COLS;
    }
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; v++)
            vec_store(out + r * out_row + v * LANES, acc[r][v]);
}

/* What an element is before the first depth block. */
static inline float start_of(const gemm_arguments *g, int first, float *element, int n)
{
    if (!first || g->accumulate)
        return *element;
    return g->bias ? g->bias[n] : 0;
}

static void edge_tile(const job *j, int m, int n, int rows, int cols, const float *a, const float *b)
{
    const gemm_arguments *g = j->g;
    float buffer[ROWS * COLS] = {0};
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < cols; c++)
            buffer[r * COLS + c] = start_of(g, j->first, g->out + (m + r) * g->out_row + n + c, n + c);
    tile(buffer, COLS, a, b, j->depth);
    for (int r = 0; r < rows; r++)
        memcpy(g->out + (m + r) * g->out_row + n, buffer + r * COLS, (size_t)cols * sizeof(float));
}

static void multiply_task(void *argument, int task, int worker)
{
    (void)worker;
    const job *j = argument;
    const gemm_arguments *g = j->g;
    int m0 = task / j->blocks_n * BLOCK_ROWS, n0 = task % j->blocks_n * BLOCK_COLS;
    int m1 = m0 + BLOCK_ROWS < g->M ? m0 + BLOCK_ROWS : g->M, n1 = n0 + BLOCK_COLS < g->N ? n0 + BLOCK_COLS : g->N;
    for (int n = n0; n < n1; n += COLS) {
        const float *b = j->packed_b + (size_t)(n / COLS) * COLS * j->depth;
        for (int m = m0; m < m1; m += ROWS) {
            const float *a = j->packed_a + (size_t)(m / ROWS) * ROWS * j->depth;
            int rows = m1 - m < ROWS ? m1 - m : ROWS, cols = n1 - n < COLS ? n1 - n : COLS;
            if (rows < ROWS || cols < COLS) {
                edge_tile(j, m, n, rows, cols, a, b);
                continue;
            }
            float *out = g->out + m * g->out_row + n;
            if (j->first && !g->accumulate)
                for (int r = 0; r < ROWS; r++)
                    for (int c = 0; c < COLS; c++)
                        out[r * g->out_row + c] = g->bias ? g->bias[n + c] : 0;
            tile(out, g->out_row, a, b, j->depth);
        }
    }
}

void CPU_NAME(cpu_gemm)(backend *b, const gemm_arguments *g)
{
    job j = {.g = g, .packed_a = cpu(b)->packed_a, .packed_b = cpu(b)->packed_b, .first = 1};
    int blocks_m = (g->M + BLOCK_ROWS - 1) / BLOCK_ROWS;
    j.blocks_n = (g->N + BLOCK_COLS - 1) / BLOCK_COLS;
    j.panels_a = (g->M + ROWS - 1) / ROWS;
    j.panels_b = (g->N + COLS - 1) / COLS;
    for (j.k0 = 0; j.k0 < g->K; j.k0 += DEPTH, j.first = 0) {
        j.depth = g->K - j.k0 < DEPTH ? g->K - j.k0 : DEPTH;
        thread_pool_run(cpu(b)->pool, j.panels_a + j.panels_b, pack_task, &j);
        thread_pool_run(cpu(b)->pool, blocks_m * j.blocks_n, multiply_task, &j);
    }
}
