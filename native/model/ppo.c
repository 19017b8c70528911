/* PPO over the op table: advantages of a whole batch, loss and gradients of
 * the minibatch of the last forward. */
#include <math.h>
#include <string.h>

#include "model.h"

static void put(student *s, int slot, const float *from, int count)
{
    OPS(s)->upload(B(s), s->per_token[slot], from, (size_t)count * sizeof(float));
}

static void get(student *s, float *to, const float *from, int count)
{
    if (to)
        OPS(s)->download(B(s), to, from, (size_t)count * sizeof(float));
}

int student_advantages(student *s, const student_batch *batch, const float *mask, const float *scores,
                       const float *logprob, const float *reference_logprob, const float *values,
                       const student_reward_options *o, float *rewards, float *raw, float *advantages, float *returns,
                       char *message, size_t capacity)
{
    if (!batch || batch->size != sizeof *batch || !o || o->size != sizeof *o)
        return fail(message, capacity, STUDENT_E_ARGUMENT, "batch or reward options of another size");
    int room = s->options.ppo_tokens > s->options.max_tokens ? s->options.ppo_tokens : s->options.max_tokens;
    if (batch->stories < 1 || batch->stories > s->options.max_stories || batch->offsets[batch->stories] > room)
        return fail(message, capacity, STUDENT_E_ARGUMENT, "PPO batch of %d stories exceeds max_stories or ppo_tokens",
                    batch->stories);
    if (batch->offsets[0])
        return fail(message, capacity, STUDENT_E_ARGUMENT, "advantages need every column of every story: no prefix");
    int N = batch->offsets[batch->stories];
    double masked = 0;
    for (int t = 0; t < N; t++)
        masked += mask[t] != 0;
    if (masked < 2)
        return fail(message, capacity, STUDENT_E_ARGUMENT, "whitening needs at least two reply tokens, not %g", masked);
    const op_table *op = OPS(s);
    op->upload(B(s), s->story_offsets, batch->offsets, (size_t)(batch->stories + 1) * sizeof(int32_t));
    op->upload(B(s), s->per_story, scores, (size_t)batch->stories * sizeof(float));
    ragged rows = {s->story_offsets, batch->stories, 0};
    enum { MASK, LOGPROB, REFERENCE, VALUES, REWARDS, RETURNS };
    put(s, MASK, mask, N);
    put(s, LOGPROB, logprob, N);
    put(s, REFERENCE, reference_logprob, N);
    put(s, VALUES, values, N);
    float **x = s->per_token, pad_reward = 0;
    op->ppo_rewards(B(s), x[REWARDS], x[MASK], s->per_story, x[LOGPROB], x[REFERENCE], rows, o->kl_coefficient,
                    o->kl_penalty);
    get(s, rewards, x[REWARDS], N);
    if (o->whiten_rewards) {
        float unmasked = op->whiten(B(s), x[REWARDS], x[REWARDS], x[MASK], (size_t)N, 0);
        pad_reward = o->whiten_rewards_leak ? unmasked : 0;
    }
    /* The log-probabilities are used up; their place takes the advantages. */
    op->gae(B(s), x[LOGPROB], x[RETURNS], x[REWARDS], x[VALUES], x[MASK], rows, o->gamma, o->lambda, pad_reward);
    get(s, raw, x[LOGPROB], N);
    get(s, returns, x[RETURNS], N);
    op->whiten(B(s), x[LOGPROB], x[LOGPROB], x[MASK], (size_t)N, 1);
    get(s, advantages, x[LOGPROB], N);
    int status = finish(s, message, capacity);
    if (status)
        return status;
    for (int t = 0; advantages && t < N; t++)
        if (!isfinite(advantages[t]))
            return fail(message, capacity, STUDENT_E_NUMBERS, "advantage of token %d is not finite", t);
    return STUDENT_OK;
}

int student_ppo_backward(student *s, const float *mask, const float *old_logprob, const float *old_value,
                         const float *advantages, const float *returns, const student_ppo_options *o,
                         student_ppo_sums *sums, char *message, size_t capacity)
{
    if (!s->options.train || !s->options.value_head || !s->N)
        return fail(message, capacity, STUDENT_E_ARGUMENT, "ppo needs train, a value head and a forward before it");
    if (!o || o->size != sizeof *o || !sums || sums->size != sizeof *sums || !(o->token_count > 0))
        return fail(message, capacity, STUDENT_E_ARGUMENT, "ppo options of another size or without token_count");
    int N = s->N, C = s->options.width, head = parameter_value_head(&s->options);
    const op_table *op = OPS(s);
    put(s, 0, mask, N);
    put(s, 1, old_logprob, N);
    put(s, 2, old_value, N);
    put(s, 3, advantages, N);
    put(s, 4, returns, N);
    float **x = s->per_token;
    op->ppo_loss(B(s), s->dlogprob, s->dvalue, s->logprob, s->entropy, s->value, x[0], x[1], x[2], x[3], x[4],
                 (size_t)N, o, s->sums);
    if (o->scale != 0) {
        head_backward(s, 0);
        tensor dvalue = matrix(s->dvalue, N, 1);
        op->matmul_backward_input(B(s), activation(s, s->narrow, N, C), dvalue,
                                  matrix(parameter(s, STUDENT_WEIGHTS, head), 1, C), 1);
        op->matmul_backward_weight(B(s), matrix(parameter(s, STUDENT_GRADIENTS, head), 1, C),
                                   parameter(s, STUDENT_GRADIENTS, head + 1), dvalue, activation(s, s->hidden, N, C));
        trunk_backward(s);
    }
    op->download(B(s), sums, s->sums, sizeof *sums);
    sums->size = sizeof *sums;
    int status = finish(s, message, capacity);
    if (status)
        return status;
    return isfinite(sums->policy_loss) && isfinite(sums->value_loss)
               ? STUDENT_OK
               : fail(message, capacity, STUDENT_E_NUMBERS, "ppo loss is not finite");
}
