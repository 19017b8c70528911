/* Cases of the ops that go row by row or element by element. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "matrix.h"

void test_layernorm(backend *b, backend *r, int N, int C)
{
    char shape[64];
    snprintf(shape, sizeof shape, "N%d C%d", N, C);
    size_t n = (size_t)N * (size_t)C, c = (size_t)C;
    float *x = filled(n, 3), *gain = filled(c, 1), *bias = filled(c, 1), *dout = activations(b, n, 1);
    float *start = filled(n, 1), *nothing = filled((size_t)N, 1);
    tensor out[2], dx[2];
    float *mean[2], *rstd[2], *dgain[2], *dbias[2];
    backend *both[2] = {b, r};
    if (!b->ops->layernorm_forward)
        return forget();
    for (int k = 0; k < 2; k++) {
        backend *z = both[k];
        out[k] = rows_on(z, start, N, C);
        dx[k] = tensor_on(z, start, N, C, TENSOR_F32);
        mean[k] = floats_on(z, nothing, (size_t)N);
        rstd[k] = floats_on(z, nothing, (size_t)N);
        dgain[k] = floats_on(z, gain, c);
        dbias[k] = floats_on(z, bias, c);
        tensor xz = tensor_on(z, x, N, C, TENSOR_F32);
        float *gz = floats_on(z, gain, c);
        z->ops->layernorm_forward(z, out[k], mean[k], rstd[k], xz, gz, floats_on(z, bias, c), 1e-5f);
        z->ops->layernorm_backward(z, dx[k], dgain[k], dbias[k], rows_on(z, dout, N, C), xz, gz, mean[k], rstd[k]);
    }
    check_tensor(b, r, "layernorm_forward", shape, out[0], out[1], BOUND);
    /* The input gradient cancels where the row is short: 5 digits. */
    check_tensor(b, r, "layernorm_backward dx", shape, dx[0], dx[1], 1e-10);
    /* ref adds the rows as floats: thousands of them cost it a digit. */
    double bound = N > 1000 ? 1e-11 : BOUND;
    check_floats(b, r, "layernorm_backward dgain", shape, dgain[0], dgain[1], c, bound);
    check_floats(b, r, "layernorm_backward dbias", shape, dbias[0], dbias[1], c, bound);
    forget();
}

void test_residual_layernorm_bits(backend *b, int N, int C)
{
    char shape[64];
    snprintf(shape, sizeof shape, "N%d C%d", N, C);
    size_t n = (size_t)N * (size_t)C, c = (size_t)C;
    if (!b->ops->residual_layernorm_forward)
        return;
    float *start = filled(n, 3), *nothing = filled((size_t)N, 1), *gain = floats_on(b, filled(c, 1), c);
    float *bias = floats_on(b, filled(c, 1), c), *mean[2], *rstd[2];
    tensor a = tensor_on(b, start, N, C, TENSOR_F32), x = rows_on(b, activations(b, n, 1), N, C), sum[2], norm[2];
    dropout drop = {0.3f, 11, 5, 2, 0};
    for (int k = 0; k < 2; k++) {
        sum[k] = tensor_on(b, start, N, C, TENSOR_F32);
        norm[k] = rows_on(b, start, N, C);
        mean[k] = floats_on(b, nothing, (size_t)N);
        rstd[k] = floats_on(b, nothing, (size_t)N);
    }
    b->ops->residual_layernorm_forward(b, sum[0], norm[0], mean[0], rstd[0], a, x, gain, bias, 1e-5f, drop);
    b->ops->residual_forward(b, sum[1], a, x, drop);
    b->ops->layernorm_forward(b, norm[1], mean[1], rstd[1], sum[1], gain, bias, 1e-5f);
    check(b, "residual_layernorm sum", shape, tensor_back(b, sum[0]), tensor_back(b, sum[1]), n, 0);
    check(b, "residual_layernorm norm", shape, tensor_back(b, norm[0]), tensor_back(b, norm[1]), n, 0);
    check(b, "residual_layernorm mean", shape, floats_back(b, mean[0], (size_t)N), floats_back(b, mean[1], (size_t)N),
          (size_t)N, 0);
    check(b, "residual_layernorm rstd", shape, floats_back(b, rstd[0], (size_t)N), floats_back(b, rstd[1], (size_t)N),
          (size_t)N, 0);
    forget();
}

void test_embedding(backend *b, backend *r, int N, int C, int common)
{
    enum { V = 13, T = 9 };
    char shape[64];
    snprintf(shape, sizeof shape, "N%d C%d %d%%", N, C, common);
    size_t n = (size_t)N * (size_t)C;
    float *wte = filled((size_t)V * (size_t)C, 1), *wpe = filled((size_t)T * (size_t)C, 1), *d = filled(n, 1);
    int32_t *tokens = integers((size_t)N), *positions = integers((size_t)N);
    for (int i = 0; i < N; i++) {
        tokens[i] = i % 100 < common ? 5 : i * 7 % V;
        positions[i] = i % T;
    }
    backend *both[2] = {b, r};
    tensor out[2], dwte[2], dwpe[2];
    dropout drop = {0.2f, 3, 4, 0, 0};
    if (!b->ops->embedding_forward)
        return forget();
    for (int k = 0; k < 2; k++) {
        backend *z = both[k];
        out[k] = tensor_on(z, d, N, C, TENSOR_F32);
        dwte[k] = tensor_on(z, wte, V, C, TENSOR_F32);
        dwpe[k] = tensor_on(z, wpe, T, C, TENSOR_F32);
        int32_t *tz = on(z, tokens, (size_t)N * sizeof *tokens), *pz = on(z, positions, (size_t)N * sizeof *tokens);
        z->ops->embedding_forward(z, out[k], tensor_on(z, wte, V, C, TENSOR_F32), tensor_on(z, wpe, T, C, TENSOR_F32),
                                  tz, pz, drop);
        z->ops->embedding_backward(z, dwte[k], dwpe[k], tensor_on(z, d, N, C, TENSOR_F32), tz, pz, drop);
    }
    check_tensor(b, r, "embedding_forward", shape, out[0], out[1], BOUND);
    check_tensor(b, r, "embedding_backward wte", shape, dwte[0], dwte[1], BOUND);
    check_tensor(b, r, "embedding_backward wpe", shape, dwpe[0], dwpe[1], BOUND);
    forget();
}

/* 1 + tanh cancels at negative x: what is left has the error of x. So input and
 * output are compared together. */
static void check_beside(backend *b, backend *r, const char *op, const char *shape, tensor got, tensor want,
                         const float *beside, double bound)
{
    size_t n = tensor_count(got);
    float *x = tensor_back(b, got), *y = tensor_back(r, want);
    for (size_t i = 0; i < n; i++) {
        x[i] += beside[i];
        y[i] += beside[i];
    }
    check(b, op, shape, x, y, n, got.type == TENSOR_BF16 && bound < BOUND_BF16 ? BOUND_BF16 : bound);
}

void test_elementwise(backend *b, backend *r, int rows, int cols)
{
    char shape[64];
    snprintf(shape, sizeof shape, "%d x %d", rows, cols);
    size_t n = (size_t)rows * (size_t)cols;
    float *x = activations(b, n, 4), *d = activations(b, n, 1), *a = filled(n, 1), *start = filled(n, 9);
    backend *both[2] = {b, r};
    tensor gelu[2], slope[2], sum[2][2], thinned[2][2];
    if (!b->ops->gelu_forward)
        return forget();
    for (int k = 0; k < 2; k++) {
        backend *z = both[k];
        gelu[k] = rows_on(z, start, rows, cols);
        z->ops->gelu_forward(z, gelu[k], rows_on(z, x, rows, cols));
        slope[k] = rows_on(z, d, rows, cols); /* in place, as the model calls it */
        z->ops->gelu_backward(z, slope[k], slope[k], rows_on(z, x, rows, cols));
        for (int p = 0; p < 2; p++) {
            dropout drop = {0.3f * (float)p, 11, 5, 2, 0};
            drop.first = strcmp(b->ops->name, "cuda") ? 7 : 0; /* a card has no parts */
            sum[p][k] = tensor_on(z, a, rows, cols, TENSOR_F32);
            z->ops->residual_forward(z, sum[p][k], p ? sum[p][k] : tensor_on(z, a, rows, cols, TENSOR_F32),
                                     rows_on(z, x, rows, cols), drop);
            thinned[p][k] = rows_on(z, start, rows, cols);
            z->ops->residual_backward(z, thinned[p][k], tensor_on(z, a, rows, cols, TENSOR_F32), drop);
        }
    }
    check_beside(b, r, "gelu_forward", shape, gelu[0], gelu[1], x, BOUND);
    /* (1 - tanh^2) x^3 too has what 1 - tanh^2 lost. */
    check_beside(b, r, "gelu_backward", shape, slope[0], slope[1], d, 1e-10);
    for (int p = 0; p < 2; p++) {
        check_tensor(b, r, "residual_forward", shape, sum[p][0], sum[p][1], BOUND);
        check_tensor(b, r, "residual_backward", shape, thinned[p][0], thinned[p][1], BOUND);
    }
    forget();
}

void test_optimizer(backend *b, backend *r, int count)
{
    char shape[64];
    snprintf(shape, sizeof shape, "n%d", count);
    size_t n = (size_t)count;
    float *w0 = filled(n, 4), *g = filled(n, 1), *m0 = filled(n, 1), *v0 = filled(n, 1);
    for (size_t i = 0; i < n; i++)
        v0[i] *= v0[i];
    /* A step in which all decay, one in which the first ones do, one in which none does; so much that a single
     * element shows. */
    const size_t decayed[] = {n, n / 2 + 1, 0};
    adamw_options o = {1e-3, 0.9, 0.999, 1e-8, 100, 2, 3, n};
    backend *both[2] = {b, r};
    double norm = 4, refused = NAN, norms[2];
    float *w[2], *m[2], *v[2];
    if (!b->ops->adamw || !b->ops->gradient_norm)
        return forget();
    for (int k = 0; k < 2; k++) {
        backend *z = both[k];
        w[k] = floats_on(z, w0, n);
        m[k] = floats_on(z, m0, n);
        v[k] = floats_on(z, v0, n);
        float *gz = floats_on(z, g, n);
        double *norm_on = on(z, &norms[k], sizeof norm);
        z->ops->adamw(z, w[k], gz, m[k], v[k], n, on(z, &refused, sizeof refused), o);
        check(z, "adamw, norm not finite", shape, floats_back(z, w[k], n), w0, n, 0);
        double *accepted = on(z, &norm, sizeof norm);
        for (int i = 0; i < 3; i++) {
            adamw_options step = o;
            step.decayed = decayed[i];
            step.step += i;
            z->ops->adamw(z, w[k], gz, m[k], v[k], n, accepted, step);
        }
        z->ops->gradient_norm(z, norm_on, gz, n);
        back(z, &norms[k], norm_on, sizeof norm);
    }
    check_floats(b, r, "adamw weights", shape, w[0], w[1], n, BOUND);
    /* A single moment may cancel: what is left of it has fewer digits. */
    check_floats(b, r, "adamw first moment", shape, m[0], m[1], n, n > 1 ? BOUND : 1e-10);
    check_floats(b, r, "adamw second moment", shape, v[0], v[1], n, BOUND);
    expect(b, fabs(norms[0] - norms[1]) <= 1e-6 * norms[1], "gradient_norm %s: %.9g, ref has %.9g", shape, norms[0],
           norms[1]);
    forget();
}
