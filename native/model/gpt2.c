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

void add_and_norm(student *s, tensor out, tensor norm, float *mean, float *rstd, tensor a, tensor x, const float *gain,
                  const float *bias, dropout drop)
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

void feed_forward_up(student *s, tensor gelu, tensor up, tensor x, tensor weight, const float *bias)
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

/* The gradients of the down projection's weight and bias, and gelu where it is
 * needed for them and still to be computed from up. */
static void feed_forward_down_weight(student *s, tensor dw, float *dbias, tensor dout, tensor gelu, tensor up)
{
    const op_table *op = OPS(s);
    int again = s->options.recompute < STUDENT_RECOMPUTE_FFN && norms_again(&s->options);
    if (again && op->matmul_gelu_backward_weight) {
        op->matmul_gelu_backward_weight(B(s), dw, dbias, dout, up);
        return;
    }
    if (again)
        op->gelu_forward(B(s), gelu, up);
    op->matmul_backward_weight(B(s), dw, dbias, dout, gelu);
}

/* From norm1 to middle and norm2. */
static void attention_half(student *s, int l)
{
    const op_table *op = OPS(s);
    int N = s->N, C = s->options.width;
    const block_activations *a = &s->blocks[l];
    tensor qkv = activation(s, a->qkv, N, 3 * C), attention = activation(s, a->attention, N, C);
    tensor narrow = activation(s, s->narrow, N, C);
    op->matmul_forward(B(s), qkv, activation(s, a->norm1, N, C), matrix(w(s, l, ATTN_QKV_WEIGHT), 3 * C, C),
                       w(s, l, ATTN_QKV_BIAS));
    op->attention_forward(B(s), attention, a->lse, qkv, s->rows, s->options.heads,
                          dropout_at(s->drop, l, SITE_ATTENTION));
    op->matmul_forward(B(s), narrow, attention, matrix(w(s, l, ATTN_OUTPUT_WEIGHT), C, C), w(s, l, ATTN_OUTPUT_BIAS));
    add_and_norm(s, matrix(a->middle, N, C), activation(s, a->norm2, N, C), a->mean2, a->rstd2, matrix(a->input, N, C),
                 narrow, w(s, l, FFN_NORM_WEIGHT), w(s, l, FFN_NORM_BIAS), dropout_at(s->drop, l, SITE_PROJECTION));
}

/* Tokens first.. of (N,C) activations that make a part of the feed-forward. */
static tensor part(const student *s, tensor t, int first)
{
    int rows = s->N - first < s->ffn_rows ? s->N - first : s->ffn_rows;
    return tensor_rows(t, (size_t)first, rows);
}

/* From norm2 and middle to the next block's input and norm1, or to the final
 * ones. */
static void feed_forward_half(student *s, int l)
{
    const op_table *op = OPS(s);
    int N = s->N, C = s->options.width, last = parameter_final_norm(&s->options);
    const block_activations *a = &s->blocks[l];
    tensor norm2 = activation(s, a->norm2, N, C), narrow = activation(s, s->narrow, N, C);
    tensor middle = matrix(a->middle, N, C);
    for (int first = 0; first < N; first += s->ffn_rows) {
        tensor x = part(s, norm2, first), gelu = activation(s, a->gelu, x.rows, 4 * C);
        feed_forward_up(s, gelu, activation(s, a->up, x.rows, 4 * C), x, matrix(w(s, l, FFN_UP_WEIGHT), 4 * C, C),
                        w(s, l, FFN_UP_BIAS));
        op->matmul_forward(B(s), part(s, narrow, first), gelu, matrix(w(s, l, FFN_DOWN_WEIGHT), C, 4 * C),
                           w(s, l, FFN_DOWN_BIAS));
    }
    if (l + 1 < s->options.layers) {
        const block_activations *next = &s->blocks[l + 1];
        add_and_norm(s, matrix(next->input, N, C), activation(s, next->norm1, N, C), next->mean1, next->rstd1, middle,
                     narrow, w(s, l + 1, ATTN_NORM_WEIGHT), w(s, l + 1, ATTN_NORM_BIAS),
                     dropout_at(s->drop, l, SITE_FFN));
    } else
        add_and_norm(s, matrix(s->final_input, N, C), activation(s, s->hidden, N, C), s->mean, s->rstd, middle, narrow,
                     parameter(s, STUDENT_WEIGHTS, last), parameter(s, STUDENT_WEIGHTS, last + 1),
                     dropout_at(s->drop, l, SITE_FFN));
}

static void norm_forward(student *s, int layer, int weight, float *norm, float *mean, float *rstd, float *x)
{
    int N = s->N, C = s->options.width;
    OPS(s)->layernorm_forward(B(s), activation(s, norm, N, C), mean, rstd, matrix(x, N, C), w(s, layer, weight),
                              w(s, layer, weight + 1), s->options.layernorm_epsilon);
}

static void norm1_forward(student *s, int l, float *norm)
{
    const block_activations *a = &s->blocks[l];
    norm_forward(s, l, ATTN_NORM_WEIGHT, norm, a->mean1, a->rstd1, a->input);
}

static void embed(student *s)
{
    int C = s->options.width;
    OPS(s)->embedding_forward(B(s), matrix(s->blocks[0].input, s->N, C),
                              matrix(parameter(s, STUDENT_WEIGHTS, 0), s->options.vocabulary, C),
                              matrix(parameter(s, STUDENT_WEIGHTS, 1), s->options.context, C), s->tokens, s->positions,
                              dropout_at(s->drop, 0, SITE_EMBEDDING));
}

void trunk_forward(student *s, dropout drop)
{
    s->drop = drop;
    weights_ready(s);
    embed(s);
    norm1_forward(s, 0, s->blocks[0].norm1);
    for (int l = 0; l < s->options.layers; l++) {
        attention_half(s, l);
        feed_forward_half(s, l);
    }
}

/* What flows from the residual stream into a projection: the stream itself
 * where it need be neither dropped nor converted. */
static tensor into_projection(student *s, tensor stream, dropout drop)
{
    tensor d = activation(s, s->narrow, stream.rows, stream.cols);
    if (drop.probability <= 0 && d.type == stream.type)
        return stream;
    OPS(s)->residual_backward(B(s), d, stream, drop);
    return d;
}

/* What the forward has not kept of a block is computed again, by its own ops:
 * the input of the second of two blocks, then all up to middle and norm2. */
static void block_again(student *s, int l)
{
    const block_activations *a = &s->blocks[l];
    int level = s->options.recompute;
    /* The forward left the last block's input. */
    if (inputs_in_pairs(&s->options) && l % 2 == 1 && l + 1 < s->options.layers) {
        if (l == 1)
            embed(s);
        norm1_forward(s, l - 1, s->blocks[l - 1].norm1);
        attention_half(s, l - 1);
        feed_forward_half(s, l - 1);
    }
    if (level >= STUDENT_RECOMPUTE_LAYER) {
        norm1_forward(s, l, a->norm1);
        attention_half(s, l);
    } else if (norms_again(&s->options))
        norm_forward(s, l, FFN_NORM_WEIGHT, a->norm2, a->mean2, a->rstd2, a->middle);
}

/* From the gradient of the stream after the block to that of middle, a part of
 * the tokens at a time. */
static void feed_forward_backward(student *s, int l, tensor stream)
{
    const op_table *op = OPS(s);
    int N = s->N, C = s->options.width;
    const block_activations *a = &s->blocks[l];
    tensor up_weight = matrix(w(s, l, FFN_UP_WEIGHT), 4 * C, C),
           down_weight = matrix(w(s, l, FFN_DOWN_WEIGHT), C, 4 * C);
    tensor dnorm = activation(s, s->narrow, N, C), d = into_projection(s, stream, dropout_at(s->drop, l, SITE_FFN));
    for (int first = 0; first < N; first += s->ffn_rows) {
        tensor dout = part(s, d, first), x = part(s, activation(s, a->norm2, N, C), first);
        tensor up = activation(s, a->up, x.rows, 4 * C), gelu = activation(s, a->gelu, x.rows, 4 * C), dup = gelu;
        if (s->options.recompute >= STUDENT_RECOMPUTE_FFN)
            feed_forward_up(s, gelu, up, x, up_weight, w(s, l, FFN_UP_BIAS));
        feed_forward_down_weight(s, matrix(g(s, l, FFN_DOWN_WEIGHT), C, 4 * C), g(s, l, FFN_DOWN_BIAS), dout, gelu, up);
        feed_forward_down_backward(s, dup, dout, down_weight, up);
        op->matmul_backward_weight(B(s), matrix(g(s, l, FFN_UP_WEIGHT), 4 * C, C), g(s, l, FFN_UP_BIAS), dup, x);
        op->matmul_backward_input(B(s), part(s, dnorm, first), dup, up_weight, 0);
    }
    op->layernorm_backward(B(s), stream, g(s, l, FFN_NORM_WEIGHT), g(s, l, FFN_NORM_BIAS), dnorm,
                           matrix(a->middle, N, C), w(s, l, FFN_NORM_WEIGHT), a->mean2, a->rstd2);
}

/* From the gradient of middle, which is not needed any more, to that of input. */
static void attention_half_backward(student *s, int l, tensor stream)
{
    const op_table *op = OPS(s);
    int N = s->N, C = s->options.width;
    const block_activations *a = &s->blocks[l];
    tensor attention = activation(s, a->attention, N, C), dattention = activation(s, a->middle, N, C);
    tensor dqkv = activation(s, a->dqkv, N, 3 * C), dnorm = activation(s, s->narrow, N, C);
    tensor d = into_projection(s, stream, dropout_at(s->drop, l, SITE_PROJECTION));
    op->matmul_backward_weight(B(s), matrix(g(s, l, ATTN_OUTPUT_WEIGHT), C, C), g(s, l, ATTN_OUTPUT_BIAS), d,
                               attention);
    op->matmul_backward_input(B(s), dattention, d, matrix(w(s, l, ATTN_OUTPUT_WEIGHT), C, C), 0);
    op->attention_backward(B(s), dqkv, dattention, activation(s, a->qkv, N, 3 * C), attention, a->lse, s->rows,
                           s->options.heads, dropout_at(s->drop, l, SITE_ATTENTION));
    tensor norm1 = activation(s, a->norm1, N, C);
    if (norms_again(&s->options)) {
        norm1_forward(s, l, a->attention); /* which has been used */
        norm1 = attention;
    }
    op->matmul_backward_weight(B(s), matrix(g(s, l, ATTN_QKV_WEIGHT), 3 * C, C), g(s, l, ATTN_QKV_BIAS), dqkv, norm1);
    op->matmul_backward_input(B(s), dnorm, dqkv, matrix(w(s, l, ATTN_QKV_WEIGHT), 3 * C, C), 0);
    op->layernorm_backward(B(s), stream, g(s, l, ATTN_NORM_WEIGHT), g(s, l, ATTN_NORM_BIAS), dnorm,
                           matrix(a->input, N, C), w(s, l, ATTN_NORM_WEIGHT), a->mean1, a->rstd1);
}

/* dstream carries d loss / d residual stream from the top to the embedding;
 * the head left the gradient of hidden in narrow. */
void trunk_backward(student *s)
{
    const op_table *op = OPS(s);
    int N = s->N, C = s->options.width, last = parameter_final_norm(&s->options);
    tensor stream = matrix(s->dstream, N, C);
    op->zero(B(s), s->dstream, tensor_count(stream) * sizeof(float));
    op->layernorm_backward(B(s), stream, parameter(s, STUDENT_GRADIENTS, last),
                           parameter(s, STUDENT_GRADIENTS, last + 1), activation(s, s->narrow, N, C),
                           matrix(s->final_input, N, C), parameter(s, STUDENT_WEIGHTS, last), s->mean, s->rstd);
    for (int l = s->options.layers - 1; l >= 0; l--) {
        block_again(s, l);
        feed_forward_backward(s, l, stream);
        attention_half_backward(s, l, stream);
    }
    op->embedding_backward(B(s), matrix(parameter(s, STUDENT_GRADIENTS, 0), s->options.vocabulary, C),
                           matrix(parameter(s, STUDENT_GRADIENTS, 1), s->options.context, C), stream, s->tokens,
                           s->positions, dropout_at(s->drop, 0, SITE_EMBEDDING));
    s->N = 0; /* the activations are used up */
}
