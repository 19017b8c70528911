/* packet.cuh: eight neighbouring elements as floats. A thread of a bandwidth-
 * bound kernel moves packets: 16 bytes of bf16, twice 16 of float. */
#ifndef CUDA_PACKET_CUH
#define CUDA_PACKET_CUH

#include "device.cuh"

enum { PACKET = 8 };

struct packet {
    float at[PACKET];
};

__device__ __forceinline__ packet load_packet(const float *from)
{
    float4 a = load4(from), b = load4(from + 4);
    return {{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
}

__device__ __forceinline__ packet load_packet(const bf16 *from)
{
    uint4 u = *(const uint4 *)from;
    return {{low_bf16(u.x), high_bf16(u.x), low_bf16(u.y), high_bf16(u.y), low_bf16(u.z), high_bf16(u.z), low_bf16(u.w),
             high_bf16(u.w)}};
}

__device__ __forceinline__ void store_packet(float *to, const packet &p)
{
    store4(to, make_float4(p.at[0], p.at[1], p.at[2], p.at[3]));
    store4(to + 4, make_float4(p.at[4], p.at[5], p.at[6], p.at[7]));
}

__device__ __forceinline__ void store_packet(bf16 *to, const packet &p)
{
    *(uint4 *)to = make_uint4(pack_bf16(p.at[0], p.at[1]), pack_bf16(p.at[2], p.at[3]), pack_bf16(p.at[4], p.at[5]),
                              pack_bf16(p.at[6], p.at[7]));
}

/* The first `left` elements of a packet, the rest 0; element by element where
 * the array ends or is not aligned. */
template <class T> __device__ __forceinline__ packet load_part(const T *from, int left, bool aligned)
{
    if (aligned && left >= PACKET)
        return load_packet(from);
    packet p;
#pragma unroll
    for (int i = 0; i < PACKET; i++)
        p.at[i] = i < left ? to_float(from[i]) : 0.0f;
    return p;
}

template <class T> __device__ __forceinline__ void store_part(T *to, const packet &p, int left, bool aligned)
{
    if (aligned && left >= PACKET) {
        store_packet(to, p);
        return;
    }
#pragma unroll
    for (int i = 0; i < PACKET; i++)
        if (i < left)
            to[i] = from_float<T>(p.at[i]);
}

/* Whether packets of all these arrays start at multiples of 16 bytes. */
static inline bool all_aligned() { return true; }
template <class... Rest> static inline bool all_aligned(const void *first, Rest... rest)
{
    return (uintptr_t)first % 16 == 0 && all_aligned(rest...);
}

#endif
