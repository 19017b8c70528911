/* The tied head, a chunk of head_rows tokens at a time: logits never exist for
 * the whole batch (head_rows * V * 4 bytes instead of N * V * 4). */
#include "model.h"

static tensor embedding(const student *s, int array)
{
    return matrix(parameter(s, array, 0), s->options.vocabulary, s->options.width);
}

/* Rows of a (N,C) activation that make a chunk. */
static tensor chunk_of(const student *s, float *data, int first)
{
    int rows = s->N - first < OPS(s)->head_rows ? s->N - first : OPS(s)->head_rows;
    return tensor_rows(activation(s, data, s->N, s->options.width), (size_t)first, rows);
}

static tensor chunk_logits(student *s, int first)
{
    tensor x = chunk_of(s, s->hidden, first), logits = matrix(s->logits, x.rows, s->options.vocabulary);
    OPS(s)->matmul_forward(B(s), logits, x, embedding(s, STUDENT_WEIGHTS), NULL);
    return logits;
}

static void score_chunk(student *s, int first, tensor logits)
{
    OPS(s)->logprob_forward(B(s), s->logprob + first, s->entropy + first, s->lse + first, logits, s->targets + first);
}

void head_forward(student *s)
{
    for (int first = 0; first < s->N; first += OPS(s)->head_rows)
        score_chunk(s, first, chunk_logits(s, first));
}

void head_backward(student *s, int score_first)
{
    for (int first = 0; first < s->N; first += OPS(s)->head_rows) {
        tensor logits = chunk_logits(s, first);
        if (score_first)
            score_chunk(s, first, logits);
        tensor d = activation(s, s->dlogits, logits.rows, logits.cols);
        OPS(s)->logprob_backward(B(s), d, logits, s->lse + first, s->targets + first, s->dlogprob + first);
        OPS(s)->matmul_backward_input(B(s), chunk_of(s, s->narrow, first), d, embedding(s, STUDENT_WEIGHTS), 0);
        OPS(s)->matmul_backward_weight(B(s), embedding(s, STUDENT_GRADIENTS), NULL, d, chunk_of(s, s->hidden, first));
    }
}

int student_logits(student *s, int32_t first, int32_t count, float *logits, char *message, size_t capacity)
{
    int V = s->options.vocabulary;
    if (first < 0 || count < 0 || first + count > s->N)
        return fail(message, capacity, STUDENT_E_ARGUMENT, "tokens %d..%d are not in the last forward of %d", first,
                    first + count, s->N);
    weights_ready(s);
    for (int done = 0; done < count; done += OPS(s)->head_rows) {
        int rows = count - done < OPS(s)->head_rows ? count - done : OPS(s)->head_rows;
        tensor chunk = chunk_logits(s, first + done);
        OPS(s)->download(B(s), logits + (size_t)done * (size_t)V, chunk.data, (size_t)rows * (size_t)V * sizeof(float));
    }
    return finish(s, message, capacity);
}
