/* Choosing the ISA, and what the backend owns: threads and workspace. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu.h"

#define WIDEST_PANEL 32     /* widest COLS of gemm.c */
#define LEAST_PANELS 4      /* of the shared factor, a depth block each */
#define LEAST_SCRATCH 65536 /* partial sums of elementwise.c */

void cpu_destroy(backend *b);

static size_t multiple(size_t n, size_t of) { return (n + of - 1) / of * of; }

/* The largest weight of a layer, (4C,C), in whole depth blocks of every ISA of a
 * kind; the head's is gone through in parts. A packed element is four bytes: a
 * number, or a pair of bf16. */
size_t cpu_packed_floats(const backend_limits *limits)
{
    int pairs = limits->isa && !strcmp(limits->isa, "avx512bf16");
    size_t C = (size_t)limits->stream, depth = multiple(pairs ? (C + 1) / 2 : C, GEMM_DEPTH);
    if (!pairs && multiple(C, GEMM_NARROW_DEPTH) > depth)
        depth = multiple(C, GEMM_NARROW_DEPTH);
    size_t floats = multiple(4 * C, WIDEST_PANEL) * depth, least = (size_t)LEAST_PANELS * WIDEST_PANEL * GEMM_DEPTH;
    return floats > least ? floats : least;
}

size_t cpu_scratch_floats(const backend_limits *limits)
{
    size_t T = ((size_t)limits->context + 15) / 16 * 16, D = ((size_t)limits->head_width + 15) / 16 * 16;
    /* Keys and values turned, packed keys, dk, dv, keys side by side; two blocks of
     * at most 12 rows of scores, one of 6 pairs; q and dout of a block, by rows and
     * by pairs; dropout factors. */
    size_t attention = T * (6 * D + 2 * 12 + 6 + 1) + 36 * D + 1024;
    size_t layernorm = 2 * LAYERNORM_PARTS * (size_t)limits->stream;
    size_t draw = (size_t)limits->vocabulary / 4 + 1; /* sums of the narrowest vectors */
    size_t needs[] = {attention, layernorm, draw}, most = LEAST_SCRATCH;
    for (int i = 0; i < 3; i++)
        most = needs[i] > most ? needs[i] : most;
    return most;
}

size_t backend_cpu_workspace(const backend_limits *limits)
{
    return (cpu_packed_floats(limits) + (size_t)limits->threads * (cpu_packed_rows() + cpu_scratch_floats(limits))) *
               sizeof(float) +
           (size_t)limits->threads * sizeof(fetch_list);
}

static int supported(const char *isa)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!strcmp(isa, "avx512bf16"))
        return supported("avx512") && __builtin_cpu_supports("avx512bf16");
    if (!strcmp(isa, "avx512"))
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
    if (!strcmp(isa, "avx2"))
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    return !strcmp(isa, "portable");
}

const char *student_best_isa(void) { return supported("avx512") ? "avx512" : supported("avx2") ? "avx2" : "portable"; }

static const struct {
    const char *name;
    const op_table *ops;
} tables[] = {
#if defined(__x86_64__)
    {"avx512bf16", &cpu_ops_avx512bf16},
    {"avx512", &cpu_ops_avx512},
    {"avx2", &cpu_ops_avx2},
#endif
    {"portable", &cpu_ops_portable},
};

void cpu_destroy(backend *b)
{
    cpu_state *s = b->state;
    if (!s)
        return;
    thread_pool_destroy(s->pool);
    free(s->packed_a);
    free(s->packed_b);
    free(s->scratch);
    free(s->later);
    free(s);
    b->state = NULL;
}

int backend_cpu_create(backend *b, const backend_limits *limits, char *message, size_t capacity)
{
    const char *isa = limits->isa && *limits->isa && strcmp(limits->isa, "auto") ? limits->isa : student_best_isa();
    const op_table *ops = NULL;
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        if (!strcmp(isa, tables[i].name)) {
            ops = tables[i].ops;
            isa = tables[i].name; /* the caller's may not live as long as the backend */
        }
    if (!ops) {
        snprintf(message, capacity, "isa %s is not built in; auto, avx512bf16, avx512, avx2 and portable are", isa);
        return STUDENT_E_ARGUMENT;
    }
    if (!supported(isa)) {
        snprintf(message, capacity, "this processor has no %s; its best isa is %s", isa, student_best_isa());
        return STUDENT_E_CAPABILITY;
    }
    cpu_state *s = calloc(1, sizeof *s);
    b->state = s;
    b->isa = isa;
    if (s) {
        s->ops = *ops;
        b->ops = &s->ops;
        int status = cpu_install_variants(&s->ops, limits, isa, message, capacity);
        if (status) {
            cpu_destroy(b);
            return status;
        }
        s->packed_b_size = cpu_packed_floats(limits);
        s->scratch_size = cpu_scratch_floats(limits);
        s->pool = thread_pool_create(limits->threads);
        s->packed_a = host_allocate(b, (size_t)limits->threads * cpu_packed_rows() * sizeof(float));
        s->packed_b = host_allocate(b, s->packed_b_size * sizeof(float));
        s->later = calloc((size_t)limits->threads, sizeof *s->later);
        s->scratch = host_allocate(b, (size_t)limits->threads * s->scratch_size * sizeof(float));
    }
    if (!s || !s->pool || !s->packed_a || !s->packed_b || !s->scratch || !s->later) {
        cpu_destroy(b);
        snprintf(message, capacity, "no memory or threads for the cpu backend (%d threads)", limits->threads);
        return STUDENT_E_MEMORY;
    }
    return STUDENT_OK;
}
