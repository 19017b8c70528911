/* ref.h: every op as plain loops, one thread, fp32 tensors, sums in double:
 * the specification that the other backends are tested against. */
#ifndef ONCEUPON_REF_H
#define ONCEUPON_REF_H

#include "ops.h"

/* Factor of element i: 0 when dropped, 1 / (1 - p) when kept. */
float ref_dropout_factor(dropout drop, uint64_t i);

void ref_embedding_forward(backend *b, tensor out, tensor wte, tensor wpe, const int32_t *tokens,
                           const int32_t *positions, dropout drop);
void ref_embedding_backward(backend *b, tensor dwte, tensor dwpe, tensor dout, const int32_t *tokens,
                            const int32_t *positions, dropout drop);
void ref_layernorm_forward(backend *b, tensor out, float *mean, float *rstd, tensor x, const float *gain,
                           const float *bias, float epsilon);
void ref_layernorm_backward(backend *b, tensor dx, float *dgain, float *dbias, tensor dout, tensor x, const float *gain,
                            const float *mean, const float *rstd);
void ref_matmul_forward(backend *b, tensor out, tensor x, tensor w, const float *bias);
void ref_matmul_backward_input(backend *b, tensor dx, tensor dout, tensor w, int accumulate);
void ref_matmul_backward_weight(backend *b, tensor dw, float *dbias, tensor dout, tensor x);
void ref_attention_forward(backend *b, tensor out, float *lse, tensor qkv, ragged rows, int heads, dropout drop);
void ref_attention_backward(backend *b, tensor dqkv, tensor dout, tensor qkv, tensor out, const float *lse, ragged rows,
                            int heads, dropout drop);
void ref_attention_decode(backend *b, tensor out, tensor qkv, tensor cache, int context, int shared,
                          const int32_t *slots, const int32_t *positions, int heads, dropout drop);
void ref_gelu_forward(backend *b, tensor out, tensor x);
void ref_gelu_backward(backend *b, tensor dx, tensor dout, tensor x);
void ref_residual_forward(backend *b, tensor out, tensor a, tensor x, dropout drop);
void ref_residual_backward(backend *b, tensor dx, tensor dout, dropout drop);
void ref_logprob_forward(backend *b, float *logprob, float *entropy, float *lse, tensor logits, const int32_t *targets);
void ref_logprob_backward(backend *b, tensor dlogits, tensor logits, const float *lse, const int32_t *targets,
                          const float *dlogprob);
void ref_sample(backend *b, int32_t *tokens, tensor logits, const uint64_t *stories, const int32_t *positions,
                sample_options options);
void ref_gradient_norm(backend *b, double *norm, const float *g, size_t count);
void ref_adamw(backend *b, float *w, const float *g, float *m, float *v, size_t count, const double *norm,
               adamw_options options);
void ref_ppo_rewards(backend *b, float *rewards, const float *mask, const float *scores, const float *logprob,
                     const float *reference, ragged rows, float coefficient, int penalty);
float ref_whiten(backend *b, float *out, const float *x, const float *mask, size_t count, int shift_mean);
void ref_gae(backend *b, float *advantages, float *returns, const float *rewards, const float *values,
             const float *mask, ragged rows, float gamma, float lambda, float pad_reward);
void ref_ppo_loss(backend *b, float *dlogprob, float *dvalue, const float *logprob, const float *entropy,
                  const float *value, const float *mask, const float *old_logprob, const float *old_value,
                  const float *advantages, const float *returns, size_t count, const student_ppo_options *options,
                  student_ppo_sums *sums);

/* Memory of the host, shared by the backends that run on it. */
void *host_allocate(backend *b, size_t bytes);
void host_release(backend *b, void *memory);
void host_copy(backend *b, void *to, const void *from, size_t bytes);
void host_zero(backend *b, void *memory, size_t bytes);
const char *host_error(backend *b);

#endif
