/* The backends that a student can be created on, and what must be known of
 * them before they exist: student_plan counts memory without taking any. */
#include <string.h>

#include "cuda_library.h"
#include "model.h"

static const backend_description backends[] = {
    {.name = "ref", .create = backend_ref_create, .head_rows = 256, .row_multiple = 1},
    {.name = "cpu",
     .isa = "avx512bf16",
     .create = backend_cpu_create,
     .workspace = backend_cpu_workspace,
     .cache = TENSOR_BF16,
     .head_rows = 256,
     .row_multiple = 1,
     .packs_weights = 1,
     .attention_in_place = 1,
     .recomputes = 1,
     .ffn_rows = 256},
    {.name = "cpu",
     .create = backend_cpu_create,
     .workspace = backend_cpu_workspace,
     .head_rows = 256,
     .row_multiple = 1,
     .packs_weights = 1,
     .attention_in_place = 1,
     .recomputes = 1,
     .ffn_rows = 256},
    {.name = "cuda",
     .isa = "fp32",
     .create = backend_cuda_create,
     .workspace = backend_cuda_workspace,
     .head_rows = CUDA_HEAD_ROWS,
     .row_multiple = CUDA_ROW_MULTIPLE},
    {.name = "cuda",
     .create = backend_cuda_create,
     .workspace = backend_cuda_workspace,
     .activations = TENSOR_BF16,
     .cache = TENSOR_BF16,
     .head_rows = CUDA_HEAD_ROWS,
     .row_multiple = CUDA_ROW_MULTIPLE},
};

const backend_description *backend_describe(const student_options *o)
{
    for (size_t i = 0; o->backend && i < sizeof backends / sizeof backends[0]; i++)
        if (!strcmp(o->backend, backends[i].name) && (!backends[i].isa || (o->isa && !strcmp(o->isa, backends[i].isa))))
            return &backends[i];
    return NULL;
}
