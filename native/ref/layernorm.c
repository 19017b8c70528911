/* Layer normalisation (Ba et al. 2016) over the row, biased variance:
 *   y = (x - mean) * rstd * gain + bias,  rstd = 1 / sqrt(var + epsilon)
 * and, with n = (x - mean) * rstd and g = dy * gain:
 *   dx = rstd * (g - mean(g) - n * mean(g * n)) */
#include <math.h>

#include "ref.h"

void ref_layernorm_forward(backend *b, tensor out, float *mean, float *rstd, tensor x, const float *gain,
                           const float *bias, float epsilon)
{
    (void)b;
    int C = x.cols;
    for (int n = 0; n < x.rows; n++) {
        const float *row = x.data + (size_t)n * C;
        double sum = 0, squares = 0;
        for (int c = 0; c < C; c++)
            sum += row[c];
        double m = sum / C;
        for (int c = 0; c < C; c++)
            squares += (row[c] - m) * (row[c] - m);
        double r = 1 / sqrt(squares / C + epsilon);
        for (int c = 0; c < C; c++)
            out.data[(size_t)n * C + c] = (float)((row[c] - m) * r * gain[c] + bias[c]);
        mean[n] = (float)m;
        rstd[n] = (float)r;
    }
}

void ref_layernorm_backward(backend *b, tensor dx, float *dgain, float *dbias, tensor dout, tensor x, const float *gain,
                            const float *mean, const float *rstd)
{
    (void)b;
    int C = x.cols;
    for (int n = 0; n < x.rows; n++) {
        const float *row = x.data + (size_t)n * C, *d = dout.data + (size_t)n * C;
        double m = mean[n], r = rstd[n], sum_g = 0, sum_gn = 0;
        for (int c = 0; c < C; c++) {
            double normal = (row[c] - m) * r, g = (double)d[c] * gain[c];
            sum_g += g;
            sum_gn += g * normal;
        }
        for (int c = 0; c < C; c++) {
            double normal = (row[c] - m) * r, g = (double)d[c] * gain[c];
            dx.data[(size_t)n * C + c] += (float)(r * (g - sum_g / C - normal * sum_gn / C));
            dgain[c] += (float)(d[c] * normal);
            dbias[c] += d[c];
        }
    }
}
