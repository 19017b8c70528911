/* Attention of one token a story against the cache; formulas in
 * native/ref/attention.c. One kernel stores the keys and values of all rows, a
 * second attends, so that rows may be tokens of one story that follow one
 * another. The second has a block a head and row: each warp has a chunk of 32
 * keys, one a lane, and the chunks are merged in rising order, as
 * attention.cuh says: with fp32 activations a token gets the bits that
 * attention_forward gives it, for any number of warps. */
#include "attention.cuh"

enum { MOST_WARPS = 16 };

/* Rows that follow one another may be copies (fill_rows in decode.c): one of
 * them stores. */
template <class T>
static __global__ void store_row(T *cache, const T *qkv, const int32_t *slots, const int32_t *positions, int context,
                                 int C)
{
    const int n = (int)blockIdx.x;
    if (n > 0 && slots[n] == slots[n - 1] && positions[n] == positions[n - 1])
        return;
    T *to = cache + ((size_t)slots[n] * context + positions[n]) * 2 * C;
    const T *from = qkv + (size_t)n * 3 * C + C;
    if (C % wide<T>::count == 0)
        for (int i = (int)threadIdx.x * wide<T>::count; i < 2 * C; i += (int)blockDim.x * wide<T>::count)
            store_wide(to + i, load_wide(from + i));
    else
        for (int i = (int)threadIdx.x; i < 2 * C; i += (int)blockDim.x)
            to[i] = from[i];
}

/* Shared memory of a block: the query, and for every warp a chunk of keys, one
 * of values, and what it found. */
template <class T, int WIDTH> struct decode_room {
    static constexpr int LD = WIDTH + 16 / (int)sizeof(T), CHUNK = ATTENTION_CHUNK * LD;
    static constexpr size_t WARP_BYTES = 2 * CHUNK * sizeof(T) + (WIDTH + 2) * sizeof(float);
    static size_t bytes(int warps) { return WIDTH * sizeof(float) + (size_t)warps * WARP_BYTES; }
};

/* Lanes copy 32 rows of D elements, those from `split` on from `jump` elements
 * further; rows from `valid` on become zeros, as well as columns D to WIDTH. */
template <int WIDTH, class T>
__device__ __forceinline__ void copy_chunk(T *to, const T *from, size_t stride, int valid, int split, size_t jump,
                                           int D, bool wide_rows)
{
    constexpr int LD = decode_room<T, WIDTH>::LD, EACH = wide<T>::count, PIECES = WIDTH / EACH;
    const int lane = (int)threadIdx.x & 31;
    if (wide_rows) {
        for (int i = lane; i < ATTENTION_CHUNK * PIECES; i += 32) {
            const int r = i / PIECES, d = i % PIECES * EACH;
            const bool there = r < valid && d < D;
            cp_async16_zfill(to + r * LD + d, from + (there ? (size_t)r * stride + (r < split ? 0 : jump) + d : 0),
                             there ? 16 : 0);
        }
        return;
    }
    for (int i = lane; i < ATTENTION_CHUNK * WIDTH; i += 32) {
        const int r = i / WIDTH, d = i % WIDTH;
        to[r * LD + d] = r < valid && d < D ? from[(size_t)r * stride + (r < split ? 0 : jump) + d] : from_float<T>(0);
    }
}

/* Estimates for D = 64, bf16: a warp has 9.3 KiB of shared memory, all of it
 * in flight at once; per chunk 8 KiB read, 2 * 2 * 32 * 64 = 8.2 kFLOP: bound
 * by the memory. */
template <class T, int WIDTH>
static __global__ void __launch_bounds__(MOST_WARPS * 32, 1)
    attend(T *out, const T *qkv, const T *cache, int context, int shared, const int32_t *slots,
           const int32_t *positions, int heads, int D, float scale, dropout_mask drop)
{
    typedef decode_room<T, WIDTH> room;
    constexpr int COLS = WIDTH / 32;
    DYNAMIC_SHARED(float, q);
    const int n = (int)(blockIdx.x / heads), h = (int)(blockIdx.x % heads), C = heads * D;
    const int lane = (int)threadIdx.x & 31, warp = (int)threadIdx.x >> 5, warps = (int)blockDim.x >> 5;
    T *k = (T *)(q + WIDTH) + (size_t)warp * 2 * room::CHUNK, *v = k + room::CHUNK;
    float *parts = (float *)((T *)(q + WIDTH) + (size_t)warps * 2 * room::CHUNK);
    const int count = positions[n] + 1;
    /* Shared positions lie in slot 0. */
    const size_t stride = 2 * (size_t)C, slot = (size_t)slots[n] * context * stride;
    const T *keys = cache + h * D;
    const bool wide_rows = D % wide<T>::count == 0;
    for (int d = (int)threadIdx.x; d < WIDTH; d += (int)blockDim.x)
        q[d] = d < D ? to_float(qkv[(size_t)n * 3 * C + h * D + d]) : 0;
    __syncthreads();

    float acc[COLS] = {};
    softmax_state state = {-INFINITY, 0};
    for (int round = 0; round < count; round += warps * ATTENTION_CHUNK) {
        const int first = round + warp * ATTENTION_CHUNK;
        if (first < count) {
            const T *chunk = keys + (size_t)first * stride;
            copy_chunk<WIDTH>(k, chunk, stride, count - first, shared - first, slot, D, wide_rows);
            copy_chunk<WIDTH>(v, chunk + C, stride, count - first, shared - first, slot, D, wide_rows);
            cp_async_commit();
            cp_async_wait<0>();
            __syncwarp();
            float s = 0;
#pragma unroll 4
            for (int d = 0; d < D; d += 4) {
                const float4 x = *(const float4 *)(q + d), y = load4(k + lane * room::LD + d);
                s = fmaf(x.w, y.w, fmaf(x.z, y.z, fmaf(x.y, y.y, fmaf(x.x, y.x, s))));
            }
            const int key = first + lane;
            s = key < count ? __fmul_rn(s, scale) : -INFINITY;
            const float max = group_max<32>(s);
            float p = key < count ? expf(s - max) : 0;
            const float sum = group_sum<32>(p);
            if (drop.on) {
                const uint32_t kept = kept_quad(drop, (uint64_t)n * heads + h, (uint32_t)key / 4);
                p = kept >> key % 4 & 1 ? p * drop.kept : 0;
            }
            float part[COLS] = {};
#pragma unroll 8
            for (int j = 0; j < ATTENTION_CHUNK; j++) {
                const float weight = __shfl_sync(FULL_WARP, p, j);
#pragma unroll
                for (int c = 0; c < COLS; c++)
                    part[c] = fmaf(weight, to_float(v[j * room::LD + c * 32 + lane]), part[c]);
            }
            float *mine = parts + warp * (WIDTH + 2);
#pragma unroll
            for (int c = 0; c < COLS; c++)
                mine[c * 32 + lane] = part[c];
            if (lane == 0) {
                mine[WIDTH] = max;
                mine[WIDTH + 1] = sum;
            }
        }
        __syncthreads();
        if (warp == 0)
            for (int w = 0; w < warps && round + w * ATTENTION_CHUNK < count; w++) {
                const float *its = parts + w * (WIDTH + 2);
                const softmax_factors f = merge(state, its[WIDTH], its[WIDTH + 1]);
#pragma unroll
                for (int c = 0; c < COLS; c++)
                    acc[c] = fmaf(acc[c], f.old_part, its[c * 32 + lane] * f.new_part);
            }
        __syncthreads();
    }
    if (warp == 0)
#pragma unroll
        for (int c = 0; c < COLS; c++)
            if (c * 32 + lane < D)
                out[(size_t)n * C + h * D + c * 32 + lane] = from_float<T>(acc[c] * (1 / state.sum));
}

/* Warps of a block: few blocks are split further, so that a card is busy with
 * few stories too; not more than the context has chunks or 96 KiB room for. */
template <class T, int WIDTH> static int choose_warps(int blocks, int multiprocessors, int context)
{
    int warps = blocks <= multiprocessors ? MOST_WARPS : blocks <= 4 * multiprocessors ? 8 : 4;
    while (warps > 1 && ((warps / 2) * ATTENTION_CHUNK >= context || decode_room<T, WIDTH>::bytes(warps) > 96 << 10))
        warps /= 2;
    return warps;
}

template <class T>
static void decode(backend *b, tensor out, tensor qkv, tensor cache, int context, int shared, const int32_t *slots,
                   const int32_t *positions, int heads, dropout_mask drop)
{
    const int C = out.cols, D = C / heads;
    LAUNCH((store_row<T>), (unsigned)out.rows, 256, 0, cuda(b)->stream, (T *)cache.data, (const T *)qkv.data, slots,
           positions, context, C);
    attention_by_width(D, [&](auto width) {
        constexpr int WIDTH = decltype(width)::value;
        const int warps = choose_warps<T, WIDTH>(out.rows * heads, cuda(b)->multiprocessors, context);
        LAUNCH((attend<T, WIDTH>), (unsigned)out.rows * (unsigned)heads, (unsigned)warps * 32,
               (decode_room<T, WIDTH>::bytes(warps)), cuda(b)->stream, (T *)out.data, (const T *)qkv.data,
               (const T *)cache.data, context, shared, slots, positions, heads, D, 1 / sqrtf((float)D), drop);
    });
}

void cuda_attention_decode(backend *b, tensor out, tensor qkv, tensor cache, int context, int shared,
                           const int32_t *slots, const int32_t *positions, int heads, dropout drop)
{
    cuda_by_type(out.type, [&](auto *element) {
        typedef typename std::remove_pointer<decltype(element)>::type T;
        decode<T>(b, out, qkv, cache, context, shared, slots, positions, heads, dropout_mask_of(drop));
    });
    CUDA_OP_END(b);
}
