/* Attention forward; formulas in native/ref/attention.c. A block has one tile
 * of queries of one head of one story and walks the keys up to its diagonal;
 * softmax is online, so scores never leave the chip. */
#include "attention_forward_mma.cuh"
#include "attention_simt.cuh"

/* Estimates for D = 64, fp32: tile of 64 queries, chunks of 32 keys; 43.0 KiB
 * of shared memory; per chunk 2 * 2 * 64 * 32 * 64 = 524 kFLOP and 16 KiB read
 * (mostly from L2). D = 128: 32 queries, 54.0 KiB. */
template <class T, int WIDTH>
static __global__ void __launch_bounds__(ATTENTION_THREADS, 3)
    forward_simt(T *__restrict__ out, float *__restrict__ lse, const T *__restrict__ qkv, ragged rows, int N, int D,
                 float scale, dropout_mask drop)
{
    typedef simt<WIDTH> G;
    DYNAMIC_SHARED(float, q);
    float *k = q + G::ROWS_FLOATS, *v = k + G::CHUNK_FLOATS, *scores = v + G::CHUNK_FLOATS;
    const part_tile tile = find_tile<G::ROWS>(rows, late_tiles_first());
    if (tile.empty())
        return;
    const int h = (int)blockIdx.y, C = (int)gridDim.y * D;
    const size_t stride = 3 * (size_t)C;
    const T *queries = qkv + tile.row(tile.first) * stride + h * D, *keys = qkv + C + h * D;
    const int end = min(tile.first + G::ROWS, tile.length);
    load_tile<WIDTH>(q, queries, stride, G::ROWS, end - tile.first, D, in_place());
    float acc[G::R][G::COLS] = {};
    softmax_state state[G::R];
#pragma unroll
    for (int r = 0; r < G::R; r++)
        state[r] = {-INFINITY, 0};
    for (int first = 0; first < end; first += ATTENTION_CHUNK) {
        __syncthreads();
        load_keys<WIDTH>(k, keys, stride, tile, first, D);
        load_keys<WIDTH>(v, keys + C, stride, tile, first, D);
        __syncthreads();
        float s[G::R][4] = {}, part[G::R][G::COLS] = {};
        softmax_factors factors[G::R];
        dots<WIDTH>(s, q, k, D);
#pragma unroll
        for (int r = 0; r < G::R; r++) {
            const int t = tile.first + r * 16 + simt_y(), key = first + simt_x() * 4;
            float max = -INFINITY;
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (key + i <= t)
                    max = fmaxf(max, s[r][i] = __fmul_rn(s[r][i], scale));
            max = group_max<8>(max);
#pragma unroll
            for (int i = 0; i < 4; i++)
                s[r][i] = key + i <= t ? expf(s[r][i] - max) : 0;
            factors[r] = merge(state[r], max, group_sum<8>((s[r][0] + s[r][1]) + (s[r][2] + s[r][3])));
            if (drop.on) {
                uint32_t kept = kept_quad(drop, (uint64_t)h * N + tile.begin + t, (uint32_t)key / 4);
#pragma unroll
                for (int i = 0; i < 4; i++)
                    s[r][i] = kept >> i & 1 ? s[r][i] * drop.kept : 0;
            }
        }
        put_scores<WIDTH>(scores, s);
        __syncwarp();
        mix<WIDTH>(part, scores, v);
        __syncwarp();
#pragma unroll
        for (int r = 0; r < G::R; r++)
#pragma unroll
            for (int c = 0; c < G::COLS; c++)
                acc[r][c] = fmaf(acc[r][c], factors[r].old_part, part[r][c] * factors[r].new_part);
    }
#pragma unroll
    for (int r = 0; r < G::R; r++) {
        const int t = tile.first + r * 16 + simt_y();
        if (t >= end)
            continue;
        store_row<WIDTH>(out + (size_t)(tile.begin + t) * C + h * D, acc[r], 1 / state[r].sum, D);
        if (simt_x() == 0)
            lse[(size_t)h * N + tile.begin + t] = state[r].max + logf(state[r].sum);
    }
}

template <class T>
static void launch_simt(backend *b, tensor out, float *lse, tensor qkv, ragged rows, int heads, dropout_mask drop)
{
    const int N = out.rows, D = out.cols / heads;
    attention_by_width(D, [&](auto width) {
        constexpr int WIDTH = decltype(width)::value;
        typedef simt<WIDTH> G;
        const size_t shared = (G::ROWS_FLOATS + 2 * G::CHUNK_FLOATS + G::SCORES_FLOATS) * sizeof(float);
        LAUNCH((forward_simt<T, WIDTH>), dim3(tile_numbers<G::ROWS>(N, rows.stories), (unsigned)heads),
               ATTENTION_THREADS, shared, cuda(b)->stream, (T *)out.data, lse, (const T *)qkv.data, rows, N, D,
               1 / sqrtf((float)D), drop);
    });
}

void cuda_attention_forward(backend *b, tensor out, float *lse, tensor qkv, ragged rows, int heads, dropout drop)
{
    const dropout_mask mask = dropout_mask_of(drop);
    if (attention_on_tensor_cores(out.type, out.cols / heads))
        launch_forward_mma(b, out, lse, qkv, rows, heads, mask);
    else
        cuda_by_type(out.type, [&](auto *element) {
            launch_simt<typename std::remove_pointer<decltype(element)>::type>(b, out, lse, qkv, rows, heads, mask);
        });
    CUDA_OP_END(b);
}
