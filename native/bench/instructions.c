/* A training step or a telling of fixed size on one thread, for
 * scripts/instructions, which counts the instructions of measured().
 * usage: bench_instructions train|decode ISA */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "student.h"

enum { LAYERS = 2, HEADS = 4, WIDTH = 64, CONTEXT = 48, VOCABULARY = 512, STORIES = 5, PROMPT = 9, REPLY = 24 };

static char message[256];

static void check(int status)
{
    if (status) {
        fprintf(stderr, "bench_instructions: %s\n", message);
        exit(status == STUDENT_E_CAPABILITY ? 3 : 1);
    }
}

static void initialize(student *s)
{
    uint32_t seed = 1;
    for (int32_t i = 0; i < student_parameter_count(s); i++) {
        student_parameter p = {.size = sizeof p};
        check(student_parameter_info(s, i, &p, message, sizeof message));
        size_t count = (size_t)p.rows * (size_t)p.cols;
        float *x = malloc(count * sizeof *x);
        if (!x)
            exit(1);
        for (size_t k = 0; k < count; k++) {
            seed = seed * 1664525u + 1013904223u;
            x[k] = ((float)(seed >> 8) * 0x1p-24f - 0.5f) * 0.07f + (strstr(p.name, "norm.weight") != NULL);
        }
        check(student_write(s, STUDENT_WEIGHTS, i, x, count, message, sizeof message));
        free(x);
    }
}

typedef struct work {
    student *s;
    int train;
    student_batch batch;
    uint64_t ids[STORIES];
    int32_t replies[STORIES * REPLY], lengths[STORIES];
    float logprob[STORIES * REPLY];
} work;

/* One call each of what pretraining and a rollout repeat. */
void measured(work *w);
__attribute__((noinline)) void measured(work *w)
{
    if (w->train) {
        student_dropout drop = {sizeof drop, 0.1f, 1, 1};
        student_adamw_options adamw = {.size = sizeof adamw,
                                       .lr = 1e-4,
                                       .beta1 = 0.9,
                                       .beta2 = 0.999,
                                       .epsilon = 1e-8,
                                       .weight_decay = 0.01,
                                       .max_grad_norm = 1,
                                       .step = 1};
        double loss, norm;
        int64_t scored;
        check(student_zero_gradients(w->s, message, sizeof message));
        check(student_cross_entropy(w->s, &w->batch, NULL, 0.01f, &drop, &loss, &scored, message, sizeof message));
        check(student_adamw(w->s, &adamw, &norm, message, sizeof message));
        return;
    }
    student_generate_options g = {
        .size = sizeof g, .max_new_tokens = REPLY, .temperature = 1, .top_p = 1, .end_token = -1};
    check(student_generate(w->s, &w->batch, w->ids, &g, w->replies, w->logprob, w->lengths, message, sizeof message));
}

int main(int argc, char **argv)
{
    if (argc != 3 || (strcmp(argv[1], "train") && strcmp(argv[1], "decode"))) {
        fprintf(stderr, "usage: %s train|decode ISA\n", argv[0]);
        return 2;
    }
    static work w;
    w.train = !strcmp(argv[1], "train");
    student_options o = {.size = sizeof o,
                         .layers = LAYERS,
                         .heads = HEADS,
                         .width = WIDTH,
                         .context = CONTEXT,
                         .vocabulary = VOCABULARY,
                         .layernorm_epsilon = 1e-5f,
                         .max_tokens = STORIES * CONTEXT,
                         .max_stories = STORIES,
                         .decode_stories = w.train ? 0 : STORIES,
                         .train = w.train,
                         .threads = 1,
                         .backend = "cpu",
                         .isa = argv[2]};
    check(student_create(&o, &w.s, message, sizeof message));
    initialize(w.s);
    static int32_t tokens[STORIES * CONTEXT], offsets[STORIES + 1];
    for (int i = 0; i < STORIES; i++) {
        int length = w.train ? CONTEXT - 7 * i : PROMPT; /* ragged in training, one prompt in telling */
        offsets[i + 1] = offsets[i] + length;
        for (int t = 0; t < length; t++)
            tokens[offsets[i] + t] = (t * 37 + (w.train ? i * 11 : 0)) % VOCABULARY;
        w.ids[i] = (uint64_t)i;
    }
    w.batch = (student_batch){.size = sizeof w.batch, .tokens = tokens, .offsets = offsets, .stories = STORIES};
    measured(&w);
    student_destroy(w.s);
    return 0;
}
