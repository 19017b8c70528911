/* AdamW (Loshchilov & Hutter 2019) in the order of torch.optim.AdamW:
 *   w -= lr * decay * w, where it decays
 *   m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2
 *   w -= lr / (1 - beta1^t) * m / (sqrt(v / (1 - beta2^t)) + epsilon)
 * decay 0 is torch.optim.Adam. */
#include <math.h>

#include "ref.h"

void ref_adamw(backend *b, float *w, const float *g, float *m, float *v, size_t count, const double *norm,
               adamw_options o)
{
    (void)b;
    if (!isfinite(*norm))
        return;
    double scale = adamw_gradient_scale(*norm, o.max_grad_norm);
    double correction1 = 1 - pow(o.beta1, (double)o.step), correction2 = 1 - pow(o.beta2, (double)o.step);
    for (size_t i = 0; i < count; i++) {
        double gradient = g[i] * scale;
        double m1 = o.beta1 * m[i] + (1 - o.beta1) * gradient;
        double v1 = o.beta2 * v[i] + (1 - o.beta2) * gradient * gradient;
        double decayed = i < o.decayed ? w[i] - o.lr * o.weight_decay * w[i] : w[i];
        m[i] = (float)m1;
        v[i] = (float)v1;
        w[i] = (float)(decayed - o.lr / correction1 * m1 / (sqrt(v1 / correction2) + o.epsilon));
    }
}

void ref_gradient_norm(backend *b, double *norm, const float *g, size_t count)
{
    (void)b;
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += (double)g[i] * g[i];
    *norm = sqrt(sum);
}
