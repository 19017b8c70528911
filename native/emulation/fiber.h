/* fiber.h: coroutines with their own stacks, 15 instructions a switch on
 * x86-64, ucontext elsewhere. Sanitizers are told of every switch. */
#ifndef EMULATION_FIBER_H
#define EMULATION_FIBER_H

#include <stddef.h>

#if defined(__SANITIZE_THREAD__)
extern "C" {
void *__tsan_create_fiber(unsigned flags);
void *__tsan_get_current_fiber(void);
void __tsan_switch_to_fiber(void *fiber, unsigned flags);
void __tsan_acquire(void *address);
void __tsan_release(void *address);
}
/* The scheduler runs on the stacks of the fibers: it is no thread of its own. */
#define EMULATION_UNSEEN __attribute__((no_sanitize("thread"), noinline))
#define EMULATION_ACQUIRE(address) __tsan_acquire(address)
#define EMULATION_RELEASE(address) __tsan_release(address)
#else
#define EMULATION_UNSEEN __attribute__((noinline))
#define EMULATION_ACQUIRE(address) ((void)(address))
#define EMULATION_RELEASE(address) ((void)(address))
#endif

namespace emulation
{
struct fiber {
    void *context;     /* saved stack pointer, or a ucontext_t */
    const char *stack; /* lowest address; for the caller's own stack known after the first switch */
    size_t stack_bytes;
    void *fake_stack; /* ASan's */
    void *thread;     /* TSan's */
};

/* Gives f a stack with a guard page, on which entry runs at the first switch;
 * entry must not return. */
void fiber_create(fiber *f, void (*entry)());
/* Makes f stand for the running thread. */
void fiber_adopt(fiber *f);
void fiber_switch(fiber *from, fiber *to);
/* To be called first on a new fiber. */
void fiber_started();
} // namespace emulation

#endif
