/* matmul_wgmma.cu: bf16 multiplications for Hopper (sm_90a), which has twice the
 * rate for a warp group (wgmma) that reads both factors from shared memory.
 *
 * A block makes a tile of 128 x 128. One thread of a ninth warp asks the TMA for
 * slices of BK = 64 along K, four ahead; two groups of four warps multiply 64 x
 * 128 each. A slot passes from one to the other by two barriers: `full` turns
 * when its bytes have landed, `empty` when all eight warps have read it. The TMA
 * writes zeros where the matrix ends, so no kernel code knows edges but that
 * which stores. All three transpositions are flags of the descriptors.
 *
 * 128 + 1 KiB of shared memory, one block on a multiprocessor, 64 accumulators a
 * thread. A slice is 32 KiB for 2.1 MFLOP: 64 FLOP a byte of L2, 15 TB/s at the
 * peak (989 TFLOP/s), which L2 does not give to a single block: neighbouring
 * blocks read the same slices at the same time (matmul_place). Estimate, not
 * measured: 60 % of peak, where mma.sync ends at about 55 %; clusters with
 * multicast and a tile of 128 x 256 would be next.
 *
 * Run under the emulation; on no card so far. */
#include "backend.cuh"
#include "hopper.cuh"
#include "matmul_finish.cuh"

#include <stdio.h>

namespace
{
enum {
    BM = 128,
    BN = 128,
    BK = 64,
    STAGES = 4,
    GROUPS = 2,                  /* of four warps, which multiply */
    THREADS = GROUPS * 128 + 32, /* and one that fetches */
    BOX = 64 * BK * 2,           /* bytes of 64 x 64 elements */
    SLICE_A = BM * BK * 2,       /* bytes */
    SLICE = SLICE_A + BN * BK * 2,
    PITCH = BN + 8, /* floats of a staged row */
    SHARED_BYTES = STAGES * SLICE + 1024,
};

/* What a consumer needs for its slices. */
struct consumer {
    char *slices;
    uint64_t *full, *empty;
    const uint32_t *ones;
    int group, count;
};

template <matmul_form FORM, bool COLUMNS>
__device__ __forceinline__ void multiply_slices(const consumer &c, float (&sum)[16][4], float (&column)[1][4])
{
    constexpr bool A_SLOW = FORM == BACKWARD_WEIGHT, B_SLOW = FORM != FORWARD;
    wgmma_pin(sum);
    wgmma_pin(column);
#pragma unroll 1
    for (int s = 0; s < c.count; s++) {
        const int slot = s % STAGES;
        const char *a = c.slices + slot * SLICE + c.group * BOX, *b = c.slices + slot * SLICE + SLICE_A;
        barrier_wait(&c.full[slot], (unsigned)(s / STAGES & 1));
        wgmma_fence();
#pragma unroll
        for (int k = 0; k < BK / 16; k++) {
            uint64_t fa = wgmma_operand(a + k * (A_SLOW ? 2048 : 32), BOX);
            uint64_t fb = wgmma_operand(b + k * (B_SLOW ? 2048 : 32), BOX);
            wgmma_m64n128k16<A_SLOW, B_SLOW>(sum, fa, fb);
            if (COLUMNS)
                wgmma_m64n8k16<A_SLOW>(column, fa, wgmma_constant(c.ones));
        }
        wgmma_commit();
        /* The other group keeps the tensor cores busy meanwhile. With one slice left
         * under way ptxas moves accumulators and then serializes every wgmma. */
        wgmma_wait<0>();
        if ((threadIdx.x & 31) == 0)
            barrier_arrive(&c.empty[slot]);
    }
    wgmma_pin(sum);
    wgmma_pin(column);
}

template <matmul_form FORM>
static __global__ void __launch_bounds__(THREADS, 1)
    multiply(const matmul_problem p, const __grid_constant__ CUtensorMap map_a,
             const __grid_constant__ CUtensorMap map_b)
{
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    constexpr bool A_SLOW = FORM == BACKWARD_WEIGHT, B_SLOW = FORM != FORWARD;
    DYNAMIC_SHARED(char, memory);
    char *slices = memory + (1024 - (shared_address(memory) & 1023)) % 1024;
    SHARED(uint64_t, full, [STAGES]);
    SHARED(uint64_t, empty, [STAGES]);
    SHARED(uint32_t, ones, [32]);
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const matmul_part part = matmul_place<BM, BN>(p);
    const int m0 = part.m0, n0 = part.n0, count = (part.K + BK - 1) / BK;

    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_make(&full[i], 1);
            barrier_make(&empty[i], GROUPS * 4);
        }
        barrier_made();
    }
    if (warp == 0) {
        ones[lane] = 0x3f803f80u;
        shared_to_async();
    }
    __syncthreads();

    const bool fetches = warp == GROUPS * 4, add_columns = FORM == BACKWARD_WEIGHT && p.column_sums && n0 == 0;
    float sum[16][4] = {}, column[1][4] = {};
    if (fetches) {
        if (lane == 0)
            for (int s = 0; s < count; s++) {
                const int slot = s % STAGES, k = part.K_first + s * BK;
                char *a = slices + slot * SLICE, *b = a + SLICE_A;
                if (s >= STAGES)
                    barrier_wait(&empty[slot], (unsigned)((s / STAGES - 1) & 1));
                barrier_announce(&full[slot], SLICE);
                if (A_SLOW) {
                    tma_load(a, &map_a, &full[slot], m0, k);
                    tma_load(a + BOX, &map_a, &full[slot], m0 + 64, k);
                } else {
                    tma_load(a, &map_a, &full[slot], k, m0);
                }
                if (B_SLOW) {
                    tma_load(b, &map_b, &full[slot], n0, k);
                    tma_load(b + BOX, &map_b, &full[slot], n0 + 64, k);
                } else {
                    tma_load(b, &map_b, &full[slot], k, n0);
                }
            }
        __syncwarp();
    } else {
#pragma unroll
        for (int j = 0; j < 16; j++) {
            int n = n0 + j * 8 + (lane & 3) * 2;
            sum[j][0] = sum[j][2] = p.bias && n < p.N ? p.bias[n] : 0.0f;
            sum[j][1] = sum[j][3] = p.bias && n + 1 < p.N ? p.bias[n + 1] : 0.0f;
        }
        const consumer c = {slices, full, empty, ones, warp / 4, count};
        if (FORM == BACKWARD_WEIGHT && add_columns)
            multiply_slices<FORM, FORM == BACKWARD_WEIGHT>(c, sum, column);
        else
            multiply_slices<FORM, false>(c, sum, column);
    }
    __syncthreads(); /* all slices have been read: the sums take their place */
    if (!fetches) {
        float *staged = (float *)slices;
        const int row = warp * 16 + (lane >> 2);
#pragma unroll
        for (int j = 0; j < 16; j++)
#pragma unroll
            for (int half = 0; half < 2; half++)
                store2(staged + (row + half * 8) * PITCH + j * 8 + (lane & 3) * 2,
                       make_float2(sum[j][half * 2], sum[j][half * 2 + 1]));
        if (add_columns && (lane & 3) == 0)
            for (int half = 0; half < 2; half++)
                if (m0 + row + half * 8 < p.M)
                    matmul_end_column(p, part.cut, m0 + row + half * 8, column[0][half * 2]);
    }
    __syncthreads();
    matmul_end_rows<bf16, BM, BN, PITCH, THREADS>(p, part.cut, (const float *)slices, m0, n0);
#else
    __trap(); /* code for another card than sm_90a: open() refuses */
#endif
}

typedef decltype(&cuTensorMapEncodeTiled) encode_function;

/* A dense matrix of `slow` rows of `fast` elements, read in boxes of 64 x rows. */
bool describe(encode_function encode, CUtensorMap *map, const void *data, int fast, int slow, unsigned rows)
{
    cuuint64_t dimensions[2] = {(cuuint64_t)fast, (cuuint64_t)slow}, stride[1] = {(cuuint64_t)fast * 2};
    cuuint32_t box[2] = {64, rows}, step[2] = {1, 1};
    return encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, (void *)data, dimensions, stride, box, step,
                  CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                  CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

template <matmul_form FORM> void launch(backend *b, const matmul_problem *p)
{
    constexpr bool A_SLOW = FORM == BACKWARD_WEIGHT, B_SLOW = FORM != FORWARD;
    encode_function encode = (encode_function)cuda(b)->matmul.encode;
    CUtensorMap a, y;
    if (!describe(encode, &a, p->a, A_SLOW ? p->M : p->K, A_SLOW ? p->K : p->M, A_SLOW ? BK : BM) ||
        !describe(encode, &y, p->b, B_SLOW ? p->N : p->K, B_SLOW ? p->K : p->N, B_SLOW ? BK : BN)) {
        cuda_note(b, cudaErrorInvalidValue, "matmul wgmma: a tensor map");
        return;
    }
    dim3 grid((unsigned)((p->M + BM - 1) / BM) * (unsigned)((p->N + BN - 1) / BN), (unsigned)p->cuts);
    LAUNCH((multiply<FORM>), grid, THREADS, SHARED_BYTES, cuda(b)->stream, *p, a, y);
}

void run(backend *b, const matmul_problem *p, int)
{
    matmul_by_form(p, [&](auto form) { launch<decltype(form)::value>(b, p); });
}

int open(backend *b, char *message, size_t capacity)
{
    cuda_state *s = cuda(b);
    cudaDriverEntryPointQueryResult found;
    if (s->architecture != 90) {
        snprintf(message, capacity, "cuda: matmul=wgmma needs a card of sm_90, not %s", s->device_name);
        return STUDENT_E_CAPABILITY;
    }
    if (!strstr(cuda_architectures(), "sm_90a")) {
        snprintf(message, capacity, "cuda: matmul=wgmma needs kernels for sm_90a; this library has those for %s",
                 cuda_architectures());
        return STUDENT_E_CAPABILITY;
    }
    if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &s->matmul.encode, 12000, cudaEnableDefault,
                                         &found) != cudaSuccess ||
        found != cudaDriverEntryPointSuccess) {
        cudaGetLastError();
        snprintf(message, capacity, "cuda: matmul=wgmma: the driver has no cuTensorMapEncodeTiled");
        return STUDENT_E_CAPABILITY;
    }
    return STUDENT_OK;
}

/* The TMA wants rows at multiples of 16 bytes. */
bool takes(const matmul_problem *p) { return p->a_wide && p->b_wide; }
} // namespace

const matmul_variant matmul_wgmma = {"wgmma", TENSOR_BF16, true, true, 0, nullptr, takes, run, open, nullptr};
