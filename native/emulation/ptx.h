/* ptx.h: the instructions that native/cuda/ptx.cuh wraps, with the layout of
 * their fragments as in the PTX ISA, section "Matrix fragments for
 * mma.m16n8k16". */
#ifndef EMULATION_PTX_H
#define EMULATION_PTX_H

#include <string.h>

#include "bf16.h"
#include "warp.h"

/* d += a b: a (16,16) row-major, b (16,8) column-major, d (16,8). */
inline void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], EMULATION_HERE)
{
    struct fragment {
        uint32_t a[4], b[2];
    } own;
    memcpy(own.a, a, sizeof own.a);
    memcpy(own.b, b, sizeof own.b);
    emulation::exchange<fragment> all(own, ~0u, file, line);
    auto half = [](uint32_t pair, int which) { return __uint_as_float(which ? pair & 0xffff0000u : pair << 16); };
    unsigned group = emulation::lane() >> 2, within = emulation::lane() & 3;
    for (unsigned quarter = 0; quarter < 4; quarter++) { /* holds columns 2q, 2q+1, 2q+8, 2q+9 of a */
        fragment fa = all.at(group * 4 + quarter);
        for (unsigned column = 0; column < 2; column++) {
            fragment fb = all.at((within * 2 + column) * 4 + quarter);
            for (int k = 0; k < 2; k++) {
                d[column] += half(fa.a[0], k) * half(fb.b[0], k) + half(fa.a[2], k) * half(fb.b[1], k);
                d[2 + column] += half(fa.a[1], k) * half(fb.b[0], k) + half(fa.a[3], k) * half(fb.b[1], k);
            }
        }
    }
}

namespace emulation
{
struct matrix_row {
    uint16_t half[8];
};

template <int MATRICES, bool TRANSPOSED>
inline void ldmatrix(uint32_t (&r)[MATRICES], const void *row, const char *file, int line)
{
    matrix_row own = {};
    if (lane() < MATRICES * 8) { /* the addresses of the other lanes are not used */
        if ((uintptr_t)row % 16)
            die("ldmatrix: the address of a row is not a multiple of 16", file, line);
        memcpy(&own, row, sizeof own);
    }
    exchange<matrix_row> all(own, ~0u, file, line);
    unsigned group = lane() >> 2, within = lane() & 3;
    for (unsigned j = 0; j < MATRICES; j++) {
        uint32_t low = TRANSPOSED ? all.at(j * 8 + within * 2).half[group] : all.at(j * 8 + group).half[within * 2];
        uint32_t high =
            TRANSPOSED ? all.at(j * 8 + within * 2 + 1).half[group] : all.at(j * 8 + group).half[within * 2 + 1];
        r[j] = low | high << 16;
    }
}

inline void issue(pending_copy copy, const char *file, int line)
{
    if ((uintptr_t)copy.to % 16 || (copy.bytes && (uintptr_t)copy.from % 16))
        die("cp.async: an address is not a multiple of 16", file, line);
    auto &groups = now.running->copies;
    if (groups.empty())
        groups.emplace_back();
    groups.back().push_back(copy);
}

inline void land(const pending_copy &copy)
{
    memcpy(copy.to, copy.from, copy.bytes);
    memset((char *)copy.to + copy.bytes, 0, copy.zeros);
}
} // namespace emulation

inline void ldmatrix_x4(uint32_t (&r)[4], const void *row, EMULATION_HERE)
{
    emulation::ldmatrix<4, false>(r, row, file, line);
}
inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void *row, EMULATION_HERE)
{
    emulation::ldmatrix<4, true>(r, row, file, line);
}
inline void ldmatrix_x2(uint32_t (&r)[2], const void *row, EMULATION_HERE)
{
    emulation::ldmatrix<2, false>(r, row, file, line);
}
inline void ldmatrix_x2_trans(uint32_t (&r)[2], const void *row, EMULATION_HERE)
{
    emulation::ldmatrix<2, true>(r, row, file, line);
}

/* Copies land at the wait, the latest moment that the device may choose, or at
 * once, the earliest; in both cases the thread owes a wait. */
inline void cp_async16_zfill(void *shared, const void *global, unsigned bytes, EMULATION_HERE)
{
    if (bytes > 16)
        emulation::die("cp.async: more than 16 bytes", file, line);
    emulation::pending_copy copy = {shared, global, bytes, 16 - bytes};
    emulation::issue(copy, file, line);
    if (emulation::current_settings().async_early)
        emulation::land(copy);
}
inline void cp_async16(void *shared, const void *global, EMULATION_HERE)
{
    cp_async16_zfill(shared, global, 16, file, line);
}
inline void cp_async_commit()
{
    auto &groups = emulation::now.running->copies;
    if (groups.empty())
        groups.emplace_back();
    groups.emplace_back();
}
/* Waits until at most PENDING committed groups are under way. */
template <int PENDING> inline void cp_async_wait()
{
    auto &groups = emulation::now.running->copies;
    while (groups.size() > PENDING + 1u) {
        if (!emulation::current_settings().async_early)
            for (const auto &copy : groups.front())
                emulation::land(copy);
        groups.erase(groups.begin());
    }
}

#endif
