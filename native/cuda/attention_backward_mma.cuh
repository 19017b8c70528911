/* Attention backward on tensor cores: the two kernels of
 * attention_backward_simt.cuh, with tiles as in attention_forward_mma.cuh. The
 * kernel of keys computes scores with keys as rows, so that their fragments are
 * the left factors of dv and dk as they are: no scores pass through shared
 * memory. Seven products a pair of tiles where one kernel with atomics would
 * have five: the price of the same bits every time. */
#ifndef CUDA_ATTENTION_BACKWARD_MMA_CUH
#define CUDA_ATTENTION_BACKWARD_MMA_CUH

#include "attention_backward_simt.cuh"
#include "attention_mma.cuh"

/* Columns of a tile of scores: as many as registers hold beside D sums. */
template <int D> struct backward_mma {
    static constexpr int WIDE = D == 128 ? 32 : 64, BLOCKS = WIDE / 8;
    static constexpr int LD = mma_tile<D>::LD, ROWS_ELEMENTS = MMA_ROWS * LD, PIECE = WIDE * LD;
    static constexpr size_t SHARED = (2 * ROWS_ELEMENTS + 4 * PIECE) * sizeof(bf16);
};

/* delta of the warp's 16 rows, two lanes a row; every lane gets those of its
 * fragment rows. dy in shared memory, out in device memory. */
template <int D>
__device__ __forceinline__ void fragment_deltas(float (&delta)[2], const bf16 *dy, const bf16 *out, size_t stride,
                                                float *to, int valid)
{
    const int lane = mma_lane(), r = mma_warp() * 16 + lane / 2, half = lane % 2 * (D / 2);
    float sum = 0;
    if (r < valid)
#pragma unroll 2
        for (int d = half; d < half + D / 2; d += 8) {
            const uint4 x = *(const uint4 *)(dy + r * mma_tile<D>::LD + d);
            const uint4 y = *(const uint4 *)(out + (size_t)r * stride + d);
            const uint32_t xs[4] = {x.x, x.y, x.z, x.w}, ys[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
            for (int i = 0; i < 4; i++)
                sum = fmaf(high_bf16(xs[i]), high_bf16(ys[i]), fmaf(low_bf16(xs[i]), low_bf16(ys[i]), sum));
        }
    sum += __shfl_xor_sync(FULL_WARP, sum, 1);
    if (r < valid && lane % 2 == 0)
        to[r] = sum;
    delta[0] = __shfl_sync(FULL_WARP, sum, mma_row() * 2);
    delta[1] = __shfl_sync(FULL_WARP, sum, mma_row() * 2 + 16);
}

/* Estimates for D = 64: 54.0 KiB of shared memory (D = 128: 68.0 KiB); per tile
 * of 64 keys 3 * 2 * 64 * 64 * 64 = 1.57 MFLOP, 4096 exponentials, 16 KiB
 * read. */
template <int D, bool DROPOUT>
static __global__ void __launch_bounds__(ATTENTION_THREADS, D == 128  ? 2
                                                            : D == 64 ? 3
                                                                      : 4) backward_queries_mma(backward_arrays<bf16> a)
{
    typedef backward_mma<D> G;
    DYNAMIC_SHARED(bf16, shared_q);
    bf16 *shared_dy = shared_q + G::ROWS_ELEMENTS, *shared_k = shared_dy + G::ROWS_ELEMENTS;
    bf16 *shared_v = shared_k + 2 * G::PIECE;
    const part_tile tile = find_tile<MMA_ROWS>(a.rows, late_tiles_first());
    if (tile.empty())
        return;
    const int h = (int)blockIdx.y, C = (int)gridDim.y * D, first_row = mma_warp() * 16;
    const int valid = tile.length - tile.first, end = min(tile.first + (int)MMA_ROWS, tile.length);
    const size_t stride = 3 * (size_t)C, row = tile.row(tile.first), at_lse = (size_t)h * a.N + row;
    const bf16 *keys = a.qkv + C + h * D;
    copy_tile<MMA_ROWS, D>(shared_q, a.qkv + row * stride + h * D, stride, valid);
    copy_tile<MMA_ROWS, D>(shared_dy, a.dout + row * C + h * D, (size_t)C, valid);
    copy_keys<G::WIDE, D>(shared_k, keys, stride, tile, 0);
    copy_keys<G::WIDE, D>(shared_v, keys + C, stride, tile, 0);
    cp_async_commit();

    const float scale2 = a.scale * LOG2_E;
    float acc[D / 8][4] = {}, lse2[2], delta[2];
#pragma unroll
    for (int half = 0; half < 2; half++)
        lse2[half] = a.lse[at_lse + min(first_row + mma_row() + half * 8, valid - 1)] * LOG2_E;
    for (int i = 0, first = 0; first < end; i++, first += G::WIDE) {
        const bf16 *k = shared_k + (i & 1) * G::PIECE, *v = shared_v + (i & 1) * G::PIECE;
        const int next = first + G::WIDE;
        if (next < end) {
            copy_keys<G::WIDE, D>(shared_k + (~i & 1) * G::PIECE, keys, stride, tile, next);
            copy_keys<G::WIDE, D>(shared_v + (~i & 1) * G::PIECE, keys + C, stride, tile, next);
        }
        cp_async_commit();
        cp_async_wait<1>();
        __syncthreads();
        if (i == 0)
            fragment_deltas<D>(delta, shared_dy, a.out + row * C + h * D, (size_t)C, a.delta + at_lse, valid);
        float s[G::BLOCKS][4] = {}, ds[G::BLOCKS][4] = {};
        multiply_rows<D, G::WIDE>(s, shared_q, first_row, k);
        multiply_rows<D, G::WIDE>(ds, shared_dy, first_row, v);
        if (DROPOUT) {
            const kept_keys<G::BLOCKS> kept(a.drop, at_lse + first_row + mma_row(), first);
#pragma unroll
            for (int j = 0; j < G::BLOCKS; j++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    ds[j][e] = kept(j, e) ? ds[j][e] * a.drop.kept : 0;
        }
#pragma unroll
        for (int j = 0; j < G::BLOCKS; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const int t = tile.first + first_row + mma_row() + (e >> 1) * 8;
                const bool seen = first + j * 8 + mma_column() + (e & 1) <= t;
                const float p = seen ? exp2f(s[j][e] * scale2 - lse2[e >> 1]) : 0;
                ds[j][e] = p * (ds[j][e] - delta[e >> 1]) * a.scale;
            }
        multiply_scores<D, G::WIDE>(acc, ds, k);
        __syncthreads();
    }
    store_rows<D>(a.dqkv + row * stride + h * D, stride, acc, first_row, valid, 1, 1);
}

/* Estimates for D = 64: 55.0 KiB of shared memory (D = 128: 68.5 KiB); per tile
 * of 64 queries 4 * 2 * 64 * 64 * 64 = 2.10 MFLOP, 4096 exponentials, 16 KiB
 * read. */
template <int D, bool DROPOUT>
static __global__ void __launch_bounds__(ATTENTION_THREADS) backward_keys_mma(backward_arrays<bf16> a)
{
    typedef backward_mma<D> G;
    DYNAMIC_SHARED(bf16, shared_k);
    bf16 *shared_v = shared_k + G::ROWS_ELEMENTS, *shared_q = shared_v + G::ROWS_ELEMENTS;
    bf16 *shared_dy = shared_q + 2 * G::PIECE;
    float *shared_lse = (float *)(shared_dy + 2 * G::PIECE), *shared_delta = shared_lse + 2 * G::WIDE;
    SHARED(key_tile, shared_block, [1]);
    const key_tile &block = found(shared_block, [&] { return find_keys<MMA_ROWS>(a); });
    const part_tile &tile = block.keys;
    if (tile.empty())
        return;
    const int h = (int)blockIdx.y, C = (int)gridDim.y * D, first_row = mma_warp() * 16;
    const size_t stride = 3 * (size_t)C;
    const bf16 *queries = a.qkv + (size_t)tile.begin * stride + h * D, *keys = queries + C;
    const bf16 *dout = a.dout + (size_t)tile.begin * C + h * D;
    const int valid = tile.length - tile.first;
    /* Tile of queries into half `to` of the buffers; a query behind the end
     * gets no weight. */
    auto fetch = [&](int to, int first) {
        copy_tile<G::WIDE, D>(shared_q + to * G::PIECE, queries + (size_t)first * stride, stride, block.end - first);
        copy_tile<G::WIDE, D>(shared_dy + to * G::PIECE, dout + (size_t)first * C, (size_t)C, block.end - first);
        const int i = (int)threadIdx.x;
        if (i < G::WIDE) {
            const bool there = first + i < block.end;
            const size_t at = (size_t)h * a.N + tile.begin + first + i;
            shared_lse[to * G::WIDE + i] = there ? a.lse[at] * LOG2_E : INFINITY;
            shared_delta[to * G::WIDE + i] = there ? a.delta[at] : 0;
        }
    };
    copy_tile<MMA_ROWS, D>(shared_k, keys + (size_t)tile.first * stride, stride, valid);
    copy_tile<MMA_ROWS, D>(shared_v, keys + C + (size_t)tile.first * stride, stride, valid);
    fetch(0, block.first);
    cp_async_commit();

    const float scale2 = a.scale * LOG2_E;
    float dk[D / 8][4] = {}, dv[D / 8][4] = {};
    for (int i = 0, first = block.first; first < block.end; i++, first += G::WIDE) {
        const bf16 *q = shared_q + (i & 1) * G::PIECE, *dy = shared_dy + (i & 1) * G::PIECE;
        const float *lse2 = shared_lse + (i & 1) * G::WIDE, *delta = shared_delta + (i & 1) * G::WIDE;
        if (first + G::WIDE < block.end)
            fetch(~i & 1, first + G::WIDE);
        cp_async_commit();
        cp_async_wait<1>();
        __syncthreads();
        float p[G::BLOCKS][4] = {}, ds[G::BLOCKS][4] = {};
        multiply_rows<D, G::WIDE>(p, shared_k, first_row, q);
        multiply_rows<D, G::WIDE>(ds, shared_v, first_row, dy);
#pragma unroll
        for (int j = 0; j < G::BLOCKS; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const int column = j * 8 + mma_column() + (e & 1);
                const bool seen = tile.first + first_row + mma_row() + (e >> 1) * 8 <= first + column;
                p[j][e] = seen ? exp2f(p[j][e] * scale2 - lse2[column]) : 0;
            }
        if (DROPOUT) {
            const kept_queries<G::BLOCKS> kept(a.drop, (uint64_t)h * a.N + tile.begin + first, tile.first + first_row);
#pragma unroll
            for (int j = 0; j < G::BLOCKS; j++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    const float shift = delta[j * 8 + mma_column() + (e & 1)];
                    const bool keep = kept(j, e);
                    ds[j][e] = p[j][e] * ((keep ? ds[j][e] * a.drop.kept : 0) - shift) * a.scale;
                    p[j][e] = keep ? p[j][e] : 0;
                }
        } else
#pragma unroll
            for (int j = 0; j < G::BLOCKS; j++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    ds[j][e] = p[j][e] * (ds[j][e] - delta[j * 8 + mma_column() + (e & 1)]) * a.scale;
        multiply_scores<D, G::WIDE>(dv, p, dy);
        multiply_scores<D, G::WIDE>(dk, ds, q);
        __syncthreads();
    }
    if (block.cut >= 0) { /* there is no dropout then */
        float *to = a.sums + ((size_t)block.cut * a.rows.prefix + tile.first) * 2 * C + h * D;
        store_rows<D>(to, 2 * (size_t)C, dk, first_row, valid, 1, 1);
        store_rows<D>(to + C, 2 * (size_t)C, dv, first_row, valid, 1, 1);
        return;
    }
    bf16 *to = a.dqkv + tile.row(tile.first) * stride + C + h * D;
    const float by = DROPOUT ? a.drop.kept : 1;
    store_rows<D>(to, stride, dk, first_row, valid, 1, 1);
    store_rows<D>(to + C, stride, dv, first_row, valid, by, by);
}

#endif
