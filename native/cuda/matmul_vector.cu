/* matmul_vector.cu: multiplications with one output, the value head. w is the
 * fp32 master; x is of any type; dout is fp32, or of the type of x where other
 * layers have one output. All read x once and are bound by that: 2 C bytes a
 * row of bf16 for 2 C FLOP. */
#include "matmul.cuh"

namespace
{
enum { THREADS = 256, WARPS = THREADS / 32, PARTS = 256 };

/* A warp a row: lane l sums columns l, l + 32, ... in rising order, and the
 * lanes are added as a tree: the same bits whatever the other rows. */
template <class OUT, class X>
static __global__ void __launch_bounds__(THREADS)
    forward(OUT *out, const X *x, const float *w, const float *bias, int rows, int C)
{
    int row = (int)blockIdx.x * WARPS + (threadIdx.x >> 5), lane = threadIdx.x & 31;
    if (row >= rows)
        return;
    const X *from = x + (size_t)row * C;
    float sum = 0;
    for (int c = lane; c < C; c += 32)
        sum = fmaf(to_float(from[c]), w[c], sum);
    sum = warp_sum(sum);
    if (lane == 0)
        out[row] = from_float<OUT>(sum + (bias ? *bias : 0.0f));
}

template <class X, class D>
static __global__ void __launch_bounds__(THREADS)
    backward_input(X *dx, const D *dout, const float *w, int C, size_t count, int accumulate)
{
    size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= count)
        return;
    float before = accumulate ? to_float(dx[i]) : 0.0f;
    dx[i] = from_float<X>(fmaf(to_float(dout[i / C]), w[i % C], before));
}

/* Part of dw: rows first .. first + length - 1 of column c, in rising order;
 * column C is that of the bias, whose x is 1. */
template <class X, class D>
static __global__ void __launch_bounds__(THREADS)
    weight_parts(float *parts, const D *dout, const X *x, int rows, int C, int length)
{
    int c = (int)(blockIdx.x * THREADS + threadIdx.x), first = (int)blockIdx.y * length,
        last = min(first + length, rows);
    if (c > C)
        return;
    float sum = 0;
    for (int r = first; r < last; r++)
        sum = fmaf(to_float(dout[r]), c < C ? to_float(x[(size_t)r * C + c]) : 1.0f, sum);
    parts[(size_t)blockIdx.y * (C + 1) + c] = sum;
}

static __global__ void __launch_bounds__(THREADS)
    weight_join(float *dw, float *dbias, const float *parts, int count, int C)
{
    int c = (int)(blockIdx.x * THREADS + threadIdx.x);
    if (c > C || (c == C && !dbias))
        return;
    float sum = 0;
    for (int p = 0; p < count; p++)
        sum += parts[(size_t)p * (C + 1) + c];
    *(c < C ? dw + c : dbias) += sum;
}
} // namespace

size_t matmul_vector_workspace(const backend_limits *limits)
{
    return (size_t)PARTS * ((size_t)limits->width + 1) * sizeof(float);
}

void matmul_vector_forward(backend *b, tensor out, tensor x, const float *w, const float *bias)
{
    if (!out.rows)
        return;
    cuda_by_type(x.type, [&](auto *e) {
        typedef typename std::remove_pointer<decltype(e)>::type X;
        cuda_by_type(out.type, [&](auto *f) {
            typedef typename std::remove_pointer<decltype(f)>::type OUT;
            LAUNCH((forward<OUT, X>), blocks_for((size_t)out.rows, WARPS), THREADS, 0, cuda(b)->stream, (OUT *)out.data,
                   (const X *)x.data, w, bias, out.rows, x.cols);
        });
    });
    CUDA_OP_END(b);
}

void matmul_vector_backward_input(backend *b, tensor dx, tensor dout, const float *w, int accumulate)
{
    if (!dx.rows)
        return;
    size_t count = tensor_count(dx);
    cuda_by_type(dx.type, [&](auto *e) {
        typedef typename std::remove_pointer<decltype(e)>::type X;
        cuda_by_type(dout.type, [&](auto *f) {
            typedef typename std::remove_pointer<decltype(f)>::type D;
            LAUNCH((backward_input<X, D>), blocks_for(count, THREADS), THREADS, 0, cuda(b)->stream, (X *)dx.data,
                   (const D *)dout.data, w, dx.cols, count, accumulate);
        });
    });
    CUDA_OP_END(b);
}

void matmul_vector_backward_weight(backend *b, float *dw, float *dbias, tensor dout, tensor x)
{
    int C = x.cols, length = (x.rows + PARTS - 1) / PARTS;
    length = length > 32 ? length : 32;
    int count = (x.rows + length - 1) / length;
    float *parts = (float *)cuda_workspace(b, (size_t)count * (C + 1) * sizeof(float), __func__);
    if (!parts)
        return;
    unsigned columns = blocks_for((size_t)C + 1, THREADS);
    cuda_by_type(x.type, [&](auto *e) {
        typedef typename std::remove_pointer<decltype(e)>::type X;
        cuda_by_type(dout.type, [&](auto *f) {
            typedef typename std::remove_pointer<decltype(f)>::type D;
            LAUNCH((weight_parts<X, D>), dim3(columns, (unsigned)count), THREADS, 0, cuda(b)->stream, parts,
                   (const D *)dout.data, (const X *)x.data, x.rows, C, length);
        });
    });
    LAUNCH(weight_join, columns, THREADS, 0, cuda(b)->stream, dw, dbias, parts, count, C);
    CUDA_OP_END(b);
}
