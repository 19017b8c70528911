/* attention_simt.cuh: tiles of attention in fp32 on ordinary cores, for every
 * head width up to 128: the whole fp32 mode, and bf16 heads of odd widths.
 *
 * 128 threads, as 16 rows of 8: thread (tx, ty) has 4 neighbouring columns of
 * R rows of a tile of scores, and WIDTH / 8 columns of R rows of a tile of
 * heads. Operands lie in shared memory as floats, WIDTH + 4 apart, so that the
 * 16-byte loads of eight lanes fall into different banks. Widths between 32,
 * 64 and 128 are filled up with zeros. */
#ifndef CUDA_ATTENTION_SIMT_CUH
#define CUDA_ATTENTION_SIMT_CUH

#include "attention.cuh"

template <int WIDTH> struct simt {
    static constexpr int R = WIDTH == 128 ? 2 : 4, ROWS = 16 * R, LD = WIDTH + 4, COLS = WIDTH / 8;
    static constexpr int CHUNK_LD = ATTENTION_CHUNK + 4;
    static constexpr size_t ROWS_FLOATS = ROWS * LD, CHUNK_FLOATS = ATTENTION_CHUNK * LD,
                            SCORES_FLOATS = ROWS * CHUNK_LD;
};

__device__ __forceinline__ int simt_x() { return (int)threadIdx.x & 7; }
__device__ __forceinline__ int simt_y() { return (int)threadIdx.x >> 3; }

/* Where row r of a tile lies. Chunks, and rows that a thread has side by side,
 * are spread: neighbours in one thread, i * R + 0 .. R - 1 of thread i of TALL,
 * lie TALL apart, so that the same one of all threads lies side by side. */
struct in_place {
    __device__ int operator()(int r) const { return r; }
};
template <int R, int TALL> struct spread {
    __device__ int operator()(int r) const { return r % R * TALL + r / R; }
};
typedef spread<4, 8> spread_chunk;

/* `rows` rows, row(0), row(1), ... of `from`, into a tile, those from `valid` on
 * and columns from D on as zeros. */
template <int WIDTH, class T, class PLACE, class ROW>
__device__ __forceinline__ void load_rows(float *to, const T *from, size_t stride, int rows, int valid, int D,
                                          PLACE place, ROW row)
{
    constexpr int LD = simt<WIDTH>::LD;
    if (D % 4 == 0) {
        for (int i = (int)threadIdx.x; i < rows * (WIDTH / 4); i += ATTENTION_THREADS) {
            int r = i / (WIDTH / 4), d = i % (WIDTH / 4) * 4;
            float4 v = make_float4(0, 0, 0, 0);
            if (r < valid && d < D)
                v = load4(from + row(r) * stride + d);
            *(float4 *)(to + place(r) * LD + d) = v;
        }
        return;
    }
    for (int i = (int)threadIdx.x; i < rows * WIDTH; i += ATTENTION_THREADS) {
        int r = i / WIDTH, d = i % WIDTH;
        to[place(r) * LD + d] = r < valid && d < D ? to_float(from[row(r) * stride + d]) : 0;
    }
}
template <int WIDTH, class T, class PLACE>
__device__ __forceinline__ void load_tile(float *to, const T *from, size_t stride, int rows, int valid, int D,
                                          PLACE place)
{
    load_rows<WIDTH>(to, from, stride, rows, valid, D, place, [](int r) { return (size_t)r; });
}
/* A chunk of keys, or values, from position `first` on. */
template <int WIDTH, class T>
__device__ __forceinline__ void load_keys(float *to, const T *from, size_t stride, const part_tile &tile, int first,
                                          int D)
{
    load_rows<WIDTH>(to, from, stride, ATTENTION_CHUNK, tile.length - first, D, spread_chunk(),
                     [&](int r) { return tile.row(first + r); });
}

/* s[r][i] += row (r, ty) of a . row 4 * tx + i of the chunk b, over d in rising
 * order. */
template <int WIDTH, int R>
__device__ __forceinline__ void dots(float (&s)[R][4], const float *a, const float *b, int D)
{
    constexpr int LD = simt<WIDTH>::LD;
    const float *row = a + simt_y() * LD, *column = b + simt_x() * LD;
#pragma unroll 2
    for (int d = 0; d < D; d += 4) {
        float4 x[R], y[4];
#pragma unroll
        for (int r = 0; r < R; r++)
            x[r] = *(const float4 *)(row + r * 16 * LD + d);
#pragma unroll
        for (int i = 0; i < 4; i++)
            y[i] = *(const float4 *)(column + i * 8 * LD + d);
#pragma unroll
        for (int r = 0; r < R; r++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                s[r][i] =
                    fmaf(x[r].w, y[i].w, fmaf(x[r].z, y[i].z, fmaf(x[r].y, y[i].y, fmaf(x[r].x, y[i].x, s[r][i]))));
    }
}

/* The thread's four columns of row (r, ty) of a tile of scores. The row is
 * read again by lanes of this warp only. */
template <int WIDTH, int R> __device__ __forceinline__ void put_scores(float *to, const float (&s)[R][4])
{
#pragma unroll
    for (int r = 0; r < R; r++)
        *(float4 *)(to + (r * 16 + simt_y()) * simt<WIDTH>::CHUNK_LD + simt_x() * 4) =
            make_float4(s[r][0], s[r][1], s[r][2], s[r][3]);
}

/* Column c of the thread's COLS of a head. */
__device__ __forceinline__ int head_column(int c) { return c / 4 * 32 + simt_x() * 4 + c % 4; }

/* acc[r][c] += sum over j, in rising order, of scores[(r, ty)][j] x[j][c], x a
 * chunk. */
template <int WIDTH, int R>
__device__ __forceinline__ void mix(float (&acc)[R][simt<WIDTH>::COLS], const float *scores, const float *x)
{
    typedef simt<WIDTH> G;
    const float *row = scores + simt_y() * G::CHUNK_LD;
#pragma unroll 2
    for (int j = 0; j < ATTENTION_CHUNK; j += 4) {
        float p[R][4];
#pragma unroll
        for (int r = 0; r < R; r++) {
            float4 v = *(const float4 *)(row + r * 16 * G::CHUNK_LD + j);
            p[r][0] = v.x, p[r][1] = v.y, p[r][2] = v.z, p[r][3] = v.w;
        }
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int c = 0; c < G::COLS; c += 4) {
                float4 v = *(const float4 *)(x + (i * 8 + j / 4) * G::LD + head_column(c));
#pragma unroll
                for (int r = 0; r < R; r++) {
                    acc[r][c] = fmaf(p[r][i], v.x, acc[r][c]);
                    acc[r][c + 1] = fmaf(p[r][i], v.y, acc[r][c + 1]);
                    acc[r][c + 2] = fmaf(p[r][i], v.z, acc[r][c + 2]);
                    acc[r][c + 3] = fmaf(p[r][i], v.w, acc[r][c + 3]);
                }
            }
    }
}

/* The thread's columns of one row of a head, times `by`. */
template <int WIDTH, class T>
__device__ __forceinline__ void store_row(T *to, const float (&acc)[simt<WIDTH>::COLS], float by, int D)
{
#pragma unroll
    for (int c = 0; c < simt<WIDTH>::COLS; c += 4) {
        if (D % 4 == 0) {
            if (head_column(c) < D)
                store4(to + head_column(c),
                       make_float4(acc[c] * by, acc[c + 1] * by, acc[c + 2] * by, acc[c + 3] * by));
            continue;
        }
#pragma unroll
        for (int e = 0; e < 4; e++)
            if (head_column(c + e) < D)
                to[head_column(c + e)] = from_float<T>(acc[c + e] * by);
    }
}

#endif
