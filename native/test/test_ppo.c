/* TRL 0.9.4's own numbers for a small batch, on every backend: rewards with
 * three penalties, GAE, whitening with and without the leak of padding, losses
 * and statistics; then a larger batch against ref. Two stories of three and two reply tokens; a third one, all
 * masked out, is the longest, so that the others are padded as TRL pads them. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "matrix.h"

enum { TOKENS = 15 };

static const int32_t offsets[4] = {0, 5, 9, 15};
static const float mask[TOKENS] = {0, 1, 1, 1, 0, 0, 1, 1, 0};
static const float logprob[TOKENS] = {-1, -2, -.5f, -1.5f, 0, -.7f, -1.2f, -2.2f, 0};
static const float reference[TOKENS] = {-1.1f, -1.5f, -.9f, -1.4f, 0, -.6f, -1, -2.5f, 0};
/* TRL masks the values first: column 0 of each story belongs to the prompt. */
static const float value[TOKENS] = {0, .1f, -.2f, .4f, 0, 0, .2f, .6f, 0};
static const float scores[3] = {.8f, .25f, 0};
static const int masked[5] = {1, 2, 3, 6, 7};

static void near(const char *isa, const char *what, double got, double want, double tolerance)
{
    cases++;
    if (!(fabs(got - want) <= tolerance)) {
        failures++;
        printf("FAIL %-9s %-28s %.7f, not %.7f\n", isa, what, got, want);
    }
}

static void all(backend *b, const char *isa, const char *what, const float *on_b, const double want[5])
{
    const float *got = floats_back(b, on_b, TOKENS);
    for (int i = 0; i < 5; i++)
        near(isa, what, got[masked[i]], want[i], 2e-6);
}

/* A per-token array on b; of zeros without values. */
static float *vector(backend *b, const float *values)
{
    static const float zeros[TOKENS];
    return floats_on(b, values ? values : zeros, TOKENS);
}

static void rewards_and_advantages(backend *b, const char *isa)
{
    ragged rows = {on(b, offsets, sizeof offsets), 3, 0};
    float *rewards = vector(b, NULL), *raw = vector(b, NULL), *returns = vector(b, NULL), *white = vector(b, NULL);
    float *mask_b = vector(b, mask), *scores_b = on(b, scores, sizeof scores), *logprob_b = vector(b, logprob);
    float *reference_b = vector(b, reference), *value_b = vector(b, value), *whitened = vector(b, NULL);
    b->ops->ppo_rewards(b, rewards, mask_b, scores_b, logprob_b, reference_b, rows, .2f, 1);
    all(b, isa, "rewards, abs", rewards, (double[]){-.1, -.08, .78, -.04, .19});
    b->ops->ppo_rewards(b, rewards, mask_b, scores_b, logprob_b, reference_b, rows, .2f, 2);
    all(b, isa, "rewards, mse", rewards, (double[]){-.025, -.016, .799, -.004, .241});
    b->ops->ppo_rewards(b, rewards, mask_b, scores_b, logprob_b, reference_b, rows, .2f, 0);
    all(b, isa, "rewards, kl", rewards, (double[]){.10, -.08, .82, .04, .19});

    b->ops->gae(b, raw, returns, rewards, value_b, mask_b, rows, 1, .95f, 0);
    all(b, isa, "raw advantages", raw, (double[]){.67305, .919, .42, .0505, -.41});
    all(b, isa, "returns", returns, (double[]){.77305, .719, .82, .2505, .19});
    b->ops->whiten(b, white, raw, mask_b, TOKENS, 1);
    all(b, isa, "whitened advantages", white, (double[]){.6536669, 1.1230117, .1707732, -.5343411, -1.4131104});

    float pad = b->ops->whiten(b, whitened, rewards, mask_b, TOKENS, 0);
    near(isa, "whitened padding", pad, -.3927902, 2e-6);
    b->ops->gae(b, raw, returns, whitened, value_b, mask_b, rows, 1, .95f, pad);
    all(b, isa, "returns, padding leaks", returns, (double[]){.7182369, .8815581, 1.5591429, -.8019816, -.5816950});
    b->ops->gae(b, raw, returns, whitened, value_b, mask_b, rows, 1, .95f, 0);
    near(isa, "return, padding masked", floats_back(b, returns, TOKENS)[3], 1.9322935, 2e-6);
}

static void losses(backend *b, const char *isa)
{
    static const float moved[TOKENS] = {0, .3f, -.05f, .1f, 0, 0, -.4f, .02f, 0};
    static const float new_value[TOKENS] = {0, .45f, -.1f, .1f, 0, 0, .1f, .2f, 0};
    static const float white[TOKENS] = {0, .6536669f, 1.1230117f, .1707732f, 0, 0, -.5343411f, -1.4131104f, 0};
    static const float returns[TOKENS] = {0, .77305f, .719f, .82f, 0, 0, .2505f, .19f, 0};
    float now[TOKENS], *dlogprob_b = vector(b, NULL), *dvalue_b = vector(b, NULL);
    for (int t = 0; t < TOKENS; t++)
        now[t] = logprob[t] + moved[t];
    student_ppo_options options = {
        .size = sizeof options, .clip = .2f, .value_clip = .2f, .value_coefficient = .1f, .token_count = 5, .scale = 1};
    student_ppo_sums s, *sums = on(b, &(student_ppo_sums){0}, sizeof s);
    b->ops->ppo_loss(b, dlogprob_b, dvalue_b, vector(b, now), vector(b, NULL), vector(b, new_value), vector(b, mask),
                     vector(b, logprob), vector(b, value), vector(b, white), vector(b, returns), TOKENS, &options,
                     sums);
    back(b, &s, sums, sizeof s);
    const float *dlogprob = floats_back(b, dlogprob_b, TOKENS);
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

/* Uneven stories, over more than one block of a card: what ref makes of them. */
static void many(backend *b, backend *r, const char *isa)
{
    enum { STORIES = 37, LONGEST = 90, ROOM = STORIES * LONGEST, INPUTS = 9, OUTPUTS = 6, SUMS = 16 };
    static float in[INPUTS][ROOM];
    static const char *const names[OUTPUTS] = {"rewards", "whitened", "advantages", "returns", "dlogprob", "dvalue"};
    int32_t starts[STORIES + 1] = {0};
    for (int i = 0; i < STORIES; i++)
        starts[i + 1] = starts[i] + 1 + i * 41 % LONGEST;
    int N = starts[STORIES];
    for (int k = 0; k < INPUTS; k++)
        for (int t = 0; t < N; t++)
            in[k][t] = k ? sinf((float)(t * (k + 3))) : (t % 11 > 3 && t % 90 < 80);
    student_ppo_options options = {
        .size = sizeof options, .clip = .2f, .value_clip = .2f, .value_coefficient = .1f, .token_count = N, .scale = 1};
    student_ppo_sums sums[2];
    const float *out[2][OUTPUTS];
    float pad[2];
    backend *both[2] = {b, r};
    for (int side = 0; side < 2; side++) {
        backend *z = both[side];
        float *i[INPUTS], *o[OUTPUTS];
        for (int k = 0; k < INPUTS; k++)
            i[k] = floats_on(z, in[k], ROOM);
        for (int k = 0; k < OUTPUTS; k++)
            o[k] = floats_on(z, in[0], ROOM);
        ragged rows = {on(z, starts, sizeof starts), STORIES, 0};
        z->ops->ppo_rewards(z, o[0], i[0], i[1], i[2], i[3], rows, .2f, 2);
        pad[side] = z->ops->whiten(z, o[1], o[0], i[0], (size_t)N, 0);
        z->ops->gae(z, o[2], o[3], o[1], i[4], i[0], rows, .99f, .95f, pad[side]);
        student_ppo_sums *on_z = on(z, sums, sizeof *sums);
        z->ops->ppo_loss(z, o[4], o[5], i[2], i[5], i[6], i[0], i[3], i[4], i[7], i[8], (size_t)N, &options, on_z);
        back(z, sums + side, on_z, sizeof *sums);
        for (int k = 0; k < OUTPUTS; k++)
            out[side][k] = floats_back(z, o[k], ROOM);
    }
    near(isa, "padding of many", pad[0], pad[1], 1e-6);
    for (int k = 0; k < OUTPUTS; k++)
        for (int t = 0; t < N; t++)
            near(isa, names[k], out[0][k][t], out[1][k][t], 1e-6 * (1 + fabs(out[1][k][t])));
    const double *got = &sums[0].tokens, *want = &sums[1].tokens;
    for (int k = 0; k < SUMS; k++)
        near(isa, "a sum of many", got[k], want[k], 1e-9 * (1 + fabs(want[k])));
}

static int run(const char *set)
{
    backend b = {0}, ref = {0};
    char message[256];
    backend_limits limits = {.rows = 4096,
                             .width = 4096,
                             .threads = 2,
                             .context = 128,
                             .head_width = 64,
                             .stream = 64,
                             .heads = 1,
                             .vocabulary = 64,
                             .stories = 64,
                             .isa = strcmp(set, "cuda") ? set : "fp32"};
    int status = (!strcmp(set, "ref")    ? backend_ref_create
                  : !strcmp(set, "cuda") ? backend_cuda_create
                                         : backend_cpu_create)(&b, &limits, message, sizeof message);
    status |= backend_ref_create(&ref, NULL, NULL, 0);
    if (status) {
        printf("%s is not supported here: %s\n", set, message);
        return status;
    }
    if (b.ops->ppo_loss && b.ops->gae && b.ops->whiten && b.ops->ppo_rewards) {
        rewards_and_advantages(&b, set);
        losses(&b, set);
        many(&b, &ref, set);
    }
    expect(&b, !b.ops->error(&b), "the backend says: %s", b.ops->error(&b));
    forget();
    b.ops->destroy(&b);
    return 0;
}

/* usage: test_ppo [cuda] */
int main(int count, char **arguments)
{
    static const char *const sets[] = {"ref", "portable", "avx2", "avx512"};
    int status = 0;
    if (count > 1)
        status = run(arguments[1]);
    for (int i = 0; i < 4 && count == 1; i++)
        run(sets[i]);
    printf("%d numbers of TRL 0.9.4, %d differ\n", cases, failures);
    return status ? 3 : failures != 0;
}
