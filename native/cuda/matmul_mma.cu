/* matmul_mma.cu: bf16 multiplications on the tensor cores by mma.sync
 * m16n8k16, fp32 accumulators.
 *
 * A block makes a tile of BM x BN. Slices of BK = 32 along K come to shared
 * memory by cp.async, STAGES - 1 slices ahead; each of the (BM/WM)(BN/WN) warps
 * takes its WM x WN part from there by ldmatrix, transposed where K is not the
 * fast dimension. One barrier a slice: the slot that is filled is the one that
 * all warps have left before the barrier. 16-byte chunks of a row are permuted
 * by its number, so that neither cp.async nor ldmatrix meets a bank twice.
 *
 * Tile 128 x 128: 256 threads, 64 accumulators each, 48 KiB, so two blocks on
 * every multiprocessor from sm_80 on. A slice is 16 KiB read for 1.05 MFLOP:
 * 64 FLOP a byte from L2, where an A100 asks for about 60 (312 TFLOP/s over
 * 5 TB/s) and an H100 with mma.sync for about 110. Estimate, not measured: 75 %
 * of peak on sm_80, 55 % on sm_90 (mma.sync does not reach wgmma's rate). The
 * smaller tiles fill the card where M or N is short: a step of decoding with 64
 * rows reads each weight once and is bound by that. */
#include "matmul_finish.cuh"

namespace
{
constexpr int BK = 32;

/* Element of chunk `chunk` (8 elements) of a row of CHUNKS chunks. Rows of 64
 * bytes share a line of the 32 banks by twos. */
template <int CHUNKS> __device__ __forceinline__ int swizzled(int row, int chunk)
{
    static_assert(CHUNKS % 4 == 0, "rows are multiples of 64 bytes");
    int mask = CHUNKS >= 8 ? row & 7 : row >> 1 & 3;
    return (row * CHUNKS + (chunk ^ mask)) * 8;
}

/* ROWS x CHUNKS chunks to shared memory from rows of `stride` elements; zeros
 * beyond `rows` and `columns`, what is left of the matrix from `from` on (32 bits hold the offset within a
 * slice). */
template <int ROWS, int CHUNKS, int THREADS>
__device__ __forceinline__ void load_slice(bf16 *to, const bf16 *from, int stride, int rows, int columns, int wide_rows)
{
    static_assert(ROWS * CHUNKS % THREADS == 0, "every thread copies as many chunks");
    if (!wide_rows) { /* rows begin anywhere: element by element */
#pragma unroll 1
        for (int e = threadIdx.x; e < ROWS * CHUNKS * 8; e += THREADS) {
            int row = e / (CHUNKS * 8), column = e % (CHUNKS * 8);
            bool there = row < rows && column < columns;
            to[swizzled<CHUNKS>(row, column / 8) + column % 8] =
                there ? from[row * stride + column] : __float2bfloat16(0.0f);
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < ROWS * CHUNKS / THREADS; i++) {
        int c = (int)threadIdx.x + i * THREADS, row = c / CHUNKS, chunk = c % CHUNKS;
        int left = row < rows ? columns - chunk * 8 : 0;
        left = left < 0 ? 0 : left > 8 ? 8 : left;
        const bf16 *chunk_from = from + (left ? row * stride + chunk * 8 : 0);
        cp_async16_zfill(to + swizzled<CHUNKS>(row, chunk), chunk_from, 2 * left);
    }
}

/* Fragment of 16 rows (M) and 16 of K. K_FAST: shared memory holds [BM][BK],
 * otherwise [BK][BM]. */
template <bool K_FAST, int BM> __device__ __forceinline__ void fragment_a(uint32_t (&r)[4], const bf16 *a, int m, int k)
{
    int lane = threadIdx.x & 31;
    if (K_FAST)
        ldmatrix_x4(r, a + swizzled<BK / 8>(m + (lane & 15), k / 8 + (lane >> 4)));
    else
        ldmatrix_x4_trans(r, a + swizzled<BM / 8>(k + (lane & 7) + (lane >> 4 << 3), m / 8 + (lane >> 3 & 1)));
}

/* Two fragments of 8 columns (N) each and 16 of K. */
template <bool K_FAST, int BN> __device__ __forceinline__ void fragment_b(uint32_t (&r)[4], const bf16 *b, int n, int k)
{
    int lane = threadIdx.x & 31;
    if (K_FAST)
        ldmatrix_x4(r, b + swizzled<BK / 8>(n + (lane & 7) + (lane >> 4 << 3), k / 8 + (lane >> 3 & 1)));
    else
        ldmatrix_x4_trans(r, b + swizzled<BN / 8>(k + (lane & 15), n / 8 + (lane >> 4)));
}

template <matmul_form FORM, int BM, int BN, int WM, int WN, int STAGES> struct shape {
    static constexpr int warps_m = BM / WM, warps_n = BN / WN, threads = warps_m * warps_n * 32;
    static constexpr int slice = (BM + BN) * BK; /* elements */
    static constexpr int pitch = BN + 8;         /* floats of a staged row: 8 rows apart are 8 banks apart */
    static constexpr size_t slices_bytes = (size_t)STAGES * slice * 2, staged_bytes = (size_t)WM * pitch * 4;
    static constexpr size_t bytes = slices_bytes > staged_bytes ? slices_bytes : staged_bytes;
};

template <matmul_form FORM, int BM, int BN, int WM, int WN, int STAGES>
static __global__ void __launch_bounds__((BM / WM) * (BN / WN) * 32, BM *BN >= 128 * 128 ? 2 : 3)
    multiply(const matmul_problem p)
{
    typedef shape<FORM, BM, BN, WM, WN, STAGES> S;
    constexpr bool A_K_FAST = FORM != BACKWARD_WEIGHT, B_K_FAST = FORM == FORWARD;
    constexpr int MI = WM / 16, NI = WN / 8;
    DYNAMIC_SHARED(bf16, slices);
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const int warp_m = warp % S::warps_m * WM, warp_n = warp / S::warps_m * WN;
    const matmul_part part = matmul_place<BM, BN>(p);
    const int m0 = part.m0, n0 = part.n0, K = part.K;
    const matmul_slices<bf16, A_K_FAST, BK> a(p.a, p.K, p.M, m0, part.K_first);
    const matmul_slices<bf16, B_K_FAST, BK> b(p.b, p.K, p.N, n0, part.K_first);
    auto load = [&](int slot, int slice) {
        bf16 *to = slices + slot * S::slice;
        int left = K - slice * BK;
        if (left > 0) {
            if (A_K_FAST)
                load_slice<BM, BK / 8, S::threads>(to, a.first + slice * a.step, a.stride, p.M - m0, left, p.a_wide);
            else
                load_slice<BK, BM / 8, S::threads>(to, a.first + slice * a.step, a.stride, left, p.M - m0, p.a_wide);
            to += BM * BK;
            if (B_K_FAST)
                load_slice<BN, BK / 8, S::threads>(to, b.first + slice * b.step, b.stride, p.N - n0, left, p.b_wide);
            else
                load_slice<BK, BN / 8, S::threads>(to, b.first + slice * b.step, b.stride, left, p.N - n0, p.b_wide);
        }
        cp_async_commit();
    };

    float sum[MI][NI][4], column[4] = {};
#pragma unroll
    for (int j = 0; j < NI; j++) {
        int n = n0 + warp_n + j * 8 + (lane & 3) * 2;
        float even = p.bias && n < p.N ? p.bias[n] : 0.0f, odd = p.bias && n + 1 < p.N ? p.bias[n + 1] : 0.0f;
#pragma unroll
        for (int i = 0; i < MI; i++) {
            sum[i][j][0] = sum[i][j][2] = even;
            sum[i][j][1] = sum[i][j][3] = odd;
        }
    }
    /* Column sums of a are a times ones. Of the warps side by side, which read the
     * same a, each makes those of one fragment, in the blocks of the first columns. */
    static_assert(MI <= S::warps_n, "a warp sums one fragment");
    const bool add_columns = FORM == BACKWARD_WEIGHT && p.column_sums && n0 == 0;
    const int mine = warp / S::warps_m;
    const uint32_t ones[2] = {0x3f803f80u, 0x3f803f80u};

    /* Step s multiplies slice s and fetches slice s + STAGES - 1; the first steps
     * only fetch. */
    int slot = 0, filled = 0;
#pragma unroll 1
    for (int s = 1 - STAGES; s * BK < K; s++) {
        if (s >= 0) {
            cp_async_wait<STAGES - 2>();
            __syncthreads();
        }
        load(filled, s + STAGES - 1);
        filled = filled + 1 < STAGES ? filled + 1 : 0;
        if (s < 0)
            continue;
        const bf16 *sa = slices + slot * S::slice, *sb = sa + BM * BK;
        slot = slot + 1 < STAGES ? slot + 1 : 0;
#pragma unroll
        for (int k = 0; k < BK; k += 16) {
            uint32_t fa[MI][4], fb[NI / 2][4];
#pragma unroll
            for (int i = 0; i < MI; i++)
                fragment_a<A_K_FAST, BM>(fa[i], sa, warp_m + i * 16, k);
#pragma unroll
            for (int j = 0; j < NI / 2; j++)
                fragment_b<B_K_FAST, BN>(fb[j], sb, warp_n + j * 16, k);
#pragma unroll
            for (int i = 0; i < MI; i++)
#pragma unroll
                for (int j = 0; j < NI; j++) {
                    const uint32_t pair[2] = {fb[j / 2][j % 2 * 2], fb[j / 2][j % 2 * 2 + 1]};
                    mma_m16n8k16_bf16(sum[i][j], fa[i], pair);
                }
            if (FORM == BACKWARD_WEIGHT && add_columns)
#pragma unroll
                for (int i = 0; i < MI; i++)
                    if (i == mine)
                        mma_m16n8k16_bf16(column, fa[i], ones);
        }
    }

    /* Every column of the product with ones is the sum. */
    if (FORM == BACKWARD_WEIGHT && add_columns && mine < MI && (lane & 3) == 0)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int m = m0 + warp_m + mine * 16 + half * 8 + (lane >> 2);
            if (m < p.M)
                matmul_end_column(p, part.cut, m, column[half * 2]);
        }

    /* The sums pass through shared memory, WM rows at a time, so that rows are
     * stored by 16 bytes. */
    cp_async_wait<0>();
    float *staged = (float *)slices;
#pragma unroll 1
    for (int first = 0; first < BM; first += WM) {
        __syncthreads();
        if (warp_m == first)
#pragma unroll
            for (int i = 0; i < MI; i++)
#pragma unroll
                for (int j = 0; j < NI; j++)
#pragma unroll
                    for (int half = 0; half < 2; half++)
                        store2(staged + (i * 16 + half * 8 + (lane >> 2)) * S::pitch + warp_n + j * 8 + (lane & 3) * 2,
                               make_float2(sum[i][j][half * 2], sum[i][j][half * 2 + 1]));
        __syncthreads();
        matmul_end_rows<bf16, WM, BN, S::pitch, S::threads>(p, part.cut, staged, m0 + first, n0);
    }
}

template <matmul_form FORM, int BM, int BN, int WM, int WN, int STAGES> void launch(backend *b, const matmul_problem *p)
{
    typedef shape<FORM, BM, BN, WM, WN, STAGES> S;
    dim3 grid((unsigned)((p->M + BM - 1) / BM) * (unsigned)((p->N + BN - 1) / BN), (unsigned)p->cuts);
    LAUNCH((multiply<FORM, BM, BN, WM, WN, STAGES>), grid, S::threads, S::bytes, cuda(b)->stream, *p);
}

template <matmul_form FORM> void run_form(backend *b, const matmul_problem *p, int tile)
{
    switch (tile) {
    case 0:
        launch<FORM, 128, 128, 64, 32, 3>(b, p);
        break;
    case 1:
        launch<FORM, 64, 64, 32, 32, 4>(b, p);
        break;
    default:
        launch<FORM, 32, 64, 32, 16, 6>(b, p);
        break;
    }
}

void run(backend *b, const matmul_problem *p, int tile)
{
    matmul_by_form(p, [&](auto form) { run_form<decltype(form)::value>(b, p, tile); });
}

const matmul_tile tiles[] = {{128, 128, 1.0f}, {64, 64, 0.7f}, {32, 64, 0.45f}};
} // namespace

const matmul_variant matmul_mma = {"mma", TENSOR_BF16, true, true, 3, tiles, nullptr, run, nullptr, nullptr};
