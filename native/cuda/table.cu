/* The op table of the cuda backend, once with fp32 and once with bf16
 * activations, and the symbol that libstudent looks for. */
#include "ops.cuh"

#include "backend.cuh"

extern "C" {
#include "cuda_library.h"
}

/* A thread of the host has a current device of its own, the first one until it
 * names another, and calls come from any thread: each op names its backend's. */
template <auto OP> struct on_device;
template <class R, class... A, R (*OP)(backend *, A...)> struct on_device<OP> {
    static R call(backend *b, A... arguments)
    {
        cudaSetDevice(cuda(b)->device);
        return OP(b, arguments...);
    }
};

static op_table make_table(int activations)
{
    op_table t = {};
    t.name = "cuda";
    t.activations = t.cache = activations;
    t.head_rows = CUDA_HEAD_ROWS;
    t.row_multiple = CUDA_ROW_MULTIPLE;
    t.allocate = on_device<cuda_allocate>::call;
    t.release = on_device<cuda_release>::call;
    t.upload = on_device<cuda_upload>::call;
    t.download = on_device<cuda_download>::call;
    t.copy = on_device<cuda_copy>::call;
    t.zero = on_device<cuda_zero>::call;
    t.error = cuda_error;
    t.destroy = on_device<cuda_destroy>::call;
#define CUDA_ENTRY(op) t.op = on_device<cuda_##op>::call;
    CUDA_OPS(CUDA_ENTRY)
#undef CUDA_ENTRY
    t.weights_changed = activations == TENSOR_BF16 ? on_device<cuda_weights_changed>::call : nullptr;
    t.replay = on_device<cuda_replay>::call;
    t.recorded = on_device<cuda_recorded>::call;
    return t;
}

const op_table *cuda_table(int activations)
{
    static const op_table tables[2] = {make_table(TENSOR_F32), make_table(TENSOR_BF16)};
    return &tables[activations];
}

size_t cuda_workspace_bytes(const backend_limits *limits)
{
    size_t most = 256;
#define CUDA_ASK(name)                                                                                                 \
    if (cuda_##name##_workspace(limits) > most)                                                                        \
        most = cuda_##name##_workspace(limits);
    CUDA_FILES(CUDA_ASK)
#undef CUDA_ASK
    return (most + 255) / 256 * 256;
}

#ifndef CUDA_ARCHITECTURES
#define CUDA_ARCHITECTURES "sm_90a, emulated"
#endif

const char *cuda_architectures() { return CUDA_ARCHITECTURES; }

extern "C" __attribute__((visibility("default"))) const cuda_library *onceupon_cuda_library(void)
{
    static const cuda_library library = {
        CUDA_LIBRARY_ABI,       STUDENT_ABI_VERSION, sizeof(op_table), sizeof(backend_limits), sizeof(student_ppo_sums),
        sizeof(student_device), CUDA_ARCHITECTURES,  cuda_create,      cuda_own_bytes,         cuda_describe};
    return &library;
}
