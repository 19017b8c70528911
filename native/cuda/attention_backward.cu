/* Attention backward: which kernels, in which order. Formulas in
 * native/ref/attention.c. */
#include "attention_backward_mma.cuh"

size_t cuda_attention_workspace(const backend_limits *limits)
{
    return (size_t)limits->heads * (size_t)limits->rows * sizeof(float); /* delta */
}

template <class T> static void launch_simt(backend *b, const backward_arrays<T> &a, int heads)
{
    attention_by_width(a.D, [&](auto width) {
        constexpr int WIDTH = decltype(width)::value;
        typedef simt<WIDTH> G;
        const dim3 grid(tile_numbers<G::ROWS>(a.N, a.stories), (unsigned)heads);
        const size_t tiles = 2 * G::ROWS_FLOATS + 2 * G::CHUNK_FLOATS;
        const size_t of_queries = tiles + G::SCORES_FLOATS,
                     of_keys = tiles + 2 * G::SCORES_FLOATS + 2 * ATTENTION_CHUNK;
        LAUNCH((backward_queries_simt<T, WIDTH>), grid, ATTENTION_THREADS, of_queries * sizeof(float), cuda(b)->stream,
               a);
        LAUNCH((backward_keys_simt<T, WIDTH>), grid, ATTENTION_THREADS, of_keys * sizeof(float), cuda(b)->stream, a);
    });
}

template <int D, bool DROPOUT> static void launch_mma(backend *b, const backward_arrays<bf16> &a, int heads)
{
    typedef backward_mma<D> G;
    const dim3 grid(tile_numbers<MMA_ROWS>(a.N, a.stories), (unsigned)heads);
    LAUNCH((backward_queries_mma<D, DROPOUT>), grid, ATTENTION_THREADS, G::SHARED, cuda(b)->stream, a);
    LAUNCH((backward_keys_mma<D, DROPOUT>), grid, ATTENTION_THREADS, G::SHARED + 4 * G::WIDE * sizeof(float),
           cuda(b)->stream, a);
}

void cuda_attention_backward(backend *b, tensor dqkv, tensor dout, tensor qkv, tensor out, const float *lse,
                             ragged rows, int heads, dropout drop)
{
    const int N = out.rows, D = out.cols / heads;
    float *delta = (float *)cuda_workspace(b, (size_t)heads * (size_t)N * sizeof(float), __func__);
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
                                      rows.offsets,
                                      rows.stories,
                                      N,
                                      D,
                                      1 / sqrtf((float)D),
                                      dropout_mask_of(drop)};
        if constexpr (std::is_same<T, bf16>::value) {
            if (attention_on_tensor_cores(out.type, D)) {
                attention_by_width(D, [&](auto width) {
                    if (a.drop.on)
                        launch_mma<decltype(width)::value, true>(b, a, heads);
                    else
                        launch_mma<decltype(width)::value, false>(b, a, heads);
                });
                return;
            }
        }
        launch_simt<T>(b, a, heads);
    });
    CUDA_OP_END(b);
}
