#include "schedule.h"

#include "shared.h"

#include <algorithm>
#include <mutex>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_THREAD__)
extern "C" {
void __tsan_java_init(unsigned long begin, unsigned long bytes);
void __tsan_java_alloc(unsigned long address, unsigned long bytes);
void __tsan_java_free(unsigned long address, unsigned long bytes);
}
#endif

namespace emulation
{
block now;
static fiber caller;
static char launch_begins, launch_ends; /* what the launch and its threads order themselves by, for TSan */

#if defined(__SANITIZE_THREAD__)
enum { CREWS = 2 };
#else
enum { CREWS = 1 };
#endif
static crew *crews[CREWS];

static bool is(const char *variable, const char *value)
{
    const char *text = getenv(variable);
    return text && !strcmp(text, value);
}

settings &current_settings()
{
    static settings s = {is("EMULATION_ORDER", "reverse")  ? REVERSE
                         : is("EMULATION_ORDER", "random") ? RANDOM
                                                           : FORWARD,
                         getenv("EMULATION_SEED") ? strtoull(getenv("EMULATION_SEED"), nullptr, 10) : 1,
                         is("EMULATION_ASYNC", "early"), is("EMULATION_STREAM", "late")};
    return s;
}

void die(const char *what, const char *file, int line)
{
    const thread *t = now.running;
    fprintf(stderr, "emulation: %s, %s:%d, block %u,%u,%u thread %u,%u,%u\n", what, file ? file : "?", line,
            now.index.x, now.index.y, now.index.z, t->index.x, t->index.y, t->index.z);
    abort();
}

EMULATION_UNSEEN uint64_t next_random()
{
    now.random = now.random * 6364136223846793005ull + 1442695040888963407ull;
    return now.random >> 33;
}

EMULATION_UNSEEN static fiber *ready()
{
    thread *all = now.crew_of->threads;
    int order = current_settings().order;
    unsigned n = now.count, at = (unsigned)(now.running - all);
    if (order == RANDOM)
        at = (unsigned)(next_random() % n);
    for (unsigned i = 1; i <= n; i++) {
        unsigned k = order == REVERSE ? (at + n - i) % n : (at + i) % n;
        if (all[k].state == READY) {
            now.running = &all[k];
            return &all[k].fiber;
        }
    }
    return nullptr;
}

/* Those that wait for their products make them. */
EMULATION_UNSEEN static bool make_products()
{
    bool some = false;
    for (unsigned i = 0; i < now.count; i++)
        if (now.crew_of->threads[i].state == AT_PRODUCT) {
            now.crew_of->threads[i].state = READY;
            some = true;
        }
    return some;
}

/* What is late happens when no thread can go on; boxes land in memory that
 * products read, or products come first. */
EMULATION_UNSEEN static bool happens_late()
{
    int order = current_settings().order;
    bool box_first = order == FORWARD || (order == RANDOM && next_random() % 2);
    return box_first ? land_box() || make_products() : make_products() || land_box();
}

EMULATION_UNSEEN fiber *next()
{
    fiber *found = ready();
    while (!found && now.live && happens_late())
        found = ready();
    if (found)
        return found;
    if (now.live) {
        thread *stuck = now.crew_of->threads;
        while (stuck->state == DONE)
            stuck++;
        now.running = stuck;
        if (stuck->state == AT_PHASE)
            phase_stuck(*stuck);
        die(stuck->state == AT_WARP ? "deadlock: lanes of the mask never come to this warp operation"
                                    : "deadlock: threads of the block never come to this __syncthreads",
            stuck->file, stuck->line);
    }
    return &caller;
}

EMULATION_UNSEEN static void release_block()
{
    for (unsigned i = 0; i < now.count; i++)
        if (now.crew_of->threads[i].state == AT_BLOCK)
            now.crew_of->threads[i].state = READY;
    now.waiting = 0;
    now.crew_of->barriers++;
}

EMULATION_UNSEEN void block_barrier(const char *file, int line)
{
    thread *self = now.running;
    if (!now.waiting) {
        now.barrier_file = file;
        now.barrier_line = line;
    } else if (now.barrier_line != line || strcmp(now.barrier_file, file)) {
        die("threads of one block wait at different __syncthreads", file, line);
    }
    char *order_of = &now.crew_of->order_of[now.crew_of->barriers % 2];
    EMULATION_RELEASE(order_of);
    if (++now.waiting == now.live) {
        release_block();
    } else {
        self->state = AT_BLOCK;
        self->file = file;
        self->line = line;
        fiber_switch(&self->fiber, next());
    }
    EMULATION_ACQUIRE(order_of);
}

EMULATION_UNSEEN int block_vote(int which, int predicate, const char *file, int line)
{
    block_barrier(file, line); /* votes of the round before have been read */
    now.vote[0] = 0;
    now.vote[1] = 1;
    now.vote[2] = 0;
    block_barrier(file, line);
    now.vote[0] += predicate != 0;
    now.vote[1] &= predicate != 0;
    now.vote[2] |= predicate != 0;
    block_barrier(file, line);
    return now.vote[which];
}

EMULATION_UNSEEN static uint32_t lanes(unsigned warp_index)
{
    unsigned rest = now.count - warp_index * WARP;
    return rest >= WARP ? ~0u : (1u << rest) - 1;
}

EMULATION_UNSEEN meeting &meeting_of(uint32_t mask, const char *file, int line)
{
    thread *self = now.running;
    warp &w = now.crew_of->warps[self->warp];
    if (!(mask >> self->lane & 1))
        die("a lane is not in its own mask", file, line);
    if (mask & ~w.live)
        die("the mask names a lane that is absent", file, line);
    for (int i = 0; i < w.masks; i++)
        if (w.meetings[i].mask == mask)
            return w.meetings[i];
    if (w.masks == WARP)
        die("a warp uses more than 32 masks in one block", file, line);
    meeting &m = w.meetings[w.masks++];
    m.mask = mask;
    m.arrived = 0;
    return m;
}

EMULATION_UNSEEN void warp_barrier(meeting &m, const char *file, int line)
{
    thread *self = now.running;
    if (!m.arrived) {
        m.file = file;
        m.line = line;
    } else if (m.line != line || strcmp(m.file, file)) {
        die("lanes of one mask meet at different warp operations", file, line);
    }
    unsigned char *order_of = m.exchange[m.generation & 1][0];
    EMULATION_RELEASE(order_of);
    m.arrived |= 1u << self->lane;
    if (m.arrived == m.mask) {
        m.arrived = 0;
        m.generation++;
        for (unsigned i = 0; i < WARP; i++)
            if (m.mask >> i & 1 && i != self->lane)
                now.crew_of->threads[self->warp * WARP + i].state = READY;
    } else {
        self->state = AT_WARP;
        self->file = file;
        self->line = line;
        fiber_switch(&self->fiber, next());
    }
    EMULATION_ACQUIRE(order_of);
}

/* Ends a thread; a thread that has ended counts as arrived, as on the device. */
EMULATION_UNSEEN static void finish()
{
    thread *self = now.running;
    for (const auto &group : self->copies)
        if (!group.empty())
            die("a thread ends with cp.async that it has not waited for", nullptr, 0);
    self->copies.clear();
    self->state = DONE;
    wgmma_end();
    now.live--;
    if (!now.live)
        boxes_end();
    now.crew_of->warps[self->warp].live &= ~(1u << self->lane);
    if (now.live && now.waiting == now.live)
        release_block();
    EMULATION_RELEASE(&launch_ends);
    fiber_switch(&self->fiber, next());
}

EMULATION_UNSEEN static void entry()
{
    fiber_started();
    for (;;) {
        EMULATION_ACQUIRE(&launch_begins);
        (*now.body)();
        finish();
    }
}

/* NaN everywhere. To TSan the memory is a new one: it forgets who touched it. */
#if !defined(__clang__)
__attribute__((optimize("no-tree-loop-distribute-patterns")))
#endif
EMULATION_UNSEEN static void
renew(unsigned char *memory, size_t bytes)
{
    for (volatile unsigned char *p = memory; p < memory + bytes; p++)
        *p = 0xff;
#if defined(__SANITIZE_THREAD__)
    static bool started;
    if (!started)
        __tsan_java_init(8, 1ul << 47);
    started = true;
    size_t whole = (bytes + 7) & ~(size_t)7;
    if (whole) {
        __tsan_java_free((unsigned long)memory, whole);
        __tsan_java_alloc((unsigned long)memory, whole);
    }
#endif
}

EMULATION_UNSEEN static unsigned char *exactly(size_t bytes)
{
    void *memory = nullptr;
    if (posix_memalign(&memory, 128, bytes ? bytes : 1))
        abort();
    return (unsigned char *)memory;
}

EMULATION_UNSEEN void *shared_array::of_block(size_t size)
{
    if (!memory)
        memory = exactly(size);
    if (serial == now.serial)
        return memory;
    renew(memory, size);
    serial = now.serial;
    bytes = size;
    if (now.arrays == sizeof now.array / sizeof now.array[0])
        die("more than 64 __shared__ arrays in a block", nullptr, 0);
    const shared_array *before = now.arrays ? now.array[now.arrays - 1] : nullptr;
    address = before ? (before->address + (uint32_t)before->bytes + 15) / 16 * 16 : (uint32_t)ARRAYS_AT;
    now.array[now.arrays++] = this;
    return memory;
}

/* Dynamic shared memory of a launch. TSan's view of it can be renewed only if
 * it is never freed. */
EMULATION_UNSEEN static unsigned char *take_shared(size_t bytes)
{
#if defined(__SANITIZE_THREAD__)
    static unsigned char *kept;
    if (!kept)
        kept = exactly(MAX_SHARED);
    (void)bytes;
    return kept;
#else
    return exactly(bytes);
#endif
}

EMULATION_UNSEEN static void give_shared(unsigned char *memory)
{
#if defined(__SANITIZE_THREAD__)
    (void)memory;
#else
    free(memory);
#endif
}

EMULATION_UNSEEN static void run_block(const std::function<void()> &body)
{
    crew &c = *now.crew_of;
    for (; c.ready < now.count; c.ready++)
        fiber_create(&c.threads[c.ready].fiber, entry);
    for (unsigned i = 0; i < now.count; i++) {
        thread &t = c.threads[i];
        t.index = {i % now.dimensions.x, i / now.dimensions.x % now.dimensions.y,
                   i / now.dimensions.x / now.dimensions.y};
        t.lane = i % WARP;
        t.warp = i / WARP;
        t.state = READY;
        t.wgmma_fenced = false;
        t.sequence = 0;
    }
    for (unsigned i = 0; i * WARP < now.count; i++) {
        c.warps[i].live = lanes(i);
        c.warps[i].masks = 0;
    }
    now.live = now.count;
    now.waiting = 0;
    now.arrays = 0;
    now.body = &body;
    now.running = &c.threads[current_settings().order == REVERSE ? 0 : now.count - 1]; /* next() starts beyond it */
    fiber_switch(&caller, next());
}

static std::vector<unsigned long> block_order(unsigned long blocks)
{
    std::vector<unsigned long> sequence(blocks);
    for (unsigned long i = 0; i < blocks; i++)
        sequence[i] = i;
    if (current_settings().order == REVERSE)
        std::reverse(sequence.begin(), sequence.end());
    if (current_settings().order == RANDOM)
        for (unsigned long i = blocks; i > 1; i--)
            std::swap(sequence[i - 1], sequence[next_random() % i]);
    return sequence;
}

bool valid_launch(dim3 grid, dim3 dimensions, size_t shared_bytes)
{
    unsigned long threads = (unsigned long)dimensions.x * dimensions.y * dimensions.z;
    return threads >= 1 && threads <= MAX_THREADS && dimensions.z <= 64 && grid.x >= 1 && grid.x <= 0x7fffffffu &&
           grid.y >= 1 && grid.y <= 65535 && grid.z >= 1 && grid.z <= 65535 && shared_bytes <= MAX_SHARED;
}

EMULATION_UNSEEN static void run_blocks(dim3 grid, dim3 dimensions, size_t shared_bytes,
                                        const std::function<void()> &body)
{
    static uint64_t launches;
    for (crew *&c : crews)
        if (!c)
            c = new crew();
    fiber_adopt(&caller);
    now.grid = grid;
    now.dimensions = dimensions;
    now.count = dimensions.x * dimensions.y * dimensions.z;
    now.shared = take_shared(shared_bytes);
    now.shared_bytes = shared_bytes;
    now.random = (current_settings().seed + launches++) * 0x9E3779B97F4A7C15ull;
    EMULATION_RELEASE(&launch_begins);
    for (unsigned long i : block_order((unsigned long)grid.x * grid.y * grid.z)) {
        now.index = {(unsigned)(i % grid.x), (unsigned)(i / grid.x % grid.y), (unsigned)(i / grid.x / grid.y)};
        now.crew_of = crews[++now.serial % CREWS];
        renew(now.shared, shared_bytes);
        run_block(body);
    }
    EMULATION_ACQUIRE(&launch_ends);
    give_shared(now.shared);
}

bool run(dim3 grid, dim3 dimensions, size_t shared_bytes, const std::function<void()> &body)
{
    if (!valid_launch(grid, dimensions, shared_bytes))
        return false;
    static std::mutex one; /* launches of several threads of the host follow one another */
    std::lock_guard<std::mutex> lock(one);
    run_blocks(grid, dimensions, shared_bytes, body);
    return true;
}
} // namespace emulation
