/* atomic.h: atomics and fences. An atomic orders nothing by itself, as on the
 * device: TSan sees the order only where __threadfence makes it. */
#ifndef EMULATION_ATOMIC_H
#define EMULATION_ATOMIC_H

#include <string.h>

#include "fiber.h"

namespace emulation
{
template <class Word, class T, class F> T atomically(T *address, F change)
{
    Word *word = (Word *)address, old = __atomic_load_n(word, __ATOMIC_RELAXED), next;
    static_assert(sizeof(Word) == sizeof(T), "the word of an atomic has the value's size");
    T before;
    do {
        memcpy(&before, &old, sizeof before);
        T after = change(before);
        memcpy(&next, &after, sizeof next);
    } while (!__atomic_compare_exchange_n(word, &old, next, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return before;
}
inline char fence;
} // namespace emulation

#define EMULATION_ATOMIC(name, type, word, after)                                                                      \
    inline type name(type *address, type value)                                                                        \
    {                                                                                                                  \
        return emulation::atomically<word>(address, [=](type old) -> type { return after; });                          \
    }
#define EMULATION_ATOMICS(type, word)                                                                                  \
    EMULATION_ATOMIC(atomicAdd, type, word, old + value)                                                               \
    EMULATION_ATOMIC(atomicExch, type, word, ((void)old, value))
#define EMULATION_INTEGER_ATOMICS(type, word)                                                                          \
    EMULATION_ATOMICS(type, word)                                                                                      \
    EMULATION_ATOMIC(atomicMax, type, word, old > value ? old : value)                                                 \
    EMULATION_ATOMIC(atomicMin, type, word, old < value ? old : value)                                                 \
    EMULATION_ATOMIC(atomicOr, type, word, old | value)                                                                \
    inline type atomicCAS(type *address, type expected, type value)                                                    \
    {                                                                                                                  \
        return emulation::atomically<word>(address, [=](type old) -> type { return old == expected ? value : old; });  \
    }

EMULATION_ATOMICS(float, uint32_t)
EMULATION_ATOMICS(double, uint64_t)
EMULATION_INTEGER_ATOMICS(int, uint32_t)
EMULATION_INTEGER_ATOMICS(unsigned, uint32_t)
EMULATION_INTEGER_ATOMICS(unsigned long long, unsigned long long)
inline unsigned atomicInc(unsigned *address, unsigned limit)
{
    return emulation::atomically<uint32_t>(address, [=](unsigned old) { return old >= limit ? 0 : old + 1; });
}
#undef EMULATION_ATOMIC
#undef EMULATION_ATOMICS
#undef EMULATION_INTEGER_ATOMICS

inline void __threadfence()
{
    EMULATION_ACQUIRE(&emulation::fence);
    EMULATION_RELEASE(&emulation::fence);
}
inline void __threadfence_block() { __threadfence(); }

#endif
