/* Creating a student: its options are checked, its memory is planned and
 * taken in one place. Nothing is allocated later. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"

int fail(char *message, size_t capacity, int status, const char *format, ...)
{
    if (message && capacity) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(message, capacity, format, arguments);
        va_end(arguments);
    }
    return status;
}

int32_t student_abi_version(void) { return STUDENT_ABI_VERSION; }

int32_t student_struct_sizes(size_t *sizes, int32_t capacity)
{
    const size_t all[] = {sizeof(student_options),
                          sizeof(student_memory),
                          sizeof(student_parameter),
                          sizeof(student_batch),
                          sizeof(student_dropout),
                          sizeof(student_adamw_options),
                          sizeof(student_generate_options),
                          sizeof(student_reward_options),
                          sizeof(student_ppo_options),
                          sizeof(student_ppo_sums),
                          sizeof(student_device)};
    int32_t count = (int32_t)(sizeof all / sizeof all[0]);
    for (int32_t i = 0; i < count && i < capacity; i++)
        sizes[i] = all[i];
    return count;
}

static int check_options(const student_options *o, char *message, size_t capacity)
{
    if (!o || o->size != sizeof *o)
        return fail(message, capacity, STUDENT_E_ARGUMENT, "student_options has another size than the library's");
    const struct {
        const char *name;
        int value, low, high;
    } ranges[] = {
        {"layers", o->layers, 1, 512},
        {"heads", o->heads, 1, 512},
        {"width", o->width, 1, 65536},
        {"context", o->context, 2, 65536},
        {"vocabulary", o->vocabulary, 2, 1 << 24},
        {"max_tokens", o->max_tokens, 1, 1 << 24},
        {"max_stories", o->max_stories, 1, 1 << 24},
        {"ppo_tokens", o->ppo_tokens, 0, 1 << 28},
        {"decode_stories", o->decode_stories, 0, 1 << 20},
        {"decode_length", o->decode_length, 0, o->context},
        {"recompute", o->recompute, STUDENT_RECOMPUTE_NONE, STUDENT_RECOMPUTE_PAIR},
        {"threads", o->threads, 1, 1024},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++)
        if (ranges[i].value < ranges[i].low || ranges[i].value > ranges[i].high)
            return fail(message, capacity, STUDENT_E_ARGUMENT, "%s = %d is outside %d..%d", ranges[i].name,
                        ranges[i].value, ranges[i].low, ranges[i].high);
    if (o->width % o->heads)
        return fail(message, capacity, STUDENT_E_ARGUMENT, "width %d is not a multiple of heads %d", o->width,
                    o->heads);
    if (o->decode_stories > o->max_tokens)
        return fail(message, capacity, STUDENT_E_ARGUMENT, "decode_stories %d exceeds max_tokens %d", o->decode_stories,
                    o->max_tokens);
    if (!backend_describe(o))
        return fail(message, capacity, STUDENT_E_ARGUMENT, "backend %s is not known; ref, cpu and cuda are",
                    o->backend ? o->backend : "(none)");
    return STUDENT_OK;
}

/* Memory is planned and taken by the same walk: with take = 0 it only counts. */
typedef struct ledger {
    student *s;
    int take, failed;
    uint64_t *account; /* where the bytes of the current group are added */
} ledger;

static void *reserve(ledger *l, size_t bytes)
{
    *l->account += bytes;
    if (!l->take || l->failed || !bytes)
        return NULL;
    void *memory = OPS(l->s)->allocate(B(l->s), bytes);
    if (!memory || l->s->memories == (int)(sizeof l->s->memory / sizeof l->s->memory[0]))
        l->failed = 1;
    else
        l->s->memory[l->s->memories++] = memory;
    return memory;
}

static float *floats(ledger *l, size_t count) { return reserve(l, count * sizeof(float)); }

/* Elements of the activation type. */
static float *elements(ledger *l, size_t count)
{
    return reserve(l, count * tensor_element(backend_describe(&l->s->options)->activations));
}

/* Every array starts on a cache line. */
static size_t padded(size_t bytes) { return (bytes + 63) / 64 * 64; }

static size_t elements_padded(const ledger *l, size_t count)
{
    return padded(count * tensor_element(backend_describe(&l->s->options)->activations));
}

/* Rows of one call, with room for the copies that fill up a decode step. */
static size_t row_room(const student_options *o)
{
    size_t multiple = (size_t)backend_describe(o)->row_multiple;
    return ((size_t)o->max_tokens + multiple - 1) / multiple * multiple;
}

/* Tokens of a part of the feed-forward: as the backend has it where memory is
 * short, with room for a decode step. */
static size_t ffn_room(const student_options *o)
{
    size_t N = row_room(o), part = (size_t)backend_describe(o)->ffn_rows, D = (size_t)o->decode_stories;
    if (o->recompute < STUDENT_RECOMPUTE_PAIR || !part)
        return N;
    part *= D > part ? (D + part - 1) / part : 1;
    return part < N ? part : N;
}

/* The place of a block's input among those that are there at a time. In pairs an
 * input that is not kept has the place of the next one, which is used up
 * when it is computed again; those below the first that is kept have theirs. */
static size_t input_place(const student_options *o, int layer)
{
    int first = first_kept(o);
    return !o->train ? 0 : !in_pairs(o) || layer < first ? (size_t)layer : (size_t)(layer - first + 1) / 2;
}

static size_t input_places(const student_options *o)
{
    size_t places = 0;
    for (int l = 0; l < o->layers; l++)
        if (input_place(o, l) >= places)
            places = input_place(o, l) + 1;
    return places;
}

/* The blocks' activations. Each block has its own where the backward finds
 * them as the forward left them. All others share a place, and at last a
 * workspace, through which go, one after the other, norms, up and GELU of a
 * block with their gradients, the gradient of qkv, and the logits. In pairs the
 * workspace is that of a part of the feed-forward, begins with the norm and the narrow
 * array, and has room for all tokens of one of them; the logits go where qkv and
 * attention are. */
static void reserve_blocks(ledger *l, student_memory *plan)
{
    const student_options *o = &l->s->options;
    const backend_description *d = backend_describe(o);
    student *s = l->s;
    size_t N = row_room(o), C = (size_t)o->width, H = (size_t)o->heads, F = ffn_room(o), L = (size_t)o->layers;
    size_t stream = padded(4 * N * C), narrow = elements_padded(l, N * C), wide = elements_padded(l, 4 * F * C);
    size_t part = elements_padded(l, F * C), head = padded(4 * (size_t)d->head_rows * (size_t)o->vocabulary);
    size_t logits = head + (d->activations == TENSOR_F32 ? 0 : padded(elements_padded(l, head / 4)));
    size_t attention = in_pairs(o) && logits > 4 * narrow ? logits - 3 * narrow : narrow;
    int level = o->train ? o->recompute : STUDENT_RECOMPUTE_PAIR, again = !o->train || norms_again(o);
    block_activations a = {0};
    enum { OWN, SHARED, WORK, PLACES };
    int kept = level < STUDENT_RECOMPUTE_LAYER ? OWN : SHARED, norms = again ? WORK : OWN;
    struct {
        float **to;
        size_t bytes;
        int place;
    } parts[] = {{&a.qkv, 3 * narrow, kept},
                 {&a.attention, attention, kept},
                 {&a.lse, padded(4 * H * N), kept},
                 {&a.middle, stream, kept},
                 {&a.mean1, padded(4 * N), kept},
                 {&a.rstd1, padded(4 * N), kept},
                 {&a.mean2, padded(4 * N), kept},
                 {&a.rstd2, padded(4 * N), kept},
                 {&a.norm1, part, norms},
                 {&a.norm2, again ? 0 : part, norms},
                 {&s->narrow, in_pairs(o) ? part : 0, WORK},
                 {&a.up, wide, level < STUDENT_RECOMPUTE_FFN ? OWN : WORK},
                 {&a.gelu, wide, norms}};
    enum { PARTS = sizeof parts / sizeof parts[0] };
    size_t sizes[PLACES] = {0};
    for (size_t k = 0; k < PARTS; k++)
        sizes[parts[k].place] += parts[k].bytes;
    size_t others[] = {in_pairs(o) ? part + narrow : logits,
                       o->train && again && !gradient_in_place(o) ? 3 * narrow : 0};
    size_t work = sizes[WORK];
    for (int k = 0; k < 2; k++)
        work = others[k] > work ? others[k] : work;
    l->account = &plan->activations;
    char *input = reserve(l, input_places(o) * stream), *own = reserve(l, L * sizes[OWN]),
         *shared = reserve(l, sizes[SHARED]);
    l->account = &plan->workspace;
    char *workspace = reserve(l, work);
    if (!l->take || l->failed)
        return;
    /* The forward has more room: up and GELU of half the tokens are as large as qkv
     * and attention, which have been used. */
    int halves = in_pairs(o) && N / 2 > F;
    for (size_t i = 0; i < L; i++) {
        char *at[PLACES] = {own + i * sizes[OWN], shared, workspace};
        for (size_t k = 0; k < PARTS; k++) {
            *parts[k].to = (float *)at[parts[k].place];
            at[parts[k].place] += parts[k].bytes;
        }
        a.input = (float *)(input + input_place(o, (int)i) * stream);
        a.norm2 = again ? a.norm1 : a.norm2;
        a.dqkv = gradient_in_place(o) ? a.qkv : again ? (float *)workspace : a.gelu;
        a.forward_up = halves ? a.qkv : a.up;
        a.forward_gelu = halves ? (float *)((char *)a.qkv + 2 * narrow) : a.gelu;
        s->blocks[i] = a;
    }
    s->ffn_rows = (int)F;
    s->forward_rows = (int)(halves ? N / 2 : F);
    s->logits = (float *)(in_pairs(o) ? shared : workspace);
    s->dlogits = d->activations == TENSOR_F32 ? s->logits : (float *)((char *)s->logits + head);
    /* A shared middle is used up when the final norm is computed, and computed again
     * before the backward reads it. */
    s->final_input = kept == SHARED ? a.middle : NULL;
}

static int reserve_all(student *s, student_memory *plan, int take)
{
    const student_options *o = &s->options;
    const backend_description *d = backend_describe(o);
    size_t N = row_room(o), C = (size_t)o->width, S = (size_t)o->max_stories, D = (size_t)o->decode_stories;
    memset(plan, 0, sizeof *plan);
    plan->size = sizeof *plan;
    ledger l = {s, take, 0, &plan->weights};
    s->arrays[STUDENT_WEIGHTS] = floats(&l, s->parameter_floats);
    if (o->train) {
        l.account = &plan->gradients;
        s->arrays[STUDENT_GRADIENTS] = floats(&l, s->parameter_floats);
        l.account = &plan->moments;
        s->arrays[STUDENT_MOMENT1] = floats(&l, s->parameter_floats);
        s->arrays[STUDENT_MOMENT2] = floats(&l, s->parameter_floats);
    }
    reserve_blocks(&l, plan);
    l.account = &plan->activations;
    if (o->train && o->recompute < STUDENT_RECOMPUTE_LAYER)
        s->final_input = floats(&l, N * C);
    s->hidden = s->dstream = floats(&l, N * C);
    s->mean = floats(&l, N);
    s->rstd = floats(&l, N);
    float **per_token[] = {&s->logprob, &s->entropy, &s->lse, &s->value, &s->dlogprob, &s->dvalue};
    for (size_t i = 0; i < sizeof per_token / sizeof per_token[0]; i++)
        *per_token[i] = floats(&l, N);

    l.account = &plan->workspace;
    if (!in_pairs(o))
        s->narrow = elements(&l, N * C);
    if (o->train)
        s->norm = reserve(&l, sizeof *s->norm);
    s->sums = reserve(&l, sizeof *s->sums);
    size_t P = o->ppo_tokens > o->max_tokens ? (size_t)o->ppo_tokens : N;
    for (int i = 0; i < 6; i++)
        s->per_token[i] = floats(&l, P);
    s->per_story = floats(&l, S);
    int32_t **integers[] = {&s->tokens, &s->positions, &s->targets, &s->slots};
    for (size_t i = 0; i < sizeof integers / sizeof integers[0]; i++)
        *integers[i] = reserve(&l, N * sizeof(int32_t));
    s->offsets = reserve(&l, (S + 1) * sizeof(int32_t));
    s->story_offsets = reserve(&l, (S + 1) * sizeof(int32_t));
    s->story_ids = reserve(&l, N * sizeof(uint64_t));

    l.account = &plan->cache;
    if (D)
        s->cache = reserve(&l, (size_t)o->layers * cache_bytes(o));
    if (D && d->packs_weights)
        s->packed = floats(&l, decode_packed_floats(o));
    return l.failed;
}

static int reserve_host(student *s)
{
    size_t N = row_room(&s->options);
    int32_t **integers[] = {&s->host_positions, &s->host_targets, &s->host_tokens, &s->host_slots, &s->host_active};
    for (size_t i = 0; i < sizeof integers / sizeof integers[0]; i++)
        if (!(*integers[i] = calloc(N, sizeof(int32_t))))
            return 1;
    s->host_ids = calloc(N, sizeof(uint64_t));
    s->host_logprob = calloc(N, sizeof(float));
    return !s->host_ids || !s->host_logprob;
}

/* Fills the parameter offsets, from `first` on for matrices or for vectors;
 * returns where they end. Each parameter starts on a cache line. */
static size_t layout_kind(const student_options *o, int matrix, size_t first, size_t *offsets)
{
    for (int i = 0; i < parameter_total(o); i++) {
        student_parameter p;
        parameter_describe(o, i, &p);
        if (p.matrix != matrix)
            continue;
        if (offsets)
            offsets[i] = first;
        first += ((size_t)p.rows * (size_t)p.cols + 15) / 16 * 16;
    }
    return first;
}

/* Matrices lie before vectors: AdamW, which may spare vectors the decay, is one
 * pass. */
static size_t layout(const student_options *o, size_t *offsets)
{
    return layout_kind(o, 0, layout_kind(o, 1, 0, offsets), offsets);
}

static backend_limits limits_of(const student_options *o)
{
    int width = o->vocabulary;
    const int others[] = {4 * o->width, o->max_tokens, o->context};
    for (int i = 0; i < 3; i++)
        width = others[i] > width ? others[i] : width;
    return (backend_limits){.rows = (int)row_room(o),
                            .width = width,
                            .threads = o->threads,
                            .isa = o->isa,
                            .kernels = o->kernels,
                            .context = o->context,
                            .head_width = o->width / o->heads,
                            .parameters = layout(o, NULL),
                            .stream = o->width,
                            .heads = o->heads,
                            .vocabulary = o->vocabulary,
                            .stories = o->max_stories};
}

int student_plan(const student_options *options, student_memory *plan, char *message, size_t capacity)
{
    int status = check_options(options, message, capacity);
    if (status)
        return status;
    if (!plan || plan->size != sizeof *plan)
        return fail(message, capacity, STUDENT_E_ARGUMENT, "student_memory has another size than the library's");
    student s = {.options = *options, .parameter_floats = layout(options, NULL)};
    reserve_all(&s, plan, 0);
    backend_limits limits = limits_of(options);
    if (backend_describe(options)->workspace)
        plan->workspace += backend_describe(options)->workspace(&limits);
    return STUDENT_OK;
}

int student_create(const student_options *options, student **out, char *message, size_t capacity)
{
    int status = check_options(options, message, capacity);
    if (status)
        return status;
    student *s = calloc(1, sizeof *s);
    if (!s)
        return fail(message, capacity, STUDENT_E_MEMORY, "no memory for a student");
    s->options = *options;
    student_memory plan;
    s->parameter_floats = layout(options, NULL);
    s->matrix_floats = layout_kind(options, 1, 0, NULL);
    reserve_all(s, &plan, 0);
    backend_limits limits = limits_of(options);
    limits.bytes = plan.weights + plan.gradients + plan.moments + plan.activations + plan.workspace + plan.cache;
    status = backend_describe(options)->create(&s->backend, &limits, message, capacity);
    if (status) {
        free(s);
        return status;
    }
    s->options.backend = backend_describe(options)->name;
    s->weights_stale = 1;
    s->options.isa = s->backend.isa;
    s->parameter_count = parameter_total(options);
    s->parameter_offsets = calloc((size_t)s->parameter_count, sizeof *s->parameter_offsets);
    s->blocks = calloc((size_t)options->layers, sizeof *s->blocks);
    if (s->parameter_offsets)
        layout(options, s->parameter_offsets);
    if (!s->parameter_offsets || !s->blocks || reserve_all(s, &plan, 1) || reserve_host(s)) {
        const char *error = OPS(s)->error(B(s));
        if (error)
            fail(message, capacity, STUDENT_E_MEMORY, "%s", error);
        else
            fail(message, capacity, STUDENT_E_MEMORY, "not enough memory for a student of %d tokens a call",
                 options->max_tokens);
        student_destroy(s);
        return STUDENT_E_MEMORY;
    }
    *out = s;
    return STUDENT_OK;
}

void student_destroy(student *s)
{
    if (!s)
        return;
    for (int i = 0; i < s->memories; i++)
        OPS(s)->release(B(s), s->memory[i]);
    OPS(s)->destroy(B(s));
    free(s->parameter_offsets);
    free(s->blocks);
    free(s->host_positions);
    free(s->host_targets);
    free(s->host_tokens);
    free(s->host_slots);
    free(s->host_active);
    free(s->host_ids);
    free(s->host_logprob);
    free(s);
}

const char *student_isa(const student *s) { return s->backend.isa; }
