/* matmul_choice.cuh: which variant a backend multiplies with, and what was found
 * best, a shape each; part of cuda_state. */
#ifndef CUDA_MATMUL_CHOICE_CUH
#define CUDA_MATMUL_CHOICE_CUH

enum { MATMUL_CHOICES = 256, MATMUL_MEASURED = 64 };

struct matmul_choices {
    const struct matmul_variant *variant; /* of every multiplication that is not among those measured */
    void *encode;                         /* wgmma: the driver's cuTensorMapEncodeTiled */
    struct cublaslt *cublaslt;            /* what that variant has opened */
    bool timed;                           /* tiles are timed at the first use of a shape, else estimated */
    int fixed;                            /* the tile of every shape, or -1 */
    int measured;
    struct {
        int form, O, I; /* of the weight */
        const struct matmul_variant *variant;
    } best[MATMUL_MEASURED];
    int count;
    struct {
        int form, rows, M, N, tile; /* rows: a power of two; M and N: what else is fixed */
    } made[MATMUL_CHOICES];
};

#endif
