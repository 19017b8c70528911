/* Streams, events and graphs. */
#include "runtime.h"

#include <chrono>
#include <mutex>
#include <set>
#include <stdlib.h>

using emulation::report;

typedef std::vector<std::function<void()>> queue;

struct emulation_graph {
    queue work;
};
struct emulation_stream {
    queue work;
    emulation_graph *capture;
    int device;
};
struct emulation_event {
    std::chrono::steady_clock::time_point time;
    emulation_stream *stream; /* that the record waits in, or NULL when it has happened */
};

/* Work runs under the guard: several threads of the host take turns. */
static std::recursive_mutex guard;
typedef std::lock_guard<std::recursive_mutex> held;
static std::set<emulation_stream *> streams;
static emulation_stream default_stream;

emulation_counts emulation::counts;
extern "C" __attribute__((visibility("default"))) const emulation_counts *emulation_counted(void)
{
    return &emulation::counts;
}

static emulation_stream *of(cudaStream_t stream) { return stream ? stream : &default_stream; }

/* A card that is gone stays gone. */
static bool lost()
{
    static const bool breaks = emulation::device_is("lost");
    static long left = getenv("EMULATION_LAUNCHES") ? atol(getenv("EMULATION_LAUNCHES")) : 0;
    return breaks && left-- <= 0;
}

namespace emulation
{
bool capturing(cudaStream_t stream) { return of(stream)->capture; }

void drain(cudaStream_t stream)
{
    held lock(guard);
    queue work;
    work.swap(of(stream)->work);
    for (auto &step : work)
        step();
}

cudaError_t enqueue(cudaStream_t stream, std::function<void()> work)
{
    held lock(guard);
    emulation_stream *s = of(stream);
    if (s->capture) {
        s->capture->work.push_back(std::move(work));
        return cudaSuccess;
    }
    s->work.push_back(std::move(work));
    if (!current_settings().stream_late)
        drain(s);
    return cudaSuccess;
}

cudaError_t launch(cudaStream_t stream, dim3 grid, dim3 dimensions, size_t shared_bytes, std::function<void()> body)
{
    if (!valid_launch(grid, dimensions, shared_bytes))
        return report(cudaErrorInvalidConfiguration);
    if (lost())
        return report(cudaErrorLaunchFailure);
    int device;
    cudaGetDevice(&device);
    if (stream && stream->device != device)
        return report(cudaErrorInvalidResourceHandle);
    counts.launches++;
    return enqueue(stream, [=] { run(grid, dimensions, shared_bytes, body); });
}
} // namespace emulation

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned)
{
    held lock(guard);
    *stream = new emulation_stream();
    cudaGetDevice(&(*stream)->device);
    streams.insert(*stream);
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    emulation::drain(stream);
    held lock(guard);
    streams.erase(stream);
    delete stream;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    if (emulation::capturing(stream))
        return report(cudaErrorStreamCaptureUnsupported);
    emulation::counts.waits++;
    emulation::drain(stream);
    return cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t stream) { return of(stream)->work.empty() ? cudaSuccess : cudaErrorNotReady; }
cudaError_t cudaDeviceSynchronize()
{
    held lock(guard);
    emulation::counts.waits++;
    for (emulation_stream *s : streams)
        if (!s->capture)
            emulation::drain(s);
    emulation::drain(nullptr);
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned)
{
    *event = new emulation_event();
    return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t *event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }
cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    if (event->stream)
        emulation::drain(event->stream);
    delete event;
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    event->stream = of(stream);
    return emulation::enqueue(stream, [=] {
        event->time = std::chrono::steady_clock::now();
        event->stream = nullptr;
    });
}
cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    emulation::counts.waits++;
    if (event->stream)
        emulation::drain(event->stream);
    return cudaSuccess;
}
/* What comes after in this stream runs after what the event marks in the other:
 * the other's work is done first. */
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned)
{
    if (event->stream == of(stream))
        return cudaSuccess;
    return emulation::enqueue(stream, [=] {
        if (event->stream)
            emulation::drain(event->stream);
    });
}
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t from, cudaEvent_t to)
{
    if (from->stream || to->stream)
        return report(cudaErrorNotReady);
    *milliseconds = std::chrono::duration<float, std::milli>(to->time - from->time).count();
    return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode)
{
    if (!stream || stream->capture)
        return report(cudaErrorStreamCaptureUnsupported);
    stream->capture = new emulation_graph();
    return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus *status)
{
    *status = emulation::capturing(stream) ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    *graph = stream ? stream->capture : nullptr;
    if (!*graph)
        return report(cudaErrorInvalidValue);
    stream->capture = nullptr;
    return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *executable, cudaGraph_t graph, unsigned long long)
{
    *executable = new emulation_graph(*graph);
    return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream)
{
    emulation::counts.graphs++;
    /* The work is copied: the graph may be destroyed once it has been launched. */
    return emulation::enqueue(stream, [work = executable->work] {
        for (const auto &step : work)
            step();
    });
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    delete graph;
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable)
{
    delete executable;
    return cudaSuccess;
}
