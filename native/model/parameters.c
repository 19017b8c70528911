/* The table of parameters: names of GGUF's gpt2 architecture, shapes, order. */
#include <stdio.h>
#include <string.h>

#include "model.h"

static const char *const block_names[BLOCK_PARAMETERS] = {
    "attn_norm.weight", "attn_norm.bias", "attn_qkv.weight", "attn_qkv.bias", "attn_output.weight", "attn_output.bias",
    "ffn_norm.weight",  "ffn_norm.bias",  "ffn_up.weight",   "ffn_up.bias",   "ffn_down.weight",    "ffn_down.bias",
};

int parameter_total(const student_options *o) { return 2 + o->layers * BLOCK_PARAMETERS + 2 + (o->value_head ? 2 : 0); }

int parameter_block(int layer, int which) { return 2 + layer * BLOCK_PARAMETERS + which; }

int parameter_final_norm(const student_options *o) { return 2 + o->layers * BLOCK_PARAMETERS; }

int parameter_value_head(const student_options *o) { return parameter_final_norm(o) + 2; }

static void describe(student_parameter *p, const char *name, int rows, int cols)
{
    snprintf(p->name, sizeof p->name, "%s", name);
    p->rows = rows > 0 ? rows : 1;
    p->cols = cols;
    p->matrix = rows > 0;
}

/* rows = 0 marks a vector. */
int parameter_describe(const student_options *o, int index, student_parameter *p)
{
    int C = o->width, last = parameter_final_norm(o);
    memset(p, 0, sizeof *p);
    p->size = sizeof *p;
    if (index < 0 || index >= parameter_total(o))
        return STUDENT_E_ARGUMENT;
    if (index == 0)
        describe(p, "token_embd.weight", o->vocabulary, C);
    else if (index == 1)
        describe(p, "position_embd.weight", o->context, C);
    else if (index == last)
        describe(p, "output_norm.weight", 0, C);
    else if (index == last + 1)
        describe(p, "output_norm.bias", 0, C);
    else if (index == last + 2)
        describe(p, "value_head.weight", 1, C);
    else if (index == last + 3)
        describe(p, "value_head.bias", 0, 1);
    else {
        static const int rows[BLOCK_PARAMETERS] = {0, 0, 3, 0, 1, 0, 0, 0, 4, 0, 1, 0};
        static const int cols[BLOCK_PARAMETERS] = {1, 1, 1, 3, 1, 1, 1, 1, 1, 4, 4, 1};
        int which = (index - 2) % BLOCK_PARAMETERS;
        char name[sizeof p->name];
        snprintf(name, sizeof name, "blk.%d.%s", (index - 2) / BLOCK_PARAMETERS, block_names[which]);
        describe(p, name, rows[which] * C, cols[which] * C);
    }
    return STUDENT_OK;
}

float *parameter(const student *s, int array, int index) { return s->arrays[array] + s->parameter_offsets[index]; }
