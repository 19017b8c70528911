/* Calls that run a packed batch: forward, and cross entropy with its
 * backward. */
#include <math.h>
#include <string.h>

#include "model.h"

int batch_load(student *s, const student_batch *batch, const int32_t *targets, char *message, size_t capacity)
{
    const student_options *o = &s->options;
    if (!batch || batch->size != sizeof *batch || !batch->tokens || !batch->offsets)
        return fail(message, capacity, STUDENT_E_ARGUMENT, "student_batch is incomplete or of another size");
    if (batch->stories < 1 || batch->stories > o->max_stories)
        return fail(message, capacity, STUDENT_E_ARGUMENT, "batch of %d stories; 1..%d are possible", batch->stories,
                    o->max_stories);
    int prefix = batch->offsets[0], most = batch->first ? 0 : o->context - 1, N = 0;
    if (prefix < 0 || prefix > most)
        return fail(message, capacity, STUDENT_E_ARGUMENT, "prefix of %d tokens; 0..%d are possible%s", prefix, most,
                    batch->first ? " with positions of first tokens" : "");
    if (prefix && gradient_in_place(o))
        return fail(message, capacity, STUDENT_E_ARGUMENT,
                    "a prefix needs room for the gradient of its keys: with recompute pair a student with ppo_tokens");
    ragged rows = {batch->offsets, batch->stories, prefix};
    for (int part = prefix ? 0 : 1; part <= batch->stories; part++) {
        int length = batch->offsets[part] - ragged_begin(rows, part), start = ragged_shared(rows, part);
        if (part && batch->first)
            start = batch->first[part - 1];
        if (length < 1 || start < 0 || start > o->context || length > o->context - start)
            return fail(message, capacity, STUDENT_E_ARGUMENT, "story %d has %d tokens; 1..%d are possible", part - 1,
                        length, o->context);
        if (length > o->max_tokens - N)
            return fail(message, capacity, STUDENT_E_ARGUMENT, "batch has more than max_tokens = %d tokens",
                        o->max_tokens);
        for (int t = 0; t < length; t++, N++) {
            s->host_positions[N] = start + t;
            s->host_targets[N] = targets ? targets[N] : t + 1 < length ? batch->tokens[N + 1] : -1;
            if (batch->tokens[N] < 0 || batch->tokens[N] >= o->vocabulary || s->host_targets[N] >= o->vocabulary)
                return fail(message, capacity, STUDENT_E_ARGUMENT,
                            "token or target at %d is outside the vocabulary of %d", N, o->vocabulary);
        }
    }
    s->N = N;
    s->rows = (ragged){s->offsets, batch->stories, prefix};
    size_t bytes = (size_t)N * sizeof(int32_t);
    OPS(s)->upload(B(s), s->tokens, batch->tokens, bytes);
    OPS(s)->upload(B(s), s->positions, s->host_positions, bytes);
    OPS(s)->upload(B(s), s->targets, s->host_targets, bytes);
    OPS(s)->upload(B(s), s->offsets, batch->offsets, (size_t)(batch->stories + 1) * sizeof(int32_t));
    return STUDENT_OK;
}

static void fetch(student *s, float *to, const float *from)
{
    if (to)
        OPS(s)->download(B(s), to, from, (size_t)s->N * sizeof(float));
}

int student_forward(student *s, const student_batch *batch, const int32_t *targets, float *logprob, float *entropy,
                    float *value, char *message, size_t capacity)
{
    if (value && !s->options.value_head)
        return fail(message, capacity, STUDENT_E_ARGUMENT, "values asked of a student without a value head");
    int status = batch_load(s, batch, targets, message, capacity);
    if (status)
        return status;
    trunk_forward(s, (dropout){0});
    head_forward(s);
    if (s->options.value_head) {
        int head = parameter_value_head(&s->options);
        OPS(s)->matmul_forward(B(s), matrix(s->value, s->N, 1), activation(s, s->hidden, s->N, s->options.width),
                               matrix(parameter(s, STUDENT_WEIGHTS, head), 1, s->options.width),
                               parameter(s, STUDENT_WEIGHTS, head + 1));
    }
    fetch(s, logprob, s->logprob);
    fetch(s, entropy, s->entropy);
    fetch(s, value, s->value);
    return finish(s, message, capacity);
}

/* A bf16 number is the upper half of an fp32 one. */
static void download_floats(student *s, float *to, tensor from)
{
    size_t count = tensor_count(from);
    OPS(s)->download(B(s), to, from.data, count * tensor_element(from.type));
    const uint16_t *halves = (const uint16_t *)to;
    for (size_t i = count; from.type == TENSOR_BF16 && i-- > 0;) {
        uint32_t bits = (uint32_t)halves[i] << 16;
        memcpy(to + i, &bits, sizeof bits);
    }
}

int student_hidden(student *s, int32_t layer, float *values, char *message, size_t capacity)
{
    if (!s->options.train || !s->N || layer < 0 || layer > s->options.layers)
        return fail(message, capacity, STUDENT_E_ARGUMENT,
                    "hidden %d of %d: needs train, a forward before and 0..layers", layer, s->options.layers);
    if (layer < s->options.layers && !input_kept(&s->options, layer))
        return fail(message, capacity, STUDENT_E_ARGUMENT,
                    "hidden %d is not kept: every second one is, from the last but one down to 2 or 3", layer);
    int C = s->options.width;
    if (layer < s->options.layers)
        download_floats(s, values, matrix(s->blocks[layer].input, s->N, C));
    else
        download_floats(s, values, activation(s, s->hidden, s->N, C));
    return finish(s, message, capacity);
}

int student_cross_entropy(student *s, const student_batch *batch, const int32_t *targets, float scale,
                          const student_dropout *dropout_options, double *loss, int64_t *scored, char *message,
                          size_t capacity)
{
    if (!s->options.train)
        return fail(message, capacity, STUDENT_E_ARGUMENT, "the student was created without train");
    dropout drop = {0};
    if (dropout_options) {
        if (dropout_options->size != sizeof *dropout_options ||
            !(dropout_options->probability >= 0 && dropout_options->probability < 1))
            return fail(message, capacity, STUDENT_E_ARGUMENT, "dropout probability must be in [0, 1)");
        drop = (dropout){
            .probability = dropout_options->probability, .seed = dropout_options->seed, .step = dropout_options->step};
    }
    int status = batch_load(s, batch, targets, message, capacity);
    if (status)
        return status;
    if (drop.probability > 0 && batch->offsets[0])
        return fail(message, capacity, STUDENT_E_ARGUMENT,
                    "dropout with a prefix: its rows would have one mask for all stories");
    int N = s->N;
    for (int t = 0; t < N; t++)
        s->host_logprob[t] = -scale;
    OPS(s)->upload(B(s), s->dlogprob, s->host_logprob, (size_t)N * sizeof(float));
    trunk_forward(s, drop);
    head_backward(s, 1);
    trunk_backward(s);
    OPS(s)->download(B(s), s->host_logprob, s->logprob, (size_t)N * sizeof(float));
    double sum = 0;
    int64_t count = 0;
    for (int t = 0; t < N; t++)
        if (s->host_targets[t] >= 0) {
            sum -= s->host_logprob[t];
            count++;
        }
    if (loss)
        *loss = sum;
    if (scored)
        *scored = count;
    if (!isfinite(sum))
        return fail(message, capacity, STUDENT_E_NUMBERS, "cross entropy is not finite");
    return finish(s, message, capacity);
}
