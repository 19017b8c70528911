#include "fiber.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace emulation
{
static const size_t stack_bytes = 256 << 10, guard_bytes = 4096;

#if defined(__x86_64__)
/* Saves the registers that a call must keep, and changes stacks. */
extern "C" void emulation_switch(void **from, void *to);
asm(".text\n"
    ".globl emulation_switch\n"
    ".hidden emulation_switch\n"
    ".type emulation_switch,@function\n"
    "emulation_switch:\n"
    " push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
    " mov %rsp,(%rdi)\n mov %rsi,%rsp\n"
    " pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n"
    " ret\n"
    ".size emulation_switch,.-emulation_switch\n");
#endif

EMULATION_UNSEEN void fiber_create(fiber *f, void (*entry)())
{
    char *memory = (char *)mmap(nullptr, stack_bytes + guard_bytes, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, guard_bytes, PROT_NONE)) {
        fprintf(stderr, "emulation: no memory for the stack of a thread\n");
        abort();
    }
    char *stack = memory + guard_bytes;
    f->stack = stack;
    f->stack_bytes = stack_bytes;
    f->fake_stack = nullptr;
    f->thread = nullptr;
#if defined(__x86_64__)
    void **top = (void **)(stack + stack_bytes - 64);
    *--top = nullptr; /* where entry would return to */
    *--top = (void *)entry;
    top -= 6; /* the registers that the first switch takes from here */
    f->context = top;
#else
    ucontext_t *context = (ucontext_t *)calloc(1, sizeof *context);
    if (!context)
        abort();
    getcontext(context);
    context->uc_stack.ss_sp = stack;
    context->uc_stack.ss_size = stack_bytes;
    makecontext(context, entry, 0);
    f->context = context;
#endif
#if defined(__SANITIZE_THREAD__)
    f->thread = __tsan_create_fiber(0);
#endif
}

EMULATION_UNSEEN void fiber_adopt(fiber *f)
{
    f->stack = nullptr;
#if !defined(__x86_64__)
    if (!f->context)
        f->context = calloc(1, sizeof(ucontext_t));
#endif
#if defined(__SANITIZE_THREAD__)
    f->thread = __tsan_get_current_fiber();
#endif
}

/* Where the stack lies that was left, which ASan alone knows of the caller's. */
EMULATION_UNSEEN static void arrived(void *fake_stack, fiber *left)
{
#if defined(__SANITIZE_ADDRESS__)
    const void *bottom;
    size_t bytes;
    __sanitizer_finish_switch_fiber(fake_stack, &bottom, &bytes);
    if (left && !left->stack) {
        left->stack = (const char *)bottom;
        left->stack_bytes = bytes;
    }
#else
    (void)fake_stack, (void)left;
#endif
}

static fiber *leaving;

EMULATION_UNSEEN void fiber_switch(fiber *from, fiber *to)
{
    if (from == to) /* chosen again: its context is the one before this call */
        return;
    leaving = from;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&from->fake_stack, to->stack, to->stack_bytes);
#endif
#if defined(__SANITIZE_THREAD__)
    __tsan_switch_to_fiber(to->thread, 1); /* 1: a switch orders nothing */
#endif
#if defined(__x86_64__)
    emulation_switch(&from->context, to->context);
#else
    swapcontext((ucontext_t *)from->context, (ucontext_t *)to->context);
#endif
    arrived(from->fake_stack, leaving);
}

EMULATION_UNSEEN void fiber_started() { arrived(nullptr, leaving); }
} // namespace emulation
