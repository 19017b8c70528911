/* GPT-2 (Radford et al. 2019): token and position embedding, `layers` blocks
 *   x += attention(norm(x)),  x += down(gelu(up(norm(x))))
 * and a final layer norm. N packed tokens, width C. */
#include "model.h"

/* Dropout sites: one per place and block, as in GPT-2's embd, attn, resid. */
enum { SITE_EMBEDDING = 0, SITE_ATTENTION = 1, SITE_PROJECTION = 2, SITE_FFN = 3, SITES_A_BLOCK = 3 };

static dropout at(dropout drop, int layer, int site)
{
    drop.site = (uint32_t)(layer * SITES_A_BLOCK + site);
    return drop;
}

static float *w(const student *s, int layer, int which)
{
    return parameter(s, STUDENT_WEIGHTS, parameter_block(layer, which));
}

static float *g(const student *s, int layer, int which)
{
    return parameter(s, STUDENT_GRADIENTS, parameter_block(layer, which));
}

void trunk_forward(student *s, dropout drop)
{
    const op_table *op = OPS(s);
    int N = s->N, C = s->options.width, layers = s->options.layers;
    size_t NC = (size_t)N * (size_t)C;
    float epsilon = s->options.layernorm_epsilon;
    ragged rows = {s->offsets, s->stories};
    tensor narrow = matrix(s->narrow, N, C);
    s->drop = drop;

    op->embedding_forward(B(s), matrix(s->blocks[0].input, N, C),
                          matrix(parameter(s, STUDENT_WEIGHTS, 0), s->options.vocabulary, C),
                          matrix(parameter(s, STUDENT_WEIGHTS, 1), s->options.context, C), s->tokens, s->positions,
                          at(drop, 0, SITE_EMBEDDING));
    for (int l = 0; l < layers; l++) {
        const block_activations *a = &s->blocks[l];
        float *output = l + 1 < layers ? s->blocks[l + 1].input : s->final_input;
        tensor input = matrix(a->input, N, C), norm1 = matrix(a->norm1, N, C), qkv = matrix(a->qkv, N, 3 * C);
        tensor attention = matrix(a->attention, N, C), middle = matrix(a->middle, N, C);
        tensor norm2 = matrix(a->norm2, N, C), up = matrix(a->up, N, 4 * C), gelu = matrix(a->gelu, N, 4 * C);

        op->layernorm_forward(B(s), norm1, a->mean1, a->rstd1, input, w(s, l, ATTN_NORM_WEIGHT),
                              w(s, l, ATTN_NORM_BIAS), epsilon);
        op->matmul_forward(B(s), qkv, norm1, matrix(w(s, l, ATTN_QKV_WEIGHT), 3 * C, C), w(s, l, ATTN_QKV_BIAS));
        op->attention_forward(B(s), attention, a->lse, qkv, rows, s->options.heads, at(drop, l, SITE_ATTENTION));
        op->matmul_forward(B(s), narrow, attention, matrix(w(s, l, ATTN_OUTPUT_WEIGHT), C, C),
                           w(s, l, ATTN_OUTPUT_BIAS));
        op->residual_forward(B(s), a->middle, a->input, s->narrow, NC, at(drop, l, SITE_PROJECTION));

        op->layernorm_forward(B(s), norm2, a->mean2, a->rstd2, middle, w(s, l, FFN_NORM_WEIGHT), w(s, l, FFN_NORM_BIAS),
                              epsilon);
        op->matmul_forward(B(s), up, norm2, matrix(w(s, l, FFN_UP_WEIGHT), 4 * C, C), w(s, l, FFN_UP_BIAS));
        op->gelu_forward(B(s), a->gelu, a->up, 4 * NC);
        op->matmul_forward(B(s), narrow, gelu, matrix(w(s, l, FFN_DOWN_WEIGHT), C, 4 * C), w(s, l, FFN_DOWN_BIAS));
        op->residual_forward(B(s), output, a->middle, s->narrow, NC, at(drop, l, SITE_FFN));
    }
    int last = parameter_final_norm(&s->options);
    op->layernorm_forward(B(s), matrix(s->hidden, N, C), s->mean, s->rstd, matrix(s->final_input, N, C),
                          parameter(s, STUDENT_WEIGHTS, last), parameter(s, STUDENT_WEIGHTS, last + 1), epsilon);
}

/* dstream carries d loss / d residual stream from the top to the embedding. */
void trunk_backward(student *s)
{
    const op_table *op = OPS(s);
    int N = s->N, C = s->options.width;
    size_t NC = (size_t)N * (size_t)C;
    ragged rows = {s->offsets, s->stories};
    tensor stream = matrix(s->dstream, N, C), dnarrow = matrix(s->dnarrow, N, C);
    tensor dwide = matrix(s->dwide, N, 4 * C), dqkv = matrix(s->dwide, N, 3 * C);

    op->zero(B(s), s->dstream, NC * sizeof(float));
    int last = parameter_final_norm(&s->options);
    op->layernorm_backward(B(s), stream, parameter(s, STUDENT_GRADIENTS, last),
                           parameter(s, STUDENT_GRADIENTS, last + 1), matrix(s->dhidden, N, C),
                           matrix(s->final_input, N, C), parameter(s, STUDENT_WEIGHTS, last), s->mean, s->rstd);
    for (int l = s->options.layers - 1; l >= 0; l--) {
        const block_activations *a = &s->blocks[l];
        tensor attention = matrix(a->attention, N, C);

        op->residual_backward(B(s), s->dnarrow, s->dstream, NC, at(s->drop, l, SITE_FFN));
        op->matmul_backward_weight(B(s), matrix(g(s, l, FFN_DOWN_WEIGHT), C, 4 * C), g(s, l, FFN_DOWN_BIAS), dnarrow,
                                   matrix(a->gelu, N, 4 * C));
        op->matmul_backward_input(B(s), dwide, dnarrow, matrix(w(s, l, FFN_DOWN_WEIGHT), C, 4 * C), 0);
        op->gelu_backward(B(s), s->dwide, s->dwide, a->up, 4 * NC);
        op->matmul_backward_weight(B(s), matrix(g(s, l, FFN_UP_WEIGHT), 4 * C, C), g(s, l, FFN_UP_BIAS), dwide,
                                   matrix(a->norm2, N, C));
        op->matmul_backward_input(B(s), dnarrow, dwide, matrix(w(s, l, FFN_UP_WEIGHT), 4 * C, C), 0);
        op->layernorm_backward(B(s), stream, g(s, l, FFN_NORM_WEIGHT), g(s, l, FFN_NORM_BIAS), dnarrow,
                               matrix(a->middle, N, C), w(s, l, FFN_NORM_WEIGHT), a->mean2, a->rstd2);

        op->residual_backward(B(s), s->dnarrow, s->dstream, NC, at(s->drop, l, SITE_PROJECTION));
        op->matmul_backward_weight(B(s), matrix(g(s, l, ATTN_OUTPUT_WEIGHT), C, C), g(s, l, ATTN_OUTPUT_BIAS), dnarrow,
                                   attention);
        op->matmul_backward_input(B(s), matrix(s->narrow, N, C), dnarrow, matrix(w(s, l, ATTN_OUTPUT_WEIGHT), C, C), 0);
        op->attention_backward(B(s), dqkv, matrix(s->narrow, N, C), matrix(a->qkv, N, 3 * C), attention, a->lse, rows,
                               s->options.heads, at(s->drop, l, SITE_ATTENTION));
        op->matmul_backward_weight(B(s), matrix(g(s, l, ATTN_QKV_WEIGHT), 3 * C, C), g(s, l, ATTN_QKV_BIAS), dqkv,
                                   matrix(a->norm1, N, C));
        op->matmul_backward_input(B(s), dnarrow, dqkv, matrix(w(s, l, ATTN_QKV_WEIGHT), 3 * C, C), 0);
        op->layernorm_backward(B(s), stream, g(s, l, ATTN_NORM_WEIGHT), g(s, l, ATTN_NORM_BIAS), dnarrow,
                               matrix(a->input, N, C), w(s, l, ATTN_NORM_WEIGHT), a->mean1, a->rstd1);
    }
    op->embedding_backward(B(s), matrix(parameter(s, STUDENT_GRADIENTS, 0), s->options.vocabulary, C),
                           matrix(parameter(s, STUDENT_GRADIENTS, 1), s->options.context, C), stream, s->tokens,
                           s->positions, at(s->drop, 0, SITE_EMBEDDING));
}
