/* Attention backward: which kernels, in which order. Formulas in
 * native/ref/attention.c. */
#include "attention_backward_mma.cuh"

/* A block of the prefix has at least PREFIX_QUERIES of them, as many as a story
 * may have; its keys' sums have at most PREFIX_ROWS rows, which for 128 keys are
 * 32 blocks a head. The same cuts on every card: they decide the bits. */
enum { PREFIX_QUERIES = 256, PREFIX_ROWS = 2048 };

static int prefix_cuts(int prefix, int N)
{
    int most = N / PREFIX_QUERIES, room = prefix ? PREFIX_ROWS / prefix : 0, cuts = most < room ? most : room;
    return cuts > 1 ? cuts : 1;
}

static size_t delta_floats(size_t heads, size_t N) { return (heads * N + 63) / 64 * 64; }

size_t cuda_attention_workspace(const backend_limits *limits)
{
    const size_t most = limits->context > PREFIX_ROWS ? (size_t)limits->context : (size_t)PREFIX_ROWS;
    size_t sums = (size_t)limits->context * (size_t)prefix_cuts(1, limits->rows);
    sums = sums < most ? sums : most;
    return (delta_floats((size_t)limits->heads, (size_t)limits->rows) + sums * 2 * (size_t)limits->stream) *
           sizeof(float);
}

/* Sums over the cuts, in rising order. dkv: keys and values of the first row. */
enum { JOIN_THREADS = 256 };

template <class T>
static __global__ void __launch_bounds__(JOIN_THREADS)
    join_prefix(T *__restrict__ dkv, const float *__restrict__ sums, int cuts, int prefix, int C)
{
    const size_t i = (size_t)blockIdx.x * JOIN_THREADS + threadIdx.x, count = (size_t)prefix * 2 * C;
    if (i >= count)
        return;
    float sum = 0;
    for (int cut = 0; cut < cuts; cut++)
        sum += sums[cut * count + i];
    dkv[i / (2 * C) * 3 * C + i % (2 * C)] = from_float<T>(sum);
}

template <int ROWS, class T> static unsigned key_blocks(const backward_arrays<T> &a)
{
    return tile_numbers<ROWS>(a.N, a.rows.stories) + (unsigned)(prefix_tiles(a.rows.prefix, ROWS) * a.cuts);
}

template <class T> static void launch_simt(backend *b, const backward_arrays<T> &a, int heads)
{
    attention_by_width(a.D, [&](auto width) {
        constexpr int WIDTH = decltype(width)::value;
        typedef simt<WIDTH> G;
        const dim3 grid(tile_numbers<G::ROWS>(a.N, a.rows.stories), (unsigned)heads);
        const size_t tiles = 2 * G::ROWS_FLOATS + 2 * G::CHUNK_FLOATS;
        const size_t of_queries = tiles + G::SCORES_FLOATS,
                     of_keys = tiles + 2 * G::SCORES_FLOATS + 2 * ATTENTION_CHUNK;
        LAUNCH((backward_queries_simt<T, WIDTH>), grid, ATTENTION_THREADS, of_queries * sizeof(float), cuda(b)->stream,
               a);
        LAUNCH((backward_keys_simt<T, WIDTH>), dim3(key_blocks<G::ROWS>(a), (unsigned)heads), ATTENTION_THREADS,
               of_keys * sizeof(float), cuda(b)->stream, a);
    });
}

template <int D, bool DROPOUT> static void launch_mma(backend *b, const backward_arrays<bf16> &a, int heads)
{
    typedef backward_mma<D> G;
    const dim3 grid(tile_numbers<MMA_ROWS>(a.N, a.rows.stories), (unsigned)heads);
    LAUNCH((backward_queries_mma<D, DROPOUT>), grid, ATTENTION_THREADS, G::SHARED, cuda(b)->stream, a);
    LAUNCH((backward_keys_mma<D, DROPOUT>), dim3(key_blocks<MMA_ROWS>(a), (unsigned)heads), ATTENTION_THREADS,
           G::SHARED + 4 * G::WIDE * sizeof(float), cuda(b)->stream, a);
}

void cuda_attention_backward(backend *b, tensor dqkv, tensor dout, tensor qkv, tensor out, const float *lse,
                             ragged rows, int heads, dropout drop)
{
    const int N = out.rows, C = out.cols, D = C / heads, cuts = prefix_cuts(rows.prefix, N);
    const size_t deltas = delta_floats((size_t)heads, (size_t)N), sums = (size_t)cuts * rows.prefix * 2 * C;
    float *delta = (float *)cuda_workspace(b, (deltas + sums) * sizeof(float), __func__);
    if (!delta)
        return;
    cuda_by_type(out.type, [&](auto *element) {
        typedef typename std::remove_pointer<decltype(element)>::type T;
        const backward_arrays<T> a = {(T *)dqkv.data,
                                      (const T *)dout.data,
                                      (const T *)qkv.data,
                                      (const T *)out.data,
                                      lse,
                                      delta,
                                      rows,
                                      N,
                                      D,
                                      1 / sqrtf((float)D),
                                      dropout_mask_of(drop),
                                      cuts,
                                      delta + deltas};
        bool done = false;
        if constexpr (std::is_same<T, bf16>::value) {
            done = attention_on_tensor_cores(out.type, D);
            if (done)
                attention_by_width(D, [&](auto width) {
                    if (a.drop.on)
                        launch_mma<decltype(width)::value, true>(b, a, heads);
                    else
                        launch_mma<decltype(width)::value, false>(b, a, heads);
                });
        }
        if (!done)
            launch_simt<T>(b, a, heads);
        if (rows.prefix)
            LAUNCH((join_prefix<T>), blocks_for((size_t)rows.prefix * 2 * C, JOIN_THREADS), JOIN_THREADS, 0,
                   cuda(b)->stream, a.dqkv + C, a.sums, cuts, rows.prefix, C);
    });
    CUDA_OP_END(b);
}
