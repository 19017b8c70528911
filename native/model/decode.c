/* Telling stories: one token of every unfinished story a step, keys and
 * values kept in the cache. Rows are packed: a story that ends leaves the
 * step, and no row depends on which others are in it. */
#include <math.h>
#include <string.h>

#include "model.h"

/* Feeds host_tokens at host_positions into slots host_slots, n rows; leaves the final hidden
 * states in s->hidden. */
static void step(student *s, int n)
{
    const op_table *op = OPS(s);
    const student_options *o = &s->options;
    int C = o->width;
    size_t count = (size_t)n * (size_t)C, bytes = (size_t)n * sizeof(int32_t);
    const block_activations *a = &s->blocks[0];
    tensor input = matrix(a->input, n, C), norm = matrix(a->norm1, n, C), qkv = matrix(a->qkv, n, 3 * C);
    tensor attention = matrix(a->attention, n, C), narrow = matrix(s->narrow, n, C);
    tensor up = matrix(a->up, n, 4 * C), gelu = matrix(a->gelu, n, 4 * C);
    op->upload(B(s), s->tokens, s->host_tokens, bytes);
    op->upload(B(s), s->positions, s->host_positions, bytes);
    op->upload(B(s), s->slots, s->host_slots, bytes);
    op->embedding_forward(B(s), input, matrix(parameter(s, STUDENT_WEIGHTS, 0), o->vocabulary, C),
                          matrix(parameter(s, STUDENT_WEIGHTS, 1), o->context, C), s->tokens, s->positions,
                          (dropout){0});
    for (int l = 0; l < o->layers; l++) {
        float *w[BLOCK_PARAMETERS];
        for (int i = 0; i < BLOCK_PARAMETERS; i++)
            w[i] = parameter(s, STUDENT_WEIGHTS, parameter_block(l, i));
        float *cache = s->cache + (size_t)l * (size_t)o->decode_stories * (size_t)o->context * 2 * (size_t)C;
        op->layernorm_forward(B(s), norm, a->mean1, a->rstd1, input, w[ATTN_NORM_WEIGHT], w[ATTN_NORM_BIAS],
                              o->layernorm_epsilon);
        op->matmul_forward(B(s), qkv, norm, matrix(w[ATTN_QKV_WEIGHT], 3 * C, C), w[ATTN_QKV_BIAS]);
        op->attention_decode(B(s), attention, qkv, cache, o->context, s->slots, s->positions, o->heads);
        op->matmul_forward(B(s), narrow, attention, matrix(w[ATTN_OUTPUT_WEIGHT], C, C), w[ATTN_OUTPUT_BIAS]);
        op->residual_forward(B(s), a->input, a->input, s->narrow, count, (dropout){0});
        op->layernorm_forward(B(s), norm, a->mean1, a->rstd1, input, w[FFN_NORM_WEIGHT], w[FFN_NORM_BIAS],
                              o->layernorm_epsilon);
        op->matmul_forward(B(s), up, norm, matrix(w[FFN_UP_WEIGHT], 4 * C, C), w[FFN_UP_BIAS]);
        op->gelu_forward(B(s), a->gelu, a->up, 4 * count);
        op->matmul_forward(B(s), narrow, gelu, matrix(w[FFN_DOWN_WEIGHT], C, 4 * C), w[FFN_DOWN_BIAS]);
        op->residual_forward(B(s), a->input, a->input, s->narrow, count, (dropout){0});
    }
    int last = parameter_final_norm(o);
    op->layernorm_forward(B(s), matrix(s->hidden, n, C), s->mean, s->rstd, input, parameter(s, STUDENT_WEIGHTS, last),
                          parameter(s, STUDENT_WEIGHTS, last + 1), o->layernorm_epsilon);
}

/* Samples a token for each of the n rows of s->hidden; host_tokens and host_logprob
 * receive them. host_positions must already be the positions of the samples. */
static void sample(student *s, int n, sample_options options)
{
    const op_table *op = OPS(s);
    int C = s->options.width;
    op->upload(B(s), s->story_ids, s->host_ids, (size_t)n * sizeof(uint64_t));
    op->upload(B(s), s->positions, s->host_positions, (size_t)n * sizeof(int32_t));
    for (int first = 0; first < n; first += HEAD_ROWS) {
        int rows = n - first < HEAD_ROWS ? n - first : HEAD_ROWS;
        tensor logits = matrix(s->logits, rows, s->options.vocabulary);
        op->matmul_forward(B(s), logits, matrix(s->hidden + (size_t)first * (size_t)C, rows, C),
                           matrix(parameter(s, STUDENT_WEIGHTS, 0), s->options.vocabulary, C), NULL);
        op->sample(B(s), s->tokens + first, logits, s->story_ids + first, s->positions + first, options);
        op->logprob_forward(B(s), s->logprob + first, s->entropy + first, s->lse + first, logits, s->tokens + first);
    }
    op->download(B(s), s->host_tokens, s->tokens, (size_t)n * sizeof(int32_t));
    op->download(B(s), s->host_logprob, s->logprob, (size_t)n * sizeof(float));
}

/* Tokens at the start that all prompts share, at most the shortest prompt
 * less one: its last token must be fed to every story's own hidden state. */
static int shared_prefix(const student_batch *p)
{
    int shared = p->offsets[1] - p->offsets[0] - 1;
    for (int i = 1; i < p->stories; i++) {
        int length = p->offsets[i + 1] - p->offsets[i] - 1;
        shared = length < shared ? length : shared;
        for (int t = 0; t < shared; t++)
            if (p->tokens[t] != p->tokens[p->offsets[i] + t])
                shared = t;
    }
    return shared;
}

/* The shared prefix is read by story 0; the others copy its cache. */
static void read_prefix(student *s, const student_batch *prompts, int shared)
{
    const student_options *o = &s->options;
    for (int t = 0; t < shared; t++) {
        s->host_tokens[0] = prompts->tokens[t];
        s->host_positions[0] = t;
        s->host_slots[0] = 0;
        step(s, 1);
    }
    size_t row = 2 * (size_t)o->width, slot = (size_t)o->context * row;
    for (int l = 0; l < o->layers; l++) {
        float *first = s->cache + (size_t)l * (size_t)o->decode_stories * slot;
        for (int i = 1; i < prompts->stories; i++)
            OPS(s)->copy(B(s), first + (size_t)i * slot, first, (size_t)shared * row * sizeof(float));
    }
}

static int check(const student *s, const student_batch *p, const student_generate_options *g, char *message,
                 size_t capacity)
{
    const student_options *o = &s->options;
    if (!p || p->size != sizeof *p || !g || g->size != sizeof *g)
        return fail(message, capacity, STUDENT_E_ARGUMENT, "prompts or generate options of another size");
    if (p->stories < 1 || p->stories > o->decode_stories)
        return fail(message, capacity, STUDENT_E_ARGUMENT, "%d stories to tell; decode_stories allows 1..%d",
                    p->stories, o->decode_stories);
    if (g->max_new_tokens < 1 || !(g->temperature >= 0) || g->top_k < 0 || !(g->top_p > 0 && g->top_p <= 1))
        return fail(message, capacity, STUDENT_E_ARGUMENT,
                    "max_new_tokens >= 1, temperature >= 0, top_k >= 0 and 0 < top_p <= 1 are needed");
    for (int i = 0; i < p->stories; i++) {
        int length = p->offsets[i + 1] - p->offsets[i];
        if (length < 1 || length + g->max_new_tokens > o->context)
            return fail(message, capacity, STUDENT_E_ARGUMENT,
                        "prompt %d of %d tokens and %d new ones do not fit a context of %d", i, length,
                        g->max_new_tokens, o->context);
        for (int t = p->offsets[i]; t < p->offsets[i + 1]; t++)
            if (p->tokens[t] < 0 || p->tokens[t] >= o->vocabulary)
                return fail(message, capacity, STUDENT_E_ARGUMENT, "prompt %d: token %d is outside the vocabulary", i,
                            p->tokens[t]);
    }
    return STUDENT_OK;
}

int student_generate(student *s, const student_batch *prompts, const uint64_t *story_ids,
                     const student_generate_options *g, int32_t *tokens, float *logprob, int32_t *lengths,
                     char *message, size_t capacity)
{
    int status = check(s, prompts, g, message, capacity);
    if (status)
        return status;
    s->N = 0; /* the activations of the last forward are overwritten */
    int shared = shared_prefix(prompts), active = prompts->stories, M = g->max_new_tokens;
    read_prefix(s, prompts, shared);
    for (int i = 0; i < active; i++) {
        s->host_active[i] = i;
        lengths[i] = 0;
    }
    sample_options options = {g->temperature, g->top_p, g->top_k, g->seed};
    /* All active stories stand at the same position. */
    for (int position = shared; active > 0; position++) {
        int n = 0, speaking = 0;
        /* Stories that sample at this step come first, so that their hidden
         * states are the first rows. */
        for (int pass = 0; pass < 2; pass++)
            for (int k = 0; k < active; k++) {
                int i = s->host_active[k], prompt = prompts->offsets[i + 1] - prompts->offsets[i];
                if ((position >= prompt - 1) != (pass == 0))
                    continue;
                speaking += pass == 0;
                s->host_tokens[n] = position < prompt ? prompts->tokens[prompts->offsets[i] + position]
                                                      : tokens[(size_t)i * (size_t)M + (size_t)(position - prompt)];
                s->host_positions[n] = position;
                s->host_slots[n++] = i;
            }
        step(s, n);
        for (int k = 0; k < speaking; k++) {
            s->host_positions[k] = position + 1;
            s->host_ids[k] = story_ids[s->host_slots[k]];
        }
        if (speaking)
            sample(s, speaking, options);
        for (int k = 0; k < speaking; k++) {
            int i = s->host_slots[k];
            size_t at = (size_t)i * (size_t)M + (size_t)lengths[i]++;
            tokens[at] = s->host_tokens[k];
            logprob[at] = s->host_logprob[k];
            if (!isfinite(logprob[at]))
                return fail(message, capacity, STUDENT_E_NUMBERS, "story %d: log-probability is not finite", i);
        }
        int left = 0;
        for (int k = 0; k < active; k++) {
            int i = s->host_active[k], length = lengths[i];
            if (length == M || (length > 0 && tokens[(size_t)i * (size_t)M + (size_t)(length - 1)] == g->end_token))
                continue;
            s->host_active[left++] = i;
        }
        active = left;
    }
    const char *error = OPS(s)->error(B(s));
    return error ? fail(message, capacity, STUDENT_E_CAPABILITY, "%s", error) : STUDENT_OK;
}
