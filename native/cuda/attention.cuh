/* attention.cuh: what the kernels of attention share: which rows a block works
 * on, the dropout mask, and the order in which the keys of a row are summed.
 * Formulas in native/ref/attention.c. */
#ifndef CUDA_ATTENTION_CUH
#define CUDA_ATTENTION_CUH

#include "dropout.cuh"

enum { ATTENTION_THREADS = 128, ATTENTION_CHUNK = 32 };

/* Tokens first.. of a part (ops.h), by their positions: it has those from
 * `shared` to length - 1, position t in row begin + t of the packed batch;
 * positions below `shared` are the rows of the prefix. */
struct part_tile {
    int begin, shared, length, first;
    __device__ __forceinline__ bool empty() const { return first >= length; }
    __device__ __forceinline__ size_t row(int position) const
    {
        return (size_t)(position < shared ? position : begin + position);
    }
};

/* Ragged rows need no list of tiles: tile i of a part p that begins at row r has
 * the number r / ROWS + p + i. Parts do not meet, for one that ends before row e
 * has at most e / ROWS - r / ROWS + 1 tiles; numbers between them are empty. */
template <int ROWS> static inline unsigned tile_numbers(int N, int stories)
{
    return (unsigned)(N / ROWS + stories + 1);
}

/* The tile of a number: the last part whose first tile is not above it, found
 * by a warp that tries 32 parts at a time. */
template <int ROWS> __device__ __forceinline__ part_tile find_tile(ragged rows, int number)
{
    int low = 0, high = rows.stories + 1, lane = (int)threadIdx.x & 31;
    while (high - low > 1) {
        int step = (high - low + 31) / 32, probe = low + lane * step;
        bool fits = probe < high && ragged_begin(rows, probe) / ROWS + probe <= number;
        int last = 31 - __clz((int)__ballot_sync(FULL_WARP, fits));
        low += last * step;
        high = min(low + step, high);
    }
    const int begin = ragged_begin(rows, low), shared = ragged_shared(rows, low);
    return {begin - shared, shared, rows.offsets[low] - begin + shared, shared + (number - begin / ROWS - low) * ROWS};
}

/* Tiles at the end of a story have the most keys: they go first. */
__device__ __forceinline__ int late_tiles_first() { return (int)(gridDim.x - 1 - blockIdx.x); }

/* Which of keys 4 * quad .. 4 * quad + 3 of a row dropout keeps, a bit each.
 * Element (row, key) has the number row * 65536 + key. */
__device__ __forceinline__ uint32_t kept_quad(const dropout_mask &d, uint64_t row, uint32_t quad)
{
    uint32_t draws[4];
    philox_dropout(d.seed, d.step, d.site, row * 16384 + quad, draws);
    return (uint32_t)(draws[0] >= d.threshold) | (uint32_t)(draws[1] >= d.threshold) << 1 |
           (uint32_t)(draws[2] >= d.threshold) << 2 | (uint32_t)(draws[3] >= d.threshold) << 3;
}

/* The order of fp32 sums, which forward_simt and decode keep to the bit: keys
 * go by chunks of 32 from the start of the story. A chunk has its own maximum
 * m, its weights exp(s - m), their sum by halves of neighbours, and the values
 * summed in rising order; chunks are merged in rising order. */
struct softmax_state {
    float max, sum;
};

/* Factors that bring what is there and what a chunk adds to their maximum. */
struct softmax_factors {
    float old_part, new_part;
};

__device__ __forceinline__ softmax_factors merge(softmax_state &s, float max, float sum)
{
    float higher = fmaxf(s.max, max);
    softmax_factors f = {expf(s.max - higher), expf(max - higher)};
    s.max = higher;
    s.sum = fmaf(s.sum, f.old_part, sum * f.new_part);
    return f;
}

/* Largest and sum over neighbouring lanes, `lanes` of them a group. */
template <int LANES> __device__ __forceinline__ float group_max(float v)
{
#pragma unroll
    for (int bits = 1; bits < LANES; bits *= 2)
        v = fmaxf(v, __shfl_xor_sync(FULL_WARP, v, bits));
    return v;
}
template <int LANES> __device__ __forceinline__ float group_sum(float v)
{
#pragma unroll
    for (int bits = 1; bits < LANES; bits *= 2)
        v += __shfl_xor_sync(FULL_WARP, v, bits);
    return v;
}

/* Calls f with an integral constant, the smallest of 32, 64 and 128 that holds
 * a head of width D. */
template <class F> static inline void attention_by_width(int D, F f)
{
    if (D <= 32)
        f(std::integral_constant<int, 32>());
    else if (D <= 64)
        f(std::integral_constant<int, 64>());
    else
        f(std::integral_constant<int, 128>());
}

/* Widths that the tensor cores take, in whole steps of their tiles. */
static inline bool attention_on_tensor_cores(int type, int D)
{
    return type == TENSOR_BF16 && (D == 32 || D == 64 || D == 128);
}

#endif
