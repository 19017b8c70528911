/* The op matrix: every op of every backend of this machine against ref, over a
 * spread of shapes: odd sizes, one row, one token, lengths 1..T mixed.
 *
 * The error is the normalised mean squared error
 *   NMSE = sum (got - want)^2 / sum want^2
 * against ref, which sums in double. The bound is 1e-12 (6 digits); ops whose
 * bound is another say why at their case. Exit status 1 when a bound is
 * passed. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops.h"

#define BOUND 1e-12

static int failures, cases;
static uint64_t generator = 88172645463325252ull;

static double uniform(void)
{
    generator ^= generator << 13;
    generator ^= generator >> 7;
    generator ^= generator << 17;
    return (double)(generator >> 11) * 0x1p-53;
}

static float *filled(size_t n, double scale)
{
    float *x = malloc((n ? n : 1) * sizeof *x);
    if (!x)
        abort();
    for (size_t i = 0; i < n; i++)
        x[i] = (float)((uniform() + uniform() + uniform() - 1.5) * scale);
    return x;
}

static float *copied(const float *from, size_t n)
{
    float *x = filled(n, 0);
    memcpy(x, from, n * sizeof *x);
    return x;
}

static void check(const char *isa, const char *op, const char *shape, const float *got, const float *want, size_t n,
                  double bound)
{
    double error = 0, size = 0;
    int finite = 1;
    for (size_t i = 0; i < n; i++) {
        error += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        size += (double)want[i] * want[i];
        finite &= isfinite(got[i]) != 0;
    }
    double nmse = size > 0 ? error / size : error;
    cases++;
    if (!finite || nmse > bound) {
        failures++;
        printf("FAIL %-10s %-24s %-22s NMSE %.2e > %.0e%s\n", isa, op, shape, nmse, bound,
               finite ? "" : ", not finite");
    }
}

static tensor matrix(float *data, int rows, int cols) { return (tensor){data, rows, cols}; }

static void test_matmul(backend *b, backend *r, int N, int I, int O)
{
    char shape[64];
    snprintf(shape, sizeof shape, "N%d I%d O%d", N, I, O);
    size_t ni = (size_t)N * I, no = (size_t)N * O, oi = (size_t)O * I;
    float *x = filled(ni, 1), *w = filled(oi, 1), *bias = filled(O, 1), *dout = filled(no, 1);
    for (int with_bias = 0; with_bias < 2; with_bias++) {
        float *got = filled(no, 9), *want = filled(no, 9);
        b->ops->matmul_forward(b, matrix(got, N, O), matrix(x, N, I), matrix(w, O, I), with_bias ? bias : NULL);
        r->ops->matmul_forward(r, matrix(want, N, O), matrix(x, N, I), matrix(w, O, I), with_bias ? bias : NULL);
        check(b->isa, "matmul_forward", shape, got, want, no, BOUND);
        free(got);
        free(want);
        float *dx = filled(ni, 1), *dx_want = copied(dx, ni);
        b->ops->matmul_backward_input(b, matrix(dx, N, I), matrix(dout, N, O), matrix(w, O, I), with_bias);
        r->ops->matmul_backward_input(r, matrix(dx_want, N, I), matrix(dout, N, O), matrix(w, O, I), with_bias);
        check(b->isa, "matmul_backward_input", shape, dx, dx_want, ni, BOUND);
        float *dw = filled(oi, 1), *dw_want = copied(dw, oi), *db = copied(bias, O), *db_want = copied(bias, O);
        b->ops->matmul_backward_weight(b, matrix(dw, O, I), with_bias ? db : NULL, matrix(dout, N, O), matrix(x, N, I));
        r->ops->matmul_backward_weight(r, matrix(dw_want, O, I), with_bias ? db_want : NULL, matrix(dout, N, O),
                                       matrix(x, N, I));
        check(b->isa, "matmul_backward_weight", shape, dw, dw_want, oi, BOUND);
        check(b->isa, "matmul bias gradient", shape, db, db_want, O, BOUND);
        float *frees[] = {dx, dx_want, dw, dw_want, db, db_want};
        for (int i = 0; i < 6; i++)
            free(frees[i]);
    }
    free(x);
    free(w);
    free(bias);
    free(dout);
}

static void test_layernorm(backend *b, backend *r, int N, int C)
{
    char shape[64];
    snprintf(shape, sizeof shape, "N%d C%d", N, C);
    size_t n = (size_t)N * C;
    float *x = filled(n, 3), *gain = filled(C, 1), *bias = filled(C, 1), *dout = filled(n, 1);
    float *out[2], *mean[2], *rstd[2], *dx[2], *dgain[2], *dbias[2];
    backend *both[2] = {b, r};
    float *start = filled(n, 1);
    for (int k = 0; k < 2; k++) {
        out[k] = filled(n, 1);
        mean[k] = filled(N, 1);
        rstd[k] = filled(N, 1);
        dx[k] = copied(start, n);
        dgain[k] = copied(gain, C);
        dbias[k] = copied(bias, C);
        both[k]->ops->layernorm_forward(both[k], matrix(out[k], N, C), mean[k], rstd[k], matrix(x, N, C), gain, bias,
                                        1e-5f);
        both[k]->ops->layernorm_backward(both[k], matrix(dx[k], N, C), dgain[k], dbias[k], matrix(dout, N, C),
                                         matrix(x, N, C), gain, mean[k], rstd[k]);
    }
    check(b->isa, "layernorm_forward", shape, out[0], out[1], n, BOUND);
    /* The input gradient cancels where the row is short: 5 digits. */
    check(b->isa, "layernorm_backward dx", shape, dx[0], dx[1], n, 1e-10);
    check(b->isa, "layernorm_backward dgain", shape, dgain[0], dgain[1], C, BOUND);
    check(b->isa, "layernorm_backward dbias", shape, dbias[0], dbias[1], C, BOUND);
    for (int k = 0; k < 2; k++) {
        float *frees[] = {out[k], mean[k], rstd[k], dx[k], dgain[k], dbias[k]};
        for (int i = 0; i < 6; i++)
            free(frees[i]);
    }
    free(x);
    free(gain);
    free(bias);
    free(dout);
    free(start);
}

static void test_attention(backend *b, backend *r, const int32_t *offsets, int stories, int heads, int D, dropout drop)
{
    char shape[64];
    int N = offsets[stories], C = heads * D;
    snprintf(shape, sizeof shape, "N%d H%d D%d p%.1f", N, heads, D, drop.probability);
    size_t n = (size_t)N * C;
    float *qkv = filled(3 * n, 2), *dout = filled(n, 1);
    float *out[2], *lse[2], *dqkv[2];
    backend *both[2] = {b, r};
    ragged rows = {offsets, stories};
    for (int k = 0; k < 2; k++) {
        out[k] = filled(n, 1);
        lse[k] = filled((size_t)heads * N, 1);
        dqkv[k] = filled(3 * n, 1);
        both[k]->ops->attention_forward(both[k], matrix(out[k], N, C), lse[k], matrix(qkv, N, 3 * C), rows, heads,
                                        drop);
        both[k]->ops->attention_backward(both[k], matrix(dqkv[k], N, 3 * C), matrix(dout, N, C), matrix(qkv, N, 3 * C),
                                         matrix(out[k], N, C), lse[k], rows, heads, drop);
    }
    check(b->isa, "attention_forward", shape, out[0], out[1], n, BOUND);
    check(b->isa, "attention lse", shape, lse[0], lse[1], (size_t)heads * N, BOUND);
    /* dp - dout . out cancels when one key takes all: 5 digits. */
    check(b->isa, "attention_backward", shape, dqkv[0], dqkv[1], 3 * n, 1e-10);

    /* Decoding every story token by token gives the same bits as forward. */
    if (drop.probability == 0) {
        int longest = 0;
        for (int s = 0; s < stories; s++)
            longest = offsets[s + 1] - offsets[s] > longest ? offsets[s + 1] - offsets[s] : longest;
        float *cache = filled((size_t)stories * longest * 2 * C, 1), *told = filled(n, 1);
        for (int s = 0; s < stories; s++)
            for (int t = offsets[s]; t < offsets[s + 1]; t++) {
                int32_t slot = s, position = t - offsets[s];
                b->ops->attention_decode(b, matrix(told + (size_t)t * C, 1, C),
                                         matrix(qkv + (size_t)t * 3 * C, 1, 3 * C), cache, longest, &slot, &position,
                                         heads);
            }
        check(b->isa, "attention_decode", shape, told, out[0], n, 0);
        free(cache);
        free(told);
    }
    for (int k = 0; k < 2; k++) {
        free(out[k]);
        free(lse[k]);
        free(dqkv[k]);
    }
    free(qkv);
    free(dout);
}

static void test_elementwise(backend *b, backend *r, int n)
{
    char shape[64];
    snprintf(shape, sizeof shape, "n%d", n);
    float *x = filled(n, 4), *d = filled(n, 1), *got = filled(n, 1), *want = filled(n, 1);
    b->ops->gelu_forward(b, got, x, n);
    r->ops->gelu_forward(r, want, x, n);
    check(b->isa, "gelu_forward", shape, got, want, n, BOUND);
    b->ops->gelu_backward(b, got, d, x, n);
    r->ops->gelu_backward(r, want, d, x, n);
    check(b->isa, "gelu_backward", shape, got, want, n, BOUND);
    for (int p = 0; p < 2; p++) {
        dropout drop = {0.3f * p, 11, 5, 2};
        b->ops->residual_forward(b, got, d, x, n, drop);
        r->ops->residual_forward(r, want, d, x, n, drop);
        check(b->isa, "residual_forward", shape, got, want, n, BOUND);
        b->ops->residual_backward(b, got, d, n, drop);
        r->ops->residual_backward(r, want, d, n, drop);
        check(b->isa, "residual_backward", shape, got, want, n, p ? BOUND : INFINITY);
    }
    float *w[2], *m[2], *v[2];
    backend *both[2] = {b, r};
    adamw_options o = {1e-3, 0.9, 0.999, 1e-8, 0.01, 0.5, 3};
    float *m0 = filled(n, 1), *v0 = filled(n, 1);
    for (int i = 0; i < n; i++)
        v0[i] *= v0[i];
    for (int k = 0; k < 2; k++) {
        w[k] = copied(x, n);
        m[k] = copied(m0, n);
        v[k] = copied(v0, n);
        both[k]->ops->adamw(both[k], w[k], d, m[k], v[k], n, o);
    }
    check(b->isa, "adamw weights", shape, w[0], w[1], n, BOUND);
    check(b->isa, "adamw first moment", shape, m[0], m[1], n, BOUND);
    check(b->isa, "adamw second moment", shape, v[0], v[1], n, BOUND);
    float squares[2] = {(float)b->ops->sum_squares(b, x, n), (float)r->ops->sum_squares(r, x, n)};
    check(b->isa, "sum_squares", shape, squares, squares + 1, 1, BOUND);
    for (int k = 0; k < 2; k++) {
        free(w[k]);
        free(m[k]);
        free(v[k]);
    }
    free(m0);
    free(v0);
    free(x);
    free(d);
    free(got);
    free(want);
}

static void test_head(backend *b, backend *r, int n, int V)
{
    char shape[64];
    snprintf(shape, sizeof shape, "n%d V%d", n, V);
    size_t all = (size_t)n * V;
    float *z = filled(all, 5), *d = filled(n, 1), *out[2][4];
    int32_t *targets = malloc(n * sizeof *targets), *tokens = malloc(n * sizeof *tokens);
    int32_t *positions = calloc(n, sizeof *positions);
    uint64_t *stories = calloc(n, sizeof *stories);
    for (int i = 0; i < n; i++) {
        targets[i] = i % 5 == 4 ? -1 : (int32_t)(uniform() * V);
        stories[i] = i;
    }
    backend *both[2] = {b, r};
    for (int k = 0; k < 2; k++) {
        for (int i = 0; i < 3; i++)
            out[k][i] = filled(n, 1);
        out[k][3] = copied(z, all);
        both[k]->ops->logprob_forward(both[k], out[k][0], out[k][1], out[k][2], matrix(z, n, V), targets);
        both[k]->ops->logprob_backward(both[k], matrix(out[k][3], n, V), out[k][2], targets, d);
    }
    check(b->isa, "logprob", shape, out[0][0], out[1][0], n, BOUND);
    check(b->isa, "entropy", shape, out[0][1], out[1][1], n, 1e-11);
    check(b->isa, "lse", shape, out[0][2], out[1][2], n, BOUND);
    // p - 1 cancels where the target has nearly all the probability: the float
    // rounding of logsumexp is then large beside what is left.
    check(b->isa, "logprob_backward", shape, out[0][3], out[1][3], all, 1e-10);
    /* A draw must have the probability it claims: over many stories the counts
     * of the best token agree with it within five standard deviations. */
    int hits = 0, draws = 2000;
    float *row = copied(z, V);
    int best = 0;
    double total = 0;
    for (int j = 0; j < V; j++)
        best = row[j] > row[best] ? j : best;
    for (int j = 0; j < V; j++)
        total += exp((double)row[j] - row[best]);
    for (int i = 0; i < draws; i++) {
        uint64_t story = i;
        b->ops->sample(b, tokens, matrix(row, 1, V), &story, positions, (sample_options){1, 1, 0, 9});
        hits += tokens[0] == best;
    }
    double p = 1 / total;
    cases++;
    if (fabs(hits - draws * p) > 5 * sqrt(draws * p * (1 - p)) + 1) {
        failures++;
        printf("FAIL %-10s sample: best token drawn %d of %d times, p %.4f\n", b->isa, hits, draws, p);
    }
    /* Greedy, top-k 1 and a tiny top-p all take the best one. */
    const sample_options narrow[] = {{0, 1, 0, 9}, {1, 1, 1, 9}, {1, 1e-6f, 0, 9}};
    for (int i = 0; i < 3; i++) {
        b->ops->sample(b, tokens, matrix(row, 1, V), stories, positions, narrow[i]);
        cases++;
        if (tokens[0] != best) {
            failures++;
            printf("FAIL %-10s sample: narrow option %d took %d, not %d\n", b->isa, i, tokens[0], best);
        }
    }
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < 4; i++)
            free(out[k][i]);
    free(row);
    free(z);
    free(d);
    free(targets);
    free(tokens);
    free(positions);
    free(stories);
}

static void test_embedding(backend *b, backend *r, int N, int C)
{
    enum { V = 13, T = 9 };
    char shape[64];
    snprintf(shape, sizeof shape, "N%d C%d", N, C);
    float *wte = filled((size_t)V * C, 1), *wpe = filled((size_t)T * C, 1), *d = filled((size_t)N * C, 1);
    int32_t *tokens = malloc(N * sizeof *tokens), *positions = malloc(N * sizeof *positions);
    for (int i = 0; i < N; i++) {
        tokens[i] = i * 7 % V;
        positions[i] = i % T;
    }
    backend *both[2] = {b, r};
    float *out[2], *dwte[2], *dwpe[2];
    dropout drop = {0.2f, 3, 4, 0};
    for (int k = 0; k < 2; k++) {
        out[k] = filled((size_t)N * C, 1);
        dwte[k] = copied(wte, (size_t)V * C);
        dwpe[k] = copied(wpe, (size_t)T * C);
        both[k]->ops->embedding_forward(both[k], matrix(out[k], N, C), matrix(wte, V, C), matrix(wpe, T, C), tokens,
                                        positions, drop);
        both[k]->ops->embedding_backward(both[k], matrix(dwte[k], V, C), matrix(dwpe[k], T, C), matrix(d, N, C), tokens,
                                         positions, drop);
    }
    check(b->isa, "embedding_forward", shape, out[0], out[1], (size_t)N * C, BOUND);
    check(b->isa, "embedding_backward wte", shape, dwte[0], dwte[1], (size_t)V * C, BOUND);
    check(b->isa, "embedding_backward wpe", shape, dwpe[0], dwpe[1], (size_t)T * C, BOUND);
    for (int k = 0; k < 2; k++) {
        free(out[k]);
        free(dwte[k]);
        free(dwpe[k]);
    }
    free(wte);
    free(wpe);
    free(d);
    free(tokens);
    free(positions);
}

static void test_backend(backend *b, backend *r)
{
    const int sizes[][3] = {{1, 1, 1},      {1, 33, 7},   {3, 5, 2},     {14, 32, 32},  {15, 257, 65},
                            {85, 300, 259}, {64, 64, 64}, {7, 1024, 96}, {200, 48, 31}, {33, 513, 130}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        test_matmul(b, r, sizes[i][0], sizes[i][1], sizes[i][2]);
        test_layernorm(b, r, sizes[i][0], sizes[i][1] + 1);
        test_embedding(b, r, sizes[i][0], sizes[i][2]);
        test_elementwise(b, r, sizes[i][0] * sizes[i][1]);
        test_head(b, r, sizes[i][0] > 20 ? 20 : sizes[i][0], sizes[i][1] + 2);
    }
    test_elementwise(b, r, 40000);
    const int32_t one[] = {0, 1}, mixed[] = {0, 1, 3, 6, 10, 33, 34, 66}, alone[] = {0, 70};
    const int shapes[][2] = {{1, 1}, {2, 16}, {3, 20}, {1, 64}, {4, 7}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        for (int p = 0; p < 2; p++) {
            dropout drop = {0.25f * p, 21, 3, 1};
            test_attention(b, r, one, 1, shapes[i][0], shapes[i][1], drop);
            test_attention(b, r, mixed, 7, shapes[i][0], shapes[i][1], drop);
            test_attention(b, r, alone, 1, shapes[i][0], shapes[i][1], drop);
        }
}

int main(void)
{
    static const char *const isas[] = {"portable", "avx2", "avx512"};
    backend reference;
    char message[256] = "";
    backend_limits limits = {.rows = 256, .width = 65536, .threads = 2};
    if (backend_ref_create(&reference, &limits, message, sizeof message))
        return 2;
    for (int i = 0; i < 3; i++) {
        backend b;
        limits.isa = isas[i];
        int status = backend_cpu_create(&b, &limits, message, sizeof message);
        if (status) {
            printf("not supported here: cpu %s (%s)\n", isas[i], message);
            continue;
        }
        int before = cases;
        test_backend(&b, &reference);
        printf("cpu %-9s %d cases against ref\n", isas[i], cases - before);
        b.ops->destroy(&b);
    }
    printf("%d cases, %d failed\n", cases, failures);
    return failures > 0;
}
