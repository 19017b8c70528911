/* Barriers in shared memory and the TMA, which arrives at them. */
#include <stdio.h>
#include <string.h>

#include "hopper.h"
#include "shared.h"

using namespace emulation;

namespace
{
/* The 64 bits of a barrier; those of CUDA are as opaque. */
struct phases {
    uint64_t made : 2, parity : 1, expected : 20, pending : 20;
    int64_t bytes : 21; /* announced and not landed */
};
enum { MADE = 1, FENCED = 2, MOST = (1 << 20) - 1 };
static_assert(sizeof(phases) == sizeof(uint64_t), "in place of the barrier");

struct box {
    boxed_matrix matrix;
    uint32_t to;
    uint64_t *barrier;
    int fast, slow;
    const char *file;
    int line;
};
/* Under way, oldest first. */
enum { BOXES = 64 };
box boxes[BOXES];
unsigned under_way;
} // namespace

namespace emulation
{
static phases *barrier_of(uint64_t *barrier, const char *file, int line)
{
    if (shared_address(barrier, file, line) % 8)
        die("the address of an mbarrier is not a multiple of 8", file, line);
    phases *p = (phases *)barrier;
    if (p->made != MADE && p->made != FENCED)
        die("an mbarrier that was not made", file, line);
    return p;
}

/* Ends the phase when nothing is missing. */
EMULATION_UNSEEN static void turn(uint64_t *barrier)
{
    phases *p = (phases *)barrier;
    if (p->pending || p->bytes)
        return;
    p->parity ^= 1;
    p->pending = p->expected;
    for (unsigned i = 0; i < now.count; i++) {
        thread &t = now.crew_of->threads[i];
        if (t.state == AT_PHASE && t.barrier == barrier)
            t.state = READY;
    }
}

EMULATION_UNSEEN static void arrive(uint64_t *barrier, unsigned bytes, const char *file, int line)
{
    phases *p = barrier_of(barrier, file, line);
    if (!p->pending)
        die("more threads arrive at an mbarrier than it was made for", file, line);
    if (p->bytes + (int64_t)bytes > MOST)
        die("an mbarrier counts up to 2^20 - 1 bytes", file, line);
    EMULATION_RELEASE(barrier);
    p->bytes += bytes;
    p->pending--;
    turn(barrier);
}

EMULATION_UNSEEN static void land(const box &b)
{
    const boxed_matrix &m = b.matrix;
    for (unsigned row = 0; row < m.box_slow; row++)
        for (unsigned column = 0; column < m.box_fast; column++) {
            int64_t x = (int64_t)b.fast + column, y = (int64_t)b.slow + row;
            bool inside = x >= 0 && y >= 0 && x < (int64_t)m.fast && y < (int64_t)m.slow;
            const unsigned char *from = m.data + (inside ? y * (int64_t)m.pitch + 2 * x : 0);
            uint32_t to = b.to + (row * m.box_fast + column) * 2;
            async_store(swizzled(to, m.swizzle), inside ? *(const uint16_t *)from : 0, b.file, b.line);
        }
    phases *p = barrier_of(b.barrier, b.file, b.line);
    const int64_t bytes = (int64_t)m.box_fast * m.box_slow * 2; /* what lies outside counts */
    if (p->bytes < bytes) /* PTX would wait for an announcement to come; no kernel here announces late */
        die("TMA: more bytes land than the phase of the mbarrier announced", b.file, b.line);
    p->bytes -= bytes;
    turn(b.barrier);
}

EMULATION_UNSEEN bool land_box()
{
    if (!under_way)
        return false;
    unsigned which = current_settings().order == FORWARD   ? 0
                     : current_settings().order == REVERSE ? under_way - 1
                                                           : (unsigned)(next_random() % under_way);
    box landing = boxes[which];
    for (unsigned i = which + 1; i < under_way; i++)
        boxes[i - 1] = boxes[i];
    under_way--;
    land(landing);
    return true;
}

void phase_stuck(const thread &t)
{
    const phases *p = (const phases *)t.barrier;
    char text[96];
    snprintf(text, sizeof text, "deadlock: an mbarrier waits for %u arrivals and %ld bytes", (unsigned)p->pending,
             (long)p->bytes);
    die(text, t.file, t.line);
}

void boxes_end()
{
    if (under_way)
        die("a block ends while the TMA writes to its memory", boxes[0].file, boxes[0].line);
}
} // namespace emulation

EMULATION_UNSEEN void barrier_make(uint64_t *barrier, int arrivals, const char *file, int line)
{
    if (shared_address(barrier, file, line) % 8 || arrivals < 1 || arrivals > MOST)
        die("mbarrier.init: the address is no multiple of 8, or the count not 1 to 2^20 - 1", file, line);
    *(phases *)barrier = {MADE, 0, (unsigned)arrivals, (unsigned)arrivals, 0};
    now.running->made.push_back(barrier);
}

EMULATION_UNSEEN void barrier_made()
{
    for (uint64_t *barrier : now.running->made)
        ((phases *)barrier)->made = FENCED;
    now.running->made.clear();
}

void barrier_arrive(uint64_t *barrier, const char *file, int line) { arrive(barrier, 0, file, line); }
void barrier_announce(uint64_t *barrier, unsigned bytes, const char *file, int line)
{
    arrive(barrier, bytes, file, line);
}

EMULATION_UNSEEN void barrier_wait(uint64_t *barrier, unsigned parity, const char *file, int line)
{
    const phases *p = barrier_of(barrier, file, line);
    thread *self = now.running;
    while (p->parity == parity) { /* a phase that is missed: the next one of this parity is waited for, as on a card */
        self->state = AT_PHASE;
        self->barrier = barrier;
        self->file = file;
        self->line = line;
        fiber_switch(&self->fiber, next());
    }
    EMULATION_ACQUIRE(barrier);
}

EMULATION_UNSEEN void tma_load(void *to, const CUtensorMap *map, uint64_t *barrier, int fast, int slow,
                               const char *file, int line)
{
    box b = {map->matrix, shared_address(to, file, line), barrier, fast, slow, file, line};
    if ((uintptr_t)map % 64 || !map->matrix.data)
        die("TMA: not a tensor map", file, line);
    if (b.to % 128)
        die("TMA: the address in shared memory is not a multiple of 128", file, line);
    if (barrier_of(barrier, file, line)->made != FENCED)
        die("TMA: fence.mbarrier_init is missing behind the making of its mbarrier", file, line);
    if (current_settings().async_early) {
        land(b);
        return;
    }
    if (under_way == BOXES)
        die("more than 64 boxes under way", file, line);
    boxes[under_way++] = b;
}

CUresult cuTensorMapEncodeTiled(CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank, void *data,
                                const cuuint64_t *dimensions, const cuuint64_t *strides, const cuuint32_t *box,
                                const cuuint32_t *steps, CUtensorMapInterleave, CUtensorMapSwizzle swizzle,
                                CUtensorMapL2promotion, CUtensorMapFloatOOBfill)
{
    unsigned width = 16u << swizzle, row = box[0] * 2;
    bool fine = type == CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 && rank == 2 && data && (uintptr_t)data % 16 == 0;
    for (int i = 0; i < 2; i++)
        fine =
            fine && dimensions[i] >= 1 && dimensions[i] <= 1ull << 32 && box[i] >= 1 && box[i] <= 256 && steps[i] == 1;
    fine = fine && strides[0] % 16 == 0 && strides[0] < 1ull << 40 && strides[0] >= dimensions[0] * 2 &&
           row % 16 == 0 && (swizzle == CU_TENSOR_MAP_SWIZZLE_NONE || row <= width);
    *map = {};
    if (!fine)
        return CUDA_ERROR_INVALID_VALUE;
    map->matrix = {(const unsigned char *)data, dimensions[0], dimensions[1], strides[0], box[0], box[1], width};
    return CUDA_SUCCESS;
}

cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult *result)
{
    bool known = !strcmp(name, "cuTensorMapEncodeTiled");
    *function = known ? (void *)cuTensorMapEncodeTiled : nullptr;
    *result = known ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
    return cudaSuccess;
}
