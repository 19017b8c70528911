/* One op at a time. Costs are those of the formulas in native/ref, not of a
 * kernel: an op that reads an array twice has a smaller share of the limit. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "ops.h"

#define ARRAYS 12

struct student_bench {
    backend backend;
    student_bench_shape shape;
    student_bench_cost cost;
    int op, stories, length, C, H, V, N, n; /* n: rows of the head */
    float *x[ARRAYS];
    int32_t *tokens, *positions, *slots, *targets, *offsets;
    uint64_t *ids;
    double *norm;
    dropout drop;
};

static tensor matrix(float *data, int rows, int cols) { return (tensor){data, rows, cols, TENSOR_F32}; }

/* A matrix of the type that the backend's activations have. */
static tensor rows_of(const student_bench *b, int array, int rows, int cols)
{
    return (tensor){b->x[array], rows, cols, b->backend.ops->activations};
}

/* Every array is as long as the largest that an op here takes. */
#define OP(name) static void run_##name(student_bench *b)
#define OPS b->backend.ops
#define B (&b->backend)

OP(embedding_forward)
{
    OPS->embedding_forward(B, matrix(b->x[0], b->N, b->C), matrix(b->x[1], b->V, b->C),
                           matrix(b->x[2], b->length, b->C), b->tokens, b->positions, b->drop);
}
OP(embedding_backward)
{
    OPS->embedding_backward(B, matrix(b->x[1], b->V, b->C), matrix(b->x[2], b->length, b->C),
                            matrix(b->x[0], b->N, b->C), b->tokens, b->positions, b->drop);
}
OP(layernorm_forward)
{
    OPS->layernorm_forward(B, rows_of(b, 0, b->N, b->C), b->x[2], b->x[3], matrix(b->x[1], b->N, b->C), b->x[4],
                           b->x[5], 1e-5f);
}
OP(layernorm_backward)
{
    OPS->layernorm_backward(B, matrix(b->x[0], b->N, b->C), b->x[6], b->x[7], rows_of(b, 1, b->N, b->C),
                            matrix(b->x[5], b->N, b->C), b->x[4], b->x[2], b->x[3]);
}
static void forward(student_bench *b, int rows, int in, int out)
{
    OPS->matmul_forward(B, rows_of(b, 0, rows, out), rows_of(b, 1, rows, in), matrix(b->x[2], out, in), b->x[3]);
}
static void input(student_bench *b, int rows, int in, int out)
{
    OPS->matmul_backward_input(B, rows_of(b, 0, rows, in), rows_of(b, 1, rows, out), matrix(b->x[2], out, in), 0);
}
static void weight(student_bench *b, int rows, int in, int out)
{
    OPS->matmul_backward_weight(B, matrix(b->x[0], out, in), b->x[3], rows_of(b, 1, rows, out),
                                rows_of(b, 4, rows, in));
}
OP(matmul_forward_qkv) { forward(b, b->N, b->C, 3 * b->C); }
OP(matmul_forward_output) { forward(b, b->N, b->C, b->C); }
OP(matmul_forward_up) { forward(b, b->N, b->C, 4 * b->C); }
OP(matmul_forward_down) { forward(b, b->N, 4 * b->C, b->C); }
OP(matmul_forward_head)
{
    OPS->matmul_forward(B, matrix(b->x[0], b->n, b->V), rows_of(b, 1, b->n, b->C), matrix(b->x[2], b->V, b->C), NULL);
}
OP(matmul_forward_decode) { forward(b, b->stories, b->C, 4 * b->C); }
OP(matmul_backward_input_qkv) { input(b, b->N, b->C, 3 * b->C); }
OP(matmul_backward_input_up) { input(b, b->N, b->C, 4 * b->C); }
OP(matmul_backward_input_down) { input(b, b->N, 4 * b->C, b->C); }
OP(matmul_backward_input_head) { input(b, b->n, b->C, b->V); }
OP(matmul_backward_weight_qkv) { weight(b, b->N, b->C, 3 * b->C); }
OP(matmul_backward_weight_up) { weight(b, b->N, b->C, 4 * b->C); }
OP(matmul_backward_weight_down) { weight(b, b->N, 4 * b->C, b->C); }
OP(matmul_backward_weight_head) { weight(b, b->n, b->C, b->V); }
OP(attention_forward)
{
    ragged rows = {b->offsets, b->stories, 0};
    OPS->attention_forward(B, rows_of(b, 0, b->N, b->C), b->x[2], rows_of(b, 1, b->N, 3 * b->C), rows, b->H, b->drop);
}
OP(attention_backward)
{
    ragged rows = {b->offsets, b->stories, 0};
    OPS->attention_backward(B, rows_of(b, 3, b->N, 3 * b->C), rows_of(b, 4, b->N, b->C), rows_of(b, 1, b->N, 3 * b->C),
                            rows_of(b, 0, b->N, b->C), b->x[2], rows, b->H, b->drop);
}
OP(attention_decode)
{
    OPS->attention_decode(B, rows_of(b, 0, b->stories, b->C), rows_of(b, 1, b->stories, 3 * b->C),
                          (tensor){b->x[2], b->stories * b->length, 2 * b->C, OPS->cache}, b->length, 0, b->slots,
                          b->positions, b->H, (dropout){0});
}
static tensor wide(student_bench *b, int i) { return rows_of(b, i, b->N, 4 * b->C); }
OP(gelu_forward) { OPS->gelu_forward(B, wide(b, 0), wide(b, 1)); }
OP(gelu_backward) { OPS->gelu_backward(B, wide(b, 0), wide(b, 2), wide(b, 1)); }
OP(residual_forward)
{
    OPS->residual_forward(B, matrix(b->x[0], b->N, b->C), matrix(b->x[1], b->N, b->C), rows_of(b, 2, b->N, b->C),
                          b->drop);
}
OP(residual_backward) { OPS->residual_backward(B, rows_of(b, 0, b->N, b->C), matrix(b->x[1], b->N, b->C), b->drop); }
OP(logprob_forward) { OPS->logprob_forward(B, b->x[1], b->x[2], b->x[3], matrix(b->x[0], b->n, b->V), b->targets); }
OP(logprob_backward)
{
    tensor logits = matrix(b->x[0], b->n, b->V), dlogits = rows_of(b, 4, b->n, b->V);
    OPS->logprob_backward(B, dlogits.type == TENSOR_F32 ? logits : dlogits, logits, b->x[3], b->targets, b->x[1]);
}
OP(sample)
{
    OPS->sample(B, b->tokens, matrix(b->x[0], b->n, b->V), b->ids, b->positions, (sample_options){1, 1, 0, 1});
}
OP(adamw)
{
    size_t count = 12 * (size_t)b->C * (size_t)b->C;
    adamw_options o = {1e-9, .9, .999, 1e-8, .01, 1, 1, count};
    OPS->adamw(B, b->x[0], b->x[1], b->x[2], b->x[3], count, b->norm, o);
}
OP(gradient_norm) { OPS->gradient_norm(B, b->norm, b->x[0], 12 * (size_t)b->C * (size_t)b->C); }

/* Cost per: a token (N), an element of the residual stream (NC), of the head's
 * logits (nV), a parameter of a block (P); matmul: rows, in, out. */
enum { PER_TOKEN_WIDTH, PER_LOGIT, PER_PARAMETER, MATMUL_TOKENS, MATMUL_HEAD, MATMUL_DECODE, ATTENTION, DECODE };

typedef struct op_case {
    const char *name;
    void (*run)(student_bench *b);
    int kind;
    double flops, arrays; /* per element of its kind; attention: flops per multiply-add pair of a head */
    double narrow;        /* arrays of the activation type, among them */
    double in, out;       /* of a multiplication, in widths; 0 = vocabulary */
    float dropout;
} op_case;

#define ELEMENT(name, kind, flops, arrays, narrow) {#name, run_##name, kind, flops, arrays, narrow, 0, 0, 0}
#define MATMUL(name, kind, in, out) {#name, run_##name, kind, 0, 0, 0, in, out, 0}

static const op_case cases[] = {
    ELEMENT(embedding_forward, PER_TOKEN_WIDTH, 1, 3, 0),
    ELEMENT(embedding_backward, PER_TOKEN_WIDTH, 2, 5, 0),
    ELEMENT(layernorm_forward, PER_TOKEN_WIDTH, 7, 2, 1),
    ELEMENT(layernorm_backward, PER_TOKEN_WIDTH, 13, 4, 1),
    MATMUL(matmul_forward_qkv, MATMUL_TOKENS, 1, 3),
    MATMUL(matmul_forward_output, MATMUL_TOKENS, 1, 1),
    MATMUL(matmul_forward_up, MATMUL_TOKENS, 1, 4),
    MATMUL(matmul_forward_down, MATMUL_TOKENS, 4, 1),
    MATMUL(matmul_forward_head, MATMUL_HEAD, 1, 0),
    MATMUL(matmul_forward_decode, MATMUL_DECODE, 1, 4),
    MATMUL(matmul_backward_input_qkv, MATMUL_TOKENS, 1, 3),
    MATMUL(matmul_backward_input_up, MATMUL_TOKENS, 1, 4),
    MATMUL(matmul_backward_input_down, MATMUL_TOKENS, 4, 1),
    MATMUL(matmul_backward_input_head, MATMUL_HEAD, 1, 0),
    MATMUL(matmul_backward_weight_qkv, MATMUL_TOKENS, 1, 3),
    MATMUL(matmul_backward_weight_up, MATMUL_TOKENS, 1, 4),
    MATMUL(matmul_backward_weight_down, MATMUL_TOKENS, 4, 1),
    MATMUL(matmul_backward_weight_head, MATMUL_HEAD, 1, 0),
    {"attention_forward", run_attention_forward, ATTENTION, 4, 4, 4, 0, 0, 0},
    {"attention_backward", run_attention_backward, ATTENTION, 10, 8, 8, 0, 0, 0},
    ELEMENT(attention_decode, DECODE, 0, 0, 0),
    ELEMENT(gelu_forward, PER_TOKEN_WIDTH, 4 * 9, 4 * 2, 4 * 2),
    ELEMENT(gelu_backward, PER_TOKEN_WIDTH, 4 * 15, 4 * 3, 4 * 3),
    ELEMENT(residual_forward, PER_TOKEN_WIDTH, 1, 3, 1),
    {"residual_forward_dropout", run_residual_forward, PER_TOKEN_WIDTH, 2, 3, 1, 0, 0, .1f},
    {"residual_backward_dropout", run_residual_backward, PER_TOKEN_WIDTH, 1, 2, 1, 0, 0, .1f},
    {"attention_forward_dropout", run_attention_forward, ATTENTION, 4, 4, 4, 0, 0, .1f},
    ELEMENT(logprob_forward, PER_LOGIT, 5, 1, 0),
    ELEMENT(logprob_backward, PER_LOGIT, 4, 2, 1),
    ELEMENT(sample, PER_LOGIT, 3, 1, 0),
    ELEMENT(adamw, PER_PARAMETER, 14, 7, 0),
    ELEMENT(gradient_norm, PER_PARAMETER, 2, 1, 0),
};

#define CASES ((int32_t)(sizeof cases / sizeof *cases))

int32_t student_bench_ops(void) { return CASES; }

const char *student_bench_op(int32_t index) { return index >= 0 && index < CASES ? cases[index].name : NULL; }

static void set_cost(student_bench *b, const op_case *c)
{
    double N = b->N, C = b->C, elements = N * C, T = b->length;
    student_bench_cost *k = &b->cost;
    double element = (double)tensor_element(OPS->activations), bytes = 4 * c->arrays - (4 - element) * c->narrow;
    switch (c->kind) {
    case PER_LOGIT:
        elements = (double)b->n * b->V;
        break;
    case PER_PARAMETER:
        elements = 12 * C * C;
        break;
    case MATMUL_TOKENS:
    case MATMUL_HEAD:
    case MATMUL_DECODE: {
        k->rows = c->kind == MATMUL_TOKENS ? b->N : c->kind == MATMUL_HEAD ? b->n : b->stories;
        int in = (int)(c->in * C), out = c->out > 0 ? (int)(c->out * C) : b->V;
        int backward_weight = strstr(c->name, "weight") != NULL, backward_input = strstr(c->name, "input") != NULL;
        k->flops = 2.0 * k->rows * in * out;
        /* The head's logits are fp32; weights are read in the type of the factors, gradients added to in fp32. */
        double logits = c->kind == MATMUL_HEAD && !backward_weight && !backward_input ? 4 : element;
        k->bytes = element * k->rows * in + logits * k->rows * out + (backward_weight ? 8 : element) * (double)in * out;
        k->depth = backward_weight ? k->rows : backward_input ? out : in;
        k->cols = backward_weight || backward_input ? in : out;
        k->rows = backward_weight ? out : k->rows;
        return;
    }
    case ATTENTION:
        k->flops = c->flops * C * b->stories * T * (T + 1) / 2;
        k->bytes = bytes * N * C;
        return;
    case DECODE:
        k->flops = 4 * C * b->stories * T;
        k->bytes = b->stories * ((double)tensor_element(OPS->cache) * T * 2 * C + element * 4 * C);
        return;
    }
    k->flops = c->flops * elements;
    k->bytes = bytes * elements;
}

static size_t longest(const student_bench *b)
{
    size_t C = (size_t)b->C, N = (size_t)b->N, V = (size_t)b->V, largest = 4 * N * C;
    size_t others[] = {V * C, 12 * C * C, (size_t)b->n * V, (size_t)b->H * N, 4 * C * V};
    for (int i = 0; i < 5; i++)
        largest = others[i] > largest ? others[i] : largest;
    return largest;
}

static int failed(student_bench *b, char *message, size_t capacity)
{
    student_bench_destroy(b);
    snprintf(message, capacity, "no memory for the arrays of this shape");
    return STUDENT_E_MEMORY;
}

static void fill(student_bench *b, float *to, float *host, size_t count, uint64_t seed)
{
    for (size_t i = 0; i < count; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        /* 0..1: also a second moment; both halves are bf16 numbers of that range. */
        float x = (float)(seed >> 40) * 0x1p-24f;
        uint32_t bits;
        memcpy(&bits, &x, sizeof bits);
        bits = (bits & 0xffff0000u) | bits >> 16;
        memcpy(&host[i], &bits, sizeof bits);
    }
    OPS->upload(B, to, host, count * sizeof(float));
}

int student_bench_create(int32_t op, const student_bench_shape *shape, const char *backend_name, const char *isa,
                         const char *kernels, int32_t threads, student_bench **out, student_bench_cost *cost,
                         char *message, size_t capacity)
{
    if (op < 0 || op >= CASES || !shape || shape->size != sizeof *shape || !cost || cost->size != sizeof *cost) {
        snprintf(message, capacity, "no op %d, or structs of another size", op);
        return STUDENT_E_ARGUMENT;
    }
    if (shape->stories < 1 || shape->length < 1 || shape->width < 1 || shape->heads < 1 || shape->vocabulary < 1 ||
        shape->width % shape->heads || (int64_t)shape->stories * shape->length > 1 << 24) {
        snprintf(message, capacity, "shape: positive numbers, a width that heads divide, at most 2^24 tokens");
        return STUDENT_E_ARGUMENT;
    }
    student_bench *b = calloc(1, sizeof *b);
    if (!b)
        return failed(b, message, capacity);
    *b = (student_bench){.shape = *shape,
                         .cost = {.size = sizeof b->cost},
                         .op = op,
                         .stories = shape->stories,
                         .length = shape->length,
                         .C = shape->width,
                         .H = shape->heads,
                         .V = shape->vocabulary,
                         .N = shape->stories * shape->length,
                         .drop = {cases[op].dropout, 1, 1, 1}};
    int widest = 4 * b->C > b->V ? 4 * b->C : b->V;
    backend_limits limits = {.rows = b->N,
                             .width = widest > b->N ? widest : b->N,
                             .threads = threads,
                             .isa = isa,
                             .kernels = kernels,
                             .parameters = longest(b),
                             .context = b->length,
                             .head_width = b->C / b->H,
                             .stream = b->C,
                             .heads = b->H,
                             .vocabulary = b->V,
                             .stories = b->stories};
    int status = !strcmp(backend_name, "ref")    ? backend_ref_create(B, &limits, message, capacity)
                 : !strcmp(backend_name, "cpu")  ? backend_cpu_create(B, &limits, message, capacity)
                 : !strcmp(backend_name, "cuda") ? backend_cuda_create(B, &limits, message, capacity)
                                                 : STUDENT_E_ARGUMENT;
    if (status) {
        if (strcmp(backend_name, "ref") && strcmp(backend_name, "cpu") && strcmp(backend_name, "cuda"))
            snprintf(message, capacity, "no backend %s", backend_name);
        free(b);
        return status;
    }
    b->n = b->N < OPS->head_rows ? b->N : OPS->head_rows;
    size_t count = longest(b), cache = 2 * (size_t)b->C * (size_t)b->N, ints = (size_t)(b->N + 1) * sizeof(int32_t);
    float *host = malloc(count * sizeof(float));
    int32_t *index = malloc(ints);
    int32_t **lists[] = {&b->tokens, &b->positions, &b->slots, &b->targets, &b->offsets};
    int complete = host && index && cache <= count;
    for (int i = 0; i < ARRAYS && complete; i++)
        complete = (b->x[i] = OPS->allocate(B, count * sizeof(float))) != NULL;
    for (int i = 0; i < 5 && complete; i++)
        complete = (*lists[i] = OPS->allocate(B, ints)) != NULL;
    if (complete)
        complete = (b->ids = OPS->allocate(B, (size_t)(b->N + 1) * sizeof(uint64_t))) != NULL &&
                   (b->norm = OPS->allocate(B, sizeof *b->norm)) != NULL;
    if (complete) {
        for (int i = 0; i < ARRAYS; i++)
            fill(b, b->x[i], host, count, (uint64_t)i + 1);
        int decode = !strcmp(cases[op].name, "attention_decode");
        for (int list = 0; list < 5; list++) {
            for (int i = 0; i <= b->N; i++)
                index[i] = list == 0 || list == 3 ? (int32_t)((i * 2654435761u) % (uint32_t)b->V)
                           : list == 1            ? (decode ? b->length - 1 : i % b->length)
                           : list == 2            ? i % b->stories
                                                  : (i <= b->stories ? i * b->length : 0);
            OPS->upload(B, *lists[list], index, ints);
        }
        if (OPS->weights_changed)
            OPS->weights_changed(B, b->x[2], limits.parameters);
        set_cost(b, &cases[op]);
        *cost = b->cost;
        *out = b;
    }
    free(host);
    free(index);
    return complete ? STUDENT_OK : failed(b, message, capacity);
}

void student_bench_destroy(student_bench *b)
{
    if (!b)
        return;
    if (b->backend.ops) {
        void *lists[] = {b->tokens, b->positions, b->slots, b->targets, b->offsets, b->ids, b->norm};
        for (int i = 0; i < ARRAYS; i++)
            if (b->x[i])
                OPS->release(B, b->x[i]);
        for (int i = 0; i < 7; i++)
            if (lists[i])
                OPS->release(B, lists[i]);
        OPS->destroy(B);
    }
    free(b);
}

void student_bench_run(student_bench *b, int64_t times)
{
    for (int64_t i = 0; i < times; i++)
        cases[b->op].run(b);
    double norm; /* a card runs behind the caller: wait for it */
    OPS->download(B, &norm, b->norm, sizeof norm);
}
