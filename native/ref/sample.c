/* Drawing a token from a row of logits (n,V).
 *
 * Candidates are the top_k largest logits (all when 0), of these the smallest
 * set, from the most probable down, whose probabilities reach top_p
 * (Holtzman et al. 2020). Ties go to the smaller token. A candidate is found
 * without sorting or memory: "better" is a total order on (logit, token), so
 * walking it from the best downwards visits the candidates one by one. */
#include <math.h>

#include "philox.h"
#include "ref.h"

static int better(const float *z, int a, int b) { return z[a] > z[b] || (z[a] == z[b] && a < b); }

/* The best token that is worse than `above` (-1: of all); -1 when none is. */
static int next_best(const float *z, int V, int above)
{
    int best = -1;
    for (int j = 0; j < V; j++)
        if ((above < 0 || better(z, above, j)) && (best < 0 || better(z, j, best)))
            best = j;
    return best;
}

static int draw(const float *z, int V, sample_options o, double uniform)
{
    int first = next_best(z, V, -1);
    if (o.temperature == 0)
        return first;
    int last = -1; /* the worst candidate, -1 when all tokens are */
    double max = z[first], total = 0;
    for (int j = 0; j < V; j++)
        total += exp((z[j] - max) / o.temperature);
    if (o.top_k > 0 && o.top_k < V) {
        last = first;
        for (int i = 1; i < o.top_k; i++)
            last = next_best(z, V, last);
        total = 0;
        for (int j = 0; j < V; j++)
            if (!better(z, last, j))
                total += exp((z[j] - max) / o.temperature);
    }
    if (o.top_p < 1) {
        double kept = 0;
        for (int j = first; j >= 0; j = next_best(z, V, j)) {
            kept += exp((z[j] - max) / o.temperature);
            if (kept >= o.top_p * total || j == last) {
                last = j;
                break;
            }
        }
        total = kept;
    }
    double target = uniform * total, sum = 0;
    int token = first;
    for (int j = 0; j < V; j++) {
        if (last >= 0 && better(z, last, j))
            continue;
        token = j;
        sum += exp((z[j] - max) / o.temperature);
        if (sum > target)
            break;
    }
    return token;
}

void ref_sample(backend *b, int32_t *tokens, tensor logits, const uint64_t *stories, const int32_t *positions,
                sample_options options)
{
    (void)b;
    for (int n = 0; n < logits.rows; n++)
        tokens[n] = draw(logits.data + (size_t)n * logits.cols, logits.cols, options,
                         philox_uniform(options.seed, stories[n], (uint32_t)positions[n]));
}
