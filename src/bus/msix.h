// SPDX-License-Identifier: Apache-2.0
// MSI-X: vector table and pending bits in a BAR of a PCI device. PCI Local Bus Specification 3.0, 6.8.2.
#ifndef CICADA_BUS_MSIX_H
#define CICADA_BUS_MSIX_H

#include "bus/pci.h"

#define MSIX_VECTORS_MAX 64 // one word of pending bits
#define MSIX_ENTRY_SIZE  16

struct msix {
    struct pci_device *dev;
    unsigned cap; // offset of the capability
    unsigned count;
    pthread_mutex_t lock; // guards everything below; taken last, after any device lock
    uint8_t table[MSIX_VECTORS_MAX * MSIX_ENTRY_SIZE];
    uint64_t pending;
    bool enabled, function_mask;
};

// Adds the capability: table and PBA at these offsets of the BAR. -EINVAL for more than MSIX_VECTORS_MAX vectors,
// -ENOSPC without room in configuration space.
int msix_init(struct msix *x, struct pci_device *dev, unsigned count, unsigned bar, uint32_t table_offset,
              uint32_t pba_offset);
void msix_fini(struct msix *x);
void msix_reset(struct msix *x);

// The device's BAR handlers pass accesses to the two areas on; offset from their start.
void msix_table_read(struct msix *x, struct bus_access *a);
void msix_table_write(struct msix *x, const struct bus_access *a);
void msix_pba_read(struct msix *x, struct bus_access *a);
// From pci_device_ops.config_written.
void msix_config_written(struct msix *x);

bool msix_enabled(struct msix *x);
// Sends the vector, or leaves it pending while it is masked. Vectors out of range are dropped. Thread-safe.
void msix_notify(struct msix *x, unsigned vector);

void msix_save(struct msix *x, struct state_writer *w);
void msix_load(struct msix *x, struct state_reader *r); // after the PCI configuration space

#endif
