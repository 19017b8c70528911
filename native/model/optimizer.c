/* Reading and writing parameters, and the AdamW step over all of them. */
#include <math.h>
#include <string.h>

#include "model.h"

int32_t student_parameter_count(const student *s) { return s->parameter_count; }

int student_parameter_info(const student *s, int32_t index, student_parameter *info, char *message, size_t capacity)
{
    if (!info || info->size != sizeof *info || parameter_describe(&s->options, index, info))
        return fail(message, capacity, STUDENT_E_ARGUMENT, "parameter %d: the student has %d", index,
                    s->parameter_count);
    return STUDENT_OK;
}

static int check_access(const student *s, int32_t array, int32_t index, student_parameter *p, char *message,
                        size_t capacity)
{
    if (array < 0 || array > STUDENT_MOMENT2 || !s->arrays[array])
        return fail(message, capacity, STUDENT_E_ARGUMENT, "array %d: the student has none (created without train?)",
                    array);
    if (parameter_describe(&s->options, index, p))
        return fail(message, capacity, STUDENT_E_ARGUMENT, "parameter %d: the student has %d", index,
                    s->parameter_count);
    return STUDENT_OK;
}

static int check_whole(const student *s, int32_t array, int32_t index, size_t count, char *message, size_t capacity)
{
    student_parameter p;
    int status = check_access(s, array, index, &p, message, capacity);
    if (!status && count != (size_t)p.rows * (size_t)p.cols)
        return fail(message, capacity, STUDENT_E_ARGUMENT, "parameter %s has %d x %d numbers, not %zu", p.name, p.rows,
                    p.cols, count);
    return status;
}

int student_read(student *s, int32_t array, int32_t index, float *values, size_t count, char *message, size_t capacity)
{
    int status = check_whole(s, array, index, count, message, capacity);
    if (status)
        return status;
    OPS(s)->download(B(s), values, parameter(s, array, index), count * sizeof(float));
    return finish(s, message, capacity);
}

int student_write(student *s, int32_t array, int32_t index, const float *values, size_t count, char *message,
                  size_t capacity)
{
    int status = check_whole(s, array, index, count, message, capacity);
    return status ? status : student_write_part(s, array, index, 0, values, count, message, capacity);
}

int student_write_part(student *s, int32_t array, int32_t index, size_t first, const float *values, size_t count,
                       char *message, size_t capacity)
{
    student_parameter p;
    int status = check_access(s, array, index, &p, message, capacity);
    if (status)
        return status;
    size_t whole = (size_t)p.rows * (size_t)p.cols;
    if (first > whole || count > whole - first)
        return fail(message, capacity, STUDENT_E_ARGUMENT, "parameter %s has %zu numbers, not %zu from %zu on", p.name,
                    whole, count, first);
    OPS(s)->upload(B(s), parameter(s, array, index) + first, values, count * sizeof(float));
    s->weights_stale |= array == STUDENT_WEIGHTS;
    return STUDENT_OK;
}

int student_copy_weights(student *to, student *from, char *message, size_t capacity)
{
    const student_options *a = &to->options, *b = &from->options;
    if (a->layers != b->layers || a->width != b->width || a->context != b->context || a->vocabulary != b->vocabulary)
        return fail(message, capacity, STUDENT_E_ARGUMENT, "students of different shapes");
    if (strcmp(OPS(to)->name, OPS(from)->name) || strcmp(B(to)->isa, B(from)->isa))
        return fail(message, capacity, STUDENT_E_ARGUMENT, "students on different backends");
    /* Each backend has its own order of work: the weights are there before they
     * are copied, and are not changed before they have been. */
    char none;
    OPS(from)->download(B(from), &none, from->arrays[STUDENT_WEIGHTS], 0);
    int shared = to->parameter_count < from->parameter_count ? to->parameter_count : from->parameter_count;
    for (int i = 0; i < shared; i++) {
        student_parameter p;
        parameter_describe(a, i, &p);
        OPS(to)->copy(B(to), parameter(to, STUDENT_WEIGHTS, i), parameter(from, STUDENT_WEIGHTS, i),
                      (size_t)p.rows * (size_t)p.cols * sizeof(float));
    }
    OPS(to)->download(B(to), &none, to->arrays[STUDENT_WEIGHTS], 0);
    to->weights_stale = 1;
    int status = finish(from, message, capacity);
    return status ? status : finish(to, message, capacity);
}

int student_zero_gradients(student *s, char *message, size_t capacity)
{
    if (!s->options.train)
        return fail(message, capacity, STUDENT_E_ARGUMENT, "the student was created without train");
    OPS(s)->zero(B(s), s->arrays[STUDENT_GRADIENTS], s->parameter_floats * sizeof(float));
    return STUDENT_OK;
}

int student_adamw(student *s, const student_adamw_options *o, double *gradient_norm, char *message, size_t capacity)
{
    /* Paddings between parameters are zero and stay zero, so one pass covers all;
     * without an epsilon they would become 0 / 0. */
    if (!s->options.train || !o || o->size != sizeof *o || o->step < 1 || !((float)o->epsilon > 0))
        return fail(message, capacity, STUDENT_E_ARGUMENT,
                    "adamw needs train, options of this library, step >= 1 and epsilon > 0");
    OPS(s)->gradient_norm(B(s), s->norm, s->arrays[STUDENT_GRADIENTS], s->parameter_floats);
    adamw_options step = {.lr = o->lr,
                          .beta1 = o->beta1,
                          .beta2 = o->beta2,
                          .epsilon = o->epsilon,
                          .weight_decay = o->weight_decay,
                          .max_grad_norm = o->max_grad_norm,
                          .step = o->step,
                          .decayed = o->decay_vectors ? s->parameter_floats : s->matrix_floats};
    OPS(s)->adamw(B(s), s->arrays[STUDENT_WEIGHTS], s->arrays[STUDENT_GRADIENTS], s->arrays[STUDENT_MOMENT1],
                  s->arrays[STUDENT_MOMENT2], s->parameter_floats, s->norm, step);
    s->weights_stale = 1;
    double norm;
    OPS(s)->download(B(s), &norm, s->norm, sizeof norm);
    if (gradient_norm)
        *gradient_norm = norm;
    int status = finish(s, message, capacity);
    if (status)
        return status;
    return isfinite(norm) ? STUDENT_OK
                          : fail(message, capacity, STUDENT_E_NUMBERS,
                                 "gradient norm is not finite: the weights were left as they are");
}
