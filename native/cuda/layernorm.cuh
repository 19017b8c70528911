/* layernorm.cuh: what the layer norm's files share (formulas in
 * native/ref/layernorm.c). Two forms of every kernel:
 *   packets  a block has a row, a thread one packet of it, kept in registers;
 *            for widths that are multiples of 8, at most NORM_WIDEST
 *   plain    any width, element by element
 * Which one serves is a matter of the shape alone, so a row's bits are too. */
#ifndef CUDA_LAYERNORM_CUH
#define CUDA_LAYERNORM_CUH

#include "ops.cuh"
#include "dropout.cuh"
#include "packet.cuh"

enum { NORM_THREADS = 512, NORM_WIDEST = NORM_THREADS * PACKET, NORM_PLAIN_THREADS = 128 };

/* A thread for each packet of a row, in whole warps. */
static inline unsigned norm_threads(int C) { return blocks_for((size_t)C, 32 * PACKET) * 32; }

template <class... Arrays> static inline bool norm_by_packets(int C, Arrays... arrays)
{
    return C % PACKET == 0 && C <= NORM_WIDEST && all_aligned(arrays...);
}

/* dgain and dbias are sums over rows. Blocks sum their rows into `partial`
 * (blocks, 2C), and norm_sum_columns adds the blocks; both orders are fixed by
 * N and C. */
enum { NORM_MOST_BLOCKS = 1024, NORM_LEAST_ROWS = 4 };

static inline int norm_rows_a_block(int N)
{
    int rows = (N + NORM_MOST_BLOCKS - 1) / NORM_MOST_BLOCKS;
    return rows > NORM_LEAST_ROWS ? rows : NORM_LEAST_ROWS;
}

static inline unsigned norm_blocks(int N) { return blocks_for((size_t)N, (unsigned)norm_rows_a_block(N)); }

/* The plain form (layernorm_plain.cu). */
void norm_forward_plain(backend *b, tensor out, float *mean, float *rstd, tensor x, const float *gain,
                        const float *bias, float epsilon);
void norm_backward_plain(backend *b, tensor dx, float *partial, tensor dout, tensor x, const float *gain,
                         const float *mean, const float *rstd);

#endif
