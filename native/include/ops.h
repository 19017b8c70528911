/* ops.h: the op table. A backend fills one op_table; native/model calls
 * nothing else, and dereferences no tensor, so the same lines drive plain
 * loops, SIMD threads and a card.
 *
 * Every array lives in backend memory unless it is marked (host). Shapes are
 * row-major. N = packed tokens, C = width, V = vocabulary, H = heads,
 * D = C / H. Ops trust their arguments, allocate nothing and cannot fail; a
 * backend that can (a card) keeps its first error for `error`.
 *
 * Numbers are fp32, but for activations, which have the type that the table
 * names: the rows that go into and come out of multiplications, and their
 * gradients. They are marked (A). The cache of decoding has a type of its own.
 * The residual stream, statistics, weights and weight gradients are fp32.
 */
#ifndef ONCEUPON_OPS_H
#define ONCEUPON_OPS_H

#include <stddef.h>
#include <stdint.h>

#include "student.h"

typedef struct backend backend;

enum tensor_type { TENSOR_F32 = 0, TENSOR_BF16 = 1 };

#ifdef __CUDACC__
#define HOST_AND_CARD __host__ __device__
#else
#define HOST_AND_CARD
#endif

/* A row-major matrix in backend memory; data points to elements of `type`. */
typedef struct tensor {
    float *data;
    int rows, cols;
    int type;
} tensor;

static inline size_t tensor_count(tensor t) { return (size_t)t.rows * (size_t)t.cols; }
static inline size_t tensor_element(int type) { return type == TENSOR_BF16 ? 2 : 4; }

/* `rows` rows from row `first` on. */
static inline tensor tensor_rows(tensor t, size_t first, int rows)
{
    size_t bytes = first * (size_t)t.cols * tensor_element(t.type);
    return (tensor){(float *)((char *)t.data + bytes), rows, t.cols, t.type};
}

/* Counter-based dropout: the mask of element i at `site` depends only on
 * (seed, step, site, i), so the backward pass computes it again. An op that is
 * given rows of a matrix finds the number of their first element in `first`; a
 * backend that never is (ffn_rows 0) need not look. */
typedef struct dropout {
    float probability;
    uint64_t seed, step;
    uint32_t site;
    uint64_t first;
} dropout;

/* Stories of a packed batch: story s has rows offsets[s]..offsets[s+1]-1. The
 * rows before offsets[0] are a prefix that all stories begin with and that is
 * there once. offsets [stories + 1] in backend memory; prefix is offsets[0],
 * for a host that cannot read it there. */
typedef struct ragged {
    const int32_t *offsets;
    int stories, prefix;
} ragged;

/* Part 0 of a batch is the prefix, part s + 1 is story s: it ends before row
 * offsets[part], begins here, and so many keys of the prefix come before its own. */
HOST_AND_CARD static inline int ragged_begin(ragged rows, int part) { return part > 0 ? rows.offsets[part - 1] : 0; }
HOST_AND_CARD static inline int ragged_shared(ragged rows, int part) { return part > 0 ? rows.prefix : 0; }

typedef struct sample_options {
    float temperature, top_p;
    int top_k;
    uint64_t seed;
} sample_options;

typedef struct adamw_options {
    double lr, beta1, beta2, epsilon, weight_decay;
    float max_grad_norm; /* 0 = no clipping */
    int64_t step;
    size_t decayed; /* so many elements decay, the first ones */
} adamw_options;

/* torch.nn.utils.clip_grad_norm_: max / (norm + 1e-6), at most 1. */
HOST_AND_CARD static inline double adamw_gradient_scale(double norm, float max_grad_norm)
{
    double scale = max_grad_norm > 0 ? (double)max_grad_norm / (norm + 1e-6) : 1;
    return scale < 1 ? scale : 1;
}

typedef struct op_table {
    const char *name;
    int activations;  /* type of the tensors marked (A) */
    int cache;        /* type of the cache of decoding */
    int head_rows;    /* tokens whose logits exist at a time; fixed, so that sums over tokens have one order */
    int row_multiple; /* decode steps come in multiples of so many rows */

    /* Memory. `allocate` returns zeroed memory or NULL. `download`, even of no
     * bytes, waits for all work that was given before. */
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

    /* (A) out = (x - mean) * rstd * gain + bias, rstd = 1 / sqrt(var + epsilon),
     * biased variance over the row. mean, rstd [N]. */
    void (*layernorm_forward)(backend *b, tensor out, float *mean, float *rstd, tensor x, const float *gain,
                              const float *bias, float epsilon);
    /* dx += ..., dgain += ..., dbias += ...; dout (A). */
    void (*layernorm_backward)(backend *b, tensor dx, float *dgain, float *dbias, tensor dout, tensor x,
                               const float *gain, const float *mean, const float *rstd);

    /* out[N][O] = x[N][I] w[O][I]^T + bias[O] (bias may be NULL); x (A), out (A)
     * or fp32. Every
     * element is summed over I in rising order from the bias, so a row's bits
     * do not depend on the other rows. */
    void (*matmul_forward)(backend *b, tensor out, tensor x, tensor w, const float *bias);
    /* A weight that many calls share, laid out once as multiplications read it:
     * packed holds matmul_packed_floats(O, I). The same bits as
     * matmul_forward; O = out.cols, I = x.cols. Both NULL when a backend has
     * no use for it. */
    void (*matmul_pack)(backend *b, float *packed, tensor w);
    void (*matmul_forward_packed)(backend *b, tensor out, tensor x, const float *packed, const float *bias);
    /* dx[N][I] = dout[N][O] w[O][I]; added to dx when accumulate. dx (A), dout
     * (A) or, with O = 1, fp32. */
    void (*matmul_backward_input)(backend *b, tensor dx, tensor dout, tensor w, int accumulate);
    /* dw[O][I] += dout[N][O]^T x[N][I]; dbias[O] += sum over N (may be NULL).
     * x (A), dout (A) or, with O = 1, fp32. */
    void (*matmul_backward_weight)(backend *b, tensor dw, float *dbias, tensor dout, tensor x);

    /* Causal attention of every story by itself. (A) qkv [N][3C] holds query, key,
     * value, heads side by side; (A) out [N][C]; lse [H][N] = log sum exp of the
     * scaled scores (scale 1 / sqrt(D)). A story's queries attend to the rows of
     * the prefix, then to its own: out has the bits that it has where each story
     * brings the prefix itself. A prefix goes without dropout. */
    void (*attention_forward)(backend *b, tensor out, float *lse, tensor qkv, ragged rows, int heads, dropout drop);
    /* (A) dqkv = gradient (overwritten); dout (A). That of the prefix's keys and
     * values is summed over its own queries and those of all stories. Without a
     * prefix dqkv may be qkv where the backend says so. */
    void (*attention_backward)(backend *b, tensor dqkv, tensor dout, tensor qkv, tensor out, const float *lse,
                               ragged rows, int heads, dropout drop);
    /* n tokens of stories: stores its key and value at (slot, position) of the
     * cache [slots * context][2C], which has room for cache_elements, and attends
     * to positions 0..position of the slot. The first `shared` positions of every
     * slot are those of slot 0 and lie there alone; a backend may order the cache
     * as it likes. Same bits as attention_forward. All rows are stored before any attends, so rows
     * may be tokens of one story that follow one another, in their order; the
     * positions of a slot rise by one. No two rows have the same slot and
     * position but the copies that fill a step up to row_multiple.
     * Dropout element of (row, head, key): (row * H + head) * 65536 + key. */
    void (*attention_decode)(backend *b, tensor out, tensor qkv, tensor cache, int context, int shared,
                             const int32_t *slots, const int32_t *positions, int heads, dropout drop);

    /* GPT-2's tanh form of GELU; all (A); dx may be dout. */
    void (*gelu_forward)(backend *b, tensor out, tensor x);
    void (*gelu_backward)(backend *b, tensor dx, tensor dout, tensor x);

    /* out = a + dropout(x); out may be a; x (A). */
    void (*residual_forward)(backend *b, tensor out, tensor a, tensor x, dropout drop);
    /* (A) dx = dropout mask of the same site applied to dout. */
    void (*residual_backward)(backend *b, tensor dx, tensor dout, dropout drop);

    /* Per row of logits [n][V]: lse, logprob of the target and entropy
     * lse - sum p z; 0 where target < 0 (lse is always set). */
    void (*logprob_forward)(backend *b, float *logprob, float *entropy, float *lse, tensor logits,
                            const int32_t *targets);
    /* (A) dlogits[n][j] = dlogprob[n] * ((j == target) - p_j); 0 where
     * target < 0. dlogits may be logits where both are fp32. */
    void (*logprob_backward)(backend *b, tensor dlogits, tensor logits, const float *lse, const int32_t *targets,
                             const float *dlogprob);
    /* Draw a token per row by inverse distribution function with the uniform
     * number of (seed, story, position); greedy when temperature = 0. */
    void (*sample)(backend *b, int32_t *tokens, tensor logits, const uint64_t *stories, const int32_t *positions,
                   sample_options options);

    /* *norm = root of the sum of squares, in double, in a fixed order; norm in
     * backend memory, so that nobody waits for it. */
    void (*gradient_norm)(backend *b, double *norm, const float *g, size_t count);
    /* Decoupled AdamW (Loshchilov & Hutter 2019) in PyTorch's order:
     * w -= lr * decay * w where it decays; m, v; w -= lr * m^ / (sqrt(v^) +
     * epsilon), with g times adamw_gradient_scale(*norm). Changes nothing when
     * *norm is not finite. */
    void (*adamw)(backend *b, float *w, const float *g, float *m, float *v, size_t count, const double *norm,
                  adamw_options options);

    /* Here and in gae rows has no prefix: every story brings all its columns.
     * TRL compute_rewards: rewards[t] = -coefficient * kl[t] at masked columns,
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
    /* PPO loss per masked token: dlogprob, dvalue (times scale / count); sums, all
     * but its size, in backend memory, so that nobody waits for it. */
    void (*ppo_loss)(backend *b, float *dlogprob, float *dvalue, const float *logprob, const float *entropy,
                     const float *value, const float *mask, const float *old_logprob, const float *old_value,
                     const float *advantages, const float *returns, size_t count, const student_ppo_options *options,
                     student_ppo_sums *sums);

    /* What follows may be NULL: a backend without it is driven by the ops above. */

    /* The flat weights w[count] have changed: a backend that multiplies with
     * another form of them makes it now. */
    void (*weights_changed)(backend *b, const float *w, size_t count);
    /* attention_decode of so many rows with these arguments comes soon: the multiplications before it may fetch what
     * it will read. No result depends on it. */
    void (*attention_decode_soon)(backend *b, int rows, tensor cache, int context, int shared, const int32_t *slots,
                                  const int32_t *positions, int heads);
    /* residual_forward of (out, a, x), then layernorm_forward of out. */
    void (*residual_layernorm_forward)(backend *b, tensor out, tensor norm, float *mean, float *rstd, tensor a,
                                       tensor x, const float *gain, const float *bias, float epsilon, dropout drop);
    /* up = matmul_forward of x, gelu = gelu_forward of up. */
    void (*matmul_gelu_forward)(backend *b, tensor gelu, tensor up, tensor x, tensor w, const float *bias);
    /* matmul_forward of gelu_forward of up, which is not kept. */
    void (*gelu_matmul_forward)(backend *b, tensor out, tensor up, tensor w, const float *bias);
    /* matmul_backward_input of dout into dup, then gelu_backward with up. */
    void (*matmul_gelu_backward)(backend *b, tensor dup, tensor dout, tensor w, tensor up);
    /* matmul_backward_weight with gelu_forward of up, which is not kept, for x. */
    void (*matmul_gelu_backward_weight)(backend *b, tensor dw, float *dbias, tensor dout, tensor up);
    /* matmul_backward_weight with layernorm_forward of x, which is not kept, for x; mean and rstd are known. */
    void (*matmul_norm_backward_weight)(backend *b, tensor dw, float *dbias, tensor dout, tensor x, const float *mean,
                                        const float *rstd, const float *gain, const float *bias);
    /* A sequence of ops that comes again with the same arguments. replay runs
     * what was recorded under key and returns 1; or it returns 0 and records
     * the ops that follow until `recorded`, which also runs them. */
    int (*replay)(backend *b, uint64_t key);
    void (*recorded)(backend *b);
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
    const char *kernels; /* variants by name, "op=name,..."; NULL or "": each op's default */
    int context;         /* tokens of the longest story */
    int head_width;      /* D */
    size_t parameters;   /* floats of the flat weight array */
    int stream;          /* C, width of the residual stream */
    int heads, vocabulary, stories;
    size_t bytes; /* of all that will be allocated, 0 when nobody knows */
} backend_limits;

/* Room for a packed weight, enough for every variant: rows padded to a panel
 * of at most 32, the depth to a pair. */
static inline size_t matmul_packed_floats(int O, int I) { return ((size_t)O + 31) / 32 * 32 * ((size_t)I + 1); }

/* Room for a cache, enough for every order: where keys or positions go in pairs,
 * odd ones are filled up. */
static inline size_t cache_elements(int slots, int context, int heads, int D)
{
    return ((size_t)slots * (((size_t)context + 1) / 2 * 2) + 2) * 2 * (size_t)heads * (((size_t)D + 1) / 2 * 2);
}

/* Fill b; return 0 or a STUDENT_E code with message set. */
int backend_ref_create(backend *b, const backend_limits *limits, char *message, size_t capacity);
int backend_cpu_create(backend *b, const backend_limits *limits, char *message, size_t capacity);

int backend_cuda_create(backend *b, const backend_limits *limits, char *message, size_t capacity);

/* Bytes of workspace that the backend takes for the limits. */
size_t backend_cpu_workspace(const backend_limits *limits);
size_t backend_cuda_workspace(const backend_limits *limits);

/* A backend before it is created: what its op table will say, and the memory
 * it will take for itself. */
typedef struct backend_description {
    const char *name;
    const char *isa; /* NULL: any that no entry before this one names */
    int (*create)(backend *b, const backend_limits *limits, char *message, size_t capacity);
    size_t (*workspace)(const backend_limits *limits); /* may be NULL */
    int activations, cache, head_rows, row_multiple;   /* as in op_table */
    int packs_weights;                                 /* has matmul_pack */
    int attention_in_place;                            /* the gradient of qkv may take its place */
    int recomputes; /* normalised rows and GELU are computed again in the backward, by the ops of the forward */
    int ffn_rows;   /* tokens of a feed-forward of which one part at a time exists (STUDENT_RECOMPUTE_PAIR), such that
                     * parts add up to the bits of the whole: even where factors are paired, a multiple of the rows that a
                     * layer norm's backward sums together; 0: all, they do not */
} backend_description;

#endif
