/* The op table of one ISA. */
#include "cpu.h"
#include "simd.h"

void cpu_destroy(backend *b);

#define DECLARE(op) extern __typeof__(ref_##op) CPU_NAME(cpu_##op);
extern __typeof__(host_zero) CPU_NAME(cpu_zero);
DECLARE(embedding_forward)
DECLARE(embedding_backward)
DECLARE(layernorm_forward)
DECLARE(layernorm_backward)
DECLARE(matmul_forward)
extern void CPU_NAME(cpu_matmul_pack)(backend *b, float *packed, tensor w);
extern void CPU_NAME(cpu_matmul_forward_packed)(backend *b, tensor out, tensor x, const float *packed,
                                                const float *bias);
DECLARE(matmul_backward_input)
DECLARE(matmul_backward_weight)
DECLARE(attention_forward)
DECLARE(attention_backward)
DECLARE(attention_decode)
extern void CPU_NAME(cpu_residual_layernorm_forward)(backend *b, tensor out, tensor norm, float *mean, float *rstd,
                                                     tensor a, tensor x, const float *gain, const float *bias,
                                                     float epsilon, dropout drop);
extern void CPU_NAME(cpu_gelu_matmul_forward)(backend *b, tensor out, tensor up, tensor w, const float *bias);
extern void CPU_NAME(cpu_matmul_gelu_backward)(backend *b, tensor dup, tensor dout, tensor w, tensor up);
extern void CPU_NAME(cpu_matmul_gelu_backward_weight)(backend *b, tensor dw, float *dbias, tensor dout, tensor up);
extern void CPU_NAME(cpu_matmul_norm_backward_weight)(backend *b, tensor dw, float *dbias, tensor dout, tensor x,
                                                      const float *mean, const float *rstd, const float *gain,
                                                      const float *bias);
extern void CPU_NAME(cpu_attention_decode_soon)(backend *b, int rows, tensor cache, int context, int shared,
                                                const int32_t *slots, const int32_t *positions, int heads);
DECLARE(gelu_forward)
DECLARE(gelu_backward)
DECLARE(residual_forward)
DECLARE(residual_backward)
DECLARE(logprob_forward)
DECLARE(logprob_backward)
DECLARE(sample)
DECLARE(gradient_norm)
DECLARE(adamw)

/* The ppo ops touch a few thousand numbers a batch: plain loops serve. */
const op_table CPU_NAME(cpu_ops) = {
    .name = "cpu",
#if defined(__AVX512BF16__)
    .cache = TENSOR_BF16,
#endif
    .head_rows = 256,
    .row_multiple = 1,
    .allocate = host_allocate,
    .release = host_release,
    .upload = host_copy,
    .download = host_copy,
    .copy = host_copy,
    .zero = CPU_NAME(cpu_zero),
    .error = host_error,
    .destroy = cpu_destroy,
    .embedding_forward = CPU_NAME(cpu_embedding_forward),
    .embedding_backward = CPU_NAME(cpu_embedding_backward),
    .layernorm_forward = CPU_NAME(cpu_layernorm_forward),
    .layernorm_backward = CPU_NAME(cpu_layernorm_backward),
    .matmul_forward = CPU_NAME(cpu_matmul_forward),
    .matmul_pack = CPU_NAME(cpu_matmul_pack),
    .matmul_forward_packed = CPU_NAME(cpu_matmul_forward_packed),
    .matmul_backward_input = CPU_NAME(cpu_matmul_backward_input),
    .matmul_backward_weight = CPU_NAME(cpu_matmul_backward_weight),
    .attention_forward = CPU_NAME(cpu_attention_forward),
    .attention_backward = CPU_NAME(cpu_attention_backward),
    .attention_decode = CPU_NAME(cpu_attention_decode),
    .gelu_forward = CPU_NAME(cpu_gelu_forward),
    .gelu_backward = CPU_NAME(cpu_gelu_backward),
    .residual_forward = CPU_NAME(cpu_residual_forward),
    .residual_backward = CPU_NAME(cpu_residual_backward),
    .logprob_forward = CPU_NAME(cpu_logprob_forward),
    .logprob_backward = CPU_NAME(cpu_logprob_backward),
    .sample = CPU_NAME(cpu_sample),
    .gradient_norm = CPU_NAME(cpu_gradient_norm),
    .adamw = CPU_NAME(cpu_adamw),
    .residual_layernorm_forward = CPU_NAME(cpu_residual_layernorm_forward),
    .attention_decode_soon = CPU_NAME(cpu_attention_decode_soon),
    .gelu_matmul_forward = CPU_NAME(cpu_gelu_matmul_forward),
    .matmul_gelu_backward = CPU_NAME(cpu_matmul_gelu_backward),
    .matmul_gelu_backward_weight = CPU_NAME(cpu_matmul_gelu_backward_weight),
    .matmul_norm_backward_weight = CPU_NAME(cpu_matmul_norm_backward_weight),
    .ppo_rewards = ref_ppo_rewards,
    .whiten = ref_whiten,
    .gae = ref_gae,
    .ppo_loss = ref_ppo_loss,
};
