/* Drawing a token from a row of logits (n,V), as native/ref/sample.c does it:
 * top-k, then top-p, ties to the smaller token, then the inverse distribution
 * function with the uniform number of (seed, story, position).
 *
 * Probabilities are whole numbers, exp((z - max) / temperature) in units of
 * 2^-43: their sums do not depend on the order, so that no scan needs one, and
 * a draw differs from that of ref only where the uniform number falls within
 * the rounding of a border: expf has 24 bits.
 *
 * Nothing is sorted. A token's rank is one number, its logit above its index,
 * so "the best tokens whose weights reach a sum" is a rank that bisection
 * finds; when few tokens are left between the bounds, they are compared with
 * each other. */
#include "ops.cuh"

typedef unsigned long long u64;

enum { SAMPLE_THREADS = 256, WARPS = SAMPLE_THREADS / 32, GROUPS = 256, FEW = 256 };

size_t cuda_sample_workspace(const backend_limits *limits)
{
    (void)limits;
    return 0;
}

/* A row, and what a token of it weighs. */
struct sample_row {
    const float *z;
    int V;
    float max, temperature;

    /* Larger is better; no two tokens have the same. -0 becomes 0. */
    __device__ u64 rank(int j) const
    {
        uint32_t bits = __float_as_uint(z[j] + 0.0f);
        bits ^= bits >> 31 ? 0xffffffffu : 0x80000000u;
        return (u64)bits << 32 | (uint32_t)~j;
    }
    static __device__ int token(u64 rank) { return (int)~(uint32_t)rank; }
    /* A logit that is not a number weighs 1: its log-probability tells. */
    __device__ u64 mass(int j) const { return (u64)(fminf(expf((z[j] - max) / temperature), 1.0f) * 0x1p43f); }
};

__device__ __forceinline__ u64 block_max(u64 v, u64 *scratch)
{
    const int lane = (int)threadIdx.x & 31;
#pragma unroll
    for (int bits = 16; bits > 0; bits >>= 1)
        v = max(v, __shfl_xor_sync(FULL_WARP, v, bits));
    if (lane == 0)
        scratch[threadIdx.x >> 5] = v;
    __syncthreads();
    for (int w = 0; w < WARPS; w++)
        v = max(v, scratch[w]);
    return v;
}

/* The largest rank such that the tokens that are not below it weigh `need` or
 * more, among the candidates, those from `worst` on, which weigh as much
 * together. COUNT: every token weighs 1. */
template <bool COUNT>
__device__ u64 select(const sample_row &row, u64 worst, int candidates, u64 best, u64 need, u64 *scratch)
{
    SHARED(u64, list, [FEW]);
    SHARED(u64, weights, [FEW]);
    SHARED(u64, found, [1]);
    SHARED(int, listed, [1]);
    u64 low = worst, high = best + 1, above = 0; /* above: what ranks from high on weigh */
    int inside = candidates;
    while (inside > FEW) {
        const u64 middle = low + (high - low) / 2;
        u64 sum = 0;
        int count = 0;
        for (int j = (int)threadIdx.x; j < row.V; j += SAMPLE_THREADS) {
            const u64 r = row.rank(j);
            if (r >= middle && r < high) {
                count++;
                sum += COUNT ? 1 : row.mass(j);
            }
        }
        sum = block_sum(sum, scratch);
        count = COUNT ? (int)sum : (int)block_sum((u64)count, scratch);
        if (above + sum >= need) {
            low = middle;
            inside = count;
        } else {
            high = middle;
            above += sum;
            inside -= count;
        }
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        listed[0] = 0;
        found[0] = low;
    }
    __syncthreads();
    for (int j = (int)threadIdx.x; j < row.V; j += SAMPLE_THREADS) {
        const u64 r = row.rank(j);
        if (r >= low && r < high) {
            const int at = atomicAdd(listed, 1);
            list[at] = r;
            weights[at] = COUNT ? 1 : row.mass(j);
        }
    }
    __syncthreads();
    if ((int)threadIdx.x < listed[0]) {
        u64 better = above;
        for (int i = 0; i < listed[0]; i++)
            better += list[i] > list[threadIdx.x] ? weights[i] : 0;
        if (better < need && better + weights[threadIdx.x] >= need)
            found[0] = list[threadIdx.x];
    }
    __syncthreads();
    return found[0];
}

/* Sum over the lanes before this one and itself. */
__device__ __forceinline__ u64 running_sum(u64 v)
{
    const int lane = (int)threadIdx.x & 31;
#pragma unroll
    for (int by = 1; by < 32; by *= 2) {
        const u64 before = __shfl_up_sync(FULL_WARP, v, (unsigned)by);
        v += lane >= by ? before : 0;
    }
    return v;
}

/* The first token at which the running sum of the candidates passes uniform *
 * total: groups of tokens by all warps, then one group by the first. */
__device__ int draw(const sample_row &row, u64 worst, double uniform)
{
    SHARED(u64, groups, [GROUPS]);
    const int lane = (int)threadIdx.x & 31, warp = (int)threadIdx.x >> 5;
    const int width = (row.V + 32 * GROUPS - 1) / (32 * GROUPS) * 32;
    for (int g = warp; g < GROUPS; g += WARPS) {
        u64 sum = 0;
        for (int j = g * width + lane; j < min((g + 1) * width, row.V); j += 32)
            sum += row.rank(j) >= worst ? row.mass(j) : 0;
        sum = warp_sum(sum);
        if (lane == 0)
            groups[g] = sum;
    }
    __syncthreads();
    if (warp)
        return 0;
    u64 own = 0;
    for (int i = 0; i < GROUPS / 32; i++)
        own += groups[lane * (GROUPS / 32) + i];
    u64 until = running_sum(own);
    const u64 total = __shfl_sync(FULL_WARP, until, 31);
    const u64 target = min((u64)(uniform * (double)total), total - 1);
    const int holder = __ffs((int)__ballot_sync(FULL_WARP, until > target)) - 1;
    u64 before = __shfl_sync(FULL_WARP, until - own, holder);
    int g = holder * (GROUPS / 32);
    for (; before + groups[g] <= target; g++)
        before += groups[g];
    for (int first = g * width;; first += 32) {
        const int j = first + lane;
        const u64 mass = j < row.V && row.rank(j) >= worst ? row.mass(j) : 0;
        until = before + running_sum(mass);
        const uint32_t passed = __ballot_sync(FULL_WARP, until > target);
        if (passed)
            return first + __ffs((int)passed) - 1;
        before = __shfl_sync(FULL_WARP, until, 31);
    }
}

/* A block a row. Without top-k and top-p: V * 4 bytes are read twice (the
 * second time from L2) and V exponentials taken; a step of bisection reads them
 * once more, 10 to 15 steps for logits of a trained student (estimate). */
static __global__ void __launch_bounds__(SAMPLE_THREADS)
    sample_row_token(int32_t *tokens, const float *logits, int V, const uint64_t *stories, const int32_t *positions,
                     sample_options o)
{
    SHARED(u64, scratch, [32]);
    const int n = (int)blockIdx.x;
    sample_row row = {logits + (size_t)n * V, V, 0, o.temperature};
    u64 best = 0, worst = 0;
    for (int j = (int)threadIdx.x; j < V; j += SAMPLE_THREADS)
        best = max(best, row.rank(j));
    best = block_max(best, scratch);
    int token = sample_row::token(best);
    if (o.temperature != 0) {
        row.max = row.z[token];
        if (o.top_k > 0 && o.top_k < V)
            worst = select<true>(row, 0, V, best, (u64)o.top_k, scratch);
        if (o.top_p < 1) {
            u64 total = 0;
            for (int j = (int)threadIdx.x; j < V; j += SAMPLE_THREADS)
                total += row.rank(j) >= worst ? row.mass(j) : 0;
            total = block_sum(total, scratch);
            worst = select<false>(row, worst, worst ? o.top_k : V, best, (u64)ceil((double)o.top_p * (double)total),
                                  scratch);
        }
        token = draw(row, worst, philox_uniform(o.seed, stories[n], (uint32_t)positions[n]));
    }
    if (threadIdx.x == 0)
        tokens[n] = token;
}

void cuda_sample(backend *b, int32_t *tokens, tensor logits, const uint64_t *stories, const int32_t *positions,
                 sample_options options)
{
    LAUNCH(sample_row_token, (unsigned)logits.rows, SAMPLE_THREADS, 0, cuda(b)->stream, tokens, logits.data,
           logits.cols, stories, positions, options);
    CUDA_OP_END(b);
}
