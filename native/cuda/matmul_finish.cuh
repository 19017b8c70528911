/* matmul_finish.cuh: the end of a multiplication: eight neighbouring elements
 * of a row at a time, so that every access is 16 bytes wide where rows allow. */
#ifndef CUDA_MATMUL_FINISH_CUH
#define CUDA_MATMUL_FINISH_CUH

#include "gelu.cuh"
#include "matmul.cuh"

/* `count` of 8 elements, the others are 0; wide: 16-byte loads are allowed. */
template <class T> __device__ __forceinline__ void load8(float (&v)[8], const T *from, int count, bool whole)
{
    if (whole) {
        float4 low = load4(from), high = load4(from + 4);
        v[0] = low.x, v[1] = low.y, v[2] = low.z, v[3] = low.w;
        v[4] = high.x, v[5] = high.y, v[6] = high.z, v[7] = high.w;
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; i++)
        v[i] = i < count ? to_float(from[i]) : 0.0f;
}

template <class T> __device__ __forceinline__ void store8(T *to, const float (&v)[8], int count, bool whole)
{
    if (whole) {
        wide<T> w[8 / wide<T>::count];
#pragma unroll
        for (int i = 0; i < 8; i++)
            w[i / wide<T>::count].at[i % wide<T>::count] = from_float<T>(v[i]);
#pragma unroll
        for (int i = 0; i < 8 / wide<T>::count; i++)
            store_wide(to + i * wide<T>::count, w[i]);
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; i++)
        if (i < count)
            to[i] = from_float<T>(v[i]);
}

template <class T>
__device__ __forceinline__ void load8(float (&v)[8], const void *from, size_t at, int type, int count, bool whole)
{
    if (type == TENSOR_F32)
        load8(v, (const float *)from + at, count, whole);
    else
        load8(v, (const T *)from + at, count, whole);
}

template <class T>
__device__ __forceinline__ void store8(void *to, size_t at, int type, const float (&v)[8], int count, bool whole)
{
    if (type == TENSOR_F32)
        store8((float *)to + at, v, count, whole);
    else
        store8((T *)to + at, v, count, whole);
}

/* Elements column .. column + 7 of a row; T: type of activations. */
template <class T>
__device__ __forceinline__ void matmul_finish8(const matmul_problem &p, int row, int column, float (&v)[8])
{
    int count = p.N - column, side_type = sizeof(T) == 2 ? TENSOR_BF16 : TENSOR_F32;
    bool whole = p.out_wide && count >= 8;
    size_t at = (size_t)row * p.N + column;
    float other[8];
    if (p.finish == FINISH_ADD || p.finish == FINISH_SLOPE) {
        bool add = p.finish == FINISH_ADD;
        load8<T>(other, add ? p.out : p.side, at, add ? p.out_type : side_type, count, whole);
#pragma unroll
        for (int i = 0; i < 8; i++)
            v[i] = add ? other[i] + v[i] : v[i] * gelu_slope<T>(other[i]);
    } else if (p.finish == FINISH_GELU) {
        store8((T *)p.side + at, v, count, whole);
#pragma unroll
        for (int i = 0; i < 8; i++) /* of what was stored, as gelu_forward has it */
            v[i] = gelu_value<T>(to_float(from_float<T>(v[i])));
    } else if (p.finish == FINISH_DISCARD) {
        return;
    }
    store8<T>(p.out, at, p.out_type, v, count, whole);
}

/* Where the sums of a block of BACKWARD_WEIGHT's cut go. */
template <class T>
__device__ __forceinline__ void matmul_end8(const matmul_problem &p, int cut, int row, int column, float (&v)[8])
{
    if (p.cuts > 1 && p.finish != FINISH_DISCARD)
        store8(p.parts + ((size_t)cut * p.M + row) * p.N + column, v, p.N - column, p.out_wide && p.N - column >= 8);
    else
        matmul_finish8<T>(p, row, column, v);
}

/* Rows first .. first + ROWS - 1 of a tile of BN columns, which lie in shared
 * memory with rows of PITCH floats, m0 and n0 being the tile's place. */
template <class T, int ROWS, int BN, int PITCH, int THREADS>
__device__ __forceinline__ void matmul_end_rows(const matmul_problem &p, int cut, const float *staged, int m0, int n0)
{
#pragma unroll 1
    for (int c = threadIdx.x; c < ROWS * BN / 8; c += THREADS) {
        int row = c / (BN / 8), column = c % (BN / 8) * 8;
        if (m0 + row >= p.M || n0 + column >= p.N)
            continue;
        float v[8];
        load8(v, staged + row * PITCH + column, 8, true);
        matmul_end8<T>(p, cut, m0 + row, n0 + column, v);
    }
}

/* The sum over K of column `row` of a, of the same cut. */
__device__ __forceinline__ void matmul_end_column(const matmul_problem &p, int cut, int row, float sum)
{
    if (p.finish == FINISH_DISCARD)
        return;
    if (p.cuts > 1)
        p.column_parts[(size_t)cut * p.M + row] = sum;
    else
        p.column_sums[row] += sum;
}

#endif
