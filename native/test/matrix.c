#include "matrix.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bf16.h"

int failures, cases, few;
static uint64_t generator = 88172645463325252ull;

static struct {
    backend *b; /* NULL: host memory */
    void *memory;
} held[4096];
static int holding;

static void *hold(backend *b, void *memory)
{
    if (!memory || holding == (int)(sizeof held / sizeof held[0]))
        abort();
    held[holding].b = b;
    held[holding++].memory = memory;
    return memory;
}

void forget(void)
{
    while (holding--)
        if (held[holding].b)
            held[holding].b->ops->release(held[holding].b, held[holding].memory);
        else
            free(held[holding].memory);
    holding = 0;
}

/* Exactly as many bytes, so that AddressSanitizer sees one too far. */
static void *host_memory(size_t bytes) { return hold(NULL, malloc(bytes ? bytes : 1)); }

double uniform(void)
{
    generator ^= generator << 13;
    generator ^= generator >> 7;
    generator ^= generator << 17;
    return (double)(generator >> 11) * 0x1p-53;
}

float *filled(size_t n, double scale)
{
    float *x = host_memory(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)((uniform() + uniform() + uniform() - 1.5) * scale);
    return x;
}

float *activations(const backend *b, size_t n, double scale)
{
    float *x = filled(n, scale);
    for (size_t i = 0; i < n && b->ops->activations == TENSOR_BF16; i++)
        x[i] = from_bf16(to_bf16(x[i]));
    return x;
}

int32_t *integers(size_t n) { return host_memory(n * sizeof(int32_t)); }

static int is_card(const backend *b) { return !strcmp(b->ops->name, "cuda"); }

void *on(backend *b, const void *host, size_t bytes)
{
    if (!is_card(b)) /* exact bytes, which b's own allocation would round up */
        return memcpy(host_memory(bytes), host, bytes);
    void *memory = hold(b, b->ops->allocate(b, bytes));
    b->ops->upload(b, memory, host, bytes);
    return memory;
}

float *floats_on(backend *b, const float *host, size_t n) { return on(b, host, n * sizeof *host); }

tensor tensor_on(backend *b, const float *host, int rows, int cols, int type)
{
    size_t n = (size_t)rows * (size_t)cols;
    tensor t = {NULL, rows, cols, type};
    if (type == TENSOR_F32) {
        t.data = floats_on(b, host, n);
        return t;
    }
    uint16_t *half = host_memory(n * sizeof *half);
    for (size_t i = 0; i < n; i++)
        half[i] = to_bf16(host[i]);
    t.data = on(b, half, n * sizeof *half);
    return t;
}

tensor rows_on(backend *b, const float *host, int rows, int cols)
{
    return tensor_on(b, host, rows, cols, b->ops->activations);
}

void back(backend *b, void *host, const void *data, size_t bytes) { b->ops->download(b, host, data, bytes); }

float *floats_back(backend *b, const float *data, size_t n)
{
    float *x = host_memory(n * sizeof *x);
    back(b, x, data, n * sizeof *x);
    return x;
}

float *tensor_back(backend *b, tensor t)
{
    size_t n = tensor_count(t);
    if (t.type == TENSOR_F32)
        return floats_back(b, t.data, n);
    uint16_t *half = host_memory(n * sizeof *half);
    back(b, half, t.data, n * sizeof *half);
    float *x = host_memory(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = from_bf16(half[i]);
    return x;
}

double bound_of(const backend *b, double bound)
{
    return b->ops->activations == TENSOR_BF16 && bound < BOUND_BF16 ? BOUND_BF16 : bound;
}

void check(const backend *b, const char *op, const char *shape, const float *got, const float *want, size_t n,
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
    expect(b, finite && nmse <= bound, "%-24s %-22s NMSE %.2e > %.0e%s", op, shape, nmse, bound,
           finite ? "" : ", not finite");
}

void check_floats(backend *b, backend *r, const char *op, const char *shape, const float *got, const float *want,
                  size_t n, double bound)
{
    check(b, op, shape, floats_back(b, got, n), floats_back(r, want, n), n, bound);
}

void check_tensor(backend *b, backend *r, const char *op, const char *shape, tensor got, tensor want, double bound)
{
    if (got.type == TENSOR_BF16 && bound < BOUND_BF16)
        bound = BOUND_BF16;
    check(b, op, shape, tensor_back(b, got), tensor_back(r, want), tensor_count(got), bound);
}

void expect(const backend *b, int holds, const char *format, ...)
{
    cases++;
    if (holds)
        return;
    failures++;
    va_list arguments;
    va_start(arguments, format);
    printf("FAIL %-10s ", b->isa);
    vprintf(format, arguments);
    printf("\n");
    va_end(arguments);
}
