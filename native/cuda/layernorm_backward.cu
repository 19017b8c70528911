/* Backward of the layer norm; formulas in native/ref/layernorm.c.
 *
 * dout, x and dx are read once, dx is written; dgain and dbias gather in
 * registers over the rows of a block. Bytes an element, bf16 (fp32): 14 (16),
 * and 16 / rows_a_block for the partial sums. Bound by memory (estimate): two
 * rows at a time give a thread 160 bytes in flight, an SM with five blocks of 96
 * threads 77 kB, and one barrier serves both rows. */
#include "layernorm.cuh"

enum { ROWS = 2, MOST_WARPS = NORM_THREADS / 32 };

template <class T>
static __global__ void __launch_bounds__(NORM_THREADS)
    norm_backward(float *__restrict__ dx, float *__restrict__ partial, const T *__restrict__ dout,
                  const float *__restrict__ x, const float *__restrict__ gain, const float *__restrict__ mean,
                  const float *__restrict__ rstd, int N, int C, int rows_a_block)
{
    /* Sums of g and g n of both rows by warp; two sets, so that a thread may
     * write the next ones while others still read. */
    SHARED(float4, sums, [2][MOST_WARPS]);
    const int c = (int)threadIdx.x * PACKET, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const bool inside = c < C;
    const int first = (int)blockIdx.x * rows_a_block, end = min(first + rows_a_block, N);
    packet weight = {}, dgain = {}, dbias = {};
    if (inside)
        weight = load_packet(gain + c);
    for (int row = first, set = 0; row < end; row += ROWS, set ^= 1) {
        packet d[ROWS], normal[ROWS], to[ROWS];
        float scale[ROWS], g_sum[ROWS] = {}, gn_sum[ROWS] = {};
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            const bool here = inside && row + r < end;
            const size_t at = (size_t)(row + r) * C + c;
            d[r] = normal[r] = to[r] = {};
            scale[r] = 0;
            if (here) {
                d[r] = load_packet(dout + at);
                normal[r] = load_packet(x + at);
                to[r] = load_packet(dx + at);
                scale[r] = rstd[row + r];
                const float m = mean[row + r];
#pragma unroll
                for (int i = 0; i < PACKET; i++)
                    normal[r].at[i] = (normal[r].at[i] - m) * scale[r];
            }
#pragma unroll
            for (int i = 0; i < PACKET; i++) {
                dgain.at[i] = fmaf(d[r].at[i], normal[r].at[i], dgain.at[i]);
                dbias.at[i] += d[r].at[i];
                d[r].at[i] *= weight.at[i];
                g_sum[r] += d[r].at[i];
                gn_sum[r] = fmaf(d[r].at[i], normal[r].at[i], gn_sum[r]);
            }
            g_sum[r] = warp_sum(g_sum[r]);
            gn_sum[r] = warp_sum(gn_sum[r]);
        }
        if (lane == 0)
            sums[set][warp] = make_float4(g_sum[0], gn_sum[0], g_sum[1], gn_sum[1]);
        __syncthreads();
        float4 all = {0, 0, 0, 0};
        for (int w = 0; w < (int)blockDim.x / 32; w++) {
            float4 s = sums[set][w];
            all = make_float4(all.x + s.x, all.y + s.y, all.z + s.z, all.w + s.w);
        }
        const float g_mean[ROWS] = {all.x / (float)C, all.z / (float)C};
        const float gn_mean[ROWS] = {all.y / (float)C, all.w / (float)C};
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            if (inside && row + r < end) {
#pragma unroll
                for (int i = 0; i < PACKET; i++)
                    to[r].at[i] = fmaf(scale[r], d[r].at[i] - g_mean[r] - normal[r].at[i] * gn_mean[r], to[r].at[i]);
                store_packet(dx + (size_t)(row + r) * C + c, to[r]);
            }
    }
    if (inside) {
        store_packet(partial + (size_t)blockIdx.x * 2 * C + c, dgain);
        store_packet(partial + (size_t)blockIdx.x * 2 * C + C + c, dbias);
    }
}

/* dgain and dbias += columns of partial (blocks, 2C). A block has 32 columns,
 * each of 32 threads every 32nd row, and adds the threads in order. */
static __global__ void __launch_bounds__(1024) norm_sum_columns(float *__restrict__ dgain, float *__restrict__ dbias,
                                                                const float *__restrict__ partial, int blocks, int C)
{
    SHARED(float, sums, [32][33]);
    const int lane = threadIdx.x & 31, group = threadIdx.x >> 5, column = (int)blockIdx.x * 32 + lane;
    float sum = 0;
    if (column < 2 * C)
#pragma unroll 4
        for (int k = group; k < blocks; k += 32)
            sum += partial[(size_t)k * 2 * C + column];
    sums[group][lane] = sum;
    __syncthreads();
    if (group != 0 || column >= 2 * C)
        return;
    for (int k = 1; k < 32; k++)
        sum += sums[k][lane];
    float *to = column < C ? dgain + column : dbias + column - C;
    *to += sum;
}

size_t cuda_layernorm_workspace(const backend_limits *limits)
{
    return (size_t)norm_blocks(limits->rows) * 2 * (size_t)limits->stream * sizeof(float);
}

void cuda_layernorm_backward(backend *b, tensor dx, float *dgain, float *dbias, tensor dout, tensor x,
                             const float *gain, const float *mean, const float *rstd)
{
    int N = x.rows, C = x.cols;
    unsigned blocks = norm_blocks(N);
    float *partial = (float *)cuda_workspace(b, (size_t)blocks * 2 * (size_t)C * sizeof(float), __func__);
    if (!partial)
        return;
    if (!norm_by_packets(C, dx.data, dout.data, x.data, gain, partial))
        norm_backward_plain(b, dx, partial, dout, x, gain, mean, rstd);
    else
        cuda_by_type(dout.type, [&](auto *e) {
            typedef typename std::remove_pointer<decltype(e)>::type T;
            LAUNCH((norm_backward<T>), blocks, norm_threads(C), 0, cuda(b)->stream, dx.data, partial,
                   (const T *)dout.data, x.data, gain, mean, rstd, N, C, norm_rows_a_block(N));
        });
    LAUNCH(norm_sum_columns, blocks_for(2 * (size_t)C, 32), 1024, 0, cuda(b)->stream, dgain, dbias, partial,
           (int)blocks, C);
    CUDA_OP_END(b);
}
