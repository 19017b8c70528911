/* Backward of the embedding: dwte[token[n]] += dout[n], dwpe[position[n]] +=
 * dout[n], in rising n, without atomics: the same bits every time, on every
 * card.
 *
 *   1 sort  the rows n of either list by (index, n): blocks of SORTED, then
 *           pairs of runs are merged until one is left
 *   2 sum   a block takes WINDOW neighbours of the sorted list and adds the
 *           rows of an index; an index whose rows lie within goes to dw at once
 *   3 join  an index that goes on into further windows has left a part in each:
 *           the window in which it begins adds them, in order
 *
 * An index that is half of the batch thus costs as much as any other. Bytes an
 * element: 8 (dout is read once for each list), plus 8 for each row of dwte and
 * dwpe that is met, plus 16 / WINDOW. The sum is bound by memory (estimate: four
 * rows at a time, 128 bytes a thread in flight); the sort, of 8-byte keys, by
 * the latency of about 2 + log2(N / SORTED) small launches. */
#include "ops.cuh"
#include "dropout.cuh"

enum { SORTED = 256, WINDOW = 64, SUM_THREADS = 128, AHEAD = 4 };

/* An index in the upper half, the row in the lower one: no two are equal. */
typedef unsigned long long sort_key;

__device__ __forceinline__ uint32_t index_of(sort_key k) { return (uint32_t)(k >> 32); }
__device__ __forceinline__ uint32_t row_of(sort_key k) { return (uint32_t)k; }

/* Arrays of both lists, tokens first: keys [2][N], parts [2][windows][2][C]. */
static size_t windows_of(int N) { return blocks_for((size_t)N, WINDOW); }
static size_t keys_bytes(int N) { return (2 * sizeof(sort_key) * (size_t)N + 255) / 256 * 256; }
static size_t parts_bytes(int N, int C) { return 2 * windows_of(N) * 2 * (size_t)C * sizeof(float); }

size_t cuda_embedding_workspace(const backend_limits *limits)
{
    return 2 * keys_bytes(limits->rows) + parts_bytes(limits->rows, limits->stream);
}

/* A key's place in its run is the number of keys below it. */
static __global__ void __launch_bounds__(SORTED)
    sort_runs(sort_key *__restrict__ to, const int32_t *__restrict__ tokens, const int32_t *__restrict__ positions,
              int N)
{
    SHARED(sort_key, keys, [SORTED]);
    const int first = (int)blockIdx.x * SORTED, n = first + (int)threadIdx.x, count = min((int)SORTED, N - first);
    const int32_t *list = blockIdx.y ? positions : tokens;
    sort_key mine = 0;
    if (n < N)
        mine = keys[threadIdx.x] = (sort_key)(uint32_t)list[n] << 32 | (uint32_t)n;
    __syncthreads();
    if (n >= N)
        return;
    int below = 0;
    for (int i = 0; i < count; i++)
        below += keys[i] < mine;
    to[(size_t)blockIdx.y * N + first + below] = mine;
}

/* Merges runs of `run` keys in pairs: a key goes as far as the keys before it
 * in its own run and those below it in the other one are many. */
static __global__ void __launch_bounds__(SORTED)
    merge_runs(sort_key *__restrict__ to, const sort_key *__restrict__ from, int N, int run)
{
    const int i = (int)(blockIdx.x * SORTED + threadIdx.x);
    if (i >= N)
        return;
    to += (size_t)blockIdx.y * N;
    from += (size_t)blockIdx.y * N;
    const sort_key mine = from[i];
    const int own = i / run, pair = (own & ~1) * run, other = min((own ^ 1) * run, N);
    int low = other, high = min(other + run, N);
    while (low < high) {
        int middle = low + (high - low) / 2;
        if (from[middle] < mine)
            low = middle + 1;
        else
            high = middle;
    }
    to[pair + (i - own * run) + (low - other)] = mine;
}

struct sum_job {
    float *dwte, *dwpe;
    const sort_key *keys;
    float *parts;
    const float *dout;
    int N, C, windows;
    bool aligned;
};

/* Where a window's part of an index is kept: 0 of one that began before the
 * window, 1 of one that begins in it. */
__device__ __forceinline__ float *part_at(const sum_job &j, int list, int window, int began_here)
{
    return j.parts + (((size_t)list * j.windows + window) * 2 + began_here) * j.C;
}

/* Columns c .. of the gradient of an index += sum. */
__device__ __forceinline__ void add_row(const sum_job &j, int list, uint32_t index, int c, const packet &sum, int left)
{
    float *to = (list ? j.dwpe : j.dwte) + (size_t)index * j.C + c;
    packet all = load_part(to, left, j.aligned);
#pragma unroll
    for (int e = 0; e < PACKET; e++)
        all.at[e] += sum.at[e];
    store_part(to, all, left, j.aligned);
}

static __global__ void __launch_bounds__(SUM_THREADS) sum_windows(sum_job j, dropout_mask mask)
{
    SHARED(sort_key, keys, [WINDOW]);
    const int list = (int)blockIdx.z, window = (int)blockIdx.x, begin = window * WINDOW;
    const int count = min((int)WINDOW, j.N - begin), c = (int)(blockIdx.y * SUM_THREADS + threadIdx.x) * PACKET;
    const sort_key *sorted = j.keys + (size_t)list * j.N + begin;
    for (int i = (int)threadIdx.x; i < count; i += SUM_THREADS)
        keys[i] = sorted[i];
    __syncthreads();
    if (c >= j.C)
        return;
    const int left = min(j.C - c, (int)PACKET);
    const bool from_before = begin > 0 && index_of(sorted[-1]) == index_of(keys[0]);
    const bool goes_on = begin + count < j.N && index_of(sorted[count]) == index_of(keys[count - 1]);
    bool began_here = !from_before;
    packet sum = {};
    for (int i = 0; i < count; i += AHEAD) {
        packet rows[AHEAD] = {};
#pragma unroll
        for (int k = 0; k < AHEAD; k++)
            if (i + k < count)
                rows[k] = load_part(j.dout + (size_t)row_of(keys[i + k]) * j.C + c, left, j.aligned);
#pragma unroll
        for (int k = 0; k < AHEAD; k++) {
            if (i + k >= count)
                break;
            const uint32_t index = index_of(keys[i + k]);
            const bool last = i + k + 1 == count, ends = last || index_of(keys[i + k + 1]) != index;
            drop_packet(rows[k], mask, (uint64_t)row_of(keys[i + k]) * (uint64_t)j.C + (uint64_t)c, j.aligned);
#pragma unroll
            for (int e = 0; e < PACKET; e++)
                sum.at[e] += rows[k].at[e];
            if (!ends)
                continue;
            if (began_here && !(last && goes_on))
                add_row(j, list, index, c, sum, left);
            else
                store_part(part_at(j, list, window, began_here) + c, sum, left, j.aligned);
            sum = {};
            began_here = true;
        }
    }
}

static __global__ void __launch_bounds__(SUM_THREADS) join_windows(sum_job j)
{
    const int list = (int)blockIdx.z, window = (int)blockIdx.x, begin = window * WINDOW, next = begin + WINDOW;
    const int c = (int)(blockIdx.y * SUM_THREADS + threadIdx.x) * PACKET, left = min(j.C - c, (int)PACKET);
    const sort_key *keys = j.keys + (size_t)list * j.N;
    if (c >= j.C || next >= j.N)
        return;
    const uint32_t index = index_of(keys[next - 1]);
    /* It goes on, and did not come from the window before. */
    if (index_of(keys[next]) != index || (begin > 0 && index_of(keys[begin - 1]) == index))
        return;
    packet sum = load_part(part_at(j, list, window, 1) + c, left, j.aligned);
    for (int w = window + 1; w < j.windows && index_of(keys[w * WINDOW]) == index; w++) {
        packet part = load_part(part_at(j, list, w, 0) + c, left, j.aligned);
#pragma unroll
        for (int e = 0; e < PACKET; e++)
            sum.at[e] += part.at[e];
    }
    add_row(j, list, index, c, sum, left);
}

void cuda_embedding_backward(backend *b, tensor dwte, tensor dwpe, tensor dout, const int32_t *tokens,
                             const int32_t *positions, dropout drop)
{
    int N = dout.rows, C = dout.cols;
    cudaStream_t stream = cuda(b)->stream;
    char *memory = (char *)cuda_workspace(b, 2 * keys_bytes(N) + parts_bytes(N, C), __func__);
    if (!memory)
        return;
    sort_key *keys = (sort_key *)memory, *spare = (sort_key *)(memory + keys_bytes(N));
    dim3 runs(blocks_for((size_t)N, SORTED), 2);
    LAUNCH(sort_runs, runs, SORTED, 0, stream, keys, tokens, positions, N);
    for (int run = SORTED; run < N; run *= 2) {
        LAUNCH(merge_runs, runs, SORTED, 0, stream, spare, keys, N, run);
        sort_key *sorted = spare;
        spare = keys;
        keys = sorted;
    }
    sum_job job = {.dwte = dwte.data,
                   .dwpe = dwpe.data,
                   .keys = keys,
                   .parts = (float *)(memory + 2 * keys_bytes(N)),
                   .dout = dout.data,
                   .N = N,
                   .C = C,
                   .windows = (int)windows_of(N),
                   .aligned = C % PACKET == 0 && all_aligned(dwte.data, dwpe.data, dout.data)};
    dim3 blocks((unsigned)windows_of(N), blocks_for((size_t)C, SUM_THREADS * PACKET), 2);
    LAUNCH(sum_windows, blocks, SUM_THREADS, 0, stream, job, dropout_mask_of(drop));
    LAUNCH(join_windows, blocks, SUM_THREADS, 0, stream, job);
    CUDA_OP_END(b);
}
