/* Layer normalisation of any width, element by element: for widths that are
 * no multiple of eight, and very wide rows. A row is read up to three times,
 * from cache after the first. */
#include "layernorm.cuh"

template <class T>
static __global__ void __launch_bounds__(NORM_PLAIN_THREADS)
    plain_forward(T *__restrict__ out, float *__restrict__ mean_of, float *__restrict__ rstd_of,
                  const float *__restrict__ x, const float *__restrict__ gain, const float *__restrict__ bias, int C,
                  float epsilon)
{
    SHARED(float, scratch, [32]);
    const float *row = x + (size_t)blockIdx.x * C;
    float sum = 0, squares = 0;
    for (int c = (int)threadIdx.x; c < C; c += NORM_PLAIN_THREADS)
        sum += row[c];
    const float mean = block_sum(sum, scratch) / (float)C;
    for (int c = (int)threadIdx.x; c < C; c += NORM_PLAIN_THREADS)
        squares = fmaf(row[c] - mean, row[c] - mean, squares);
    const float rstd = rsqrtf(block_sum(squares, scratch) / (float)C + epsilon);
    for (int c = (int)threadIdx.x; c < C; c += NORM_PLAIN_THREADS)
        out[(size_t)blockIdx.x * C + c] = from_float<T>(fmaf(__fmul_rn(row[c] - mean, rstd), gain[c], bias[c]));
    if (threadIdx.x == 0) {
        mean_of[blockIdx.x] = mean;
        rstd_of[blockIdx.x] = rstd;
    }
}

void norm_forward_plain(backend *b, tensor out, float *mean, float *rstd, tensor x, const float *gain,
                        const float *bias, float epsilon)
{
    cuda_by_type(out.type, [&](auto *e) {
        typedef typename std::remove_pointer<decltype(e)>::type T;
        LAUNCH((plain_forward<T>), x.rows, NORM_PLAIN_THREADS, 0, cuda(b)->stream, (T *)out.data, mean, rstd, x.data,
               gain, bias, x.cols, epsilon);
    });
}

template <class T>
static __global__ void __launch_bounds__(NORM_PLAIN_THREADS)
    plain_backward(float *__restrict__ dx, const T *__restrict__ dout, const float *__restrict__ x,
                   const float *__restrict__ gain, const float *__restrict__ mean, const float *__restrict__ rstd,
                   int C)
{
    SHARED(float, scratch, [32]);
    const float m = mean[blockIdx.x], r = rstd[blockIdx.x];
    const size_t at = (size_t)blockIdx.x * C;
    float g_sum = 0, gn_sum = 0;
    for (int c = (int)threadIdx.x; c < C; c += NORM_PLAIN_THREADS) {
        float g = to_float(dout[at + c]) * gain[c];
        g_sum += g;
        gn_sum = fmaf(g, (x[at + c] - m) * r, gn_sum);
    }
    const float g_mean = block_sum(g_sum, scratch) / (float)C, gn_mean = block_sum(gn_sum, scratch) / (float)C;
    for (int c = (int)threadIdx.x; c < C; c += NORM_PLAIN_THREADS) {
        float g = to_float(dout[at + c]) * gain[c], normal = (x[at + c] - m) * r;
        dx[at + c] = fmaf(r, g - g_mean - normal * gn_mean, dx[at + c]);
    }
}

/* Sums of dgain and dbias over the rows of blockIdx.x; a thread has a column. */
template <class T>
static __global__ void __launch_bounds__(NORM_PLAIN_THREADS)
    plain_columns(float *__restrict__ partial, const T *__restrict__ dout, const float *__restrict__ x,
                  const float *__restrict__ mean, const float *__restrict__ rstd, int N, int C, int rows_a_block)
{
    const int c = (int)(blockIdx.y * NORM_PLAIN_THREADS + threadIdx.x);
    const int first = (int)blockIdx.x * rows_a_block, end = min(first + rows_a_block, N);
    if (c >= C)
        return;
    float dgain = 0, dbias = 0;
    for (int row = first; row < end; row++) {
        float d = to_float(dout[(size_t)row * C + c]);
        dgain = fmaf(d, (x[(size_t)row * C + c] - mean[row]) * rstd[row], dgain);
        dbias += d;
    }
    partial[(size_t)blockIdx.x * 2 * C + c] = dgain;
    partial[(size_t)blockIdx.x * 2 * C + C + c] = dbias;
}

void norm_backward_plain(backend *b, tensor dx, float *partial, tensor dout, tensor x, const float *gain,
                         const float *mean, const float *rstd)
{
    int N = x.rows, C = x.cols;
    cuda_by_type(dout.type, [&](auto *e) {
        typedef typename std::remove_pointer<decltype(e)>::type T;
        LAUNCH((plain_columns<T>), dim3(norm_blocks(N), blocks_for((size_t)C, NORM_PLAIN_THREADS)), NORM_PLAIN_THREADS,
               0, cuda(b)->stream, partial, (const T *)dout.data, x.data, mean, rstd, N, C, norm_rows_a_block(N));
        LAUNCH((plain_backward<T>), N, NORM_PLAIN_THREADS, 0, cuda(b)->stream, dx.data, (const T *)dout.data, x.data,
               gain, mean, rstd, C);
    });
}
