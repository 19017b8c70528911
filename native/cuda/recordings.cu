/* Sequences of ops that come again, as CUDA graphs: recorded once, launched as
 * one piece of work after that. */
#include "backend.cuh"

#include <new>

enum { RECORDINGS = 1024 };

struct cuda_recordings {
    struct {
        uint64_t key;
        cudaGraphExec_t graph;
    } made[RECORDINGS];
    int count;
    uint64_t open_key; /* of the one being recorded */
    bool open;
};

int cuda_replay(backend *b, uint64_t key)
{
    cuda_state *s = cuda(b);
    if (!s->recordings)
        s->recordings = new (std::nothrow) cuda_recordings();
    cuda_recordings *r = s->recordings;
    if (!r || s->error[0])
        return 0;
    for (int i = 0; i < r->count; i++)
        if (r->made[i].key == key) {
            cuda_note(b, cudaGraphLaunch(r->made[i].graph, s->stream), __func__);
            return 1;
        }
    if (r->count == RECORDINGS)
        return 0; /* the ops run one by one */
    /* Relaxed: the driver loads the code of a kernel when it is first launched, and
     * cublasLt its own, which stricter modes may refuse on the way. */
    cudaError_t error = cudaStreamBeginCapture(s->stream, cudaStreamCaptureModeRelaxed);
    cuda_note(b, error, __func__);
    r->open = error == cudaSuccess;
    r->open_key = key;
    return 0;
}

void cuda_recorded(backend *b)
{
    cuda_state *s = cuda(b);
    cuda_recordings *r = s->recordings;
    if (!r || !r->open)
        return;
    r->open = false;
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t executable = nullptr;
    cudaError_t error = cudaStreamEndCapture(s->stream, &graph);
    if (error == cudaSuccess)
        error = cudaGraphInstantiate(&executable, graph, 0);
    if (error == cudaSuccess) {
        r->made[r->count].key = r->open_key;
        r->made[r->count++].graph = executable;
        error = cudaGraphLaunch(executable, s->stream);
    }
    if (graph)
        cudaGraphDestroy(graph);
    cuda_note(b, error, __func__);
}

void cuda_recordings_destroy(backend *b)
{
    cuda_recordings *r = cuda(b)->recordings;
    for (int i = 0; r && i < r->count; i++)
        cudaGraphExecDestroy(r->made[i].graph);
    delete r;
    cuda(b)->recordings = nullptr;
}
