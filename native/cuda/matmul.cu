/* Linear layers as problems of matmul.cuh; formulas: native/ref/matmul.c. */
#include "matmul.cuh"

#include <stdio.h>

size_t cuda_matmul_workspace(const backend_limits *limits)
{
    size_t cut = matmul_cut_workspace(limits), vector = matmul_vector_workspace(limits);
    return cut > vector ? cut : vector;
}

static bool starts_wide(const void *matrix, size_t row_bytes)
{
    return (uintptr_t)matrix % 16 == 0 && row_bytes % 16 == 0;
}

/* The weight in the type of the activations. */
static const void *factor(backend *b, tensor w, int type, const char *op)
{
    if (type == TENSOR_F32)
        return w.data;
    const bf16 *copy = cuda_weight_bf16(b, w.data);
    cuda_state *s = cuda(b);
    if (!copy && !s->error[0])
        snprintf(s->error, sizeof s->error, "cuda: %s: the weight is not among those of weights_changed", op);
    return copy;
}

matmul_problem matmul_describe(matmul_form form, int M, int N, int K, const void *x, const void *y, int type,
                               tensor out)
{
    size_t element = tensor_element(type);
    matmul_problem p = {};
    p.form = form;
    p.M = M;
    p.N = N;
    p.K = K;
    p.a = x;
    p.b = y;
    p.a_wide = starts_wide(x, (size_t)(form == BACKWARD_WEIGHT ? M : K) * element);
    p.b_wide = starts_wide(y, (size_t)(form == FORWARD ? K : N) * element);
    p.finish = FINISH_STORE;
    p.out = out.data;
    p.out_type = out.type;
    /* Eight elements of bf16, or of fp32. */
    p.out_wide = starts_wide(out.data, (size_t)N * 2);
    p.cuts = 1;
    p.cut_length = K;
    return p;
}

/* FORWARD or BACKWARD_INPUT. */
static void by_weight(backend *b, matmul_form form, matmul_finish finish, tensor out, tensor side, tensor x, tensor w,
                      const float *bias, const char *op)
{
    const void *weight = factor(b, w, x.type, op);
    if (!weight || !out.rows)
        return;
    matmul_problem p = matmul_describe(form, out.rows, out.cols, x.cols, x.data, weight, x.type, out);
    p.finish = finish;
    p.side = side.data;
    p.out_wide = p.out_wide && (uintptr_t)side.data % 16 == 0;
    p.bias = bias;
    matmul_run(b, p);
    cuda_note(b, cudaGetLastError(), op);
}

void cuda_matmul_forward(backend *b, tensor out, tensor x, tensor w, const float *bias)
{
    if (out.cols == 1)
        matmul_vector_forward(b, out, x, w.data, bias);
    else
        by_weight(b, FORWARD, FINISH_STORE, out, {}, x, w, bias, __func__);
}

void cuda_matmul_gelu_forward(backend *b, tensor gelu, tensor up, tensor x, tensor w, const float *bias)
{
    by_weight(b, FORWARD, FINISH_GELU, gelu, up, x, w, bias, __func__);
}

void cuda_matmul_backward_input(backend *b, tensor dx, tensor dout, tensor w, int accumulate)
{
    if (dout.cols == 1)
        matmul_vector_backward_input(b, dx, dout, w.data, accumulate);
    else
        by_weight(b, BACKWARD_INPUT, accumulate ? FINISH_ADD : FINISH_STORE, dx, {}, dout, w, nullptr, __func__);
}

void cuda_matmul_gelu_backward(backend *b, tensor dup, tensor dout, tensor w, tensor up)
{
    by_weight(b, BACKWARD_INPUT, FINISH_SLOPE, dup, up, dout, w, nullptr, __func__);
}

void cuda_matmul_backward_weight(backend *b, tensor dw, float *dbias, tensor dout, tensor x)
{
    if (!x.rows)
        return;
    if (dout.cols == 1) {
        matmul_vector_backward_weight(b, dw.data, dbias, dout, x);
        return;
    }
    matmul_problem p = matmul_describe(BACKWARD_WEIGHT, dout.cols, x.cols, x.rows, dout.data, x.data, x.type, dw);
    p.finish = FINISH_ADD;
    p.column_sums = dbias;
    matmul_run(b, p);
    CUDA_OP_END(b);
}
