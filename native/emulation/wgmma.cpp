/* Products of a warp group. A thread makes its own part of the result: both
 * factors lie in shared memory. */
#include <string.h>

#include "emulation.h"
#include "shared.h"

namespace emulation
{
/* A factor in shared memory, by its descriptor:
 *   bits 0-13   address / 16     16-29  leading offset / 16
 *   bits 32-45  stride / 16      49-51  base offset          62-63  swizzle
 * (r, k) is row r of M or N; a chunk is 16 bytes, W the bytes of the swizzle.
 *   K fast          eight rows W apart, the next eight `stride` on; the second
 *                   chunk beside the first, without a swizzle `leading` on
 *   M or N fast     W bytes along r, then `leading` on; eight k W apart, the next
 *                   eight `stride` on; without a swizzle the two change places */
struct factor {
    uint32_t address, leading, stride;
    unsigned width; /* 128, 64, 32, or 16 without a swizzle */
    bool slow;      /* K is not the fast dimension */

    factor(uint64_t descriptor, bool k_slow)
        : address((uint32_t)(descriptor & 0x3fff) << 4), leading((uint32_t)(descriptor >> 16 & 0x3fff) << 4),
          stride((uint32_t)(descriptor >> 32 & 0x3fff) << 4),
          width(descriptor >> 62 ? 16u << (4 - (descriptor >> 62)) : 16), slow(k_slow)
    {
    }

    float at(unsigned r, unsigned k, const char *file, int line) const
    {
        uint32_t to = address;
        if (!slow) {
            to += r % 8 * width + r / 8 * stride + k / 8 * (width > 16 ? 16 : leading) + k % 8 * 2;
        } else {
            unsigned row = width / 2;
            to += r % row * 2 + k % 8 * width;
            to += width > 16 ? r / row * leading + k / 8 * stride : r / row * stride + k / 8 * leading;
        }
        return __uint_as_float((uint32_t)async_load(swizzled(to, width) % WINDOW, file, line) << 16);
    }
};

EMULATION_UNSEEN static void multiply(const product &p, float *d)
{
    const factor a(p.a, p.a_slow), b(p.b, p.b_slow);
    const unsigned lane = now.running->lane, row = now.running->warp % 4 * 16 + lane / 4;
    float fa[2][16];
    for (unsigned half = 0; half < 2; half++)
        for (unsigned k = 0; k < 16; k++)
            fa[half][k] = a.at(row + 8 * half, k, p.file, p.line);
    for (unsigned j = 0; j < p.columns / 4; j++) { /* column 8 (j / 2) + 2 (lane % 4) + j % 2 */
        float *sum = d + j / 2 * 4 + j % 2;
        for (unsigned k = 0; k < 16; k++) {
            float fb = b.at(j / 2 * 8 + lane % 4 * 2 + j % 2, k, p.file, p.line);
            sum[0] += fa[0][k] * fb;
            sum[2] += fa[1][k] * fb;
        }
    }
}

static const uint32_t POISON = 0xffffffffu;

static accumulators &accumulators_of(thread &t, const product &p)
{
    for (accumulators &a : t.accumulating)
        if (a.d == p.d)
            return a;
    t.accumulating.push_back({p.d, 0, std::vector<float>(p.d, p.d + p.columns / 2)});
    for (unsigned i = 0; i < p.columns / 2; i++)
        memcpy(p.d + i, &POISON, sizeof POISON);
    return t.accumulating.back();
}

/* Makes a product; the last of its accumulators gives them back. */
static void finish(thread &t, const product &p)
{
    accumulators &a = accumulators_of(t, p);
    multiply(p, a.values.data());
    if (--a.pending)
        return;
    for (size_t i = 0; i < a.values.size(); i++)
        if (memcmp(p.d + i, &POISON, sizeof POISON))
            die("wgmma: an accumulator is written before the product is waited for", p.file, p.line);
    memcpy(p.d, a.values.data(), a.values.size() * sizeof(float));
    t.accumulating.erase(t.accumulating.begin() + (&a - t.accumulating.data()));
}

void wgmma(float *d, unsigned columns, uint64_t a, uint64_t b, bool a_slow, bool b_slow, const char *file, int line)
{
    struct descriptors {
        uint64_t a, b;
    } own = {a, b};
    exchange<descriptors> all(own, ~0u, file, line);
    thread &t = *now.running;
    if (all.at(0).a != a || all.at(0).b != b)
        die("wgmma: the lanes of a warp have different descriptors", file, line);
    if ((t.warp / 4 * 4 + 4) * WARP > now.count)
        die("wgmma: a group is four whole warps", file, line);
    for (uint64_t descriptor : {a, b})
        if (descriptor >> 49 & 7 || (descriptor >> 62 && descriptor >> 3 & 7))
            die("wgmma: a swizzled factor that does not begin at a multiple of 1024", file, line);
    if (!t.wgmma_fenced)
        die("wgmma: no wgmma.fence since the accumulators were last free", file, line);
    for (uint64_t word : {a, b, (uint64_t)line}) /* FNV */
        t.sequence = (t.sequence ^ word) * 0x100000001b3ull;
    if (t.products.empty())
        t.products.emplace_back();
    product p = {d, columns, a, b, a_slow, b_slow, file, line};
    t.products.back().push_back(p);
    if (current_settings().async_early)
        multiply(p, d);
    else
        accumulators_of(t, p).pending++;
}

EMULATION_UNSEEN static void let_others_run(thread &t)
{
    t.state = AT_PRODUCT;
    fiber_switch(&t.fiber, next());
}

/* Of a warp: when one lane goes on, the products of all are made. */
void wgmma_wait(unsigned pending, const char *file, int line)
{
    thread &t = *now.running;
    const bool late = !current_settings().async_early;
    if (late && t.products.size() > pending + 1)
        let_others_run(t);
    for (; t.products.size() > pending + 1; t.products.erase(t.products.begin()))
        if (late)
            for (const product &p : t.products.front())
                finish(t, p);
    warp_barrier(meeting_of(~0u, file, line), file, line);
    t.wgmma_fenced = false;
}

EMULATION_UNSEEN void wgmma_end()
{
    thread &t = *now.running;
    for (const auto &group : t.products)
        if (!group.empty())
            die("a thread ends with wgmma that it has not waited for", group[0].file, group[0].line);
    t.products.clear();
    for (unsigned warp = t.warp / 4 * 4; warp < t.warp / 4 * 4 + 4 && (warp + 1) * WARP <= now.count; warp++) {
        const thread &other = now.crew_of->threads[warp * WARP];
        if (other.state == DONE && other.sequence != t.sequence)
            die("the warps of a group did not issue the same wgmma", nullptr, 0);
    }
}
} // namespace emulation

void wgmma_fence() { emulation::now.running->wgmma_fenced = true; }

void wgmma_commit()
{
    auto &groups = emulation::now.running->products;
    if (groups.empty())
        groups.emplace_back();
    groups.emplace_back();
}
