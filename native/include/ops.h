/* ops.h: the op table. A backend fills one op_table; native/model calls
 * nothing else, and dereferences no tensor, so the same lines drive plain
 * loops, SIMD threads and a card.
 *
 * Every array lives in backend memory unless it is marked (host). Shapes are
 * row-major. N = packed tokens, C = width, V = vocabulary, H = heads,
 * D = C / H. Ops trust their arguments, allocate nothing and cannot fail; a
 * backend that can (a card) keeps its first error for `error`.
 */
#ifndef ONCEUPON_OPS_H
#define ONCEUPON_OPS_H

#include <stddef.h>
#include <stdint.h>

#include "student.h"

typedef struct backend backend;

/* A row-major float matrix in backend memory. */
typedef struct tensor {
    float *data;
    int rows, cols;
} tensor;

/* Counter-based dropout: the mask of element i at `site` depends only on
 * (seed, step, site, i), so the backward pass computes it again. */
typedef struct dropout {
    float probability;
    uint64_t seed, step;
    uint32_t site;
} dropout;

/* Stories of a packed batch; offsets [stories + 1] (host and backend). */
typedef struct ragged {
    const int32_t *offsets;
    int stories;
} ragged;

typedef struct sample_options {
    float temperature, top_p;
    int top_k;
    uint64_t seed;
} sample_options;

typedef struct adamw_options {
    double lr, beta1, beta2, epsilon, weight_decay;
    double gradient_scale; /* clipping factor */
    int64_t step;
} adamw_options;

typedef struct op_table {
    const char *name;

    /* Memory. `allocate` returns zeroed memory or NULL. */
    void *(*allocate)(backend *b, size_t bytes);
    void (*release)(backend *b, void *memory);
    void (*upload)(backend *b, void *to, const void *from_host, size_t bytes);
    void (*download)(backend *b, void *to_host, const void *from, size_t bytes);
    void (*copy)(backend *b, void *to, const void *from, size_t bytes);
    void (*zero)(backend *b, void *memory, size_t bytes);
    const char *(*error)(backend *b); /* NULL while all is well */
    void (*destroy)(backend *b);

    /* out[n] = wte[token[n]] + wpe[position[n]], then dropout. */
    void (*embedding_forward)(backend *b, tensor out, tensor wte, tensor wpe, const int32_t *tokens,
                              const int32_t *positions, dropout drop);
    /* dwte[token[n]] += dout[n], dwpe[position[n]] += dout[n]. */
    void (*embedding_backward)(backend *b, tensor dwte, tensor dwpe, tensor dout, const int32_t *tokens,
                               const int32_t *positions, dropout drop);

    /* out = (x - mean) * rstd * gain + bias, rstd = 1 / sqrt(var + epsilon),
     * biased variance over the row. mean, rstd [N]. */
    void (*layernorm_forward)(backend *b, tensor out, float *mean, float *rstd, tensor x, const float *gain,
                              const float *bias, float epsilon);
    /* dx += ..., dgain += ..., dbias += ... */
    void (*layernorm_backward)(backend *b, tensor dx, float *dgain, float *dbias, tensor dout, tensor x,
                               const float *gain, const float *mean, const float *rstd);

    /* out[N][O] = x[N][I] w[O][I]^T + bias[O] (bias may be NULL). Every
     * element is summed over I in rising order from the bias, so a row's bits
     * do not depend on the other rows. */
    void (*matmul_forward)(backend *b, tensor out, tensor x, tensor w, const float *bias);
    /* dx[N][I] = dout[N][O] w[O][I]; added to dx when accumulate. */
    void (*matmul_backward_input)(backend *b, tensor dx, tensor dout, tensor w, int accumulate);
    /* dw[O][I] += dout[N][O]^T x[N][I]; dbias[O] += sum over N (may be NULL). */
    void (*matmul_backward_weight)(backend *b, tensor dw, float *dbias, tensor dout, tensor x);

    /* Causal attention of every story by itself. qkv [N][3C] holds query, key,
     * value, heads side by side; out [N][C]; lse [H][N] = log sum exp of the
     * scaled scores (scale 1 / sqrt(D)). */
    void (*attention_forward)(backend *b, tensor out, float *lse, tensor qkv, ragged rows, int heads, dropout drop);
    /* dqkv = gradient (overwritten). */
    void (*attention_backward)(backend *b, tensor dqkv, tensor dout, tensor qkv, tensor out, const float *lse,
                               ragged rows, int heads, dropout drop);
    /* One token of each of n stories: stores its key and value at
     * (slot, position) of the cache [slots][context][2C] and attends to
     * positions 0..position of the slot. Same bits as attention_forward. */
    void (*attention_decode)(backend *b, tensor out, tensor qkv, float *cache, int context, const int32_t *slots,
                             const int32_t *positions, int heads);

    /* GPT-2's tanh form of GELU. */
    void (*gelu_forward)(backend *b, float *out, const float *x, size_t count);
    void (*gelu_backward)(backend *b, float *dx, const float *dout, const float *x, size_t count);

    /* out = a + dropout(x); out may be a. */
    void (*residual_forward)(backend *b, float *out, const float *a, const float *x, size_t count, dropout drop);
    /* dx = dropout mask of the same site applied to dout (dx may be dout). */
    void (*residual_backward)(backend *b, float *dx, const float *dout, size_t count, dropout drop);

    /* Per row of logits [n][V]: lse, logprob of the target and entropy
     * lse - sum p z; 0 where target < 0 (lse is always set). */
    void (*logprob_forward)(backend *b, float *logprob, float *entropy, float *lse, tensor logits,
                            const int32_t *targets);
    /* logits become dlogits: dlogprob[n] * ((j == target) - p_j); 0 where
     * target < 0. */
    void (*logprob_backward)(backend *b, tensor logits, const float *lse, const int32_t *targets,
                             const float *dlogprob);
    /* Draw a token per row by inverse distribution function with the uniform
     * number of (seed, story, position); greedy when temperature = 0. */
    void (*sample)(backend *b, int32_t *tokens, tensor logits, const uint64_t *stories, const int32_t *positions,
                   sample_options options);

    /* Decoupled AdamW (Loshchilov & Hutter 2019) in PyTorch's order:
     * w -= lr * decay * w; m, v; w -= lr * m^ / (sqrt(v^) + epsilon). */
    void (*adamw)(backend *b, float *w, const float *g, float *m, float *v, size_t count, adamw_options options);
    /* Sum of squares in a fixed order, in double; result on the host. */
    double (*sum_squares)(backend *b, const float *x, size_t count);

    /* TRL compute_rewards: rewards[t] = -coefficient * kl[t] at masked columns,
     * the story's score added at its last one, 0 elsewhere. penalty 0 kl,
     * 1 abs, 2 mse. */
    void (*ppo_rewards)(backend *b, float *rewards, const float *mask, const float *scores, const float *logprob,
                        const float *reference, ragged rows, float coefficient, int penalty);
    /* TRL masked_whiten over count columns: (x - mean) rsqrt(var + 1e-8),
     * unbiased variance, the mean added back unless shift_mean; 0 where
     * mask = 0. Returns what an unmasked column of value 0 would become. */
    float (*whiten)(backend *b, float *out, const float *x, const float *mask, size_t count, int shift_mean);
    /* GAE from the right of every story: delta = r + gamma V' - V,
     * A = delta + gamma lambda A'; returns = A + V; 0 where mask = 0.
     * pad_reward is the reward of the columns by which TRL pads a story to the
     * longest one (0, except for whiten_rewards under parity). */
    void (*gae)(backend *b, float *advantages, float *returns, const float *rewards, const float *values,
                const float *mask, ragged rows, float gamma, float lambda, float pad_reward);
    /* PPO loss per masked token: dlogprob, dvalue (times scale / count) and
     * the sums of student_ppo_sums (host). */
    void (*ppo_loss)(backend *b, float *dlogprob, float *dvalue, const float *logprob, const float *entropy,
                     const float *value, const float *mask, const float *old_logprob, const float *old_value,
                     const float *advantages, const float *returns, size_t count, const student_ppo_options *options,
                     student_ppo_sums *sums);
} op_table;

struct backend {
    const op_table *ops;
    void *state;     /* owned by the backend */
    const char *isa; /* what was chosen at start */
};

/* The largest matrices a backend will see, so that it can size its workspace
 * at creation. */
typedef struct backend_limits {
    int rows;  /* packed tokens or decode rows */
    int width; /* largest of vocabulary, 4C, rows */
    int threads;
    const char *isa;
} backend_limits;

/* Fill b; return 0 or a STUDENT_E code with message set. */
int backend_ref_create(backend *b, const backend_limits *limits, char *message, size_t capacity);
int backend_cpu_create(backend *b, const backend_limits *limits, char *message, size_t capacity);

/* Bytes of workspace that the backend takes for the limits. */
size_t backend_cpu_workspace(const backend_limits *limits);

#endif
