/* matrix.h: what the cases of the op matrix share: an op runs on backend b and
 * on ref with the same values, and the results are compared.
 *
 * Values live on the host; `on` brings them to a backend, `back` fetches them.
 * Everything is freed by `forget`, at the end of a case. Tensors marked (A) in
 * ops.h have b's activation type; their values are rounded to it before either
 * side sees them, so that a difference is the op's own. */
#ifndef TEST_MATRIX_H
#define TEST_MATRIX_H

#include <stddef.h>
#include <stdint.h>

#include "ops.h"

/* Six digits: normalised mean squared error
 *   NMSE = sum (got - want)^2 / sum want^2
 * against ref, which sums in double. A case with another bound says why. */
#define BOUND 1e-12

/* A result that is rounded to bf16: each element is off by up to 2^-8 of itself. */
#define BOUND_BF16 0x1p-16

extern int failures, cases;
extern int
    few; /* 1: fewer shapes and draws, for a backend a thousand times slower; 2: the least, for ThreadSanitizer */

double uniform(void);
/* Values around 0; bell(n) on the host. */
float *filled(size_t n, double scale);
/* The same, rounded to b's activation type. */
float *activations(const backend *b, size_t n, double scale);
int32_t *integers(size_t n);

/* A copy in b's memory. */
void *on(backend *b, const void *host, size_t bytes);
float *floats_on(backend *b, const float *host, size_t n);
tensor tensor_on(backend *b, const float *host, int rows, int cols, int type);
/* Activations on b. */
tensor rows_on(backend *b, const float *host, int rows, int cols);
/* Copies on the host, as floats. */
void back(backend *b, void *host, const void *data, size_t bytes);
float *floats_back(backend *b, const float *data, size_t n);
float *tensor_back(backend *b, tensor t);
void forget(void);

/* What bf16 leaves of a bound: so many roundings of a number on its way to the
 * result, each of up to 2^-8 of it. Such errors have a mean square of 2^-16 / 3,
 * or of 2^-16 where elements are few. Attention's forward rounds a weight and the
 * result, decoding the result or the weights of a row (one rounding for all of
 * it: counted as two), backward a weight, a slope that cancels (two) and
 * the result. */
enum { FORWARD_ROUNDINGS = 2, DECODE_ROUNDINGS = 2, BACKWARD_ROUNDINGS = 4 };
/* of ops that multiply in the type of the cache */
double rounded(const backend *b, double bound, int roundings, size_t elements);

/* bound, or what bf16 leaves of it where the op's results are of that type. */
double bound_of(const backend *b, double bound);

void check(const backend *b, const char *op, const char *shape, const float *got, const float *want, size_t n,
           double bound);
/* Compares a result of b and of r. */
void check_floats(backend *b, backend *r, const char *op, const char *shape, const float *got, const float *want,
                  size_t n, double bound);
void check_tensor(backend *b, backend *r, const char *op, const char *shape, tensor got, tensor want, double bound);
void expect(const backend *b, int holds, const char *format, ...) __attribute__((format(printf, 3, 4)));

void test_matmul(backend *b, backend *r, int N, int I, int O);
void test_layernorm(backend *b, backend *r, int N, int C);
/* common: of every hundred tokens so many are the same one. */
void test_embedding(backend *b, backend *r, int N, int C, int common);
/* The fused op has the bits of the two that decoding takes one by one. */
void test_residual_layernorm_bits(backend *b, int N, int C);
void test_elementwise(backend *b, backend *r, int rows, int cols);
void test_optimizer(backend *b, backend *r, int n);
void test_head(backend *b, backend *r, int n, int V);
/* offsets[0] > 0: the stories have a prefix, and drop is off. */
void test_attention(backend *b, backend *r, const int32_t *offsets, int stories, int heads, int D, dropout drop);
/* A batch with a prefix against the same stories that bring it themselves. */
void test_prefix(backend *b, const int32_t *offsets, int stories, int heads, int D);
void test_fused(backend *b, backend *r, int N, int I, int O);
void test_recording(backend *b);

#endif
