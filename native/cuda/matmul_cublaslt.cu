/* matmul_cublaslt.cu: multiplications by cublasLt, with its fused epilogues:
 * the yardstick for the kernels of this folder.
 *
 * cublasLt thinks in columns: our out [M][N] is its D (N,M), so its A is our b,
 * its B our a. Its epilogues are ours: BIAS, GELU_AUX (aux is `up`), DGELU, and
 * BGRADB, the sum of its B over K, which is the gradient of the bias. They want
 * the bias in the type of the result: with bf16 results it is taken from the bf16
 * copy of the weights, and so rounded.
 *
 * What its heuristic proposes is kept for a problem. It may take another
 * algorithm for another number of rows: a row's bits depend on its company, and
 * the log-probabilities of sampling and training differ. Reductions over parts of
 * K in the result's memory, which have no order, are excluded. */
#include "backend.cuh"
#include "cublaslt.cuh"
#include "matmul.cuh"

#include <new>
#include <stdio.h>
#include <stdlib.h>

#ifndef STUDENT_EMULATION
#include <dlfcn.h>
#endif

/* ALIGNMENT: of every matrix, in bytes (takes), and of a bias, as parameters begin.
 * Unless it is told, the heuristic counts on 256, which activations and weights
 * need not have. */
enum { PLANS = 128, ALIGNMENT = 16 };

struct plan {
    matmul_problem of; /* without its pointers; .bias: whether there is one */
    lt_desc desc;
    lt_layout a, b, d;
    lt_algorithm algorithm;
};

struct cublaslt {
    cublaslt_functions call;
    lt_handle handle;
    plan plans[PLANS];
    int count, next; /* next: the one to be replaced when all are taken */
};

static const char *open_functions(cublaslt_functions *call)
{
#ifdef STUDENT_EMULATION
#define CUBLASLT_TAKE(name, arguments) call->name = name;
#else
    const char *named = getenv("ONCEUPON_CUBLASLT_LIBRARY");
    void *library = dlopen(named && *named ? named : "libcublasLt.so.13", RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return dlerror();
#define CUBLASLT_TAKE(name, arguments)                                                                                 \
    *(void **)&call->name = dlsym(library, #name);                                                                     \
    if (!call->name)                                                                                                   \
        return "it lacks " #name;
#endif
    CUBLASLT_FUNCTIONS(CUBLASLT_TAKE)
#undef CUBLASLT_TAKE
    return nullptr;
}

static int open(backend *b, char *message, size_t capacity)
{
    cublaslt *lt = new (std::nothrow) cublaslt();
    const char *missing = lt ? open_functions(&lt->call) : "no memory";
    if (!missing && lt->call.cublasLtCreate(&lt->handle))
        missing = "cublasLtCreate fails";
    if (missing) {
        snprintf(message, capacity,
                 "cuda: matmul=cublaslt needs libcublasLt.so.13 (ONCEUPON_CUBLASLT_LIBRARY names its "
                 "place): %s",
                 missing);
        delete lt;
        return STUDENT_E_CAPABILITY;
    }
    cuda(b)->matmul.cublaslt = lt;
    return STUDENT_OK;
}

static void forget(cublaslt *lt, plan *p)
{
    lt->call.cublasLtMatmulDescDestroy(p->desc);
    lt->call.cublasLtMatrixLayoutDestroy(p->a);
    lt->call.cublasLtMatrixLayoutDestroy(p->b);
    lt->call.cublasLtMatrixLayoutDestroy(p->d);
    *p = {};
}

static void close(backend *b)
{
    cublaslt *lt = cuda(b)->matmul.cublaslt;
    if (!lt)
        return;
    for (int i = 0; i < lt->count; i++)
        forget(lt, &lt->plans[i]);
    lt->call.cublasLtDestroy(lt->handle);
    delete lt;
    cuda(b)->matmul.cublaslt = nullptr;
}

static int epilogue_of(const matmul_problem *p)
{
    if (p->finish == FINISH_GELU)
        return p->bias ? LT_EPILOGUE_GELU_AUX_BIAS : LT_EPILOGUE_GELU_AUX;
    if (p->finish == FINISH_SLOPE)
        return LT_EPILOGUE_DGELU;
    if (p->column_sums)
        return LT_EPILOGUE_BGRADB;
    return p->bias ? LT_EPILOGUE_BIAS : LT_EPILOGUE_DEFAULT;
}

static int set(cublaslt *lt, plan *p, int which, const void *value, size_t bytes)
{
    return lt->call.cublasLtMatmulDescSetAttribute(p->desc, which, value, bytes);
}

/* Pointers of the epilogue. */
static int point(cublaslt *lt, plan *plan, const void *vector, const void *side)
{
    int status = vector ? set(lt, plan, LT_DESC_BIAS_POINTER, &vector, sizeof vector) : 0;
    return !status && side ? set(lt, plan, LT_DESC_EPILOGUE_AUX_POINTER, &side, sizeof side) : status;
}

/* The heuristic looks at how they are aligned, and a plan serves many layers: no
 * better than all are. It does not read what is there. */
static const void *least_aligned(const void *of_epilogue)
{
    return of_epilogue ? (const void *)((uintptr_t)of_epilogue / 256 * 256 + ALIGNMENT) : nullptr;
}

static int make(cublaslt *lt, plan *plan, const matmul_problem *p, const void *vector, size_t workspace)
{
    const auto &call = lt->call;
    uint64_t M = (uint64_t)p->M, N = (uint64_t)p->N, K = (uint64_t)p->K;
    bool weight = p->form == BACKWARD_WEIGHT, forward = p->form == FORWARD;
    int transa = forward ? LT_OP_T : LT_OP_N, transb = weight ? LT_OP_T : LT_OP_N;
    int out = p->out_type == TENSOR_F32 ? LT_R_32F : LT_R_16BF;
    uint32_t epilogue = (uint32_t)epilogue_of(p), reduction = LT_REDUCTION_COMPUTE_TYPE, alignment = ALIGNMENT;
    int64_t stride = p->N;
    lt_preference_set preference = nullptr;
    lt_heuristic found = {};
    int count = 0;
    int status = call.cublasLtMatmulDescCreate(&plan->desc, LT_COMPUTE_32F, LT_R_32F);
    status = status ? status : set(lt, plan, LT_DESC_TRANSA, &transa, sizeof transa);
    status = status ? status : set(lt, plan, LT_DESC_TRANSB, &transb, sizeof transb);
    status = status ? status : set(lt, plan, LT_DESC_EPILOGUE, &epilogue, sizeof epilogue);
    if (!status && p->side)
        status = set(lt, plan, LT_DESC_EPILOGUE_AUX_LD, &stride, sizeof stride);
    status = status ? status : point(lt, plan, least_aligned(vector), least_aligned(p->side));
    if (!status)
        status = call.cublasLtMatrixLayoutCreate(&plan->a, LT_R_16BF, forward ? K : N, forward ? N : K,
                                                 (int64_t)(forward ? K : N));
    if (!status)
        status = call.cublasLtMatrixLayoutCreate(&plan->b, LT_R_16BF, weight ? M : K, weight ? K : M,
                                                 (int64_t)(weight ? M : K));
    status = status ? status : call.cublasLtMatrixLayoutCreate(&plan->d, out, N, M, (int64_t)N);
    status = status ? status : call.cublasLtMatmulPreferenceCreate(&preference);
    if (!status)
        status = call.cublasLtMatmulPreferenceSetAttribute(preference, LT_PREF_MAX_WORKSPACE_BYTES, &workspace,
                                                           sizeof workspace);
    if (!status)
        status = call.cublasLtMatmulPreferenceSetAttribute(preference, LT_PREF_REDUCTION_SCHEME_MASK, &reduction,
                                                           sizeof reduction);
    for (int which = LT_PREF_MIN_ALIGNMENT_A_BYTES; !status && which <= LT_PREF_MIN_ALIGNMENT_D_BYTES; which++)
        status = call.cublasLtMatmulPreferenceSetAttribute(preference, which, &alignment, sizeof alignment);
    if (!status)
        status = call.cublasLtMatmulAlgoGetHeuristic(lt->handle, plan->desc, plan->a, plan->b, plan->d, plan->d,
                                                     preference, 1, &found, &count);
    if (preference)
        call.cublasLtMatmulPreferenceDestroy(preference);
    if (!status && !count)
        status = 15; /* CUBLAS_STATUS_NOT_SUPPORTED */
    plan->algorithm = found.algorithm;
    plan->of = *p;
    return status;
}

static bool same(const matmul_problem *a, const matmul_problem *b)
{
    return a->form == b->form && a->M == b->M && a->N == b->N && a->K == b->K && a->finish == b->finish &&
           a->out_type == b->out_type && !a->bias == !b->bias && !a->column_sums == !b->column_sums;
}

static plan *plan_of(cublaslt *lt, const matmul_problem *p, const void *vector, size_t workspace, int *status)
{
    for (int i = 0; i < lt->count; i++)
        if (same(&lt->plans[i].of, p))
            return &lt->plans[i];
    plan *place = &lt->plans[lt->count < PLANS ? lt->count : lt->next];
    if (lt->count == PLANS) {
        forget(lt, place);
        lt->next = (lt->next + 1) % PLANS;
    } else {
        lt->count++;
    }
    *status = make(lt, place, p, vector, workspace);
    return place;
}

static __global__ void __launch_bounds__(256) round_bias(bf16 *to, const float *from, int count)
{
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < count)
        to[i] = from_float<bf16>(from[i]);
}

/* The bias in the type of the result: of the weights' copy, or rounded at `room`. */
static const void *bias_of(backend *b, const matmul_problem *p, bf16 *room)
{
    if (!p->bias || p->out_type == TENSOR_F32)
        return p->bias;
    const bf16 *copy = cuda_weight_bf16(b, p->bias);
    if (!copy)
        LAUNCH(round_bias, blocks_for((size_t)p->N, 256), 256, 0, cuda(b)->stream, room, p->bias, p->N);
    return copy ? copy : room;
}

static void run(backend *b, const matmul_problem *p, int)
{
    cuda_state *s = cuda(b);
    cublaslt *lt = s->matmul.cublaslt;
    /* The workspace begins with a vector: the gradient of the bias, which is written,
     * not added, or the bias. */
    size_t count = p->column_sums ? (size_t)p->M : p->bias ? (size_t)p->N : 0;
    size_t columns_bytes = (count * sizeof(float) + 255) / 256 * 256;
    char *workspace = (char *)cuda_workspace(b, columns_bytes, __func__);
    if (!workspace)
        return;
    const void *bias = bias_of(b, p, (bf16 *)workspace);
    size_t left = s->workspace_bytes - columns_bytes;
    float *columns = (float *)workspace;
    const void *vector = p->column_sums ? columns : bias;
    int status = 0;
    plan *plan = plan_of(lt, p, vector, left, &status);
    status = status ? status : point(lt, plan, vector, p->side);
    const float one = 1, beta = p->finish == FINISH_ADD ? 1 : 0;
    if (!status)
        status =
            lt->call.cublasLtMatmul(lt->handle, plan->desc, &one, p->b, plan->a, p->a, plan->b, &beta, p->out, plan->d,
                                    p->out, plan->d, &plan->algorithm, workspace + columns_bytes, left, s->stream);
    if (status) {
        plan->of = {}; /* never the same as a problem */
        if (!s->error[0])
            snprintf(s->error, sizeof s->error, "cuda: cublasLt: status %d for M %d N %d K %d; another variant will do",
                     status, p->M, p->N, p->K);
        return;
    }
    if (p->column_sums)
        matmul_add_columns(b, p->column_sums, columns, p->M);
}

/* Its tensor-core kernels want rows at multiples of 16 bytes. */
static bool takes(const matmul_problem *p) { return p->a_wide && p->b_wide && p->out_wide; }

const matmul_variant matmul_cublaslt = {"cublaslt", TENSOR_BF16, false, false, 0, nullptr, takes, run, open, close};
