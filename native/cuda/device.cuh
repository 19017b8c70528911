/* device.cuh: the one header that every .cu file includes. Under nvcc it is
 * CUDA; under STUDENT_EMULATION the same source is C++ that runs on the CPU
 * (native/emulation).
 *
 * So that both read the same file, kernels
 *   - are launched by LAUNCH, not by <<<>>>; a kernel with template arguments
 *     stands in parentheses: LAUNCH((scale<float>), blocks, 256, 0, stream, x)
 *   - are `static __global__`, and have blocks of whole warps
 *   - have shared arrays by SHARED(float, tile, [16][17]) and, where the launch
 *     says how much, by DYNAMIC_SHARED(float, tile); both are aligned for
 *     16-byte vectors
 *   - use the wrappers of ptx.cuh instead of asm
 *   - use no constant memory that the host writes, and no dynamic parallelism */
#ifndef CUDA_DEVICE_CUH
#define CUDA_DEVICE_CUH

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef STUDENT_EMULATION

#include "emulation.h"

#define LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                                         \
    emulation::launch_kernel(stream, grid, block, shared_bytes, kernel, __VA_ARGS__)
#define SHARED(type, name, dimensions)                                                                                 \
    typedef type name##_shared dimensions;                                                                             \
    static emulation::shared_array name##_memory;                                                                      \
    name##_shared &name = *(name##_shared *)name##_memory.of_block(sizeof(name##_shared))
#define DYNAMIC_SHARED(type, name) type *name = (type *)emulation::now.shared

#else

#include <cuda_bf16.h>
#include <cuda_runtime.h>

/* A block has 48 KiB of shared memory at most, with the kernel's own arrays and, from
 * sm_90 on, 1 KiB of the driver's in each, unless more is asked for: 96 KiB, which
 * every card has, for all large launches of a kernel alike, so that none takes from
 * another, of a recording or of a second thread, what that one needs. */
template <class K> inline void allow_shared(K *kernel, size_t bytes)
{
    const size_t most = bytes > 96 << 10 ? bytes : 96 << 10;
    if (bytes > 32 << 10)
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)most);
}

/* Errors of a launch are those of cudaGetLastError: see CUDA_OP_END. */
#define LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                                         \
    do {                                                                                                               \
        allow_shared(kernel, shared_bytes);                                                                            \
        kernel<<<grid, block, shared_bytes, stream>>>(__VA_ARGS__);                                                    \
    } while (0)
#define SHARED(type, name, dimensions) __shared__ __align__(16) type name dimensions
#define DYNAMIC_SHARED(type, name)                                                                                     \
    extern __shared__ __align__(128) unsigned char dynamic_shared[];                                                   \
    type *name = (type *)dynamic_shared

#endif

#include "element.cuh"
#include "philox.h"
#include "ptx.cuh"
#include "reduce.cuh"

/* Blocks of `size` that cover `count`. */
__host__ __device__ inline unsigned blocks_for(size_t count, unsigned size)
{
    return (unsigned)((count + size - 1) / size);
}

#endif
