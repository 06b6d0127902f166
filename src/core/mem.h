// SPDX-License-Identifier: Apache-2.0
// Guest-physical memory. The only way for a device to reach guest memory is mem_map/mem_unmap or
// mem_read/mem_write: they check address *and* length. Engines alone use mem_slots and mem_page.
//
// A RAM block is an optional read-only base (a snapshot file, shared by many VMs) plus an own layer (memfd).
// Without a base every page lives in the own layer. Guest memory is volatile and hostile: copy once, check, use.
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

// Translates [gpa, gpa+len) to at most max iovecs. Returns their number, -EFAULT if any byte is not RAM
// (or not writable for MEM_WRITE), -ENOBUFS if max does not do. The mapping is valid until mem_unmap.
int mem_map(struct mem *mem, gpa_t gpa, uint64_t len, enum mem_access access, struct iovec *iov, int max);
// Ends a mapping. written: marks the pages dirty and tells the listeners. Call before the completion
// becomes visible to the guest. `len` is what was really written (at most what was mapped).
void mem_unmap(struct mem *mem, gpa_t gpa, uint64_t len, bool written);

// Copy in or out, with the same checks. 0 or -EFAULT; nothing is copied on failure.
int mem_read(struct mem *mem, gpa_t gpa, void *buf, uint64_t len);
int mem_write(struct mem *mem, gpa_t gpa, const void *buf, uint64_t len);
// Fills ROM or RAM at load time (also ROM). 0 or -EFAULT.
int mem_load(struct mem *mem, gpa_t gpa, const void *buf, uint64_t len);

uint64_t mem_ram_size(const struct mem *mem);     // bytes of RAM in all
uint64_t mem_ram_below_4g(const struct mem *mem); // end of the RAM that starts at 0, at most 4 GiB

// ---- for engines and for core only ----
struct mem_slot {
    uint64_t gpa, size; // page aligned
    uint8_t *hva;       // own layer
    bool rom;
    unsigned long *dirty; // one bit a page; set with atomic or
    const char *name;
    int fd; // memfd of the own layer, offset 0 = gpa
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

#endif
