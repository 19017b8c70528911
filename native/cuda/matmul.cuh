/* matmul.cuh: multiplications out (M,N) = a b summed over K, in the three
 * transpositions of a linear layer (native/ref/matmul.c), with what is done to
 * an element before it is stored.
 *
 *   form             M     N  K     a                b
 *   FORWARD          rows  O  I     x    [M][K]      w    [N][K]
 *   BACKWARD_INPUT   rows  I  O     dout [M][K]      w    [K][N]
 *   BACKWARD_WEIGHT  O     I  rows  dout [K][M]      x    [K][N]
 *
 * Bits. A kernel sums an element over rising K in one accumulator, so its bits
 * depend neither on M nor on the tile: decoding one row and training on
 * thousands agree. BACKWARD_WEIGHT alone is cut along K (matmul_cut), by a rule
 * of the shape, and the parts are added in their order. Variants differ in bits,
 * tiles of a variant do not: tiles are chosen freely, a variant by name, or as
 * was measured once and is kept (matmul_choice.cu, matmul_measure.cu). */
#ifndef CUDA_MATMUL_CUH
#define CUDA_MATMUL_CUH

#include "ops.cuh"

enum matmul_form { FORWARD, BACKWARD_INPUT, BACKWARD_WEIGHT };

/* What happens to a finished sum v; T is the type of activations. */
enum matmul_finish {
    FINISH_STORE,   /* out = v */
    FINISH_ADD,     /* out += v */
    FINISH_GELU,    /* side = v, out = gelu(side) */
    FINISH_SLOPE,   /* out = v * gelu'(side) */
    FINISH_DISCARD, /* nothing: when tiles are timed */
};

struct matmul_problem {
    matmul_form form;
    int M, N, K;
    const void *a, *b;
    int a_wide, b_wide; /* rows begin at multiples of 16 bytes */

    matmul_finish finish;
    void *out, *side; /* [M][N]; side of the type of activations */
    int out_type;
    int out_wide; /* rows of out and side begin at multiples of 16 bytes */
    const float *bias;

    /* BACKWARD_WEIGHT: the parts of K, and where they go when there are several:
     * part p at parts + p * M * N, its column sums at column_parts + p * M. */
    int cuts, cut_length;
    float *parts, *column_parts;
    float *column_sums; /* [M] += sums of a over K, or NULL */
};

/* Tiles of a variant, by falling size; none where it chooses by itself. */
struct matmul_tile {
    int M, N;
    float speed; /* of the multiplication alone, as a share of the largest tile's; an estimate */
};

struct matmul_variant {
    const char *name;
    int type;   /* of a and b */
    bool alike; /* a row of FORWARD has the same bits for every M */
    bool cuts;  /* takes BACKWARD_WEIGHT in parts (matmul_cut) */
    int tiles;
    const matmul_tile *tile;
    /* Whether it can do this problem; NULL: every one. Depends on N and K, not on
     * M of FORWARD. What it cannot do, mma does. */
    bool (*takes)(const matmul_problem *p);
    void (*run)(backend *b, const matmul_problem *p, int tile);
    /* At creation and destruction of a backend that uses it; may be NULL. open
     * returns a status and one line. */
    int (*open)(backend *b, char *message, size_t capacity);
    void (*close)(backend *b);
};

extern const matmul_variant matmul_simt, matmul_mma, matmul_wgmma, matmul_cublaslt;

/* The first is the default of its type. */
static const matmul_variant *const matmul_variants[] = {&matmul_mma, &matmul_wgmma, &matmul_cublaslt, &matmul_simt};

/* The weight of a problem. */
inline int matmul_outputs(const matmul_problem *p)
{
    return p->form == FORWARD ? p->N : p->form == BACKWARD_INPUT ? p->K : p->M;
}
inline int matmul_inputs(const matmul_problem *p) { return p->form == FORWARD ? p->K : p->N; }

/* Calls f with the form of the problem as a constant: decltype(form)::value. */
template <class F> inline void matmul_by_form(const matmul_problem *p, F f)
{
    if (p->form == FORWARD)
        f(std::integral_constant<matmul_form, FORWARD>());
    else if (p->form == BACKWARD_INPUT)
        f(std::integral_constant<matmul_form, BACKWARD_INPUT>());
    else
        f(std::integral_constant<matmul_form, BACKWARD_WEIGHT>());
}

/* What a block makes: a tile, from its first row and column, of a cut of K. */
struct matmul_part {
    int m0, n0, cut, K_first, K;
};

/* Blocks that run together cover eight rows of tiles, so that what they read of
 * a and b fits the second-level cache. */
template <int BM, int BN> __device__ __forceinline__ matmul_part matmul_place(const matmul_problem &p)
{
    enum { GROUP = 8 };
    const int M_tiles = (p.M + BM - 1) / BM, N_tiles = (p.N + BN - 1) / BN, block = blockIdx.x;
    const int first = block / (GROUP * N_tiles) * GROUP, within = block % (GROUP * N_tiles);
    const int rows = M_tiles - first < GROUP ? M_tiles - first : GROUP;
    const int cut = blockIdx.y, K_first = cut * p.cut_length;
    return {(first + within % rows) * BM, within / rows * BN, cut, K_first, min(p.K - K_first, p.cut_length)};
}

/* A factor as a block reads it, in slices of BK along K; rows of M or N from
 * `row` on. K is cut only where it is not the fast dimension. */
template <class T, bool K_FAST, int BK> struct matmul_slices {
    int stride;
    const T *first;
    size_t step;
    __device__ __forceinline__ matmul_slices(const void *factor, int K, int rows, int row, int K_first)
        : stride(K_FAST ? K : rows),
          first((const T *)factor + (K_FAST ? (size_t)row * stride : (size_t)K_first * stride + row)),
          step(K_FAST ? BK : (size_t)BK * stride)
    {
    }
};

/* matmul.cu: FINISH_STORE of x and y into out. */
matmul_problem matmul_describe(matmul_form form, int M, int N, int K, const void *x, const void *y, int type,
                               tensor out);

/* matmul_choice.cu: the name of the variant that is asked for, or NULL. */
const char *matmul_asked(const backend_limits *limits);
/* matmul_measure.cu: FILE of "measure:FILE", "" of "measure", NULL of any other name. */
const char *matmul_measured_file(const char *name);

/* matmul_choice.cu: runs the problem by the variant of the backend, or by v. */
void matmul_run(backend *b, matmul_problem p);
void matmul_run_by(backend *b, const matmul_variant *v, matmul_problem p);

/* Milliseconds of RUNS calls of f after one to warm up; INFINITY when they cannot
 * be had. */
template <class F> float matmul_time(backend *b, F f)
{
    enum { RUNS = 3 };
    cuda_state *s = cuda(b);
    cudaEvent_t from = nullptr, to = nullptr;
    float milliseconds = INFINITY;
    f();
    cudaError_t error = cudaEventCreate(&from);
    if (error == cudaSuccess)
        error = cudaEventCreate(&to);
    if (error == cudaSuccess)
        error = cudaEventRecord(from, s->stream);
    for (int i = 0; i < RUNS; i++)
        f();
    if (error == cudaSuccess)
        error = cudaEventRecord(to, s->stream);
    if (error == cudaSuccess)
        error = cudaEventSynchronize(to);
    if (error == cudaSuccess)
        error = cudaEventElapsedTime(&milliseconds, from, to);
    if (from)
        cudaEventDestroy(from);
    if (to)
        cudaEventDestroy(to);
    cuda_note(b, error, __func__);
    return error == cudaSuccess ? milliseconds : INFINITY;
}

/* matmul_cut.cu. BACKWARD_WEIGHT has few tiles (O I of them) and a long K
 * (rows): it is cut so that tiles of 128 x 128 times cuts come near 264, two for
 * each multiprocessor of the largest card meant, with at least 256 rows a cut. A
 * rule of the shape alone: the same bits on every card. */
void matmul_cut(backend *b, matmul_problem *p);
/* out += parts, column_sums += column_parts, in the order of the cuts. */
void matmul_join(backend *b, const matmul_problem *p);
/* columns[i] += parts[i]. */
void matmul_add_columns(backend *b, float *columns, const float *parts, int count);
size_t matmul_cut_workspace(const backend_limits *limits);

/* matmul_vector.cu: O = 1; w is fp32. */
void matmul_vector_forward(backend *b, tensor out, tensor x, const float *w, const float *bias);
void matmul_vector_backward_input(backend *b, tensor dx, tensor dout, const float *w, int accumulate);
void matmul_vector_backward_weight(backend *b, float *dw, float *dbias, tensor dout, tensor x);
size_t matmul_vector_workspace(const backend_limits *limits);

#endif
