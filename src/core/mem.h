// SPDX-License-Identifier: Apache-2.0
// Guest-physical memory. The only way for a device to reach guest memory is mem_map/mem_unmap or
// mem_read/mem_write: they check address *and* length. Engines alone use mem_slots and mem_page.
//
// A RAM block is an own layer over an optional read-only base (a snapshot file, shared by many VMs). Without a base the
// own layer is a memfd. With one the block is a private mapping of the base: the host's kernel brings pages in on
// demand and copies a page at its first write (docs/STATE.md says why that is enough). Guest memory is volatile and
// hostile: copy once, check, use.
#ifndef CICADA_CORE_MEM_H
#define CICADA_CORE_MEM_H

#include <sys/uio.h>

#include "core/types.h"
#include "util/error.h"

struct mem;

enum mem_access { MEM_READ = 1, MEM_WRITE = 2, MEM_RW = 3 };

// Told about every write to guest memory that did not come from the engine itself (DMA, loaders), before the
// effect is announced to the guest: translated code of these bytes must be dead when it returns. Any thread.
struct mem_listener {
    void (*written)(void *ctx, gpa_t gpa, uint64_t len);
    void *ctx;
    struct mem_listener *next;
};

int mem_create(struct mem **mem, struct error *err);
void mem_destroy(struct mem *mem);

// Adds RAM (or ROM, which guest writes leave unchanged) at a page-aligned address. Before the vCPUs run.
int mem_add_ram(struct mem *mem, gpa_t base, uint64_t size, const char *name, struct error *err);
int mem_add_rom(struct mem *mem, gpa_t base, uint64_t size, const char *name, struct error *err);
void mem_add_listener(struct mem *mem, struct mem_listener *l);
void mem_remove_listener(struct mem *mem,
                         struct mem_listener *l); // no device writes meanwhile; one that is not there is legal
// Makes the file the contents of the RAM block that begins at `base`: its bytes at `offset` (page aligned), which are
// never written to. fd is borrowed. What the block held is gone. Before the vCPUs run; phase "open".
int mem_set_base(struct mem *mem, gpa_t base, int fd, uint64_t offset, struct error *err);

// Translates [gpa, gpa+len) to at most max iovecs. Returns their number, -EFAULT if any byte is not RAM
// (or not writable for MEM_WRITE), -ENOBUFS if max does not do. The mapping is valid until mem_unmap.
int mem_map(struct mem *mem, gpa_t gpa, uint64_t len, enum mem_access access, struct iovec *iov, int max);
// Much will be written to a mapping: its pages at one go instead of a fault for each. A wish.
void mem_populate(void *hva, uint64_t len);
// Ends a mapping. written: marks the pages dirty and tells the listeners. Call before the completion
// becomes visible to the guest. `len` is what was really written (at most what was mapped).
void mem_unmap(struct mem *mem, gpa_t gpa, uint64_t len, bool written);

// Copy in or out, with the same checks. 0 or -EFAULT; nothing is copied on failure.
int mem_read(struct mem *mem, gpa_t gpa, void *buf, uint64_t len);
int mem_write(struct mem *mem, gpa_t gpa, const void *buf, uint64_t len);
int mem_zero(struct mem *mem, gpa_t gpa, uint64_t len); // gives whole pages back to the host where it can
// Fills ROM or RAM at load time (also ROM). 0 or -EFAULT.
int mem_load(struct mem *mem, gpa_t gpa, const void *buf, uint64_t len);

uint64_t mem_ram_size(const struct mem *mem);     // bytes of RAM in all
uint64_t mem_ram_below_4g(const struct mem *mem); // end of the RAM that starts at 0, at most 4 GiB

// ---- for engines and for core only ----
struct mem_slot {
    uint64_t gpa, size; // page aligned
    uint8_t *hva;       // own layer, over the base where there is one
    bool rom;
    unsigned long *dirty; // one bit a page; set with atomic or
    const char *name;
    int fd; // memfd of the own layer, offset 0 = gpa; -1 where there is a base (nobody else can map the block then)
};
// Sorted by gpa, fixed once the vCPUs run.
const struct mem_slot *mem_slots(const struct mem *mem, unsigned *count);
const struct mem_slot *mem_find_slot(const struct mem *mem, uint64_t gpa);
// Host address of the page that holds gpa, for reading or for writing (writing marks it dirty);
// NULL when there is no RAM there, or for a write to ROM.
uint8_t *mem_page(struct mem *mem, uint64_t gpa, bool write);

// Dirty log: one bit per page since the last fetch. Engines keep write tags only on pages already marked.
void mem_mark_dirty(struct mem *mem, gpa_t gpa, uint64_t len);
// Moves the bits of one slot into out (pages/64 rounded up words) and clears them; the engine must have
// dropped its write tags first (engine_ops.dirty_sync). Returns the number of dirty pages.
uint64_t mem_dirty_fetch(struct mem *mem, const struct mem_slot *slot, unsigned long *out);

// ---- for state/: what has to be written out. Bitmaps as of mem_dirty_fetch; loop thread ----
uint64_t mem_bitmap_words(const struct mem_slot *slot);
// Sets in out the pages that can hold anything but zeroes. Negative errno where the host does not tell.
int mem_present(struct mem *mem, const struct mem_slot *slot, unsigned long *out);
// Pages written since the last checkpoint (since the machine was made or its base set, where there was none): those of
// the dirty log and all that were fetched from it. Fetch before, with the vCPUs stopped, for an exact answer.
void mem_since_checkpoint(struct mem *mem, const struct mem_slot *slot, unsigned long *out);
// A checkpoint: a snapshot that a later one may be the difference to. Fetch before, with the vCPUs stopped.
void mem_checkpoint(struct mem *mem, const struct mem_slot *slot);
// Takes it back: `since` is what mem_since_checkpoint said before.
void mem_checkpoint_undo(struct mem *mem, const struct mem_slot *slot, const unsigned long *since);
// There was one, or there is a base: a later snapshot may be a difference, which the dirty log makes small.
bool mem_has_checkpoint(const struct mem *mem);

#endif
