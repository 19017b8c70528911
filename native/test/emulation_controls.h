/* emulation_controls.h: correct kernels, which no mode may complain of, and
 * whose results are known. */
#ifndef TEST_EMULATION_CONTROLS_H
#define TEST_EMULATION_CONTROLS_H

#include "emulation_cases.h"

static __global__ void sums(float *out, float *total)
{
    SHARED(float, scratch, [32]);
    float mine = (float)(blockIdx.x * blockDim.x + threadIdx.x);
    float sum = block_sum(mine, scratch), most = block_max(mine, scratch);
    int count = __syncthreads_count(threadIdx.x % 3 == 0);
    if (threadIdx.x == 0)
        atomicAdd(total, sum);
    out[blockIdx.x * blockDim.x + threadIdx.x] = sum + most + (float)count;
}
static bool case_sums(place p)
{
    /* blocks of 32: sums 496 and 1520, maxima 31 and 63, 11 threads counted */
    LAUNCH(sums, 2, 32, 0, p.stream, p.out, p.in);
    bool fine = all_are(p, [](int i) { return i < 32 ? 496 + 31 + 11 : 1520 + 63 + 11; });
    float total;
    cudaMemcpy(&total, p.in, sizeof total, cudaMemcpyDeviceToHost);
    return fine && total == 496 + 1520;
}

static __global__ void shuffles(float *out)
{
    const int lane = threadIdx.x & 31;
    int down = __shfl_down_sync(FULL_WARP, lane, 5), up = __shfl_up_sync(FULL_WARP, lane, 3, 16);
    int from = __shfl_sync(FULL_WARP, lane, 9, 8);
    unsigned odd = __ballot_sync(FULL_WARP, lane & 1);
    bool fine = down == (lane + 5 < 32 ? lane + 5 : lane) && up == ((lane & 15) < 3 ? lane : lane - 3);
    fine = fine && from == (lane & ~7) + 1 && odd == 0xaaaaaaaau && __popc(odd) == 16;
    if (lane < 8) /* a part of the warp by itself */
        fine = fine && __reduce_add_sync(0xffu, (unsigned)lane) == 28 && __any_sync(0xffu, lane == 7);
    fine = fine && __reduce_max_sync(FULL_WARP, lane) == 31;
    out[threadIdx.x] = fine;
}
static bool case_shuffles(place p)
{
    LAUNCH(shuffles, 1, THREADS, 0, p.stream, p.out);
    return all_are(p, [](int) { return 1; });
}

/* d (16,8) = a (16,16) b (16,8) by one warp; a by ldmatrix, b (row-major) by its
 * transposing form; all numbers are small integers, so that sums are exact. */
static __global__ void product(float *out)
{
    SHARED(bf16, a, [16][24]);
    SHARED(bf16, b, [16][8]);
    SHARED(float, d, [16][8]);
    const int lane = (int)threadIdx.x;
    for (int i = lane; i < 16 * 16; i += 32)
        a[i / 16][i % 16] = from_float<bf16>((float)(i * 7 % 11 - 5));
    for (int i = lane; i < 16 * 8; i += 32)
        b[i / 8][i % 8] = from_float<bf16>((float)(i * 5 % 13 - 6));
    __syncwarp();
    uint32_t fa[4], fb[2];
    ldmatrix_x4(fa, &a[lane & 15][(lane >> 4) * 8]);
    ldmatrix_x2_trans(fb, &b[lane & 15][0]);
    float fd[4] = {1, 1, 1, 1};
    mma_m16n8k16_bf16(fd, fa, fb);
    const int row = lane >> 2, column = (lane & 3) * 2;
    store2(&d[row][column], make_float2(fd[0], fd[1]));
    store2(&d[row + 8][column], make_float2(fd[2], fd[3]));
    __syncwarp();
    for (int i = lane; i < THREADS; i += 32) {
        float want[2] = {1, 1};
        for (int half = 0; half < 2; half++)
            for (int k = 0; k < 16; k++)
                want[half] += to_float(a[i / 8 + 8 * half][k]) * to_float(b[k][i % 8]);
        out[i] = d[i / 8][i % 8] == want[0] && d[i / 8 + 8][i % 8] == want[1];
    }
}
static bool case_product(place p)
{
    LAUNCH(product, 1, 32, 0, p.stream, p.out);
    return all_are(p, [](int) { return 1; });
}

static __global__ void tail(float *out, const float *in)
{
    SHARED(float, s, [THREADS]);
    if (threadIdx.x < THREADS / 4) { /* the last copies are cut short, the very last reads nothing */
        int left = 4 * (THREADS - 6 - 4 * (int)threadIdx.x);
        cp_async16_zfill(&s[4 * threadIdx.x], in + 4 * threadIdx.x, (unsigned)max(0, min(16, left)));
    }
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
    out[threadIdx.x] = s[threadIdx.x];
}
static bool case_tail(place p)
{
    LAUNCH(tail, 1, THREADS, 0, p.stream, p.out, p.in);
    return all_are(p, [](int i) { return i < THREADS - 6 ? i : 0; });
}

static __global__ void add(float *out, const float *in) { out[threadIdx.x] += in[threadIdx.x]; }
static bool case_graph(place p)
{
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    cudaStreamBeginCapture(p.stream, cudaStreamCaptureModeThreadLocal);
    cudaMemsetAsync(p.out, 0, sizeof host, p.stream);
    LAUNCH(add, 1, THREADS, 0, p.stream, p.out, p.in);
    LAUNCH(add, 1, THREADS, 0, p.stream, p.out, p.in);
    cudaStreamEndCapture(p.stream, &graph);
    cudaGraphInstantiate(&executable, graph, 0);
    cudaGraphDestroy(graph);
    cudaGraphLaunch(executable, p.stream);
    cudaGraphLaunch(executable, p.stream);
    LAUNCH(add, 1, THREADS, 0, p.stream, p.out, p.in);
    bool fine = all_are(p, [](int i) { return 3 * i; });
    cudaGraphExecDestroy(executable);
    return fine;
}

static bool case_events(place p)
{
    cudaStream_t other;
    cudaEvent_t done;
    float elapsed = -1;
    cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking);
    cudaEventCreate(&done);
    LAUNCH(counted, 1, THREADS, 0, other, p.out);
    cudaEventRecord(done, other);
    cudaStreamWaitEvent(p.stream, done, 0);
    LAUNCH(add, 1, THREADS, 0, p.stream, p.out, p.in);
    bool fine = all_are(p, [](int i) { return 2 * i; }) && cudaEventElapsedTime(&elapsed, done, done) == cudaSuccess;
    cudaEventDestroy(done);
    cudaStreamDestroy(other);
    return fine && elapsed == 0;
}

static __global__ void conversions(float *out)
{
    /* 1 + 2^-8 lies between two bf16 numbers and goes to the even one. */
    bool fine = to_float(from_float<bf16>(1.00390625f)) == 1.0f && to_float(from_float<bf16>(1.01171875f)) == 1.015625f;
    uint32_t pair = pack_bf16(1.5f, -2.0f);
    fine = fine && low_bf16(pair) == 1.5f && high_bf16(pair) == -2.0f;
    float z = to_float(from_float<bf16>(NAN));
    out[threadIdx.x] = fine && z != z;
}
static bool case_conversions(place p)
{
    LAUNCH(conversions, 1, THREADS, 0, p.stream, p.out);
    return all_are(p, [](int) { return 1; });
}

#endif
