/* Attention of single tokens to the cache. A token has the bits of the
 * training forward: the tiles are the same, and a score is the same chain of
 * multiply-adds.
 *
 * Layout of the cache, per slot: keys, then values, each [head]. Values are
 * [context][D]. Keys come in blocks of LANES positions, [block][D][LANES], the
 * last one as narrow as the context leaves it: scores of LANES positions are
 * one vector, and no key is turned when it is read. */
#include "attention_row.h"
#include "attention_tile.h"

#define BLOCKS 8       /* of keys at a time: independent chains hide the latency of the multiply-add */
#define FEW_TOKENS 512 /* whose slots are compared each with each */

void CPU_NAME(cpu_attention_decode)(backend *b, tensor out, tensor qkv, tensor cache, int context, const int32_t *slots,
                                    const int32_t *positions, int heads, dropout drop);
void CPU_NAME(cpu_cache_copy)(backend *b, tensor cache, int context, int heads, int to, int from, int tokens);

typedef struct job {
    backend *b;
    tensor out, qkv;
    float *cache;
    const int32_t *slots, *positions;
    int heads, context, stored;
    dropout drop;
} job;

static inline float *slot_of(float *cache, int slot, int context, int C)
{
    return cache + (size_t)slot * (size_t)context * 2 * (size_t)C;
}

/* Width of the block of keys that position t lies in. */
static inline int block_width(int t, int context)
{
    int left = context - t / LANES * LANES;
    return left < LANES ? left : LANES;
}

static void store_head(const job *j, int n, int h)
{
    int C = j->out.cols, D = C / j->heads, t = j->positions[n], width = block_width(t, j->context);
    const float *row = j->qkv.data + (size_t)n * 3 * (size_t)C + (size_t)C + h * D;
    float *keys = slot_of(j->cache, j->slots[n], j->context, C) + (size_t)h * j->context * D;
    float *key = keys + (size_t)(t / LANES) * LANES * D + t % LANES;
    for (int d = 0; d < D; d++)
        key[(size_t)d * width] = row[d];
    memcpy(keys + ((size_t)j->context * C + (size_t)t * D), row + C, (size_t)D * sizeof(float));
}

static void store_task(void *argument, int n, int worker)
{
    (void)worker;
    const job *j = argument;
    for (int h = 0; h < j->heads; h++)
        store_head(j, n, h);
}

/* p[block * LANES + lane] = scale * q . key for G whole blocks. */
static inline __attribute__((always_inline)) void score_blocks(float *p, const float *q, const float *keys, int D,
                                                               float scale, const int G)
{
    vec acc[BLOCKS];
#pragma GCC unroll 8
    for (int g = 0; g < G; g++)
        acc[g] = vec_set(0);
    for (int d = 0; d < D; d++) {
        vec x = vec_set(q[d]);
#pragma GCC unroll 8
        for (int g = 0; g < G; g++)
            acc[g] = vec_fma(x, vec_load(keys + ((size_t)g * D + d) * LANES), acc[g]);
    }
#pragma GCC unroll 8
    for (int g = 0; g < G; g++)
        vec_store(p + g * LANES, acc[g] * vec_set(scale));
}

static void scores_of(float *p, const float *q, const float *keys, int count, int context, int D, float scale)
{
    int t = 0;
    for (; t + BLOCKS * LANES <= context && t < count; t += BLOCKS * LANES)
        if (count - t > BLOCKS / 2 * LANES)
            score_blocks(p + t, q, keys + (size_t)t * D, D, scale, BLOCKS);
        else
            score_blocks(p + t, q, keys + (size_t)t * D, D, scale, BLOCKS / 2);
    for (; t + LANES <= context && t < count; t += LANES)
        score_blocks(p + t, q, keys + (size_t)t * D, D, scale, 1);
    if (t < count) { /* a last block narrower than a vector */
        int width = context - t;
        vec acc = vec_set(0);
        for (int d = 0; d < D; d++)
            acc = vec_fma(vec_set(q[d]), vec_load_part(keys + (size_t)t * D + (size_t)d * width, width, 0), acc);
        vec_store(p + t, acc * vec_set(scale));
    }
}

static void decode_task(void *argument, int n, int worker)
{
    const job *j = argument;
    int C = j->out.cols, D = C / j->heads, count = j->positions[n] + 1;
    float *slot = slot_of(j->cache, j->slots[n], j->context, C), scale = 1 / sqrtf((float)D);
    const float *row = j->qkv.data + (size_t)n * 3 * (size_t)C;
    for (int h = 0; h < j->heads; h++) {
        if (!j->stored)
            store_head(j, n, h);
        size_t v_stride = (size_t)D, width = (size_t)padded(j->context);
        const float *keys = slot + (size_t)h * j->context * D, *values = keys + (size_t)j->context * C;
        float *scratch = scratch_of(j->b, worker);
        float *p = take(&scratch, width), *factors = take(&scratch, width + 2 * DROPOUT_BLOCK);
        const float *v = whole_rows(take(&scratch, (size_t)count * (size_t)padded(D)), values, &v_stride, count, D);
        scores_of(p, row + h * D, keys, count, j->context, D, scale);
        float inverse = weights(p, count, NULL, j->drop,
                                ((uint64_t)n * (uint64_t)j->heads + (uint64_t)h) * ATTENTION_STRIDE, factors);
        mix(j->out.data + (size_t)n * C + h * D, 0, p, 0, 1, v, v_stride, count, D, &inverse);
    }
}

/* Whether every row has a slot of its own: then it may store its key when it
 * attends, while the cache lines are at hand. */
static int all_differ(const int32_t *slots, int n)
{
    if (n > FEW_TOKENS)
        return 0;
    for (int i = 1; i < n; i++)
        for (int k = 0; k < i; k++)
            if (slots[i] == slots[k])
                return 0;
    return 1;
}

void CPU_NAME(cpu_attention_decode)(backend *b, tensor out, tensor qkv, tensor cache, int context, const int32_t *slots,
                                    const int32_t *positions, int heads, dropout drop)
{
    job j = {.b = b,
             .out = out,
             .qkv = qkv,
             .cache = cache.data,
             .context = context,
             .slots = slots,
             .positions = positions,
             .heads = heads,
             .drop = drop};
    if (!all_differ(slots, out.rows)) {
        thread_pool_run(cpu(b)->pool, out.rows, store_task, &j);
        j.stored = 1;
    }
    thread_pool_run(cpu(b)->pool, out.rows, decode_task, &j);
}

void CPU_NAME(cpu_cache_copy)(backend *b, tensor cache, int context, int heads, int to, int from, int tokens)
{
    (void)b;
    int C = cache.cols / 2, D = C / heads;
    float *target = slot_of(cache.data, to, context, C);
    const float *source = slot_of(cache.data, from, context, C);
    int keys = padded(tokens) < context ? padded(tokens) : context; /* whole blocks */
    for (int h = 0; h < heads; h++) {
        size_t at = (size_t)h * context * D;
        memcpy(target + at, source + at, (size_t)keys * D * sizeof(float));
        at += (size_t)context * C;
        memcpy(target + at, source + at, (size_t)tokens * D * sizeof(float));
    }
}
