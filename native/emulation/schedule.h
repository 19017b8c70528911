/* schedule.h: threads, warps and blocks of one launch.
 *
 * A schedule proves little by itself: threads and blocks run in forward,
 * reverse or random order, by EMULATION_ORDER and EMULATION_SEED or by call.
 * Blocks run in sequence. Under TSan nothing orders neighbouring blocks of a
 * launch but their atomics and fences: a race between them is seen too. */
#ifndef EMULATION_SCHEDULE_H
#define EMULATION_SCHEDULE_H

#include <functional>
#include <utility>
#include <vector>

#include "fiber.h"
#include "types.h"

namespace emulation
{
enum order { FORWARD, REVERSE, RANDOM };

struct settings {
    int order;        /* EMULATION_ORDER=forward|reverse|random */
    uint64_t seed;    /* EMULATION_SEED, of random */
    bool async_early; /* EMULATION_ASYNC=early|late: cp.async, TMA, wgmma */
    bool stream_late; /* EMULATION_STREAM=late|now */
};
settings &current_settings();

enum { WARP = 32, MAX_THREADS = 1024, MAX_SHARED = 227 << 10 };
enum state : uint8_t { READY, AT_WARP, AT_BLOCK, AT_PHASE, AT_PRODUCT, DONE };

/* A copy to shared memory that has been issued and not waited for. */
struct pending_copy {
    void *to;
    const void *from;
    unsigned bytes, zeros;
};

/* A product of wgmma that has been issued (hopper.h), and accumulators that
 * products write: their values, while the registers of the thread hold NaN. */
struct product {
    float *d;
    unsigned columns;
    uint64_t a, b; /* descriptors */
    bool a_slow, b_slow;
    const char *file;
    int line;
};
struct accumulators {
    float *d;
    unsigned pending;
    std::vector<float> values;
};

struct thread {
    emulation::fiber fiber;
    uint3 index;
    unsigned lane, warp;
    emulation::state state;
    const char *file; /* where it waits */
    int line;
    std::vector<std::vector<pending_copy>> copies; /* committed groups, then the open one */
    std::vector<std::vector<product>> products;    /* likewise */
    std::vector<accumulators> accumulating;
    bool wgmma_fenced;
    uint64_t sequence;            /* of wgmma, hashed */
    std::vector<uint64_t *> made; /* barriers, not yet fenced */
    uint64_t *barrier;            /* that it waits at */
};

/* Where the lanes of one mask meet; a part of a warp may meet while the rest
 * waits elsewhere. */
struct meeting {
    uint32_t mask, arrived;
    unsigned generation;
    const char *file;
    int line;
    alignas(16) unsigned char exchange[2][WARP][32]; /* alternate, so that one barrier an exchange is enough */
};

struct warp {
    uint32_t live;
    int masks; /* that the warp has used in this block */
    meeting meetings[WARP];
};

/* Stacks and warps of a block. Two sets alternate under TSan. */
struct crew {
    thread threads[MAX_THREADS];
    warp warps[MAX_THREADS / WARP];
    unsigned ready;    /* threads that have a stack */
    unsigned barriers; /* passed */
    char order_of[2];  /* what TSan orders barriers by, in turn: who leaves one late has not seen the next */
};

struct block {
    uint3 index;
    dim3 dimensions, grid;
    crew *crew_of;
    thread *running;
    unsigned count, live, waiting;
    const char *barrier_file;
    int barrier_line;
    int vote[3]; /* sum, and, or of __syncthreads_count and its kin */
    unsigned char *shared;
    size_t shared_bytes;
    struct shared_array *array[64]; /* of __shared__, as they were met */
    unsigned arrays;
    const std::function<void()> *body;
    uint64_t random, serial; /* serial numbers blocks over all launches */
};
extern block now;

/* The memory of one __shared__ array: new for every block, exactly as long as
 * the array, so that ASan sees its ends, and filled with NaN, so that a read of
 * what was never written shows. */
struct shared_array {
    unsigned char *memory;
    uint64_t serial;
    size_t bytes;
    uint32_t address; /* in the shared window (shared.h) */
    void *of_block(size_t bytes);
};

/* One line with block, thread and place; then abort. */
[[noreturn]] void die(const char *what, const char *file, int line);

void block_barrier(const char *file, int line);
/* Where this lane is to meet those of the mask. */
meeting &meeting_of(uint32_t mask, const char *file, int line);
void warp_barrier(meeting &m, const char *file, int line);
int block_vote(int which, int predicate, const char *file, int line);
/* The thread to run now; `running` becomes it. */
fiber *next();
uint64_t next_random();

/* tma.cpp and wgmma.cpp: lands a box, if one is under way; a phase of an mbarrier
 * that never ends; the end of a thread and of a block. */
bool land_box();
[[noreturn]] void phase_stuck(const thread &t);
void wgmma_end();
void boxes_end();

/* Runs body once for every thread of the grid. False, without running it, when
 * CUDA would refuse the configuration. */
bool run(dim3 grid, dim3 dimensions, size_t shared_bytes, const std::function<void()> &body);
bool valid_launch(dim3 grid, dim3 dimensions, size_t shared_bytes);
} // namespace emulation

#define threadIdx (emulation::now.running->index)
#define blockIdx (emulation::now.index)
#define blockDim (emulation::now.dimensions)
#define gridDim (emulation::now.grid)
#define warpSize 32

inline void __syncthreads(const char *file = __builtin_FILE(), int line = __builtin_LINE())
{
    emulation::block_barrier(file, line);
}
inline int __syncthreads_count(int p, const char *file = __builtin_FILE(), int line = __builtin_LINE())
{
    return emulation::block_vote(0, p, file, line);
}
inline int __syncthreads_and(int p, const char *file = __builtin_FILE(), int line = __builtin_LINE())
{
    return emulation::block_vote(1, p, file, line);
}
inline int __syncthreads_or(int p, const char *file = __builtin_FILE(), int line = __builtin_LINE())
{
    return emulation::block_vote(2, p, file, line);
}

#endif
