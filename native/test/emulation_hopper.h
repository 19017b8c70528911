/* emulation_hopper.h: sums of rows by TMA and wgmma, right, and with one bug
 * each. */
#ifndef TEST_EMULATION_HOPPER_H
#define TEST_EMULATION_HOPPER_H

#include "emulation_cases.h"
#include "hopper.cuh"

enum row_sums_bug {
    RIGHT,
    RESULT_TOO_EARLY,
    WRITTEN_MEANWHILE,
    NEVER_WAITED,
    NO_FENCE,
    NO_PROXY_FENCE,
    THREE_WARPS,
    MISALIGNED,
    OTHER_SWIZZLE,
    OTHER_STRIDE,
    FEWER_BYTES,
    MORE_BYTES,
    BOX_TOO_EARLY,
    OTHER_PARITY,
    SLOT_TOO_EARLY,
    BARRIER_UNFENCED,
};

/* The matrix ends within the last slice, of columns and of rows. Of each slice
 * of 64 columns the first 32 are added: a chunk in the wrong place shows. */
enum { SUM_ROWS = 60, SUM_COLUMNS = 272, SUM_SLICES = 5, SUM_SLOTS = 2, SUM_SLOT = 64 * 64 * 2 };

static float summand(int row, int column) { return (float)((row * 7 + column * 3) % 11 - 5); }
static int row_sum(int row)
{
    float sum = 0;
    for (int k = 0; row < SUM_ROWS && k < SUM_COLUMNS; k++)
        sum += k % 64 < 32 ? summand(row, k) : 0;
    return (int)sum;
}

template <row_sums_bug BUG> static __global__ void row_sums(float *out, const __grid_constant__ CUtensorMap map)
{
    DYNAMIC_SHARED(char, memory);
    char *slots = memory + (BUG == MISALIGNED ? 0 : (1024 - (shared_address(memory) & 1023)) % 1024);
    SHARED(uint64_t, full, [SUM_SLOTS]);
    SHARED(uint64_t, empty, [SUM_SLOTS]);
    SHARED(uint32_t, ones, [32]);
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    if (threadIdx.x == 0) {
        for (int i = 0; i < SUM_SLOTS; i++) {
            barrier_make(&full[i], 1);
            barrier_make(&empty[i], 4);
        }
        if (BUG != BARRIER_UNFENCED)
            barrier_made();
    }
    if (warp == 0) {
        ones[lane] = 0x3f803f80u;
        if (BUG != NO_PROXY_FENCE)
            shared_to_async();
    }
    __syncthreads();
    if (warp == 4) {
        for (int s = 0; lane == 0 && s < SUM_SLICES; s++) {
            const int slot = s % SUM_SLOTS;
            if (s >= SUM_SLOTS)
                barrier_wait(&empty[slot], (unsigned)((s / SUM_SLOTS - 1) & 1));
            barrier_announce(&full[slot], BUG == FEWER_BYTES  ? SUM_SLOT / 2
                                          : BUG == MORE_BYTES ? SUM_SLOT * 2
                                                              : SUM_SLOT);
            tma_load(slots + slot * SUM_SLOT, &map, &full[slot], s * 64, 0);
        }
        return;
    }
    float sum[1][4] = {};
    for (int s = 0; s < SUM_SLICES; s++) {
        const int slot = s % SUM_SLOTS;
        if (BUG != BOX_TOO_EARLY)
            barrier_wait(&full[slot], (unsigned)(s / SUM_SLOTS & 1) ^ (BUG == OTHER_PARITY));
        if (BUG != NO_FENCE)
            wgmma_fence();
        for (int k = 0; k < 2; k++) {
            uint64_t rows = wgmma_operand(slots + slot * SUM_SLOT + k * 32, 0);
            if (BUG == OTHER_STRIDE)
                rows ^= (uint64_t)(1024 >> 4 ^ 512 >> 4) << 32;
            if (BUG != THREE_WARPS || warp < 3)
                wgmma_m64n8k16<false>(sum, rows, wgmma_constant(ones));
        }
        wgmma_commit();
        if (BUG == SLOT_TOO_EARLY && lane == 0)
            barrier_arrive(&empty[slot]);
        if (BUG == WRITTEN_MEANWHILE && s == SUM_SLICES - 1)
            *behind(sum[0], 1) = 0; /* of a column that nothing reads */
        if ((BUG != RESULT_TOO_EARLY && BUG != NEVER_WAITED) || s < SUM_SLICES - 1)
            wgmma_wait<0>();
        if (BUG != SLOT_TOO_EARLY && lane == 0)
            barrier_arrive(&empty[slot]);
    }
    if ((lane & 3) == 0) {
        out[warp * 16 + (lane >> 2)] = *behind(sum[0], 0);
        out[warp * 16 + (lane >> 2) + 8] = *behind(sum[0], 2);
    }
    if (BUG == RESULT_TOO_EARLY)
        wgmma_wait<0>();
}

template <row_sums_bug BUG> static bool case_row_sums(place p)
{
    static bf16 values[SUM_ROWS * SUM_COLUMNS];
    for (int i = 0; i < SUM_ROWS * SUM_COLUMNS; i++)
        values[i] = from_float<bf16>(summand(i / SUM_COLUMNS, i % SUM_COLUMNS));
    bf16 *matrix = nullptr;
    cudaMalloc(&matrix, sizeof values);
    cudaMemcpy(matrix, values, sizeof values, cudaMemcpyHostToDevice);
    CUtensorMap map;
    cuuint64_t dimensions[2] = {SUM_COLUMNS, SUM_ROWS}, stride[1] = {SUM_COLUMNS * 2};
    cuuint32_t box[2] = {64, 64}, step[2] = {1, 1};
    if (cuTensorMapEncodeTiled(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, matrix, dimensions, stride, box, step,
                               CU_TENSOR_MAP_INTERLEAVE_NONE,
                               BUG == OTHER_SWIZZLE ? CU_TENSOR_MAP_SWIZZLE_NONE : CU_TENSOR_MAP_SWIZZLE_128B,
                               CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) != CUDA_SUCCESS)
        return false;
    LAUNCH((row_sums<BUG>), 1, 160, SUM_SLOTS * SUM_SLOT + 1024, p.stream, p.out, map);
    bool fine = all_are(p, row_sum);
    cudaFree(matrix);
    return fine;
}

#endif
