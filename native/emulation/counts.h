/* counts.h: what the emulation has been asked for, for tests: a symbol of the
 * emulated library that a card's has not. */
#ifndef EMULATION_COUNTS_H
#define EMULATION_COUNTS_H

#ifdef __cplusplus
extern "C" {
#endif

typedef struct emulation_counts {
    long allocations; /* of device or pinned memory */
    long waits;       /* of the host for a stream or an event */
    long launches;    /* of kernels; those that are recorded count once */
    long graphs;      /* launches of a recording */
} emulation_counts;

const emulation_counts *emulation_counted(void);

#ifdef __cplusplus
}
#endif
#endif
