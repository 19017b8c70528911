/* Where the time of a student's calls goes: the student is driven through a
 * table whose ops read the clock and call those of its backend. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench.h"
#include "model.h"

#define ENTRIES 64 /* of an op, or of one shape of a multiplication */

/* What tells calls of one op apart, and what they compute. */
typedef struct work {
    int in, out; /* of a multiplication, else 0 */
    double flops;
} work;

typedef struct entry {
    const char *op;
    work shape;
    int64_t calls;
    double seconds, flops;
} entry;

struct student_profile {
    op_table ops;          /* first: a timed op finds its profile through its backend's table */
    const op_table *inner; /* the backend's own */
    student *s;
    entry entries[ENTRIES];
    int count;
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void add(student_profile *p, const char *op, work w, double seconds)
{
    int i = 0;
    while (i < p->count &&
           (p->entries[i].op != op || p->entries[i].shape.in != w.in || p->entries[i].shape.out != w.out))
        i++;
    if (i == ENTRIES)
        return; /* counts as the time between ops */
    if (i == p->count)
        p->entries[p->count++] = (entry){.op = op, .shape = w};
    p->entries[i].calls++;
    p->entries[i].seconds += seconds;
    p->entries[i].flops += w.flops;
}

static work product(int rows, int in, int out) { return (work){in, out, 2.0 * rows * in * out}; }

/* pair: multiplications and additions for a query and a key, of one channel. */
static work attention(double pair, ragged rows, int channels)
{
    double pairs = 0;
    for (int part = 0; part <= rows.stories; part++) {
        double T = rows.offsets[part] - ragged_begin(rows, part);
        pairs += T * (T + 1) / 2 + T * ragged_shared(rows, part);
    }
    return (work){0, 0, pair * channels * pairs};
}

#define PLAIN ((work){0, 0, 0})

#define TIMED(op, work_, parameters, ...)                                                                              \
    static void timed_##op parameters                                                                                  \
    {                                                                                                                  \
        student_profile *p = (student_profile *)b->ops;                                                                \
        double start = now();                                                                                          \
        p->inner->op(__VA_ARGS__);                                                                                     \
        add(p, #op, work_, now() - start);                                                                             \
    }

TIMED(zero, PLAIN, (backend * b, void *memory, size_t bytes), b, memory, bytes)
TIMED(embedding_forward, PLAIN,
      (backend * b, tensor out, tensor wte, tensor wpe, const int32_t *tokens, const int32_t *positions, dropout drop),
      b, out, wte, wpe, tokens, positions, drop)
TIMED(embedding_backward, PLAIN,
      (backend * b, tensor dwte, tensor dwpe, tensor dout, const int32_t *tokens, const int32_t *positions,
       dropout drop),
      b, dwte, dwpe, dout, tokens, positions, drop)
TIMED(layernorm_forward, PLAIN,
      (backend * b, tensor out, float *mean, float *rstd, tensor x, const float *gain, const float *bias,
       float epsilon),
      b, out, mean, rstd, x, gain, bias, epsilon)
TIMED(layernorm_backward, PLAIN,
      (backend * b, tensor dx, float *dgain, float *dbias, tensor dout, tensor x, const float *gain, const float *mean,
       const float *rstd),
      b, dx, dgain, dbias, dout, x, gain, mean, rstd)
TIMED(matmul_forward, product(x.rows, x.cols, out.cols),
      (backend * b, tensor out, tensor x, tensor w, const float *bias), b, out, x, w, bias)
TIMED(matmul_pack, product(0, w.cols, w.rows), (backend * b, float *packed, tensor w), b, packed, w)
TIMED(matmul_forward_packed, product(x.rows, x.cols, out.cols),
      (backend * b, tensor out, tensor x, const float *packed, const float *bias), b, out, x, packed, bias)
TIMED(matmul_backward_input, product(dx.rows, dx.cols, dout.cols),
      (backend * b, tensor dx, tensor dout, tensor w, int accumulate), b, dx, dout, w, accumulate)
TIMED(matmul_backward_weight, product(x.rows, x.cols, dout.cols),
      (backend * b, tensor dw, float *dbias, tensor dout, tensor x), b, dw, dbias, dout, x)
TIMED(attention_forward, attention(4, rows, out.cols),
      (backend * b, tensor out, float *lse, tensor qkv, ragged rows, int heads, dropout drop), b, out, lse, qkv, rows,
      heads, drop)
TIMED(attention_backward, attention(10, rows, out.cols),
      (backend * b, tensor dqkv, tensor dout, tensor qkv, tensor out, const float *lse, ragged rows, int heads,
       dropout drop),
      b, dqkv, dout, qkv, out, lse, rows, heads, drop)
TIMED(attention_decode, PLAIN,
      (backend * b, tensor out, tensor qkv, tensor cache, int context, int shared, const int32_t *slots,
       const int32_t *positions, int heads, dropout drop),
      b, out, qkv, cache, context, shared, slots, positions, heads, drop)
TIMED(gelu_forward, PLAIN, (backend * b, tensor out, tensor x), b, out, x)
TIMED(gelu_backward, PLAIN, (backend * b, tensor dx, tensor dout, tensor x), b, dx, dout, x)
TIMED(residual_forward, PLAIN, (backend * b, tensor out, tensor a, tensor x, dropout drop), b, out, a, x, drop)
TIMED(residual_backward, PLAIN, (backend * b, tensor dx, tensor dout, dropout drop), b, dx, dout, drop)
TIMED(logprob_forward, PLAIN,
      (backend * b, float *logprob, float *entropy, float *lse, tensor logits, const int32_t *targets), b, logprob,
      entropy, lse, logits, targets)
TIMED(logprob_backward, PLAIN,
      (backend * b, tensor dlogits, tensor logits, const float *lse, const int32_t *targets, const float *dlogprob), b,
      dlogits, logits, lse, targets, dlogprob)
TIMED(sample, PLAIN,
      (backend * b, int32_t *tokens, tensor logits, const uint64_t *stories, const int32_t *positions,
       sample_options options),
      b, tokens, logits, stories, positions, options)
TIMED(gradient_norm, PLAIN, (backend * b, double *norm, const float *g, size_t count), b, norm, g, count)
TIMED(adamw, PLAIN,
      (backend * b, float *w, const float *g, float *m, float *v, size_t count, const double *norm,
       adamw_options options),
      b, w, g, m, v, count, norm, options)
TIMED(residual_layernorm_forward, PLAIN,
      (backend * b, tensor out, tensor norm, float *mean, float *rstd, tensor a, tensor x, const float *gain,
       const float *bias, float epsilon, dropout drop),
      b, out, norm, mean, rstd, a, x, gain, bias, epsilon, drop)
TIMED(matmul_gelu_forward, product(x.rows, x.cols, up.cols),
      (backend * b, tensor gelu, tensor up, tensor x, tensor w, const float *bias), b, gelu, up, x, w, bias)
TIMED(gelu_matmul_forward, product(up.rows, up.cols, out.cols),
      (backend * b, tensor out, tensor up, tensor w, const float *bias), b, out, up, w, bias)
TIMED(matmul_gelu_backward, product(dup.rows, dup.cols, dout.cols),
      (backend * b, tensor dup, tensor dout, tensor w, tensor up), b, dup, dout, w, up)
TIMED(matmul_gelu_backward_weight, product(up.rows, up.cols, dout.cols),
      (backend * b, tensor dw, float *dbias, tensor dout, tensor up), b, dw, dbias, dout, up)
TIMED(matmul_norm_backward_weight, product(x.rows, x.cols, dout.cols),
      (backend * b, tensor dw, float *dbias, tensor dout, tensor x, const float *mean, const float *rstd,
       const float *gain, const float *bias),
      b, dw, dbias, dout, x, mean, rstd, gain, bias)

int student_profile_start(student *s, student_profile **out, char *message, size_t capacity)
{
    if (!strcmp(s->options.backend, "cuda"))
        return fail(message, capacity, STUDENT_E_CAPABILITY,
                    "a card runs behind its caller: ops of backend cuda are timed by bench ops and by NVIDIA's nsys");
    student_profile *p = calloc(1, sizeof *p);
    if (!p)
        return fail(message, capacity, STUDENT_E_MEMORY, "no memory for a profile");
    p->s = s;
    p->inner = s->backend.ops;
    p->ops = *p->inner;
#define PUT(op)                                                                                                        \
    if (p->inner->op)                                                                                                  \
        p->ops.op = timed_##op;
    PUT(zero)
    PUT(embedding_forward)
    PUT(embedding_backward)
    PUT(layernorm_forward)
    PUT(layernorm_backward)
    PUT(matmul_forward)
    PUT(matmul_pack)
    PUT(matmul_forward_packed)
    PUT(matmul_backward_input)
    PUT(matmul_backward_weight)
    PUT(attention_forward)
    PUT(attention_backward)
    PUT(attention_decode)
    PUT(gelu_forward)
    PUT(gelu_backward)
    PUT(residual_forward)
    PUT(residual_backward)
    PUT(logprob_forward)
    PUT(logprob_backward)
    PUT(sample)
    PUT(gradient_norm)
    PUT(adamw)
    PUT(residual_layernorm_forward)
    PUT(matmul_gelu_forward)
    PUT(gelu_matmul_forward)
    PUT(matmul_gelu_backward)
    PUT(matmul_gelu_backward_weight)
    PUT(matmul_norm_backward_weight)
    s->backend.ops = &p->ops;
    *out = p;
    return STUDENT_OK;
}

void student_profile_stop(student_profile *p)
{
    p->s->backend.ops = p->inner;
    free(p);
}

int32_t student_profile_read(const student_profile *p, int32_t index, student_profiled_op *op)
{
    if (index < 0 || index >= p->count || op->size != sizeof *op)
        return 0;
    const entry *e = &p->entries[index];
    if (e->shape.in)
        snprintf(op->name, sizeof op->name, "%s_%dx%d", e->op, e->shape.in, e->shape.out);
    else
        snprintf(op->name, sizeof op->name, "%s", e->op);
    op->calls = e->calls;
    op->seconds = e->seconds;
    op->flops = e->flops;
    return 1;
}
