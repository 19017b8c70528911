/* Embedding, GELU, residual and AdamW; formulas beside the ref ops of the
 * same names. */
#include "cpu.h"
#include "elements.h"

#define CHUNK 16384 /* elements of a task */

void CPU_NAME(cpu_embedding_forward)(backend *b, tensor out, tensor wte, tensor wpe, const int32_t *tokens,
                                     const int32_t *positions, dropout drop);
void CPU_NAME(cpu_embedding_backward)(backend *b, tensor dwte, tensor dwpe, tensor dout, const int32_t *tokens,
                                      const int32_t *positions, dropout drop);
void CPU_NAME(cpu_gelu_forward)(backend *b, tensor out, tensor x);
void CPU_NAME(cpu_gelu_backward)(backend *b, tensor dx, tensor dout, tensor x);
void CPU_NAME(cpu_residual_forward)(backend *b, tensor out, tensor a, tensor x, dropout drop);
void CPU_NAME(cpu_residual_backward)(backend *b, tensor dx, tensor dout, dropout drop);
void CPU_NAME(cpu_zero)(backend *b, void *memory, size_t bytes);
void CPU_NAME(cpu_gradient_norm)(backend *b, double *norm, const float *g, size_t count);
void CPU_NAME(cpu_adamw)(backend *b, float *w, const float *g, float *m, float *v, size_t count, const double *norm,
                         adamw_options o);

typedef struct job {
    tensor out, wte, wpe;
    const int32_t *tokens, *positions;
    float *to, *m, *v;
    const float *a, *x;
    double *partial;
    size_t count;
    dropout drop;
    vec beta1, rest1, beta2, rest2, gradient_scale, keep, step, root_scale, epsilon;
    int tasks;
} job;

static void run_chunks(backend *b, job *j, thread_body body)
{
    thread_pool_run(cpu(b)->pool, (int)((j->count + CHUNK - 1) / CHUNK), body, j);
}

#define FOR_CHUNK(j, task)                                                                                             \
    for (size_t i = (size_t)(task) * CHUNK, end = i + CHUNK < (j)->count ? i + CHUNK : (j)->count; i < end; i += LANES)

static void embed_task(void *argument, int n, int worker)
{
    (void)worker;
    const job *j = argument;
    int C = j->out.cols;
    const float *e = j->wte.data + (size_t)j->tokens[n] * C, *p = j->wpe.data + (size_t)j->positions[n] * C;
    float *out = j->out.data + (size_t)n * C;
    for (int c = 0; c < C; c += LANES)
        store(out + c, C - c, load(e + c, C - c) + load(p + c, C - c));
    if (j->drop.probability > 0)
        drop_elements(out, out, (size_t)C, j->drop, (uint64_t)n * (uint64_t)C);
}

void CPU_NAME(cpu_embedding_forward)(backend *b, tensor out, tensor wte, tensor wpe, const int32_t *tokens,
                                     const int32_t *positions, dropout drop)
{
    job j = {.out = out, .wte = wte, .wpe = wpe, .tokens = tokens, .positions = positions, .drop = drop};
    thread_pool_run(cpu(b)->pool, out.rows, embed_task, &j);
}

/* Tokens repeat, so columns are shared out, not rows. */
static void embed_backward_task(void *argument, int task, int worker)
{
    (void)worker;
    const job *j = argument;
    int C = j->out.cols;
    size_t begin, end;
    cpu_share((size_t)C, LANES, task, j->tasks, &begin, &end);
    float dropped[DROPPED];
    for (int n = 0; n < j->out.rows; n++)
        for (size_t c = begin; c < end; c += LANES) {
            int left = (int)(end - c);
            const float *from = j->out.data + (size_t)n * C + c;
            if (j->drop.probability > 0) {
                size_t at = (c - begin) % DROPPED, block = end - c < DROPPED ? end - c : DROPPED;
                if (at == 0)
                    drop_elements(dropped, from, block, j->drop, (uint64_t)n * (uint64_t)C + c);
                from = dropped + at;
            }
            vec d = load(from, left);
            float *e = j->wte.data + (size_t)j->tokens[n] * C + c, *p = j->wpe.data + (size_t)j->positions[n] * C + c;
            store(e, left, load(e, left) + d);
            store(p, left, load(p, left) + d);
        }
}

void CPU_NAME(cpu_embedding_backward)(backend *b, tensor dwte, tensor dwpe, tensor dout, const int32_t *tokens,
                                      const int32_t *positions, dropout drop)
{
    job j = {.out = dout,
             .wte = dwte,
             .wpe = dwpe,
             .tokens = tokens,
             .positions = positions,
             .drop = drop,
             .tasks = thread_pool_size(cpu(b)->pool)};
    thread_pool_run(cpu(b)->pool, j.tasks, embed_backward_task, &j);
}

static void gelu_task(void *argument, int task, int worker)
{
    (void)worker;
    const job *j = argument;
    FOR_CHUNK(j, task)
    {
        int left = (int)(end - i);
        store(j->to + i, left, gelu_value(load(j->x + i, left)));
    }
}

void CPU_NAME(cpu_gelu_forward)(backend *b, tensor out, tensor x)
{
    job j = {.to = out.data, .x = x.data, .count = tensor_count(out)};
    run_chunks(b, &j, gelu_task);
}

static void gelu_backward_task(void *argument, int task, int worker)
{
    (void)worker;
    const job *j = argument;
    FOR_CHUNK(j, task)
    {
        int left = (int)(end - i);
        store(j->to + i, left, load(j->a + i, left) * gelu_slope(load(j->x + i, left)));
    }
}

void CPU_NAME(cpu_gelu_backward)(backend *b, tensor dx, tensor dout, tensor x)
{
    job j = {.to = dx.data, .a = dout.data, .x = x.data, .count = tensor_count(dx)};
    run_chunks(b, &j, gelu_backward_task);
}

static void residual_task(void *argument, int task, int worker)
{
    (void)worker;
    const job *j = argument;
    size_t i = (size_t)task * CHUNK, count = j->count - i < CHUNK ? j->count - i : CHUNK;
    add_dropped(j->to + i, j->a ? j->a + i : NULL, j->x + i, count, j->drop, i);
}

void CPU_NAME(cpu_residual_forward)(backend *b, tensor out, tensor a, tensor x, dropout drop)
{
    job j = {.to = out.data, .a = a.data, .x = x.data, .count = tensor_count(out), .drop = drop};
    run_chunks(b, &j, residual_task);
}

void CPU_NAME(cpu_residual_backward)(backend *b, tensor dx, tensor dout, dropout drop)
{
    job j = {.to = dx.data, .x = dout.data, .count = tensor_count(dx), .drop = drop};
    run_chunks(b, &j, residual_task);
}

/* As large parts as can be: memset writes those past the caches. */
static void zero_task(void *argument, int task, int worker)
{
    (void)worker;
    const job *j = argument;
    size_t begin, end;
    cpu_share(j->count, CHUNK, task, j->tasks, &begin, &end);
    memset(j->to + begin, 0, (end - begin) * sizeof(float));
}

void CPU_NAME(cpu_zero)(backend *b, void *memory, size_t bytes)
{
    job j = {.to = memory, .count = bytes / sizeof(float), .tasks = thread_pool_size(cpu(b)->pool)};
    thread_pool_run(cpu(b)->pool, j.tasks, zero_task, &j);
    memset(j.to + j.count, 0, bytes % sizeof(float));
}

static void adamw_task(void *argument, int task, int worker)
{
    (void)worker;
    const job *j = argument;
    FOR_CHUNK(j, task)
    {
        int left = (int)(end - i);
        vec g = load(j->x + i, left) * j->gradient_scale;
        vec m = vec_fma(j->rest1, g, j->beta1 * load(j->m + i, left));
        vec v = vec_fma(j->rest2, g * g, j->beta2 * load(j->v + i, left));
        vec w = load(j->to + i, left) * j->keep;
        store(j->m + i, left, m);
        store(j->v + i, left, v);
        store(j->to + i, left, w - j->step * m / (vec_sqrt(v) * j->root_scale + j->epsilon));
    }
}

void CPU_NAME(cpu_adamw)(backend *b, float *w, const float *g, float *m, float *v, size_t count, const double *norm,
                         adamw_options o)
{
    if (!isfinite(*norm))
        return;
    double correction1 = 1 - pow(o.beta1, (double)o.step), correction2 = 1 - pow(o.beta2, (double)o.step);
    job j = {.to = w,
             .x = g,
             .m = m,
             .v = v,
             .count = o.decayed,
             .beta1 = vec_set((float)o.beta1),
             .rest1 = vec_set((float)(1 - o.beta1)),
             .beta2 = vec_set((float)o.beta2),
             .rest2 = vec_set((float)(1 - o.beta2)),
             .gradient_scale = vec_set((float)adamw_gradient_scale(*norm, o.max_grad_norm)),
             .keep = vec_set((float)(1 - o.lr * o.weight_decay)),
             .step = vec_set((float)(o.lr / correction1)),
             .root_scale = vec_set((float)(1 / sqrt(correction2))),
             .epsilon = vec_set((float)o.epsilon)};
    run_chunks(b, &j, adamw_task);
    j.to += o.decayed, j.x += o.decayed, j.m += o.decayed, j.v += o.decayed;
    j.count = count - o.decayed;
    j.keep = vec_set(1);
    run_chunks(b, &j, adamw_task);
}

static void squares_task(void *argument, int task, int worker)
{
    (void)worker;
    const job *j = argument;
    double lanes[LANES] = {0}, sum = 0;
    FOR_CHUNK(j, task)
    {
        float part[LANES] = {0};
        const float *x = j->x + i;
        if (i + LANES > end)
            x = memcpy(part, x, (end - i) * sizeof(float));
        for (int lane = 0; lane < LANES; lane++)
            lanes[lane] += (double)x[lane] * x[lane];
    }
    for (int lane = 0; lane < LANES; lane++)
        sum += lanes[lane];
    j->partial[task] = sum;
}

void CPU_NAME(cpu_gradient_norm)(backend *b, double *norm, const float *g, size_t count)
{
    /* Partial sums go to the scratch; a part of it at a time if need be. */
    size_t room = cpu(b)->scratch_size / 2;
    double sum = 0;
    for (size_t begin = 0; begin < count; begin += room * CHUNK) {
        job j = {.x = g + begin,
                 .partial = (double *)cpu(b)->scratch,
                 .count = count - begin < room * CHUNK ? count - begin : room * CHUNK};
        run_chunks(b, &j, squares_task);
        for (size_t i = 0; i < (j.count + CHUNK - 1) / CHUNK; i++)
            sum += j.partial[i];
    }
    *norm = sqrt(sum);
}
