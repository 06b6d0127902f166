// SPDX-License-Identifier: Apache-2.0
// virtio over PCI, modern devices only. VIRTIO 1.2, 4.1.
#ifndef CICADA_VIRTIO_VIRTIO_PCI_H
#define CICADA_VIRTIO_VIRTIO_PCI_H

#include "bus/pci.h"
#include "virtio/virtio.h"

// BAR 0, each part on a page of its own (a doorbell page can so be handed to an in-kernel ioeventfd).
#define VIRTIO_PCI_BAR_COMMON        0x0000
#define VIRTIO_PCI_BAR_ISR           0x1000
#define VIRTIO_PCI_BAR_DEVICE        0x2000
#define VIRTIO_PCI_BAR_NOTIFY        0x3000
#define VIRTIO_PCI_BAR_MSIX_TABLE    0x4000
#define VIRTIO_PCI_BAR_MSIX_PBA      0x5000
#define VIRTIO_PCI_BAR_SIZE          0x8000
#define VIRTIO_PCI_NOTIFY_MULTIPLIER 4

// Puts the device into a slot and registers its component (instance = slot), which owns vd from then on.
// On failure vd stays the caller's.
int virtio_pci_attach(struct virtio_device *vd, struct pci_host *host, unsigned slot, const struct component_ops *ops,
                      struct error *err);

#endif
