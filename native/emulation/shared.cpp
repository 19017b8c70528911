#include "shared.h"

#include "hopper.h"

namespace emulation
{
/* The window as the async proxy last saw it. */
static unsigned char view[WINDOW];
static uint64_t view_serial;

/* By words and not by memcpy, which TSan would take for accesses of a thread. */
EMULATION_UNSEEN static void show(uint32_t address, const unsigned char *memory, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        *(volatile unsigned char *)(view + address + i) = memory[i];
}

EMULATION_UNSEEN static unsigned char *seen(uint32_t address)
{
    if (view_serial != now.serial)
        for (volatile unsigned char *p = view; p < view + WINDOW; p++)
            *p = 0xff;
    view_serial = now.serial;
    return view + address;
}

EMULATION_UNSEEN unsigned char *shared_memory(uint32_t address, unsigned bytes, const char *file, int line)
{
    if (address >= DYNAMIC_AT && address + bytes <= DYNAMIC_AT + now.shared_bytes)
        return now.shared + (address - DYNAMIC_AT);
    for (unsigned i = 0; i < now.arrays; i++) {
        const shared_array &a = *now.array[i];
        if (address >= a.address && address + bytes <= a.address + a.bytes)
            return a.memory + (address - a.address);
    }
    die("an address outside of shared memory", file, line);
}

EMULATION_UNSEEN uint16_t async_load(uint32_t address, const char *file, int line)
{
    unsigned char *memory = shared_memory(address, 2, file, line);
    return *(uint16_t *)(current_settings().async_early ? memory : seen(address));
}

EMULATION_UNSEEN void async_store(uint32_t address, uint16_t value, const char *file, int line)
{
    *(uint16_t *)shared_memory(address, 2, file, line) = value;
    *(uint16_t *)seen(address) = value;
}
} // namespace emulation

using namespace emulation;

EMULATION_UNSEEN uint32_t shared_address(const void *p, const char *file, int line)
{
    const unsigned char *at = (const unsigned char *)p;
    if (at >= now.shared && at < now.shared + now.shared_bytes)
        return DYNAMIC_AT + (uint32_t)(at - now.shared);
    for (unsigned i = 0; i < now.arrays; i++) {
        const shared_array &a = *now.array[i];
        if (at >= a.memory && at < a.memory + a.bytes && a.address + a.bytes <= DYNAMIC_AT)
            return a.address + (uint32_t)(at - a.memory);
    }
    die("the address of what is not in shared memory", file, line);
}

EMULATION_UNSEEN void shared_to_async()
{
    seen(0);
    show(DYNAMIC_AT, now.shared, now.shared_bytes);
    for (unsigned i = 0; i < now.arrays; i++)
        if (now.array[i]->address + now.array[i]->bytes <= DYNAMIC_AT)
            show(now.array[i]->address, now.array[i]->memory, now.array[i]->bytes);
}
