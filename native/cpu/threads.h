/* threads.h: a fixed pool of workers for the cpu backend. */
#ifndef ONCEUPON_THREADS_H
#define ONCEUPON_THREADS_H

typedef struct thread_pool thread_pool;

/* body(argument, task, worker): called for every task 0..tasks-1, by any of
 * workers 0..threads-1, in any order. Results must not depend on the order. */
typedef void (*thread_body)(void *argument, int task, int worker);

/* The caller is worker 0; threads - 1 more are started. NULL on failure. */
thread_pool *thread_pool_create(int threads);
void thread_pool_destroy(thread_pool *pool);
int thread_pool_size(const thread_pool *pool);

/* Returns when all tasks are done. */
void thread_pool_run(thread_pool *pool, int tasks, thread_body body, void *argument);

#endif
