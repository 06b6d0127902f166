// SPDX-License-Identifier: Apache-2.0
// The soft TLB: what translated code and the walk share.
//
// Invariants:
// - a slot that is not in use holds tags that can never match an address that indexes it;
// - wtag is set only when the page's D bit is set, the page is RAM, marked in the dirty log, and holds no code;
// - only the owning vCPU fills slots; others may clear write tags (smc.c), with a plain store.
#ifndef CICADA_XLATE_MMU_H
#define CICADA_XLATE_MMU_H

#include "engine/xlate/xlate.h"

static inline unsigned tlb_index(uint64_t lin) {
    return (lin >> PAGE_SHIFT) & (TLB_SIZE - 1);
}
// A page whose index is another slot's: 0 for nearly all, which fresh memory holds without being touched.
static inline uint64_t tlb_invalid_tag(unsigned index) {
    return index == 0 ? PAGE_SIZE : 0;
}

void tlb_init(struct xcpu *x);
void tlb_note_large(struct xcpu *x, uint64_t lin,
                    bool global); // something was cached that lies in a page larger than 4 KiB
void tlb2_flush(struct xcpu *x, enum tlb_kind kind);
void tlb_own_sites_clear(struct xcpu *x); // as tlb_clear_sites, on the vCPU's own thread
// Is the page in the second level (for writing)? *host: its host page.
bool tlb2_find(const struct xcpu *x, enum tlb_kind kind, uint64_t lin, bool write, uint64_t *host);
void tlb2_new_generation(struct xcpu *x, enum tlb_kind kind);
// First level, for a switch of contexts: all entries but global ones.
void tlb_drop_private(struct xcpu *x, enum tlb_kind kind);

// tlb_context.c: MOV CR3 with CR4.PCIDE. keep: bit 63, what the new context left behind may still be used.
void context_switch(struct xcpu *x, uint16_t from, uint16_t to, bool keep);
void context_forget(struct xcpu *x, uint16_t pcid);
void context_forget_all(struct xcpu *x); // any thread
void tlb_flush_kind(struct xcpu *x, enum tlb_kind kind, bool globals_too);
// Removes write tags of a guest-physical page (any thread), or of all pages.
void tlb_drop_write_tags(struct xcpu *x, uint64_t gpa_page);
// Forgets the pages of all sites (any thread; one that its owner is filling right now may stay, see smc_protect).
void tlb_clear_sites(struct xcpu *x);
void tlb_drop_all_write_tags(struct xcpu *x);

// Fills the slot for lin. X_OK: *host is the page (NULL when it is no RAM, or a write to a page that must take the slow
// path: ROM, code page); *gpa is the guest-physical page. X_FAULT as the walk says.
enum xres tlb_fill(struct xcpu *x, enum tlb_kind kind, uint64_t lin, unsigned flags, uint8_t **host, uint64_t *gpa);

// Loads the PAE page directory pointers that follow from a state just set. 0, or -1 if they are malformed.
int mmu_restore_pdptrs(struct xcpu *x);

#endif
