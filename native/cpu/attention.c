/* Causal attention by blocks of queries; formulas in native/ref/attention.c.
 * A task is one head of one part of the batch: of the prefix or of a story. */
#include "attention_row.h"
#include "attention_tile.h"
#include "cpu.h"
#include "dropout.h"
#include "simd.h"

void CPU_NAME(cpu_attention_forward)(backend *b, tensor out, float *lse, tensor qkv, ragged rows, int heads,
                                     dropout drop);
void CPU_NAME(cpu_attention_backward)(backend *b, tensor dqkv, tensor dout, tensor qkv, tensor out, const float *lse,
                                      ragged rows, int heads, dropout drop);

typedef struct job {
    backend *b;
    tensor out, qkv, dout, dqkv;
    float *lse;
    ragged rows;
    int heads;
    dropout drop;
} job;

/* A part of the batch: its rows begin..end-1, how many keys of the prefix come
 * before its own and how many that makes, and the end of the rows that see its
 * keys: for the prefix all rows of the batch. */
typedef struct part {
    int begin, end, shared, keys, seen_until;
} part;

static part part_of(ragged rows, int number)
{
    int begin = ragged_begin(rows, number), end = rows.offsets[number], shared = ragged_shared(rows, number);
    return (part){begin, end, shared, shared + end - begin, number || !end ? end : rows.offsets[rows.stories]};
}

/* The rows [keys][D] of a part side by side, as whole vectors: those of the
 * prefix, then its own from row `begin` of x on; x's own when there is no
 * prefix. */
static const float *joined(float *to, const float *x, size_t *stride, part a, int D)
{
    const float *own = x + (size_t)a.begin * *stride;
    if (!a.shared)
        return own;
    size_t width = (size_t)padded(D);
    for (int j = 0; j < a.keys; j++) {
        const float *row = j < a.shared ? x + (size_t)j * *stride : own + (size_t)(j - a.shared) * *stride;
        memcpy(to + (size_t)j * width, row, (size_t)D * sizeof(float));
        memset(to + (size_t)j * width + D, 0, (width - (size_t)D) * sizeof(float));
    }
    *stride = width;
    return to;
}

static void forward_task(void *argument, int task, int worker)
{
    const job *j = argument;
    int h = task % j->heads, N = j->out.rows, C = j->out.cols, D = C / j->heads;
    part a = part_of(j->rows, task / j->heads);
    int width = padded(a.keys);
    size_t stride = 3 * (size_t)C, k_stride = stride, v_stride = stride, whole = (size_t)padded(D),
           keys_floats = (size_t)a.keys * whole;
    const float *x = j->qkv.data + h * D;
    float *scratch = scratch_of(j->b, worker), scale = 1 / sqrtf((float)D);
    operand *keys = take_operands(&scratch, whole * (size_t)width), *packed = take_operands(&scratch, keys_floats);
    operand *q_rows = take_operands(&scratch, QUERIES * whole);
    float *p = take(&scratch, QUERIES * (size_t)width), *room = take(&scratch, keys_floats);
    float *factors = take(&scratch, (size_t)width + 2 * DROPOUT_BLOCK);
    const float *side_by_side = joined(room, x + C, &k_stride, a, D);
    const operand *k = packed_rows(packed, side_by_side, &k_stride, a.keys, D);
    turn(keys, k, k_stride, a.keys, depth(D));
    side_by_side = joined(room, x + 2 * C, &v_stride, a, D);
    const operand *v = stacked_rows(packed, side_by_side, &v_stride, a.keys, D);
    for (int n = a.begin; n < a.end; n += QUERIES) {
        int rows = a.end - n < QUERIES ? a.end - n : QUERIES, first = a.shared + n - a.begin, last = first + rows;
        float max[QUERIES], sum[QUERIES], inverse[QUERIES];
        size_t q_stride = stride;
        const operand *q = packed_rows(q_rows, x + (size_t)n * stride, &q_stride, rows, D);
        scores(p, (size_t)width, q, q_stride, rows, keys, (size_t)width, last, depth(D), scale);
        for (int r = 0; r < rows; r++) /* all first, so that no row waits for its own */
            max[r] = highest(p + (size_t)r * (size_t)width, first + r + 1);
        for (int r = 0; r < rows; r++) {
            int count = first + r + 1;
            float *row = p + (size_t)r * (size_t)width;
            sum[r] = weights(row, max[r], count, j->drop, ((uint64_t)h * N + n + r) * ATTENTION_STRIDE, factors);
            for (int i = count; i < last; i++)
                row[i] = 0;
            pack_row((operand *)row, row, last);
        }
        for (int r = 0; r < rows; r++) {
            j->lse[(size_t)h * N + n + r] = max[r] + logf(sum[r]);
            inverse[r] = 1 / sum[r];
        }
        mix(j->out.data + (size_t)n * C + h * D, (size_t)C, (operand *)p, (size_t)width, rows, v, v_stride, depth(last),
            D, NULL, inverse);
    }
}

void CPU_NAME(cpu_attention_forward)(backend *b, tensor out, float *lse, tensor qkv, ragged rows, int heads,
                                     dropout drop)
{
    job j = {.b = b, .out = out, .lse = lse, .qkv = qkv, .rows = rows, .heads = heads, .drop = drop};
    thread_pool_run(cpu(b)->pool, (rows.stories + 1) * heads, forward_task, &j);
}

/* One row of a block: from its scores and dout . v to the weights of dout in
 * dv and the slopes of the scores. */
static void slopes(float *p, float *ds, int count, int last, float lse, float through, float scale, dropout drop,
                   uint64_t element, float *factors)
{
    exponentials(p, lse, count);
    const float *kept = drop.probability > 0 ? dropout_factors(factors, drop, element, count) : NULL;
    vec shift = vec_set(through), by = vec_set(scale);
    int j = 0;
    for (; j + LANES <= count; j += LANES) {
        vec x = vec_load(p + j), k = kept ? vec_load(kept + j) : vec_set(1);
        vec_store(ds + j, x * (k * vec_load(ds + j) - shift) * by);
        vec_store(p + j, x * k);
    }
    for (; j < count; j++) {
        float k = kept ? kept[j] : 1;
        ds[j] = p[j] * (k * ds[j] - through) * scale;
        p[j] *= k;
    }
    for (; j < last; j++)
        p[j] = ds[j] = 0;
}

static void copy_rows(float *to, size_t stride, const float *x, size_t width, int rows, int D)
{
    for (int t = 0; t < rows; t++)
        memcpy(to + (size_t)t * stride, x + (size_t)t * width, (size_t)D * sizeof(float));
}

/* Weights of the rows, paired with each other as the gradients of keys and
 * values sum over them. */
static const operand *paired_weights(operand *to, const float *w, size_t *stride, int rows, int keys)
{
    return PAIR == 1 ? (const operand *)w : stacked_rows(to, w, stride, rows, keys);
}

/* dq of a part's rows, dk and dv of its own keys. The task of the prefix goes on
 * through the rows of the stories, in their order: scores are computed once
 * more, but nothing is kept between tasks, and no sum depends on the threads. */
static void backward_task(void *argument, int task, int worker)
{
    enum { ROWS = QUERIES * PAIR };
    const job *j = argument;
    int h = task % j->heads, N = j->out.rows, C = j->out.cols, D = C / j->heads;
    part a = part_of(j->rows, task / j->heads);
    int own = a.end - a.begin;
    size_t width = (size_t)padded(a.keys), stride = 3 * (size_t)C, whole = (size_t)padded(D),
           keys_floats = (size_t)a.keys * whole;
    size_t k_stride = stride, v_stride = stride;
    float *scratch = scratch_of(j->b, worker), scale = 1 / sqrtf((float)D);
    operand *keys = take_operands(&scratch, whole * width), *values = take_operands(&scratch, whole * width);
    float *p = take(&scratch, ROWS * width), *ds = take(&scratch, ROWS * width);
    operand *pairs = take_operands(&scratch, QUERIES * width), *packed = take_operands(&scratch, keys_floats);
    float *dk = take(&scratch, keys_floats), *dv = take(&scratch, keys_floats), *room = take(&scratch, keys_floats);
    operand *q_rows = take_operands(&scratch, ROWS * whole), *dy_rows = take_operands(&scratch, ROWS * whole);
    operand *q_stack = take_operands(&scratch, QUERIES * whole), *dy_stack = take_operands(&scratch, QUERIES * whole);
    float *factors = take(&scratch, width + 2 * DROPOUT_BLOCK);
    const float *x = j->qkv.data + h * D, *side_by_side = joined(room, x + 2 * C, &v_stride, a, D);
    const operand *k = packed_rows(packed, side_by_side, &v_stride, a.keys, D);
    turn(values, k, v_stride, a.keys, depth(D));
    side_by_side = joined(room, x + C, &k_stride, a, D);
    size_t row_stride = k_stride;
    k = packed_rows(packed, side_by_side, &row_stride, a.keys, D);
    turn(keys, k, row_stride, a.keys, depth(D));
    k = stacked_rows(packed, side_by_side, &k_stride, a.keys, D);
    memset(dk, 0, (size_t)own * whole * sizeof(float));
    memset(dv, 0, (size_t)own * whole * sizeof(float));
    for (int n = a.begin, rows; n < a.seen_until; n += rows) {
        int end = n < a.end ? a.end : a.seen_until, first = a.shared + n - a.begin;
        rows = end - n < ROWS ? end - n : ROWS;
        int last = first + rows < a.keys ? first + rows : a.keys;
        size_t q_stride = stride, qs_stride = stride, dy_stride = (size_t)C, dys_stride = (size_t)C;
        const float *dout = j->dout.data + (size_t)n * C + h * D, *y = j->out.data + (size_t)n * C + h * D;
        const operand *q = packed_rows(q_rows, x + (size_t)n * stride, &q_stride, rows, D);
        const operand *dy = packed_rows(dy_rows, dout, &dy_stride, rows, D);
        const operand *qs = stacked_rows(q_stack, x + (size_t)n * stride, &qs_stride, rows, D);
        const operand *dys = stacked_rows(dy_stack, dout, &dys_stride, rows, D);
        for (int r = 0; r < rows; r += QUERIES) {
            int some = rows - r < QUERIES ? rows - r : QUERIES;
            scores(p + (size_t)r * width, width, q + (size_t)r * q_stride, q_stride, some, keys, width, last, depth(D),
                   scale);
            scores(ds + (size_t)r * width, width, dy + (size_t)r * dy_stride, dy_stride, some, values, width, last,
                   depth(D), 1);
        }
        for (int r = 0; r < rows; r++) {
            int count = first + r + 1 < last ? first + r + 1 : last;
            float through = dot_product(dout + (size_t)r * C, y + (size_t)r * C, D);
            slopes(p + (size_t)r * width, ds + (size_t)r * width, count, last, j->lse[(size_t)h * N + n + r], through,
                   scale, j->drop, ((uint64_t)h * N + n + r) * ATTENTION_STRIDE, factors);
        }
        size_t w_stride = width;
        const operand *w = paired_weights(pairs, p + a.shared, &w_stride, rows, last - a.shared);
        spread(dv, whole, w, w_stride, depth(rows), dys, dys_stride, last - a.shared);
        w_stride = width;
        w = paired_weights(pairs, ds + a.shared, &w_stride, rows, last - a.shared);
        spread(dk, whole, w, w_stride, depth(rows), qs, qs_stride, last - a.shared);
        for (int r = 0; r < rows && n < a.end; r += QUERIES) {
            int some = rows - r < QUERIES ? rows - r : QUERIES;
            float *slope = ds + (size_t)r * width;
            for (int i = 0; i < some; i++)
                pack_row((operand *)slope + (size_t)i * width, slope + (size_t)i * width, last);
            mix(j->dqkv.data + (size_t)(n + r) * stride + h * D, stride, (operand *)slope, width, some, k, k_stride,
                depth(last), D, NULL, NULL);
        }
    }
    float *to = j->dqkv.data + (size_t)a.begin * stride + C + h * D;
    copy_rows(to, stride, dk, whole, own, D);
    copy_rows(to + C, stride, dv, whole, own, D);
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
    thread_pool_run(cpu(b)->pool, (rows.stories + 1) * heads, backward_task, &j);
}
