/* Attention backward in fp32 on ordinary cores; formulas in
 * native/ref/attention.c. Two kernels, each the only writer of what it writes:
 * by tiles of queries for dq (and for delta, which the second reads), by tiles
 * of keys for dk and dv. Scores are computed in both. All queries of a batch see
 * the keys of its prefix: they are cut among blocks, whose sums a third kernel
 * adds up. */
#ifndef CUDA_ATTENTION_BACKWARD_SIMT_CUH
#define CUDA_ATTENTION_BACKWARD_SIMT_CUH

#include "attention_simt.cuh"

/* What both kernels are given. */
template <class T> struct backward_arrays {
    T *dqkv;
    const T *dout, *qkv, *out;
    const float *lse;
    float *delta; /* [H][N], dout . out */
    ragged rows;
    int N, D;
    float scale;
    dropout_mask drop;
    int cuts;    /* of the queries that see the prefix */
    float *sums; /* [cuts][prefix][2C], gradients of its keys and values */
};

/* A tile of keys, and the queries that a block takes: those at positions first
 * to end - 1 of the part. */
struct key_tile {
    part_tile keys;
    int first, end, cut; /* cut: -1 for a story's keys */
};

static inline __host__ __device__ int prefix_tiles(int prefix, int rows) { return (prefix + rows - 1) / rows; }

/* Blocks of the prefix have the most queries: they go first. The prefix has its
 * rows at its positions, so that those of the stories go on from there. */
template <int ROWS, class T> __device__ __forceinline__ key_tile find_keys(const backward_arrays<T> &a)
{
    const int number = (int)blockIdx.x, cut_blocks = prefix_tiles(a.rows.prefix, ROWS) * a.cuts;
    if (number < cut_blocks) {
        const int first = number / a.cuts * ROWS, cut = number % a.cuts;
        const int each = ((a.N - first + a.cuts - 1) / a.cuts + ROWS - 1) / ROWS * ROWS,
                  from = min(first + cut * each, a.N);
        return {{0, 0, a.rows.prefix, first}, from, min(from + each, a.N), cut};
    }
    part_tile tile = find_tile<ROWS>(a.rows, number - cut_blocks);
    if (tile.row(tile.first) < (size_t)a.rows.prefix) /* done above */
        tile.first = tile.length;
    return {tile, tile.first, tile.length, -1};
}

/* delta of a row by 8 lanes. */
template <class T> __device__ __forceinline__ float row_delta(const T *dout, const T *out, int D)
{
    float sum = 0;
    for (int d = simt_x(); d < D; d += 8)
        sum = fmaf(to_float(dout[d]), to_float(out[d]), sum);
    return group_sum<8>(sum);
}

/* Estimates for D = 64: 64 queries, chunks of 32 keys; 60.0 KiB of shared
 * memory; per chunk 3 * 2 * 64 * 32 * 64 = 786 kFLOP, 16 KiB read. D = 128: 32
 * queries, 70.5 KiB. */
template <class T, int WIDTH>
static __global__ void __launch_bounds__(ATTENTION_THREADS, 2) backward_queries_simt(backward_arrays<T> a)
{
    typedef simt<WIDTH> G;
    DYNAMIC_SHARED(float, q);
    float *dy = q + G::ROWS_FLOATS, *k = dy + G::ROWS_FLOATS, *v = k + G::CHUNK_FLOATS, *slopes = v + G::CHUNK_FLOATS;
    const part_tile tile = find_tile<G::ROWS>(a.rows, late_tiles_first());
    if (tile.empty())
        return;
    const int h = (int)blockIdx.y, D = a.D, C = (int)gridDim.y * D;
    const size_t stride = 3 * (size_t)C, row = tile.row(tile.first);
    const T *keys = a.qkv + C + h * D;
    const int end = min(tile.first + G::ROWS, tile.length), rows = end - tile.first;
    load_tile<WIDTH>(q, a.qkv + row * stride + h * D, stride, G::ROWS, rows, D, in_place());
    load_tile<WIDTH>(dy, a.dout + row * C + h * D, (size_t)C, G::ROWS, rows, D, in_place());
    float lse[G::R], delta[G::R], acc[G::R][G::COLS] = {};
#pragma unroll
    for (int r = 0; r < G::R; r++) {
        const int t = min(r * 16 + simt_y(), rows - 1);
        const size_t at = (row + t) * C + h * D;
        lse[r] = a.lse[(size_t)h * a.N + row + t];
        delta[r] = row_delta(a.dout + at, a.out + at, D);
        if (simt_x() == 0 && r * 16 + simt_y() < rows)
            a.delta[(size_t)h * a.N + row + t] = delta[r];
    }
    for (int first = 0; first < end; first += ATTENTION_CHUNK) {
        __syncthreads();
        load_keys<WIDTH>(k, keys, stride, tile, first, D);
        load_keys<WIDTH>(v, keys + C, stride, tile, first, D);
        __syncthreads();
        float s[G::R][4] = {}, ds[G::R][4] = {};
        dots<WIDTH>(s, q, k, D);
        dots<WIDTH>(ds, dy, v, D);
#pragma unroll
        for (int r = 0; r < G::R; r++) {
            const int t = tile.first + r * 16 + simt_y(), key = first + simt_x() * 4;
            const uint32_t kept =
                a.drop.on ? kept_quad(a.drop, (uint64_t)h * a.N + tile.begin + t, (uint32_t)key / 4) : 15;
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float p = key + i <= t ? expf(s[r][i] * a.scale - lse[r]) : 0;
                ds[r][i] = p * ((kept >> i & 1 ? ds[r][i] * a.drop.kept : 0) - delta[r]) * a.scale;
            }
        }
        put_scores<WIDTH>(slopes, ds);
        __syncwarp();
        mix<WIDTH>(acc, slopes, k);
        __syncwarp();
    }
#pragma unroll
    for (int r = 0; r < G::R; r++)
        if (r * 16 + simt_y() < rows)
            store_row<WIDTH>(a.dqkv + (row + r * 16 + simt_y()) * stride + h * D, acc[r], 1, D);
}

/* Rows of the tile are keys, columns queries. Estimates for D = 64: 64 keys,
 * chunks of 32 queries; 69.3 KiB of shared memory; per chunk 4 * 2 * 64 * 32 *
 * 64 = 1.05 MFLOP, 16 KiB read. D = 128: 32 keys, 75.3 KiB. */
template <class T, int WIDTH>
static __global__ void __launch_bounds__(ATTENTION_THREADS, 2) backward_keys_simt(backward_arrays<T> a)
{
    typedef simt<WIDTH> G;
    DYNAMIC_SHARED(float, k);
    float *v = k + G::ROWS_FLOATS, *q = v + G::ROWS_FLOATS, *dy = q + G::CHUNK_FLOATS, *p = dy + G::CHUNK_FLOATS;
    float *slopes = p + G::SCORES_FLOATS, *lse = slopes + G::SCORES_FLOATS, *delta = lse + ATTENTION_CHUNK;
    const key_tile block = find_keys<G::ROWS>(a);
    const part_tile &tile = block.keys;
    if (tile.empty())
        return;
    const int h = (int)blockIdx.y, D = a.D, C = (int)gridDim.y * D;
    const size_t stride = 3 * (size_t)C;
    const int rows = min((int)G::ROWS, tile.length - tile.first);
    const T *keys = a.qkv + tile.row(tile.first) * stride + C + h * D;
    /* Key i of the tile at thread row i / R, so that a thread has neighbours. */
    load_tile<WIDTH>(k, keys, stride, G::ROWS, rows, D, spread<G::R, 16>());
    load_tile<WIDTH>(v, keys + C, stride, G::ROWS, rows, D, spread<G::R, 16>());
    float dk[G::R][G::COLS] = {}, dv[G::R][G::COLS] = {};
    const int first_key = tile.first + simt_y() * G::R;
    for (int first = block.first; first < block.end; first += ATTENTION_CHUNK) {
        const size_t row = tile.row(first);
        const int valid = block.end - first;
        __syncthreads();
        load_tile<WIDTH>(q, a.qkv + row * stride + h * D, stride, ATTENTION_CHUNK, valid, D, spread_chunk());
        load_tile<WIDTH>(dy, a.dout + row * C + h * D, (size_t)C, ATTENTION_CHUNK, valid, D, spread_chunk());
        for (int i = (int)threadIdx.x; i < ATTENTION_CHUNK; i += ATTENTION_THREADS) {
            /* A query behind the end gets no weight. */
            lse[i] = i < valid ? a.lse[(size_t)h * a.N + row + i] : INFINITY;
            delta[i] = i < valid ? a.delta[(size_t)h * a.N + row + i] : 0;
        }
        __syncthreads();
        float s[G::R][4] = {}, ds[G::R][4] = {};
        dots<WIDTH>(s, k, q, D);
        dots<WIDTH>(ds, v, dy, D);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int column = simt_x() * 4 + i, t = first + column;
            const uint32_t kept =
                a.drop.on
                    ? kept_quad(a.drop, (uint64_t)h * a.N + row + column, (uint32_t)first_key / 4) >> first_key % 4
                    : 15;
#pragma unroll
            for (int r = 0; r < G::R; r++) {
                const float weight = first_key + r <= t ? expf(s[r][i] * a.scale - lse[column]) : 0;
                const float factor = kept >> r & 1 ? a.drop.kept : 0;
                s[r][i] = weight * factor;
                ds[r][i] = weight * (factor * ds[r][i] - delta[column]) * a.scale;
            }
        }
        put_scores<WIDTH>(p, s);
        put_scores<WIDTH>(slopes, ds);
        __syncwarp();
        mix<WIDTH>(dv, p, dy);
        mix<WIDTH>(dk, slopes, q);
        __syncwarp();
    }
#pragma unroll
    for (int r = 0; r < G::R; r++)
        if (first_key + r < tile.length) {
            const int key = first_key + r;
            if (block.cut >= 0) {
                float *to = a.sums + ((size_t)block.cut * a.rows.prefix + key) * 2 * C + h * D;
                store_row<WIDTH>(to, dk[r], 1, D);
                store_row<WIDTH>(to + C, dv[r], 1, D);
            } else {
                T *to = a.dqkv + tile.row(key) * stride + C + h * D;
                store_row<WIDTH>(to, dk[r], 1, D);
                store_row<WIDTH>(to + C, dv[r], 1, D);
            }
        }
}

#endif
