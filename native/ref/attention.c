/* Causal self-attention of packed stories (Vaswani et al. 2017).
 * qkv (N,3C): query, key, value side by side, each H heads of D = C / H.
 *   s[t][j] = q[t] . k[j] / sqrt(D)  for j <= t, in the same story or its prefix
 *   p = softmax(s),  out[t] = sum_j drop(p[t][j]) v[j],  lse = log sum exp s
 * Backward from lse alone (Dao et al. 2022, section 3.1): p = exp(s - lse),
 *   dv[j] += drop(p) dout, dp = drop'(dout . v[j]), ds = p (dp - dout . out)
 *   dq[t] += ds k[j] / sqrt(D), dk[j] += ds q[t] / sqrt(D)
 * The dropout element of (head, t, j) is (head * N + t) * context + (j - start of the story),
 * where context is bounded by 65536. */
#include <math.h>

#include "ref.h"

#define ATTENTION_STRIDE 65536u /* dropout elements a row may have */

static double dot(const float *a, const float *b, int D)
{
    double sum = 0;
    for (int d = 0; d < D; d++)
        sum += (double)a[d] * b[d];
    return sum;
}

/* Keys stride floats apart: `shared` of them at prefix, the others at own. The
 * value of a key lies C floats behind it. */
typedef struct key_rows {
    const float *prefix, *own;
    int shared, C;
    size_t stride;
} key_rows;

static const float *key(key_rows k, int j)
{
    return j < k.shared ? k.prefix + j * k.stride : k.own + (j - k.shared) * k.stride;
}

/* One query against keys 0..count-1; returns lse. */
static float attend(float *out, const float *q, key_rows k, int count, int D, dropout drop, uint64_t element)
{
    double scale = 1 / sqrt(D), max = -INFINITY, sum = 0;
    for (int j = 0; j < count; j++)
        max = fmax(max, dot(q, key(k, j), D) * scale);
    for (int j = 0; j < count; j++)
        sum += exp(dot(q, key(k, j), D) * scale - max);
    double lse = max + log(sum);
    for (int d = 0; d < D; d++)
        out[d] = 0;
    for (int j = 0; j < count; j++) {
        double p = exp(dot(q, key(k, j), D) * scale - lse) * ref_dropout_factor(drop, element + j);
        for (int d = 0; d < D; d++)
            out[d] = (float)(out[d] + p * key(k, j)[k.C + d]);
    }
    return (float)lse;
}

/* Row of key j of a part. */
static size_t key_row(ragged rows, int part, int j)
{
    int shared = ragged_shared(rows, part);
    return (size_t)(j < shared ? j : ragged_begin(rows, part) + j - shared);
}

void ref_attention_forward(backend *b, tensor out, float *lse, tensor qkv, ragged rows, int heads, dropout drop)
{
    (void)b;
    int N = out.rows, C = out.cols, D = C / heads;
    size_t stride = 3 * (size_t)C;
    for (int part = 0; part <= rows.stories; part++)
        for (int t = ragged_begin(rows, part); t < rows.offsets[part]; t++)
            for (int h = 0; h < heads; h++) {
                int begin = ragged_begin(rows, part), shared = ragged_shared(rows, part);
                const float *keys = qkv.data + C + h * D;
                key_rows k = {keys, keys + begin * stride, shared, C, stride};
                uint64_t element = ((uint64_t)h * N + t) * ATTENTION_STRIDE;
                lse[(size_t)h * N + t] = attend(out.data + (size_t)t * C + h * D, qkv.data + t * stride + h * D, k,
                                                shared + t - begin + 1, D, drop, element);
            }
}

void ref_attention_backward(backend *b, tensor dqkv, tensor dout, tensor qkv, tensor out, const float *lse, ragged rows,
                            int heads, dropout drop)
{
    int N = out.rows, C = out.cols, D = C / heads;
    size_t stride = 3 * (size_t)C;
    double scale = 1 / sqrt(D);
    b->ops->zero(b, dqkv.data, (size_t)N * stride * sizeof(float));
    for (int part = 0; part <= rows.stories; part++)
        for (int t = ragged_begin(rows, part); t < rows.offsets[part]; t++)
            for (int h = 0; h < heads; h++) {
                const float *q = qkv.data + t * stride + h * D, *dy = dout.data + (size_t)t * C + h * D;
                float *dq = dqkv.data + t * stride + h * D;
                double through = dot(dy, out.data + (size_t)t * C + h * D, D);
                int count = ragged_shared(rows, part) + t - ragged_begin(rows, part) + 1;
                for (int j = 0; j < count; j++) {
                    size_t at = key_row(rows, part, j) * stride + C + h * D;
                    const float *k = qkv.data + at, *v = k + C;
                    float *dk = dqkv.data + at, *dv = dk + C;
                    double p = exp(dot(q, k, D) * scale - lse[(size_t)h * N + t]);
                    double kept = ref_dropout_factor(drop, ((uint64_t)h * N + t) * ATTENTION_STRIDE + j);
                    double ds = p * (kept * dot(dy, v, D) - through) * scale;
                    for (int d = 0; d < D; d++) {
                        dv[d] += (float)(p * kept * dy[d]);
                        dq[d] += (float)(ds * k[d]);
                        dk[d] += (float)(ds * q[d]);
                    }
                }
            }
}

void ref_attention_decode(backend *b, tensor out, tensor qkv, tensor cache, int context, int shared,
                          const int32_t *slots, const int32_t *positions, int heads, dropout drop)
{
    int C = out.cols, D = C / heads;
    size_t stride = 2 * (size_t)C;
    for (int n = 0; n < out.rows; n++)
        b->ops->copy(b, cache.data + ((size_t)slots[n] * context + positions[n]) * stride,
                     qkv.data + (size_t)n * 3 * C + C, stride * sizeof(float));
    for (int n = 0; n < out.rows; n++) {
        const float *own = cache.data + ((size_t)slots[n] * context + shared) * stride;
        const float *row = qkv.data + (size_t)n * 3 * C;
        for (int h = 0; h < heads; h++)
            attend(out.data + (size_t)n * C + h * D, row + h * D,
                   (key_rows){cache.data + h * D, own + h * D, shared, C, stride}, positions[n] + 1, D, drop,
                   ((uint64_t)n * heads + h) * ATTENTION_STRIDE);
    }
}
