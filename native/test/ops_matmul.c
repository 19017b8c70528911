/* Cases of multiplications, and of the ops that fuse something into them. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "matrix.h"

/* bf16 factors carry 8 bits: a relative error of up to 2^-8 in each. Where
 * both factors are bf16 numbers to begin with, products are exact and sums are
 * fp32: only the order of the sum differs. */
static double factor_bound(const backend *b)
{
    return !strcmp(b->isa, "avx512bf16") ? 1e-4 : b->ops->activations == TENSOR_BF16 ? 1e-10 : BOUND;
}

/* The gate of a rounded `up`; few elements do not average it away, less so
 * after products of rounded factors. */
static double fused_bound(const backend *b, size_t elements)
{
    double factors = factor_bound(b), gate = elements < 64 ? 1e-4 : bound_of(b, 1e-11) * 4;
    if (factors > gate || (elements < 64 && factors >= 1e-4))
        return elements < 64 ? 10 * factors : factors;
    return gate;
}

/* Of few sums one may cancel, and what is left of it has no digits: not of values
 * of one sign. */
static float *of_one_sign(float *x, size_t n, int sums)
{
    for (size_t i = 0; i < n && sums < 64; i++)
        x[i] = fabsf(x[i]);
    return x;
}

/* A weight as a student has it: among the flat ones that the backend knows. */
static tensor weight_on(backend *b, const float *w, int O, int I)
{
    tensor t = tensor_on(b, w, O, I, TENSOR_F32);
    if (b->ops->weights_changed)
        b->ops->weights_changed(b, t.data, tensor_count(t));
    return t;
}

static void forward(backend *b, backend *r, const char *shape, const float *x, const float *w, const float *bias, int N,
                    int I, int O)
{
    /* The head's logits are fp32, all other results activations. */
    const int types[] = {b->ops->activations, TENSOR_F32};
    float *start = filled((size_t)N * (size_t)O, 9), *bias_b = bias ? floats_on(b, bias, (size_t)O) : NULL;
    for (int k = 0; k < (types[0] == TENSOR_F32 ? 1 : 2); k++) {
        tensor got = tensor_on(b, start, N, O, types[k]), want = tensor_on(r, start, N, O, TENSOR_F32);
        tensor xb = rows_on(b, x, N, I), wb = weight_on(b, w, O, I);
        b->ops->matmul_forward(b, got, xb, wb, bias_b);
        r->ops->matmul_forward(r, want, rows_on(r, x, N, I), tensor_on(r, w, O, I, TENSOR_F32),
                               bias ? floats_on(r, bias, (size_t)O) : NULL);
        check_tensor(b, r, "matmul_forward", shape, got, want, factor_bound(b));
        if (b->ops->matmul_pack) {
            float *packed = floats_on(b, filled(matmul_packed_floats(O, I), 1), matmul_packed_floats(O, I));
            tensor again = tensor_on(b, start, N, O, types[k]);
            b->ops->matmul_pack(b, packed, wb);
            b->ops->matmul_forward_packed(b, again, xb, packed, bias_b);
            check_tensor(b, b, "matmul_forward_packed", shape, again, got, 0);
        }
    }
}

static void backward(backend *b, backend *r, const char *shape, const float *x, const float *w, const float *bias,
                     int N, int I, int O)
{
    size_t ni = (size_t)N * (size_t)I, no = (size_t)N * (size_t)O, oi = (size_t)O * (size_t)I;
    float *dout = of_one_sign(activations(b, no, 1), no, O == 1 ? O : N * O);
    float *dx = of_one_sign(activations(b, ni, 1), ni, N * O), *dw = of_one_sign(filled(oi, 1), oi, N * O);
    /* The slope of the value head comes as fp32. */
    int type = O == 1 ? TENSOR_F32 : b->ops->activations;
    tensor dx_got = rows_on(b, dx, N, I), dx_want = rows_on(r, dx, N, I);
    b->ops->matmul_backward_input(b, dx_got, tensor_on(b, dout, N, O, type), weight_on(b, w, O, I), bias != NULL);
    r->ops->matmul_backward_input(r, dx_want, rows_on(r, dout, N, O), tensor_on(r, w, O, I, TENSOR_F32), bias != NULL);
    check_tensor(b, r, "matmul_backward_input", shape, dx_got, dx_want, factor_bound(b));

    tensor dw_got = tensor_on(b, dw, O, I, TENSOR_F32), dw_want = tensor_on(r, dw, O, I, TENSOR_F32);
    float *db_got = bias ? floats_on(b, bias, (size_t)O) : NULL, *db_want = bias ? floats_on(r, bias, (size_t)O) : NULL;
    b->ops->matmul_backward_weight(b, dw_got, db_got, tensor_on(b, dout, N, O, type), rows_on(b, x, N, I));
    r->ops->matmul_backward_weight(r, dw_want, db_want, rows_on(r, dout, N, O), rows_on(r, x, N, I));
    /* A single sum may cancel: what is left of it has fewer digits. */
    check_tensor(b, r, "matmul_backward_weight", shape, dw_got, dw_want, factor_bound(b) * (oi > 1 ? 1 : 10));
    if (bias)
        check_floats(b, r, "matmul bias gradient", shape, db_got, db_want, (size_t)O, O > 1 ? BOUND : 1e-10);
}

/* A weight that lies among the flat ones, of which the backend keeps another
 * form: it must be that of the last weights_changed. */
static void changed_weights(backend *b, backend *r, const char *shape, const float *x, const float *w, int N, int I,
                            int O)
{
    size_t oi = (size_t)O * (size_t)I, before = 16;
    float *flat = filled(before + oi, 1);
    float *flat_b = floats_on(b, flat, before + oi);
    b->ops->weights_changed(b, flat_b, before + oi);
    memcpy(flat + before, w, oi * sizeof *w);
    b->ops->upload(b, flat_b, flat, (before + oi) * sizeof *flat);
    b->ops->weights_changed(b, flat_b, before + oi);
    tensor got = tensor_on(b, filled((size_t)N * (size_t)O, 1), N, O, TENSOR_F32),
           want = tensor_on(r, filled((size_t)N * (size_t)O, 1), N, O, TENSOR_F32);
    b->ops->matmul_forward(b, got, rows_on(b, x, N, I), (tensor){flat_b + before, O, I, TENSOR_F32}, NULL);
    r->ops->matmul_forward(r, want, rows_on(r, x, N, I), tensor_on(r, w, O, I, TENSOR_F32), NULL);
    check_tensor(b, r, "matmul of changed weights", shape, got, want, factor_bound(b));
    b->ops->weights_changed(b, flat_b, 0); /* the array goes */
}

void test_matmul(backend *b, backend *r, int N, int I, int O)
{
    char shape[64];
    snprintf(shape, sizeof shape, "N%d I%d O%d", N, I, O);
    size_t ni = (size_t)N * (size_t)I, oi = (size_t)O * (size_t)I;
    float *x = of_one_sign(activations(b, ni, 1), ni, N * O), *w = of_one_sign(activations(b, oi, 1), oi, N * O);
    float *bias = of_one_sign(filled((size_t)O, 1), (size_t)O, N * O);
    if (b->ops->weights_changed && b->ops->matmul_forward)
        changed_weights(b, r, shape, x, w, N, I, O);
    for (int with_bias = 0; with_bias < 2; with_bias++) {
        if (b->ops->matmul_forward)
            forward(b, r, shape, x, w, with_bias ? bias : NULL, N, I, O);
        if (b->ops->matmul_backward_weight)
            backward(b, r, shape, x, w, with_bias ? bias : NULL, N, I, O);
    }
    forget();
}

/* On the processor a fused op has the bits of the two that it stands for. */
static void fused_bits(backend *b, const char *shape, const float *x, const float *w, const float *bias, int N, int I,
                       int O)
{
    size_t ni = (size_t)N * (size_t)I, no = (size_t)N * (size_t)O;
    tensor xb = rows_on(b, x, N, I), wb = weight_on(b, w, O, I), out[2], dup[2], dw[2];
    float *bias_b = floats_on(b, bias, (size_t)O), *start = filled(no, 9), *below = filled(ni, 9);
    tensor dout = rows_on(b, filled(no, 1), N, O), side = rows_on(b, filled(ni, 2), N, I);
    for (int k = 0; k < 2; k++) {
        out[k] = rows_on(b, start, N, O);
        dup[k] = rows_on(b, below, N, I);
    }
    b->ops->gelu_matmul_forward(b, out[0], xb, wb, bias_b);
    b->ops->gelu_forward(b, dup[0], xb);
    b->ops->matmul_forward(b, out[1], dup[0], wb, bias_b);
    check_tensor(b, b, "bits of gelu_matmul_forward", shape, out[0], out[1], 0);
    b->ops->matmul_gelu_backward(b, dup[0], dout, wb, side);
    b->ops->matmul_backward_input(b, dup[1], dout, wb, 0);
    b->ops->gelu_backward(b, dup[1], dup[1], side);
    check_tensor(b, b, "bits of matmul_gelu_backward", shape, dup[0], dup[1], 0);
    for (int k = 0; k < 2; k++)
        dw[k] = tensor_on(b, w, O, I, TENSOR_F32);
    b->ops->matmul_gelu_backward_weight(b, dw[0], NULL, dout, side);
    b->ops->gelu_forward(b, dup[0], side);
    b->ops->matmul_backward_weight(b, dw[1], NULL, dout, dup[0]);
    check_tensor(b, b, "bits of matmul_gelu_backward_weight", shape, dw[0], dw[1], 0);
    float *one = filled((size_t)N, 1), *mean = floats_on(b, one, (size_t)N), *rstd = floats_on(b, one, (size_t)N);
    float *gain = floats_on(b, filled((size_t)I, 1), (size_t)I), *shift = floats_on(b, filled((size_t)I, 1), (size_t)I);
    b->ops->layernorm_forward(b, dup[0], mean, rstd, side, gain, shift, 1e-5f);
    for (int k = 0; k < 2; k++)
        dw[k] = tensor_on(b, w, O, I, TENSOR_F32);
    b->ops->matmul_norm_backward_weight(b, dw[0], NULL, dout, side, mean, rstd, gain, shift);
    b->ops->matmul_backward_weight(b, dw[1], NULL, dout, dup[0]);
    check_tensor(b, b, "bits of matmul_norm_backward_weight", shape, dw[0], dw[1], 0);
}

void test_fused(backend *b, backend *r, int N, int I, int O)
{
    char shape[64];
    snprintf(shape, sizeof shape, "N%d I%d O%d", N, I, O);
    size_t ni = (size_t)N * (size_t)I, no = (size_t)N * (size_t)O, oi = (size_t)O * (size_t)I;
    float *x = of_one_sign(activations(b, ni, 1), ni, N * O), *w = of_one_sign(activations(b, oi, 1), oi, N * O);
    float *bias = of_one_sign(filled((size_t)O, 1), (size_t)O, N * O);
    if (b->ops->matmul_gelu_forward) {
        tensor up = rows_on(b, filled(no, 9), N, O), gelu = rows_on(b, filled(no, 9), N, O);
        tensor up_want = rows_on(r, filled(no, 9), N, O), gelu_want = rows_on(r, filled(no, 9), N, O);
        b->ops->matmul_gelu_forward(b, gelu, up, rows_on(b, x, N, I), weight_on(b, w, O, I),
                                    floats_on(b, bias, (size_t)O));
        r->ops->matmul_forward(r, up_want, rows_on(r, x, N, I), tensor_on(r, w, O, I, TENSOR_F32),
                               floats_on(r, bias, (size_t)O));
        r->ops->gelu_forward(r, gelu_want, up_want);
        check_tensor(b, r, "matmul_gelu up", shape, up, up_want, factor_bound(b));
        check_tensor(b, r, "matmul_gelu_forward", shape, gelu, gelu_want, fused_bound(b, no));
    }
    if (b->ops->matmul_gelu_backward) {
        float *up = activations(b, ni, 2), *dout = activations(b, no, 1);
        tensor dup = rows_on(b, filled(ni, 9), N, I), want = rows_on(r, filled(ni, 9), N, I);
        b->ops->matmul_gelu_backward(b, dup, rows_on(b, dout, N, O), weight_on(b, w, O, I), rows_on(b, up, N, I));
        r->ops->matmul_backward_input(r, want, rows_on(r, dout, N, O), tensor_on(r, w, O, I, TENSOR_F32), 0);
        r->ops->gelu_backward(r, want, want, rows_on(r, up, N, I));
        check_tensor(b, r, "matmul_gelu_backward", shape, dup, want, fused_bound(b, ni));
        if (b->ops->matmul_gelu_backward_weight) {
            tensor dw = tensor_on(b, w, O, I, TENSOR_F32), dw_want = tensor_on(r, w, O, I, TENSOR_F32);
            float *db = floats_on(b, bias, (size_t)O), *db_want = floats_on(r, bias, (size_t)O);
            b->ops->matmul_gelu_backward_weight(b, dw, db, rows_on(b, dout, N, O), rows_on(b, up, N, I));
            r->ops->gelu_forward(r, want, rows_on(r, up, N, I));
            r->ops->matmul_backward_weight(r, dw_want, db_want, rows_on(r, dout, N, O), want);
            check_tensor(b, r, "matmul_gelu_backward_weight", shape, dw, dw_want, fused_bound(b, oi));
            check_floats(b, r, "its bias gradient", shape, db, db_want, (size_t)O, O > 1 ? BOUND : 1e-10);
        }
    }
    if (b->ops->gelu_matmul_forward) {
        tensor out = rows_on(b, filled(no, 9), N, O), want = rows_on(r, filled(no, 9), N, O);
        tensor gelu = rows_on(r, filled(ni, 9), N, I);
        b->ops->gelu_matmul_forward(b, out, rows_on(b, x, N, I), weight_on(b, w, O, I), floats_on(b, bias, (size_t)O));
        r->ops->gelu_forward(r, gelu, rows_on(r, x, N, I));
        r->ops->matmul_forward(r, want, gelu, tensor_on(r, w, O, I, TENSOR_F32), floats_on(r, bias, (size_t)O));
        check_tensor(b, r, "gelu_matmul_forward", shape, out, want, fused_bound(b, no));
    }
    if (b->ops->gelu_matmul_forward && !strcmp(b->ops->name, "cpu"))
        fused_bits(b, shape, x, w, bias, N, I, O);
    if (b->ops->residual_layernorm_forward) {
        float *a = filled(ni, 2), *y = activations(b, ni, 2), *gain = filled((size_t)I, 1);
        float *shift = filled((size_t)I, 1), *nothing = filled((size_t)N, 1);
        for (size_t i = 0; i < ni; i++)
            a[i] += 1; /* so that no mean nearly cancels */
        for (int p = 0; p < 2; p++) {
            dropout drop = {0.3f * (float)p, 11, 5, 2, 0};
            tensor out[2], norm[2];
            float *mean[2], *rstd[2];
            backend *both[2] = {b, r};
            for (int k = 0; k < 2; k++) {
                backend *z = both[k];
                out[k] = tensor_on(z, filled(ni, 9), N, I, TENSOR_F32);
                norm[k] = rows_on(z, filled(ni, 9), N, I);
                mean[k] = floats_on(z, nothing, (size_t)N);
                rstd[k] = floats_on(z, nothing, (size_t)N);
                tensor az = tensor_on(z, a, N, I, TENSOR_F32), yz = rows_on(z, y, N, I);
                float *gz = floats_on(z, gain, (size_t)I), *sz = floats_on(z, shift, (size_t)I);
                if (z == b) {
                    z->ops->residual_layernorm_forward(z, out[k], norm[k], mean[k], rstd[k], az, yz, gz, sz, 1e-5f,
                                                       drop);
                } else {
                    z->ops->residual_forward(z, out[k], az, yz, drop);
                    z->ops->layernorm_forward(z, norm[k], mean[k], rstd[k], out[k], gz, sz, 1e-5f);
                }
            }
            check_tensor(b, r, "residual_layernorm out", shape, out[0], out[1], BOUND);
            check_tensor(b, r, "residual_layernorm norm", shape, norm[0], norm[1], BOUND);
            check_floats(b, r, "residual_layernorm mean", shape, mean[0], mean[1], (size_t)N, BOUND);
            check_floats(b, r, "residual_layernorm rstd", shape, rstd[0], rstd[1], (size_t)N, BOUND);
        }
    }
    forget();
}
