/* The ref backend: its table of ops and the memory of the host. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ref.h"

void *host_allocate(backend *b, size_t bytes)
{
    (void)b;
    /* Cache-line alignment; aligned_alloc wants a multiple of it. */
    size_t rounded = (bytes + 63) / 64 * 64;
    void *memory = aligned_alloc(64, rounded ? rounded : 64);
    if (memory)
        memset(memory, 0, rounded);
    return memory;
}

void host_release(backend *b, void *memory)
{
    (void)b;
    free(memory);
}

void host_copy(backend *b, void *to, const void *from, size_t bytes)
{
    (void)b;
    if (bytes)
        memmove(to, from, bytes);
}

void host_zero(backend *b, void *memory, size_t bytes)
{
    (void)b;
    if (bytes)
        memset(memory, 0, bytes);
}

const char *host_error(backend *b)
{
    (void)b;
    return NULL;
}

static void ref_destroy(backend *b) { b->ops = NULL; }

static const op_table ref_ops = {
    .name = "ref",
    .allocate = host_allocate,
    .release = host_release,
    .upload = host_copy,
    .download = host_copy,
    .copy = host_copy,
    .zero = host_zero,
    .error = host_error,
    .destroy = ref_destroy,
    .embedding_forward = ref_embedding_forward,
    .embedding_backward = ref_embedding_backward,
    .layernorm_forward = ref_layernorm_forward,
    .layernorm_backward = ref_layernorm_backward,
    .matmul_forward = ref_matmul_forward,
    .matmul_backward_input = ref_matmul_backward_input,
    .matmul_backward_weight = ref_matmul_backward_weight,
    .attention_forward = ref_attention_forward,
    .attention_backward = ref_attention_backward,
    .attention_decode = ref_attention_decode,
    .gelu_forward = ref_gelu_forward,
    .gelu_backward = ref_gelu_backward,
    .residual_forward = ref_residual_forward,
    .residual_backward = ref_residual_backward,
    .logprob_forward = ref_logprob_forward,
    .logprob_backward = ref_logprob_backward,
    .sample = ref_sample,
    .adamw = ref_adamw,
    .sum_squares = ref_sum_squares,
    .ppo_rewards = ref_ppo_rewards,
    .whiten = ref_whiten,
    .gae = ref_gae,
    .ppo_loss = ref_ppo_loss,
};

int backend_ref_create(backend *b, const backend_limits *limits, char *message, size_t capacity)
{
    (void)limits;
    (void)message;
    (void)capacity;
    b->ops = &ref_ops;
    b->state = NULL;
    b->isa = "plain";
    return STUDENT_OK;
}
