/* The ref backend: its table of ops and the memory of the host. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "ref.h"

#define LINE 64
#define HUGE_PAGE ((size_t)2 << 20)

void *host_allocate(backend *b, size_t bytes)
{
    (void)b;
    void *memory;
    if (posix_memalign(&memory, bytes >= 2 * HUGE_PAGE ? HUGE_PAGE : LINE, bytes ? bytes : LINE))
        return NULL;
#ifdef MADV_HUGEPAGE
    /* A matrix read by columns touches a page a row: large ones take few. Of the
     * last one no more than is needed. */
    if (bytes >= 2 * HUGE_PAGE)
        madvise(memory, bytes / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE); /* a wish: ordinary pages serve too */
#endif
    memset(memory, 0, bytes);
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
    .head_rows = 256,
    .row_multiple = 1,
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
    .gradient_norm = ref_gradient_norm,
    .adamw = ref_adamw,
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
