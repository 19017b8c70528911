/* GPT-2 (Radford et al. 2019): token and position embedding, `layers` blocks
 *   x += attention(norm(x)),  x += down(gelu(up(norm(x))))
 * and a final layer norm. N packed tokens, width C. */
#include "model.h"

static float *w(const student *s, int layer, int which)
{
    return parameter(s, STUDENT_WEIGHTS, parameter_block(layer, which));
}

static float *g(const student *s, int layer, int which)
{
    return parameter(s, STUDENT_GRADIENTS, parameter_block(layer, which));
}

/* out = a + dropout(x), norm = layer norm of out. */
static void add_and_norm(student *s, tensor out, tensor norm, float *mean, float *rstd, tensor a, tensor x,
                         const float *gain, const float *bias, dropout drop)
{
    const op_table *op = OPS(s);
    float epsilon = s->options.layernorm_epsilon;
    if (op->residual_layernorm_forward) {
        op->residual_layernorm_forward(B(s), out, norm, mean, rstd, a, x, gain, bias, epsilon, drop);
        return;
    }
    op->residual_forward(B(s), out, a, x, drop);
    op->layernorm_forward(B(s), norm, mean, rstd, out, gain, bias, epsilon);
}

/* up = x weight^T + bias, gelu of it. */
static void feed_forward_up(student *s, tensor gelu, tensor up, tensor x, tensor weight, const float *bias)
{
    const op_table *op = OPS(s);
    if (op->matmul_gelu_forward) {
        op->matmul_gelu_forward(B(s), gelu, up, x, weight, bias);
        return;
    }
    op->matmul_forward(B(s), up, x, weight, bias);
    op->gelu_forward(B(s), gelu, up);
}

static void feed_forward_down_backward(student *s, tensor dup, tensor dout, tensor weight, tensor up)
{
    const op_table *op = OPS(s);
    if (op->matmul_gelu_backward) {
        op->matmul_gelu_backward(B(s), dup, dout, weight, up);
        return;
    }
    op->matmul_backward_input(B(s), dup, dout, weight, 0);
    op->gelu_backward(B(s), dup, dup, up);
}

void trunk_forward(student *s, dropout drop)
{
    const op_table *op = OPS(s);
    int N = s->N, C = s->options.width, layers = s->options.layers;
    ragged rows = {s->offsets, s->stories};
    tensor narrow = activation(s, s->narrow, N, C);
    const float *first_gain = w(s, 0, ATTN_NORM_WEIGHT), *first_bias = w(s, 0, ATTN_NORM_BIAS);
    int last = parameter_final_norm(&s->options);
    s->drop = drop;
    weights_ready(s);

    op->embedding_forward(B(s), matrix(s->blocks[0].input, N, C),
                          matrix(parameter(s, STUDENT_WEIGHTS, 0), s->options.vocabulary, C),
                          matrix(parameter(s, STUDENT_WEIGHTS, 1), s->options.context, C), s->tokens, s->positions,
                          dropout_at(drop, 0, SITE_EMBEDDING));
    op->layernorm_forward(B(s), activation(s, s->blocks[0].norm1, N, C), s->blocks[0].mean1, s->blocks[0].rstd1,
                          matrix(s->blocks[0].input, N, C), first_gain, first_bias, s->options.layernorm_epsilon);
    for (int l = 0; l < layers; l++) {
        const block_activations *a = &s->blocks[l], *next = &s->blocks[l + 1 < layers ? l + 1 : l];
        tensor norm1 = activation(s, a->norm1, N, C), qkv = activation(s, a->qkv, N, 3 * C);
        tensor attention = activation(s, a->attention, N, C), norm2 = activation(s, a->norm2, N, C);
        tensor up = activation(s, a->up, N, 4 * C), gelu = activation(s, a->gelu, N, 4 * C);
        tensor input = matrix(a->input, N, C), middle = matrix(a->middle, N, C);

        op->matmul_forward(B(s), qkv, norm1, matrix(w(s, l, ATTN_QKV_WEIGHT), 3 * C, C), w(s, l, ATTN_QKV_BIAS));
        op->attention_forward(B(s), attention, a->lse, qkv, rows, s->options.heads,
                              dropout_at(drop, l, SITE_ATTENTION));
        op->matmul_forward(B(s), narrow, attention, matrix(w(s, l, ATTN_OUTPUT_WEIGHT), C, C),
                           w(s, l, ATTN_OUTPUT_BIAS));
        add_and_norm(s, middle, norm2, a->mean2, a->rstd2, input, narrow, w(s, l, FFN_NORM_WEIGHT),
                     w(s, l, FFN_NORM_BIAS), dropout_at(drop, l, SITE_PROJECTION));

        feed_forward_up(s, gelu, up, norm2, matrix(w(s, l, FFN_UP_WEIGHT), 4 * C, C), w(s, l, FFN_UP_BIAS));
        op->matmul_forward(B(s), narrow, gelu, matrix(w(s, l, FFN_DOWN_WEIGHT), C, 4 * C), w(s, l, FFN_DOWN_BIAS));
        if (l + 1 < layers)
            add_and_norm(s, matrix(next->input, N, C), activation(s, next->norm1, N, C), next->mean1, next->rstd1,
                         middle, narrow, w(s, l + 1, ATTN_NORM_WEIGHT), w(s, l + 1, ATTN_NORM_BIAS),
                         dropout_at(drop, l, SITE_FFN));
        else
            add_and_norm(s, matrix(s->final_input, N, C), activation(s, s->hidden, N, C), s->mean, s->rstd, middle,
                         narrow, parameter(s, STUDENT_WEIGHTS, last), parameter(s, STUDENT_WEIGHTS, last + 1),
                         dropout_at(drop, l, SITE_FFN));
    }
}

/* What flows from the residual stream into a projection: the stream itself
 * where it need be neither dropped nor converted. */
static tensor into_projection(student *s, tensor stream, dropout drop)
{
    tensor d = activation(s, s->dnarrow, stream.rows, stream.cols);
    if (drop.probability <= 0 && d.type == stream.type)
        return stream;
    OPS(s)->residual_backward(B(s), d, stream, drop);
    return d;
}

/* What the forward left in memory that all blocks share is made again. */
static void norm_again(student *s, tensor norm, float *mean, float *rstd, float *x, int layer, int weight)
{
    if (backend_describe(&s->options)->recomputes)
        OPS(s)->layernorm_forward(B(s), norm, mean, rstd, matrix(x, norm.rows, norm.cols), w(s, layer, weight),
                                  w(s, layer, weight + 1), s->options.layernorm_epsilon);
}

static void gelu_again(student *s, tensor gelu, tensor up)
{
    if (backend_describe(&s->options)->recomputes)
        OPS(s)->gelu_forward(B(s), gelu, up);
}

/* dstream carries d loss / d residual stream from the top to the embedding. */
void trunk_backward(student *s)
{
    const op_table *op = OPS(s);
    int N = s->N, C = s->options.width;
    ragged rows = {s->offsets, s->stories};
    tensor stream = matrix(s->dstream, N, C), dnorm = activation(s, s->dnarrow, N, C);
    tensor dup = activation(s, s->dwide, N, 4 * C), dqkv = activation(s, s->dwide, N, 3 * C);
    tensor dattention = activation(s, s->narrow, N, C);

    op->zero(B(s), s->dstream, tensor_count(stream) * sizeof(float));
    int last = parameter_final_norm(&s->options);
    op->layernorm_backward(B(s), stream, parameter(s, STUDENT_GRADIENTS, last),
                           parameter(s, STUDENT_GRADIENTS, last + 1), activation(s, s->dhidden, N, C),
                           matrix(s->final_input, N, C), parameter(s, STUDENT_WEIGHTS, last), s->mean, s->rstd);
    for (int l = s->options.layers - 1; l >= 0; l--) {
        const block_activations *a = &s->blocks[l];
        tensor attention = activation(s, a->attention, N, C), norm1 = activation(s, a->norm1, N, C);
        tensor norm2 = activation(s, a->norm2, N, C), up = activation(s, a->up, N, 4 * C);
        tensor gelu = activation(s, a->gelu, N, 4 * C);

        tensor d = into_projection(s, stream, dropout_at(s->drop, l, SITE_FFN));
        gelu_again(s, gelu, up);
        op->matmul_backward_weight(B(s), matrix(g(s, l, FFN_DOWN_WEIGHT), C, 4 * C), g(s, l, FFN_DOWN_BIAS), d, gelu);
        feed_forward_down_backward(s, dup, d, matrix(w(s, l, FFN_DOWN_WEIGHT), C, 4 * C), up);
        norm_again(s, norm2, a->mean2, a->rstd2, a->middle, l, FFN_NORM_WEIGHT);
        op->matmul_backward_weight(B(s), matrix(g(s, l, FFN_UP_WEIGHT), 4 * C, C), g(s, l, FFN_UP_BIAS), dup, norm2);
        op->matmul_backward_input(B(s), dnorm, dup, matrix(w(s, l, FFN_UP_WEIGHT), 4 * C, C), 0);
        op->layernorm_backward(B(s), stream, g(s, l, FFN_NORM_WEIGHT), g(s, l, FFN_NORM_BIAS), dnorm,
                               matrix(a->middle, N, C), w(s, l, FFN_NORM_WEIGHT), a->mean2, a->rstd2);

        d = into_projection(s, stream, dropout_at(s->drop, l, SITE_PROJECTION));
        op->matmul_backward_weight(B(s), matrix(g(s, l, ATTN_OUTPUT_WEIGHT), C, C), g(s, l, ATTN_OUTPUT_BIAS), d,
                                   attention);
        op->matmul_backward_input(B(s), dattention, d, matrix(w(s, l, ATTN_OUTPUT_WEIGHT), C, C), 0);
        op->attention_backward(B(s), dqkv, dattention, activation(s, a->qkv, N, 3 * C), attention, a->lse, rows,
                               s->options.heads, dropout_at(s->drop, l, SITE_ATTENTION));
        norm_again(s, norm1, a->mean1, a->rstd1, a->input, l, ATTN_NORM_WEIGHT);
        op->matmul_backward_weight(B(s), matrix(g(s, l, ATTN_QKV_WEIGHT), 3 * C, C), g(s, l, ATTN_QKV_BIAS), dqkv,
                                   norm1);
        op->matmul_backward_input(B(s), dnorm, dqkv, matrix(w(s, l, ATTN_QKV_WEIGHT), 3 * C, C), 0);
        op->layernorm_backward(B(s), stream, g(s, l, ATTN_NORM_WEIGHT), g(s, l, ATTN_NORM_BIAS), dnorm,
                               matrix(a->input, N, C), w(s, l, ATTN_NORM_WEIGHT), a->mean1, a->rstd1);
    }
    op->embedding_backward(B(s), matrix(parameter(s, STUDENT_GRADIENTS, 0), s->options.vocabulary, C),
                           matrix(parameter(s, STUDENT_GRADIENTS, 1), s->options.context, C), stream, s->tokens,
                           s->positions, dropout_at(s->drop, 0, SITE_EMBEDDING));
}
