/* A tiny run through student.h by one thread, as ThreadSanitizer wants it:
 * pretraining, telling, PPO, on a backend and on ref with the same numbers.
 * Every mode of the emulation has a process of its own, in which the library
 * reads it; all must come to the same bits. A card knows no modes: there, the
 * processes show that it repeats itself.
 *
 * usage: test_run [cpu | cuda] [least | few | all]
 * Exit status 1 when a check fails, 3 when the backend cannot be created. */
#include <dlfcn.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../emulation/counts.h"
#include "student.h"

enum {
    CONTEXT = 48,
    V = 29,
    STORIES = 5,
    PROMPT = 9,
    NEW = 12,
    END = 7,
    TOKENS = STORIES * (PROMPT + NEW),
    EPOCHS = 2
};

static int failures;
static int least, layers, heads, steps, stories, fresh; /* fresh: most tokens of a reply */
static uint64_t digest;

static void expect(int holds, const char *format, ...)
{
    if (holds)
        return;
    va_list arguments;
    va_start(arguments, format);
    printf("FAIL ");
    vprintf(format, arguments);
    printf("\n");
    va_end(arguments);
    failures++;
}

/* What the processes compare: FNV-1a over all results. */
static void into_digest(const void *data, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        digest = (digest ^ ((const unsigned char *)data)[i]) * 1099511628211u;
}

static char message[256];
static void must(int status)
{
    if (status) {
        printf("FAIL %s\n", message);
        fflush(stdout);
        _exit(status == STUDENT_E_CAPABILITY ? 3 : 1);
    }
}
#define MUST(call, ...) must(call(__VA_ARGS__, message, sizeof message))

/* One side: a policy, the reference that it was, and what came out. */
typedef struct side {
    student *policy, *reference;
    double first_loss, last_loss, norms[EPOCHS];
    float told[STORIES * NEW], logprob[TOKENS], entropy[TOKENS], value[TOKENS], reference_logprob[TOKENS];
    float rewards[TOKENS], advantages[TOKENS], returns[TOKENS], *weights, *began;
    int32_t tokens[STORIES * NEW], lengths[STORIES];
    size_t parameters;
    student_ppo_sums sums[EPOCHS];
} side;

static student *created(const char *backend, const char *isa, int train)
{
    student_options o = {.size = sizeof o,
                         .layers = layers,
                         .heads = heads,
                         .width = 32 * heads,
                         .context = CONTEXT,
                         .vocabulary = V,
                         .layernorm_epsilon = 1e-5f,
                         .max_tokens = TOKENS,
                         .max_stories = STORIES,
                         .decode_stories = train ? STORIES : 0,
                         .decode_length = PROMPT + NEW,
                         .train = train,
                         .value_head = train,
                         .threads = 1,
                         .backend = backend,
                         .isa = isa};
    student *s;
    MUST(student_create, &o, &s);
    return s;
}

/* All weights of a student: to the host, or from there; returns their number. */
static size_t weights(student *s, float *to, const float *from)
{
    size_t at = 0;
    for (int i = 0; i < student_parameter_count(s); i++) {
        student_parameter p = {.size = sizeof p};
        MUST(student_parameter_info, s, i, &p);
        size_t count = (size_t)p.rows * (size_t)p.cols;
        if (to)
            MUST(student_read, s, STUDENT_WEIGHTS, i, to + at, count);
        if (from)
            MUST(student_write, s, STUDENT_WEIGHTS, i, from + at, count);
        at += count;
    }
    return at;
}

static const emulation_counts *counted(void)
{
    static emulation_counts none;
    const char *path = getenv("ONCEUPON_CUDA_LIBRARY");
    void *library = path ? dlopen(path, RTLD_NOW | RTLD_NOLOAD) : NULL;
    emulation_counts *(*counts)(void) = NULL;
    if (library)
        *(void **)&counts = dlsym(library, "emulation_counted");
    static int said;
    if (!counts && !said++)
        printf("not counted: no emulation\n");
    return counts ? counts() : &none;
}

/* A call gives the card all its work before it waits, and takes no memory. */
static emulation_counts before;
static void begin(void) { before = *counted(); }
static void waited(const char *call, long most)
{
    emulation_counts now = *counted();
    expect(now.waits - before.waits <= most, "%s waits for the card %ld times, not %ld", call, now.waits - before.waits,
           most);
    expect(now.allocations == before.allocations, "%s allocates", call);
}

/* Stories in which every token names its successor; dropout as in pretraining. */
static void pretrain(side *x)
{
    int32_t tokens[TOKENS], offsets[STORIES + 1] = {0};
    for (int s = 0; s < stories; s++) {
        offsets[s + 1] = offsets[s] + PROMPT + fresh - s; /* ragged */
        for (int t = offsets[s]; t < offsets[s + 1]; t++)
            tokens[t] = t == offsets[s] ? 5 * s % V : (tokens[t - 1] * 3 + 1) % 23;
    }
    student_batch batch = {sizeof batch, tokens, offsets, stories, NULL};
    for (int step = 1; step <= steps; step++) {
        student_dropout drop = {sizeof drop, .1f, 3, (uint64_t)step};
        student_adamw_options adam = {sizeof adam, 1e-2, .9, .999, 1e-8, .01, 0, 1, step};
        double loss, norm;
        if (step == steps) /* a KL that is not 0 */
            MUST(student_copy_weights, x->reference, x->policy);
        MUST(student_zero_gradients, x->policy);
        begin();
        MUST(student_cross_entropy, x->policy, &batch, NULL, 1.f / (float)(offsets[stories] - stories), &drop, &loss,
             NULL);
        waited("cross_entropy", 1);
        begin();
        MUST(student_adamw, x->policy, &adam, &norm);
        waited("adamw", 1);
        into_digest(&loss, sizeof loss);
        into_digest(&norm, sizeof norm);
        *(step == 1 ? &x->first_loss : &x->last_loss) = loss;
    }
    expect(x->last_loss < .98 * x->first_loss, "the loss falls from %g to %g only", x->first_loss, x->last_loss);
}

static int32_t asked(int t) { return (t * t + 4) % V; } /* token t of the prompt */

/* Stories first.. of the shared prompt, less its first tokens; what they are
 * keyed by is their number. */
static void tell(side *x, int first, int number, int skipped, int32_t *tokens, float *logprob, int32_t *lengths)
{
    int32_t prompts[STORIES * PROMPT], offsets[STORIES + 1];
    uint64_t ids[STORIES];
    offsets[0] = 0;
    for (int s = 0; s < number; s++) {
        ids[s] = (uint64_t)(first + s);
        offsets[s + 1] = offsets[s];
        for (int t = skipped; t < PROMPT; t++)
            prompts[offsets[s + 1]++] = asked(t);
    }
    student_batch batch = {sizeof batch, prompts, offsets, number, NULL};
    student_generate_options o = {
        .size = sizeof o, .max_new_tokens = fresh, .temperature = 1.3f, .top_p = .98f, .end_token = END, .seed = 11};
    begin();
    MUST(student_generate, x->policy, &batch, ids, &o, tokens, logprob, lengths);
    waited("generate", 2 * fresh + 2); /* a step of telling ends with its tokens and log-probabilities */
}

/* What telling must show: stories of different lengths; one told again and one
 * told alone have the bits that they had in company, by a recording. */
static void told(side *x)
{
    int shortest = fresh, longest = 0;
    for (int s = 0; s < stories; s++) {
        shortest = x->lengths[s] < shortest ? x->lengths[s] : shortest;
        longest = x->lengths[s] > longest ? x->lengths[s] : longest;
    }
    expect(shortest < longest, "all stories have %d tokens", longest);
    for (int alone = 0; alone < 2; alone++) {
        int first = alone ? stories - 1 : 0, number = alone ? 1 : stories;
        int32_t tokens[STORIES * NEW], lengths[STORIES];
        float logprob[STORIES * NEW];
        tell(x, first, number, 0, tokens, logprob, lengths);
        for (int s = 0; s < number; s++)
            expect(
                lengths[s] == x->lengths[first + s] &&
                    !memcmp(tokens + s * fresh, x->tokens + (first + s) * fresh, (size_t)lengths[s] * sizeof *tokens) &&
                    !memcmp(logprob + s * fresh, x->told + (first + s) * fresh, (size_t)lengths[s] * sizeof *logprob),
                "story %d of %d told again is another one", first + s, number);
    }
    emulation_counts now = *counted();
    expect(now.launches == before.launches, "a step that was recorded launches %ld kernels by themselves",
           now.launches - before.launches);
}

/* A prompt of another length is shared by other steps than those recorded. */
static void shorter(side *x, side *r, int exact)
{
    int32_t tokens[2][STORIES * NEW] = {0}, lengths[2][STORIES];
    float logprob[2][STORIES * NEW] = {0};
    tell(x, 0, stories, 3, tokens[0], logprob[0], lengths[0]);
    tell(r, 0, stories, 3, tokens[1], logprob[1], lengths[1]);
    for (int s = 0; s < stories; s++)
        for (int t = s * fresh; t < s * fresh + (exact ? lengths[0][s] : 1); t++)
            expect(fabs(logprob[0][t] - logprob[1][t]) <= (exact ? 1e-4 : .05),
                   "story %d of a shorter prompt, token %d: %g, by ref %g", s, t - s * fresh, logprob[0][t],
                   logprob[1][t]);
    expect(!exact || !memcmp(tokens[0], tokens[1], sizeof *tokens), "ref tells other stories of a shorter prompt");
}

/* The stories whole, or with the prompt, less its last token, as a prefix. */
typedef struct layout {
    int32_t tokens[TOKENS], offsets[STORIES + 1];
    int prefix, rows;
} layout;

static layout packed(const side *x, int prefix)
{
    layout l = {.prefix = prefix, .rows = prefix, .offsets = {prefix}};
    for (int s = 0; s < stories; s++) {
        for (int t = 0; t < PROMPT + x->lengths[s]; t++)
            if (t < prefix)
                l.tokens[t] = asked(t);
            else
                l.tokens[l.rows++] = t < PROMPT ? asked(t) : x->tokens[s * fresh + t - PROMPT];
        l.offsets[s + 1] = l.rows;
    }
    return l;
}

static student_batch batch_of(const layout *l)
{
    return (student_batch){sizeof(student_batch), l->tokens, l->offsets, stories, NULL};
}

/* Column of story s that speaks about token k of its reply. */
static int column(const layout *l, int s, int k) { return l->offsets[s] + PROMPT - 1 - l->prefix + k; }

/* Columns of `whole` as `to` has them; those of the prefix are 0. */
static void move(const side *x, const layout *whole, const float *from, const layout *to, float *moved)
{
    memset(moved, 0, TOKENS * sizeof *moved);
    for (int s = 0; s < stories; s++)
        memcpy(moved + column(to, s, 0), from + column(whole, s, 0), (size_t)x->lengths[s] * sizeof *moved);
}

/* Two epochs over the stories that are there. */
static void improve(side *x, const layout *l, double bound)
{
    layout whole = packed(x, 0);
    student_batch batch = batch_of(&whole), shared = batch_of(l);
    float mask[TOKENS] = {0}, scores[STORIES], moved[5][TOKENS], again[TOKENS];
    MUST(student_forward, x->reference, &batch, NULL, x->reference_logprob, NULL, NULL);
    MUST(student_forward, x->policy, &shared, NULL, again, NULL, NULL);
    begin();
    MUST(student_forward, x->policy, &batch, NULL, x->logprob, x->entropy, x->value);
    waited("forward", 3);
    for (int s = 0; s < stories; s++) {
        scores[s] = (float)(x->lengths[s] % 4) - 1;
        for (int k = 0; k < x->lengths[s]; k++) {
            float is = x->logprob[column(&whole, s, k)], was = x->told[s * fresh + k], once = again[column(l, s, k)];
            mask[column(&whole, s, k)] = 1;
            expect(fabs(is - was) <= bound, "story %d, token %d: told with log-probability %g, forward %g", s, k, was,
                   is);
            expect(is == once, "story %d, token %d: log-probability %g, %g with a prefix", s, k, is, once);
        }
    }
    student_reward_options reward = {sizeof reward, .2f, 0, 1, .95f, 0, 0};
    MUST(student_advantages, x->policy, &batch, mask, scores, x->logprob, x->reference_logprob, x->value, &reward,
         x->rewards, NULL, x->advantages, x->returns);
    const float *columns[5] = {mask, x->logprob, x->value, x->advantages, x->returns};
    double count = 0;
    for (int t = 0; t < TOKENS; t++)
        count += mask[t];
    for (int c = 0; c < 5; c++)
        move(x, &whole, columns[c], l, moved[c]);
    for (int e = 0; e < EPOCHS; e++) {
        student_ppo_options ppo = {sizeof ppo, .2f, .2f, .1f, count, 1};
        student_adamw_options adam = {sizeof adam, 2e-4, .9, .999, 1e-8, 0, 0, 1, steps + 1 + e};
        x->sums[e].size = sizeof *x->sums;
        MUST(student_zero_gradients, x->policy);
        MUST(student_forward, x->policy, &shared, NULL, NULL, NULL, NULL);
        begin();
        MUST(student_ppo_backward, x->policy, moved[0], moved[1], moved[2], moved[3], moved[4], &ppo, x->sums + e);
        waited("ppo_backward", 1);
        MUST(student_adamw, x->policy, &adam, x->norms + e);
    }
    const student_ppo_sums *first = x->sums, *last = x->sums + EPOCHS - 1;
    expect(first->tokens == count && first->approx_kl == 0 && first->ratio == count,
           "the first epoch begins away from the old policy: KL %g, ratios %g of %g", first->approx_kl, first->ratio,
           count);
    expect(last->approx_kl > 0, "the policy has not moved");
    expect(last->policy_loss + .1 * last->value_loss < first->policy_loss + .1 * first->value_loss,
           "the loss does not fall: %g, %g", first->policy_loss + .1 * first->value_loss,
           last->policy_loss + .1 * last->value_loss);
}

static void check(const char *what, const float *got, const float *want, const float *from, size_t n, double bound)
{
    double error = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        double size_of = want[i] - (from ? from[i] : 0), error_of = (double)got[i] - want[i];
        size += size_of * size_of;
        error += error_of * error_of;
    }
    expect(size > 0 && error / size <= bound, "%s: NMSE %.1e > %.0e against ref", what, size > 0 ? error / size : error,
           bound);
}

static void compared(const side *x, const side *r, int exact)
{
    double bound = exact ? 1e-9 : 2e-3;
    size_t rows = (size_t)packed(x, 0).rows;
    check("reference", x->reference_logprob, r->reference_logprob, NULL, rows, bound);
    check("log-probabilities", x->logprob, r->logprob, NULL, rows, bound);
    check("entropies", x->entropy, r->entropy, NULL, rows, bound);
    check("values", x->value, r->value, NULL, rows, bound);
    check("rewards", x->rewards, r->rewards, NULL, rows, bound);
    check("advantages", x->advantages, r->advantages, NULL, rows, 10 * bound);
    check("returns", x->returns, r->returns, NULL, rows, 10 * bound);
    check("PPO", x->weights, r->weights, x->began, x->parameters, exact ? 1e-4 : .2);
    for (int e = 0; e < EPOCHS; e++)
        expect(fabs(x->norms[e] / r->norms[e] - 1) <= (exact ? 1e-4 : 5e-2), "gradient norm of epoch %d: %g, of ref %g",
               e, x->norms[e], r->norms[e]);
}

static void run(const char *backend, const char *isa, int exact)
{
    static side sides[2];
    side *x = &sides[0], *r = &sides[1];
    for (side *k = x; k <= r; k++) {
        memset(k, 0, sizeof *k);
        k->policy = created(k == r ? "ref" : backend, k == r ? "" : isa, 1);
        k->reference = created(k == r ? "ref" : backend, k == r ? "" : isa, 0);
        k->parameters = weights(k->policy, NULL, NULL);
        k->weights = calloc(k->parameters, sizeof(float));
        k->began = calloc(k->parameters, sizeof(float));
        for (size_t i = 0; i < k->parameters; i++)
            k->began[i] = .8f * (float)((double)((uint32_t)i * 2654435761u) * 0x1p-32 - .5);
        weights(k->policy, NULL, k->began);
        pretrain(k);
        weights(k->policy, k->weights, NULL);
    }
    check("pretraining", x->weights, r->weights, x->began, x->parameters, exact ? 1e-4 : .2);
    /* From here on with the same weights and stories. */
    weights(x->reference, x->began, NULL);
    weights(r->reference, NULL, x->began);
    weights(r->policy, NULL, x->weights);
    memcpy(x->began, x->weights, x->parameters * sizeof(float));
    for (side *k = x; k <= r; k++)
        tell(k, 0, stories, 0, k->tokens, k->told, k->lengths);
    if (!least)
        told(x);
    expect(!exact || !memcmp(x->tokens, r->tokens, sizeof x->tokens), "ref tells other stories");
    if (!least)
        shorter(x, r, exact);
    memcpy(r->tokens, x->tokens, sizeof x->tokens);
    memcpy(r->told, x->told, sizeof x->told);
    memcpy(r->lengths, x->lengths, sizeof x->lengths);
    for (side *k = x; k <= r; k++) {
        layout l = packed(x, PROMPT - 1);
        improve(k, &l, exact ? 1e-5 * (k == r) : .05);
        weights(k->policy, k->weights, NULL);
    }
    compared(x, r, exact);
    into_digest(x->tokens, sizeof x->tokens);
    into_digest(x->told, sizeof x->told);
    into_digest(x->advantages, sizeof x->advantages);
    into_digest(x->sums, sizeof x->sums);
    into_digest(x->norms, sizeof x->norms);
    into_digest(x->weights, x->parameters * sizeof(float));
    for (int k = 0; k < 2; k++) {
        student_destroy(sides[k].policy);
        student_destroy(sides[k].reference);
        free(sides[k].weights);
        free(sides[k].began);
    }
}

/* A process of its own for every mode; 0 when all end with one digest. */
int main(int count, char **arguments)
{
    static const char *const modes[][3] = {/* order, async, stream */
                                           {"random", "early", "late"},
                                           {"forward", "late", "now"},
                                           {"reverse", "early", "now"},
                                           {"random", "late", "late"}};
    const char *backend = count > 1 ? arguments[1] : "cpu";
    const char *size = count > 2 ? arguments[2] : "all";
    int all = !strcmp(size, "all"), status = 0, cuda = !strcmp(backend, "cuda");
    uint64_t first = 0;
    least = !strcmp(size, "least");
    layers = heads = all ? 2 : 1;
    steps = all ? 6 : least ? 2 : 4;
    stories = least ? 3 : STORIES;
    fresh = least ? 6 : NEW;
    for (int m = 0; m < (!cuda || least ? 1 : all ? 4 : 2); m++) {
        int ends[2];
        if (pipe(ends))
            return 1;
        setenv("EMULATION_ORDER", modes[m][0], 1);
        setenv("EMULATION_ASYNC", modes[m][1], 1);
        setenv("EMULATION_STREAM", modes[m][2], 1);
        fflush(stdout);
        pid_t child = fork();
        if (!child) {
            if (cuda && !least) /* least: the tensor cores' kernels, for ThreadSanitizer */
                run(backend, "fp32", 1);
            run(backend, cuda ? "bf16" : "auto", !cuda);
            fflush(stdout);
            if (write(ends[1], &digest, sizeof digest) != sizeof digest)
                _exit(1);
            _exit(failures > 0);
        }
        int ended = 0;
        uint64_t its = 0;
        close(ends[1]);
        ssize_t got = read(ends[0], &its, sizeof its);
        close(ends[0]);
        waitpid(child, &ended, 0);
        if (got != sizeof its || ended) {
            printf("%s, %s, %s: ended with %d\n", modes[m][0], modes[m][1], modes[m][2], ended);
            status = WIFEXITED(ended) && WEXITSTATUS(ended) == 3 ? 3 : 1;
        }
        first = m ? first : its;
        if (its != first) {
            printf("FAIL %s, %s, %s: other bits than %s, %s, %s\n", modes[m][0], modes[m][1], modes[m][2], modes[0][0],
                   modes[0][1], modes[0][2]);
            status = 1;
        }
    }
    printf("%s: digest %016llx, status %d\n", backend, (unsigned long long)first, status);
    return status;
}
