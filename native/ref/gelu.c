/* GELU in GPT-2's tanh form (Hendrycks & Gimpel 2016, "gelu_new"):
 *   y = x/2 (1 + tanh(u)),  u = sqrt(2/pi) (x + 0.044715 x^3) */
#include <math.h>

#include "ref.h"

#define ROOT_2_OVER_PI 0.79788456080286535588
#define CUBIC 0.044715

void ref_gelu_forward(backend *b, tensor out, tensor x)
{
    (void)b;
    for (size_t i = 0; i < tensor_count(out); i++) {
        double v = x.data[i];
        out.data[i] = (float)(0.5 * v * (1 + tanh(ROOT_2_OVER_PI * (v + CUBIC * v * v * v))));
    }
}

void ref_gelu_backward(backend *b, tensor dx, tensor dout, tensor x)
{
    (void)b;
    for (size_t i = 0; i < tensor_count(dx); i++) {
        double v = x.data[i], t = tanh(ROOT_2_OVER_PI * (v + CUBIC * v * v * v));
        double slope = 0.5 * (1 + t) + 0.5 * v * (1 - t * t) * ROOT_2_OVER_PI * (1 + 3 * CUBIC * v * v);
        dx.data[i] = (float)(dout.data[i] * slope);
    }
}
