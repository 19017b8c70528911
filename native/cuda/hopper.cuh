/* hopper.cuh: the instructions of sm_90a that matmul_wgmma.cu uses: barriers in
 * shared memory, copies of boxes by the tensor memory accelerator (TMA), and
 * multiplications by a warp group. The emulation has its own of the same names
 * (native/emulation/hopper.h), but for the descriptors, which both make here. */
#ifndef CUDA_HOPPER_CUH
#define CUDA_HOPPER_CUH

#include "device.cuh"

/* Descriptors of factors in shared memory (PTX ISA, "Matrix descriptor"): 14 bits
 * each of the address, the leading offset and the stride, all over 16. */

/* Rows of 128 bytes, 16-byte chunks permuted by the row's number as TMA's
 * SWIZZLE_128B leaves them (layout 1 in bits 62-63).
 *   K fast:  rows are of M or N, eight are 1024 bytes; the leading offset is not
 *            used. 16 further along K: 32 bytes.
 *   M or N fast: rows are of K, eight are 1024 bytes; 64 further along M or N are
 *            the leading offset. 16 further along K: 2048 bytes. */
__device__ __forceinline__ uint64_t wgmma_operand(const void *p, unsigned leading)
{
    return (uint64_t)((shared_address(p) & 0x3ffff) >> 4) | (uint64_t)(leading >> 4) << 16 |
           (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}

/* A (16,8) operand all of whose elements are equal: every part of it is the same
 * 128 bytes. */
__device__ __forceinline__ uint64_t wgmma_constant(const void *p) { return (shared_address(p) & 0x3ffff) >> 4; }

#ifndef STUDENT_EMULATION
#include <cuda.h>

/* A barrier turns its phase when `arrivals` arrived and all bytes that were
 * announced have landed. */
__device__ __forceinline__ void barrier_make(uint64_t *barrier, int arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}
/* After barrier_make, before other threads or the TMA use a barrier. */
__device__ __forceinline__ void barrier_made() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
__device__ __forceinline__ void barrier_arrive(uint64_t *barrier)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
__device__ __forceinline__ void barrier_announce(uint64_t *barrier, unsigned bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
                 : "memory");
}
/* Until the phase of this parity is over; a new barrier is in phase 0. */
__device__ __forceinline__ void barrier_wait(uint64_t *barrier, unsigned parity)
{
    asm volatile("{\n"
                 ".reg .pred over;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 over, [%0], %1;\n"
                 "@over bra done;\n"
                 "bra again;\n"
                 "done:\n"
                 "}" ::"r"(shared_address(barrier)),
                 "r"(parity)
                 : "memory");
}

/* The box of `map` whose first element is (fast, slow), to 128-byte rows at `to`
 * (a multiple of 1024); what lies outside of the matrix becomes 0. Its bytes
 * count for the barrier. */
__device__ __forceinline__ void tma_load(void *to, const CUtensorMap *map, uint64_t *barrier, int fast, int slow)
{
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(
            shared_address(to)),
        "l"(map), "r"(fast), "r"(slow), "r"(shared_address(barrier))
        : "memory");
}
__device__ __forceinline__ void tma_prefetch(const CUtensorMap *map)
{
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

/* What threads wrote to shared memory is seen by wgmma and TMA after it. */
__device__ __forceinline__ void shared_to_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

/* Before the first wgmma, and between other uses of accumulators and the next. */
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int PENDING> __device__ __forceinline__ void wgmma_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

/* Pins accumulators to their registers: before the first and after the last
 * wgmma of a pipeline, so that nothing is moved between them. */
template <int COUNT> __device__ __forceinline__ void wgmma_pin(float (&d)[COUNT][4])
{
#pragma unroll
    for (int j = 0; j < COUNT; j++)
        asm volatile("" : "+f"(d[j][0]), "+f"(d[j][1]), "+f"(d[j][2]), "+f"(d[j][3])::"memory");
}

/* d (64,128) += a (64,16) b (16,128). d[j] is the fragment of columns 8j .. 8j+7,
 * laid out as that of mma m16n8k16, the group's warp w having rows 16w .. 16w+15.
 * A_SLOW, B_SLOW: K is not the fast dimension. */
template <bool A_SLOW, bool B_SLOW>
__device__ __forceinline__ void wgmma_m64n128k16(float (&d)[16][4], uint64_t a, uint64_t b)
{
    asm volatile("{\n"
                 ".reg .pred keep;\n"
                 "setp.ne.b32 keep, %68, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, %64, %65, keep, 1, "
                 "1, %66, %67;\n"
                 "}"
                 : "+f"(d[0][0]), "+f"(d[0][1]), "+f"(d[0][2]), "+f"(d[0][3]), "+f"(d[1][0]), "+f"(d[1][1]),
                   "+f"(d[1][2]), "+f"(d[1][3]), "+f"(d[2][0]), "+f"(d[2][1]), "+f"(d[2][2]), "+f"(d[2][3]),
                   "+f"(d[3][0]), "+f"(d[3][1]), "+f"(d[3][2]), "+f"(d[3][3]), "+f"(d[4][0]), "+f"(d[4][1]),
                   "+f"(d[4][2]), "+f"(d[4][3]), "+f"(d[5][0]), "+f"(d[5][1]), "+f"(d[5][2]), "+f"(d[5][3]),
                   "+f"(d[6][0]), "+f"(d[6][1]), "+f"(d[6][2]), "+f"(d[6][3]), "+f"(d[7][0]), "+f"(d[7][1]),
                   "+f"(d[7][2]), "+f"(d[7][3]), "+f"(d[8][0]), "+f"(d[8][1]), "+f"(d[8][2]), "+f"(d[8][3]),
                   "+f"(d[9][0]), "+f"(d[9][1]), "+f"(d[9][2]), "+f"(d[9][3]), "+f"(d[10][0]), "+f"(d[10][1]),
                   "+f"(d[10][2]), "+f"(d[10][3]), "+f"(d[11][0]), "+f"(d[11][1]), "+f"(d[11][2]), "+f"(d[11][3]),
                   "+f"(d[12][0]), "+f"(d[12][1]), "+f"(d[12][2]), "+f"(d[12][3]), "+f"(d[13][0]), "+f"(d[13][1]),
                   "+f"(d[13][2]), "+f"(d[13][3]), "+f"(d[14][0]), "+f"(d[14][1]), "+f"(d[14][2]), "+f"(d[14][3]),
                   "+f"(d[15][0]), "+f"(d[15][1]), "+f"(d[15][2]), "+f"(d[15][3])
                 : "l"(a), "l"(b), "n"((int)A_SLOW), "n"((int)B_SLOW), "r"(1));
}

/* d (64,8) += a (64,16) b (16,8), b a constant. */
template <bool A_SLOW> __device__ __forceinline__ void wgmma_m64n8k16(float (&d)[1][4], uint64_t a, uint64_t b)
{
    asm volatile("{\n"
                 ".reg .pred keep;\n"
                 "setp.ne.b32 keep, %7, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0, %1, %2, %3}, %4, %5, keep, 1, 1, %6, 0;\n"
                 "}"
                 : "+f"(d[0][0]), "+f"(d[0][1]), "+f"(d[0][2]), "+f"(d[0][3])
                 : "l"(a), "l"(b), "n"((int)A_SLOW), "r"(1));
}

#endif
#endif
