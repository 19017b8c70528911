/* Attention forward on tensor cores (Dao 2023, "FlashAttention-2"): 64 queries
 * a block, tiles of 64 keys and values that arrive, two at a time, while the
 * one before them is multiplied. Weights are rounded to bf16 before they meet
 * the values; their sum is taken before that. */
#ifndef CUDA_ATTENTION_FORWARD_MMA_CUH
#define CUDA_ATTENTION_FORWARD_MMA_CUH

#include "attention_mma.cuh"

enum { FORWARD_KEYS = 64 };

/* Estimates for D = 64: 45.0 KiB of shared memory (D = 128: 85.0 KiB); per
 * tile of keys 2 * 2 * 64 * 64 * 64 = 1.05 MFLOP on tensor cores, 4096
 * exponentials, 16 KiB read (mostly from L2). A story of T tokens takes
 * T / 64 * (T / 64 + 1) / 2 such tiles a head. */
template <int D, bool DROPOUT>
static __global__ void __launch_bounds__(ATTENTION_THREADS, D == 128 ? 2 : 4)
    forward_mma(bf16 *__restrict__ out, float *__restrict__ lse, const bf16 *__restrict__ qkv, ragged rows, int N,
                float scale, dropout_mask drop)
{
    constexpr int LD = mma_tile<D>::LD, KEY_BLOCKS = FORWARD_KEYS / 8, PIECE = FORWARD_KEYS * LD;
    DYNAMIC_SHARED(bf16, shared_q);
    bf16 *shared_k = shared_q + MMA_ROWS * LD, *shared_v = shared_k + 2 * PIECE;
    SHARED(part_tile, shared_tile, [1]);
    const part_tile &tile = found(shared_tile, [&] { return find_tile<MMA_ROWS>(rows, late_tiles_first()); });
    if (tile.empty())
        return;
    const int h = (int)blockIdx.y, C = (int)gridDim.y * D, first_row = mma_warp() * 16;
    const size_t stride = 3 * (size_t)C;
    const int valid = tile.length - tile.first;
    const bf16 *keys = qkv + C + h * D;
    copy_tile<MMA_ROWS, D>(shared_q, qkv + tile.row(tile.first) * stride + h * D, stride, valid);
    copy_keys<FORWARD_KEYS, D>(shared_k, keys, stride, tile, 0);
    copy_keys<FORWARD_KEYS, D>(shared_v, keys + C, stride, tile, 0);
    cp_async_commit();

    /* In powers of 2: scores times scale * log2(e). */
    const float scale2 = scale * LOG2_E;
    float acc[D / 8][4] = {}, max[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
    const int tiles = (min(tile.first + (int)MMA_ROWS, tile.length) + FORWARD_KEYS - 1) / FORWARD_KEYS;
    for (int i = 0; i < tiles; i++) {
        const bf16 *k = shared_k + (i & 1) * PIECE, *v = shared_v + (i & 1) * PIECE;
        if (i + 1 < tiles) {
            const int next = (i + 1) * FORWARD_KEYS;
            copy_keys<FORWARD_KEYS, D>(shared_k + (~i & 1) * PIECE, keys, stride, tile, next);
            copy_keys<FORWARD_KEYS, D>(shared_v + (~i & 1) * PIECE, keys + C, stride, tile, next);
        }
        cp_async_commit();
        cp_async_wait<1>();
        __syncthreads();
        float s[KEY_BLOCKS][4] = {};
        multiply_rows<D, FORWARD_KEYS>(s, shared_q, first_row, k);
        const int last =
            tile.first + first_row + mma_row() - i * FORWARD_KEYS; /* key of the tile that its first row sees */
        if ((i + 1) * FORWARD_KEYS > tile.first)                   /* the diagonal */
#pragma unroll
            for (int j = 0; j < KEY_BLOCKS; j++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    if (j * 8 + mma_column() + (e & 1) > last + (e >> 1) * 8)
                        s[j][e] = -INFINITY;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float higher = max[half];
#pragma unroll
            for (int j = 0; j < KEY_BLOCKS; j++)
                higher = fmaxf(higher, fmaxf(s[j][half * 2], s[j][half * 2 + 1]) * scale2);
            higher = group_max<4>(higher);
            const float fade = exp2f(max[half] - higher);
            max[half] = higher;
            sum[half] *= fade;
#pragma unroll
            for (int j = 0; j < D / 8; j++) {
                acc[j][half * 2] *= fade;
                acc[j][half * 2 + 1] *= fade;
            }
        }
#pragma unroll
        for (int j = 0; j < KEY_BLOCKS; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                s[j][e] = exp2f(s[j][e] * scale2 - max[e >> 1]);
                sum[e >> 1] += s[j][e];
            }
        if (DROPOUT) {
            const kept_keys<KEY_BLOCKS> kept(drop, (uint64_t)h * N + tile.begin + tile.first + first_row + mma_row(),
                                             i * FORWARD_KEYS);
#pragma unroll
            for (int j = 0; j < KEY_BLOCKS; j++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    s[j][e] = kept(j, e) ? s[j][e] : 0;
        }
        multiply_scores<D, FORWARD_KEYS>(acc, s, v);
        __syncthreads();
    }
    float by[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        sum[half] = group_sum<4>(sum[half]);
        by[half] = (DROPOUT ? drop.kept : 1) / sum[half];
        const int t = tile.first + first_row + mma_row() + half * 8;
        if (t < tile.length && mma_column() == 0)
            lse[(size_t)h * N + tile.begin + t] = (max[half] + log2f(sum[half])) * LN_2;
    }
    store_rows<D>(out + (size_t)(tile.begin + tile.first) * C + h * D, (size_t)C, acc, first_row, valid, by[0], by[1]);
}

static inline void launch_forward_mma(backend *b, tensor out, float *lse, tensor qkv, ragged rows, int heads,
                                      dropout_mask drop)
{
    const int N = out.rows, D = out.cols / heads;
    attention_by_width(D, [&](auto width) {
        constexpr int WIDTH = decltype(width)::value;
        const size_t shared = (MMA_ROWS + 4 * FORWARD_KEYS) * mma_tile<WIDTH>::LD * sizeof(bf16);
        const dim3 grid(tile_numbers<MMA_ROWS>(N, rows.stories), (unsigned)heads);
        const float scale = 1 / sqrtf((float)D);
        if (drop.on)
            LAUNCH((forward_mma<WIDTH, true>), grid, ATTENTION_THREADS, shared, cuda(b)->stream, (bf16 *)out.data, lse,
                   (const bf16 *)qkv.data, rows, N, scale, drop);
        else
            LAUNCH((forward_mma<WIDTH, false>), grid, ATTENTION_THREADS, shared, cuda(b)->stream, (bf16 *)out.data, lse,
                   (const bf16 *)qkv.data, rows, N, scale, drop);
    });
}

#endif
