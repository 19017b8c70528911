/* cublaslt.cpp: a stand-in for cublasLt in the emulation: the calls that
 * native/cuda/matmul_cublaslt.cu makes, with the meaning of its documentation,
 * as plain loops over columns. What it would refuse is refused. */
#include "emulation.h"

#include <math.h>

#include "cublaslt.cuh"

struct lt_handle_of {
    int unused;
};
struct lt_desc_of {
    int transa = LT_OP_N, transb = LT_OP_N;
    uint32_t epilogue = LT_EPILOGUE_DEFAULT;
    void *bias = nullptr, *aux = nullptr;
    int64_t aux_stride = 0;
};
struct lt_layout_of {
    int type;
    uint64_t rows, cols;
    int64_t stride;
};
struct lt_preference_of {
    size_t workspace = 0;
    uint32_t reductions = 7, alignments[4] = {256, 256, 256, 256}; /* of A, B, C, D */
};

enum { OK = 0, INVALID = 7, UNSUPPORTED = 15 };

namespace
{
template <class T, class V> int assign(T *to, const V *value, size_t bytes)
{
    if (bytes != sizeof *to)
        return INVALID;
    memcpy(to, value, bytes);
    return OK;
}

/* The alignment of both pointers; 256 at most. */
uint64_t aligned(const void *a, const void *b)
{
    uint64_t bits = (uintptr_t)a | (uintptr_t)b | 256;
    return bits & -bits;
}

float get(const void *data, int type, size_t at)
{
    return type == LT_R_32F ? ((const float *)data)[at] : (float)((const __nv_bfloat16 *)data)[at];
}

void put(void *data, int type, size_t at, float v)
{
    if (type == LT_R_32F)
        ((float *)data)[at] = v;
    else
        ((__nv_bfloat16 *)data)[at] = v;
}

/* Element (row, col) of a matrix that is read as its transpose or as it is. */
float element(const void *data, const lt_layout_of &l, int operation, size_t row, size_t col)
{
    return get(data, l.type, operation == LT_OP_T ? row * (size_t)l.stride + col : col * (size_t)l.stride + row);
}

double tanh_argument(double x) { return 0.79788456080286535588 * (x + 0.044715 * x * x * x); }
double gelu(double x) { return 0.5 * x * (1 + tanh(tanh_argument(x))); }
double gelu_slope(double x)
{
    double t = tanh(tanh_argument(x));
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * 0.79788456080286535588 * (1 + 3 * 0.044715 * x * x);
}

bool fits(const lt_desc_of &o, const lt_layout_of &a, const lt_layout_of &b, const lt_layout_of &d)
{
    uint64_t K = o.transa == LT_OP_T ? a.rows : a.cols;
    return d.rows == (o.transa == LT_OP_T ? a.cols : a.rows) && d.cols == (o.transb == LT_OP_T ? b.rows : b.cols) &&
           K == (o.transb == LT_OP_T ? b.cols : b.rows) && a.stride >= (int64_t)a.rows && b.stride >= (int64_t)b.rows &&
           d.stride >= (int64_t)d.rows;
}

void multiply(lt_desc_of o, const void *a, lt_layout_of la, const void *b, lt_layout_of lb, float alpha, float beta,
              const void *c, void *d, lt_layout_of ld)
{
    size_t K = o.transa == LT_OP_T ? la.rows : la.cols;
    for (size_t col = 0; col < ld.cols; col++) {
        double column_sum = 0;
        for (size_t k = 0; k < K; k++)
            column_sum += element(b, lb, o.transb, k, col);
        if (o.epilogue == LT_EPILOGUE_BGRADB)
            put(o.bias, ld.type, col, (float)column_sum);
        for (size_t row = 0; row < ld.rows; row++) {
            double sum = 0;
            for (size_t k = 0; k < K; k++)
                sum += (double)element(a, la, o.transa, row, k) * element(b, lb, o.transb, k, col);
            size_t at = col * (size_t)ld.stride + row, aux = col * (size_t)o.aux_stride + row;
            double v = alpha * sum + (beta != 0 ? beta * get(c, ld.type, at) : 0);
            if (o.epilogue == LT_EPILOGUE_BIAS || o.epilogue == LT_EPILOGUE_GELU_AUX_BIAS)
                v += get(o.bias, ld.type, row);
            if (o.epilogue == LT_EPILOGUE_GELU_AUX || o.epilogue == LT_EPILOGUE_GELU_AUX_BIAS) {
                put(o.aux, ld.type, aux, (float)v);
                v = gelu(v);
            } else if (o.epilogue == LT_EPILOGUE_DGELU) {
                v *= gelu_slope(get(o.aux, ld.type, aux));
            }
            put(d, ld.type, at, (float)v);
        }
    }
}
} // namespace

extern "C" {
int cublasLtCreate(lt_handle *h)
{
    *h = new lt_handle_of();
    return OK;
}
int cublasLtDestroy(lt_handle h)
{
    delete h;
    return OK;
}
int cublasLtMatmulDescCreate(lt_desc *d, int compute, int scale)
{
    if (compute != LT_COMPUTE_32F || scale != LT_R_32F)
        return UNSUPPORTED;
    *d = new lt_desc_of();
    return OK;
}
int cublasLtMatmulDescDestroy(lt_desc d)
{
    delete d;
    return OK;
}
int cublasLtMatmulDescSetAttribute(lt_desc d, int which, const void *value, size_t bytes)
{
    switch (which) {
    case LT_DESC_TRANSA:
        return assign(&d->transa, value, bytes);
    case LT_DESC_TRANSB:
        return assign(&d->transb, value, bytes);
    case LT_DESC_EPILOGUE:
        return assign(&d->epilogue, value, bytes);
    case LT_DESC_BIAS_POINTER:
        return assign(&d->bias, value, bytes);
    case LT_DESC_EPILOGUE_AUX_POINTER:
        return assign(&d->aux, value, bytes);
    case LT_DESC_EPILOGUE_AUX_LD:
        return assign(&d->aux_stride, value, bytes);
    }
    return INVALID;
}
int cublasLtMatrixLayoutCreate(lt_layout *l, int type, uint64_t rows, uint64_t cols, int64_t stride)
{
    *l = new lt_layout_of{type, rows, cols, stride};
    return OK;
}
int cublasLtMatrixLayoutDestroy(lt_layout l)
{
    delete l;
    return OK;
}
int cublasLtMatmulPreferenceCreate(lt_preference_set *p)
{
    *p = new lt_preference_of();
    return OK;
}
int cublasLtMatmulPreferenceDestroy(lt_preference_set p)
{
    delete p;
    return OK;
}
int cublasLtMatmulPreferenceSetAttribute(lt_preference_set p, int which, const void *value, size_t bytes)
{
    if (which == LT_PREF_MAX_WORKSPACE_BYTES)
        return assign(&p->workspace, value, bytes);
    if (which >= LT_PREF_MIN_ALIGNMENT_A_BYTES && which <= LT_PREF_MIN_ALIGNMENT_D_BYTES)
        return assign(&p->alignments[which - LT_PREF_MIN_ALIGNMENT_A_BYTES], value, bytes);
    return which == LT_PREF_REDUCTION_SCHEME_MASK ? assign(&p->reductions, value, bytes) : INVALID;
}
int cublasLtMatmulAlgoGetHeuristic(lt_handle, lt_desc o, lt_layout a, lt_layout b, lt_layout, lt_layout d,
                                   lt_preference_set p, int wanted, lt_heuristic *result, int *found)
{
    *found = 0;
    bool aux = o->epilogue & 128, vector = o->epilogue & (LT_EPILOGUE_BIAS | LT_EPILOGUE_BGRADB);
    if (!fits(*o, *a, *b, *d) || (aux && (!o->aux || o->aux_stride % 8)) || (vector && !o->bias))
        return INVALID;
    if (wanted < 1)
        return INVALID;
    /* The algorithm says what it was found for: another problem may not use it, nor
     * matrices that are less aligned. */
    *result = {};
    result->algorithm = {{d->rows, d->cols, o->epilogue, p->alignments[0], p->alignments[1], p->alignments[2],
                          p->alignments[3], aligned(o->bias, o->aux)}};
    *found = 1;
    return OK;
}
int cublasLtMatmul(lt_handle, lt_desc o, const void *alpha, const void *a, lt_layout la, const void *b, lt_layout lb,
                   const void *beta, const void *c, lt_layout, void *d, lt_layout ld, const lt_algorithm *algorithm,
                   void *, size_t, cudaStream_t stream)
{
    if (!fits(*o, *la, *lb, *ld) || algorithm->data[0] != ld->rows || algorithm->data[1] != ld->cols ||
        algorithm->data[2] != o->epilogue || algorithm->data[7] > aligned(o->bias, o->aux))
        return INVALID;
    const void *matrices[4] = {a, b, c, d};
    for (int i = 0; i < 4; i++)
        if ((uintptr_t)matrices[i] % algorithm->data[3 + i])
            return INVALID;
    lt_desc_of of = *o;
    lt_layout_of wa = *la, wb = *lb, wd = *ld;
    float times = *(const float *)alpha, keep = *(const float *)beta;
    return emulation::enqueue(stream, [=] { multiply(of, a, wa, b, wb, times, keep, c, d, wd); }) == cudaSuccess
               ? OK
               : INVALID;
}
}
