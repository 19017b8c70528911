/* Layer normalisation; formulas in native/ref/layernorm.c. Rows are shared
 * out for out and dx, columns for dgain and dbias, so that every sum has one
 * owner and one order. */
#include "cpu.h"
#include "elements.h"

#define ROWS_A_TASK 16
#define STRIP (LANES == 16 ? 8 : 4) /* vectors of dgain and dbias that are summed in registers */

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

/* dgain and dbias of some columns, whose sums stay in registers: in memory they
 * would share lines, fetched ahead, with those of another worker. */
static inline __attribute__((always_inline)) void add_strip(const job *j, size_t c, int left, const int vectors)
{
    vec gain[STRIP], bias[STRIP];
    size_t C = (size_t)j->x.cols;
    const float *x = j->x.data + c, *d = j->dout.data + c;
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++) {
        gain[v] = load(j->dgain + c + v * LANES, left - v * LANES);
        bias[v] = load(j->dbias + c + v * LANES, left - v * LANES);
    }
    for (int n = 0; n < j->x.rows; n++, x += C, d += C) {
        vec mean = vec_set(j->mean[n]), rstd = vec_set(j->rstd[n]);
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) {
            vec dy = load(d + v * LANES, left - v * LANES);
            gain[v] = vec_fma(dy, (load(x + v * LANES, left - v * LANES) - mean) * rstd, gain[v]);
            bias[v] = bias[v] + dy;
        }
    }
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++) {
        store(j->dgain + c + v * LANES, left - v * LANES, gain[v]);
        store(j->dbias + c + v * LANES, left - v * LANES, bias[v]);
    }
}

static void parameters_task(void *argument, int task, int worker)
{
    (void)worker;
    const job *j = argument;
    size_t c, end;
    cpu_share((size_t)j->x.cols, LANES, task, j->tasks, &c, &end);
    for (; c + STRIP * LANES <= end; c += STRIP * LANES)
        add_strip(j, c, STRIP * LANES, STRIP);
    for (; c < end; c += LANES)
        add_strip(j, c, (int)(end - c), 1);
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
