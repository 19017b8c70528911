/* Variants of kernels by name. One line here and one file make a variant:
 * docs/kernels.md. */
#include <stdio.h>
#include <string.h>

#include "cpu.h"

static const kernel_variant variants[] = {
    {"matmul", "openblas", cpu_matmul_openblas},
};

#define VARIANTS ((int32_t)(sizeof variants / sizeof *variants))

const char *student_kernel(int32_t index, int32_t part)
{
    if (index < 0 || index >= VARIANTS)
        return NULL;
    return part ? variants[index].name : variants[index].op;
}

/* Whether `length` characters of text are "op=name" of a variant. */
static int names(const kernel_variant *v, const char *text, size_t length)
{
    size_t op = strlen(v->op), name = strlen(v->name);
    return length == op + 1 + name && !strncmp(text, v->op, op) && text[op] == '=' &&
           !strncmp(text + op + 1, v->name, name);
}

int cpu_install_variants(op_table *table, const backend_limits *limits, const char *isa, char *message, size_t capacity)
{
    const char *text = limits->kernels ? limits->kernels : "";
    while (*text) {
        size_t length = strcspn(text, ",");
        const kernel_variant *found = NULL;
        for (int32_t i = 0; i < VARIANTS; i++)
            if (names(&variants[i], text, length))
                found = &variants[i];
        if (!found) {
            snprintf(message, capacity, "the cpu backend has no kernel %.*s", (int)length, text);
            return STUDENT_E_ARGUMENT;
        }
        int status = found->install(table, limits, isa, message, capacity);
        if (status)
            return status;
        text += length + (text[length] == ',');
    }
    return STUDENT_OK;
}
