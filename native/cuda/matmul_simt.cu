/* matmul_simt.cu: fp32 multiplications by fused multiply-adds: the mode of
 * parity, and the variant that any card runs.
 *
 * A block makes a tile of BM x BN, a thread TM x 8 neighbouring elements of it.
 * Slices of BK along K lie in shared memory as [k][row], twice: while one is
 * multiplied the next is on its way in registers. A lane's place in its warp (8 x
 * 4 threads) is such that a quarter of the warp reads four places of b that are 8
 * floats apart, and two of a: no bank is met twice.
 *
 * Tile 64 x 128: 128 threads of 8 x 8 elements, at most 168 registers, 17 KiB:
 * three blocks on a multiprocessor (128 x 128 by 256 threads spills at the 128
 * registers that two blocks leave). For each k a thread reads 4 times 16 bytes of
 * shared memory for 64 multiply-adds; a block reads 768 bytes of L2 for 16 kFLOP:
 * 21 FLOP a byte, 0.9 TB/s at the peak of an A100 (19.5 TFLOP/s), 3.1 TB/s at
 * that of an H100 (67). Estimate, not measured: 75 % of the fp32 peak, bound by
 * issue and shared memory. */
#include "matmul_finish.cuh"

namespace
{
enum { TN = 8 };

/* A slice of ROWS x BK on its way: vectors of 4 along the fast dimension. */
template <int ROWS, int BK, int THREADS> struct slice {
    static constexpr int vectors = ROWS * BK / 4 / THREADS, pitch = ROWS + 4;
    float4 v[vectors];

    /* K_FAST: memory is [row][K], otherwise [k][row]; zeros outside. */
    template <bool K_FAST>
    __device__ __forceinline__ void load(const float *from, int stride, int rows, int depth, int wide_rows)
    {
#pragma unroll
        for (int i = 0; i < vectors; i++) {
            int at = (int)threadIdx.x + i * THREADS;
            int slow = K_FAST ? at / (BK / 4) : at / (ROWS / 4), fast = at % (K_FAST ? BK / 4 : ROWS / 4) * 4;
            int left = slow < (K_FAST ? rows : depth) ? (K_FAST ? depth : rows) - fast : 0;
            const float *vector = from + (slow * stride + fast); /* 32 bits hold a slice */
            v[i] = make_float4(0, 0, 0, 0);
            if (wide_rows && left >= 4) {
                v[i] = load4(vector);
            } else {
                v[i].x = left > 0 ? vector[0] : 0.0f;
                v[i].y = left > 1 ? vector[1] : 0.0f;
                v[i].z = left > 2 ? vector[2] : 0.0f;
                v[i].w = left > 3 ? vector[3] : 0.0f;
            }
        }
    }

    template <bool K_FAST> __device__ __forceinline__ void store(float *to) const
    {
#pragma unroll
        for (int i = 0; i < vectors; i++) {
            int at = (int)threadIdx.x + i * THREADS;
            if (K_FAST) {
                float *column = to + at % (BK / 4) * 4 * pitch + at / (BK / 4);
                column[0] = v[i].x;
                column[pitch] = v[i].y;
                column[2 * pitch] = v[i].z;
                column[3 * pitch] = v[i].w;
            } else {
                store4(to + at / (ROWS / 4) * pitch + at % (ROWS / 4) * 4, v[i]);
            }
        }
    }
};

template <matmul_form FORM, int BM, int BN, int BK, int TM>
static __global__ void __launch_bounds__(BM *BN / TM / TN, TM == 8 ? 3 : 4) multiply(const matmul_problem p)
{
    constexpr int THREADS = BM * BN / TM / TN, WARPS_N = BN / (8 * TN);
    constexpr bool A_K_FAST = FORM != BACKWARD_WEIGHT, B_K_FAST = FORM == FORWARD;
    typedef slice<BM, BK, THREADS> slice_a;
    typedef slice<BN, BK, THREADS> slice_b;
    constexpr int SIZE_A = BK * slice_a::pitch, SIDE = SIZE_A + BK * slice_b::pitch;
    constexpr int ROWS = 4 * TM, PITCH = BN + 8; /* rows of a warp; a staged row */
    SHARED(float, shared, [2 * SIDE > ROWS * PITCH ? 2 * SIDE : ROWS * PITCH]);
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const int m = (warp / WARPS_N * 4 + (lane >> 2 & 1) + (lane >> 3 & 2)) * TM;
    const int n = (warp % WARPS_N * 8 + (lane & 3) + (lane >> 1 & 4)) * TN;
    const matmul_part part = matmul_place<BM, BN>(p);
    const int m0 = part.m0, n0 = part.n0, K = part.K;
    matmul_slices<float, A_K_FAST, BK> a(p.a, p.K, p.M, m0, part.K_first);
    matmul_slices<float, B_K_FAST, BK> b(p.b, p.K, p.N, n0, part.K_first);

    float sum[TM][TN], column = 0;
#pragma unroll
    for (int j = 0; j < TN; j++) {
        float bias = p.bias && n0 + n + j < p.N ? p.bias[n0 + n + j] : 0.0f;
#pragma unroll
        for (int i = 0; i < TM; i++)
            sum[i][j] = bias;
    }
    /* Column sums of a: of the eight threads side by side, which read the same a,
     * each makes one, in the blocks of the first columns. */
    static_assert(TM <= 8, "a thread sums one row");
    const bool add_columns = FORM == BACKWARD_WEIGHT && p.column_sums && n0 == 0 && n < 8 * TN;
    const int mine = n / TN;

    slice_a next_a = {};
    slice_b next_b = {};
    int side = 0; /* of the slice that is multiplied */
    auto multiply_slice = [&] {
#pragma unroll
        for (int k = 0; k < BK; k++) {
            float x[TM], y[TN];
#pragma unroll
            for (int i = 0; i < TM; i += 4) {
                float4 v = load4(shared + side + k * slice_a::pitch + m + i);
                x[i] = v.x, x[i + 1] = v.y, x[i + 2] = v.z, x[i + 3] = v.w;
            }
#pragma unroll
            for (int j = 0; j < TN; j += 4) {
                float4 v = load4(shared + side + SIZE_A + k * slice_b::pitch + n + j);
                y[j] = v.x, y[j + 1] = v.y, y[j + 2] = v.z, y[j + 3] = v.w;
            }
#pragma unroll
            for (int i = 0; i < TM; i++)
#pragma unroll
                for (int j = 0; j < TN; j++)
                    sum[i][j] = fmaf(x[i], y[j], sum[i][j]);
            if (FORM == BACKWARD_WEIGHT && add_columns)
#pragma unroll
                for (int i = 0; i < TM; i++)
                    column += i == mine ? x[i] : 0.0f;
        }
    };
#pragma unroll 1
    for (int k0 = -BK; k0 < K; k0 += BK) {
        const int left = K - k0 - BK;
        if (left > 0) {
            next_a.template load<A_K_FAST>(a.first, a.stride, p.M - m0, left, p.a_wide);
            next_b.template load<B_K_FAST>(b.first, b.stride, p.N - n0, left, p.b_wide);
            a.first += a.step;
            b.first += b.step;
        }
        if (k0 >= 0)
            multiply_slice();
        if (left > 0) {
            side = SIDE - side;
            next_a.template store<A_K_FAST>(shared + side);
            next_b.template store<B_K_FAST>(shared + side + SIZE_A);
            __syncthreads();
        }
    }

    if (FORM == BACKWARD_WEIGHT && add_columns && mine < TM && m0 + m + mine < p.M)
        matmul_end_column(p, part.cut, m0 + m + mine, column);
    /* The sums pass through shared memory, the rows of a warp at a time, so that
     * neighbouring threads store neighbouring elements. */
#pragma unroll 1
    for (int first = 0; first < BM; first += ROWS) {
        __syncthreads();
        if (warp / WARPS_N * ROWS == first)
#pragma unroll
            for (int i = 0; i < TM; i++)
                store8(shared + (m - first + i) * PITCH + n, sum[i], 8, true);
        __syncthreads();
        matmul_end_rows<float, ROWS, BN, PITCH, THREADS>(p, part.cut, shared, m0 + first, n0);
    }
}

template <matmul_form FORM, int BM, int BN, int BK, int TM> void launch(backend *b, const matmul_problem *p)
{
    dim3 grid((unsigned)((p->M + BM - 1) / BM) * (unsigned)((p->N + BN - 1) / BN), (unsigned)p->cuts);
    LAUNCH((multiply<FORM, BM, BN, BK, TM>), grid, BM * BN / TM / TN, 0, cuda(b)->stream, *p);
}

template <matmul_form FORM> void run_form(backend *b, const matmul_problem *p, int tile)
{
    if (tile == 0)
        launch<FORM, 64, 128, 8, 8>(b, p);
    else if (tile == 1)
        launch<FORM, 64, 64, 16, 4>(b, p);
    else
        launch<FORM, 32, 64, 16, 4>(b, p);
}

void run(backend *b, const matmul_problem *p, int tile)
{
    matmul_by_form(p, [&](auto form) { run_form<decltype(form)::value>(b, p, tile); });
}

const matmul_tile tiles[] = {{64, 128, 1.0f}, {64, 64, 0.8f}, {32, 64, 0.6f}};
} // namespace

const matmul_variant matmul_simt = {"simt", TENSOR_F32, true, true, 3, tiles, nullptr, run, nullptr, nullptr};
