/* Causal attention, a row of scores at a time; formulas in
 * native/ref/attention.c. A task is one head of one story. Decoding calls the
 * same attend(), so a token has the same bits in a story that is being told
 * and in the batch that trains on it. */
#include "cpu.h"
#include "simd.h"

#define ATTENTION_STRIDE 65536u

void CPU_NAME(cpu_attention_forward)(backend *b, tensor out, float *lse, tensor qkv, ragged rows, int heads,
                                     dropout drop);
void CPU_NAME(cpu_attention_backward)(backend *b, tensor dqkv, tensor dout, tensor qkv, tensor out, const float *lse,
                                      ragged rows, int heads, dropout drop);
void CPU_NAME(cpu_attention_decode)(backend *b, tensor out, tensor qkv, float *cache, int context, const int32_t *slots,
                                    const int32_t *positions, int heads);

typedef struct job {
    backend *b;
    tensor out, qkv, dout, dqkv;
    float *lse, *cache;
    ragged rows;
    const int32_t *slots, *positions;
    int heads, context;
    dropout drop;
} job;

static inline float *scratch(const job *j, int worker)
{
    return cpu(j->b)->scratch + (size_t)worker * cpu(j->b)->scratch_size;
}

/* scores[j] = exp(x[j] - max) for scores x; returns their sum. */
static float exponentials(float *scores, float max, int count)
{
    vec sum = vec_set(0), shift = vec_set(max);
    int j = 0;
    for (; j + LANES <= count; j += LANES) {
        vec e = vec_exp(vec_load(scores + j) - shift);
        vec_store(scores + j, e);
        sum = sum + e;
    }
    if (j < count) {
        vec e = vec_exp(vec_load_part(scores + j, count - j, max) - shift);
        vec_store_part(scores + j, count - j, e);
        sum = sum + vec_load_part(scores + j, count - j, 0);
    }
    return vec_sum(sum);
}

/* One query against `count` keys and values, `stride` floats apart. */
static float attend(float *out, const float *q, const float *k, const float *v, size_t stride, int count, int D,
                    dropout drop, uint64_t element, float *scores)
{
    float scale = 1 / sqrtf((float)D), max = -INFINITY;
    for (int j = 0; j < count; j++) {
        scores[j] = dot_product(q, k + j * stride, D) * scale;
        max = scores[j] > max ? scores[j] : max;
    }
    float sum = exponentials(scores, max, count), inverse = 1 / sum;
    if (drop.probability > 0)
        for (int j = 0; j < count; j++)
            scores[j] *= ref_dropout_factor(drop, element + (uint64_t)j);
    for (int d = 0; d < D; d += LANES) {
        int left = D - d;
        vec acc = vec_set(0);
        if (left >= LANES)
            for (int j = 0; j < count; j++)
                acc = vec_fma(vec_set(scores[j]), vec_load(v + j * stride + d), acc);
        else
            for (int j = 0; j < count; j++)
                acc = vec_fma(vec_set(scores[j]), vec_load_part(v + j * stride + d, left, 0), acc);
        acc = acc * vec_set(inverse);
        if (left >= LANES)
            vec_store(out + d, acc);
        else
            vec_store_part(out + d, left, acc);
    }
    return max + logf(sum);
}

static void forward_task(void *argument, int task, int worker)
{
    const job *j = argument;
    int story = task / j->heads, h = task % j->heads, N = j->out.rows, C = j->out.cols, D = C / j->heads;
    int begin = j->rows.offsets[story], end = j->rows.offsets[story + 1];
    size_t stride = 3 * (size_t)C;
    const float *first = j->qkv.data + begin * stride + h * D;
    for (int t = begin; t < end; t++)
        j->lse[(size_t)h * N + t] =
            attend(j->out.data + (size_t)t * C + h * D, j->qkv.data + t * stride + h * D, first + C, first + 2 * C,
                   stride, t - begin + 1, D, j->drop, ((uint64_t)h * N + t) * ATTENTION_STRIDE, scratch(j, worker));
}

void CPU_NAME(cpu_attention_forward)(backend *b, tensor out, float *lse, tensor qkv, ragged rows, int heads,
                                     dropout drop)
{
    job j = {.b = b, .out = out, .lse = lse, .qkv = qkv, .rows = rows, .heads = heads, .drop = drop};
    thread_pool_run(cpu(b)->pool, rows.stories * heads, forward_task, &j);
}

static void backward_task(void *argument, int task, int worker)
{
    (void)worker;
    const job *j = argument;
    int story = task / j->heads, h = task % j->heads, N = j->out.rows, C = j->out.cols, D = C / j->heads;
    int begin = j->rows.offsets[story], end = j->rows.offsets[story + 1];
    size_t stride = 3 * (size_t)C;
    float scale = 1 / sqrtf((float)D), *p = scratch(j, worker), *ds = p + ATTENTION_STRIDE;
    for (int t = begin; t < end; t++)
        for (int part = 0; part < 3; part++)
            memset(j->dqkv.data + t * stride + part * C + h * D, 0, (size_t)D * sizeof(float));
    for (int t = begin; t < end; t++) {
        const float *q = j->qkv.data + t * stride + h * D, *dy = j->dout.data + (size_t)t * C + h * D;
        const float *k = j->qkv.data + begin * stride + C + h * D, *v = k + C;
        float *dq = j->dqkv.data + t * stride + h * D;
        float *dk = j->dqkv.data + begin * stride + C + h * D, *dv = dk + C;
        float through = dot_product(dy, j->out.data + (size_t)t * C + h * D, D);
        int count = t - begin + 1;
        for (int i = 0; i < count; i++) {
            p[i] = dot_product(q, k + i * stride, D) * scale;
            ds[i] = dot_product(dy, v + i * stride, D);
        }
        exponentials(p, j->lse[(size_t)h * N + t], count);
        for (int i = 0; i < count; i++) {
            float kept = j->drop.probability > 0
                             ? ref_dropout_factor(j->drop, ((uint64_t)h * N + t) * ATTENTION_STRIDE + (uint64_t)i)
                             : 1;
            float slope = p[i] * (kept * ds[i] - through) * scale;
            add_scaled(dv + i * stride, p[i] * kept, dy, D);
            add_scaled(dq, slope, k + i * stride, D);
            add_scaled(dk + i * stride, slope, q, D);
        }
    }
}

void CPU_NAME(cpu_attention_backward)(backend *b, tensor dqkv, tensor dout, tensor qkv, tensor out, const float *lse,
                                      ragged rows, int heads, dropout drop)
{
    job j = {.b = b,
             .out = out,
             .qkv = qkv,
             .dout = dout,
             .dqkv = dqkv,
             .lse = (float *)lse,
             .rows = rows,
             .heads = heads,
             .drop = drop};
    thread_pool_run(cpu(b)->pool, rows.stories * heads, backward_task, &j);
}

static void decode_task(void *argument, int n, int worker)
{
    const job *j = argument;
    int C = j->out.cols, D = C / j->heads;
    size_t stride = 2 * (size_t)C;
    float *slot = j->cache + (size_t)j->slots[n] * j->context * stride;
    const float *row = j->qkv.data + (size_t)n * 3 * C;
    memcpy(slot + j->positions[n] * stride, row + C, stride * sizeof(float));
    for (int h = 0; h < j->heads; h++)
        attend(j->out.data + (size_t)n * C + h * D, row + h * D, slot + h * D, slot + C + h * D, stride,
               j->positions[n] + 1, D, (dropout){0}, 0, scratch(j, worker));
}

void CPU_NAME(cpu_attention_decode)(backend *b, tensor out, tensor qkv, float *cache, int context, const int32_t *slots,
                                    const int32_t *positions, int heads)
{
    job j = {.b = b,
             .out = out,
             .qkv = qkv,
             .cache = cache,
             .context = context,
             .slots = slots,
             .positions = positions,
             .heads = heads};
    thread_pool_run(cpu(b)->pool, out.rows, decode_task, &j);
}
