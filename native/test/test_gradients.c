/* Every backward op of every backend against central differences of its own
 * forward, over odd sizes, one row, one token and mixed lengths.
 *
 * The objective is L = sum out * d in double, with random d. The forwards are
 * float, so a difference quotient of step h carries a rounding error near
 * 1e-7 / h beside its h^2: with h = 1e-2 three to four digits remain, hence
 * NMSE < 1e-5. A wrong term is off by NMSE near 1. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops.h"

#define BOUND 1e-5
#define STEP 1e-2f
enum { ROOM = 4096, INPUTS = 3 };

static int failures, cases;
static uint64_t generator = 1181783497276652981ull;

static double uniform(void)
{
    generator ^= generator << 13;
    generator ^= generator >> 7;
    generator ^= generator << 17;
    return (double)(generator >> 11) * 0x1p-53;
}

static void fill(float *x, size_t n, double scale)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (float)((uniform() + uniform() + uniform() - 1.5) * scale);
}

/* One op with its inputs and their gradients. */
typedef struct problem {
    backend *b;
    int rows, in, out, heads, stories;
    const int32_t *offsets;
    dropout drop;
    size_t counts[INPUTS], output;
    float input[INPUTS][ROOM], gradient[INPUTS][ROOM], result[ROOM], d[ROOM], keep[3][ROOM];
    int32_t tokens[ROOM], positions[ROOM];
} problem;

static problem p;

static tensor matrix(float *data, int rows, int cols) { return (tensor){data, rows, cols, TENSOR_F32}; }

static double objective(void (*forward)(void))
{
    forward();
    double sum = 0;
    for (size_t i = 0; i < p.output; i++)
        sum += (double)p.result[i] * p.d[i];
    return sum;
}

static void check(const char *isa, const char *op, void (*forward)(void), void (*backward)(void))
{
    static float analytic[ROOM];
    for (int k = 0; k < INPUTS; k++) {
        if (!p.counts[k])
            continue;
        memset(p.gradient, 0, sizeof p.gradient);
        forward();
        backward();
        memcpy(analytic, p.gradient[k], sizeof analytic);
        double error = 0, size = 0;
        for (size_t i = 0; i < p.counts[k]; i++) {
            float x = p.input[k][i];
            p.input[k][i] = x + STEP;
            double above = objective(forward);
            p.input[k][i] = x - STEP;
            double below = objective(forward);
            double slope = (above - below) / ((double)(x + STEP) - (double)(x - STEP));
            p.input[k][i] = x;
            error += (slope - analytic[i]) * (slope - analytic[i]);
            size += slope * slope;
        }
        cases++;
        double nmse = size > 0 ? error / size : error;
        if (!(nmse < BOUND)) {
            failures++;
            printf("FAIL %-9s %-12s input %d, %d x %d -> %d: NMSE %.2e > %.0e\n", isa, op, k, p.rows, p.in, p.out, nmse,
                   BOUND);
        }
    }
}

static void prepare(size_t a, size_t b, size_t c, size_t output)
{
    p.counts[0] = a;
    p.counts[1] = b;
    p.counts[2] = c;
    p.output = output;
    for (int k = 0; k < INPUTS; k++)
        fill(p.input[k], p.counts[k], 1);
    fill(p.d, output, 1);
}

static void matmul_forward(void)
{
    p.b->ops->matmul_forward(p.b, matrix(p.result, p.rows, p.out), matrix(p.input[0], p.rows, p.in),
                             matrix(p.input[1], p.out, p.in), p.input[2]);
}

static void matmul_backward(void)
{
    tensor d = matrix(p.d, p.rows, p.out);
    p.b->ops->matmul_backward_input(p.b, matrix(p.gradient[0], p.rows, p.in), d, matrix(p.input[1], p.out, p.in), 0);
    p.b->ops->matmul_backward_weight(p.b, matrix(p.gradient[1], p.out, p.in), p.gradient[2], d,
                                     matrix(p.input[0], p.rows, p.in));
}

static void layernorm_forward(void)
{
    p.b->ops->layernorm_forward(p.b, matrix(p.result, p.rows, p.in), p.keep[0], p.keep[1],
                                matrix(p.input[0], p.rows, p.in), p.input[1], p.input[2], 1e-5f);
}

static void layernorm_backward(void)
{
    p.b->ops->layernorm_backward(p.b, matrix(p.gradient[0], p.rows, p.in), p.gradient[1], p.gradient[2],
                                 matrix(p.d, p.rows, p.in), matrix(p.input[0], p.rows, p.in), p.input[1], p.keep[0],
                                 p.keep[1]);
}

static tensor row(float *data) { return matrix(data, 1, (int)p.output); }

static void gelu_forward(void) { p.b->ops->gelu_forward(p.b, row(p.result), row(p.input[0])); }
static void gelu_backward(void) { p.b->ops->gelu_backward(p.b, row(p.gradient[0]), row(p.d), row(p.input[0])); }

static void residual_forward(void)
{
    p.b->ops->residual_forward(p.b, row(p.result), row(p.input[0]), row(p.input[1]), p.drop);
}

static void residual_backward(void)
{
    memcpy(p.gradient[0], p.d, p.output * sizeof *p.d);
    p.b->ops->residual_backward(p.b, row(p.gradient[1]), row(p.d), p.drop);
}

static void attention_forward(void)
{
    ragged rows = {p.offsets, p.stories, p.offsets[0]};
    p.b->ops->attention_forward(p.b, matrix(p.result, p.rows, p.out), p.keep[0], matrix(p.input[0], p.rows, 3 * p.out),
                                rows, p.heads, p.drop);
}

static void attention_backward(void)
{
    ragged rows = {p.offsets, p.stories, p.offsets[0]};
    p.b->ops->attention_backward(p.b, matrix(p.gradient[0], p.rows, 3 * p.out), matrix(p.d, p.rows, p.out),
                                 matrix(p.input[0], p.rows, 3 * p.out), matrix(p.result, p.rows, p.out), p.keep[0],
                                 rows, p.heads, p.drop);
}

static void logprob_forward(void)
{
    memcpy(p.keep[1], p.input[0], p.counts[0] * sizeof(float));
    p.b->ops->logprob_forward(p.b, p.result, p.keep[2], p.keep[0], matrix(p.keep[1], p.rows, p.in), p.tokens);
}

static void logprob_backward(void)
{
    p.b->ops->logprob_backward(p.b, matrix(p.gradient[0], p.rows, p.in), matrix(p.input[0], p.rows, p.in), p.keep[0],
                               p.tokens, p.d);
}

static void embedding_forward(void)
{
    p.b->ops->embedding_forward(p.b, matrix(p.result, p.rows, p.out), matrix(p.input[0], 5, p.out),
                                matrix(p.input[1], p.rows, p.out), p.tokens, p.positions, p.drop);
}

static void embedding_backward(void)
{
    p.b->ops->embedding_backward(p.b, matrix(p.gradient[0], 5, p.out), matrix(p.gradient[1], p.rows, p.out),
                                 matrix(p.d, p.rows, p.out), p.tokens, p.positions, p.drop);
}

static size_t area(int a, int b) { return (size_t)a * (size_t)b; }

static void test_backend(const char *isa)
{
    const int sizes[][3] = {{1, 1, 1}, {1, 33, 7}, {3, 5, 2}, {14, 32, 9}, {17, 19, 33}};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        p.rows = sizes[s][0];
        p.in = sizes[s][1];
        p.out = sizes[s][2];
        prepare(area(p.rows, p.in), area(p.out, p.in), (size_t)p.out, area(p.rows, p.out));
        check(isa, "matmul", matmul_forward, matmul_backward);
        p.in += 2; /* a norm over one number has no slope */
        prepare(area(p.rows, p.in), (size_t)p.in, (size_t)p.in, area(p.rows, p.in));
        check(isa, "layernorm", layernorm_forward, layernorm_backward);
        for (int t = 0; t < p.rows; t++) {
            p.tokens[t] = (int32_t)(uniform() * p.in);
            p.positions[t] = t;
        }
        prepare(area(p.rows, p.in), 0, 0, (size_t)p.rows);
        check(isa, "logprob", logprob_forward, logprob_backward);
        for (int t = 0; t < p.rows; t++)
            p.tokens[t] = (int32_t)(uniform() * 5);
        for (int drops = 0; drops < 2; drops++) {
            p.drop = (dropout){0.25f * (float)drops, 21, 3, 1, 0};
            prepare(area(5, p.out), area(p.rows, p.out), 0, area(p.rows, p.out));
            check(isa, "embedding", embedding_forward, embedding_backward);
            prepare(area(p.rows, p.in), area(p.rows, p.in), 0, area(p.rows, p.in));
            check(isa, "residual", residual_forward, residual_backward);
        }
        prepare(area(p.rows, p.in), 0, 0, area(p.rows, p.in));
        check(isa, "gelu", gelu_forward, gelu_backward);
    }
    static const int32_t one[] = {0, 1}, mixed[] = {0, 1, 3, 6, 10, 27}, alone[] = {0, 21};
    static const int32_t prefix[] = {1, 2}, odd[] = {5, 6, 9, 17, 18}, longer[] = {17, 20, 21};
    static const struct {
        const int32_t *offsets;
        int stories;
    } rows[] = {{one, 1}, {mixed, 5}, {alone, 1}, {prefix, 1}, {odd, 4}, {longer, 2}};
    static const int heads[][2] = {{1, 1}, {2, 8}, {3, 5}, {1, 17}};
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
        for (size_t h = 0; h < 4; h++)
            for (int drops = 0; drops < (rows[r].offsets[0] ? 1 : 2); drops++) {
                p.offsets = rows[r].offsets;
                p.stories = rows[r].stories;
                p.rows = p.offsets[p.stories];
                p.heads = heads[h][0];
                p.out = p.heads * heads[h][1];
                p.in = 3 * p.out;
                p.drop = (dropout){0.25f * (float)drops, 21, 3, 1, 0};
                prepare(area(p.rows, 3 * p.out), 0, 0, area(p.rows, p.out));
                check(isa, "attention", attention_forward, attention_backward);
            }
}

int main(void)
{
    static const char *const sets[] = {"ref", "portable", "avx2", "avx512"};
    for (int i = 0; i < 4; i++) {
        backend b;
        char message[256];
        backend_limits limits = {
            .rows = 64, .width = 4096, .threads = 2, .context = 64, .head_width = 64, .stream = 64, .isa = sets[i]};
        memset(&b, 0, sizeof b);
        int status = i == 0 ? backend_ref_create(&b, &limits, message, sizeof message)
                            : backend_cpu_create(&b, &limits, message, sizeof message);
        if (status) {
            printf("%s is not supported here: %s\n", sets[i], message);
            continue;
        }
        p.b = &b;
        test_backend(sets[i]);
        b.ops->destroy(&b);
    }
    printf("%d gradients against central differences, %d failed\n", cases, failures);
    return failures != 0;
}
