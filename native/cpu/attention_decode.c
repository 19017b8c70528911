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

void CPU_NAME(cpu_attention_decode)(backend *b, tensor out, tensor qkv, tensor cache, int context, int shared,
                                    const int32_t *slots, const int32_t *positions, int heads, dropout drop);

typedef struct job {
    backend *b;
    tensor out, qkv;
    float *cache;
    const int32_t *slots, *positions;
    int heads, context, shared, stored;
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

/* The slot's scores of positions `from`..count-1; those before, which may lie
 * in the same block, stay. */
static void own_scores(float *p, const float *q, const float *keys, int from, int count, int context, int D,
                       float scale)
{
    float before[LANES];
    int block = from / LANES * LANES;
    memcpy(before, p + block, sizeof before);
    scores_of(p + block, q, keys + (size_t)block * D, count - block, context - block, D, scale);
    memcpy(p + block, before, (size_t)(from - block) * sizeof(float));
}

/* Rows first..first+rows-1, one head, of which the first `shared` positions are
 * read from slot 0: by all rows at once where they are QUERIES. */
static void attend(const job *j, int first, int rows, int h, int shared, int worker)
{
    int C = j->out.cols, D = C / j->heads, context = j->context;
    size_t v_stride = (size_t)D, width = (size_t)padded(context), whole = (size_t)padded(D), stride = 3 * (size_t)C;
    float *scratch = scratch_of(j->b, worker), scale = 1 / sqrtf((float)D), unit[QUERIES];
    float *p = take(&scratch, QUERIES * width), *factors = take(&scratch, width + 2 * DROPOUT_BLOCK);
    float *mixed = take(&scratch, QUERIES * whole), *room = take(&scratch, width * whole), inverse[QUERIES];
    for (int r = 0; r < QUERIES; r++)
        unit[r] = 1;
    const float *q = j->qkv.data + (size_t)first * stride + h * D;
    const float *prefix = j->cache + (size_t)h * context * D;
    for (int t = 0; t < shared; t += LANES)
        if (rows == QUERIES && t + LANES <= context)
            scores(p + t, width, q, stride, rows, prefix + (size_t)t * D, LANES, LANES, D, scale);
        else
            for (int r = 0; r < rows; r++)
                scores_of(p + (size_t)r * width + t, q + (size_t)r * stride, prefix + (size_t)t * D, shared - t,
                          context - t, D, scale);
    for (int r = 0; r < rows; r++) {
        int n = first + r, count = j->positions[n] + 1;
        const float *keys = slot_of(j->cache, j->slots[n], context, C) + (size_t)h * context * D;
        float *x = p + (size_t)r * width;
        own_scores(x, q + (size_t)r * stride, keys, shared, count, context, D, scale);
        inverse[r] = weights(x, count, NULL, j->drop,
                             ((uint64_t)n * (uint64_t)j->heads + (uint64_t)h) * ATTENTION_STRIDE, factors);
    }
    const float *values = prefix + (size_t)context * C, *v = whole_rows(room, values, &v_stride, shared, D);
    mix(mixed, whole, p, width, rows, v, v_stride, shared, D, NULL, unit);
    for (int r = 0; r < rows; r++) {
        int n = first + r, own = j->positions[n] + 1 - shared;
        values = slot_of(j->cache, j->slots[n], context, C) + ((size_t)h + j->heads) * context * D + (size_t)shared * D;
        v_stride = (size_t)D;
        v = whole_rows(room, values, &v_stride, own, D);
        mix(j->out.data + (size_t)n * C + h * D, 0, p + (size_t)r * width + shared, 0, 1, v, v_stride, own, D,
            mixed + (size_t)r * whole, inverse + r);
    }
}

/* One head of QUERIES rows. */
static void decode_task(void *argument, int task, int worker)
{
    const job *j = argument;
    int h = task % j->heads, first = task / j->heads * QUERIES;
    int rows = j->out.rows - first < QUERIES ? j->out.rows - first : QUERIES, after = 1;
    for (int n = first; n < first + rows; n++) {
        after &= j->positions[n] >= j->shared;
        if (!j->stored)
            store_head(j, n, h);
    }
    if (after)
        attend(j, first, rows, h, j->shared, worker);
    else /* tokens of the prefix itself: each has its own part of it before it */
        for (int n = first; n < first + rows; n++)
            attend(j, n, 1, h, j->positions[n] < j->shared ? 0 : j->shared, worker);
}

/* Whether every row has a slot of its own, and none of the shared ones: then it
 * may store its key when it attends, while the cache lines are at hand. */
static int all_differ(const job *j)
{
    int n = j->out.rows;
    if (n > FEW_TOKENS)
        return 0;
    for (int i = 0; i < n; i++) {
        if (j->positions[i] < j->shared)
            return 0;
        for (int k = 0; k < i; k++)
            if (j->slots[i] == j->slots[k])
                return 0;
    }
    return 1;
}

void CPU_NAME(cpu_attention_decode)(backend *b, tensor out, tensor qkv, tensor cache, int context, int shared,
                                    const int32_t *slots, const int32_t *positions, int heads, dropout drop)
{
    job j = {.b = b,
             .out = out,
             .qkv = qkv,
             .cache = cache.data,
             .context = context,
             .shared = shared,
             .slots = slots,
             .positions = positions,
             .heads = heads,
             .drop = drop};
    if (!all_differ(&j)) {
        thread_pool_run(cpu(b)->pool, out.rows, store_task, &j);
        j.stored = 1;
    }
    thread_pool_run(cpu(b)->pool, (out.rows + QUERIES - 1) / QUERIES * heads, decode_task, &j);
}
