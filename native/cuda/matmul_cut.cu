/* The gradient of a weight, cut along the rows: how many cuts, and their sum. */
#include "matmul_finish.cuh"

enum { CUT_TILES = 264, CUT_TILE = 128, CUT_ROWS = 256, CUT_MULTIPLE = 64 };

size_t matmul_cut_workspace(const backend_limits *)
{
    /* Of tiles times cuts there are at most CUT_TILES, each with its elements
     * and, in the worst case, column sums of its own. */
    return (size_t)CUT_TILES * (CUT_TILE * CUT_TILE + CUT_TILE) * sizeof(float);
}

void matmul_cut(backend *b, matmul_problem *p)
{
    int tiles_m = (p->M + CUT_TILE - 1) / CUT_TILE, tiles_n = (p->N + CUT_TILE - 1) / CUT_TILE;
    int cuts = (int64_t)tiles_m * tiles_n < CUT_TILES ? CUT_TILES / (tiles_m * tiles_n) : 1;
    int most = (p->K + CUT_ROWS - 1) / CUT_ROWS;
    cuts = cuts < most ? cuts : most;
    p->cut_length = ((p->K + cuts - 1) / cuts + CUT_MULTIPLE - 1) / CUT_MULTIPLE * CUT_MULTIPLE;
    p->cuts = (p->K + p->cut_length - 1) / p->cut_length;
    if (p->cuts == 1)
        return;
    size_t all = (size_t)p->cuts * p->M * p->N, columns = (size_t)p->cuts * p->M;
    p->parts = (float *)cuda_workspace(b, (all + columns) * sizeof(float), "matmul_backward_weight");
    p->column_parts = p->parts ? p->parts + all : nullptr;
}

/* out[i] += parts[0][i] + parts[1][i] + ..., added one after another. Reads and
 * writes each element once: bound by memory, 4 (cuts + 2) bytes an element. */
static __global__ void __launch_bounds__(256)
    join(float *out, const float *parts, size_t count, int cuts, float *columns, const float *column_parts, int M)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) {
        float sum = parts[i];
        for (int c = 1; c < cuts; c++)
            sum += parts[c * count + i];
        out[i] += sum;
    }
    if (columns && i < (size_t)M) {
        float sum = column_parts[i];
        for (int c = 1; c < cuts; c++)
            sum += column_parts[(size_t)c * M + i];
        columns[i] += sum;
    }
}

void matmul_join(backend *b, const matmul_problem *p)
{
    size_t count = (size_t)p->M * p->N;
    LAUNCH(join, blocks_for(count, 256), 256, 0, cuda(b)->stream, (float *)p->out, p->parts, count, p->cuts,
           p->column_sums, p->column_parts, p->M);
}

static __global__ void __launch_bounds__(256) add_columns(float *columns, const float *parts, int count)
{
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < count)
        columns[i] += parts[i];
}

void matmul_add_columns(backend *b, float *columns, const float *parts, int count)
{
    LAUNCH(add_columns, blocks_for((size_t)count, 256), 256, 0, cuda(b)->stream, columns, parts, count);
}
