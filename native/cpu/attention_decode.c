/* Attention of single tokens to the cache. A token has the bits of the
 * training forward: the tiles are the same, and a score is the same chain of
 * multiply-adds.
 *
 * The cache, of operands (attention_operands.h), begins with the positions that
 * all slots share; those that a slot has for itself follow, slot by slot. Each
 * part is keys, then values, both [head]. Values are [depth(position)][D]. Keys
 * come in blocks of LANES positions, which are [LANES][depth(D)] until the last
 * position is there, so that a token writes one row, and [depth(D)][LANES] from
 * then on, so that scores of LANES positions are one vector. */
#include "attention_row.h"
#include "attention_tile.h"

#define BLOCKS 8       /* of keys at a time: independent chains hide the latency of the multiply-add */
#define FEW_TOKENS 512 /* whose slots are compared each with each */

void CPU_NAME(cpu_attention_decode)(backend *b, tensor out, tensor qkv, tensor cache, int context, int shared,
                                    const int32_t *slots, const int32_t *positions, int heads, dropout drop);
void CPU_NAME(cpu_attention_decode_soon)(backend *b, int rows, tensor cache, int context, int shared,
                                         const int32_t *slots, const int32_t *positions, int heads);

typedef struct job {
    backend *b;
    tensor out, qkv;
    operand *cache;
    const int32_t *slots, *positions;
    int heads, context, shared, stored;
    dropout drop;
} job;

/* One head of a part: it begins at position `first`, which is even where keys
 * are paired: a slot of its own may begin with a copy of the last shared value. */
typedef struct part {
    operand *keys, *values;
    int first;
} part;

static part shared_part(const job *j, int h)
{
    int C = j->out.cols, D = C / j->heads, room = depth(j->shared) * PAIR;
    operand *values = j->cache + (size_t)room * (size_t)j->heads * (size_t)depth(D);
    return (part){j->cache + (size_t)h * room * depth(D), values + (size_t)h * (room / PAIR) * D, 0};
}

static part own_part(const job *j, int n, int h)
{
    if (j->positions[n] < j->shared)
        return shared_part(j, h);
    int C = j->out.cols, D = C / j->heads, first = j->shared / PAIR * PAIR;
    size_t before = (size_t)depth(j->shared) * PAIR, room = (size_t)depth(j->context - first) * PAIR;
    size_t keys = (size_t)j->heads * (size_t)depth(D);
    operand *slot = j->cache + before * keys + before / PAIR * (size_t)C +
                    (size_t)j->slots[n] * (room * keys + room / PAIR * (size_t)C);
    return (part){slot + (size_t)h * room * depth(D), slot + room * keys + (size_t)h * (room / PAIR) * D, first};
}

/* The new key and value of a row; `room` is for a block of keys. */
static void store_head(const job *j, int n, int h, operand *room)
{
    int C = j->out.cols, D = C / j->heads, t = j->positions[n], size = depth(D);
    const float *row = j->qkv.data + (size_t)n * 3 * (size_t)C + (size_t)C + h * D;
    part own = own_part(j, n, h);
    int i = t - own.first;
    operand *block = own.keys + (size_t)i / LANES * LANES * (size_t)size, *value = own.values + (size_t)(i / PAIR) * D;
    pack_row(block + (size_t)(i % LANES) * (size_t)size, row, D);
    if (i % LANES == LANES - 1) {
        turn(room, block, (size_t)size, LANES, size);
        memcpy(block, room, LANES * (size_t)size * sizeof *block);
    }
    if (i % PAIR == 0)
        pack_stack(value, row + C, NULL, D);
    else
        pack_second(value, t == j->shared ? shared_part(j, h).values + (size_t)(t / PAIR) * D : value, row + C, D);
}

/* One head of all rows, in their order: a block of keys is turned by one worker. */
static void store_task(void *argument, int h, int worker)
{
    const job *j = argument;
    for (int n = 0; n < j->out.rows; n++)
        store_head(j, n, h, (operand *)scratch_of(j->b, worker));
}

/* Positions of row n's part that are in the cache. */
static int stored_keys(const job *j, int n, int first)
{
    int last = n;
    while (j->stored && last + 1 < j->out.rows && j->slots[last + 1] == j->slots[n] &&
           (j->positions[last + 1] < j->shared) == (j->positions[n] < j->shared))
        last++;
    return j->positions[last] + 1 - first;
}

/* p[block * LANES + lane] = scale * q . key for G whole blocks. */
static inline __attribute__((always_inline)) void score_blocks(float *p, const operand *q, const operand *keys, int n,
                                                               float scale, const int G)
{
    vec acc[BLOCKS];
#pragma GCC unroll 8
    for (int g = 0; g < G; g++)
        acc[g] = vec_set(0);
    for (int d = 0; d < n; d++) {
        operands x = operands_set(q[d]);
#pragma GCC unroll 8
        for (int g = 0; g < G; g++)
            acc[g] = multiply_add(x, operands_load(keys + ((size_t)g * (size_t)n + (size_t)d) * LANES), acc[g]);
    }
#pragma GCC unroll 8
    for (int g = 0; g < G; g++)
        vec_store(p + g * LANES, acc[g] * vec_set(scale));
}

/* Scores of `count` keys, of which `stored` are there, in n operands each. */
static void scores_of(float *p, const operand *q, const operand *keys, int count, int stored, int n, float scale,
                      operand *room)
{
    int t = 0, whole = stored / LANES;
    for (int left; t < count && (left = whole - t / LANES) > 0;) {
        const operand *block = keys + (size_t)t * (size_t)n;
        int wanted = (count - t + LANES - 1) / LANES, g = left < wanted ? left : wanted;
        if (g >= 8)
            score_blocks(p + t, q, block, n, scale, g = 8);
        else if (g >= 4)
            score_blocks(p + t, q, block, n, scale, g = 4);
        else if (g >= 2)
            score_blocks(p + t, q, block, n, scale, g = 2);
        else
            score_blocks(p + t, q, block, n, scale, g = 1);
        t += g * LANES;
    }
    if (t < count) {
        turn(room, keys + (size_t)t * (size_t)n, (size_t)n, count - t, n);
        score_blocks(p + t, q, room, n, scale, 1);
    }
}

/* The shared scores of QUERIES rows, block by block. */
static void shared_scores(float *p, size_t width, const operand *q, size_t stride, const operand *keys, int shared,
                          int n, float scale, operand *room)
{
    for (int t = 0; t < shared; t += LANES) {
        const operand *block = keys + (size_t)t * (size_t)n;
        if (t + LANES > shared) {
            turn(room, block, (size_t)n, shared - t, n);
            block = room;
        }
        scores(p + t, width, q, stride, QUERIES, block, LANES, LANES, n, scale);
    }
}

/* Rows of values as whole vectors, zero filled. */
static const operand *whole_rows(operand *to, const operand *x, size_t *stride, int rows, int D)
{
    size_t width = (size_t)padded(D);
    *stride = width;
    if (D % LANES == 0)
        return x;
    for (int t = 0; t < rows; t++) {
        memcpy(to + (size_t)t * width, x + (size_t)t * D, (size_t)D * sizeof *to);
        memset(to + (size_t)t * width + D, 0, (width - (size_t)D) * sizeof *to);
    }
    return to;
}

/* Asks for memory that is read soon: cores wait for the cache, whose parts are
 * too short for the processor to run ahead by itself. */
static inline void fetch_operands(const operand *p, size_t count)
{
    for (size_t i = 0; i < count; i += 64 / sizeof *p)
        __builtin_prefetch(p + i, 0, 2);
}

static void fetch_keys(const job *j, int n, int h)
{
    part own = own_part(j, n, h);
    fetch_operands(own.keys, (size_t)(j->positions[n] + 1 - own.first) * (size_t)depth(j->out.cols / j->heads));
}

/* Rows first..first+rows-1, one head, of which `shared` positions are read from
 * the part that all share: by all rows at once where they are QUERIES. */
static void attend(const job *j, int first, int rows, int h, int shared, int worker)
{
    int C = j->out.cols, D = C / j->heads, size = depth(D);
    size_t width = (size_t)padded(j->context) + LANES, whole = (size_t)padded(D), stride = 3 * (size_t)C, v_stride;
    float *scratch = scratch_of(j->b, worker), scale = 1 / sqrtf((float)D), inverse[QUERIES];
    float *p = take(&scratch, QUERIES * width), *dropped = take(&scratch, width + 2 * DROPOUT_BLOCK);
    float *mixed = take(&scratch, QUERIES * whole);
    operand *block = take_operands(&scratch, LANES * whole), *q_rows = take_operands(&scratch, QUERIES * whole);
    operand *room = take_operands(&scratch, width * whole);
    const operand *q = packed_rows(q_rows, j->qkv.data + (size_t)first * stride + h * D, &stride, rows, D);
    part prefix = shared_part(j, h);
    if (h == 0)
        for (int n = first; n < first + rows; n++)
            fetch_keys(j, n, h);
    if (rows == QUERIES)
        shared_scores(p, width, q, stride, prefix.keys, shared, size, scale, block);
    for (int r = 0; r < rows; r++) {
        int n = first + r, count = j->positions[n] + 1;
        part own = own_part(j, n, h);
        float *x = p + (size_t)r * width;
        fetch_operands(own.values, (size_t)depth(count - own.first) * (size_t)D);
        if (h + 1 < j->heads)
            fetch_keys(j, n, h + 1); /* which is this worker's next task */
        const operand *query = q + (size_t)r * stride;
        if (rows < QUERIES)
            scores_of(x, query, prefix.keys, shared, shared, size, scale, block);
        float last = x[own.first];
        scores_of(x + own.first, query, own.keys, count - own.first, stored_keys(j, n, own.first), size, scale, block);
        if (own.first < shared)
            x[own.first] = last;
        inverse[r] = 1 / weights(x, highest(x, count), count, j->drop,
                                 ((uint64_t)n * (uint64_t)j->heads + (uint64_t)h) * ATTENTION_STRIDE, dropped);
        pack_row((operand *)x, x, count);
    }
    const operand *v = whole_rows(room, prefix.values, &v_stride, shared / PAIR, D);
    mix(mixed, whole, (operand *)p, width, rows, v, v_stride, shared / PAIR, D, NULL, NULL);
    for (int r = 0; r < rows; r++) {
        int n = first + r;
        part own = own_part(j, n, h);
        int pairs = depth(j->positions[n] + 1 - own.first);
        v = whole_rows(room, own.values, &v_stride, pairs, D);
        mix(j->out.data + (size_t)n * C + h * D, 0, (operand *)p + (size_t)r * width + own.first / PAIR, 0, 1, v,
            v_stride, pairs, D, mixed + (size_t)r * whole, inverse + r);
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
            store_head(j, n, h, (operand *)scratch_of(j->b, worker));
    }
    if (after)
        attend(j, first, rows, h, j->shared, worker);
    else /* tokens that are shared themselves: each sees its own part of them */
        for (int n = first; n < first + rows; n++)
            attend(j, n, 1, h, j->positions[n] < j->shared ? 0 : j->shared, worker);
}

static int decode_tasks(const job *j) { return (j->out.rows + QUERIES - 1) / QUERIES * j->heads; }

/* Whether every row has a slot of its own, and none is shared: then it may
 * store its key when it attends, while the cache lines are at hand. */
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
             .cache = (operand *)cache.data,
             .context = context,
             .shared = shared,
             .slots = slots,
             .positions = positions,
             .heads = heads,
             .drop = drop};
    for (int worker = 0; worker < thread_pool_size(cpu(b)->pool); worker++)
        cpu(b)->later[worker].next = cpu(b)->later[worker].count = 0; /* what is left is read now */
    if (!all_differ(&j)) {
        thread_pool_run(cpu(b)->pool, heads, store_task, &j);
        j.stored = 1;
    }
    thread_pool_run(cpu(b)->pool, decode_tasks(&j), decode_task, &j);
}

/* Each worker fetches what its own tasks will read: cores may have no cache in common. */
void CPU_NAME(cpu_attention_decode_soon)(backend *b, int rows, tensor cache, int context, int shared,
                                         const int32_t *slots, const int32_t *positions, int heads)
{
    job j = {.b = b,
             .out = {.rows = rows, .cols = cache.cols / 2},
             .cache = (operand *)cache.data,
             .context = context,
             .shared = shared,
             .slots = slots,
             .positions = positions,
             .heads = heads};
    int threads = thread_pool_size(cpu(b)->pool), D = j.out.cols / heads, tasks = decode_tasks(&j);
    for (int worker = 0; worker < threads; worker++) {
        fetch_list *later = &cpu(b)->later[worker];
        int end = (int)((int64_t)tasks * (worker + 1) / threads) / heads * QUERIES;
        for (int n = (int)((int64_t)tasks * worker / threads) / heads * QUERIES; n < end && n < rows; n++) {
            if (positions[n] < shared)
                continue;
            part own = own_part(&j, n, 0), second = own_part(&j, n, 1);
            ptrdiff_t count = positions[n] + 1 - own.first, size = sizeof *own.keys;
            fetch_later(later, fetch_rows(own.keys, count * depth(D) * size,
                                          (size_t)(second.keys - own.keys) * sizeof *own.keys, heads));
            fetch_later(later, fetch_rows(own.values, depth((int)count) * D * size,
                                          (size_t)(second.values - own.values) * sizeof *own.keys, heads));
        }
    }
}
