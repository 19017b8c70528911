/* PPO over a batch of stories; formulas in native/ref/ppo.c. All of it is a few
 * hundred kilobytes: launches and one download are what it costs (estimate: 5
 * to 15 us an op on an H100). Sums are in double and in one order. */
#include "ops.cuh"

#include <stddef.h>

enum { THREADS = 256, WARPS = THREADS / 32, WHITEN_THREADS = 1024, SUMS = 16 };

static_assert(sizeof(student_ppo_sums) == offsetof(student_ppo_sums, tokens) + SUMS * sizeof(double),
              "ppo_loss fills every sum");

static unsigned loss_blocks(size_t count) { return blocks_for(count, THREADS); }

size_t cuda_ppo_workspace(const backend_limits *limits)
{
    return (size_t)loss_blocks((size_t)limits->rows) * SUMS * sizeof(double);
}

/* A warp has a story. */
__device__ __forceinline__ int story_of_warp() { return (int)(blockIdx.x * WARPS + threadIdx.x / 32); }
static unsigned story_blocks(int stories) { return blocks_for((size_t)stories, WARPS); }

__device__ __forceinline__ int warp_max_int(int v)
{
#pragma unroll
    for (int bits = 16; bits > 0; bits >>= 1)
        v = max(v, __shfl_xor_sync(FULL_WARP, v, bits));
    return v;
}

static __global__ void __launch_bounds__(THREADS)
    ppo_rewards(float *__restrict__ rewards, const float *__restrict__ mask, const float *__restrict__ scores,
                const float *__restrict__ logprob, const float *__restrict__ reference,
                const int32_t *__restrict__ offsets, int stories, float coefficient, int penalty)
{
    const int story = story_of_warp(), lane = threadIdx.x & 31;
    if (story >= stories)
        return;
    const int first = offsets[story], end = offsets[story + 1];
    int last = -1;
    for (int t = first + lane; t < end; t += 32) {
        float kl = logprob[t] - reference[t];
        kl = penalty == 1 ? fabsf(kl) : penalty == 2 ? 0.5f * kl * kl : kl;
        rewards[t] = mask[t] != 0 ? __fmul_rn(-coefficient, kl) : 0.0f;
        if (mask[t] != 0)
            last = t;
    }
    /* The lane that wrote the last masked column adds the score to it. */
    const int of_story = warp_max_int(last);
    if (of_story >= 0 && of_story == last)
        rewards[last] = __fadd_rn(rewards[last], scores[story]);
}

void cuda_ppo_rewards(backend *b, float *rewards, const float *mask, const float *scores, const float *logprob,
                      const float *reference, ragged rows, float coefficient, int penalty)
{
    LAUNCH(ppo_rewards, story_blocks(rows.stories), THREADS, 0, cuda(b)->stream, rewards, mask, scores, logprob,
           reference, rows.offsets, rows.stories, coefficient, penalty);
    CUDA_OP_END(b);
}

/* One block: the sums need no second launch, and a batch of PPO has about 30
 * columns for each of its threads. out may be x: a thread writes what it alone
 * reads. pad: what an unmasked 0 would become. */
static __global__ void __launch_bounds__(WHITEN_THREADS)
    whiten(float *out, float *pad, const float *x, const float *__restrict__ mask, size_t count, int shift_mean)
{
    SHARED(double, scratch, [32]);
    double n = 0, sum = 0, squares = 0;
    for (size_t t = threadIdx.x; t < count; t += WHITEN_THREADS)
        if (mask[t] != 0) {
            n += 1;
            sum += x[t];
        }
    n = block_sum(n, scratch);
    const double mean = block_sum(sum, scratch) / n;
    for (size_t t = threadIdx.x; t < count; t += WHITEN_THREADS)
        if (mask[t] != 0)
            squares += (x[t] - mean) * (x[t] - mean);
    const double factor = 1 / sqrt(block_sum(squares, scratch) / (n - 1) + 1e-8), back = shift_mean ? 0 : mean;
    for (size_t t = threadIdx.x; t < count; t += WHITEN_THREADS)
        out[t] = mask[t] != 0 ? (float)((x[t] - mean) * factor + back) : 0.0f;
    if (threadIdx.x == 0)
        *pad = (float)(-mean * factor + back);
}

float cuda_whiten(backend *b, float *out, const float *x, const float *mask, size_t count, int shift_mean)
{
    float *pad = (float *)cuda_workspace(b, sizeof(float), __func__);
    if (!pad)
        return 0;
    LAUNCH(whiten, 1, WHITEN_THREADS, 0, cuda(b)->stream, out, pad, x, mask, count, shift_mean);
    CUDA_OP_END(b);
    cuda_fetch(b, pad, sizeof *pad, __func__);
    return *(const float *)cuda(b)->pinned;
}

/* The recurrence runs from the right, one token after another, in the order of
 * ref: the lanes of a warp load 32 tokens at once, then all of them walk through
 * these by shuffles. */
static __global__ void __launch_bounds__(THREADS)
    gae(float *__restrict__ advantages, float *__restrict__ returns, const float *__restrict__ rewards,
        const float *__restrict__ values, const float *__restrict__ mask, const int32_t *__restrict__ offsets,
        int stories, float gamma, float lambda, float pad_reward)
{
    const int story = story_of_warp(), lane = threadIdx.x & 31;
    if (story >= stories)
        return;
    const int first = offsets[story], end = offsets[story + 1];
    const double decay = (double)gamma * lambda;
    double carried = 0, next_value = 0;
    if (pad_reward != 0) {
        int longest = 0;
        for (int s = lane; s < stories; s += 32)
            longest = max(longest, offsets[s + 1] - offsets[s]);
        longest = warp_max_int(longest);
        for (int pad = 0; pad < longest - (end - first); pad++)
            carried = pad_reward + decay * carried;
    }
    for (int right = end; right > first; right -= 32) {
        const int t = right - 1 - lane;
        const bool inside = t >= first, here = inside && mask[t] != 0;
        const float reward = here ? rewards[t] : 0.0f, value = here ? values[t] : 0.0f;
        float advantage = 0, back = 0;
        const int steps = min(right - first, 32);
        for (int k = 0; k < steps; k++) {
            const bool masked = __shfl_sync(FULL_WARP, (int)here, k) != 0;
            const float r = __shfl_sync(FULL_WARP, reward, k), v = __shfl_sync(FULL_WARP, value, k);
            if (!masked)
                continue;
            const double delta = r + gamma * next_value - v;
            carried = delta + decay * carried;
            next_value = v;
            if (lane == k) {
                advantage = (float)carried;
                back = (float)(carried + v);
            }
        }
        if (inside) {
            advantages[t] = advantage;
            returns[t] = back;
        }
    }
}

void cuda_gae(backend *b, float *advantages, float *returns, const float *rewards, const float *values,
              const float *mask, ragged rows, float gamma, float lambda, float pad_reward)
{
    LAUNCH(gae, story_blocks(rows.stories), THREADS, 0, cuda(b)->stream, advantages, returns, rewards, values, mask,
           rows.offsets, rows.stories, gamma, lambda, pad_reward);
    CUDA_OP_END(b);
}

struct loss_options {
    double clip, value_clip, weight, value_weight;
};

__device__ __forceinline__ double clamp(double x, double low, double high)
{
    return x < low ? low : x > high ? high : x;
}

/* Sums in the order of student_ppo_sums; partial [blocks][SUMS]. */
static __global__ void __launch_bounds__(THREADS,
                                         1) /* 1: on sm_120 the compiler would rather spill than use 48 registers */
    ppo_loss(float *__restrict__ dlogprob, float *__restrict__ dvalue, double *__restrict__ partial,
             const float *__restrict__ logprob, const float *__restrict__ entropy, const float *__restrict__ value,
             const float *__restrict__ mask, const float *__restrict__ old_logprob, const float *__restrict__ old_value,
             const float *__restrict__ advantages, const float *__restrict__ returns, size_t count, loss_options o)
{
    SHARED(double, sums, [SUMS][WARPS]);
    const size_t t = (size_t)blockIdx.x * THREADS + threadIdx.x;
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    double s[SUMS] = {};
    if (t < count) {
        float policy_slope = 0, value_slope = 0;
        if (mask[t] != 0) {
            const double A = advantages[t], R = returns[t], v = value[t], old = old_value[t];
            const double difference = (double)logprob[t] - old_logprob[t], ratio = exp(difference);
            const double plain = -A * ratio, clipped = -A * clamp(ratio, 1 - o.clip, 1 + o.clip);
            policy_slope = clipped > plain ? 0.0f : (float)(o.weight * plain);

            const double near = clamp(v, old - o.value_clip, old + o.value_clip);
            const double error = (v - R) * (v - R), near_error = (near - R) * (near - R);
            /* torch.max shares the gradient of equal arguments between them. */
            const double slope = near == v ? 1 : error > near_error ? 1 : error == near_error ? 0.5 : 0;
            value_slope = (float)(o.value_weight * slope * (v - R));

            s[0] = 1;
            s[1] = clipped > plain ? clipped : plain;
            s[2] = 0.5 * (near_error > error ? near_error : error);
            s[3] = clipped > plain;
            s[4] = near_error > error;
            s[5] = ratio;
            s[6] = entropy[t];
            s[7] = 0.5 * difference * difference;
            s[8] = -difference;
            s[9] = A;
            s[10] = R;
            s[11] = R * R;
            s[12] = v;
            s[13] = error;
            s[14] = old;
            s[15] = old * old;
        }
        dlogprob[t] = policy_slope;
        dvalue[t] = value_slope;
    }
#pragma unroll
    for (int k = 0; k < SUMS; k++) {
        s[k] = warp_sum(s[k]);
        if (lane == 0)
            sums[k][warp] = s[k];
    }
    __syncthreads();
    if (threadIdx.x >= SUMS)
        return;
    double sum = 0;
    for (int w = 0; w < WARPS; w++)
        sum += sums[threadIdx.x][w];
    partial[(size_t)blockIdx.x * SUMS + threadIdx.x] = sum;
}

/* A warp adds one of the sums over the blocks. */
static __global__ void __launch_bounds__(32 * SUMS)
    sum_losses(double *__restrict__ total, const double *__restrict__ partial, int blocks)
{
    const int lane = threadIdx.x & 31, k = threadIdx.x >> 5;
    double sum = 0;
    for (int i = lane; i < blocks; i += 32)
        sum += partial[(size_t)i * SUMS + k];
    sum = warp_sum(sum);
    if (lane == 0)
        total[k] = sum;
}

void cuda_ppo_loss(backend *b, float *dlogprob, float *dvalue, const float *logprob, const float *entropy,
                   const float *value, const float *mask, const float *old_logprob, const float *old_value,
                   const float *advantages, const float *returns, size_t count, const student_ppo_options *options,
                   student_ppo_sums *sums)
{
    unsigned blocks = loss_blocks(count);
    double *partial = (double *)cuda_workspace(b, (size_t)blocks * SUMS * sizeof(double), __func__);
    if (!partial)
        return;
    double weight = options->scale / options->token_count;
    loss_options o = {options->clip, options->value_clip, weight, weight * options->value_coefficient};
    LAUNCH(ppo_loss, blocks, THREADS, 0, cuda(b)->stream, dlogprob, dvalue, partial, logprob, entropy, value, mask,
           old_logprob, old_value, advantages, returns, count, o);
    LAUNCH(sum_losses, 1, 32 * SUMS, 0, cuda(b)->stream, &sums->tokens, partial, (int)blocks);
    CUDA_OP_END(b);
}
