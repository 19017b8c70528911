/* Dropout: element i of a site is kept when its 32 random bits reach p * 2^32
 * (Srivastava et al. 2014, the inverted form: kept values are scaled by
 * 1 / (1 - p) in training, nothing is done in evaluation). */
#include "philox.h"
#include "ref.h"

float ref_dropout_factor(dropout drop, uint64_t i)
{
    i += drop.first;
    if (drop.probability <= 0)
        return 1;
    uint32_t draws[4];
    philox_dropout(drop.seed, drop.step, drop.site, i / 4, draws);
    return draws[i % 4] < (uint32_t)(drop.probability * 4294967296.0) ? 0 : 1 / (1 - drop.probability);
}
