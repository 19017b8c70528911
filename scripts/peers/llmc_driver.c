/* Times a training step of llm.c's train_gpt2.c, which scripts/peers/llmc_student finds.
 * usage: llmc CHECKPOINT layers heads width context vocabulary stories tokens */
#include "train_gpt2.c"

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

/* A checkpoint in llm.c's format, version 3, with small random weights. */
static void write_checkpoint(const char *path, GPT2Config config)
{
    int header[256] = {20240326, 3, config.max_seq_len, config.vocab_size, config.num_layers, config.num_heads,
                       config.channels, config.padded_vocab_size};
    size_t sizes[NUM_PARAMETER_TENSORS], count = 0;
    fill_in_parameter_sizes(sizes, config);
    for (int i = 0; i < NUM_PARAMETER_TENSORS; i++)
        count += sizes[i];
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(header, sizeof header, 1, f) != 1)
        exit(1);
    unsigned seed = 1;
    for (size_t i = 0; i < count; i++) {
        seed = seed * 1664525u + 1013904223u;
        float x = ((float)(seed >> 8) / 16777216.0f - 0.5f) * 0.07f;
        if (fwrite(&x, sizeof x, 1, f) != 1)
            exit(1);
    }
    if (fclose(f))
        exit(1);
}

int main(int argc, char **argv)
{
    if (argc != 9)
        return 2;
    int n[7];
    for (int i = 0; i < 7; i++)
        n[i] = atoi(argv[i + 2]);
    GPT2Config config = {.num_layers = n[0], .num_heads = n[1], .channels = n[2], .max_seq_len = n[3], .vocab_size = n[4],
                         .padded_vocab_size = (n[4] + 127) / 128 * 128};
    write_checkpoint(argv[1], config);
    FILE *out = fdopen(dup(1), "w"); /* llm.c talks on stdout */
    if (!out || !freopen("/dev/null", "w", stdout))
        return 1;
    GPT2 model;
    gpt2_build_from_checkpoint(&model, argv[1]);
    int B = n[5], T = n[6];
    int *x = malloc(sizeof(int) * B * (T + 1));
    for (int i = 0; i < B * (T + 1); i++)
        x[i] = (int)((i * 2654435761u) % (unsigned)n[4]);
    double best = 1e30, end = seconds() + 40;
    for (int step = 1; step < 7; step++) {
        double start = seconds();
        gpt2_forward(&model, x, x + 1, B, T);
        gpt2_zero_grad(&model);
        gpt2_backward(&model);
        gpt2_update(&model, 1e-5f, 0.9f, 0.999f, 1e-8f, 0.01f, step);
        double took = seconds() - start;
        if (step > 1 || took > 30) /* the first one takes the memory */
            best = took < best ? took : best;
        if (seconds() > end)
            break;
    }
    fprintf(out, "{\"seconds\": %.6f}\n", best);
    return 0;
}
