/* The tied head, a chunk of HEAD_ROWS tokens at a time: logits never exist for
 * the whole batch (HEAD_ROWS * V * 4 bytes instead of N * V * 4). */
#include "model.h"

static tensor embedding(const student *s, int array)
{
    return matrix(parameter(s, array, 0), s->options.vocabulary, s->options.width);
}

static tensor chunk_logits(student *s, int first)
{
    int rows = s->N - first < HEAD_ROWS ? s->N - first : HEAD_ROWS, C = s->options.width;
    tensor logits = matrix(s->logits, rows, s->options.vocabulary);
    OPS(s)->matmul_forward(B(s), logits, matrix(s->hidden + (size_t)first * (size_t)C, rows, C),
                           embedding(s, STUDENT_WEIGHTS), NULL);
    return logits;
}

static void score_chunk(student *s, int first, tensor logits)
{
    OPS(s)->logprob_forward(B(s), s->logprob + first, s->entropy + first, s->lse + first, logits, s->targets + first);
}

void head_forward(student *s)
{
    for (int first = 0; first < s->N; first += HEAD_ROWS)
        score_chunk(s, first, chunk_logits(s, first));
}

void head_backward(student *s, int score_first)
{
    int C = s->options.width;
    for (int first = 0; first < s->N; first += HEAD_ROWS) {
        tensor logits = chunk_logits(s, first);
        if (score_first)
            score_chunk(s, first, logits);
        OPS(s)->logprob_backward(B(s), logits, s->lse + first, s->targets + first, s->dlogprob + first);
        size_t at = (size_t)first * (size_t)C;
        OPS(s)->matmul_backward_input(B(s), matrix(s->dhidden + at, logits.rows, C), logits,
                                      embedding(s, STUDENT_WEIGHTS), 0);
        OPS(s)->matmul_backward_weight(B(s), embedding(s, STUDENT_GRADIENTS), NULL, logits,
                                       matrix(s->hidden + at, logits.rows, C));
    }
}

int student_logits(student *s, int32_t first, int32_t count, float *logits, char *message, size_t capacity)
{
    int V = s->options.vocabulary;
    if (first < 0 || count < 0 || first + count > s->N)
        return fail(message, capacity, STUDENT_E_ARGUMENT, "tokens %d..%d are not in the last forward of %d", first,
                    first + count, s->N);
    for (int done = 0; done < count; done += HEAD_ROWS) {
        int rows = count - done < HEAD_ROWS ? count - done : HEAD_ROWS;
        tensor chunk = chunk_logits(s, first + done);
        OPS(s)->download(B(s), logits + (size_t)done * (size_t)V, chunk.data, (size_t)rows * (size_t)V * sizeof(float));
    }
    return STUDENT_OK;
}
