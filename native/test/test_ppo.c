/* TRL 0.9.4's own numbers for a small batch, on every backend: rewards with
 * three penalties, GAE, whitening with and without the leak of padding, losses
 * and statistics. Two stories of three and two reply tokens; a third one, all
 * masked out, is the longest, so that the others are padded as TRL pads them. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "ops.h"

enum { TOKENS = 15 };

static const int32_t offsets[4] = {0, 5, 9, 15};
static const float mask[TOKENS] = {0, 1, 1, 1, 0, 0, 1, 1, 0};
static const float logprob[TOKENS] = {-1, -2, -.5f, -1.5f, 0, -.7f, -1.2f, -2.2f, 0};
static const float reference[TOKENS] = {-1.1f, -1.5f, -.9f, -1.4f, 0, -.6f, -1, -2.5f, 0};
/* TRL masks the values first: column 0 of each story belongs to the prompt. */
static const float value[TOKENS] = {0, .1f, -.2f, .4f, 0, 0, .2f, .6f, 0};
static const float scores[3] = {.8f, .25f, 0};
static const int masked[5] = {1, 2, 3, 6, 7};

static int failures, checks;

static void near(const char *isa, const char *what, double got, double want, double tolerance)
{
    checks++;
    if (!(fabs(got - want) <= tolerance)) {
        failures++;
        printf("FAIL %-9s %-28s %.7f, TRL has %.7f\n", isa, what, got, want);
    }
}

static void all(const char *isa, const char *what, const float *got, const double want[5])
{
    for (int i = 0; i < 5; i++)
        near(isa, what, got[masked[i]], want[i], 2e-6);
}

static void rewards_and_advantages(backend *b, const char *isa)
{
    ragged rows = {offsets, 3};
    float rewards[TOKENS], raw[TOKENS], returns[TOKENS], white[TOKENS];
    b->ops->ppo_rewards(b, rewards, mask, scores, logprob, reference, rows, .2f, 1);
    all(isa, "rewards, abs", rewards, (double[]){-.1, -.08, .78, -.04, .19});
    b->ops->ppo_rewards(b, rewards, mask, scores, logprob, reference, rows, .2f, 2);
    all(isa, "rewards, mse", rewards, (double[]){-.025, -.016, .799, -.004, .241});
    b->ops->ppo_rewards(b, rewards, mask, scores, logprob, reference, rows, .2f, 0);
    all(isa, "rewards, kl", rewards, (double[]){.10, -.08, .82, .04, .19});

    b->ops->gae(b, raw, returns, rewards, value, mask, rows, 1, .95f, 0);
    all(isa, "raw advantages", raw, (double[]){.67305, .919, .42, .0505, -.41});
    all(isa, "returns", returns, (double[]){.77305, .719, .82, .2505, .19});
    b->ops->whiten(b, white, raw, mask, TOKENS, 1);
    all(isa, "whitened advantages", white, (double[]){.6536669, 1.1230117, .1707732, -.5343411, -1.4131104});

    float whitened[TOKENS];
    float pad = b->ops->whiten(b, whitened, rewards, mask, TOKENS, 0);
    near(isa, "whitened padding", pad, -.3927902, 2e-6);
    b->ops->gae(b, raw, returns, whitened, value, mask, rows, 1, .95f, pad);
    all(isa, "returns, padding leaks", returns, (double[]){.7182369, .8815581, 1.5591429, -.8019816, -.5816950});
    b->ops->gae(b, raw, returns, whitened, value, mask, rows, 1, .95f, 0);
    near(isa, "return, padding masked", returns[3], 1.9322935, 2e-6);
}

static void losses(backend *b, const char *isa)
{
    static const float moved[TOKENS] = {0, .3f, -.05f, .1f, 0, 0, -.4f, .02f, 0};
    static const float new_value[TOKENS] = {0, .45f, -.1f, .1f, 0, 0, .1f, .2f, 0};
    static const float white[TOKENS] = {0, .6536669f, 1.1230117f, .1707732f, 0, 0, -.5343411f, -1.4131104f, 0};
    static const float returns[TOKENS] = {0, .77305f, .719f, .82f, 0, 0, .2505f, .19f, 0};
    float now[TOKENS], entropy[TOKENS] = {0}, dlogprob[TOKENS], dvalue[TOKENS];
    for (int t = 0; t < TOKENS; t++)
        now[t] = logprob[t] + moved[t];
    student_ppo_options options = {
        .size = sizeof options, .clip = .2f, .value_clip = .2f, .value_coefficient = .1f, .token_count = 5, .scale = 1};
    student_ppo_sums s = {.size = sizeof s};
    b->ops->ppo_loss(b, dlogprob, dvalue, now, entropy, new_value, mask, logprob, value, white, returns, TOKENS,
                     &options, &s);
    double n = s.tokens, mean = s.return_ / n;
    near(isa, "tokens", n, 5, 0);
    near(isa, "policy loss", s.policy_loss / n, -.0344492, 2e-6);
    near(isa, "value loss", s.value_loss / n, .1479687, 2e-6);
    near(isa, "total loss", s.policy_loss / n + .1 * s.value_loss / n, -.0196523, 2e-6);
    near(isa, "approximate KL", s.approx_kl / n, .02629, 2e-6);
    near(isa, "policy KL", s.policy_kl / n, .006, 2e-6);
    near(isa, "clipped ratios", s.policy_clipped / n, .4, 1e-12);
    near(isa, "clipped values", s.value_clipped / n, .4, 1e-12);
    near(isa, "mean ratio", s.ratio / n, 1.0193561, 2e-6);
    near(isa, "mean return", mean, .55051, 2e-6);
    near(isa, "variance of returns", (s.return_squared - n * mean * mean) / (n - 1), .0926278, 2e-6);
    near(isa, "value error", s.value_error / n, .2632545, 2e-6);
    /* Where the clipped term wins there is no slope: ratios e^.3 with A > 0 and
     * e^-.4 with A < 0. */
    near(isa, "slope of a clipped ratio", dlogprob[1], 0, 0);
    near(isa, "slope of a clipped ratio", dlogprob[6], 0, 0);
    near(isa, "slope of a ratio", dlogprob[2], -1.1230117 * exp(-.05) / 5, 2e-6);
    near(isa, "slope of a prompt token", dlogprob[0], 0, 0);
}

int main(void)
{
    static const char *const sets[] = {"ref", "portable", "avx2", "avx512"};
    for (int i = 0; i < 4; i++) {
        backend b;
        char message[256];
        backend_limits limits = {TOKENS, 64, 2, sets[i]};
        memset(&b, 0, sizeof b);
        int status = i == 0 ? backend_ref_create(&b, &limits, message, sizeof message)
                            : backend_cpu_create(&b, &limits, message, sizeof message);
        if (status != 0) {
            printf("%s is not supported here: %s\n", sets[i], message);
            continue;
        }
        rewards_and_advantages(&b, sets[i]);
        losses(&b, sets[i]);
        b.ops->destroy(&b);
    }
    printf("%d numbers of TRL 0.9.4, %d differ\n", checks, failures);
    return failures != 0;
}
