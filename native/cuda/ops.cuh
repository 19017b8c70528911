/* ops.cuh: the ops of the cuda backend and what they share. One file pair an
 * idea: NAME.cu defines cuda_<op> for its ops of the op table, with the table's
 * signature, and cuda_<NAME>_workspace. table.cu collects them. */
#ifndef CUDA_OPS_CUH
#define CUDA_OPS_CUH

#include <stddef.h>
#include <stdint.h>
#include <type_traits>

extern "C" {
#include "ops.h"
}

#include "device.cuh"
#include "matmul_choice.cuh"

/* What a backend has on its card. Work goes to one stream, in order. */
struct cuda_state {
    cudaStream_t stream;
    int device, multiprocessors, architecture; /* 90 is sm_90 */
    size_t shared_limit;                       /* bytes a block may have */
    char device_name[64];
    int activations;       /* TENSOR_F32 or TENSOR_BF16 */
    backend_limits limits; /* of the creation */
    char *own, *arena;     /* the two allocations: of the backend, of what it hands out */
    size_t arena_bytes, arena_used;
    char *workspace;        /* scratch of one op, from its start; its content does not survive the op */
    size_t workspace_bytes; /* the largest that a file asked for */
    char *pinned;           /* host memory of the same use, for results of `double` and `float` ops */
    bf16 *weights_bf16;     /* copy of the flat weights, NULL with fp32 activations */
    const float *weights;   /* what it is a copy of, NULL before weights_changed */
    size_t weights_count;
    char *staging; /* pinned ring that uploads pass through */
    size_t staging_used;
    struct cuda_recordings *recordings;
    matmul_choices matmul;
    char error[256]; /* the first one */
};

static inline cuda_state *cuda(backend *b) { return (cuda_state *)b->state; }

enum { CUDA_PINNED_BYTES = 1 << 16, CUDA_STAGING_BYTES = 4 << 20 };

/* Keeps the first error of a backend: the op, what CUDA says, the device. */
void cuda_note(backend *b, cudaError_t error, const char *op);

/* Ends every op: notes what its launches said. */
#define CUDA_OP_END(b) cuda_note(b, cudaGetLastError(), __func__)

/* The workspace, from its start; NULL, with the error noted, when the file
 * asked for less at creation. */
void *cuda_workspace(backend *b, size_t bytes, const char *op);

/* Bytes from the card to `pinned`, waiting for the stream: only for ops that
 * return a number to the host. */
void cuda_fetch(backend *b, const void *from, size_t bytes, const char *op);

/* The bf16 copy of a weight matrix that lies in the flat weights, or NULL. */
static inline const bf16 *cuda_weight_bf16(backend *b, const float *w)
{
    cuda_state *s = cuda(b);
    bool inside = s->weights && w >= s->weights && w < s->weights + s->weights_count;
    return inside ? s->weights_bf16 + (w - s->weights) : nullptr;
}

/* Calls f with a null pointer of the element type of a tensor: the one place
 * where a type becomes a template argument.
 *   cuda_by_type(x.type, [&](auto *e) { typedef typename std::remove_pointer<decltype(e)>::type T; ... }); */
template <class F> static inline void cuda_by_type(int type, F f)
{
    if (type == TENSOR_BF16)
        f((bf16 *)nullptr);
    else
        f((float *)nullptr);
}

/* Every op has the type of its entry in the table, so the two cannot differ. */
#define CUDA_OPS(X)                                                                                                    \
    X(embedding_forward)                                                                                               \
    X(embedding_backward)                                                                                              \
    X(layernorm_forward)                                                                                               \
    X(layernorm_backward)                                                                                              \
    X(matmul_forward)                                                                                                  \
    X(matmul_backward_input)                                                                                           \
    X(matmul_backward_weight)                                                                                          \
    X(attention_forward)                                                                                               \
    X(attention_backward)                                                                                              \
    X(attention_decode)                                                                                                \
    X(gelu_forward)                                                                                                    \
    X(gelu_backward)                                                                                                   \
    X(residual_forward)                                                                                                \
    X(residual_backward)                                                                                               \
    X(logprob_forward)                                                                                                 \
    X(logprob_backward)                                                                                                \
    X(sample)                                                                                                          \
    X(gradient_norm)                                                                                                   \
    X(adamw)                                                                                                           \
    X(ppo_rewards)                                                                                                     \
    X(whiten)                                                                                                          \
    X(gae)                                                                                                             \
    X(ppo_loss)                                                                                                        \
    X(residual_layernorm_forward)                                                                                      \
    X(matmul_gelu_forward)                                                                                             \
    X(matmul_gelu_backward)
#define CUDA_DECLARE(name) std::remove_pointer<decltype(op_table::name)>::type cuda_##name;
CUDA_OPS(CUDA_DECLARE)
#undef CUDA_DECLARE

/* Files of ops; each says how much workspace its ops need at most. */
#define CUDA_FILES(X)                                                                                                  \
    X(attention)                                                                                                       \
    X(elementwise)                                                                                                     \
    X(embedding)                                                                                                       \
    X(layernorm)                                                                                                       \
    X(logprob)                                                                                                         \
    X(matmul)                                                                                                          \
    X(optimizer)                                                                                                       \
    X(ppo)                                                                                                             \
    X(sample)
#define CUDA_DECLARE(name) size_t cuda_##name##_workspace(const backend_limits *limits);
CUDA_FILES(CUDA_DECLARE)
#undef CUDA_DECLARE

#endif
