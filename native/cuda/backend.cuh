/* backend.cuh: creation, memory and recordings of the cuda backend; what
 * table.cu puts into the op table beside the ops. */
#ifndef CUDA_BACKEND_CUH
#define CUDA_BACKEND_CUH

#include "ops.cuh"

const op_table *cuda_table(int activations);
const char *cuda_architectures();
size_t cuda_workspace_bytes(const backend_limits *limits);

/* The device of ONCEUPON_CUDA_DEVICE, or the first that the library can run
 * on; among those that CUDA_VISIBLE_DEVICES leaves. */
int cuda_choose_device(cuda_state *s, char *message, size_t capacity);
int cuda_describe(student_device *device, char *message, size_t capacity);

int cuda_create(backend *b, const backend_limits *limits, char *message, size_t capacity);
/* What the backend takes on the card for itself. */
size_t cuda_own_bytes(const backend_limits *limits);
void cuda_destroy(backend *b);
const char *cuda_error(backend *b);

void *cuda_allocate(backend *b, size_t bytes);
void cuda_release(backend *b, void *memory);
void cuda_upload(backend *b, void *to, const void *from_host, size_t bytes);
void cuda_download(backend *b, void *to_host, const void *from, size_t bytes);
void cuda_copy(backend *b, void *to, const void *from, size_t bytes);
void cuda_zero(backend *b, void *memory, size_t bytes);
void cuda_weights_changed(backend *b, const float *w, size_t count);

int cuda_replay(backend *b, uint64_t key);
void cuda_recorded(backend *b);
void cuda_recordings_destroy(backend *b);

/* Chooses what multiplies (matmul_choice.cu), and, once there are stream and
 * workspace, measures it if that was asked for (matmul_measure.cu). */
int cuda_matmul_create(backend *b, char *message, size_t capacity);
int cuda_matmul_measure(backend *b, char *message, size_t capacity);
void cuda_matmul_destroy(backend *b);

#endif
