/* A recorded sequence of ops does what the ops did, on the values that the
 * arrays have by then. */
#include "matrix.h"

void test_recording(backend *b)
{
    enum { N = 8, C = 32 };
    if (!b->ops->replay || !b->ops->residual_forward)
        return;
    float *a = filled(N * C, 1), *x = activations(b, N * C, 1), sum[N * C];
    tensor out = tensor_on(b, a, N, C, TENSOR_F32), xb = rows_on(b, x, N, C);
    dropout none = {0};
    for (int round = 1; round <= 4; round++) {
        int replayed = b->ops->replay(b, 77);
        if (!replayed) {
            b->ops->residual_forward(b, out, out, xb, none);
            b->ops->residual_forward(b, out, out, xb, none);
            b->ops->recorded(b);
        }
        expect(b, replayed == (round > 1), "recording: round %d, replay says %d", round, replayed);
        for (int i = 0; i < N * C; i++) {
            sum[i] = round == 1 ? a[i] : sum[i];
            sum[i] = sum[i] + x[i] + x[i];
        }
        check(b, "recording", "four rounds", tensor_back(b, out), sum, N * C, BOUND);
    }
    forget();
}
