/* Linear layers. x (N,I), w (O,I), out (N,O): out = x w^T + bias,
 * dx = dout w, dw += dout^T x, dbias += column sums of dout. */
#include "ref.h"

void ref_matmul_forward(backend *b, tensor out, tensor x, tensor w, const float *bias)
{
    (void)b;
    int I = x.cols, O = out.cols;
    for (int n = 0; n < out.rows; n++)
        for (int o = 0; o < O; o++) {
            double sum = bias ? bias[o] : 0;
            for (int i = 0; i < I; i++)
                sum += (double)x.data[(size_t)n * I + i] * w.data[(size_t)o * I + i];
            out.data[(size_t)n * O + o] = (float)sum;
        }
}

void ref_matmul_backward_input(backend *b, tensor dx, tensor dout, tensor w, int accumulate)
{
    (void)b;
    int I = dx.cols, O = dout.cols;
    for (int n = 0; n < dx.rows; n++)
        for (int i = 0; i < I; i++) {
            double sum = accumulate ? dx.data[(size_t)n * I + i] : 0;
            for (int o = 0; o < O; o++)
                sum += (double)dout.data[(size_t)n * O + o] * w.data[(size_t)o * I + i];
            dx.data[(size_t)n * I + i] = (float)sum;
        }
}

void ref_matmul_backward_weight(backend *b, tensor dw, float *dbias, tensor dout, tensor x)
{
    (void)b;
    int I = x.cols, O = dout.cols;
    for (int o = 0; o < O; o++) {
        for (int i = 0; i < I; i++) {
            double sum = dw.data[(size_t)o * I + i];
            for (int n = 0; n < x.rows; n++)
                sum += (double)dout.data[(size_t)n * O + o] * x.data[(size_t)n * I + i];
            dw.data[(size_t)o * I + i] = (float)sum;
        }
        if (dbias) {
            double sum = dbias[o];
            for (int n = 0; n < x.rows; n++)
                sum += dout.data[(size_t)n * O + o];
            dbias[o] = (float)sum;
        }
    }
}
