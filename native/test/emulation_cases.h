/* emulation_cases.h: kernels with one bug each, and correct ones beside them.
 * A case fills out[THREADS] on the device and says whether that is right. */
#ifndef TEST_EMULATION_CASES_H
#define TEST_EMULATION_CASES_H

#include "device.cuh"

enum { THREADS = 64 };

typedef struct {
    cudaStream_t stream;
    float *out;    /* [THREADS], of NaN */
    float *in;     /* [THREADS], i */
    float *pinned; /* [THREADS], zeros */
} place;

static float host[THREADS];

static void fetch(place p) { cudaMemcpy(host, p.out, sizeof host, cudaMemcpyDeviceToHost); }

template <class F> static bool all_are(place p, F expected)
{
    cudaStreamSynchronize(p.stream);
    fetch(p);
    for (int i = 0; i < THREADS; i++)
        if (!(host[i] == (float)expected(i)))
            return false;
    return cudaGetLastError() == cudaSuccess;
}

/* A call the compiler cannot see through: it would warn of the overrun. */
template <class T> __attribute__((noinline)) T *behind(T *p, int i) { return p + i; }

static __global__ void missing_barrier(float *out)
{
    SHARED(float, s, [THREADS]);
    s[threadIdx.x] = (float)threadIdx.x;
    out[threadIdx.x] = s[threadIdx.x ^ 32];
}
static bool case_missing_barrier(place p)
{
    LAUNCH(missing_barrier, 1, THREADS, 0, p.stream, p.out);
    return all_are(p, [](int i) { return i ^ 32; });
}

static __global__ void overwritten(float *out)
{
    SHARED(float, s, [THREADS]);
    s[threadIdx.x] = 1;
    __syncthreads();
    float below = threadIdx.x ? s[threadIdx.x - 1] : 1; /* a barrier is missing after this */
    s[threadIdx.x] = 2;
    out[threadIdx.x] = below;
}
static bool case_overwritten(place p)
{
    LAUNCH(overwritten, 1, THREADS, 0, p.stream, p.out);
    return all_are(p, [](int) { return 1; });
}

static __global__ void warp_race(float *out)
{
    SHARED(float, s, [THREADS]);
    s[threadIdx.x] = (float)threadIdx.x;
    out[threadIdx.x] = s[threadIdx.x ^ 1]; /* lanes of one warp: __syncwarp is missing */
}
static bool case_warp_race(place p)
{
    LAUNCH(warp_race, 1, THREADS, 0, p.stream, p.out);
    return all_are(p, [](int i) { return i ^ 1; });
}

static __global__ void divergent(float *out)
{
    if (threadIdx.x < 32) {
        __syncthreads();
        out[threadIdx.x] = 1;
    } else {
        out[threadIdx.x] = 1;
        __syncthreads();
    }
}
static bool case_divergent(place p)
{
    LAUNCH(divergent, 1, THREADS, 0, p.stream, p.out);
    return all_are(p, [](int) { return 1; });
}

static __global__ void barrier_of_some(float *out)
{
    SHARED(float, s, [THREADS]);
    s[threadIdx.x] = 1;
    if (threadIdx.x >= 32)
        __syncwarp(0x1); /* 31 lanes are not in the mask */
    __syncthreads();
    out[threadIdx.x] = s[threadIdx.x];
}
static bool case_barrier_of_some(place p)
{
    LAUNCH(barrier_of_some, 1, THREADS, 0, p.stream, p.out);
    return all_are(p, [](int) { return 1; });
}

static __global__ void absent_lanes(float *out)
{
    float v = 1;
    if (threadIdx.x & 1)
        v = __shfl_xor_sync(FULL_WARP, v, 2);
    out[threadIdx.x] = v;
}
static bool case_absent_lanes(place p)
{
    LAUNCH(absent_lanes, 1, THREADS, 0, p.stream, p.out);
    return all_are(p, [](int) { return 1; });
}

static __global__ void exited_lanes(float *out)
{
    out[threadIdx.x] = 1;
    if (threadIdx.x == 3)
        return;
    __syncwarp();
}
static bool case_exited_lanes(place p)
{
    LAUNCH(exited_lanes, 1, THREADS, 0, p.stream, p.out);
    return all_are(p, [](int) { return 1; });
}

/* Copies two groups of 16 bytes a thread and leaves PENDING under way when it reads. */
template <int PENDING> static __global__ void staged(float *out, const float *in)
{
    SHARED(float, s, [THREADS]);
    if (threadIdx.x < THREADS / 8)
        cp_async16(&s[4 * threadIdx.x], in + 4 * threadIdx.x);
    cp_async_commit();
    if (threadIdx.x < THREADS / 8)
        cp_async16(&s[THREADS / 2 + 4 * threadIdx.x], in + THREADS / 2 + 4 * threadIdx.x);
    cp_async_commit();
    cp_async_wait<PENDING>();
    __syncthreads();
    out[threadIdx.x] = s[threadIdx.x];
    cp_async_wait<0>();
}
static bool case_wait_forgotten(place p)
{
    LAUNCH((staged<1>), 1, THREADS, 0, p.stream, p.out, p.in);
    return all_are(p, [](int i) { return i; });
}
static bool case_waited(place p)
{
    LAUNCH((staged<0>), 1, THREADS, 0, p.stream, p.out, p.in);
    return all_are(p, [](int i) { return i; });
}

static __global__ void copied_too_early(float *out, const float *in)
{
    SHARED(float, s, [THREADS]);
    s[threadIdx.x] = -1;
    __syncthreads();
    float before = s[threadIdx.x / 4 * 4]; /* a barrier is missing after this */
    if (threadIdx.x % 4 == 0)
        cp_async16(&s[(threadIdx.x + 4) % THREADS], in);
    cp_async_commit();
    __syncthreads();
    cp_async_wait<0>();
    out[threadIdx.x] = before;
}
static bool case_copied_too_early(place p)
{
    LAUNCH(copied_too_early, 1, THREADS, 0, p.stream, p.out, p.in);
    return all_are(p, [](int) { return -1; });
}

static __global__ void never_waited(float *out, const float *in)
{
    SHARED(float, s, [THREADS]);
    cp_async16(&s[threadIdx.x / 4 * 4], in);
    out[threadIdx.x] = 1;
}
static bool case_never_waited(place p)
{
    LAUNCH(never_waited, 1, THREADS, 0, p.stream, p.out, p.in);
    return all_are(p, [](int) { return 1; });
}

static __global__ void misaligned_rows(float *out)
{
    SHARED(bf16, s, [32 * 12]);
    for (int i = (int)threadIdx.x; i < 32 * 12; i += THREADS)
        s[i] = from_float<bf16>(0);
    __syncthreads();
    uint32_t r[4];
    ldmatrix_x4(r, &s[(threadIdx.x & 31) * 12]); /* rows of 24 bytes */
    out[threadIdx.x] = (float)(r[0] | r[1] | r[2] | r[3]);
}
static bool case_misaligned_rows(place p)
{
    LAUNCH(misaligned_rows, 1, THREADS, 0, p.stream, p.out);
    return all_are(p, [](int) { return 0; });
}

static __global__ void misaligned_copy(float *out, const float *in)
{
    SHARED(float, s, [THREADS + 4]);
    cp_async16(&s[threadIdx.x], in);
    cp_async_commit();
    cp_async_wait<0>();
    out[threadIdx.x] = 1;
}
static bool case_misaligned_copy(place p)
{
    LAUNCH(misaligned_copy, 1, THREADS, 0, p.stream, p.out, p.in);
    return all_are(p, [](int) { return 1; });
}

static __global__ void misaligned_vector(float *out, const float *in)
{
    float4 v = load4(behind(in, 1));
    out[threadIdx.x] = v.x;
}
static bool case_misaligned_vector(place p)
{
    LAUNCH(misaligned_vector, 1, THREADS, 0, p.stream, p.out, p.in);
    return all_are(p, [](int) { return 1; });
}

/* In a template: the arrays of those are placed by other rules of C++. */
template <class T> static __global__ void static_overrun(T *out)
{
    SHARED(T, s, [THREADS]);
    s[threadIdx.x] = 1;
    __syncthreads();
    out[threadIdx.x] = s[threadIdx.x];
    (void)*(volatile T *)behind(&s[0], (int)threadIdx.x + 1);
}
static bool case_static_overrun(place p)
{
    LAUNCH((static_overrun<float>), 1, THREADS, 0, p.stream, p.out);
    return all_are(p, [](int) { return 1; });
}

static __global__ void dynamic_overrun(float *out)
{
    DYNAMIC_SHARED(float, s);
    s[threadIdx.x] = 1;
    __syncthreads();
    out[threadIdx.x] = s[threadIdx.x];
    (void)*(volatile float *)behind(s, (int)threadIdx.x + 1);
}
static bool case_dynamic_overrun(place p)
{
    LAUNCH(dynamic_overrun, 1, THREADS, THREADS * sizeof(float), p.stream, p.out);
    return all_are(p, [](int) { return 1; });
}

static __global__ void device_overrun(float *out) { *behind(out, (int)threadIdx.x + 1) = 1; }
static bool case_device_overrun(place p)
{
    LAUNCH(device_overrun, 1, THREADS, 0, p.stream, p.out);
    cudaStreamSynchronize(p.stream);
    return true;
}

static __global__ void unwritten_shared(float *out)
{
    SHARED(float, s, [THREADS]);
    DYNAMIC_SHARED(float, d);
    if (threadIdx.x < THREADS - 1)
        s[threadIdx.x] = d[threadIdx.x] = 1;
    __syncthreads();
    out[threadIdx.x] = s[threadIdx.x] * d[threadIdx.x];
}
static bool case_unwritten_shared(place p)
{
    LAUNCH(unwritten_shared, 1, THREADS, THREADS * sizeof(float), p.stream, p.out);
    return all_are(p, [](int) { return 1; });
}

static __global__ void unwritten_device(float *out) { out[threadIdx.x] += 1; }
static bool case_unwritten_device(place p)
{
    LAUNCH(unwritten_device, 1, THREADS, 0, p.stream, p.out);
    return all_are(p, [](int) { return 1; });
}

static __global__ void unatomic_sum(float *out, float *sum)
{
    if (threadIdx.x == 0)
        *sum = 0;
    __syncthreads();
    *sum += 1; /* from every thread */
    __syncthreads();
    out[threadIdx.x] = *sum;
}
static bool case_unatomic_sum(place p)
{
    LAUNCH(unatomic_sum, 1, THREADS, 0, p.stream, p.out, p.in);
    return all_are(p, [](int) { return THREADS; });
}

static __global__ void blocks_race(float *out, float *sum)
{
    if (threadIdx.x == 0)
        *sum += 1; /* from every block */
    out[blockIdx.x * blockDim.x + threadIdx.x] = 1;
}
static bool case_blocks_race(place p)
{
    LAUNCH(blocks_race, 2, THREADS / 2, 0, p.stream, p.out, p.in);
    return all_are(p, [](int) { return 1; });
}

/* The last block to arrive sums what all blocks wrote. */
template <bool FENCE> static __global__ void last_block(float *out, float *partial, unsigned *arrived)
{
    SHARED(int, last, [1]);
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = 1;
        if (FENCE)
            __threadfence();
        last[0] = atomicAdd(arrived, 1u) == gridDim.x - 1;
        if (FENCE)
            __threadfence();
    }
    __syncthreads();
    if (!last[0])
        return;
    float sum = 0;
    for (unsigned i = 0; i < gridDim.x; i++)
        sum += partial[i];
    for (int i = (int)threadIdx.x; i < THREADS; i += (int)blockDim.x)
        out[i] = sum;
}
static bool case_fence_forgotten(place p)
{
    cudaMemsetAsync(p.in + 8, 0, sizeof(unsigned), p.stream);
    LAUNCH((last_block<false>), 8, 32, 0, p.stream, p.out, p.in, (unsigned *)(p.in + 8));
    return all_are(p, [](int) { return 8; });
}
static bool case_fence(place p)
{
    cudaMemsetAsync(p.in + 8, 0, sizeof(unsigned), p.stream);
    LAUNCH((last_block<true>), 8, 32, 0, p.stream, p.out, p.in, (unsigned *)(p.in + 8));
    return all_are(p, [](int) { return 8; });
}

static __global__ void block_order(float *out, float *turn)
{
    if (threadIdx.x == 0)
        out[blockIdx.x] = atomicAdd(turn, 1.0f); /* blocks come in any order */
}
static bool case_block_order(place p)
{
    LAUNCH(block_order, THREADS, 32, 0, p.stream, p.out, p.in);
    return all_are(p, [](int i) { return i; });
}

static __global__ void counted(float *out) { out[threadIdx.x] = (float)threadIdx.x; }
static bool case_not_synchronised(place p)
{
    LAUNCH(counted, 1, THREADS, 0, p.stream, p.out);
    cudaMemcpyAsync(p.pinned, p.out, sizeof host, cudaMemcpyDeviceToHost, p.stream);
    bool arrived = p.pinned[THREADS - 1] == THREADS - 1; /* nobody waited */
    cudaStreamSynchronize(p.stream);
    return arrived;
}
static bool case_reused_too_early(place p)
{
    p.pinned[5] = 1;
    cudaMemcpyAsync(p.out, p.pinned, sizeof host, cudaMemcpyHostToDevice, p.stream);
    p.pinned[5] = 2; /* before the card has read it */
    return all_are(p, [](int i) { return i == 5; });
}
static bool case_too_many_threads(place p)
{
    LAUNCH(counted, 1, 1056, 0, p.stream, p.out);
    return all_are(p, [](int i) { return i; });
}

#endif
