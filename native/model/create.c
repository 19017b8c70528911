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
    const size_t all[] = {sizeof(student_options),          sizeof(student_memory),
                          sizeof(student_parameter),        sizeof(student_batch),
                          sizeof(student_dropout),          sizeof(student_adamw_options),
                          sizeof(student_generate_options), sizeof(student_reward_options),
                          sizeof(student_ppo_options),      sizeof(student_ppo_sums)};
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
    if (!o->backend || (strcmp(o->backend, "ref") && strcmp(o->backend, "cpu")))
        return fail(message, capacity, STUDENT_E_ARGUMENT, "backend %s is not built in; ref and cpu are",
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
    if (!l->take || l->failed)
        return NULL;
    void *memory = OPS(l->s)->allocate(B(l->s), bytes);
    if (!memory || l->s->memories == (int)(sizeof l->s->memory / sizeof l->s->memory[0]))
        l->failed = 1;
    else
        l->s->memory[l->s->memories++] = memory;
    return memory;
}

static float *floats(ledger *l, size_t count) { return reserve(l, count * sizeof(float)); }

/* `blocks` equal slices of one reservation. */
static float *sliced(float *base, size_t count, int slice) { return base ? base + count * (size_t)slice : NULL; }

static void reserve_blocks(ledger *l)
{
    const student_options *o = &l->s->options;
    size_t N = (size_t)o->max_tokens, C = (size_t)o->width, H = (size_t)o->heads;
    int sets = o->train ? o->layers : 1;
    size_t set = N * C * 13 + N * C * 3 + N * 4 + H * N; /* see below */
    float *base = floats(l, set * (size_t)sets);
    for (int i = 0; base && i < o->layers; i++) {
        float *p = sliced(base, set, o->train ? i : 0);
        block_activations *a = &l->s->blocks[i];
        struct {
            float **to;
            size_t count;
        } parts[] = {{&a->input, N * C},   {&a->norm1, N * C},     {&a->mean1, N},   {&a->rstd1, N},
                     {&a->qkv, 3 * N * C}, {&a->attention, N * C}, {&a->lse, H * N}, {&a->middle, N * C},
                     {&a->norm2, N * C},   {&a->mean2, N},         {&a->rstd2, N},   {&a->up, 4 * N * C},
                     {&a->gelu, 4 * N * C}};
        for (size_t k = 0; k < sizeof parts / sizeof parts[0]; k++) {
            *parts[k].to = p;
            p += parts[k].count;
        }
    }
}

static int reserve_all(student *s, student_memory *plan, int take)
{
    const student_options *o = &s->options;
    size_t N = (size_t)o->max_tokens, C = (size_t)o->width, V = (size_t)o->vocabulary, S = (size_t)o->max_stories;
    size_t D = (size_t)o->decode_stories;
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
    l.account = &plan->activations;
    reserve_blocks(&l);
    s->final_input = floats(&l, N * C);
    s->hidden = floats(&l, N * C);
    s->mean = floats(&l, N);
    s->rstd = floats(&l, N);
    float **per_token[] = {&s->logprob, &s->entropy, &s->lse, &s->value, &s->dlogprob, &s->dvalue};
    for (size_t i = 0; i < sizeof per_token / sizeof per_token[0]; i++)
        *per_token[i] = floats(&l, N);

    l.account = &plan->workspace;
    s->narrow = floats(&l, N * C);
    s->logits = floats(&l, (size_t)HEAD_ROWS * V);
    if (o->train) {
        s->dhidden = floats(&l, N * C);
        s->dstream = floats(&l, N * C);
        s->dnarrow = floats(&l, N * C);
        s->dwide = floats(&l, 4 * N * C);
    }
    size_t P = o->ppo_tokens > o->max_tokens ? (size_t)o->ppo_tokens : N;
    for (int i = 0; i < 6; i++)
        s->per_token[i] = floats(&l, P);
    s->per_story = floats(&l, S);
    int32_t **integers[] = {&s->tokens, &s->positions, &s->targets, &s->slots};
    for (size_t i = 0; i < sizeof integers / sizeof integers[0]; i++)
        *integers[i] = reserve(&l, N * sizeof(int32_t));
    s->offsets = reserve(&l, (S + 1) * sizeof(int32_t));
    s->story_ids = reserve(&l, N * sizeof(uint64_t));

    l.account = &plan->cache;
    if (D)
        s->cache = floats(&l, (size_t)o->layers * D * (size_t)o->context * 2 * C);
    return l.failed;
}

static int reserve_host(student *s)
{
    size_t N = (size_t)s->options.max_tokens;
    int32_t **integers[] = {&s->host_positions, &s->host_targets, &s->host_tokens, &s->host_slots, &s->host_active};
    for (size_t i = 0; i < sizeof integers / sizeof integers[0]; i++)
        if (!(*integers[i] = calloc(N, sizeof(int32_t))))
            return 1;
    s->host_ids = calloc(N, sizeof(uint64_t));
    s->host_logprob = calloc(N, sizeof(float));
    return !s->host_ids || !s->host_logprob;
}

static backend_limits limits_of(const student_options *o)
{
    int width = o->vocabulary;
    const int others[] = {4 * o->width, o->max_tokens, o->context};
    for (int i = 0; i < 3; i++)
        width = others[i] > width ? others[i] : width;
    return (backend_limits){.rows = o->max_tokens, .width = width, .threads = o->threads, .isa = o->isa};
}

/* Fills the parameter offsets; each parameter starts on a cache line. */
static size_t layout(const student_options *o, size_t *offsets)
{
    size_t total = 0;
    for (int i = 0; i < parameter_total(o); i++) {
        student_parameter p;
        parameter_describe(o, i, &p);
        if (offsets)
            offsets[i] = total;
        total += ((size_t)p.rows * (size_t)p.cols + 15) / 16 * 16;
    }
    return total;
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
    if (!strcmp(options->backend, "cpu"))
        plan->workspace += backend_cpu_workspace(&limits);
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
    backend_limits limits = limits_of(options);
    status = (strcmp(options->backend, "ref") ? backend_cpu_create : backend_ref_create)(&s->backend, &limits, message,
                                                                                         capacity);
    if (status) {
        free(s);
        return status;
    }
    s->options.backend = OPS(s)->name;
    s->options.isa = s->backend.isa;
    s->parameter_count = parameter_total(options);
    s->parameter_offsets = calloc((size_t)s->parameter_count, sizeof *s->parameter_offsets);
    s->blocks = calloc((size_t)options->layers, sizeof *s->blocks);
    student_memory plan;
    if (s->parameter_offsets)
        s->parameter_floats = layout(options, s->parameter_offsets);
    if (!s->parameter_offsets || !s->blocks || reserve_all(s, &plan, 1) || reserve_host(s)) {
        student_destroy(s);
        return fail(message, capacity, STUDENT_E_MEMORY, "not enough memory for a student of %d tokens a call",
                    options->max_tokens);
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
