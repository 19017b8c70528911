/* Log-probability of a target and entropy of the softmax of a row z (n,V):
 *   lse = log sum_j exp z_j,  logprob = z_target - lse,
 *   entropy = lse - sum_j p_j z_j,  d logprob / d z_j = (j == target) - p_j */
#include <math.h>

#include "ref.h"

void ref_logprob_forward(backend *b, float *logprob, float *entropy, float *lse, tensor logits, const int32_t *targets)
{
    (void)b;
    int V = logits.cols;
    for (int n = 0; n < logits.rows; n++) {
        const float *z = logits.data + (size_t)n * V;
        double max = -INFINITY, sum = 0, weighted = 0;
        for (int j = 0; j < V; j++)
            max = fmax(max, z[j]);
        for (int j = 0; j < V; j++) {
            double e = exp(z[j] - max);
            sum += e;
            weighted += e * z[j];
        }
        double l = max + log(sum);
        lse[n] = (float)l;
        logprob[n] = targets[n] < 0 ? 0 : (float)(z[targets[n]] - l);
        entropy[n] = targets[n] < 0 ? 0 : (float)(l - weighted / sum);
    }
}

void ref_logprob_backward(backend *b, tensor dlogits, tensor logits, const float *lse, const int32_t *targets,
                          const float *dlogprob)
{
    (void)b;
    int V = logits.cols;
    for (int n = 0; n < logits.rows; n++) {
        const float *z = logits.data + (size_t)n * V;
        float *dz = dlogits.data + (size_t)n * V;
        for (int j = 0; j < V; j++)
            dz[j] = targets[n] < 0 ? 0 : (float)(dlogprob[n] * ((j == targets[n]) - exp((double)z[j] - lse[n])));
    }
}
