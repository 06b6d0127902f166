// SPDX-License-Identifier: Apache-2.0
// Between virtio_pci.c and virtio_pci_common.c.
#ifndef CICADA_VIRTIO_VIRTIO_PCI_COMMON_H
#define CICADA_VIRTIO_VIRTIO_PCI_COMMON_H

#include "bus/msix.h"
#include "core/doorbell.h"
#include "virtio/virtio_pci.h"

#define VIRTIO_PCI_COMMON_LEN       56 // VIRTIO 1.2, 4.1.4.3, up to queue_device
#define VIRTIO_PCI_CAP_PCI_CFG_DATA 16 // pci_cfg_data in struct virtio_pci_cfg_cap

struct virtio_pci;

struct virtio_pci_doorbell {  // of one queue
    struct doorbell doorbell; // under vd->lock
    struct virtio_pci *vp;
};

struct virtio_pci {
    struct pci_device pci;
    struct msix msix;
    struct virtio_device *vd;
    unsigned window; // offset of the configuration access capability
    // Under vd->lock:
    uint32_t device_feature_select, driver_feature_select;
    uint16_t queue_select, config_vector;
    uint8_t isr;
    uint32_t bar; // where BAR 0 is, 0: nowhere
    struct virtio_pci_doorbell doorbells[VIRTIO_QUEUES_MAX];
};

void virtio_pci_common_read(struct virtio_pci *vp, struct bus_access *a);
void virtio_pci_common_write(struct virtio_pci *vp, const struct bus_access *a);

#endif
