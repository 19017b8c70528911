/* Layer normalisation; formulas in native/ref/layernorm.c. Rows are shared
 * out for out and dx, columns for dgain and dbias, so that every sum has one
 * owner and one order. */
#include "cpu.h"
#include "elements.h"

#define ROWS_A_TASK 16

void CPU_NAME(cpu_layernorm_forward)(backend *b, tensor out, float *mean, float *rstd, tensor x, const float *gain,
                                     const float *bias, float epsilon);
void CPU_NAME(cpu_residual_layernorm_forward)(backend *b, tensor out, tensor norm, float *mean, float *rstd, tensor a,
                                              tensor x, const float *gain, const float *bias, float epsilon,
                                              dropout drop);
void CPU_NAME(cpu_layernorm_backward)(backend *b, tensor dx, float *dgain, float *dbias, tensor dout, tensor x,
                                      const float *gain, const float *mean, const float *rstd);

typedef struct job {
    tensor out, x, dx, dout, a, b;
    dropout drop;
    float *mean, *rstd, *dgain, *dbias;
    const float *gain, *bias;
    float epsilon;
    int tasks;
} job;

static void forward_row(const job *j, int n)
{
    int C = j->x.cols;
    const float *x = j->x.data + (size_t)n * C;
    float *out = j->out.data + (size_t)n * C;
    vec sum = vec_set(0), squares = vec_set(0);
    for (int c = 0; c < C; c += LANES)
        sum = sum + load(x + c, C - c);
    float mean = vec_sum(sum) / (float)C;
    for (int c = 0; c < C; c += LANES) {
        vec d = (C - c >= LANES ? vec_load(x + c) : vec_load_part(x + c, C - c, mean)) - vec_set(mean);
        squares = vec_fma(d, d, squares);
    }
    float rstd = 1 / sqrtf(vec_sum(squares) / (float)C + j->epsilon);
    for (int c = 0; c < C; c += LANES) {
        vec normal = (load(x + c, C - c) - vec_set(mean)) * vec_set(rstd);
        store(out + c, C - c, vec_fma(normal, load(j->gain + c, C - c), load(j->bias + c, C - c)));
    }
    j->mean[n] = mean;
    j->rstd[n] = rstd;
}

static void forward_task(void *argument, int task, int worker)
{
    (void)worker;
    const job *j = argument;
    for (int n = task * ROWS_A_TASK; n < (task + 1) * ROWS_A_TASK && n < j->x.rows; n++)
        forward_row(j, n);
}

void CPU_NAME(cpu_layernorm_forward)(backend *b, tensor out, float *mean, float *rstd, tensor x, const float *gain,
                                     const float *bias, float epsilon)
{
    job j = {.out = out, .x = x, .mean = mean, .rstd = rstd, .gain = gain, .bias = bias, .epsilon = epsilon};
    thread_pool_run(cpu(b)->pool, (x.rows + ROWS_A_TASK - 1) / ROWS_A_TASK, forward_task, &j);
}

static void residual_task(void *argument, int task, int worker)
{
    (void)worker;
    const job *j = argument;
    size_t C = (size_t)j->x.cols;
    for (int n = task * ROWS_A_TASK; n < (task + 1) * ROWS_A_TASK && n < j->x.rows; n++) {
        size_t at = (size_t)n * C;
        add_dropped(j->x.data + at, j->a.data + at, j->b.data + at, C, j->drop, at);
        forward_row(j, n);
    }
}

void CPU_NAME(cpu_residual_layernorm_forward)(backend *b, tensor out, tensor norm, float *mean, float *rstd, tensor a,
                                              tensor x, const float *gain, const float *bias, float epsilon,
                                              dropout drop)
{
    job j = {.out = norm,
             .x = out,
             .a = a,
             .b = x,
             .mean = mean,
             .rstd = rstd,
             .gain = gain,
             .bias = bias,
             .epsilon = epsilon,
             .drop = drop};
    thread_pool_run(cpu(b)->pool, (x.rows + ROWS_A_TASK - 1) / ROWS_A_TASK, residual_task, &j);
}

static void backward_row(const job *j, int n)
{
    int C = j->x.cols;
    const float *x = j->x.data + (size_t)n * C, *d = j->dout.data + (size_t)n * C;
    float *dx = j->dx.data + (size_t)n * C;
    vec mean = vec_set(j->mean[n]), rstd = vec_set(j->rstd[n]), sum_g = vec_set(0), sum_gn = vec_set(0);
    for (int c = 0; c < C; c += LANES) {
        vec g = load(d + c, C - c) * load(j->gain + c, C - c);
        sum_g = sum_g + g;
        sum_gn = vec_fma(g, (load(x + c, C - c) - mean) * rstd, sum_gn);
    }
    vec mean_g = vec_set(vec_sum(sum_g) / (float)C), mean_gn = vec_set(vec_sum(sum_gn) / (float)C);
    for (int c = 0; c < C; c += LANES) {
        vec g = load(d + c, C - c) * load(j->gain + c, C - c);
        vec normal = (load(x + c, C - c) - mean) * rstd;
        store(dx + c, C - c, vec_fma(rstd, g - mean_g - normal * mean_gn, load(dx + c, C - c)));
    }
}

static void backward_task(void *argument, int task, int worker)
{
    (void)worker;
    const job *j = argument;
    for (int n = task * ROWS_A_TASK; n < (task + 1) * ROWS_A_TASK && n < j->x.rows; n++)
        backward_row(j, n);
}

static void parameters_task(void *argument, int task, int worker)
{
    (void)worker;
    const job *j = argument;
    int C = j->x.cols;
    size_t begin, end;
    cpu_share((size_t)C, LANES, task, j->tasks, &begin, &end);
    for (int n = 0; n < j->x.rows; n++) {
        const float *x = j->x.data + (size_t)n * C, *d = j->dout.data + (size_t)n * C;
        vec mean = vec_set(j->mean[n]), rstd = vec_set(j->rstd[n]);
        for (size_t c = begin; c < end; c += LANES) {
            int left = (int)(end - c);
            vec dy = load(d + c, left);
            store(j->dgain + c, left, vec_fma(dy, (load(x + c, left) - mean) * rstd, load(j->dgain + c, left)));
            store(j->dbias + c, left, load(j->dbias + c, left) + dy);
        }
    }
}

void CPU_NAME(cpu_layernorm_backward)(backend *b, tensor dx, float *dgain, float *dbias, tensor dout, tensor x,
                                      const float *gain, const float *mean, const float *rstd)
{
    job j = {.dx = dx,
             .dout = dout,
             .x = x,
             .gain = gain,
             .mean = (float *)mean,
             .rstd = (float *)rstd,
             .dgain = dgain,
             .dbias = dbias,
             .tasks = thread_pool_size(cpu(b)->pool)};
    thread_pool_run(cpu(b)->pool, (x.rows + ROWS_A_TASK - 1) / ROWS_A_TASK, backward_task, &j);
    thread_pool_run(cpu(b)->pool, j.tasks, parameters_task, &j);
}
