/* Choosing the ISA, and what the backend owns: threads and workspace. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu.h"

#define DEPTH_BLOCK 256 /* DEPTH of gemm.c */
#define WIDEST_PANEL 32 /* widest ROWS or COLS of gemm.c */

void cpu_destroy(backend *b);

size_t cpu_packed_floats(int rows) { return ((size_t)rows + WIDEST_PANEL) * DEPTH_BLOCK; }

size_t backend_cpu_workspace(const backend_limits *limits)
{
    return (2 * cpu_packed_floats(limits->width) + (size_t)limits->threads * CPU_SCRATCH_FLOATS) * sizeof(float);
}

static int supported(const char *isa)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!strcmp(isa, "avx512"))
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
    if (!strcmp(isa, "avx2"))
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    return !strcmp(isa, "portable");
}

const char *student_best_isa(void) { return supported("avx512") ? "avx512" : supported("avx2") ? "avx2" : "portable"; }

static const op_table *table_of(const char *isa)
{
#if defined(__x86_64__)
    if (!strcmp(isa, "avx512"))
        return &cpu_ops_avx512;
    if (!strcmp(isa, "avx2"))
        return &cpu_ops_avx2;
#endif
    return strcmp(isa, "portable") ? NULL : &cpu_ops_portable;
}

void cpu_destroy(backend *b)
{
    cpu_state *s = b->state;
    if (!s)
        return;
    thread_pool_destroy(s->pool);
    free(s->packed_a);
    free(s->packed_b);
    free(s->scratch);
    free(s);
    b->state = NULL;
}

int backend_cpu_create(backend *b, const backend_limits *limits, char *message, size_t capacity)
{
    const char *isa = limits->isa && *limits->isa && strcmp(limits->isa, "auto") ? limits->isa : student_best_isa();
    const op_table *ops = table_of(isa);
    if (!ops) {
        snprintf(message, capacity, "isa %s is not built in; auto, avx512, avx2 and portable are", isa);
        return STUDENT_E_ARGUMENT;
    }
    if (!supported(isa)) {
        snprintf(message, capacity, "this processor has no %s; its best isa is %s", isa, student_best_isa());
        return STUDENT_E_CAPABILITY;
    }
    cpu_state *s = calloc(1, sizeof *s);
    b->ops = ops;
    b->state = s;
    b->isa = isa;
    if (s) {
        size_t packed = cpu_packed_floats(limits->width) * sizeof(float);
        s->scratch_size = CPU_SCRATCH_FLOATS;
        s->pool = thread_pool_create(limits->threads);
        s->packed_a = host_allocate(b, packed);
        s->packed_b = host_allocate(b, packed);
        s->scratch = host_allocate(b, (size_t)limits->threads * CPU_SCRATCH_FLOATS * sizeof(float));
    }
    if (!s || !s->pool || !s->packed_a || !s->packed_b || !s->scratch) {
        cpu_destroy(b);
        snprintf(message, capacity, "no memory or threads for the cpu backend (%d threads)", limits->threads);
        return STUDENT_E_MEMORY;
    }
    return STUDENT_OK;
}
