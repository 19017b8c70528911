/* Telling stories: one token of every unfinished story a step, keys and
 * values kept in the cache. Rows are packed: a story that ends leaves the
 * step, and no row depends on which others are in it. */
#include <math.h>
#include <string.h>

#include "model.h"

/* Keeps the masks of decoding apart from those of training, whose step is a
 * count of updates. */
#define DECODE_DROPOUT 0x6465636f64650000u

/* The matrices of a block that decoding multiplies with, in the order of
 * s->packed, with their shapes in widths. */
static const struct {
    int weight, bias, out, in;
} projections[] = {{ATTN_QKV_WEIGHT, ATTN_QKV_BIAS, 3, 1},
                   {ATTN_OUTPUT_WEIGHT, ATTN_OUTPUT_BIAS, 1, 1},
                   {FFN_UP_WEIGHT, FFN_UP_BIAS, 4, 1},
                   {FFN_DOWN_WEIGHT, FFN_DOWN_BIAS, 1, 4}};
enum { QKV, OUTPUT, UP, DOWN, PROJECTIONS };

/* Where matrix `which` of block `layer` lies in s->packed; the head follows
 * the last block. */
static size_t packed_at(const student_options *o, int layer, int which)
{
    size_t sizes[PROJECTIONS], block = 0, before = 0;
    for (int p = 0; p < PROJECTIONS; p++) {
        sizes[p] = matmul_packed_floats(projections[p].out * o->width, projections[p].in * o->width);
        before += p < which ? sizes[p] : 0;
        block += sizes[p];
    }
    return (size_t)layer * block + before;
}

size_t decode_packed_floats(const student_options *o)
{
    return packed_at(o, o->layers, QKV) + matmul_packed_floats(o->vocabulary, o->width);
}

static float *block_weight(const student *s, int layer, int which)
{
    return parameter(s, STUDENT_WEIGHTS, parameter_block(layer, which));
}

static tensor weight(const student *s, int layer, int which)
{
    return matrix(block_weight(s, layer, projections[which].weight), projections[which].out * s->options.width,
                  projections[which].in * s->options.width);
}

static tensor embedding(const student *s)
{
    return matrix(parameter(s, STUDENT_WEIGHTS, 0), s->options.vocabulary, s->options.width);
}

/* Once for all stories that are told between two updates. */
static void pack_weights(student *s)
{
    if (!s->packed || s->packed_ready)
        return;
    s->packed_ready = 1;
    for (int l = 0; l < s->options.layers; l++)
        for (int p = 0; p < PROJECTIONS; p++)
            OPS(s)->matmul_pack(B(s), s->packed + packed_at(&s->options, l, p), weight(s, l, p));
    OPS(s)->matmul_pack(B(s), s->packed + packed_at(&s->options, s->options.layers, QKV), embedding(s));
}

static void project(student *s, tensor out, tensor x, int layer, int which)
{
    const float *bias = block_weight(s, layer, projections[which].bias);
    if (s->packed)
        OPS(s)->matmul_forward_packed(B(s), out, x, s->packed + packed_at(&s->options, layer, which), bias);
    else
        OPS(s)->matmul_forward(B(s), out, x, weight(s, layer, which), bias);
}

int decode_length(const student_options *o) { return o->decode_length ? o->decode_length : o->context; }

size_t cache_bytes(const student_options *o)
{
    return cache_elements(o->decode_stories, decode_length(o), o->heads, o->width / o->heads) *
           tensor_element(backend_describe(o)->cache);
}

static tensor cache_of(const student *s, int layer)
{
    const student_options *o = &s->options;
    char *data = (char *)s->cache + (size_t)layer * cache_bytes(o);
    return (tensor){(float *)data, o->decode_stories * decode_length(o), 2 * o->width, OPS(s)->cache};
}

/* Rows of a step: n, filled up to the backend's multiple with copies of the
 * last row, which store and compute the same once more. */
static int fill_rows(student *s, int n)
{
    int multiple = OPS(s)->row_multiple, rows = (n + multiple - 1) / multiple * multiple;
    for (int i = n; i < rows; i++) {
        s->host_tokens[i] = s->host_tokens[n - 1];
        s->host_positions[i] = s->host_positions[n - 1];
        s->host_slots[i] = s->host_slots[n - 1];
        s->host_ids[i] = s->host_ids[n - 1];
    }
    return rows;
}

/* The ops of a step over n rows whose tokens, positions and slots are there;
 * leaves the final hidden states in s->hidden. */
static void step_ops(student *s, int n, dropout drop)
{
    const op_table *op = OPS(s);
    const student_options *o = &s->options;
    int C = o->width;
    const block_activations *a = &s->blocks[0];
    tensor input = matrix(a->input, n, C), norm = activation(s, a->norm1, n, C), qkv = activation(s, a->qkv, n, 3 * C);
    tensor attention = activation(s, a->attention, n, C), narrow = activation(s, s->narrow, n, C);
    tensor up = activation(s, a->up, n, 4 * C), gelu = activation(s, a->gelu, n, 4 * C);
    op->embedding_forward(B(s), input, matrix(parameter(s, STUDENT_WEIGHTS, 0), o->vocabulary, C),
                          matrix(parameter(s, STUDENT_WEIGHTS, 1), o->context, C), s->tokens, s->positions,
                          dropout_at(drop, 0, SITE_EMBEDDING));
    op->layernorm_forward(B(s), norm, s->mean, s->rstd, input, block_weight(s, 0, ATTN_NORM_WEIGHT),
                          block_weight(s, 0, ATTN_NORM_BIAS), o->layernorm_epsilon);
    for (int l = 0; l < o->layers; l++) {
        project(s, qkv, norm, l, QKV);
        op->attention_decode(B(s), attention, qkv, cache_of(s, l), decode_length(o), s->shared, s->slots, s->positions,
                             o->heads, dropout_at(drop, l, SITE_ATTENTION));
        project(s, narrow, attention, l, OUTPUT);
        add_and_norm(s, input, norm, s->mean, s->rstd, input, narrow, block_weight(s, l, FFN_NORM_WEIGHT),
                     block_weight(s, l, FFN_NORM_BIAS), dropout_at(drop, l, SITE_PROJECTION));
        if (op->matmul_gelu_forward) {
            op->matmul_gelu_forward(B(s), gelu, up, norm, weight(s, l, UP), block_weight(s, l, FFN_UP_BIAS));
        } else {
            project(s, up, norm, l, UP);
            op->gelu_forward(B(s), gelu, up);
        }
        if (op->attention_decode_soon)
            op->attention_decode_soon(B(s), n, cache_of(s, (l + 1) % o->layers), decode_length(o), s->shared, s->slots,
                                      s->positions, o->heads);
        project(s, narrow, gelu, l, DOWN);
        int more = l + 1 < o->layers, next = more ? parameter_block(l + 1, ATTN_NORM_WEIGHT) : parameter_final_norm(o);
        add_and_norm(s, input, more ? norm : activation(s, s->hidden, n, C), s->mean, s->rstd, input, narrow,
                     parameter(s, STUDENT_WEIGHTS, next), parameter(s, STUDENT_WEIGHTS, next + 1),
                     dropout_at(drop, l, SITE_FFN));
    }
}

/* Samples a token for each of the n rows of s->hidden. */
static void sample_ops(student *s, int n, sample_options options)
{
    const op_table *op = OPS(s);
    tensor hidden = activation(s, s->hidden, n, s->options.width);
    for (int first = 0; first < n; first += op->head_rows) {
        int rows = n - first < op->head_rows ? n - first : op->head_rows;
        tensor logits = matrix(s->logits, rows, s->options.vocabulary), x = tensor_rows(hidden, (size_t)first, rows);
        if (s->packed)
            op->matmul_forward_packed(B(s), logits, x, s->packed + packed_at(&s->options, s->options.layers, QKV),
                                      NULL);
        else
            op->matmul_forward(B(s), logits, x, embedding(s), NULL);
        op->sample(B(s), s->tokens + first, logits, s->story_ids + first, s->positions + first, options);
        op->logprob_forward(B(s), s->logprob + first, s->entropy + first, s->lse + first, logits, s->tokens + first);
    }
}

/* Key of a recorded sequence: FNV-1a over what its ops are given by value.
 * options are those of sampling, NULL for a step over the blocks. */
static uint64_t key_of(const student *s, int n, const sample_options *options)
{
    uint64_t words[6] = {(uint64_t)n, options ? 1 : 2 + (uint64_t)s->shared}, key = 14695981039346656037u;
    if (options) {
        memcpy(words + 2, &options->temperature, sizeof(float));
        memcpy(words + 3, &options->top_p, sizeof(float));
        words[4] = (uint64_t)options->top_k;
        words[5] = options->seed;
    }
    const unsigned char *bytes = (const unsigned char *)words;
    for (size_t i = 0; i < sizeof words; i++)
        key = (key ^ bytes[i]) * 1099511628211u;
    return key;
}

/* Feeds host_tokens at host_positions into slots host_slots, n rows. */
static void step(student *s, int n, dropout drop)
{
    const op_table *op = OPS(s);
    int rows = fill_rows(s, n), fixed = op->replay && drop.probability == 0;
    size_t bytes = (size_t)rows * sizeof(int32_t);
    op->upload(B(s), s->tokens, s->host_tokens, bytes);
    op->upload(B(s), s->positions, s->host_positions, bytes);
    op->upload(B(s), s->slots, s->host_slots, bytes);
    if (fixed && op->replay(B(s), key_of(s, rows, NULL)))
        return;
    step_ops(s, rows, drop);
    if (fixed)
        op->recorded(B(s));
}

/* A token for each of the n rows of s->hidden; host_tokens and host_logprob
 * receive them. host_positions must already be the positions of the samples. */
static void sample(student *s, int n, sample_options options)
{
    const op_table *op = OPS(s);
    int rows = fill_rows(s, n);
    op->upload(B(s), s->story_ids, s->host_ids, (size_t)rows * sizeof(uint64_t));
    op->upload(B(s), s->positions, s->host_positions, (size_t)rows * sizeof(int32_t));
    if (!op->replay || !op->replay(B(s), key_of(s, rows, &options))) {
        sample_ops(s, rows, options);
        if (op->recorded)
            op->recorded(B(s));
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

/* The shared prefix is read by story 0; the others find it there. */
static void read_prefix(student *s, const student_batch *prompts)
{
    for (int first = 0; first < s->shared; first += s->ffn_rows) {
        int n = s->shared - first < s->ffn_rows ? s->shared - first : s->ffn_rows;
        for (int i = 0; i < n; i++) {
            s->host_tokens[i] = prompts->tokens[first + i];
            s->host_positions[i] = first + i;
            s->host_slots[i] = 0;
        }
        step(s, n, (dropout){0});
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
    if (g->max_new_tokens < 1 || !(g->temperature >= 0) || g->top_k < 0 || !(g->top_p > 0 && g->top_p <= 1) ||
        !(g->dropout >= 0 && g->dropout < 1))
        return fail(
            message, capacity, STUDENT_E_ARGUMENT,
            "max_new_tokens >= 1, temperature >= 0, top_k >= 0, 0 < top_p <= 1 and 0 <= dropout < 1 are needed");
    if (p->offsets[0])
        return fail(message, capacity, STUDENT_E_ARGUMENT, "prompts are given whole: no prefix");
    for (int i = 0; i < p->stories; i++) {
        int length = p->offsets[i + 1] - p->offsets[i];
        if (length < 1 || length + g->max_new_tokens > decode_length(o))
            return fail(message, capacity, STUDENT_E_ARGUMENT,
                        "prompt %d of %d tokens and %d new ones do not fit the %d positions that decoding has room for "
                        "(context %d)",
                        i, length, g->max_new_tokens, decode_length(o), o->context);
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
    /* Under dropout every story reads the prompt through masks of its own. */
    int active = prompts->stories, M = g->max_new_tokens;
    dropout drop = {.probability = g->dropout, .seed = g->seed ^ DECODE_DROPOUT};
    weights_ready(s);
    pack_weights(s);
    s->shared = g->dropout > 0 ? 0 : shared_prefix(prompts);
    read_prefix(s, prompts);
    for (int i = 0; i < active; i++) {
        s->host_active[i] = i;
        lengths[i] = 0;
    }
    sample_options options = {g->temperature, g->top_p, g->top_k, g->seed};
    /* All active stories stand at the same position. */
    for (int position = s->shared; active > 0; position++) {
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
        drop.step = story_ids[0] << 16 | (uint64_t)position;
        step(s, n, drop);
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
            if (length < M && (length == 0 || tokens[(size_t)i * (size_t)M + (size_t)(length - 1)] != g->end_token))
                s->host_active[left++] = i;
            else if (g->ended && g->ended(g->user, i))
                return fail(message, capacity, STUDENT_E_STOPPED, "stopped when story %d had ended", i);
        }
        active = left;
    }
    return finish(s, message, capacity);
}
