/* The fastest variant for every weight of a student, measured once.
 *
 * Bits come first. Variants differ in theirs, so a choice holds for a form and a
 * weight, whatever the number of rows; and FORWARD, in which a story must be the
 * same in telling and training and in any company, is left to variants whose rows
 * are alike. Choices go into a file, if one is named (a run has it in its folder).
 * What a file says is kept to and not measured, on every card that has its
 * variants: a run that goes on multiplies as it began. A line of the file: form,
 * outputs, inputs, variant. */
#include "backend.cuh"
#include "cuda_library.h"
#include "matmul.cuh"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

namespace
{

enum { ROWS = 4096, FORMS = 3, WEIGHTS = 5, VARIANTS = sizeof matmul_variants / sizeof *matmul_variants };

const char *const form_names[FORMS] = {"forward", "backward_input", "backward_weight"};

/* A call's: where its refusal goes, and which variants are open. */
struct measuring {
    backend *b;
    char *message;
    size_t capacity;
    bool opened[VARIANTS];
};

bool may(const measuring *m, const matmul_variant *v, int form)
{
    return v->type == cuda(m->b)->activations && (form != FORWARD || v->alike);
}

int open_variant(measuring *m, int i)
{
    const matmul_variant *v = matmul_variants[i];
    int status = m->opened[i] || !v->open ? STUDENT_OK : v->open(m->b, m->message, m->capacity);
    m->opened[i] = !status;
    return status;
}

bool chosen(const matmul_choices *c, int form, int O, int I)
{
    for (int i = 0; i < c->measured; i++)
        if (c->best[i].form == form && c->best[i].O == O && c->best[i].I == I)
            return true;
    return false;
}

/* Numbers of either sign from 0.5 to 2, as bf16 or as halves of fp32: zeros would be multiplied at a lower power,
 * and so faster. */
static __global__ void __launch_bounds__(256) fill(uint16_t *to, size_t count)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    uint32_t mixed = (uint32_t)i * 2654435761u;
    if (i < count)
        to[i] = (uint16_t)((mixed >> 16 & 0x80ff) | 0x3f00);
}

size_t padded(size_t bytes) { return (bytes + 255) / 256 * 256; }

int measure(measuring *m, matmul_form form, int O, int I)
{
    cuda_state *s = cuda(m->b);
    matmul_choices *c = &s->matmul;
    const bool weight = form == BACKWARD_WEIGHT;
    const int most = O == s->limits.vocabulary ? (int)CUDA_HEAD_ROWS : (int)ROWS;
    const int rows = s->limits.rows < most ? s->limits.rows : most;
    const int M = weight ? O : rows, N = form == FORWARD ? O : I, K = form == FORWARD ? I : weight ? rows : O;
    const size_t element = tensor_element(s->activations), a = padded((size_t)M * K * element),
                 factors = a + padded((size_t)N * K * element), out = padded((size_t)M * N * sizeof(float)),
                 bytes = factors + out + (size_t)M * sizeof(float);
    char *room = nullptr;
    if (cudaMalloc(&room, bytes) != cudaSuccess) {
        cudaGetLastError();
        snprintf(m->message, m->capacity, "cuda: matmul=measure needs %zu MiB more on %s", (bytes >> 20) + 1,
                 s->device_name);
        return STUDENT_E_MEMORY;
    }
    LAUNCH(fill, blocks_for(factors / 2, 256), 256, 0, s->stream, (uint16_t *)room, factors / 2);
    cuda_zero(m->b, room + factors, bytes - factors);
    matmul_problem p = matmul_describe(form, M, N, K, room, room + a, s->activations,
                                       {(float *)(room + factors), M, N, weight ? (int)TENSOR_F32 : s->activations});
    if (weight) {
        p.finish = FINISH_ADD;
        p.column_sums = (float *)(room + factors + out);
    }
    const matmul_variant *best = nullptr;
    float least = INFINITY;
    for (int i = 0; i < VARIANTS; i++) {
        const matmul_variant *v = matmul_variants[i];
        if (!may(m, v, form) || (v->takes && !v->takes(&p)) || open_variant(m, i))
            continue;
        float milliseconds = matmul_time(m->b, [&] { matmul_run_by(m->b, v, p); });
        cuda_note(m->b, cudaGetLastError(), "matmul=measure");
        if (s->error[0]) { /* not for this problem */
            snprintf(m->message, m->capacity, "%s", s->error);
            s->error[0] = 0;
        } else if (milliseconds < least) {
            least = milliseconds;
            best = v;
        }
    }
    cudaFree(room);
    if (!best)
        return STUDENT_E_CAPABILITY;
    c->best[c->measured++] = {form, O, I, best};
    return STUDENT_OK;
}

int read_line(measuring *m, const char *path, int number, const char *line)
{
    matmul_choices *c = &cuda(m->b)->matmul;
    char name[16], variant[16], more[2];
    int O = 0, I = 0, form = 0, v = 0;
    if (*line == '#')
        return STUDENT_OK;
    int fields = sscanf(line, "%15s %d %d %15s %1s", name, &O, &I, variant, more);
    while (fields == 4 && form < FORMS && strcmp(name, form_names[form]))
        form++;
    while (fields == 4 && v < VARIANTS &&
           (strcmp(variant, matmul_variants[v]->name) || !may(m, matmul_variants[v], form)))
        v++;
    if (fields != 4 || form == FORMS || v == VARIANTS || c->measured == MATMUL_MEASURED - WEIGHTS * FORMS) {
        snprintf(m->message, m->capacity,
                 "cuda: %s:%d is not form, outputs, inputs and variant of this precision; restore the file, or measure "
                 "into another one",
                 path, number);
        return STUDENT_E_ARGUMENT;
    }
    int status = open_variant(m, v);
    c->best[c->measured++] = {form, O, I, matmul_variants[v]};
    return status;
}

int fail(measuring *m, const char *path)
{
    snprintf(m->message, m->capacity, "cuda: %s: %s", path, strerror(errno));
    return STUDENT_E_CAPABILITY;
}

int read_file(measuring *m, const char *path)
{
    FILE *f = fopen(path, "r");
    if (!f)
        return errno == ENOENT ? STUDENT_OK : fail(m, path);
    char line[128];
    int status = STUDENT_OK;
    for (int number = 1; !status && fgets(line, sizeof line, f); number++)
        status = read_line(m, path, number, line);
    fclose(f);
    return status;
}

/* Beside, and renamed when it is on the disk. */
int write_file(measuring *m, const char *path)
{
    const cuda_state *s = cuda(m->b);
    char part[4096];
    if (snprintf(part, sizeof part, "%s.part", path) >= (int)sizeof part) {
        errno = ENAMETOOLONG;
        return fail(m, path);
    }
    FILE *f = fopen(part, "w");
    if (!f)
        return fail(m, part);
    fprintf(f, "# form, outputs, inputs, variant: the fastest on %s\n", s->device_name);
    for (int i = 0; i < s->matmul.measured; i++)
        fprintf(f, "%s %d %d %s\n", form_names[s->matmul.best[i].form], s->matmul.best[i].O, s->matmul.best[i].I,
                s->matmul.best[i].variant->name);
    bool whole = !ferror(f) && !fflush(f) && !fsync(fileno(f));
    whole = !fclose(f) && whole;
    return whole && !rename(part, path) ? (int)STUDENT_OK : fail(m, part);
}

} // namespace

const char *matmul_measured_file(const char *name)
{
    if (!name || strncmp(name, "measure", 7))
        return nullptr;
    return name[7] == ':' ? name + 8 : name[7] ? nullptr : name + 7;
}

int cuda_matmul_measure(backend *b, char *message, size_t capacity)
{
    cuda_state *s = cuda(b);
    const matmul_choices *c = &s->matmul;
    const char *path = matmul_measured_file(matmul_asked(&s->limits));
    if (!path)
        return STUDENT_OK;
    const int C = s->limits.stream;
    const int weights[WEIGHTS][2] = {{3 * C, C}, {C, C}, {4 * C, C}, {C, 4 * C}, {s->limits.vocabulary, C}};
    measuring m = {b, message, capacity, {}};
    int status = *path ? read_file(&m, path) : (int)STUDENT_OK, known = c->measured;
    for (int form = 0; form < FORMS; form++)
        for (const int *w : weights)
            if (!status && w[0] && !chosen(c, form, w[0], w[1]))
                status = measure(&m, (matmul_form)form, w[0], w[1]);
    return !status && *path && c->measured > known ? write_file(&m, path) : status;
}
