// SPDX-License-Identifier: Apache-2.0
// Between pci.c (one device) and pci_host.c (the bus). Nobody else includes it. The host's lock is held in all
// functions of pci_device_*.
#ifndef CICADA_BUS_PCI_HOST_H
#define CICADA_BUS_PCI_HOST_H

#include "bus/pci.h"

struct irq_line *pci_host_line(struct pci_host *host, unsigned gsi);
void pci_host_detach(struct pci_host *host, struct pci_device *dev); // takes the lock

void pci_device_reset(struct pci_device *dev);
void pci_device_command_changed(struct pci_device *dev);
// Takes BARs off the bus that are no longer where they should be (all: every one).
void pci_device_unmap_moved(struct pci_device *dev, struct bus *mmio, bool all);
void pci_device_map_wanted(struct pci_device *dev, struct bus *mmio);
uint32_t pci_device_config_read(struct pci_device *dev, unsigned offset, unsigned size);
// Returns true where BARs may have to move.
bool pci_device_config_write(struct pci_device *dev, unsigned offset, unsigned size, uint32_t data);

#endif
