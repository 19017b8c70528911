/* Token plus position embedding: out (N,C), wte (V,C), wpe (context,C).
 * A thread makes one packet; bytes an element: 12, of which the 4 of wpe and
 * mostly those of wte come from the L2 cache. Bound by memory (estimate). */
#include "ops.cuh"
#include "dropout.cuh"

enum { THREADS = 256 };

/* A row has ceil(C / 8) packets. */
static __global__ void __launch_bounds__(THREADS)
    embedding_forward(float *__restrict__ out, const float *__restrict__ wte, const float *__restrict__ wpe,
                      const int32_t *__restrict__ tokens, const int32_t *__restrict__ positions, int N, int C,
                      dropout_mask mask, bool aligned)
{
    const unsigned packets = (unsigned)(C + PACKET - 1) / PACKET;
    const size_t index = (size_t)blockIdx.x * THREADS + threadIdx.x;
    const size_t n = index / packets;
    if (n >= (size_t)N)
        return;
    const int c = (int)(index % packets) * PACKET, left = min(C - c, (int)PACKET);
    packet e = load_part(wte + (size_t)tokens[n] * C + c, left, aligned);
    packet p = load_part(wpe + (size_t)positions[n] * C + c, left, aligned);
#pragma unroll
    for (int i = 0; i < PACKET; i++)
        e.at[i] += p.at[i];
    drop_packet(e, mask, n * (size_t)C + c, aligned);
    store_part(out + n * C + c, e, left, aligned);
}

void cuda_embedding_forward(backend *b, tensor out, tensor wte, tensor wpe, const int32_t *tokens,
                            const int32_t *positions, dropout drop)
{
    int N = out.rows, C = out.cols;
    bool aligned = C % PACKET == 0 && all_aligned(out.data, wte.data, wpe.data);
    size_t packets = (size_t)N * (size_t)((C + PACKET - 1) / PACKET);
    LAUNCH(embedding_forward, blocks_for(packets, THREADS), THREADS, 0, cuda(b)->stream, out.data, wte.data, wpe.data,
           tokens, positions, N, C, dropout_mask_of(drop), aligned);
    CUDA_OP_END(b);
}
