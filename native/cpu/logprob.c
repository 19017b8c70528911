/* Rows of logits: log-probability, entropy, their gradient, and sampling.
 * Formulas in native/ref/logprob.c and native/ref/sample.c. */
#include "cpu.h"
#include "philox.h"
#include "simd.h"

void CPU_NAME(cpu_logprob_forward)(backend *b, float *logprob, float *entropy, float *lse, tensor logits,
                                   const int32_t *targets);
void CPU_NAME(cpu_logprob_backward)(backend *b, tensor dlogits, tensor logits, const float *lse, const int32_t *targets,
                                    const float *dlogprob);
void CPU_NAME(cpu_sample)(backend *b, int32_t *tokens, tensor logits, const uint64_t *stories, const int32_t *positions,
                          sample_options options);

typedef struct job {
    backend *b;
    float *logprob, *entropy, *lse;
    tensor dlogits, logits;
    const int32_t *targets, *positions;
    const float *dlogprob;
    int32_t *tokens;
    const uint64_t *stories;
    sample_options options;
} job;

static float highest(const float *z, int V)
{
    vec max = vec_set(-INFINITY);
    int i = 0;
    for (; i + LANES <= V; i += LANES)
        max = vec_max(max, vec_load(z + i));
    if (i < V)
        max = vec_max(max, vec_load_part(z + i, V - i, -INFINITY));
    return vec_highest(max);
}

static void forward_task(void *argument, int n, int worker)
{
    (void)worker;
    const job *j = argument;
    int V = j->logits.cols, i = 0, target = j->targets[n];
    const float *z = j->logits.data + (size_t)n * V;
    float max = highest(z, V);
    /* Summing p (z - max) instead of p z keeps the digits of the entropy. */
    vec sum = vec_set(0), weighted = vec_set(0), shift = vec_set(max);
    for (; i + LANES <= V; i += LANES) {
        vec x = vec_load(z + i) - shift, e = vec_exp(x);
        sum = sum + e;
        weighted = vec_fma(e, x, weighted);
    }
    if (i < V) {
        float part[LANES] = {0};
        vec x = vec_load_part(z + i, V - i, max) - shift;
        vec_store_part(part, V - i, vec_exp(x));
        sum = sum + vec_load(part);
        weighted = vec_fma(vec_load(part), x, weighted);
    }
    float total = vec_sum(sum), log_total = logf(total);
    j->lse[n] = max + log_total;
    j->logprob[n] = target < 0 ? 0 : (z[target] - max) - log_total;
    j->entropy[n] = target < 0 ? 0 : log_total - vec_sum(weighted) / total;
}

void CPU_NAME(cpu_logprob_forward)(backend *b, float *logprob, float *entropy, float *lse, tensor logits,
                                   const int32_t *targets)
{
    job j = {.logprob = logprob, .entropy = entropy, .lse = lse, .logits = logits, .targets = targets};
    thread_pool_run(cpu(b)->pool, logits.rows, forward_task, &j);
}

static void backward_task(void *argument, int n, int worker)
{
    (void)worker;
    const job *j = argument;
    int V = j->logits.cols, i = 0;
    const float *z = j->logits.data + (size_t)n * V;
    float *dz = j->dlogits.data + (size_t)n * V;
    if (j->targets[n] < 0) {
        memset(dz, 0, (size_t)V * sizeof(float));
        return;
    }
    vec shift = vec_set(j->lse[n]), factor = vec_set(-j->dlogprob[n]);
    for (; i + LANES <= V; i += LANES)
        vec_store(dz + i, factor * vec_exp(vec_load(z + i) - shift));
    if (i < V)
        vec_store_part(dz + i, V - i, factor * vec_exp(vec_load_part(z + i, V - i, 0) - shift));
    dz[j->targets[n]] += j->dlogprob[n];
}

void CPU_NAME(cpu_logprob_backward)(backend *b, tensor dlogits, tensor logits, const float *lse, const int32_t *targets,
                                    const float *dlogprob)
{
    job j = {.dlogits = dlogits, .logits = logits, .lse = (float *)lse, .targets = targets, .dlogprob = dlogprob};
    thread_pool_run(cpu(b)->pool, logits.rows, backward_task, &j);
}

/* The whole distribution: the inverse of the distribution function by sums of
 * whole vectors, in double in the order of the tokens, and inside the vector
 * that holds the draw token by token. sums [V / LANES]. */
static int draw(const float *z, int V, float temperature, double uniform, float *sums)
{
    float max = highest(z, V), e[LANES];
    vec shift = vec_set(max), scale = vec_set(1 / temperature);
    double total = 0, sum = 0;
    int i = 0;
    for (; i + LANES <= V; i += LANES)
        total += sums[i / LANES] = vec_sum(vec_exp((vec_load(z + i) - shift) * scale));
    for (; i < V; i++)
        total += expf((z[i] - max) / temperature);
    double target = uniform * total;
    for (i = 0; i + LANES <= V; i += LANES) {
        if (sum + sums[i / LANES] <= target) {
            sum += sums[i / LANES];
            continue;
        }
        vec_store(e, vec_exp((vec_load(z + i) - shift) * scale));
        for (int lane = 0; lane < LANES; lane++)
            if ((sum += e[lane]) > target)
                return i + lane;
        return i + LANES - 1; /* the parts' sum rounded otherwise than the vector's */
    }
    for (; i < V; i++)
        if ((sum += expf((z[i] - max) / temperature)) > target)
            return i;
    return V - 1;
}

static void sample_task(void *argument, int n, int worker)
{
    const job *j = argument;
    tensor row = tensor_rows(j->logits, (size_t)n, 1);
    sample_options o = j->options;
    if (o.temperature == 0 || o.top_k > 0 || o.top_p < 1)
        ref_sample(j->b, j->tokens + n, row, j->stories + n, j->positions + n, o);
    else
        j->tokens[n] = draw(row.data, row.cols, o.temperature,
                            philox_uniform(o.seed, j->stories[n], (uint32_t)j->positions[n]), scratch_of(j->b, worker));
}

void CPU_NAME(cpu_sample)(backend *b, int32_t *tokens, tensor logits, const uint64_t *stories, const int32_t *positions,
                          sample_options options)
{
    job j = {
        .b = b, .tokens = tokens, .logits = logits, .stories = stories, .positions = positions, .options = options};
    thread_pool_run(cpu(b)->pool, logits.rows, sample_task, &j);
}
