/* A pool. Every worker has a range of the tasks, which it takes in rising
 * order, so that one follows the other in memory and the caches; then it takes
 * what is left of the others'. Workers spin briefly before they sleep: an op
 * follows the last one within microseconds, but the teacher's threads need the
 * cores when the student rests. */
#include "threads.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

#define SPINS 2000 /* some tens of microseconds */

typedef struct range {
    _Alignas(64) atomic_int next;
    int end;
} range;

struct thread_pool {
    int threads, started;
    range *ranges; /* [threads] */
    pthread_t *handles;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    atomic_uint round; /* grows by one for every run */
    atomic_int busy, stop;
    thread_body body;
    void *argument;
};

typedef struct worker {
    thread_pool *pool;
    int index;
} worker;

static inline void pause_cpu(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static void work(thread_pool *p, int index)
{
    for (int i = 0; i < p->threads; i++) {
        range *r = &p->ranges[(index + i) % p->threads];
        for (int task; (task = atomic_fetch_add(&r->next, 1)) < r->end;)
            p->body(p->argument, task, index);
    }
}

static void *worker_main(void *argument)
{
    worker self = *(worker *)argument;
    free(argument);
    thread_pool *p = self.pool;
    unsigned seen = 0;
    for (;;) {
        int spins = 0;
        while (atomic_load(&p->round) == seen && spins++ < SPINS)
            pause_cpu();
        if (atomic_load(&p->round) == seen) {
            pthread_mutex_lock(&p->lock);
            while (atomic_load(&p->round) == seen)
                pthread_cond_wait(&p->wake, &p->lock);
            pthread_mutex_unlock(&p->lock);
        }
        seen = atomic_load(&p->round);
        if (atomic_load(&p->stop))
            return NULL;
        work(p, self.index);
        atomic_fetch_sub(&p->busy, 1);
    }
}

static void start_round(thread_pool *p)
{
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->round, 1);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
}

thread_pool *thread_pool_create(int threads)
{
    thread_pool *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    p->threads = threads;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    p->handles = calloc((size_t)threads, sizeof *p->handles);
    p->ranges = aligned_alloc(_Alignof(range), (size_t)threads * sizeof *p->ranges);
    for (int i = 1; p->handles && p->ranges && i < threads; i++) {
        worker *w = malloc(sizeof *w);
        if (!w)
            break;
        *w = (worker){p, i};
        if (pthread_create(&p->handles[i], NULL, worker_main, w) != 0) {
            free(w);
            break;
        }
        p->started++;
    }
    if (!p->handles || !p->ranges || p->started != threads - 1) {
        thread_pool_destroy(p);
        return NULL;
    }
    return p;
}

void thread_pool_destroy(thread_pool *p)
{
    if (!p)
        return;
    atomic_store(&p->stop, 1);
    start_round(p);
    for (int i = 1; i <= p->started; i++)
        pthread_join(p->handles[i], NULL);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    free(p->handles);
    free(p->ranges);
    free(p);
}

int thread_pool_size(const thread_pool *p) { return p->threads; }

void thread_pool_run(thread_pool *p, int tasks, thread_body body, void *argument)
{
    if (p->threads == 1 || tasks == 1) {
        for (int task = 0; task < tasks; task++)
            body(argument, task, 0);
        return;
    }
    p->body = body;
    p->argument = argument;
    for (int i = 0; i < p->threads; i++) {
        atomic_store(&p->ranges[i].next, (int)((int64_t)tasks * i / p->threads));
        p->ranges[i].end = (int)((int64_t)tasks * (i + 1) / p->threads);
    }
    atomic_store(&p->busy, p->started);
    start_round(p);
    work(p, 0);
    /* Every worker must have left the round before its fields change. */
    int spins = 0;
    while (atomic_load(&p->busy) > 0)
        if (spins++ < SPINS)
            pause_cpu();
        else
            sched_yield();
}
