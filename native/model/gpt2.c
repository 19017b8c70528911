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

/* up, and gelu where what follows does not take it from up by itself. */
static void feed_forward_up(student *s, tensor gelu, tensor up, tensor x, tensor weight, const float *bias)
{
    const op_table *op = OPS(s);
    if (op->matmul_gelu_forward) {
        op->matmul_gelu_forward(B(s), gelu, up, x, weight, bias);
        return;
    }
    op->matmul_forward(B(s), up, x, weight, bias);
    if (!op->gelu_matmul_forward)
        op->gelu_forward(B(s), gelu, up);
}

static void feed_forward_down(student *s, tensor out, tensor gelu, tensor up, tensor weight, const float *bias)
{
    const op_table *op = OPS(s);
    if (op->gelu_matmul_forward)
        op->gelu_matmul_forward(B(s), out, up, weight, bias);
    else
        op->matmul_forward(B(s), out, gelu, weight, bias);
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

/* Whether the feed-forward's normalised rows and GELU are not there in the backward. */
static int activations_again(const student *s)
{
    return s->options.recompute < STUDENT_RECOMPUTE_FFN && norms_again(&s->options);
}

/* The gradients of the down projection's weight and bias, and gelu where it is
 * needed for them and still to be computed from up. */
static void feed_forward_down_weight(student *s, tensor dw, float *dbias, tensor dout, tensor gelu, tensor up)
{
    const op_table *op = OPS(s);
    if (op->matmul_gelu_backward_weight) {
        op->matmul_gelu_backward_weight(B(s), dw, dbias, dout, up);
        return;
    }
    if (activations_again(s))
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
    tensor middle = matrix(a->middle, N, C), input = matrix(a->input, N, C);
    dropout drop = dropout_at(s->drop, l, SITE_PROJECTION);
    if (in_pairs(&s->options))
        op->residual_forward(B(s), middle, input, narrow, drop);
    else
        add_and_norm(s, middle, activation(s, a->norm2, N, C), a->mean2, a->rstd2, input, narrow,
                     w(s, l, FFN_NORM_WEIGHT), w(s, l, FFN_NORM_BIAS), drop);
}

/* Tokens first.., `most` at most, of a (N,C) matrix that make a part of the
 * feed-forward, and their dropout. */
static tensor part(const student *s, float *data, int first, int most)
{
    int rows = s->N - first < most ? s->N - first : most;
    return tensor_rows(matrix(data, s->N, s->options.width), (size_t)first, rows);
}

static dropout dropout_of_part(const student *s, int l, int first)
{
    dropout drop = dropout_at(s->drop, l, SITE_FFN);
    drop.first = (uint64_t)first * (uint64_t)s->options.width;
    return drop;
}

static void norm_forward(student *s, int layer, int weight, tensor norm, float *mean, float *rstd, tensor x)
{
    OPS(s)->layernorm_forward(B(s), norm, mean, rstd, x, w(s, layer, weight), w(s, layer, weight + 1),
                              s->options.layernorm_epsilon);
}

static void norm1_forward(student *s, int l, float *norm)
{
    int N = s->N, C = s->options.width;
    const block_activations *a = &s->blocks[l];
    norm_forward(s, l, ATTN_NORM_WEIGHT, activation(s, norm, N, C), a->mean1, a->rstd1, matrix(a->input, N, C));
}

/* norm2 of a part. */
static tensor norm2_forward(student *s, int l, int first, int most)
{
    const block_activations *a = &s->blocks[l];
    tensor middle = part(s, a->middle, first, most), norm = activation(s, a->norm2, middle.rows, middle.cols);
    norm_forward(s, l, FFN_NORM_WEIGHT, norm, a->mean2 + first, a->rstd2 + first, middle);
    return norm;
}

/* From norm2 and middle to the next block's input and norm1, or to the final
 * ones. In pairs a part at a time, from middle to the next input. */
static void feed_forward_half(student *s, int l)
{
    const op_table *op = OPS(s);
    int N = s->N, C = s->options.width, last = parameter_final_norm(&s->options), pairs = in_pairs(&s->options);
    int most = s->forward_rows;
    const block_activations *a = &s->blocks[l], *next = l + 1 < s->options.layers ? a + 1 : NULL;
    float *out = next ? next->input : s->final_input;
    tensor narrow = activation(s, s->narrow, N, C), middle = matrix(a->middle, N, C);
    for (int first = 0; first < N; first += most) {
        tensor rows = part(s, out, first, most), gelu = activation(s, a->forward_gelu, rows.rows, 4 * C);
        tensor x = pairs ? norm2_forward(s, l, first, most) : activation(s, a->norm2, N, C);
        tensor up = activation(s, a->forward_up, x.rows, 4 * C);
        narrow = activation(s, s->narrow, rows.rows, C);
        feed_forward_up(s, gelu, up, x, matrix(w(s, l, FFN_UP_WEIGHT), 4 * C, C), w(s, l, FFN_UP_BIAS));
        feed_forward_down(s, narrow, gelu, up, matrix(w(s, l, FFN_DOWN_WEIGHT), C, 4 * C), w(s, l, FFN_DOWN_BIAS));
        if (pairs)
            op->residual_forward(B(s), rows, part(s, a->middle, first, most), narrow, dropout_of_part(s, l, first));
    }
    const float *gain = parameter(s, STUDENT_WEIGHTS, last), *bias = parameter(s, STUDENT_WEIGHTS, last + 1);
    if (pairs && !next)
        op->layernorm_forward(B(s), activation(s, s->hidden, N, C), s->mean, s->rstd, matrix(out, N, C), gain, bias,
                              s->options.layernorm_epsilon);
    else if (!pairs && next)
        add_and_norm(s, matrix(next->input, N, C), activation(s, next->norm1, N, C), next->mean1, next->rstd1, middle,
                     narrow, w(s, l + 1, ATTN_NORM_WEIGHT), w(s, l + 1, ATTN_NORM_BIAS),
                     dropout_at(s->drop, l, SITE_FFN));
    else if (!next)
        add_and_norm(s, matrix(out, N, C), activation(s, s->hidden, N, C), s->mean, s->rstd, middle, narrow, gain, bias,
                     dropout_at(s->drop, l, SITE_FFN));
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
    for (int l = 0; l < s->options.layers; l++) {
        if (l == 0 || in_pairs(&s->options))
            norm1_forward(s, l, s->blocks[l].norm1);
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
 * in pairs the inputs from one that is kept, or the embedding, up to this block's;
 * then all up to middle and, if not in parts, norm2. */
static void block_again(student *s, int l)
{
    const student_options *o = &s->options;
    if (!input_kept(o, l) && input_kept(o, l + 1)) {
        int first = l < first_kept(o) ? 0 : l - 1;
        if (!first)
            embed(s);
        for (int i = first; i < l; i++) {
            norm1_forward(s, i, s->blocks[i].norm1);
            attention_half(s, i);
            feed_forward_half(s, i);
        }
    }
    if (o->recompute >= STUDENT_RECOMPUTE_LAYER) {
        norm1_forward(s, l, s->blocks[l].norm1);
        attention_half(s, l);
    } else if (norms_again(o) && !(activations_again(s) && OPS(s)->matmul_norm_backward_weight))
        norm2_forward(s, l, 0, s->N);
}

/* From the gradient of the stream after the block to that of middle, a part of
 * the tokens at a time. */
static void feed_forward_backward(student *s, int l, tensor stream)
{
    const op_table *op = OPS(s);
    int C = s->options.width, most = s->ffn_rows;
    const block_activations *a = &s->blocks[l];
    tensor up_weight = matrix(w(s, l, FFN_UP_WEIGHT), 4 * C, C),
           down_weight = matrix(w(s, l, FFN_DOWN_WEIGHT), C, 4 * C);
    for (int first = 0; first < s->N; first += most) {
        tensor rows = part(s, stream.data, first, most), dout = into_projection(s, rows, dropout_of_part(s, l, first));
        tensor x = in_pairs(&s->options) ? norm2_forward(s, l, first, most) : activation(s, a->norm2, rows.rows, C),
               dnorm = x;
        tensor up = activation(s, a->up, x.rows, 4 * C), gelu = activation(s, a->gelu, x.rows, 4 * C), dup = gelu;
        if (s->options.recompute >= STUDENT_RECOMPUTE_FFN)
            feed_forward_up(s, gelu, up, x, up_weight, w(s, l, FFN_UP_BIAS));
        feed_forward_down_weight(s, matrix(g(s, l, FFN_DOWN_WEIGHT), C, 4 * C), g(s, l, FFN_DOWN_BIAS), dout, gelu, up);
        feed_forward_down_backward(s, dup, dout, down_weight, up);
        tensor dw = matrix(g(s, l, FFN_UP_WEIGHT), 4 * C, C), middle = part(s, a->middle, first, most);
        const float *gain = w(s, l, FFN_NORM_WEIGHT), *mean = a->mean2 + first, *rstd = a->rstd2 + first;
        if (activations_again(s) && op->matmul_norm_backward_weight)
            op->matmul_norm_backward_weight(B(s), dw, g(s, l, FFN_UP_BIAS), dup, middle, mean, rstd, gain,
                                            w(s, l, FFN_NORM_BIAS));
        else
            op->matmul_backward_weight(B(s), dw, g(s, l, FFN_UP_BIAS), dup, x);
        op->matmul_backward_input(B(s), dnorm, dup, up_weight, 0);
        op->layernorm_backward(B(s), rows, g(s, l, FFN_NORM_WEIGHT), g(s, l, FFN_NORM_BIAS), dnorm, middle, gain, mean,
                               rstd);
    }
}

/* From the gradient of middle, which is not needed any more, to that of input. */
static void attention_half_backward(student *s, int l, tensor stream)
{
    const op_table *op = OPS(s);
    int N = s->N, C = s->options.width;
    const block_activations *a = &s->blocks[l];
    tensor attention = activation(s, a->attention, N, C), dattention = activation(s, a->middle, N, C);
    tensor dqkv = activation(s, a->dqkv, N, 3 * C), dnorm = dattention;
    tensor d = into_projection(s, stream, dropout_at(s->drop, l, SITE_PROJECTION));
    op->matmul_backward_weight(B(s), matrix(g(s, l, ATTN_OUTPUT_WEIGHT), C, C), g(s, l, ATTN_OUTPUT_BIAS), d,
                               attention);
    op->matmul_backward_input(B(s), dattention, d, matrix(w(s, l, ATTN_OUTPUT_WEIGHT), C, C), 0);
    op->attention_backward(B(s), dqkv, dattention, activation(s, a->qkv, N, 3 * C), attention, a->lse, s->rows,
                           s->options.heads, dropout_at(s->drop, l, SITE_ATTENTION));
    tensor dw = matrix(g(s, l, ATTN_QKV_WEIGHT), 3 * C, C), norm1 = activation(s, a->norm1, N, C);
    if (norms_again(&s->options) && op->matmul_norm_backward_weight)
        op->matmul_norm_backward_weight(B(s), dw, g(s, l, ATTN_QKV_BIAS), dqkv, matrix(a->input, N, C), a->mean1,
                                        a->rstd1, w(s, l, ATTN_NORM_WEIGHT), w(s, l, ATTN_NORM_BIAS));
    else {
        if (norms_again(&s->options)) {
            norm1_forward(s, l, a->attention); /* which has been used */
            norm1 = attention;
        }
        op->matmul_backward_weight(B(s), dw, g(s, l, ATTN_QKV_BIAS), dqkv, norm1);
    }
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
