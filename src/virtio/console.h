// SPDX-License-Identifier: Apache-2.0
// virtio-console with one port. VIRTIO 1.2, 5.3.
#ifndef CICADA_VIRTIO_CONSOLE_H
#define CICADA_VIRTIO_CONSOLE_H

#include "backend/chardev.h"
#include "bus/pci.h"

// Attaches to the device side of chr, which outlives the device; it is detached when the machine is destroyed.
int virtio_console_create(struct pci_host *host, unsigned slot, struct chardev *chr, struct error *err);

#endif
