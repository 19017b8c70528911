/* The test of the emulator itself: every seeded bug is caught by the modes that
 * its case names, and correct kernels are caught by none. Each case runs in a
 * process of its own, once per schedule; which sanitizers take part is decided
 * by the build (plain, address + undefined, thread). */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "emulation_cases.h"
#include "emulation_controls.h"
#include "emulation_hopper.h"

/* Modes that catch a bug. */
enum {
    NONE = 0,
    EVERY = 1,      /* any build, any schedule */
    ORDER = 2,      /* at least one of the orders */
    LATE = 4,       /* cp.async, TMA and wgmma at the wait, and not at once */
    EARLY = 8,      /* the same at once, in at least one of the orders */
    STREAM = 16,    /* work of the stream late, and not at once */
    ADDRESS = 32,   /* AddressSanitizer */
    UNDEFINED = 64, /* UndefinedBehaviorSanitizer */
    THREAD = 128,   /* ThreadSanitizer */
};

#if defined(__SANITIZE_ADDRESS__)
static const int sanitizers = ADDRESS | UNDEFINED;
#elif defined(__SANITIZE_THREAD__)
static const int sanitizers = THREAD;
#else
static const int sanitizers = NONE;
#endif

#define VISIBLE __attribute__((visibility("default")))
extern "C" VISIBLE const char *__asan_default_options() { return "exitcode=66:detect_leaks=0:symbolize=0"; }
extern "C" VISIBLE const char *__tsan_default_options() { return "exitcode=66:halt_on_error=1:symbolize=0"; }

static const struct {
    const char *name;
    bool (*run)(place p);
    int caught_by;
} cases[] = {
    {"missing __syncthreads", case_missing_barrier, EVERY | THREAD},
    {"overwritten while read", case_overwritten, ORDER | THREAD},
    {"missing __syncwarp", case_warp_race, EVERY | THREAD},
    {"divergent __syncthreads", case_divergent, EVERY},
    {"lane outside its mask", case_barrier_of_some, EVERY},
    {"mask names lanes that do not come", case_absent_lanes, EVERY},
    {"mask names a lane that has exited", case_exited_lanes, EVERY},
    {"cp.async: wait leaves the group", case_wait_forgotten, LATE},
    {"cp.async: into what is being read", case_copied_too_early, EARLY | THREAD},
    {"cp.async: never waited for", case_never_waited, EVERY},
    {"ldmatrix: misaligned row", case_misaligned_rows, EVERY},
    {"cp.async: misaligned", case_misaligned_copy, EVERY},
    {"misaligned float4", case_misaligned_vector, UNDEFINED},
    {"overrun of a shared array", case_static_overrun, ADDRESS},
    {"overrun of dynamic shared memory", case_dynamic_overrun, ADDRESS},
    {"overrun of device memory", case_device_overrun, ADDRESS},
    {"unwritten shared memory", case_unwritten_shared, EVERY},
    {"unwritten device memory", case_unwritten_device, EVERY},
    {"sum without atomics in a block", case_unatomic_sum, THREAD},
    {"sum without atomics over blocks", case_blocks_race, THREAD},
    {"last block without __threadfence", case_fence_forgotten, THREAD},
    {"result depends on the order of blocks", case_block_order, ORDER},
    {"host reads before the stream is done", case_not_synchronised, STREAM},
    {"host reuses memory too early", case_reused_too_early, STREAM},
    {"more threads than a block has", case_too_many_threads, EVERY},
    {"wgmma: result is not waited for", case_row_sums<RESULT_TOO_EARLY>, LATE},
    {"wgmma: accumulator written meanwhile", case_row_sums<WRITTEN_MEANWHILE>, LATE},
    {"wgmma: never waited for", case_row_sums<NEVER_WAITED>, EVERY},
    {"wgmma: missing wgmma.fence", case_row_sums<NO_FENCE>, EVERY},
    {"wgmma: missing fence.proxy.async", case_row_sums<NO_PROXY_FENCE>, LATE},
    {"wgmma: three warps of a group", case_row_sums<THREE_WARPS>, EVERY},
    {"wgmma: factor not at a multiple of 1024", case_row_sums<MISALIGNED>, EVERY},
    {"wgmma: other swizzle than the TMA's", case_row_sums<OTHER_SWIZZLE>, EVERY},
    {"wgmma: stride of the descriptor", case_row_sums<OTHER_STRIDE>, EVERY},
    {"TMA: fewer bytes announced", case_row_sums<FEWER_BYTES>, EVERY},
    {"TMA: more bytes announced", case_row_sums<MORE_BYTES>, EVERY},
    {"TMA: not waited for", case_row_sums<BOX_TOO_EARLY>, ORDER},
    {"TMA: other parity waited for", case_row_sums<OTHER_PARITY>, EVERY},
    {"TMA: slot given back too early", case_row_sums<SLOT_TOO_EARLY>, ORDER},
    {"TMA: barrier made without a fence", case_row_sums<BARRIER_UNFENCED>, EVERY},
    {"control: TMA and wgmma", case_row_sums<RIGHT>, NONE},
    {"control: sums and votes", case_sums, NONE},
    {"control: shuffles", case_shuffles, NONE},
    {"control: mma and ldmatrix", case_product, NONE},
    {"control: cp.async", case_waited, NONE},
    {"control: cp.async of a tail", case_tail, NONE},
    {"control: last block with __threadfence", case_fence, NONE},
    {"control: graph", case_graph, NONE},
    {"control: two streams and an event", case_events, NONE},
    {"control: bf16", case_conversions, NONE},
};

/* Runs a case in this process: 0 when it ends well. */
static int run_here(int which, int order, bool early, bool late)
{
    alarm(120); /* a schedule that never ends */
    if (!getenv("EMULATION_VERBOSE") && !freopen("/dev/null", "w", stderr))
        return 2;
    emulation::current_settings() = {order, 3, early, late};
    place p = {};
    float counts[THREADS];
    for (int i = 0; i < THREADS; i++)
        counts[i] = (float)i;
    cudaStreamCreateWithFlags(&p.stream, cudaStreamNonBlocking);
    cudaMalloc(&p.out, sizeof counts);
    cudaMalloc(&p.in, sizeof counts);
    cudaMallocHost(&p.pinned, sizeof counts);
    memset(p.pinned, 0, sizeof counts);
    cudaMemcpy(p.in, counts, sizeof counts, cudaMemcpyHostToDevice);
    bool fine = cases[which].run(p);
    cudaFree(p.out);
    cudaFree(p.in);
    cudaFreeHost(p.pinned);
    cudaStreamDestroy(p.stream);
    return fine ? 0 : 1;
}

/* Whether the case ends otherwise than well in a process of its own. */
static bool caught(int which, int order, bool early, bool late)
{
    char words[4][16];
    const int values[4] = {which, order, early, late};
    for (int i = 0; i < 4; i++)
        snprintf(words[i], sizeof words[i], "%d", values[i]);
    fflush(stdout);
    pid_t id = fork();
    if (id == 0) {
        execl("/proc/self/exe", "test_emulation", words[0], words[1], words[2], words[3], (char *)nullptr);
        _exit(2);
    }
    int status = 0;
    if (id < 0 || waitpid(id, &status, 0) != id || (WIFEXITED(status) && WEXITSTATUS(status) == 2) ||
        (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)) {
        fprintf(stderr, "test_emulation: %s could not be run\n", cases[which].name);
        exit(2);
    }
    return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

/* usage: test_emulation, or for one run: test_emulation CASE ORDER EARLY LATE */
int main(int count, char **words)
{
    if (count == 5)
        return run_here(atoi(words[1]), atoi(words[2]), atoi(words[3]), atoi(words[4]));
    int failures = 0, checks = 0;
    for (int k = 0; k < (int)(sizeof cases / sizeof cases[0]); k++) {
        const auto &c = cases[k];
        bool seen = c.caught_by & sanitizers; /* then nothing else is asked */
        /* A process costs a second under TSan: what it adds, and false alarms. */
        if (sanitizers == THREAD && !seen && c.caught_by != NONE)
            continue;
        const int orders = sanitizers == THREAD ? 1 : 3;
        int by[2][3] = {}, found[2] = {}, stream_late = caught(k, emulation::FORWARD, false, true);
        for (int early = 0; early < 2; early++)
            for (int order = 0; order < orders; order++)
                found[early] += by[early][order] = caught(k, order, early, false);
        int all = found[0] + found[1];
        bool fine = seen                   ? all > 0
                    : c.caught_by & EVERY  ? all == 6 && stream_late
                    : c.caught_by & ORDER  ? found[0] > 0 && found[1] > 0
                    : c.caught_by & LATE   ? found[0] == 3 && !found[1]
                    : c.caught_by & EARLY  ? !found[0] && found[1] > 0
                    : c.caught_by & STREAM ? !all && stream_late
                                           : !all && !stream_late;
        checks++;
        failures += !fine;
        printf("%-4s %-40s late %d%d%d early %d%d%d stream %d\n", fine ? "ok" : "FAIL", c.name, by[0][0], by[0][1],
               by[0][2], by[1][0], by[1][1], by[1][2], stream_late);
    }
    printf("%d cases of the emulator, %d failed\n", checks, failures);
    return failures > 0;
}
