// SPDX-License-Identifier: Apache-2.0
// Names of the counters.
#include "engine/xlate/stats.h"

const char *const xstat_names[XS_COUNT] = {
    [XS_TLB_MISS] = "tlb_miss",
    [XS_TLB_FLUSH] = "tlb_flush",
    [XS_CONTEXT_KEPT] = "context_kept",
    [XS_TRANSLATIONS] = "translations",
    [XS_TRANSLATED_INSNS] = "translated_insns",
    [XS_CODE_BYTES] = "code_bytes",
    [XS_EMULATED] = "emulated",
    [XS_SLOW_EMULATE] = "slow_emulate",
    [XS_HELPERS] = "helpers",
    [XS_LINKS] = "links",
    [XS_JUMP_MISS] = "jump_miss",
    [XS_HOISTED] = "hoisted",
    [XS_UNGROUPED] = "ungrouped",
    [XS_PAGE_KILLS] = "page_kills",
    [XS_CACHE_FLUSHES] = "cache_flushes",
    [XS_FAULTS] = "faults",
    [XS_INTERRUPTS] = "interrupts",
    [XS_MMIO] = "mmio",
    [XS_PIO] = "pio",
};
