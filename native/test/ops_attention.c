/* Cases of attention: whole stories, their gradient, and telling token by token. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "bf16.h"
#include "matrix.h"

double rounded(const backend *b, double bound, int roundings, size_t elements)
{
    double few_elements = elements < 64 ? 3 : 1;
    return b->ops->cache == TENSOR_BF16 ? roundings * few_elements * 0x1p-16 / 3 : bound;
}

/* Values of the type that attention multiplies: that of the cache. */
static float *operands(const backend *b, size_t n, double scale)
{
    float *x = activations(b, n, scale);
    for (size_t i = 0; i < n && b->ops->cache == TENSOR_BF16; i++)
        x[i] = from_bf16(to_bf16(x[i]));
    return x;
}

static tensor cache_on(backend *b, int slots, int context, int heads, int D, double scale)
{
    size_t n = cache_elements(slots, context, heads, D);
    return (tensor){tensor_on(b, filled(n, scale), 1, (int)n, b->ops->cache).data, slots * context, 2 * heads * D,
                    b->ops->cache};
}

static int longest_of(const int32_t *offsets, int stories)
{
    int longest = 0;
    for (int s = 0; s < stories; s++)
        longest = offsets[s + 1] - offsets[s] > longest ? offsets[s + 1] - offsets[s] : longest;
    return longest;
}

/* One step in which the last token of every story is told, the others being in
 * the cache: the path of rollouts, with the dropout that parity may ask for. The
 * last row is repeated up to the backend's multiple, as decode.c fills up a step.
 * The cache has each backend's own layout: only its ops fill it. */
static void step(backend *b, backend *r, const float *qkv, const int32_t *offsets, int stories, int heads, int D,
                 dropout drop, const char *shape)
{
    int C = heads * D, shared = offsets[0], context = shared + longest_of(offsets, stories), before = shared;
    int multiple = b->ops->row_multiple, n = (stories + multiple - 1) / multiple * multiple;
    size_t row = 3 * (size_t)C, N = (size_t)offsets[stories];
    int32_t slots[64], positions[64], *told_slots = integers(N), *told_positions = integers(N);
    float *last = filled((size_t)n * row, 0), *told = filled(N * row, 0);
    backend *both[2] = {b, r};
    tensor out[2], cache[2];
    for (int t = 0; t < shared; t++)
        told_positions[t] = t;
    memset(told_slots, 0, N * sizeof *told_slots);
    memcpy(told, qkv, (size_t)shared * row * sizeof(float));
    for (int s = 0; s < stories; s++) {
        slots[s] = s;
        positions[s] = shared + offsets[s + 1] - offsets[s] - 1;
        for (int t = shared; t < positions[s]; t++) {
            told_slots[before] = s;
            told_positions[before] = t;
            memcpy(told + (size_t)before++ * row, qkv + (size_t)(offsets[s] + t - shared) * row, row * sizeof(float));
        }
        memcpy(last + (size_t)s * row, qkv + (size_t)(offsets[s + 1] - 1) * row, row * sizeof(float));
    }
    for (int s = stories; s < n; s++) {
        slots[s] = slots[s - 1];
        positions[s] = positions[s - 1];
        memcpy(last + (size_t)s * row, last + (size_t)(s - 1) * row, row * sizeof(float));
    }
    for (int k = 0; k < 2; k++) {
        backend *z = both[k];
        out[k] = rows_on(z, last, n, C);
        cache[k] = cache_on(z, stories, context, heads, D, 0);
        if (before)
            z->ops->attention_decode(z, rows_on(z, told, before, C), rows_on(z, told, before, 3 * C), cache[k], context,
                                     shared, on(z, told_slots, (size_t)before * sizeof *slots),
                                     on(z, told_positions, (size_t)before * sizeof *slots), heads, (dropout){0});
        z->ops->attention_decode(z, out[k], rows_on(z, last, n, 3 * C), cache[k], context, shared,
                                 on(z, slots, (size_t)n * sizeof *slots),
                                 on(z, positions, (size_t)n * sizeof *positions), heads, drop);
    }
    /* Few elements: one rounding is not averaged away. */
    check_tensor(b, r, "attention_decode step", shape, out[0], out[1],
                 rounded(b, 1e-8, DECODE_ROUNDINGS, tensor_count(out[0])));
    if (strcmp(b->ops->name, "cpu")) /* whose cache has an order of its own */
        check(b, "attention_decode cache", shape, tensor_back(b, cache[0]), tensor_back(r, cache[1]),
              tensor_count(cache[0]), 0);
}

/* Every story token by token, `at_once` tokens a call; what they share, first
 * and in slot 0. */
static void told(backend *b, tensor forward, const float *qkv, const int32_t *offsets, int stories, int heads, int D,
                 dropout drop, const char *shape, int at_once)
{
    int C = heads * D, shared = offsets[0], longest = shared + longest_of(offsets, stories);
    tensor all = rows_on(b, qkv, forward.rows, 3 * C),
           out = rows_on(b, filled(tensor_count(forward), 1), forward.rows, C);
    tensor cache = cache_on(b, stories, longest, heads, D, 1);
    int32_t *slot = integers((size_t)forward.rows), *position = integers((size_t)forward.rows);
    for (int s = 0, t = 0; s < stories; s++)
        for (; t < offsets[s + 1]; t++) {
            slot[t] = s;
            position[t] = t < shared ? t : shared + t - offsets[s];
        }
    int32_t *slots = on(b, slot, (size_t)forward.rows * sizeof *slot);
    int32_t *positions = on(b, position, (size_t)forward.rows * sizeof *position);
    for (int t = 0; t < forward.rows; t += at_once) {
        int n = forward.rows - t < at_once ? forward.rows - t : at_once;
        b->ops->attention_decode(b, tensor_rows(out, (size_t)t, n), tensor_rows(all, (size_t)t, n), cache, longest,
                                 shared, slots + t, positions + t, heads, drop);
    }
    /* Decode and forward share their order of summing; on tensor cores forward
     * has another, and rounds weights, which decode does not. */
    double bound = b->ops->activations == TENSOR_F32
                       ? 0
                       : rounded(b, 0, FORWARD_ROUNDINGS + DECODE_ROUNDINGS, tensor_count(forward));
    check(b, at_once == 1 ? "attention_decode" : "attention_decode, rows", shape, tensor_back(b, out),
          tensor_back(b, forward), tensor_count(forward), bound);
}

void test_attention(backend *b, backend *r, const int32_t *offsets, int stories, int heads, int D, dropout drop)
{
    char shape[64];
    int N = offsets[stories], C = heads * D;
    snprintf(shape, sizeof shape, "P%d N%d H%d D%d p%.2f", offsets[0], N, heads, D, drop.probability);
    size_t n = (size_t)N * (size_t)C;
    float *qkv = operands(b, 3 * n, 2), *dout = operands(b, n, 1), *nothing = filled(3 * n, 1);
    tensor out[2], dqkv[2], all[2];
    /* Of few elements one may be a sum that cancels, which has no digits left: not of values of one sign. */
    for (size_t i = 0; i < 3 * n && stories * C < 64; i++)
        if (i % (3 * (size_t)C) >= 2 * (size_t)C)
            qkv[i] = fabsf(qkv[i]);
    float *lse[2];
    ragged rows[2];
    backend *both[2] = {b, r};
    if (!b->ops->attention_forward)
        return forget();
    for (int k = 0; k < 2; k++) {
        backend *z = both[k];
        rows[k] = (ragged){on(z, offsets, (size_t)(stories + 1) * sizeof *offsets), stories, offsets[0]};
        all[k] = rows_on(z, qkv, N, 3 * C);
        out[k] = rows_on(z, nothing, N, C);
        dqkv[k] = rows_on(z, nothing, N, 3 * C);
        lse[k] = floats_on(z, filled((size_t)heads * (size_t)N, 1), (size_t)heads * (size_t)N);
        z->ops->attention_forward(z, out[k], lse[k], all[k], rows[k], heads, drop);
    }
    check_tensor(b, r, "attention_forward", shape, out[0], out[1], rounded(b, BOUND, FORWARD_ROUNDINGS, n));
    check_floats(b, r, "attention lse", shape, lse[0], lse[1], (size_t)heads * (size_t)N, N > 1 ? BOUND : 1e-10);
    if (b->ops->attention_backward) {
        /* out is an input here: both get b's. */
        out[1] = rows_on(r, tensor_back(b, out[0]), N, C);
        for (int k = 0; k < 2; k++)
            both[k]->ops->attention_backward(both[k], dqkv[k], rows_on(both[k], dout, N, C), all[k], out[k], lse[k],
                                             rows[k], heads, drop);
        /* dp - dout . out cancels when one key takes all: 5 digits. */
        check_tensor(b, r, "attention_backward", shape, dqkv[0], dqkv[1], rounded(b, 1e-10, BACKWARD_ROUNDINGS, n));
        if (!strcmp(b->ops->name, "cpu") && !offsets[0]) { /* backends.c: attention_in_place */
            b->ops->attention_backward(b, all[0], rows_on(b, dout, N, C), all[0], out[0], lse[0], rows[0], heads, drop);
            check(b, "attention_backward, in place", shape, tensor_back(b, all[0]), tensor_back(b, dqkv[0]), 3 * n, 0);
        }
    }
    if (b->ops->attention_decode) {
        if (drop.probability == 0) {
            if (!few && N <= 70) /* a launch per token and row */
                told(b, out[0], qkv, offsets, stories, heads, D, drop, shape, 1);
            told(b, out[0], qkv, offsets, stories, heads, D, drop, shape, 16);
        }
        step(b, r, qkv, offsets, stories, heads, D, drop, shape);
    }
    forget();
}
