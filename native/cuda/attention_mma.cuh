/* attention_mma.cuh: tiles of attention on tensor cores: bf16 operands, fp32
 * sums. 128 threads are 4 warps of 16 rows each. Tiles lie in shared memory
 * with rows of D + 8 elements, so that the eight 16-byte rows of an ldmatrix
 * fall into different banks. Fragments: ptx.cuh. */
#ifndef CUDA_ATTENTION_MMA_CUH
#define CUDA_ATTENTION_MMA_CUH

#include "attention.cuh"

enum { MMA_ROWS = 64 };

static constexpr float LOG2_E = 1.44269504f, LN_2 = 0.69314718f;

template <int D> struct mma_tile {
    static constexpr int LD = D + 8, BLOCKS = D / 8, STEPS = D / 16;
};

__device__ __forceinline__ int mma_lane() { return (int)threadIdx.x & 31; }
__device__ __forceinline__ int mma_warp() { return (int)threadIdx.x >> 5; }
/* The rows of a fragment of results that the lane has: mma_row() and 8 below;
 * columns mma_column() and the one after it, of every block of 8. */
__device__ __forceinline__ int mma_row() { return mma_lane() >> 2; }
__device__ __forceinline__ int mma_column() { return (mma_lane() & 3) * 2; }

/* What a warp finds for its block, in shared memory: registers are scarce. */
template <class T, class F> __device__ __forceinline__ const T &found(T *shared, F find)
{
    if (mma_warp() == 0) {
        const T its = find();
        if (mma_lane() == 0)
            *shared = its;
    }
    __syncthreads();
    return *shared;
}

/* Copies ROWS rows of D elements in the background, those from `split` on from
 * `jump` elements further; rows from `valid` on become zeros, so that no number
 * of another story enters a product. */
template <int ROWS, int D>
__device__ __forceinline__ void copy_tile(bf16 *to, const bf16 *from, size_t stride, int valid, int split = ROWS,
                                          size_t jump = 0)
{
    constexpr int PIECES = D / 8;
#pragma unroll
    for (int i = (int)threadIdx.x; i < ROWS * PIECES; i += ATTENTION_THREADS) {
        int r = i / PIECES, d = i % PIECES * 8;
        cp_async16_zfill(to + r * mma_tile<D>::LD + d,
                         from + (r < valid ? (size_t)r * stride + (r < split ? 0 : jump) : 0) + d, r < valid ? 16 : 0);
    }
}

/* Keys, or values, from position `first` on. */
template <int ROWS, int D>
__device__ __forceinline__ void copy_keys(bf16 *to, const bf16 *from, size_t stride, const part_tile &tile, int first)
{
    copy_tile<ROWS, D>(to, from + (size_t)first * stride, stride, tile.length - first, tile.shared - first,
                       (size_t)tile.begin * stride);
}

/* Rows row.. row + 15, columns column.. column + 15 of a tile as operand a. */
template <int LD> __device__ __forceinline__ void load_a(uint32_t (&a)[4], const bf16 *tile, int row, int column)
{
    ldmatrix_x4(a, tile + (row + (mma_lane() & 15)) * LD + column + (mma_lane() >> 4) * 8);
}

/* Operand b of x tile^T: rows row.. row + 15 of the tile are two blocks of 8
 * columns of b, in b[0..1] and b[2..3]. */
template <int LD> __device__ __forceinline__ void load_b_rows(uint32_t (&b)[4], const bf16 *tile, int row, int column)
{
    int lane = mma_lane();
    ldmatrix_x4(b, tile + (row + (lane & 7) + (lane >> 4) * 8) * LD + column + (lane >> 3 & 1) * 8);
}

/* Operand b of x tile: columns column.. column + 15 of the tile are two blocks
 * of b. */
template <int LD>
__device__ __forceinline__ void load_b_columns(uint32_t (&b)[4], const bf16 *tile, int row, int column)
{
    ldmatrix_x4_trans(b, tile + (row + (mma_lane() & 15)) * LD + column + (mma_lane() >> 4) * 8);
}

__device__ __forceinline__ void mma_pair(float (&d0)[4], float (&d1)[4], const uint32_t (&a)[4], const uint32_t (&b)[4])
{
    const uint32_t first[2] = {b[0], b[1]}, second[2] = {b[2], b[3]};
    mma_m16n8k16_bf16(d0, a, first);
    mma_m16n8k16_bf16(d1, a, second);
}

/* out (16, COLUMNS) += rows (16, D) of `a`, from row `row`, times rows of b^T. */
template <int D, int COLUMNS>
__device__ __forceinline__ void multiply_rows(float (&out)[COLUMNS / 8][4], const bf16 *a, int row, const bf16 *b)
{
    constexpr int LD = mma_tile<D>::LD;
#pragma unroll
    for (int k = 0; k < D; k += 16) {
        uint32_t fa[4];
        load_a<LD>(fa, a, row, k);
#pragma unroll
        for (int j = 0; j < COLUMNS / 8; j += 2) {
            uint32_t fb[4];
            load_b_rows<LD>(fb, b, j * 8, k);
            mma_pair(out[j], out[j + 1], fa, fb);
        }
    }
}

/* out (16, D) += p (16, DEPTH), rounded to bf16, times the tile x (DEPTH, D). */
template <int D, int DEPTH>
__device__ __forceinline__ void multiply_scores(float (&out)[D / 8][4], const float (&p)[DEPTH / 8][4], const bf16 *x)
{
    constexpr int LD = mma_tile<D>::LD;
#pragma unroll
    for (int k = 0; k < DEPTH / 16; k++) {
        const uint32_t a[4] = {pack_bf16(p[2 * k][0], p[2 * k][1]), pack_bf16(p[2 * k][2], p[2 * k][3]),
                               pack_bf16(p[2 * k + 1][0], p[2 * k + 1][1]),
                               pack_bf16(p[2 * k + 1][2], p[2 * k + 1][3])};
#pragma unroll
        for (int j = 0; j < D / 8; j += 2) {
            uint32_t b[4];
            load_b_columns<LD>(b, x, k * 16, j * 8);
            mma_pair(out[j], out[j + 1], a, b);
        }
    }
}

/* Bits of dropout for a fragment of scores whose rows are queries. Two
 * neighbouring lanes have four keys of two queries: each draws for one query,
 * four bits for every block of 8 keys, and they exchange the words. */
template <int BLOCKS> struct kept_keys {
    uint32_t word[2];
    /* rows: number of the lane's first query for dropout; key: first of the tile. */
    __device__ __forceinline__ kept_keys(const dropout_mask &d, uint64_t rows, int key)
    {
        int lane = mma_lane(), odd = lane & 1;
        uint32_t own = 0;
#pragma unroll 1
        for (int j = 0; j < BLOCKS; j++)
            own |= kept_quad(d, rows + (uint64_t)odd * 8, (uint32_t)(key + j * 8) / 4 + (lane >> 1 & 1)) << 4 * j;
        uint32_t other = __shfl_xor_sync(FULL_WARP, own, 1);
        word[0] = odd ? other : own;
        word[1] = odd ? own : other;
    }
    /* Element e of block j of a fragment. */
    __device__ __forceinline__ bool operator()(int j, int e) const
    {
        return word[e >> 1] >> (4 * j + (mma_lane() & 1) * 2 + (e & 1)) & 1;
    }
};

/* The same where rows are keys and columns queries: four lanes, 4 apart, have
 * the four keys of a quad, of two queries and of a second quad 8 keys below.
 * Each draws one of these four quads. */
template <int BLOCKS> struct kept_queries {
    uint32_t word[4];
    __device__ __forceinline__ kept_queries(const dropout_mask &d, uint64_t rows, int key)
    {
        int lane = mma_lane(), mine = lane >> 2 & 3;
        uint32_t own = 0, quad = (uint32_t)(key + mma_row()) / 4 + (uint32_t)(mine >> 1) * 2;
#pragma unroll 1
        for (int j = 0; j < BLOCKS; j++)
            own |= kept_quad(d, rows + (uint64_t)(j * 8 + mma_column() + (mine & 1)), quad) << 4 * j;
        uint32_t near = __shfl_xor_sync(FULL_WARP, own, 4), far = __shfl_xor_sync(FULL_WARP, own, 8);
        uint32_t across = __shfl_xor_sync(FULL_WARP, own, 12);
#pragma unroll
        for (int e = 0; e < 4; e++)
            word[e] = e == mine ? own : e == (mine ^ 1) ? near : e == (mine ^ 2) ? far : across;
    }
    __device__ __forceinline__ bool operator()(int j, int e) const
    {
        return word[e] >> (4 * j + (mma_lane() >> 2 & 3)) & 1;
    }
};

/* Rows 0.. of a warp's 16 whose number is below `valid`, times `by`. */
template <int D, class T>
__device__ __forceinline__ void store_rows(T *to, size_t stride, const float (&acc)[D / 8][4], int row, int valid,
                                           float by0, float by1)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int r = row + mma_row() + half * 8;
        const float by = half ? by1 : by0;
        if (r < valid)
#pragma unroll
            for (int j = 0; j < D / 8; j++)
                store2(to + (size_t)r * stride + j * 8 + mma_column(),
                       make_float2(acc[j][half * 2] * by, acc[j][half * 2 + 1] * by));
    }
}

#endif
