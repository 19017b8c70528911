/* The op matrix: every op of a backend against ref, over a spread of shapes:
 * odd sizes, one row, one token, lengths 1..T mixed.
 *
 * usage: test_ops [cpu | cuda] [least | few | all]
 * Without arguments every set of cpu that this machine has. cuda needs its
 * library (native/model/cuda_loader.c). Exit status 1 when a bound is passed,
 * 3 when the backend cannot be created. */
#include <stdio.h>
#include <string.h>

#include "matrix.h"

static void rows_and_products(backend *b, backend *r)
{
    /* The last is the head's: few rows against many columns (native/cpu/gemm.c). */
    const int sizes[][3] = {{1, 1, 1},      {3, 5, 2},      {14, 32, 32},   {15, 257, 65}, {64, 64, 64},
                            {1, 33, 7},     {33, 64, 130},  {130, 72, 1},   {200, 48, 31}, {7, 1024, 96},
                            {33, 513, 130}, {85, 300, 259}, {75, 805, 1061}};
    const size_t count = sizeof sizes / sizeof sizes[0];
    for (size_t i = few == 2 ? 1 : 0; i < (few == 2 ? 3 : few ? 5 : count); i++) {
        int N = sizes[i][0], I = sizes[i][1], O = sizes[i][2];
        test_matmul(b, r, N, I, O);
        test_fused(b, r, N, I, O);
        test_layernorm(b, r, N, I + 1);
        test_layernorm(b, r, N, I);
        test_embedding(b, r, N, O, 0);
        test_residual_layernorm_bits(b, N, I);
        test_elementwise(b, r, N, I);
        test_optimizer(b, r, N * I);
        test_head(b, r, N > 20 ? 20 : N, I + 2);
    }
    /* Indices over several windows of a sorted list, runs that do not pair. */
    test_embedding(b, r, 65, 40, 100);
    test_embedding(b, r, 700, 16, 40);
    if (few)
        return;
    test_embedding(b, r, 1537, 24, 70);
    test_embedding(b, r, 300, 1032, 10);
    /* The widest rows that a block of a card keeps in registers, and the next;
     * more rows than there are blocks to sum them. */
    const int rows[][2] = {{2, 4096}, {3, 4104}, {4099, 8}, {9, 768}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        test_layernorm(b, r, rows[i][0], rows[i][1]);
        test_residual_layernorm_bits(b, rows[i][0], rows[i][1]);
    }
    test_optimizer(b, r, 4500001); /* more than one round of every block */
    test_elementwise(b, r, 200, 200);
    test_optimizer(b, r, 40000);
    test_head(b, r, 3, 4096);
}

static void attention(backend *b, backend *r)
{
    const int32_t one[] = {0, 1}, mixed[] = {0, 1, 3, 6, 10, 33, 34, 66}, alone[] = {0, 70}, longer[] = {0, 151, 160};
    const int shapes[][2] = {{1, 1}, {2, 16}, {1, 64}, {3, 20}, {4, 7}, {1, 128}, {2, 33}, {2, 32}, {1, 80}};
    int32_t many[41]; /* more stories than a warp has lanes */
    for (int s = 0; s <= 40; s++)
        many[s] = s + s * s / 8;
    const size_t count = sizeof shapes / sizeof shapes[0];
    for (size_t i = few == 2 ? 1 : 0; i < (few == 2 ? 2 : few ? 3 : count); i++)
        for (int p = 0; p < 2; p++) {
            dropout drop = {0.25f * (float)p, 21, 3, 1, 0};
            test_attention(b, r, one, 1, shapes[i][0], shapes[i][1], drop);
            test_attention(b, r, mixed, 7, shapes[i][0], shapes[i][1], drop);
            if (few && shapes[i][1] != 64)
                continue;
            test_attention(b, r, alone, 1, shapes[i][0], shapes[i][1], drop);
            test_attention(b, r, longer, 2, shapes[i][0], shapes[i][1], drop);
            if (shapes[i][1] == 32)
                test_attention(b, r, many, 40, shapes[i][0], shapes[i][1], drop);
        }
}

/* Prefixes of one token, of odd length, longer than the stories; one story; so
 * many queries that a card cuts them. Against r, and against the batch without a
 * prefix. */
static void shared_prefixes(backend *b, backend *r)
{
    int32_t odd[] = {7, 8, 17, 19, 60}, one[] = {1, 2}, longer[] = {70, 73, 74, 79}, alone[] = {33, 50}, many[42] = {5},
            cut[42] = {70};
    for (int s = 1; s <= 41; s++) {
        many[s] = many[s - 1] + 1 + s % 9;
        cut[s] = cut[s - 1] + 2 + s % 23;
    }
    const struct {
        const int32_t *offsets;
        int stories;
    } batches[] = {{odd, 4}, {one, 1}, {longer, 3}, {alone, 1}, {many, 41}, {cut, 41}};
    const int shapes[][2] = {{2, 32}, {3, 20}, {1, 64}, {1, 1}, {4, 7}, {1, 128}, {2, 33}};
    for (size_t i = 0; i < (few ? 1 : sizeof shapes / sizeof *shapes); i++)
        for (size_t k = 0; k < sizeof batches / sizeof *batches - (few == 2); k++) {
            if (b != r)
                test_attention(b, r, batches[k].offsets, batches[k].stories, shapes[i][0], shapes[i][1], (dropout){0});
            test_prefix(b, batches[k].offsets, batches[k].stories, shapes[i][0], shapes[i][1]);
        }
}

typedef int create(backend *b, const backend_limits *limits, char *message, size_t capacity);

/* kernels: a variant of an op, or NULL. */
static int run(create *make, const char *name, const char *isa, const char *kernels, backend *reference)
{
    char message[256] = "";
    backend b;
    backend_limits limits = {.rows = 4200,
                             .width = 65536,
                             .threads = 2,
                             .isa = isa,
                             .kernels = kernels,
                             .context = 256,
                             .head_width = 128,
                             .parameters = 1 << 20,
                             .stream = make == backend_cpu_create ? 256 : 4104,
                             .heads = 4,
                             .vocabulary = 4096,
                             .stories = 64};
    int before = cases, status = make(&b, &limits, message, sizeof message);
    if (status) {
        printf("not supported here: %s %s (%s)\n", name, kernels ? kernels : isa, message);
        return status;
    }
    b.isa = kernels ? kernels : b.isa;
    rows_and_products(&b, reference);
    attention(&b, reference);
    shared_prefixes(&b, reference);
    test_recording(&b);
    expect(&b, !b.ops->error(&b), "the backend says: %s", b.ops->error(&b));
    printf("%-4s %-10s %d cases against ref\n", name, b.isa, cases - before);
    b.ops->destroy(&b);
    return 0;
}

/* The factor that the threads share goes through the workspace in parts, of
 * columns and of the depth. */
static void in_parts(const char *isa, backend *reference)
{
    backend b;
    backend_limits limits = {.threads = 2, .isa = isa, .context = 16, .head_width = 16, .stream = 16};
    if (backend_cpu_create(&b, &limits, NULL, 0))
        return;
    test_matmul(&b, reference, 5, 900, 1100);
    test_matmul(&b, reference, 2, 40, 1700);
    b.ops->destroy(&b);
}

int main(int count, char **arguments)
{
    static const char *const isas[] = {"portable", "avx2", "avx512", "avx512bf16"};
    const char *name = count > 1 ? arguments[1] : "cpu";
    few = count > 2 ? !strcmp(arguments[2], "few") + 2 * !strcmp(arguments[2], "least") : 0;
    backend reference;
    int status = backend_ref_create(&reference, NULL, NULL, 0);
    if (!strcmp(name, "cuda")) {
        status |= run(backend_cuda_create, name, "fp32", NULL, &reference);
        status |= run(backend_cuda_create, name, "bf16", NULL, &reference);
    } else {
        shared_prefixes(&reference, &reference);
        printf("ref  %d cases of a prefix against none\n", cases);
        for (int i = 0; i < 4; i++)
            run(backend_cpu_create, name, isas[i], NULL, &reference);
        for (int i = 0; student_kernel(i, 0); i++) { /* variants of single ops, on the best ISA */
            char kernel[64];
            snprintf(kernel, sizeof kernel, "%s=%s", student_kernel(i, 0), student_kernel(i, 1));
            run(backend_cpu_create, name, "auto", kernel, &reference);
        }
        for (int i = 0; i < 4; i++)
            in_parts(isas[i], &reference);
    }
    printf("%d cases, %d failed\n", cases, failures);
    return status ? 3 : failures > 0;
}
