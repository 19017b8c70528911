/* matmul=openblas: the multiplications by OpenBLAS, which is opened at run
 * time. For comparison with gemm.c: a row's bits may depend on the other rows
 * and on the threads, so log-probabilities of a rollout and of the update
 * differ in their last digits, and a resume may too. Formulas: ref/matmul.c. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu.h"

enum { ROW_MAJOR = 101, PLAIN = 111, TRANSPOSED = 112 };

typedef void (*sgemm_function)(int order, int trans_a, int trans_b, int m, int n, int k, float alpha, const float *a,
                               int lda, const float *b, int ldb, float beta, float *c, int ldc);

static sgemm_function sgemm;

static void forward(tensor out, tensor x, const float *w, const float *bias)
{
    for (int n = 0; bias && n < out.rows; n++)
        memcpy(out.data + (size_t)n * (size_t)out.cols, bias, (size_t)out.cols * sizeof(float));
    sgemm(ROW_MAJOR, PLAIN, TRANSPOSED, out.rows, out.cols, x.cols, 1, x.data, x.cols, w, x.cols, bias ? 1 : 0,
          out.data, out.cols);
}

static void matmul_forward(backend *b, tensor out, tensor x, tensor w, const float *bias)
{
    (void)b;
    forward(out, x, w.data, bias);
}

static void matmul_pack(backend *b, float *packed, tensor w)
{
    (void)b;
    memcpy(packed, w.data, (size_t)w.rows * (size_t)w.cols * sizeof(float));
}

static void matmul_forward_packed(backend *b, tensor out, tensor x, const float *packed, const float *bias)
{
    (void)b;
    forward(out, x, packed, bias);
}

static void matmul_backward_input(backend *b, tensor dx, tensor dout, tensor w, int accumulate)
{
    (void)b;
    sgemm(ROW_MAJOR, PLAIN, PLAIN, dx.rows, dx.cols, dout.cols, 1, dout.data, dout.cols, w.data, w.cols,
          accumulate ? 1 : 0, dx.data, dx.cols);
}

static void matmul_backward_weight(backend *b, tensor dw, float *dbias, tensor dout, tensor x)
{
    (void)b;
    sgemm(ROW_MAJOR, TRANSPOSED, PLAIN, dw.rows, dw.cols, dout.rows, 1, dout.data, dout.cols, x.data, x.cols, 1,
          dw.data, dw.cols);
    enum { BLOCK = 64 };
    for (int first = 0; dbias && first < dout.cols; first += BLOCK) {
        int width = dout.cols - first < BLOCK ? dout.cols - first : BLOCK;
        double sum[BLOCK] = {0};
        for (int n = 0; n < dout.rows; n++)
            for (int o = 0; o < width; o++)
                sum[o] += dout.data[(size_t)n * (size_t)dout.cols + (size_t)(first + o)];
        for (int o = 0; o < width; o++)
            dbias[first + o] += (float)sum[o];
    }
}

/* Opens the library once: ONCEUPON_OPENBLAS, or the system's, or that of the
 * Python package scipy-openblas32, whose symbols have a prefix. */
static int open_openblas(int threads)
{
    static const char *const names[] = {"libopenblas.so.0", "libopenblas.so", "libscipy_openblas.so"};
    const char *given = getenv("ONCEUPON_OPENBLAS");
    void *library = given ? dlopen(given, RTLD_NOW | RTLD_LOCAL) : NULL;
    for (size_t i = 0; !given && !library && i < sizeof names / sizeof *names; i++)
        library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    for (int prefixed = 0; library && prefixed < 2; prefixed++) {
        void *multiply = dlsym(library, prefixed ? "scipy_cblas_sgemm" : "cblas_sgemm");
        void *set = dlsym(library, prefixed ? "scipy_openblas_set_num_threads" : "openblas_set_num_threads");
        if (multiply && set) {
            void (*set_threads)(int);
            memcpy(&sgemm, &multiply, sizeof sgemm);
            memcpy(&set_threads, &set, sizeof set_threads);
            set_threads(threads);
            return 1;
        }
    }
    return 0;
}

int cpu_matmul_openblas(op_table *table, const backend_limits *limits, const char *isa, char *message, size_t capacity)
{
    if (!strcmp(isa, "avx512bf16")) {
        snprintf(message, capacity, "kernel matmul=openblas multiplies in fp32: not with precision bf16");
        return STUDENT_E_ARGUMENT;
    }
    if (!open_openblas(limits->threads)) {
        snprintf(message, capacity,
                 "kernel matmul=openblas: OpenBLAS is not here: install libopenblas0 or give ONCEUPON_OPENBLAS=FILE");
        return STUDENT_E_CAPABILITY;
    }
    table->matmul_forward = matmul_forward;
    table->matmul_pack = matmul_pack;
    table->matmul_forward_packed = matmul_forward_packed;
    table->matmul_backward_input = matmul_backward_input;
    table->matmul_backward_weight = matmul_backward_weight;
    table->gelu_matmul_forward = NULL;
    table->matmul_gelu_backward = NULL;
    table->matmul_gelu_backward_weight = NULL;
    table->matmul_norm_backward_weight = NULL;
    return STUDENT_OK;
}
