/* emulation.h: what device.cuh includes instead of CUDA's headers when a .cu
 * file is built as C++ (STUDENT_EMULATION). One fiber stands for one thread of
 * a block, blocks run one after another; barriers, shuffles, shared memory,
 * bf16, mma, ldmatrix, cp.async, TMA, wgmma, streams, events and graphs have the meaning
 * that CUDA gives them, and what CUDA leaves undefined is reported or made
 * visible. For tests only.
 *
 * What shows what:
 *   schedule.h  order of threads and blocks; divergent barriers; deadlocks
 *   warp.h      lanes that a mask names and that are absent
 *   ptx.h       cp.async early or late; misaligned addresses
 *   hopper.h    TMA and wgmma early or late; phases of mbarriers; descriptors
 *   runtime.h   work of a stream that runs late
 *   shared memory is filled with NaN before every block, device memory when
 *   it is allocated; ASan, UBSan and TSan see fibers as threads.
 */
#ifndef EMULATION_H
#define EMULATION_H

#include "types.h"
#include "bf16.h"
#include "schedule.h"
#include "runtime.h"
#include "warp.h"
#include "atomic.h"
#include "arithmetic.h"
#include "ptx.h"
#include "hopper.h"

#endif
