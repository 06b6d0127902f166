// SPDX-License-Identifier: Apache-2.0
// Dispatch of port and memory-mapped accesses to devices. Ranges are registered while the board is built
// or when a PCI BAR moves; look-up is a binary search under a reader-writer lock.
#ifndef CICADA_BUS_BUS_H
#define CICADA_BUS_BUS_H

#include "core/types.h"
#include "util/error.h"

struct bus;

struct bus_access {
    uint64_t offset; // from the start of the range
    uint64_t data;   // zero-extended
    uint8_t size;    // bytes: 1, 2, 4, 8
    unsigned vcpu;   // index of the vCPU that makes the access
};

struct bus_ops {
    const char *name;
    // Fills a->data for a read. Runs on the vCPU thread; the device takes its own lock.
    // An access that the device does not know reads all ones and is dropped on a write.
    void (*read)(void *ctx, struct bus_access *a);
    void (*write)(void *ctx, const struct bus_access *a);
};

int bus_create(struct bus **bus, const char *name, struct error *err); // one for PIO, one for MMIO
void bus_destroy(struct bus *bus);
// [base, base+len) must not overlap a range already there: -EEXIST. Thread-safe.
int bus_map(struct bus *bus, uint64_t base, uint64_t len, const struct bus_ops *ops, void *ctx);
// The same for a range that lies behind those of bus_map: it gets the accesses that no one of them holds whole.
// The x86 port 0xcf8 needs it: a dword there is the PCI address register, a byte at 0xcf9 the reset register.
int bus_map_background(struct bus *bus, uint64_t base, uint64_t len, const struct bus_ops *ops, void *ctx);
// Ends the range that starts at base (a background one only if there is no other). A handler that another vCPU
// has entered before may still be running: devices outlive their ranges.
void bus_unmap(struct bus *bus, uint64_t base);
// Returns true where a range answered. An access over the end of a range is split at it by bytes;
// unmapped reads give all ones.
bool bus_read(struct bus *bus, uint64_t addr, unsigned size, unsigned vcpu, uint64_t *data);
bool bus_write(struct bus *bus, uint64_t addr, unsigned size, unsigned vcpu, uint64_t data);

#endif
