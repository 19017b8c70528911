/* cublaslt.cuh: the part of NVIDIA's cublasLt that matmul_cublaslt.cu calls. The
 * library (half a gigabyte) is neither linked nor shipped: libcublasLt.so.13 is
 * opened at run time, so its functions and numbers are declared here, as in its
 * ABI. The emulation has a stand-in (native/emulation/cublaslt.cpp). */
#ifndef CUDA_CUBLASLT_CUH
#define CUDA_CUBLASLT_CUH

#include <stddef.h>
#include <stdint.h>

#include "device.cuh"

enum lt_type { LT_R_32F = 0, LT_R_16BF = 14 };       /* cudaDataType_t */
enum lt_compute { LT_COMPUTE_32F = 68 };             /* cublasComputeType_t */
enum lt_operation { LT_OP_N = 0, LT_OP_T = 1 };      /* cublasOperation_t */
enum lt_reduction { LT_REDUCTION_COMPUTE_TYPE = 2 }; /* cublasLtReductionScheme_t */
enum lt_preference {                                 /* cublasLtMatmulPreferenceAttributes_t */
                     LT_PREF_MAX_WORKSPACE_BYTES = 1,
                     LT_PREF_REDUCTION_SCHEME_MASK = 3,
                     LT_PREF_MIN_ALIGNMENT_A_BYTES = 5, /* B, C and D follow */
                     LT_PREF_MIN_ALIGNMENT_D_BYTES = 8,
};
enum lt_attribute { /* cublasLtMatmulDescAttributes_t */
                    LT_DESC_TRANSA = 3,
                    LT_DESC_TRANSB = 4,
                    LT_DESC_EPILOGUE = 7,
                    LT_DESC_BIAS_POINTER = 8,
                    LT_DESC_EPILOGUE_AUX_POINTER = 11,
                    LT_DESC_EPILOGUE_AUX_LD = 12,
};
enum lt_epilogue { /* cublasLtEpilogue_t */
                   LT_EPILOGUE_DEFAULT = 1,
                   LT_EPILOGUE_BIAS = 4,
                   LT_EPILOGUE_GELU_AUX = 32 | 128,
                   LT_EPILOGUE_GELU_AUX_BIAS = 32 | 128 | 4,
                   LT_EPILOGUE_DGELU = 64 | 128,
                   LT_EPILOGUE_BGRADB = 512,
};

typedef struct lt_handle_of *lt_handle;
typedef struct lt_desc_of *lt_desc;
typedef struct lt_layout_of *lt_layout;
typedef struct lt_preference_of *lt_preference_set;
struct lt_algorithm {
    uint64_t data[8];
};
struct lt_heuristic {
    lt_algorithm algorithm;
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
};

/* All return 0 when they succeed. */
#define CUBLASLT_FUNCTIONS(X)                                                                                          \
    X(cublasLtCreate, (lt_handle *))                                                                                   \
    X(cublasLtDestroy, (lt_handle))                                                                                    \
    X(cublasLtMatmulDescCreate, (lt_desc *, int compute, int scale))                                                   \
    X(cublasLtMatmulDescDestroy, (lt_desc))                                                                            \
    X(cublasLtMatmulDescSetAttribute, (lt_desc, int which, const void *value, size_t bytes))                           \
    X(cublasLtMatrixLayoutCreate, (lt_layout *, int type, uint64_t rows, uint64_t cols, int64_t stride))               \
    X(cublasLtMatrixLayoutDestroy, (lt_layout))                                                                        \
    X(cublasLtMatmulPreferenceCreate, (lt_preference_set *))                                                           \
    X(cublasLtMatmulPreferenceDestroy, (lt_preference_set))                                                            \
    X(cublasLtMatmulPreferenceSetAttribute, (lt_preference_set, int which, const void *value, size_t bytes))           \
    X(cublasLtMatmulAlgoGetHeuristic, (lt_handle, lt_desc, lt_layout a, lt_layout b, lt_layout c, lt_layout d,         \
                                       lt_preference_set, int wanted, lt_heuristic *, int *found))                     \
    X(cublasLtMatmul, (lt_handle, lt_desc, const void *alpha, const void *a, lt_layout, const void *b, lt_layout,      \
                       const void *beta, const void *c, lt_layout, void *d, lt_layout, const lt_algorithm *,           \
                       void *workspace, size_t workspace_bytes, cudaStream_t))

struct cublaslt_functions {
#define CUBLASLT_MEMBER(name, arguments) int(*name) arguments;
    CUBLASLT_FUNCTIONS(CUBLASLT_MEMBER)
#undef CUBLASLT_MEMBER
};

#ifdef STUDENT_EMULATION
#define CUBLASLT_DECLARE(name, arguments) extern "C" int name arguments;
CUBLASLT_FUNCTIONS(CUBLASLT_DECLARE)
#undef CUBLASLT_DECLARE
#endif

#endif
