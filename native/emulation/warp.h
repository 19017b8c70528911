/* warp.h: operations of a warp. Every lane of the mask hands in a value and
 * sees those of the others. */
#ifndef EMULATION_WARP_H
#define EMULATION_WARP_H

#include <string.h>

#include "schedule.h"

#define EMULATION_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

namespace emulation
{
inline unsigned lane() { return now.running->lane; }

template <class T> class exchange
{
    static_assert(sizeof(T) <= sizeof meeting::exchange[0][0], "too wide for an exchange");
    meeting &of;
    unsigned side;
    const char *file;
    int line;

  public:
    exchange(const T &value, uint32_t lanes, const char *f, int l)
        : of(meeting_of(lanes, f, l)), side(of.generation & 1), file(f), line(l)
    {
        memcpy(of.exchange[side][lane()], &value, sizeof value);
        warp_barrier(of, f, l);
    }
    /* What a lane handed in; CUDA leaves the value of another one undefined. */
    T at(unsigned from) const
    {
        if (!holds(from))
            die("a value is read from a lane outside the mask", file, line);
        T value;
        memcpy(&value, of.exchange[side][from], sizeof value);
        return value;
    }
    bool holds(unsigned from) const { return of.mask >> from & 1; }
};

template <class T, class F> T reduce(uint32_t mask, T value, F combine, const char *file, int line)
{
    exchange<T> all(value, mask, file, line);
    bool first = true;
    T result = value;
    for (unsigned i = 0; i < WARP; i++)
        if (all.holds(i)) {
            result = first ? all.at(i) : combine(result, all.at(i));
            first = false;
        }
    return result;
}
} // namespace emulation

inline void __syncwarp(uint32_t mask = ~0u, EMULATION_HERE)
{
    emulation::warp_barrier(emulation::meeting_of(mask, file, line), file, line);
}

template <class T> T __shfl_sync(uint32_t mask, T value, int source, int width = 32, EMULATION_HERE)
{
    emulation::exchange<T> all(value, mask, file, line);
    return all.at((emulation::lane() & ~(unsigned)(width - 1)) | ((unsigned)source & (unsigned)(width - 1)));
}
template <class T> T __shfl_xor_sync(uint32_t mask, T value, int bits, int width = 32, EMULATION_HERE)
{
    emulation::exchange<T> all(value, mask, file, line);
    unsigned from = emulation::lane() ^ (unsigned)bits;
    return from / (unsigned)width > emulation::lane() / (unsigned)width ? value : all.at(from);
}
template <class T> T __shfl_down_sync(uint32_t mask, T value, unsigned by, int width = 32, EMULATION_HERE)
{
    emulation::exchange<T> all(value, mask, file, line);
    unsigned from = emulation::lane() + by;
    return from / (unsigned)width != emulation::lane() / (unsigned)width ? value : all.at(from);
}
template <class T> T __shfl_up_sync(uint32_t mask, T value, unsigned by, int width = 32, EMULATION_HERE)
{
    emulation::exchange<T> all(value, mask, file, line);
    unsigned within = emulation::lane() & (unsigned)(width - 1);
    return within < by ? value : all.at(emulation::lane() - by);
}
inline uint32_t __ballot_sync(uint32_t mask, int predicate, EMULATION_HERE)
{
    emulation::exchange<int> all(predicate, mask, file, line);
    uint32_t bits = 0;
    for (unsigned i = 0; i < 32; i++)
        bits |= (uint32_t)(all.holds(i) && all.at(i)) << i;
    return bits;
}
inline int __any_sync(uint32_t mask, int predicate, EMULATION_HERE)
{
    return __ballot_sync(mask, predicate, file, line) != 0;
}
inline int __all_sync(uint32_t mask, int predicate, EMULATION_HERE)
{
    return __ballot_sync(mask, predicate, file, line) == mask;
}
inline unsigned __reduce_add_sync(uint32_t mask, unsigned value, EMULATION_HERE)
{
    return emulation::reduce(mask, value, [](unsigned a, unsigned b) { return a + b; }, file, line);
}
inline int __reduce_add_sync(uint32_t mask, int value, EMULATION_HERE)
{
    return emulation::reduce(mask, value, [](int a, int b) { return a + b; }, file, line);
}
template <class T> T __reduce_max_sync(uint32_t mask, T value, EMULATION_HERE)
{
    return emulation::reduce(mask, value, [](T a, T b) { return a > b ? a : b; }, file, line);
}
template <class T> T __reduce_min_sync(uint32_t mask, T value, EMULATION_HERE)
{
    return emulation::reduce(mask, value, [](T a, T b) { return a < b ? a : b; }, file, line);
}

#endif
