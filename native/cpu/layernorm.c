/* Layer normalisation; formulas in native/ref/layernorm.c. Rows are shared out.
 * dgain and dbias take the sums of so many rows each, in their order: the bits
 * are the same whether rows come in one call or in several, cut between such sums. */
#include "cpu.h"
#include "elements.h"

#define ROWS_A_TASK 16
#define ROWS_A_PART 64              /* of the backward */
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
    float *mean, *rstd, *partial; /* [tasks][2C]: sums for dgain, for dbias */
    const float *gain, *bias;
    float epsilon;
    int first;
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
    row_norm norm = {&mean, &rstd, j->gain, j->bias};
    for (int c = 0; c < C; c += LANES)
        store(out + c, C - c, norm_value(load(x + c, C - c), &norm, 0, (size_t)c, C - c));
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

/* gain and bias get what rows first..end add to some columns, summed in registers. */
static inline __attribute__((always_inline)) void add_strip(const job *j, float *to_gain, float *to_bias, int first,
                                                            int end, size_t c, int left, const int vectors)
{
    vec gain[STRIP], bias[STRIP];
    size_t C = (size_t)j->x.cols;
    const float *x = j->x.data + (size_t)first * C + c, *d = j->dout.data + (size_t)first * C + c;
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++) {
        gain[v] = load(to_gain + c + v * LANES, left - v * LANES);
        bias[v] = load(to_bias + c + v * LANES, left - v * LANES);
    }
    for (int n = first; n < end; n++, x += C, d += C) {
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
        store(to_gain + c + v * LANES, left - v * LANES, gain[v]);
        store(to_bias + c + v * LANES, left - v * LANES, bias[v]);
    }
}

/* dx of a part's rows, and their sums for dgain and dbias, a few rows at a time
 * while they are in the cache. */
static void backward_task(void *argument, int task, int worker)
{
    (void)worker;
    const job *j = argument;
    int C = j->x.cols, begin = j->first + task * ROWS_A_PART;
    int end = begin + ROWS_A_PART < j->x.rows ? begin + ROWS_A_PART : j->x.rows;
    float *gain = j->partial + (size_t)task * 2 * (size_t)C, *bias = gain + C;
    memset(gain, 0, 2 * (size_t)C * sizeof *gain);
    for (int n = begin, next; n < end; n = next) {
        next = n + ROWS_A_TASK < end ? n + ROWS_A_TASK : end;
        for (int row = n; row < next; row++)
            backward_row(j, row);
        int c = 0;
        for (; c + STRIP * LANES <= C; c += STRIP * LANES)
            add_strip(j, gain, bias, n, next, (size_t)c, STRIP * LANES, STRIP);
        for (; c < C; c += LANES)
            add_strip(j, gain, bias, n, next, (size_t)c, C - c, 1);
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
             .partial = cpu(b)->scratch};
    for (; j.first < x.rows; j.first += LAYERNORM_PARTS * ROWS_A_PART) {
        int C = x.cols, parts = (x.rows - j.first + ROWS_A_PART - 1) / ROWS_A_PART;
        parts = parts < LAYERNORM_PARTS ? parts : LAYERNORM_PARTS;
        thread_pool_run(cpu(b)->pool, parts, backward_task, &j);
        const float *part = j.partial;
        for (int i = 0; i < parts; i++, part += 2 * C)
            for (int c = 0; c < C; c += LANES) {
                store(dgain + c, C - c, load(dgain + c, C - c) + load(part + c, C - c));
                store(dbias + c, C - c, load(dbias + c, C - c) + load(part + C + c, C - c));
            }
    }
}
