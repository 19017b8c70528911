/* Cases of the head: log-probabilities, their gradient, the draw of a token. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "matrix.h"

static void logprob(backend *b, backend *r, const char *shape, const float *z, const int32_t *targets, int n, int V)
{
    backend *both[2] = {b, r};
    float *out[3][2], *d = filled((size_t)n, 1), *nothing = filled((size_t)n, 1);
    tensor dlogits[2];
    for (int k = 0; k < 2; k++) {
        backend *s = both[k];
        for (int i = 0; i < 3; i++)
            out[i][k] = floats_on(s, nothing, (size_t)n);
        tensor logits = tensor_on(s, z, n, V, TENSOR_F32);
        int32_t *ts = on(s, targets, (size_t)n * sizeof *targets);
        s->ops->logprob_forward(s, out[0][k], out[1][k], out[2][k], logits, ts);
        dlogits[k] = s->ops->activations == TENSOR_F32 ? logits : rows_on(s, z, n, V);
        s->ops->logprob_backward(s, dlogits[k], logits, out[2][k], ts, floats_on(s, d, (size_t)n));
    }
    check_floats(b, r, "logprob", shape, out[0][0], out[0][1], (size_t)n, BOUND);
    check_floats(b, r, "entropy", shape, out[1][0], out[1][1], (size_t)n, 1e-11);
    check_floats(b, r, "lse", shape, out[2][0], out[2][1], (size_t)n, BOUND);
    /* p - 1 cancels where the target has nearly all the probability: the float
     * rounding of logsumexp is then large beside what is left. */
    check_tensor(b, r, "logprob_backward", shape, dlogits[0], dlogits[1], 1e-10);
}

/* Draws from `rows` rows of the same logits, for stories first.. */
static void draw(backend *b, int32_t *tokens, const float *row, int rows, int V, uint64_t first, sample_options o)
{
    float *z = filled((size_t)rows * (size_t)V, 1);
    uint64_t stories[64];
    int32_t positions[64] = {0};
    for (int i = 0; i < rows; i++) {
        memcpy(z + (size_t)i * (size_t)V, row, (size_t)V * sizeof *z);
        stories[i] = first + (uint64_t)i;
    }
    int32_t *drawn = on(b, positions, (size_t)rows * sizeof *drawn);
    b->ops->sample(b, drawn, tensor_on(b, z, rows, V, TENSOR_F32), on(b, stories, (size_t)rows * sizeof *stories),
                   on(b, positions, (size_t)rows * sizeof *positions), o);
    back(b, tokens, drawn, (size_t)rows * sizeof *tokens);
}

static void sample(backend *b, backend *r, const float *row, int V)
{
    enum { ROWS = 50, LIMITED_ROWS = 4 };
    int32_t got[ROWS], want[ROWS];
    int hits = 0, same = 0, draws = few == 2 ? 50 : few ? 200 : 2000, best = 0;
    double total = 0;
    for (int j = 0; j < V; j++)
        best = row[j] > row[best] ? j : best;
    for (int j = 0; j < V; j++)
        total += exp((double)row[j] - row[best]);
    for (int i = 0; i < draws; i += ROWS) {
        draw(b, got, row, ROWS, V, (uint64_t)i, (sample_options){1, 1, 0, 9});
        draw(r, want, row, ROWS, V, (uint64_t)i, (sample_options){1, 1, 0, 9});
        for (int k = 0; k < ROWS; k++) {
            hits += got[k] == best;
            same += got[k] == want[k];
        }
    }
    /* A draw must have the probability it claims: the counts of the best token
     * agree with it within five standard deviations. */
    double p = 1 / total;
    expect(b, fabs(hits - draws * p) <= 5 * sqrt(draws * p * (1 - p)) + 1, "sample: best of %d drawn %d of %d, p %.4f",
           V, hits, draws, p);
    /* The uniform number of a story is the same everywhere: rounding moves the
     * borders between tokens by less than one draw in a hundred. */
    expect(b, same * 100 >= draws * 99, "sample: %d of %d draws of %d tokens are ref's", same, draws, V);
    /* Temperature, top-k and top-p together draw as ref does: among logits of
     * which none, many or all tie, and then exactly, for the sums are. */
    const sample_options limited[] = {{0.7f, 1, 5, 9},    {1.3f, 0.8f, 0, 9}, {1, 0.5f, 3, 9},   {1, 1, 400, 9},
                                      {0.8f, 0.3f, 0, 9}, {2, 0.6f, 700, 9},  {1, 0.95f, 50, 9}, {1, 0.999f, 0, 9},
                                      {1, 1, 1 << 20, 9}, {0, 0.5f, 3, 9}};
    enum { NO_TIES, TIES, EQUAL };
    float *z = filled((size_t)V, 0);
    for (int kind = NO_TIES; kind <= EQUAL; kind++)
        for (size_t i = 0; i < (few ? 3 : sizeof limited / sizeof *limited); i++) {
            for (int j = 0; j < V; j++)
                z[j] = kind == NO_TIES ? row[j] : kind == TIES ? rintf(row[j]) : j % 2 ? 0.0f : -0.0f;
            draw(b, got, z, LIMITED_ROWS, V, 7, limited[i]);
            draw(r, want, z, LIMITED_ROWS, V, 7, limited[i]);
            same = 0;
            for (int k = 0; k < LIMITED_ROWS; k++)
                same += got[k] == want[k];
            expect(b, same >= LIMITED_ROWS - (kind != EQUAL && limited[i].temperature > 0),
                   "sample: limited option %d, logits of kind %d, %d of %d draws of %d tokens are ref's", (int)i, kind,
                   same, LIMITED_ROWS, V);
        }
    /* Greedy, top-k 1 and a tiny top-p all take the best one. */
    const sample_options narrow[] = {{0, 1, 0, 9}, {1, 1, 1, 9}, {1, 1e-6f, 0, 9}};
    for (int i = 0; i < 3; i++) {
        draw(b, got, row, 2, V, 0, narrow[i]);
        expect(b, got[0] == best && got[1] == best, "sample: narrow option %d took %d, not %d", i, got[0], best);
    }
}

void test_head(backend *b, backend *r, int n, int V)
{
    char shape[64];
    snprintf(shape, sizeof shape, "n%d V%d", n, V);
    float *z = filled((size_t)n * (size_t)V, 5);
    int32_t *targets = integers((size_t)n);
    for (int i = 0; i < n; i++)
        targets[i] = i % 5 == 4 ? -1 : (int32_t)(uniform() * V);
    if (b->ops->logprob_forward)
        logprob(b, r, shape, z, targets, n, V);
    if (b->ops->sample)
        sample(b, r, z, V);
    forget();
}
