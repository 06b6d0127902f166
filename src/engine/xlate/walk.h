// SPDX-License-Identifier: Apache-2.0
// The page walk (Intel SDM vol. 3A ch. 4).
#ifndef CICADA_XLATE_WALK_H
#define CICADA_XLATE_WALK_H

#include "engine/xlate/xlate.h"

enum paging_mode { PAGING_NONE, PAGING_32, PAGING_PAE, PAGING_4LEVEL };

// Page-fault error code bits.
#define PFERR_P    1u
#define PFERR_W    2u
#define PFERR_U    4u
#define PFERR_RSVD 8u
#define PFERR_I    16u

struct walk {
    uint64_t gpa;  // of the 4 KiB page that holds the address
    bool user;     // U/S = 1 at every level
    bool writable; // R/W = 1 at every level
    bool nx;       // execution disabled at some level
    bool dirty;    // D = 1 in the leaf after the walk
    bool global;   // G = 1 in the leaf and CR4.PGE
    bool large;    // the leaf maps more than 4 KiB
};

// Walks lin for an access described by mmu_flags with the privilege `user`. set_ad: sets A, and D for writes, with
// locked operations. Returns 0 and fills *w, or the page-fault error code | WALK_FAULT.
#define WALK_FAULT 0x80000000u
uint32_t walk_page(struct xcpu *x, uint64_t lin, unsigned flags, bool user, bool set_ad, struct walk *w);

// Loads the PDPTRs of PAE paging from cr3; false when a reserved bit is set in a present one (#GP).
bool walk_load_pdptrs(struct xcpu *x, uint64_t cr3);

#endif
