/* Multiplications of the cuda backend beyond the op matrix: what must be equal
 * to the bit, and every variant against ref.
 *   - tiles of a variant, however chosen, give the same bits
 *   - a row alone has the bits that it has among others (decoding, training)
 *   - multiplications that end in GELU have the bits of the two ops
 *   - the gradient of a weight whose rows are cut has the same bits again
 *   - a measured choice is written down and kept to, a form at a time
 * Factors are rounded to bf16 first where the backend multiplies in bf16, so
 * products are exact and fp32 sums differ from ref's in double by their
 * roundings alone: NMSE below 1e-12; tensor cores cut a sum off where fp32
 * rounds it, to one side, and add more of them: 1e-10. A result stored in bf16
 * is off by up to 2^-8 of itself: 1.53e-5 where it is the only one. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bf16.h"
#include "cuda_library.h"
#include "ref.h"

#define BOUND 1e-12
#define BOUND_CUT 1e-10
#define BOUND_BF16 1.6e-5

static int failures, cases;
static uint64_t generator = 88172645463325252ull;
static void *held[4096];
static int holding;
static backend b;
static void *of_backend[256];
static int taken;

static void *hold(void *memory)
{
    if (!memory || holding == (int)(sizeof held / sizeof held[0]))
        abort();
    return held[holding++] = memory;
}

static double uniform(void)
{
    generator ^= generator << 13;
    generator ^= generator >> 7;
    generator ^= generator << 17;
    return (double)(generator >> 11) * 0x1p-53;
}

static tensor host(int rows, int cols)
{
    tensor t = {NULL, rows, cols, TENSOR_F32};
    t.data = hold(calloc(tensor_count(t), sizeof(float)));
    return t;
}

/* Values that bf16 holds. */
static tensor filled(int rows, int cols)
{
    tensor t = host(rows, cols);
    for (size_t i = 0; i < tensor_count(t); i++)
        t.data[i] = from_bf16(to_bf16((float)(uniform() + uniform() + uniform() - 1.5)));
    return t;
}

/* What the backend has of a case. */
typedef struct device_case {
    tensor x, w, dout, up; /* w and the bias behind it are the flat weights */
    float *bias;
} device_case;

static tensor on(tensor t, int type)
{
    size_t n = tensor_count(t);
    tensor d = {b.ops->allocate(&b, n * tensor_element(type)), t.rows, t.cols, type};
    if (!d.data || taken == (int)(sizeof of_backend / sizeof of_backend[0]))
        abort();
    of_backend[taken++] = d.data;
    uint16_t *half = malloc(n * sizeof *half);
    for (size_t i = 0; i < n; i++)
        half[i] = to_bf16(t.data[i]);
    b.ops->upload(&b, d.data, type == TENSOR_BF16 ? (void *)half : t.data, n * tensor_element(type));
    free(half);
    return d;
}

static tensor back(tensor d)
{
    tensor t = host(d.rows, d.cols);
    size_t n = tensor_count(d);
    if (d.type == TENSOR_F32) {
        b.ops->download(&b, t.data, d.data, n * sizeof(float));
        return t;
    }
    uint16_t *half = malloc(n * sizeof *half);
    b.ops->download(&b, half, d.data, n * sizeof *half);
    for (size_t i = 0; i < n; i++)
        t.data[i] = from_bf16(half[i]);
    free(half);
    return t;
}

static void check(const char *what, const char *shape, tensor got, tensor want, double bound)
{
    double error = 0, size = 0;
    for (size_t i = 0; i < tensor_count(want); i++) {
        double d = (double)got.data[i] - want.data[i];
        error += isfinite(got.data[i]) ? d * d : INFINITY;
        size += (double)want.data[i] * want.data[i];
    }
    double nmse = size > 0 ? error / size : error;
    cases++;
    if (!(nmse <= bound)) {
        failures++;
        printf("FAIL %s %-24s %-20s NMSE %.2e > %.0e\n", b.isa, what, shape, nmse, bound);
    }
}

static void same_bits(const char *what, const char *shape, tensor got, tensor want)
{
    cases++;
    if (memcmp(got.data, want.data, tensor_count(want) * sizeof(float))) {
        failures++;
        printf("FAIL %s %-24s %-20s other bits\n", b.isa, what, shape);
    }
}

enum { FORWARD, LOGITS, INPUT, INPUT_ADDED, WEIGHT, BIAS, UP, GELU, SLOPE, RESULTS };
static const char *const names[RESULTS] = {"forward",     "forward in fp32",     "backward_input",
                                           "added input", "backward_weight",     "bias gradient",
                                           "gelu's up",   "matmul_gelu_forward", "matmul_gelu_backward"};

static int create(const char *isa, const char *variant, const char *tiles, char *message, size_t capacity)
{
    char kernels[32] = "";
    backend_limits limits = {
        .rows = 2048, .width = 2048, .stream = 2048, .threads = 1, .isa = isa, .context = 64, .head_width = 64};
    limits.parameters = 1 << 20;
    if (variant)
        snprintf(kernels, sizeof kernels, "matmul=%s", variant);
    limits.kernels = kernels;
    setenv("ONCEUPON_CUDA_TILES", tiles, 1);
    return backend_cuda_create(&b, &limits, message, capacity);
}

static device_case put(const tensor *t, int O, int I)
{
    int type = b.ops->activations, one = O == 1;
    tensor flat = host(1, (O * I + 15) / 16 * 16 + O);
    memcpy(flat.data, t[1].data, (size_t)O * I * sizeof(float));
    memcpy(flat.data + flat.cols - O, t[2].data, O * sizeof(float));
    tensor weights = on(flat, TENSOR_F32);
    if (b.ops->weights_changed)
        b.ops->weights_changed(&b, weights.data, tensor_count(weights));
    return (device_case){.x = on(t[0], type),
                         .w = {weights.data, O, I, TENSOR_F32},
                         .bias = weights.data + flat.cols - O,
                         .dout = on(t[3], one ? TENSOR_F32 : type),
                         .up = on(t[4], type)};
}

/* Every op once; out holds what came of it. alike: the variant promises that a
 * row's bits do not depend on the others. */
static void run(const tensor *t, int N, int I, int O, int alike, tensor *out)
{
    int A = b.ops->activations;
    device_case c = put(t, O, I);
    tensor y = on(host(N, O), A), z = on(host(N, O), TENSOR_F32), dx = on(host(N, I), A), added = on(t[0], A);
    tensor dw = on(t[1], TENSOR_F32), db = on(t[2], TENSOR_F32);
    b.ops->matmul_forward(&b, y, c.x, c.w, c.bias);
    b.ops->matmul_forward(&b, z, c.x, c.w, NULL);
    b.ops->matmul_backward_input(&b, dx, c.dout, c.w, 0);
    b.ops->matmul_backward_input(&b, added, c.dout, c.w, 1);
    b.ops->matmul_backward_weight(&b, dw, db.data, c.dout, c.x);
    out[FORWARD] = back(y);
    out[LOGITS] = back(z);
    out[INPUT] = back(dx);
    out[INPUT_ADDED] = back(added);
    out[WEIGHT] = back(dw);
    out[BIAS] = back(db);
    if (O > 1) {
        tensor up = on(host(N, O), A), gelu = on(host(N, O), A), dup = on(host(N, I), A);
        b.ops->matmul_gelu_forward(&b, gelu, up, c.x, c.w, c.bias);
        b.ops->matmul_gelu_backward(&b, dup, c.dout, c.w, c.up);
        out[UP] = back(up);
        out[GELU] = back(gelu);
        out[SLOPE] = back(dup);
    }
    /* The last row alone. */
    char shape[64];
    snprintf(shape, sizeof shape, "N%d I%d O%d", N, I, O);
    tensor alone = on(host(1, O), A);
    b.ops->matmul_forward(&b, alone, tensor_rows(c.x, (size_t)N - 1, 1), c.w, c.bias);
    if (alike)
        same_bits("a row alone", shape, back(alone), tensor_rows(out[FORWARD], (size_t)N - 1, 1));
    if (O > 1 && b.ops->gelu_forward) {
        tensor gelu = on(host(N, O), A);
        b.ops->gelu_forward(&b, gelu, on(out[UP], A));
        if (alike)
            same_bits("gelu of up", shape, out[GELU], back(gelu));
    }
}

static void expect(const tensor *t, int N, int I, int O, tensor *want)
{
    backend r = {0};
    want[FORWARD] = host(N, O);
    want[LOGITS] = host(N, O);
    want[INPUT] = host(N, I);
    want[INPUT_ADDED] = host(N, I);
    want[WEIGHT] = host(O, I);
    want[BIAS] = host(1, O);
    want[GELU] = host(N, O);
    want[SLOPE] = host(N, I);
    memcpy(want[INPUT_ADDED].data, t[0].data, tensor_count(t[0]) * sizeof(float));
    memcpy(want[WEIGHT].data, t[1].data, tensor_count(t[1]) * sizeof(float));
    memcpy(want[BIAS].data, t[2].data, tensor_count(t[2]) * sizeof(float));
    ref_matmul_forward(&r, want[FORWARD], t[0], t[1], t[2].data);
    ref_matmul_forward(&r, want[LOGITS], t[0], t[1], NULL);
    ref_matmul_backward_input(&r, want[INPUT], t[3], t[1], 0);
    ref_matmul_backward_input(&r, want[INPUT_ADDED], t[3], t[1], 1);
    ref_matmul_backward_weight(&r, want[WEIGHT], want[BIAS].data, t[3], t[0]);
    want[UP] = want[FORWARD];
    ref_gelu_backward(&r, want[SLOPE], want[INPUT], t[4]);
}

static const struct {
    const char *isa, *variant, *tiles;
} ways[] = {{"fp32", NULL, "estimated"}, {"fp32", "simt", "0"},    {"fp32", "simt", "1"},        {"fp32", "simt", "2"},
            {"bf16", NULL, "estimated"}, {"bf16", "mma", "0"},     {"bf16", "mma", "1"},         {"bf16", "mma", "2"},
            {"bf16", "wgmma", "0"},      {"bf16", "mma", "timed"}, {"bf16", "cublaslt", "timed"}};
enum { WAYS = sizeof ways / sizeof ways[0] };

static int test_shape(int N, int I, int O)
{
    char shape[64], message[256] = "";
    snprintf(shape, sizeof shape, "N%d I%d O%d", N, I, O);
    tensor t[5] = {filled(N, I), filled(O, I), filled(1, O), filled(N, O), filled(N, I)};
    tensor want[RESULTS], got[RESULTS], first[RESULTS];
    expect(t, N, I, O, want);
    for (int i = 0; i < WAYS; i++) {
        if (create(ways[i].isa, ways[i].variant, ways[i].tiles, message, sizeof message)) {
            if (ways[i].variant && strstr(message, "needs") && N == 1 && O == 1)
                printf("left out: %s\n", message);
            if (ways[i].variant && strstr(message, "needs"))
                continue;
            printf("%s\n", message);
            return 1;
        }
        run(t, N, I, O, !ways[i].variant || strcmp(ways[i].variant, "cublaslt"), got);
        int half = b.ops->activations == TENSOR_BF16, fresh = !ways[i].variant;
        int other = !fresh && strcmp(ways[i].variant, "mma") && strcmp(ways[i].variant, "simt");
        /* GELU is that of the stored `up`, whose rounding it may magnify. */
        if (O > 1)
            ref_gelu_forward(&b, want[GELU], got[UP]);
        for (int k = 0; k < (O > 1 ? RESULTS : UP); k++) {
            int rounded = half && k != LOGITS && k != WEIGHT && k != BIAS;
            /* GELU in fp32: 1 + tanh cancels in ref's double too little to matter, exp has 2 ulp. */
            check(names[k], shape, got[k], want[k],
                  rounded     ? BOUND_BF16
                  : half      ? BOUND_CUT
                  : k >= GELU ? 1e-11
                              : BOUND);
            if (fresh)
                first[k] = got[k];
            else if (!other)
                same_bits(names[k], shape, got[k], first[k]);
        }
        while (taken)
            b.ops->release(&b, of_backend[--taken]);
        cases++;
        if (b.ops->error(&b)) {
            failures++;
            printf("FAIL %s\n", b.ops->error(&b));
        }
        b.ops->destroy(&b);
    }
    while (holding)
        free(held[--holding]);
    return 0;
}

/* A small student's weights are measured; or its choices are read. kernels: "matmul=..." */
static int create_small(const char *kernels, char *message, size_t capacity)
{
    backend_limits limits = {.rows = 128,
                             .width = 256,
                             .stream = 64,
                             .vocabulary = 96,
                             .threads = 1,
                             .isa = "bf16",
                             .kernels = kernels,
                             .context = 64,
                             .head_width = 64,
                             .parameters = 1 << 16};
    setenv("ONCEUPON_CUDA_TILES", "estimated", 1);
    return backend_cuda_create(&b, &limits, message, capacity);
}

/* Every multiplication of a weight (64, 256) with the kernels named; 0 where the machine lacks them. */
static int run_small(const char *kernels, const tensor *t, tensor *out)
{
    char message[256] = "";
    int status = create_small(kernels, message, sizeof message);
    cases++;
    if (status) {
        failures += !strstr(message, "needs");
        printf("%s: %s\n", strstr(message, "needs") ? "left out" : "FAIL", message);
        return 0;
    }
    run(t, 600, 256, 64, strcmp(kernels, "matmul=cublaslt"), out);
    while (taken)
        b.ops->release(&b, of_backend[--taken]);
    b.ops->destroy(&b);
    return 1;
}

static void expect_refusal(const char *kernels, const char *part)
{
    char message[256] = "";
    int status = create_small(kernels, message, sizeof message);
    cases++;
    if (!status)
        b.ops->destroy(&b);
    if (!status || !strstr(message, part)) {
        failures++;
        printf("FAIL kernels %s: status %d, %s\n", kernels, status, message);
    }
}

static size_t read_text(const char *path, char *text, size_t capacity)
{
    FILE *f = fopen(path, "r");
    size_t length = f ? fread(text, 1, capacity - 1, f) : 0;
    if (f)
        fclose(f);
    text[length] = 0;
    return length;
}

static void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    if (!f || fputs(text, f) < 0 || fclose(f))
        abort();
}

static void require(int holds, const char *what, const char *detail)
{
    cases++;
    failures += !holds;
    if (!holds)
        printf("FAIL measured choice: %s: %s\n", what, detail);
}

static void test_measured(void)
{
    const char *variants[] = {"mma", "wgmma", "cublaslt"};
    char path[] = "/tmp/test_matmul.XXXXXX", kernels[64], text[4096], again[4096], name[32];
    tensor t[5] = {filled(600, 256), filled(64, 256), filled(1, 64), filled(600, 64), filled(600, 256)};
    tensor named[3][RESULTS], got[RESULTS];
    int there[3], others = 0;
    int file = mkstemp(path);
    if (file < 0)
        abort();
    close(file);
    unlink(path);
    snprintf(kernels, sizeof kernels, "matmul=measure:%s", path);
    for (int v = 0; v < 3; v++) {
        snprintf(name, sizeof name, "matmul=%s", variants[v]);
        there[v] = run_small(name, t, named[v]);
    }
    /* Three forms of five weights; and what was measured once is not measured again. */
    run_small(kernels, t, got);
    read_text(path, text, sizeof text);
    int lines = 0;
    for (const char *at = text; (at = strchr(at, '\n')); at++)
        lines++;
    require(lines == 16, "16 lines are written", text);
    for (const char *at = text; (at = strstr(at, "forward ")); at++)
        require(strncmp(strchr(strchr(at + 8, ' ') + 1, ' '), " cublaslt", 9), "no cublaslt forward", at);
    run_small(kernels, t, got);
    read_text(path, again, sizeof again);
    require(!strcmp(text, again), "the file stays", again);
    /* Each form has the bits of the variant that the file names for it. */
    for (int v = 1; v < 3; v++) {
        snprintf(text, sizeof text, "forward 64 256 %s\nbackward_input 64 256 mma\nbackward_weight 64 256 %s\n",
                 v == 1 ? variants[v] : "mma", variants[v]);
        write_text(path, text);
        if (!there[v] || !run_small(kernels, t, got))
            continue;
        same_bits("measured: forward", variants[v], got[LOGITS], named[v == 1 ? v : 0][LOGITS]);
        same_bits("measured: input", variants[v], got[INPUT], named[0][INPUT]);
        same_bits("measured: weight", variants[v], got[WEIGHT], named[v][WEIGHT]);
        others += !!memcmp(named[v][WEIGHT].data, named[0][WEIGHT].data, tensor_count(t[1]) * sizeof(float));
        read_text(path, again, sizeof again);
        require(!strncmp(strchr(again, '\n') + 1, text, strlen(text)), "what was there is kept", again);
    }
    /* mma cuts 600 rows in three. */
    require(!there[2] || others > 0, "variants differ in bits, else this shows nothing", "none does");
    write_text(path, "# first\nforward 64 256 cublaslt\n");
    snprintf(name, sizeof name, "%s:2 is not form", strrchr(path, '/') + 1);
    expect_refusal(kernels, name);
    write_text(path, "forward 64\n");
    expect_refusal(kernels, "restore the file, or measure into another one");
    expect_refusal("matmul=measure:/nowhere/matmul.txt", "/nowhere/matmul.txt.part: No such file");
    expect_refusal("attention=fast", "no multiplication is called attention=fast");
    unlink(path);
    while (holding)
        free(held[--holding]);
}

/* A choice that cannot be had is said, and nothing else steps in. */
static void test_refusal(const char *isa, const char *variant, const char *part)
{
    char message[256] = "";
    int status = create(isa, variant, "estimated", message, sizeof message);
    cases++;
    if (!status || !strstr(message, part)) {
        failures++;
        printf("FAIL matmul=%s: status %d, %s\n", variant, status, message);
    }
    if (!status)
        b.ops->destroy(&b);
}

/* usage: test_matmul [all|few|least]; builds with a sanitizer take fewer shapes. */
int main(int arguments, char **argument)
{
    /* Rows of whole 16 bytes with tails in every dimension and more slices along K
     * than any variant keeps; one row, odd sizes, one output, cuts with a tail. */
    const int shapes[][3] = {{72, 328, 136}, {1, 33, 7},     {3, 5, 2},     {15, 257, 65}, {1, 1, 1},   {64, 64, 64},
                             {7, 520, 96},   {130, 64, 136}, {600, 24, 40}, {523, 33, 70}, {100, 96, 1}};
    const char *set = arguments > 1 ? argument[1] : "all";
    size_t count = !strcmp(set, "least") ? 1 : !strcmp(set, "few") ? 4 : sizeof shapes / sizeof shapes[0];
    for (size_t i = 0; i < count; i++)
        if (test_shape(shapes[i][0], shapes[i][1], shapes[i][2]))
            return 3;
    if (strcmp(set, "least"))
        test_measured();
    test_refusal("bf16", "simt", "mma");
    test_refusal("fp32", "mma", "simt");
    printf("%d cases, %d failed\n", cases, failures);
    return failures > 0;
}
