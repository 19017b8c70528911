/* The residual stream: out = a + dropout(x), and its backward, the same mask
 * applied to dout. */
#include "ref.h"

void ref_residual_forward(backend *b, tensor out, tensor a, tensor x, dropout drop)
{
    (void)b;
    for (size_t i = 0; i < tensor_count(out); i++)
        out.data[i] = a.data[i] + x.data[i] * ref_dropout_factor(drop, i);
}

void ref_residual_backward(backend *b, tensor dx, tensor dout, dropout drop)
{
    (void)b;
    for (size_t i = 0; i < tensor_count(dx); i++)
        dx.data[i] = dout.data[i] * ref_dropout_factor(drop, i);
}
