/* A batch whose stories share a prefix against the batch in which each story
 * brings the prefix itself: the same bits forward; backward, the gradient of the
 * prefix is the sum over the stories. */
#include <stdio.h>
#include <string.h>

#include "matrix.h"

/* Where row t of the packed story s lies in the batch with a prefix. */
static size_t shared_row(const int32_t *offsets, int s, int t)
{
    int prefix = offsets[0];
    return (size_t)(t < prefix ? t : offsets[s] + t - prefix);
}

/* x [rows][cols] of the batch with a prefix, as each story has it. */
static float *unshared(const float *x, int cols, const int32_t *offsets, const int32_t *packed, int stories)
{
    float *all = filled((size_t)packed[stories] * (size_t)cols, 0);
    for (int s = 0; s < stories; s++)
        for (int t = 0; t < packed[s + 1] - packed[s]; t++)
            memcpy(all + (size_t)(packed[s] + t) * (size_t)cols, x + shared_row(offsets, s, t) * (size_t)cols,
                   (size_t)cols * sizeof *all);
    return all;
}

/* The sum of the stories' rows, for the batch with a prefix. */
static float *summed(const float *all, int cols, const int32_t *offsets, const int32_t *packed, int stories)
{
    size_t n = (size_t)offsets[stories] * (size_t)cols;
    float *x = filled(n, 0);
    memset(x, 0, n * sizeof *x);
    for (int s = 0; s < stories; s++)
        for (int t = 0; t < packed[s + 1] - packed[s]; t++)
            for (int c = 0; c < cols; c++)
                x[shared_row(offsets, s, t) * (size_t)cols + (size_t)c] +=
                    all[(size_t)(packed[s] + t) * (size_t)cols + (size_t)c];
    return x;
}

void test_prefix(backend *b, const int32_t *offsets, int stories, int heads, int D)
{
    char shape[64];
    int prefix = offsets[0], C = heads * D, N = offsets[stories], all = N + (stories - 1) * prefix;
    int32_t *packed = integers((size_t)stories + 1);
    for (int s = 0; s <= stories; s++)
        packed[s] = offsets[s] - prefix + s * prefix;
    snprintf(shape, sizeof shape, "P%d N%d H%d D%d", prefix, N, heads, D);
    size_t n = (size_t)N * (size_t)C, alls = (size_t)all * (size_t)C;
    float *qkv = activations(b, 3 * n, 2), *dout = activations(b, n, 1);
    float *each = unshared(qkv, 3 * C, offsets, packed, stories),
          *each_dout = unshared(dout, C, offsets, packed, stories);
    for (int s = 1; s < stories; s++) /* the prefix has its slope once */
        memset(each_dout + (size_t)packed[s] * (size_t)C, 0, (size_t)prefix * (size_t)C * sizeof *dout);
    const float *inputs[2] = {qkv, each}, *douts[2] = {dout, each_dout};
    const int32_t *rows_of[2] = {offsets, packed};
    const int rows[2] = {N, all};
    float *outs[2], *lses[2], *gradients[2];
    for (int k = 0; k < 2; k++) {
        size_t count = (size_t)rows[k] * (size_t)C, scores = (size_t)rows[k] * (size_t)heads;
        ragged r = {on(b, rows_of[k], (size_t)(stories + 1) * sizeof(int32_t)), stories, rows_of[k][0]};
        tensor x = rows_on(b, inputs[k], rows[k], 3 * C), out = rows_on(b, filled(count, 1), rows[k], C);
        tensor d = rows_on(b, filled(3 * count, 1), rows[k], 3 * C);
        float *lse = floats_on(b, filled(scores, 1), scores);
        b->ops->attention_forward(b, out, lse, x, r, heads, (dropout){0});
        b->ops->attention_backward(b, d, rows_on(b, douts[k], rows[k], C), x, out, lse, r, heads, (dropout){0});
        outs[k] = tensor_back(b, out);
        lses[k] = filled(scores, 0); /* [N][H], as the rows of the others */
        float *by_head = floats_back(b, lse, scores);
        for (int h = 0; h < heads; h++)
            for (int t = 0; t < rows[k]; t++)
                lses[k][t * heads + h] = by_head[h * rows[k] + t];
        gradients[k] = tensor_back(b, d);
    }
    check(b, "attention, each prefix", shape, unshared(outs[0], C, offsets, packed, stories), outs[1], alls, 0);
    check(b, "lse, each prefix", shape, unshared(lses[0], heads, offsets, packed, stories), lses[1],
          (size_t)all * (size_t)heads, 0);
    check(b, "backward, each prefix", shape, gradients[0], summed(gradients[1], 3 * C, offsets, packed, stories), 3 * n,
          rounded(b, 1e-12, BACKWARD_ROUNDINGS, 3 * n));
    forget();
}
