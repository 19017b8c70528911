/* Causal attention by blocks of queries; formulas in native/ref/attention.c.
 * A task is one head of one story. */
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

static void forward_task(void *argument, int task, int worker)
{
    const job *j = argument;
    int story = task / j->heads, h = task % j->heads, N = j->out.rows, C = j->out.cols, D = C / j->heads;
    int begin = j->rows.offsets[story], T = j->rows.offsets[story + 1] - begin, width = padded(T);
    size_t stride = 3 * (size_t)C, v_stride = stride;
    const float *q = j->qkv.data + (size_t)begin * stride + h * D;
    float *scratch = scratch_of(j->b, worker), scale = 1 / sqrtf((float)D);
    float *keys = take(&scratch, (size_t)D * (size_t)width), *p = take(&scratch, QUERIES * (size_t)width);
    float *factors = take(&scratch, (size_t)width + 2 * DROPOUT_BLOCK);
    const float *v = whole_rows(take(&scratch, (size_t)T * (size_t)padded(D)), q + 2 * C, &v_stride, T, D);
    turn(keys, q + C, stride, T, D);
    for (int t = 0; t < T; t += QUERIES) {
        int rows = T - t < QUERIES ? T - t : QUERIES, last = t + rows;
        float inverse[QUERIES];
        scores(p, (size_t)width, q + (size_t)t * stride, stride, rows, keys, (size_t)width, last, D, scale);
        for (int r = 0; r < rows; r++) {
            int n = begin + t + r, count = t + r + 1;
            float *x = p + (size_t)r * (size_t)width;
            inverse[r] = weights(x, count, &j->lse[(size_t)h * N + n], j->drop,
                                 ((uint64_t)h * N + n) * ATTENTION_STRIDE, factors);
            for (int k = count; k < last; k++)
                x[k] = 0;
        }
        mix(j->out.data + (size_t)(begin + t) * C + h * D, (size_t)C, p, (size_t)width, rows, v, v_stride, last, D,
            inverse);
    }
}

void CPU_NAME(cpu_attention_forward)(backend *b, tensor out, float *lse, tensor qkv, ragged rows, int heads,
                                     dropout drop)
{
    job j = {.b = b, .out = out, .lse = lse, .qkv = qkv, .rows = rows, .heads = heads, .drop = drop};
    thread_pool_run(cpu(b)->pool, rows.stories * heads, forward_task, &j);
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

static void backward_task(void *argument, int task, int worker)
{
    const job *j = argument;
    int story = task / j->heads, h = task % j->heads, N = j->out.rows, C = j->out.cols, D = C / j->heads;
    int begin = j->rows.offsets[story], T = j->rows.offsets[story + 1] - begin, width = padded(T);
    size_t stride = 3 * (size_t)C, whole = (size_t)padded(D), rows_floats = (size_t)T * whole;
    size_t q_stride = stride, k_stride = stride, dy_stride = (size_t)C;
    float *scratch = scratch_of(j->b, worker), scale = 1 / sqrtf((float)D);
    float *keys = take(&scratch, (size_t)D * (size_t)width), *values = take(&scratch, (size_t)D * (size_t)width);
    float *p = take(&scratch, QUERIES * (size_t)width), *ds = take(&scratch, QUERIES * (size_t)width);
    float *dk = take(&scratch, rows_floats), *dv = take(&scratch, rows_floats);
    float *factors = take(&scratch, (size_t)width + 2 * DROPOUT_BLOCK);
    const float *x = j->qkv.data + (size_t)begin * stride + h * D;
    const float *dout = j->dout.data + (size_t)begin * C + h * D, *y = j->out.data + (size_t)begin * C + h * D;
    turn(keys, x + C, stride, T, D);
    turn(values, x + 2 * C, stride, T, D);
    const float *q = whole_rows(take(&scratch, rows_floats), x, &q_stride, T, D);
    const float *k = whole_rows(take(&scratch, rows_floats), x + C, &k_stride, T, D);
    const float *dy = whole_rows(take(&scratch, rows_floats), dout, &dy_stride, T, D);
    memset(dk, 0, rows_floats * sizeof(float));
    memset(dv, 0, rows_floats * sizeof(float));
    float *dqkv = j->dqkv.data + (size_t)begin * stride + h * D;
    float unit[QUERIES];
    for (int r = 0; r < QUERIES; r++)
        unit[r] = 1;
    for (int t = 0; t < T; t += QUERIES) {
        int rows = T - t < QUERIES ? T - t : QUERIES, last = t + rows;
        scores(p, (size_t)width, q + (size_t)t * q_stride, q_stride, rows, keys, (size_t)width, last, D, scale);
        scores(ds, (size_t)width, dy + (size_t)t * dy_stride, dy_stride, rows, values, (size_t)width, last, D, 1);
        for (int r = 0; r < rows; r++) {
            int n = begin + t + r;
            float through = dot_product(dout + (size_t)(t + r) * C, y + (size_t)(t + r) * C, D);
            slopes(p + (size_t)r * (size_t)width, ds + (size_t)r * (size_t)width, t + r + 1, last,
                   j->lse[(size_t)h * N + n], through, scale, j->drop, ((uint64_t)h * N + n) * ATTENTION_STRIDE,
                   factors);
        }
        mix(dqkv + (size_t)t * stride, stride, ds, (size_t)width, rows, k, k_stride, last, D, unit);
        spread(dk, whole, ds, (size_t)width, rows, q + (size_t)t * q_stride, q_stride, last);
        spread(dv, whole, p, (size_t)width, rows, dy + (size_t)t * dy_stride, dy_stride, last);
    }
    copy_rows(dqkv + C, stride, dk, whole, T, D);
    copy_rows(dqkv + 2 * C, stride, dv, whole, T, D);
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
