/* shared.h: shared memory as the async proxy has it: by addresses of the shared
 * window, as descriptors hold them. Arrays of a block lie from 1040 on, dynamic
 * shared memory at 128 beyond a multiple of 1024: CUDA promises no more. */
#ifndef EMULATION_SHARED_H
#define EMULATION_SHARED_H

#include "schedule.h"

namespace emulation
{
enum { WINDOW = 256 << 10, ARRAYS_AT = 1040, DYNAMIC_AT = (16 << 10) + 128 };

/* What a thread sees at an address, or the program ends. */
unsigned char *shared_memory(uint32_t address, unsigned bytes, const char *file, int line);
/* Two bytes as the async proxy sees them. */
uint16_t async_load(uint32_t address, const char *file, int line);
void async_store(uint32_t address, uint16_t value, const char *file, int line);
/* 16-byte chunks of a row of `width` bytes are permuted by the row's number
 * modulo 8, which bits 7 to 9 of the address hold. */
inline uint32_t swizzled(uint32_t address, unsigned width) { return address ^ (address >> 3 & (width - 16)); }
} // namespace emulation

#endif
