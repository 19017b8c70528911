/* Choice of a variant and of its tile.
 *
 * A variant has bits of its own, so it is chosen by name and stays: "matmul=NAME"
 * of the student's kernels, which a run keeps in its configuration; else mma
 * (bf16) or simt (fp32). "measure" and "measure:FILE" take the fastest for
 * every weight (matmul_measure.cu). Tiles of a variant give the same bits, so the
 * best tile of a shape is found by timing at its first use and kept in the backend.
 * Inside a recording, where nothing can be waited for, and when
 * ONCEUPON_CUDA_TILES is "estimated", a model of the card takes the place of the
 * timing; a number there is the tile of every shape, for tests and benches. */
#include "backend.cuh"
#include "matmul.cuh"

#include <stdio.h>
#include <stdlib.h>

const char *matmul_asked(const backend_limits *limits)
{
    const char *kernels = limits->kernels;
    if (!kernels || !*kernels)
        return nullptr;
    return strncmp(kernels, "matmul=", 7) ? kernels : kernels + 7;
}

int cuda_matmul_create(backend *b, char *message, size_t capacity)
{
    cuda_state *s = cuda(b);
    matmul_choices *c = &s->matmul;
    const char *name = matmul_asked(&s->limits), *tiles = getenv("ONCEUPON_CUDA_TILES");
    c->fixed = tiles && tiles[0] >= '0' && tiles[0] <= '9' ? atoi(tiles) : -1;
#ifdef STUDENT_EMULATION
    c->timed = tiles && !strcmp(tiles, "timed"); /* times of the emulation say nothing of a card */
#else
    c->timed = !tiles || strcmp(tiles, "estimated");
#endif
    bool measured = matmul_measured_file(name) != nullptr;
    char known[128] = "";
    for (const matmul_variant *v : matmul_variants) {
        if (v->type != s->activations)
            continue;
        if (!c->variant && (!name || measured || !strcmp(name, v->name)))
            c->variant = v;
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s, ", v->name);
    }
    if (c->variant)
        return c->variant->open ? c->variant->open(b, message, capacity) : STUDENT_OK;
    snprintf(message, capacity, "cuda: no multiplication is called %s; with %s there are %smeasure", name,
             s->activations == TENSOR_BF16 ? "bf16" : "fp32", known);
    return STUDENT_E_ARGUMENT;
}

void cuda_matmul_destroy(backend *b)
{
    for (const matmul_variant *v : matmul_variants)
        if (v->close)
            v->close(b);
}

/* Waves of tiles over the multiprocessors, each as long as its elements. */
static int estimated_tile(const cuda_state *s, const matmul_variant *v, const matmul_problem *p)
{
    int best = 0;
    double least = 0;
    for (int t = 0; t < v->tiles; t++) {
        const matmul_tile &tile = v->tile[t];
        int64_t blocks = (int64_t)((p->M + tile.M - 1) / tile.M) * ((p->N + tile.N - 1) / tile.N) * p->cuts;
        int64_t waves = (blocks + s->multiprocessors - 1) / s->multiprocessors;
        double cost = (double)waves * tile.M * tile.N / tile.speed;
        if (t == 0 || cost < least) {
            least = cost;
            best = t;
        }
    }
    return best;
}

/* Of runs whose results are thrown away. */
static int timed_tile(backend *b, const matmul_variant *v, const matmul_problem *p)
{
    matmul_problem dry = *p;
    dry.finish = FINISH_DISCARD;
    int best = estimated_tile(cuda(b), v, p);
    float least = INFINITY;
    for (int t = 0; t < v->tiles; t++) {
        float milliseconds = matmul_time(b, [&] { v->run(b, &dry, t); });
        if (milliseconds < least) {
            least = milliseconds;
            best = t;
        }
    }
    return best;
}

static bool recording(const cuda_state *s)
{
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    return cudaStreamIsCapturing(s->stream, &status) != cudaSuccess || status != cudaStreamCaptureStatusNone;
}

static int tile_of(backend *b, const matmul_variant *v, const matmul_problem *p)
{
    cuda_state *s = cuda(b);
    matmul_choices *c = &s->matmul;
    bool weight = p->form == BACKWARD_WEIGHT;
    int rows = 1, count = weight ? p->K : p->M, M = weight ? p->M : p->K;
    while (rows < count && rows < 1 << 30)
        rows *= 2;
    if (c->fixed >= 0)
        return c->fixed < v->tiles ? c->fixed : v->tiles - 1;
    for (int i = 0; i < c->count; i++)
        if (c->made[i].form == p->form && c->made[i].rows == rows && c->made[i].M == M && c->made[i].N == p->N)
            return c->made[i].tile;
    if (!c->timed || c->count == MATMUL_CHOICES || recording(s))
        return estimated_tile(s, v, p);
    int tile = timed_tile(b, v, p);
    c->made[c->count++] = {p->form, rows, M, p->N, tile};
    return tile;
}

void matmul_run_by(backend *b, const matmul_variant *v, matmul_problem p)
{
    if (v->takes && !v->takes(&p))
        v = &matmul_mma;
    if (p.form == BACKWARD_WEIGHT && v->cuts)
        matmul_cut(b, &p);
    if (p.cuts > 1 && !p.parts)
        return; /* no workspace: noted */
    v->run(b, &p, v->tiles > 1 ? tile_of(b, v, &p) : 0);
    if (p.cuts > 1)
        matmul_join(b, &p);
}

void matmul_run(backend *b, matmul_problem p)
{
    const matmul_choices *c = &cuda(b)->matmul;
    const matmul_variant *v = c->variant;
    const int O = matmul_outputs(&p), I = matmul_inputs(&p);
    for (int i = 0; i < c->measured; i++)
        if (c->best[i].form == p.form && c->best[i].O == O && c->best[i].I == I)
            v = c->best[i].variant;
    matmul_run_by(b, v, p);
}
