// SPDX-License-Identifier: Apache-2.0
// Counters of one vCPU (struct xcpu.stat), in the order of their names in stats.c.
#ifndef CICADA_XLATE_STATS_H
#define CICADA_XLATE_STATS_H

enum xstat {
    XS_TLB_MISS,
    XS_TLB_FLUSH,
    XS_CONTEXT_KEPT, // MOV CR3 to a context whose entries were still good
    XS_TRANSLATIONS,
    XS_TRANSLATED_INSNS,
    XS_CODE_BYTES,
    XS_EMULATED,     // instructions run by the emulator from the run loop
    XS_SLOW_EMULATE, // of these: memory accesses that translated code could not do
    XS_HELPERS,      // calls of C helpers from translated code
    XS_LINKS,        // direct exits that came to C
    XS_JUMP_MISS,    // indirect jumps that missed the jump cache, or a stale guard
    XS_HOISTED,      // loops entered without checks, for a number of turns
    XS_UNGROUPED,    // check groups that failed
    XS_PAGE_KILLS,   // code pages dropped because they were written
    XS_CACHE_FLUSHES,
    XS_FAULTS,
    XS_INTERRUPTS,
    XS_MMIO,
    XS_PIO,
    XS_COUNT
};

extern const char *const xstat_names[XS_COUNT];

#endif
