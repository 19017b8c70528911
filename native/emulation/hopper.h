/* hopper.h: the instructions that native/cuda/hopper.cuh wraps: barriers in
 * shared memory, the tensor memory accelerator (TMA) and wgmma; sections
 * "mbarrier", "Tensors" and "Asynchronous Warpgroup Level Matrix
 * Multiply-Accumulate" of the PTX ISA.
 *
 * Copies of the TMA and products of wgmma happen at the first moment that PTX
 * allows (EMULATION_ASYNC=early), which is at once, or at the last: when no
 * thread can go on without them; until then the accumulators are NaN. The async proxy, by which TMA and wgmma reach
 * shared memory, sees what threads write there at once (early) or by the fence.proxy.async of the writer, which has to
 * stand before the barrier. */
#ifndef EMULATION_HOPPER_H
#define EMULATION_HOPPER_H

#include "runtime.h"
#include "warp.h"

#define __CUDA_ARCH_FEAT_SM90_ALL 1

typedef uint32_t cuuint32_t;
typedef uint64_t cuuint64_t;
enum CUresult { CUDA_SUCCESS = 0, CUDA_ERROR_INVALID_VALUE = 1 };
enum CUtensorMapDataType { CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 = 9 };
enum CUtensorMapInterleave { CU_TENSOR_MAP_INTERLEAVE_NONE };
enum CUtensorMapSwizzle {
    CU_TENSOR_MAP_SWIZZLE_NONE,
    CU_TENSOR_MAP_SWIZZLE_32B,
    CU_TENSOR_MAP_SWIZZLE_64B,
    CU_TENSOR_MAP_SWIZZLE_128B
};
enum CUtensorMapL2promotion { CU_TENSOR_MAP_L2_PROMOTION_L2_256B = 3 };
enum CUtensorMapFloatOOBfill { CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE };

namespace emulation
{
/* A matrix of `slow` rows of `fast` bf16, `pitch` bytes apart, and its boxes. */
struct boxed_matrix {
    const unsigned char *data; /* NULL: not a map */
    uint64_t fast, slow, pitch;
    unsigned box_fast, box_slow, swizzle; /* bytes of a row of the swizzle's pattern, 16: none */
};
} // namespace emulation
struct alignas(64) CUtensorMap {
    emulation::boxed_matrix matrix;
    unsigned char rest[128 - sizeof(emulation::boxed_matrix)];
};

CUresult cuTensorMapEncodeTiled(CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank, void *data,
                                const cuuint64_t *dimensions, const cuuint64_t *strides, const cuuint32_t *box,
                                const cuuint32_t *steps, CUtensorMapInterleave, CUtensorMapSwizzle swizzle,
                                CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

/* A pointer into shared memory of this block as an address of the shared
 * window, or the program ends. */
uint32_t shared_address(const void *p, EMULATION_HERE);

void barrier_make(uint64_t *barrier, int arrivals, EMULATION_HERE);
void barrier_made();
void barrier_arrive(uint64_t *barrier, EMULATION_HERE);
void barrier_announce(uint64_t *barrier, unsigned bytes, EMULATION_HERE);
void barrier_wait(uint64_t *barrier, unsigned parity, EMULATION_HERE);

void tma_load(void *to, const CUtensorMap *map, uint64_t *barrier, int fast, int slow, EMULATION_HERE);
inline void tma_prefetch(const CUtensorMap *) {}
void shared_to_async();

namespace emulation
{
/* d (64, columns) += a b for the thread's part of d, columns / 2 numbers. */
void wgmma(float *d, unsigned columns, uint64_t a, uint64_t b, bool a_slow, bool b_slow, const char *file, int line);
void wgmma_wait(unsigned pending, const char *file, int line);
} // namespace emulation

void wgmma_fence();
void wgmma_commit();
template <int PENDING> inline void wgmma_wait(EMULATION_HERE) { emulation::wgmma_wait(PENDING, file, line); }
template <int COUNT> inline void wgmma_pin(float (&)[COUNT][4]) {}
template <bool A_SLOW, bool B_SLOW>
inline void wgmma_m64n128k16(float (&d)[16][4], uint64_t a, uint64_t b, EMULATION_HERE)
{
    emulation::wgmma(d[0], 128, a, b, A_SLOW, B_SLOW, file, line);
}
template <bool A_SLOW> inline void wgmma_m64n8k16(float (&d)[1][4], uint64_t a, uint64_t b, EMULATION_HERE)
{
    emulation::wgmma(d[0], 8, a, b, A_SLOW, false, file, line);
}

#endif
