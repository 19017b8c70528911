/* student.h: the one public header of libstudent, a GPT-2 student that is
 * pretrained, tells stories and is improved with PPO.
 *
 * Rules of the interface
 *   - Every call that can fail returns 0 or a STUDENT_E code and writes one
 *     line to message (capacity bytes, always terminated; may be NULL/0).
 *   - The library never prints, never exits, and allocates only in
 *     student_create.
 *   - Option structs begin with their own size; a size the library does not
 *     know is refused.
 *   - A student is used by one thread at a time.
 *
 * Tokens of several stories are packed end to end, without padding:
 * story i owns tokens[offsets[i] .. offsets[i+1]). Per-token arrays have one
 * entry per packed token; entry t speaks about the token that follows t in
 * its story (TRL's column t). The last entry of a story has no target.
 *
 * A batch whose stories all begin with the same tokens may hold these once, as a
 * prefix: they are tokens[0 .. offsets[0]), and a story's own tokens continue
 * them. Their rows are computed once, forward and backward; the stories' results
 * have the bits that they have without a prefix, gradients are summed in another
 * order. The last entry of the prefix has no target: what predicts a token that
 * differs between stories must be a story's own.
 */
#ifndef STUDENT_H
#define STUDENT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define STUDENT_ABI_VERSION 5

enum student_status {
    STUDENT_OK = 0,
    STUDENT_E_ARGUMENT = 1,   /* an argument is out of its range */
    STUDENT_E_MEMORY = 2,     /* the backend has no memory for it */
    STUDENT_E_CAPABILITY = 3, /* the machine lacks the backend or ISA */
    STUDENT_E_NUMBERS = 4,    /* a result is not finite */
    STUDENT_E_STOPPED = 5,    /* a callback asked for it */
};

/* What a training step computes again in its backward instead of keeping it
 * (activation recomputation, also called checkpointing). Loss, gradients and
 * weights have the same bits at every level. */
enum student_recompute {
    STUDENT_RECOMPUTE_NONE = 0,  /* what is cheap alone: normalised rows and GELU, on backends where that gains */
    STUDENT_RECOMPUTE_FFN = 1,   /* and the up projection */
    STUDENT_RECOMPUTE_LAYER = 2, /* and the rest of a layer: its input is kept */
    STUDENT_RECOMPUTE_PAIR = 3,  /* of two layers the input of one is kept, the feed-forward goes through in parts */
};

typedef struct student student;

typedef struct student_options {
    size_t size; /* sizeof(student_options) */
    int32_t layers, heads, width, context, vocabulary;
    float layernorm_epsilon; /* 1e-5 for GPT-2 */
    int32_t max_tokens;      /* packed tokens of one call, at least 1 */
    int32_t max_stories;     /* stories of one call, at least 1 */
    int32_t ppo_tokens;      /* packed tokens of a whole PPO batch, 0 = max_tokens */
    int32_t decode_stories;  /* rows of the KV cache, 0 = cannot generate */
    int32_t decode_length;   /* tokens of a row, prompt and reply, 0 = context */
    int32_t train;           /* 1: gradients, Adam moments, activations kept */
    int32_t value_head;      /* 1: a linear value head on the final hidden state */
    int32_t recompute;       /* enum student_recompute; nothing without train */
    int32_t threads;         /* cpu backend: workers, at least 1 */
    const char *backend;     /* "ref", "cpu" or "cuda" */
    const char *isa;         /* cpu backend: "auto", "avx512", "avx2", "portable"; cuda: "auto", "bf16", "fp32" */
    const char *kernels;     /* variants of ops by name, "op=name,..."; NULL or "": each op's default */
} student_options;

typedef struct student_memory {
    size_t size;
    uint64_t weights, gradients, moments, activations, workspace, cache; /* bytes */
} student_memory;

typedef struct student_parameter {
    size_t size;
    char name[64]; /* GGUF tensor name of architecture gpt2 */
    int32_t rows;  /* matrices are [rows][cols] = [out][in]; vectors have rows 1 */
    int32_t cols;
    int32_t matrix; /* 1 when the parameter has two dimensions */
} student_parameter;

enum student_array {
    STUDENT_WEIGHTS = 0,
    STUDENT_GRADIENTS = 1,
    STUDENT_MOMENT1 = 2,
    STUDENT_MOMENT2 = 3,
};

typedef struct student_batch {
    size_t size;
    const int32_t *tokens; /* [offsets[stories]] */
    /* [stories + 1], increasing; offsets[0] = tokens of the prefix, 0 = none. Only
     * forward, cross_entropy without dropout and ppo_backward take one. */
    const int32_t *offsets;
    int32_t stories;
    const int32_t *first; /* [stories] position of each story's first token; NULL = offsets[0], as a prefix needs */
} student_batch;

typedef struct student_dropout {
    size_t size;
    float probability; /* 0 = off */
    uint64_t seed;     /* with step: the key of the counter-based masks */
    uint64_t step;
} student_dropout;

typedef struct student_adamw_options {
    size_t size;
    double lr, beta1, beta2, epsilon;
    double weight_decay;   /* decoupled; 0 makes it Adam */
    int32_t decay_vectors; /* 1: decay every parameter, 0: matrices only */
    float max_grad_norm;   /* 0 = no clipping */
    int64_t step;          /* 1 for the first step */
} student_adamw_options;

typedef struct student_generate_options {
    size_t size;
    int32_t max_new_tokens;
    float temperature; /* 1 = the model's own distribution; 0 = greedy */
    int32_t top_k;     /* 0 = off */
    float top_p;       /* 1 = off */
    int32_t end_token; /* a story ends after it; -1 = none */
    uint64_t seed;     /* sampling is keyed by (seed, story id, position) */
    float dropout;     /* 0 = off. Above 0 the masks are keyed by (seed, first story id, position, row of the
                        * step): the same call repeats, but a story then depends on its company, and logprob is
                        * that of the thinned network (TRL's train mode). */
    /* NULL, or called with every story that has ended, after the step that ended it and by rising index within the
     * step; its tokens, log-probabilities and length are in place. Not 0: no further step, STUDENT_E_STOPPED. */
    int32_t (*ended)(uintptr_t user, int32_t story);
    uintptr_t user;
} student_generate_options;

typedef struct student_reward_options {
    size_t size;
    float kl_coefficient;
    int32_t kl_penalty; /* 0 "kl", 1 "abs", 2 "mse" (TRL _kl_penalty) */
    float gamma, lambda;
    int32_t whiten_rewards;      /* TRL whiten_rewards */
    int32_t whiten_rewards_leak; /* 1: not masked again, as TRL 0.9.4 */
} student_reward_options;

typedef struct student_ppo_options {
    size_t size;
    float clip, value_clip, value_coefficient;
    double token_count; /* masked tokens of the whole minibatch: divisor of the means */
    float scale;        /* 1 / gradient accumulation steps; 0 gives statistics only */
} student_ppo_options;

/* Sums over masked tokens; divide by tokens for TRL's masked means. */
typedef struct student_ppo_sums {
    size_t size;
    double tokens;
    double policy_loss, value_loss; /* value_loss already holds TRL's factor 0.5 */
    double policy_clipped, value_clipped;
    double ratio, entropy, approx_kl, policy_kl;
    double advantage, return_, return_squared;
    double value, value_error; /* of the new values */
    double old_value, old_value_squared;
} student_ppo_sums;

int32_t student_abi_version(void);

/* Fills sizes[] with sizeof of every struct above, in the order of their
 * declaration (options, memory, parameter, batch, dropout, adamw_options,
 * generate_options, reward_options, ppo_options, ppo_sums, device); returns
 * their number. A binding compares them with its own at load. */
int32_t student_struct_sizes(size_t *sizes, int32_t capacity);

/* The best ISA this machine has: "avx512", "avx2" or "portable". */
const char *student_best_isa(void);

/* The variants that options.kernels may name: part 0 is the op, 1 the name of
 * variant `index`; NULL beyond the last. */
const char *student_kernel(int32_t index, int32_t part);

/* The card that backend cuda would take, and what its maker's figures give:
 * multiply-adds in fp32, and of bf16 by tensor cores, counted as two, in FLOP/s;
 * bytes/s of its memory. 0 where they are not known. STUDENT_E_CAPABILITY, and
 * in message what is missing, where there is none. */
typedef struct student_device {
    size_t size;
    char name[96];
    uint64_t memory, free; /* bytes */
    int32_t architecture;  /* 90 is sm_90 */
    int32_t multiprocessors;
    int32_t driver; /* the CUDA version it is for: 13000 is 13.0 */
    double fp32_flops, bf16_flops, bandwidth;
} student_device;

int student_cuda_device(student_device *device, char *message, size_t capacity);

/* Bytes that student_create would take, without taking them. */
int student_plan(const student_options *options, student_memory *plan, char *message, size_t capacity);

int student_create(const student_options *options, student **out, char *message, size_t capacity);
void student_destroy(student *s);
const char *student_isa(const student *s);

int32_t student_parameter_count(const student *s);
int student_parameter_info(const student *s, int32_t index, student_parameter *info, char *message, size_t capacity);

/* Copy one parameter's array out of or into the backend; count = rows * cols. */
int student_read(student *s, int32_t array, int32_t index, float *values, size_t count, char *message, size_t capacity);
int student_write(student *s, int32_t array, int32_t index, const float *values, size_t count, char *message,
                  size_t capacity);
/* Numbers first..first + count - 1 of a parameter's array alone. */
int student_write_part(student *s, int32_t array, int32_t index, size_t first, const float *values, size_t count,
                       char *message, size_t capacity);
/* Copy every weight that both students have; shapes must agree. */
int student_copy_weights(student *to, student *from, char *message, size_t capacity);
int student_zero_gradients(student *s, char *message, size_t capacity);

/* Forward without dropout. Any output may be NULL; each has one entry per
 * packed token. targets[t] is the token scored at t, -1 for none; NULL means
 * the next token of the story. logprob and entropy are 0 where there is no
 * target. value needs value_head. Activations stay for student_hidden,
 * student_logits and one student_ppo_backward, which uses them up. */
int student_forward(student *s, const student_batch *batch, const int32_t *targets, float *logprob, float *entropy,
                    float *value, char *message, size_t capacity);
/* Residual stream before block `layer`, or after the final layer norm when
 * layer = layers; [tokens][width] of the last forward. train = 1 only; with
 * STUDENT_RECOMPUTE_PAIR every second one is there, from the last down to 3 or
 * 2. */
int student_hidden(student *s, int32_t layer, float *values, char *message, size_t capacity);
/* Logits [count][vocabulary] of packed tokens first.. of the last forward. */
int student_logits(student *s, int32_t first, int32_t count, float *logits, char *message, size_t capacity);

/* Forward and backward of sum over scored tokens of -logprob, times scale;
 * adds to the gradients. loss receives the unscaled sum, scored the number of
 * targets. scale = 1 / (targets of the whole update) gives the mean. */
int student_cross_entropy(student *s, const student_batch *batch, const int32_t *targets, float scale,
                          const student_dropout *dropout, double *loss, int64_t *scored, char *message,
                          size_t capacity);

/* Global gradient norm, clipping and one AdamW step. */
int student_adamw(student *s, const student_adamw_options *options, double *gradient_norm, char *message,
                  size_t capacity);

/* Tell one story per prompt. story_ids key the sampling. tokens
 * [stories][max_new_tokens] and logprob (same shape, temperature 1) receive
 * the replies, lengths their numbers of tokens, the end token included. */
int student_generate(student *s, const student_batch *prompts, const uint64_t *story_ids,
                     const student_generate_options *options, int32_t *tokens, float *logprob, int32_t *lengths,
                     char *message, size_t capacity);

/* Rewards, GAE and whitening over a whole PPO batch (TRL compute_rewards,
 * compute_advantages). All arrays are packed like the batch; mask[t] is 1 at
 * columns of the reply. values are the old values. Outputs: rewards (penalty
 * plus score at the last masked column), raw (advantages before whitening,
 * may be NULL), advantages, returns. */
int student_advantages(student *s, const student_batch *batch, const float *mask, const float *scores,
                       const float *logprob, const float *reference_logprob, const float *values,
                       const student_reward_options *options, float *rewards, float *raw, float *advantages,
                       float *returns, char *message, size_t capacity);

/* Loss and gradients of PPO (TRL PPOTrainer.loss) for the batch of the last
 * student_forward; adds scale * gradient. */
int student_ppo_backward(student *s, const float *mask, const float *old_logprob, const float *old_value,
                         const float *advantages, const float *returns, const student_ppo_options *options,
                         student_ppo_sums *sums, char *message, size_t capacity);

#ifdef __cplusplus
}
#endif
#endif
