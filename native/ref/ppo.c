/* PPO as TRL 0.9.4 computes it (ppo_trainer.py: compute_rewards,
 * compute_advantages, loss; core.py: masked_whiten). Arrays are packed; the
 * columns of a story are its tokens but the last. */
#include <math.h>
#include <string.h>

#include "ref.h"

void ref_ppo_rewards(backend *b, float *rewards, const float *mask, const float *scores, const float *logprob,
                     const float *reference, ragged rows, float coefficient, int penalty)
{
    (void)b;
    for (int s = 0; s < rows.stories; s++) {
        int last = -1;
        for (int t = rows.offsets[s]; t < rows.offsets[s + 1]; t++) {
            float kl = logprob[t] - reference[t];
            if (penalty == 1)
                kl = fabsf(kl);
            else if (penalty == 2)
                kl = 0.5f * kl * kl;
            rewards[t] = mask[t] != 0 ? -coefficient * kl : 0;
            if (mask[t] != 0)
                last = t;
        }
        if (last >= 0)
            rewards[last] += scores[s];
    }
}

float ref_whiten(backend *b, float *out, const float *x, const float *mask, size_t count, int shift_mean)
{
    (void)b;
    double n = 0, sum = 0, squares = 0;
    for (size_t t = 0; t < count; t++)
        if (mask[t] != 0) {
            n += 1;
            sum += x[t];
        }
    double mean = sum / n;
    for (size_t t = 0; t < count; t++)
        if (mask[t] != 0)
            squares += (x[t] - mean) * (x[t] - mean);
    double factor = 1 / sqrt(squares / (n - 1) + 1e-8), back = shift_mean ? 0 : mean;
    for (size_t t = 0; t < count; t++)
        out[t] = mask[t] != 0 ? (float)((x[t] - mean) * factor + back) : 0;
    return (float)(-mean * factor + back);
}

void ref_gae(backend *b, float *advantages, float *returns, const float *rewards, const float *values,
             const float *mask, ragged rows, float gamma, float lambda, float pad_reward)
{
    (void)b;
    int longest = 0;
    for (int s = 0; s < rows.stories; s++) {
        int length = rows.offsets[s + 1] - rows.offsets[s];
        longest = length > longest ? length : longest;
    }
    for (int s = 0; s < rows.stories; s++) {
        int first = rows.offsets[s], end = rows.offsets[s + 1];
        double carried = 0, next_value = 0;
        for (int pad = 0; pad < longest - (end - first); pad++)
            carried = pad_reward + (double)gamma * lambda * carried;
        for (int t = end - 1; t >= first; t--) {
            advantages[t] = returns[t] = 0;
            if (mask[t] == 0)
                continue;
            double delta = rewards[t] + gamma * next_value - values[t];
            carried = delta + (double)gamma * lambda * carried;
            next_value = values[t];
            advantages[t] = (float)carried;
            returns[t] = (float)(carried + values[t]);
        }
    }
}

static double clamp(double x, double low, double high) { return x < low ? low : x > high ? high : x; }

void ref_ppo_loss(backend *b, float *dlogprob, float *dvalue, const float *logprob, const float *entropy,
                  const float *value, const float *mask, const float *old_logprob, const float *old_value,
                  const float *advantages, const float *returns, size_t count, const student_ppo_options *options,
                  student_ppo_sums *sums)
{
    (void)b;
    memset(sums, 0, sizeof *sums);
    double c = options->clip, vc = options->value_clip, weight = options->scale / options->token_count;
    for (size_t t = 0; t < count; t++) {
        dlogprob[t] = dvalue[t] = 0;
        if (mask[t] == 0)
            continue;
        double A = advantages[t], R = returns[t], v = value[t], old = old_value[t];
        double difference = (double)logprob[t] - old_logprob[t], ratio = exp(difference);

        double plain = -A * ratio, clipped = -A * clamp(ratio, 1 - c, 1 + c);
        /* Where the clipped term wins, the ratio lies outside and has no slope. */
        dlogprob[t] = clipped > plain ? 0 : (float)(weight * plain);

        double near = clamp(v, old - vc, old + vc);
        double error = (v - R) * (v - R), near_error = (near - R) * (near - R);
        int inside = near == v;
        /* torch.max shares the gradient of equal arguments between them. */
        double slope = inside ? 1 : error > near_error ? 1 : error == near_error ? 0.5 : 0;
        dvalue[t] = (float)(weight * options->value_coefficient * slope * (v - R));

        sums->tokens += 1;
        sums->policy_loss += clipped > plain ? clipped : plain;
        sums->value_loss += 0.5 * (near_error > error ? near_error : error);
        sums->policy_clipped += clipped > plain;
        sums->value_clipped += near_error > error;
        sums->ratio += ratio;
        sums->entropy += entropy[t];
        sums->approx_kl += 0.5 * difference * difference;
        sums->policy_kl -= difference;
        sums->advantage += A;
        sums->return_ += R;
        sums->return_squared += R * R;
        sums->value += v;
        sums->old_value += old;
        sums->old_value_squared += old * old;
        sums->value_error += error;
    }
}
