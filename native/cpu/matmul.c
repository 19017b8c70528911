/* Linear layers as multiplications of strided factors; see native/ref/matmul.c
 * for the formulas. */
#include "cpu.h"
#include "simd.h"

void CPU_NAME(cpu_gemm)(backend *b, const gemm_arguments *g);
void CPU_NAME(cpu_matmul_forward)(backend *b, tensor out, tensor x, tensor w, const float *bias);
void CPU_NAME(cpu_matmul_backward_input)(backend *b, tensor dx, tensor dout, tensor w, int accumulate);
void CPU_NAME(cpu_matmul_backward_weight)(backend *b, tensor dw, float *dbias, tensor dout, tensor x);

void CPU_NAME(cpu_matmul_forward)(backend *b, tensor out, tensor x, tensor w, const float *bias)
{
    CPU_NAME(cpu_gemm)(b, &(gemm_arguments){.out = out.data,
                                            .out_row = (size_t)out.cols,
                                            .M = out.rows,
                                            .N = out.cols,
                                            .K = x.cols,
                                            .a = x.data,
                                            .a_row = (size_t)x.cols,
                                            .a_col = 1,
                                            .b = w.data,
                                            .b_row = 1,
                                            .b_col = (size_t)w.cols,
                                            .bias = bias});
}

void CPU_NAME(cpu_matmul_backward_input)(backend *b, tensor dx, tensor dout, tensor w, int accumulate)
{
    CPU_NAME(cpu_gemm)(b, &(gemm_arguments){.out = dx.data,
                                            .out_row = (size_t)dx.cols,
                                            .M = dx.rows,
                                            .N = dx.cols,
                                            .K = dout.cols,
                                            .a = dout.data,
                                            .a_row = (size_t)dout.cols,
                                            .a_col = 1,
                                            .b = w.data,
                                            .b_row = (size_t)w.cols,
                                            .b_col = 1,
                                            .accumulate = accumulate});
}

typedef struct columns {
    float *sum;
    tensor x;
    int tasks;
} columns;

static void sum_columns(void *argument, int task, int worker)
{
    (void)worker;
    const columns *c = argument;
    size_t begin, end;
    cpu_share((size_t)c->x.cols, LANES, task, c->tasks, &begin, &end);
    for (int n = 0; n < c->x.rows; n++)
        add_scaled(c->sum + begin, 1, c->x.data + (size_t)n * c->x.cols + begin, (int)(end - begin));
}

void CPU_NAME(cpu_matmul_backward_weight)(backend *b, tensor dw, float *dbias, tensor dout, tensor x)
{
    CPU_NAME(cpu_gemm)(b, &(gemm_arguments){.out = dw.data,
                                            .out_row = (size_t)dw.cols,
                                            .M = dw.rows,
                                            .N = dw.cols,
                                            .K = x.rows,
                                            .a = dout.data,
                                            .a_row = 1,
                                            .a_col = (size_t)dout.cols,
                                            .b = x.data,
                                            .b_row = (size_t)x.cols,
                                            .b_col = 1,
                                            .accumulate = 1});
    if (dbias) {
        columns c = {dbias, dout, thread_pool_size(cpu(b)->pool)};
        thread_pool_run(cpu(b)->pool, c.tasks, sum_columns, &c);
    }
}
