/* cuda_library.h: what libstudent_cuda.so and libstudent say to each other.
 * libstudent opens the library at run time (native/model/cuda_loader.c), so
 * that a machine without CUDA needs none of it. */
#ifndef ONCEUPON_CUDA_LIBRARY_H
#define ONCEUPON_CUDA_LIBRARY_H

#include "ops.h"

#define CUDA_LIBRARY_ABI 4

/* Tokens whose logits exist at a time: enough rows to fill a card. A decode
 * step comes in few sizes, so that each is recorded once. */
enum { CUDA_HEAD_ROWS = 1024, CUDA_ROW_MULTIPLE = 16 };

/* Both sides were compiled from the same headers when abi and sizes agree. */
typedef struct cuda_library {
    int32_t abi, student_abi;
    size_t op_table_bytes, limits_bytes, sums_bytes, device_bytes;
    const char *architectures; /* what kernels were compiled for */
    int (*create)(backend *b, const backend_limits *limits, char *message, size_t capacity);
    size_t (*workspace)(const backend_limits *limits);
    int (*describe)(student_device *device, char *message, size_t capacity);
} cuda_library;

/* The one symbol that the library exports. */
#define CUDA_LIBRARY_SYMBOL "onceupon_cuda_library"

#endif
