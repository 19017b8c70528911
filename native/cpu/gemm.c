/* Matrix multiplication: blocked over depth, packed, a register tile inside
 * (the scheme of Goto & van de Geijn 2008).
 *
 *   for every part of the columns and span of the depth whose panels of b fit the workspace:
 *     pack b into panels [depth block][N / COLS][depth][COLS], shared by all
 *     for every block of rows x columns of out (a task):
 *       for every depth block of the span:
 *         pack the block's rows of a, into memory of the worker's own
 *         for every tile: acc(ROWS x COLS in registers) += a * b panel
 *
 * Few rows (the head's chunks, gradients of narrow weights, small batches) use
 * each panel of b so seldom that writing it to memory, and reading there what
 * another core wrote, is not worth it:
 *
 *   for every block of columns of out, of all rows or a thread's (a task):
 *     for every depth block:
 *       pack the rows of a, into memory of the worker's own
 *       for every panel of b: pack it into the worker's cache, multiply
 *
 * What comes next (the next tile's part of out, the next panel of b, what will
 * be packed next, what an op after this one reads) is fetched while a tile is
 * multiplied (fetch.h): memory is slow, not busy.
 *
 * Each element is summed over k in rising order, whatever M, N and the number
 * of threads: a row of a decode batch has
 * the same bits as the same row in a training batch. */
#include <stddef.h>

#include "cpu.h"
#include "elements.h"
#include "fetch.h"
#ifdef __AVX512BF16__
#include "gemm_bf16.h"
#else
#include "gemm_fp32.h"
#endif
#include "gemm_tile.h"

#define BLOCK_PANELS (GEMM_BLOCK_ROWS / ROWS) /* of rows in a task */
#define BLOCK_COLS 1024                       /* of out in a task that comes back to it for the next depth block */
#define FEW_ROWS_COLS 128                     /* of a task that packs all rows for itself, at least */
#define LEAST_ROWS 128                        /* of a task for which all columns are packed once more */
#define SMALL_FACTOR ((size_t)1 << 20)        /* elements that may be */
#define SUM_VECTORS 7                         /* columns of a task's rows, added up side by side */
#define ROWS_AHEAD 3                          /* that are fetched to the first cache while a row is finished */
#define SLAB 8                                /* rows that are packed together when columns are contiguous */

void CPU_NAME(cpu_gemm)(backend *b, const gemm_arguments *g);
void CPU_NAME(cpu_gemm_pack)(backend *b, float *to, const gemm_arguments *g);

typedef struct job {
    const gemm_arguments *g;
    packed *packed_a, *packed_b; /* [workers][a_room], panels of the span */
    size_t a_room;
    fetch_list *later; /* [workers] */
    int k0, span;
    int panels_a, panels_b, row_blocks, col_blocks;
} job;

static inline int least(int a, int b) { return a < b ? a : b; }

/* Panels of b for the `depth` that comes before, which is of full blocks. */
static size_t packed_before(int panels, int depth)
{
    return (size_t)panels * (size_t)(depth / DEPTH) * panel_size(COLS, DEPTH);
}

/* `count` columns of b from n on, `depth` of them from k on, into panels `panel` elements apart. */
static void pack_columns(const gemm_arguments *g, packed *to, size_t panel, int n, int count, int k, int depth)
{
    const float *b = g->b + (size_t)n * g->b_col + (size_t)k * g->b_row;
    const row_norm *norm = &g->norm_b;
    if (norm->mean)
        pack_straight(to, panel, b, g->b_row, count, COLS, depth, 0,
                      &(row_norm){norm->mean + k, norm->rstd + k, norm->gain + n, norm->bias + n});
    else if (g->gelu_b)
        pack_straight(to, panel, b, g->b_row, count, COLS, depth, 1, NULL);
    else if (g->b_col == 1)
        pack_straight(to, panel, b, g->b_row, count, COLS, depth, 0, NULL);
    else
        pack_turned(to, b, g->b_col, count, COLS, depth);
}

/* A depth block of one panel whose rows are contiguous in k; or, where columns
 * are, a slab of all panels, so that memory is read in its own order. */
static void pack_task(void *argument, int task, int worker)
{
    (void)worker;
    const job *j = argument;
    const gemm_arguments *g = j->g;
    int slabs = g->b_col == 1 ? DEPTH / SLAB : 1, pieces = g->b_col == 1 ? 1 : j->panels_b;
    int block = task / (slabs * pieces) * DEPTH, from = task % slabs * SLAB, n = task % pieces * COLS;
    int whole = least(DEPTH, j->span - block), depth = least(slabs > 1 ? SLAB : DEPTH, whole - from);
    size_t panel = panel_size(COLS, whole);
    packed *to = j->packed_b + packed_before(j->panels_b, block) + panel_size(COLS, from) + (size_t)(n / COLS) * panel;
    if (depth > 0)
        pack_columns(g, to, panel, n, pieces > 1 ? least(COLS, g->N - n) : g->N, j->k0 + block + from, depth);
}

static int pack_tasks(const job *j)
{
    int blocks = (j->span + DEPTH - 1) / DEPTH;
    return blocks * (j->g->b_col == 1 ? DEPTH / SLAB : j->panels_b);
}

/* sum[i] += sum_k x[i + k * col], k rising, of so many vectors side by side:
 * one alone would wait for every addition. */
static inline __attribute__((always_inline)) void add_vectors(float *sum, const float *x, size_t col, int depth,
                                                              const int vectors)
{
    vec total[SUM_VECTORS];
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++)
        total[v] = vec_load(sum + v * LANES);
    for (int k = 0; k < depth; k++, x += col)
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++)
            total[v] = total[v] + vec_load(x + v * LANES);
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++)
        vec_store(sum + v * LANES, total[v]);
}

static void add_columns(float *sum, const float *x, size_t col, int count, int depth)
{
    int i = 0;
    for (; i + SUM_VECTORS * LANES <= count; i += SUM_VECTORS * LANES)
        add_vectors(sum + i, x + i, col, depth, SUM_VECTORS);
    for (; i + LANES <= count; i += LANES)
        add_vectors(sum + i, x + i, col, depth, 1);
    for (; i < count; i++)
        for (int k = 0; k < depth; k++)
            sum[i] += x[i + (size_t)k * col];
}

/* Whether a is read by rows that are contiguous in k. */
static inline int by_rows(const gemm_arguments *g) { return g->a_row != 1 || g->gelu_a; }

/* Rows m0..m1 of a, `depth` of them from k on. What lies past the last row is
 * left as it is: its products are never stored. */
static void pack_rows(const gemm_arguments *g, packed *to, int m0, int m1, int k, int depth, int with_sum)
{
    if (by_rows(g)) {
        for (int m = m0; m < m1; m++, to += A_STRIDE)
            if (g->gelu_a)
                pack_row(to, g->a + (size_t)m * g->a_row + k, depth, 1);
            else
                pack_row(to, g->a + (size_t)m * g->a_row + k, depth, 0);
        return;
    }
    for (int from = 0; from < depth; from += SLAB) {
        int slab = least(SLAB, depth - from);
        const float *a = g->a + (size_t)(k + from) * g->a_col;
        pack_straight(to + panel_size(ROWS, from), panel_size(ROWS, depth), a + m0, g->a_col, m1 - m0, ROWS, slab, 0,
                      NULL);
        if (with_sum)
            add_columns(g->sum + m0, a + m0, g->a_col, m1 - m0, slab);
    }
}

/* Sums of a tile go to out, times the slope of GELU at up. Rows of out may lie
 * a multiple of 4 KB apart, and few of these fit the first cache: what the next
 * tile needs, `next` elements further on, is fetched to the second, and from
 * there to the first a few rows before its turn. */
static void finish(const gemm_arguments *g, int m, int n, int rows, int cols, const float *sums, ptrdiff_t next)
{
    size_t ahead = ROWS_AHEAD * g->out_row;
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < cols; c += LANES) {
            size_t at = (size_t)(m + r) * g->out_row + (size_t)(n + c);
            __builtin_prefetch(g->up + at + next, 0, 2);
            if (r + ROWS_AHEAD < rows) {
                __builtin_prefetch(g->up + at + ahead, 1);
                __builtin_prefetch(g->out + at + ahead, 1);
            }
            store(g->out + at, cols - c, vec_load(sums + r * COLS + c) * gelu_slope(load(g->up + at, cols - c)));
        }
}

/* Rows m0..m1 and the columns of a panel from n on, one depth block of packed
 * factors. On the way the next tile's part of out is fetched, then `panel`, which
 * is multiplied next, then `raw`, which is packed next. */
static inline __attribute__((always_inline)) void multiply_tiles(const gemm_arguments *g, int first, int last, int m0,
                                                                 int m1, int n, const packed *a, const packed *b,
                                                                 int depth, const int whole_rows, fetch *panel,
                                                                 fetch *raw, fetch_list *later)
{
    static const float zeros[COLS];
    float sums[ROWS * COLS];
    int through = last && g->up, fresh = first && !g->accumulate, cols = least(COLS, g->N - n);
    size_t panel_a = whole_rows ? (size_t)ROWS * A_STRIDE : panel_size(ROWS, depth);
    fetch nothing = fetch_nothing(b);
    for (int m = m0; m < m1; m += ROWS, a += panel_a) {
        int rows = least(ROWS, m1 - m), whole = cols == COLS && rows == tile_rows(rows);
        float *out = g->out + (size_t)m * g->out_row + n, *to = whole && !through ? out : sums;
        size_t to_row = to == out ? g->out_row : COLS, start_row = fresh ? 0 : g->out_row;
        const float *start = !fresh ? out : g->bias ? g->bias + n : zeros;
        const float *next = m + ROWS < m1 ? out + ROWS * g->out_row : g->out + (size_t)m0 * g->out_row + n + COLS;
        fetch lines = fetch_rows(next, COLS * sizeof(float), g->out_row * sizeof(float), ROWS);
        if (!whole) {
            memset(sums, 0, sizeof sums);
            for (int r = 0; r < rows; r++)
                memcpy(sums + r * COLS, start + r * start_row, (size_t)cols * sizeof(float));
            start = sums;
            start_row = COLS;
        }
        some_rows(tile_rows(rows), to, to_row, start, start_row, a, b, depth, whole_rows, &lines,
                  panel->rows > 0 ? panel
                  : raw->rows > 0 ? raw
                                  : &nothing,
                  fetch_first(later));
        if (through)
            finish(g, m, n, rows, cols, sums, next - out);
        else if (!whole)
            for (int r = 0; r < rows; r++)
                memcpy(out + (size_t)r * g->out_row, sums + r * COLS, (size_t)cols * sizeof(float));
    }
}

static __attribute__((noinline)) void multiply_panel(const gemm_arguments *g, int first, int last, int m0, int m1,
                                                     int n, const packed *a, const packed *b, int depth, fetch *panel,
                                                     fetch *raw, fetch_list *later)
{
    if (by_rows(g))
        multiply_tiles(g, first, last, m0, m1, n, a, b, depth, 1, panel, raw, later);
    else
        multiply_tiles(g, first, last, m0, m1, n, a, b, depth, 0, panel, raw, later);
}

/* The share `i` of `parts` of `panels` panels `width` wide, of count in all. */
static void share(int i, int parts, int panels, int width, int count, int *begin, int *end)
{
    *begin = (int)((int64_t)panels * i / parts) * width;
    *end = least((int)((int64_t)panels * (i + 1) / parts) * width, count);
}

/* Rows m0..m1 of a, and columns n0..n1 of b, `depth` of them from k on, as they lie in memory. */
static fetch raw_a(const gemm_arguments *g, int m0, int m1, int k, int depth)
{
    const float *a = g->a + (size_t)m0 * g->a_row + (size_t)k * g->a_col;
    if (by_rows(g))
        return fetch_rows(a, depth * (ptrdiff_t)sizeof *a, g->a_row * sizeof *a, m1 - m0);
    return fetch_rows(a, (m1 - m0) * (ptrdiff_t)sizeof *a, g->a_col * sizeof *a, depth);
}

static fetch raw_b(const gemm_arguments *g, int n0, int n1, int k, int depth)
{
    const float *b = g->b + (size_t)n0 * g->b_col + (size_t)k * g->b_row;
    if (g->b_row == 1)
        return fetch_rows(b, depth * (ptrdiff_t)sizeof *b, g->b_col * sizeof *b, n1 - n0);
    return fetch_rows(b, (n1 - n0) * (ptrdiff_t)sizeof *b, g->b_row * sizeof *b, depth);
}

static void multiply_task(void *argument, int task, int worker)
{
    const job *j = argument;
    const gemm_arguments *g = j->g;
    packed *a = j->packed_a + (size_t)worker * j->a_room;
    int m0, m1, n0, n1, next0, next1;
    share(task / j->col_blocks, j->row_blocks, j->panels_a, ROWS, g->M, &m0, &m1);
    share(task % j->col_blocks, j->col_blocks, j->panels_b, COLS, g->N, &n0, &n1);
    share((task + 1) / j->col_blocks, j->row_blocks, j->panels_a, ROWS, g->M, &next0, &next1);
    for (int block = 0; block < j->span; block += DEPTH) {
        int depth = least(DEPTH, j->span - block), first = j->k0 + block == 0, last = j->k0 + block + depth == g->K;
        int left = j->span - block - depth;
        size_t panel = panel_size(COLS, depth);
        const packed *b = j->packed_b + packed_before(j->panels_b, block) + (size_t)(n0 / COLS) * panel;
        pack_rows(g, a, m0, m1, j->k0 + block, depth, g->sum && n0 == 0);
        fetch raw = left > 0 ? raw_a(g, m0, m1, j->k0 + block + depth, least(DEPTH, left))
                             : raw_a(g, next0, next1, j->k0, least(DEPTH, j->span));
        for (int n = n0; n < n1; n += COLS, b += panel) {
            fetch ahead = fetch_rows(b + panel, (ptrdiff_t)(panel * sizeof *b), 0, 1);
            multiply_panel(g, first, last, m0, m1, n, a, b, depth, &ahead, &raw, &j->later[worker]);
        }
    }
}

static void few_rows_task(void *argument, int task, int worker)
{
    const job *j = argument;
    const gemm_arguments *g = j->g;
    packed *a = j->packed_a + (size_t)worker * j->a_room,
           *panel = j->packed_b + (size_t)worker * panel_size(COLS, DEPTH);
    int m0, m1, n0, n1;
    share(task / j->col_blocks, j->row_blocks, j->panels_a, ROWS, g->M, &m0, &m1);
    share(task % j->col_blocks, j->col_blocks, j->panels_b, COLS, g->N, &n0, &n1);
    for (int k = 0; k < g->K; k += DEPTH) {
        int depth = least(DEPTH, g->K - k), first = k == 0, last = k + depth == g->K;
        pack_rows(g, a, m0, m1, k, depth, g->sum && n0 == 0);
        fetch raw = raw_a(g, m0, m1, k + depth, least(DEPTH, g->K - k - depth));
        for (int n = n0; n < n1; n += COLS) {
            int next = n + COLS < n1 ? n + COLS : n0, next_k = next > n0 ? k : k + depth;
            fetch ahead = raw_b(g, next, least(next + COLS, n1), next_k, least(DEPTH, g->K - next_k));
            pack_columns(g, panel, 0, n, least(COLS, n1 - n), k, depth);
            multiply_panel(g, first, last, m0, m1, n, a, panel, depth, &ahead, &raw, &j->later[worker]);
        }
    }
}

static void start_job(job *j, backend *b, const gemm_arguments *g)
{
    /* The workspace holds fp32 or pairs of bf16, both four bytes. */
    *j = (job){.g = g,
               .packed_a = (packed *)cpu(b)->packed_a,
               .packed_b = (packed *)cpu(b)->packed_b,
               .a_room = cpu_packed_rows(),
               .later = cpu(b)->later,
               .span = g->K};
    j->panels_a = (g->M + ROWS - 1) / ROWS;
    j->panels_b = (g->N + COLS - 1) / COLS;
}

/* Blocks as high as the worker's memory allows, narrow enough to stay in the
 * cache between two depth blocks; as many for one thread as for another. Every
 * block of a few columns would pack the same rows again. */
static void share_out(job *j, int threads)
{
    j->row_blocks = (j->panels_a + BLOCK_PANELS - 1) / BLOCK_PANELS;
    j->col_blocks = j->g->K > DEPTH ? (j->g->N + BLOCK_COLS - 1) / BLOCK_COLS : 1;
    if (j->row_blocks >= 2 * threads)
        j->row_blocks = (j->row_blocks + threads - 1) / threads * threads;
    else
        j->col_blocks = (j->col_blocks + threads - 1) / threads * threads;
    j->col_blocks = least(j->col_blocks, j->panels_b);
}

/* As many columns of out as the workspace has panels of b for. */
static void multiply_columns(backend *b, const gemm_arguments *g, int room)
{
    job j;
    start_job(&j, b, g);
    share_out(&j, thread_pool_size(cpu(b)->pool));
    /* Spans of about the same length: each goes once more over out. */
    int blocks = (g->K + DEPTH - 1) / DEPTH, most = room / j.panels_b, spans = (blocks + most - 1) / most;
    int whole = (blocks + spans - 1) / spans * DEPTH;
    for (j.k0 = 0; j.k0 < g->K; j.k0 += j.span) {
        j.span = least(whole, g->K - j.k0);
        thread_pool_run(cpu(b)->pool, pack_tasks(&j), pack_task, &j);
        thread_pool_run(cpu(b)->pool, j.row_blocks * j.col_blocks, multiply_task, &j);
    }
}

void CPU_NAME(cpu_gemm)(backend *b, const gemm_arguments *g)
{
    if (g->packed_b) {
        job j;
        start_job(&j, b, g);
        share_out(&j, thread_pool_size(cpu(b)->pool));
        j.packed_b = (packed *)g->packed_b;
        thread_pool_run(cpu(b)->pool, j.row_blocks * j.col_blocks, multiply_task, &j);
        return;
    }
    int room = (int)(cpu(b)->packed_b_size / panel_size(COLS, DEPTH)), panels = (g->N + COLS - 1) / COLS;
    int threads = thread_pool_size(cpu(b)->pool);
    if (g->M <= GEMM_FEW_ROWS && g->N >= threads * FEW_ROWS_COLS && threads <= room) {
        job j;
        start_job(&j, b, g);
        /* Rows go to the worker that made them in the op before, if every worker's cache has room for b. */
        if (by_rows(g) && (size_t)g->N * (size_t)g->K <= SMALL_FACTOR)
            j.row_blocks = least(threads, (g->M + LEAST_ROWS - 1) / LEAST_ROWS);
        else
            j.row_blocks = 1;
        j.col_blocks = (g->N + BLOCK_COLS - 1) / BLOCK_COLS;
        if (j.row_blocks % threads)
            j.col_blocks = (j.col_blocks + threads - 1) / threads * threads;
        thread_pool_run(cpu(b)->pool, j.row_blocks * j.col_blocks, few_rows_task, &j);
        return;
    }
    /* Where not even one depth block fits the workspace, out is cut by columns. */
    int cuts = (panels + room - 1) / room, width = (panels + cuts - 1) / cuts * COLS;
    for (int n = 0; n < g->N; n += width) {
        gemm_arguments part = *g;
        part.N = least(width, g->N - n);
        part.out += n;
        part.b += (size_t)n * g->b_col;
        part.bias = g->bias ? g->bias + n : NULL;
        part.up = g->up ? g->up + n : NULL;
        part.norm_b.gain = g->norm_b.mean ? g->norm_b.gain + n : NULL;
        part.norm_b.bias = g->norm_b.mean ? g->norm_b.bias + n : NULL;
        part.sum = n ? NULL : g->sum;
        multiply_columns(b, &part, room);
    }
}

void CPU_NAME(cpu_gemm_pack)(backend *b, float *to, const gemm_arguments *g)
{
    job j;
    start_job(&j, b, g);
    j.packed_b = (packed *)to;
    thread_pool_run(cpu(b)->pool, pack_tasks(&j), pack_task, &j);
}
