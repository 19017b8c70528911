/* model.h: the inside of a student, shared by the files of native/model.
 * All pointers to float are backend memory. */
#ifndef ONCEUPON_MODEL_H
#define ONCEUPON_MODEL_H

#include "ops.h"

/* Parameters of one block, in the order of the parameter table. */
enum block_parameter {
    ATTN_NORM_WEIGHT,
    ATTN_NORM_BIAS,
    ATTN_QKV_WEIGHT,
    ATTN_QKV_BIAS,
    ATTN_OUTPUT_WEIGHT,
    ATTN_OUTPUT_BIAS,
    FFN_NORM_WEIGHT,
    FFN_NORM_BIAS,
    FFN_UP_WEIGHT,
    FFN_UP_BIAS,
    FFN_DOWN_WEIGHT,
    FFN_DOWN_BIAS,
    BLOCK_PARAMETERS
};

/* Activations of one block. What is not kept shares memory: with that of other
 * blocks, and with what is dead by then (create.c). (A): elements of the
 * backend's activation type; F: tokens of a part of the feed-forward, where
 * norm2 is of a part as well. */
typedef struct block_activations {
    float *input;                     /* (N,C) residual stream before the block */
    float *norm1, *mean1, *rstd1;     /* (A)(N,C) (N) (N) */
    float *qkv, *attention, *lse;     /* (A)(N,3C) (A)(N,C) (H,N) */
    float *middle;                    /* (N,C) residual stream after attention */
    float *norm2, *mean2, *rstd2;     /* (A)(F,C) (N) (N); the gradient of norm2 takes its place */
    float *forward_up, *forward_gelu; /* (A)(forward_rows,4C); where qkv and attention were, in pairs */
    float *up, *gelu;                 /* (A)(F,4C) (A)(F,4C); the gradient of up takes gelu's place */
    float *dqkv;                      /* (A)(N,3C) in a place that is free by then, or qkv's own */
} block_activations;

struct student {
    student_options options;
    backend backend;

    int parameter_count;
    size_t parameter_floats;                   /* of one array, paddings included */
    size_t matrix_floats;                      /* of them the matrices', which come first */
    float *arrays[4];                          /* enum student_array */
    size_t *parameter_offsets;                 /* [parameter_count], host */
    block_activations *blocks;                 /* [layers], host */
    float *final_input, *hidden, *mean, *rstd; /* (N,C) (A)(N,C) (N) (N) */

    /* Per-token results of the last forward. */
    float *logprob, *entropy, *lse, *value; /* (N) */
    /* Gradients of them, and of the activations. */
    float *dlogprob, *dvalue;
    float *dstream; /* (N,C) of the residual stream; before the backward of the trunk it is the place of hidden */
    float *narrow;  /* (A)(N,C) output of a projection, or what flows back into it; of a part as well */
    int ffn_rows, forward_rows;      /* F, and in the forward of the trunk */
    float *logits, *dlogits;         /* (head_rows,V), (A); one array where both are fp32 */
    double *norm;                    /* of the gradient */
    student_ppo_sums *sums;          /* of the PPO loss */
    float *per_token[6], *per_story; /* uploads of the PPO calls */

    int32_t *tokens, *positions, *targets, *slots, *offsets;
    int32_t *story_offsets; /* of student_advantages: the batch of the last forward, which may have a prefix, stays */
    uint64_t *story_ids;
    int32_t *host_positions, *host_targets, *host_tokens, *host_slots, *host_active;
    uint64_t *host_ids;
    float *host_logprob;

    float *cache; /* [layers][decode_stories][decode_length][2C], a layer cache_bytes apart */
    int shared;   /* tokens at the start of all stories, in the cache once */
    /* Weights as decoding reads them: the four matrices of every block, then the
     * head; NULL where the backend has no such form. */
    float *packed;
    int packed_ready; /* packed is of the weights as they are */

    int weights_stale; /* written since the backend was told */

    /* The last forward, for the calls that go on from it. */
    int N;
    ragged rows;
    dropout drop;

    void *memory[64]; /* what student_destroy releases */
    int memories;
};

/* backends.c: NULL for a backend that is not built in. */
const backend_description *backend_describe(const student_options *o);

/* Parameter table (parameters.c). */
int parameter_describe(const student_options *o, int index, student_parameter *out);
int parameter_total(const student_options *o);
float *parameter(const student *s, int array, int index);
int parameter_block(int layer, int which);
int parameter_final_norm(const student_options *o); /* weight; bias follows */
int parameter_value_head(const student_options *o); /* weight; bias follows */

/* One line for the caller; returns status. */
int fail(char *message, size_t capacity, int status, const char *format, ...) __attribute__((format(printf, 4, 5)));

/* Checks a batch and puts it on the backend. targets NULL: the next token. */
int batch_load(student *s, const student_batch *batch, const int32_t *targets, char *message, size_t capacity);

/* gpt2.c: trunk of the loaded batch, and its backward from the gradient of
 * hidden in narrow. */
void trunk_forward(student *s, dropout drop);
void trunk_backward(student *s);
/* out = a + dropout(x), norm = layer norm of out. */
void add_and_norm(student *s, tensor out, tensor norm, float *mean, float *rstd, tensor a, tensor x, const float *gain,
                  const float *bias, dropout drop);
/* decode.c: positions of a row of s->cache, bytes of a layer of it; floats of s->packed. */
int decode_length(const student_options *o);
size_t cache_bytes(const student_options *o);
size_t decode_packed_floats(const student_options *o);
/* head.c */
void head_forward(student *s);
/* Gradients of the head for s->dlogprob; that of hidden goes to narrow. score_first: also
 * compute logprob, entropy and lse on the way. */
void head_backward(student *s, int score_first);

/* Whether normalised rows and GELU are computed again in the backward. */
static inline int norms_again(const student_options *o)
{
    return backend_describe(o)->recomputes || o->recompute >= STUDENT_RECOMPUTE_FFN;
}

static inline int in_pairs(const student_options *o) { return o->recompute == STUDENT_RECOMPUTE_PAIR; }

/* In pairs the forward keeps the input of the last block and, from there down,
 * of every second one, to block 3 or 2. Those below are embedded and computed again,
 * when there is room for all of them. */
static inline int first_kept(const student_options *o) { return o->layers % 2 ? 2 : 3; }

static inline int input_kept(const student_options *o, int layer)
{
    int first = first_kept(o);
    return !in_pairs(o) || o->layers <= first || (layer >= first && (layer - first) % 2 == 0);
}

/* The gradient of qkv in its own place: no story reads the keys of a prefix,
 * which only batches of PPO have. */
static inline int gradient_in_place(const student_options *o)
{
    return o->train && in_pairs(o) && !o->ppo_tokens && backend_describe(o)->attention_in_place;
}

static inline tensor matrix(float *data, int rows, int cols) { return (tensor){data, rows, cols, TENSOR_F32}; }

static inline tensor activation(const student *s, float *data, int rows, int cols)
{
    return (tensor){data, rows, cols, s->backend.ops->activations};
}

/* Before anything multiplies with the weights. */
static inline void weights_ready(student *s)
{
    if (!s->weights_stale)
        return;
    if (s->backend.ops->weights_changed)
        s->backend.ops->weights_changed(&s->backend, s->arrays[STUDENT_WEIGHTS], s->parameter_floats);
    s->weights_stale = s->packed_ready = 0;
}

/* Dropout sites: one per place and block, as in GPT-2's embd, attn, resid. */
enum { SITE_EMBEDDING = 0, SITE_ATTENTION = 1, SITE_PROJECTION = 2, SITE_FFN = 3, SITES_A_BLOCK = 3 };

static inline dropout dropout_at(dropout drop, int layer, int site)
{
    drop.site = (uint32_t)(layer * SITES_A_BLOCK + site);
    return drop;
}

#define OPS(s) ((s)->backend.ops)
#define B(s) (&(s)->backend)

/* Ends a call that has waited for its work: a card may have failed on the way. */
static inline int finish(student *s, char *message, size_t capacity)
{
    const char *error = OPS(s)->error(B(s));
    return error ? fail(message, capacity, STUDENT_E_CAPABILITY, "%s", error) : STUDENT_OK;
}

#endif
