/* The residual stream: out = a + dropout(x), and its backward, the same mask
 * applied to dout. */
#include "ref.h"

void ref_residual_forward(backend *b, float *out, const float *a, const float *x, size_t count, dropout drop)
{
    (void)b;
    for (size_t i = 0; i < count; i++)
        out[i] = a[i] + x[i] * ref_dropout_factor(drop, i);
}

void ref_residual_backward(backend *b, float *dx, const float *dout, size_t count, dropout drop)
{
    (void)b;
    for (size_t i = 0; i < count; i++)
        dx[i] = dout[i] * ref_dropout_factor(drop, i);
}
