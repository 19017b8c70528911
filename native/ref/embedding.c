/* Token plus position embedding. out (N,C), wte (V,C), wpe (context,C). */
#include "ref.h"

void ref_embedding_forward(backend *b, tensor out, tensor wte, tensor wpe, const int32_t *tokens,
                           const int32_t *positions, dropout drop)
{
    (void)b;
    int C = out.cols;
    for (int n = 0; n < out.rows; n++)
        for (int c = 0; c < C; c++) {
            size_t i = (size_t)n * C + c;
            float x = wte.data[(size_t)tokens[n] * C + c] + wpe.data[(size_t)positions[n] * C + c];
            out.data[i] = x * ref_dropout_factor(drop, i);
        }
}

void ref_embedding_backward(backend *b, tensor dwte, tensor dwpe, tensor dout, const int32_t *tokens,
                            const int32_t *positions, dropout drop)
{
    (void)b;
    int C = dout.cols;
    for (int n = 0; n < dout.rows; n++)
        for (int c = 0; c < C; c++) {
            size_t i = (size_t)n * C + c;
            float d = dout.data[i] * ref_dropout_factor(drop, i);
            dwte.data[(size_t)tokens[n] * C + c] += d;
            dwpe.data[(size_t)positions[n] * C + c] += d;
        }
}
