/* Linear layers as multiplications of strided factors; see native/ref/matmul.c
 * for the formulas. */
#include "cpu.h"
#include "simd.h"

void CPU_NAME(cpu_gemm)(backend *b, const gemm_arguments *g);
void CPU_NAME(cpu_gemm_pack)(backend *b, float *to, const gemm_arguments *g);
void CPU_NAME(cpu_matmul_forward)(backend *b, tensor out, tensor x, tensor w, const float *bias);
void CPU_NAME(cpu_matmul_pack)(backend *b, float *packed, tensor w);
void CPU_NAME(cpu_matmul_forward_packed)(backend *b, tensor out, tensor x, const float *packed, const float *bias);
void CPU_NAME(cpu_matmul_backward_input)(backend *b, tensor dx, tensor dout, tensor w, int accumulate);
void CPU_NAME(cpu_matmul_backward_weight)(backend *b, tensor dw, float *dbias, tensor dout, tensor x);
void CPU_NAME(cpu_gelu_matmul_forward)(backend *b, tensor out, tensor up, tensor w, const float *bias);
void CPU_NAME(cpu_matmul_gelu_backward)(backend *b, tensor dup, tensor dout, tensor w, tensor up);
void CPU_NAME(cpu_matmul_gelu_backward_weight)(backend *b, tensor dw, float *dbias, tensor dout, tensor up);
void CPU_NAME(cpu_matmul_norm_backward_weight)(backend *b, tensor dw, float *dbias, tensor dout, tensor x,
                                               const float *mean, const float *rstd, const float *gain,
                                               const float *bias);

/* out = x times what is still to be named, b or packed_b. */
static gemm_arguments of_rows(tensor out, tensor x, const float *bias)
{
    return (gemm_arguments){.out = out.data,
                            .out_row = (size_t)out.cols,
                            .M = out.rows,
                            .N = out.cols,
                            .K = x.cols,
                            .a = x.data,
                            .a_row = (size_t)x.cols,
                            .a_col = 1,
                            .bias = bias};
}

static void forward(backend *b, tensor out, tensor x, tensor w, const float *bias, int gelu)
{
    gemm_arguments g = of_rows(out, x, bias);
    g.b = w.data;
    g.b_row = 1;
    g.b_col = (size_t)w.cols;
    g.gelu_a = gelu;
    CPU_NAME(cpu_gemm)(b, &g);
}

void CPU_NAME(cpu_matmul_forward)(backend *b, tensor out, tensor x, tensor w, const float *bias)
{
    forward(b, out, x, w, bias, 0);
}

void CPU_NAME(cpu_gelu_matmul_forward)(backend *b, tensor out, tensor up, tensor w, const float *bias)
{
    forward(b, out, up, w, bias, 1);
}

void CPU_NAME(cpu_matmul_pack)(backend *b, float *packed, tensor w)
{
    CPU_NAME(cpu_gemm_pack)(
        b, packed, &(gemm_arguments){.N = w.rows, .K = w.cols, .b = w.data, .b_row = 1, .b_col = (size_t)w.cols});
}

void CPU_NAME(cpu_matmul_forward_packed)(backend *b, tensor out, tensor x, const float *packed, const float *bias)
{
    gemm_arguments g = of_rows(out, x, bias);
    g.packed_b = packed;
    CPU_NAME(cpu_gemm)(b, &g);
}

static void backward_input(backend *b, tensor dx, tensor dout, tensor w, int accumulate, const float *up)
{
    gemm_arguments g = of_rows(dx, dout, NULL);
    g.b = w.data;
    g.b_row = (size_t)w.cols;
    g.b_col = 1;
    g.up = up;
    g.accumulate = accumulate;
    CPU_NAME(cpu_gemm)(b, &g);
}

void CPU_NAME(cpu_matmul_backward_input)(backend *b, tensor dx, tensor dout, tensor w, int accumulate)
{
    backward_input(b, dx, dout, w, accumulate, NULL);
}

void CPU_NAME(cpu_matmul_gelu_backward)(backend *b, tensor dup, tensor dout, tensor w, tensor up)
{
    backward_input(b, dup, dout, w, 0, up.data);
}

static void backward_weight(backend *b, tensor dw, float *dbias, tensor dout, tensor x, int gelu, row_norm norm)
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
                                            .gelu_b = gelu,
                                            .norm_b = norm,
                                            .sum = dbias,
                                            .accumulate = 1});
}

void CPU_NAME(cpu_matmul_backward_weight)(backend *b, tensor dw, float *dbias, tensor dout, tensor x)
{
    backward_weight(b, dw, dbias, dout, x, 0, (row_norm){0});
}

void CPU_NAME(cpu_matmul_gelu_backward_weight)(backend *b, tensor dw, float *dbias, tensor dout, tensor up)
{
    backward_weight(b, dw, dbias, dout, up, 1, (row_norm){0});
}

void CPU_NAME(cpu_matmul_norm_backward_weight)(backend *b, tensor dw, float *dbias, tensor dout, tensor x,
                                               const float *mean, const float *rstd, const float *gain,
                                               const float *bias)
{
    backward_weight(b, dw, dbias, dout, x, 0, (row_norm){mean, rstd, gain, bias});
}
