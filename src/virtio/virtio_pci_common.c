// SPDX-License-Identifier: Apache-2.0
// The common configuration structure of virtio-pci. VIRTIO 1.2, 4.1.4.3.
//
// Reads may have any width inside the structure; writes act on a field when they have its width, and 64-bit fields are
// written in halves, as drivers must (4.1.3.1) or at once.
#include "virtio/virtio_pci_common.h"

#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <string.h>

static struct virtq *selected(struct virtio_pci *vp) {
    return vp->queue_select < vp->vd->ops->queues ? &vp->vd->queues[vp->queue_select] : NULL;
}

static void fill_queue(struct virtio_pci *vp, uint8_t *c) {
    const struct virtq *vq = selected(vp);
    if (!vq) // size 0 says that there is no such queue
        return;
    pci_put16(c + VIRTIO_PCI_COMMON_Q_SIZE, vq->size);
    pci_put16(c + VIRTIO_PCI_COMMON_Q_MSIX, vq->vector);
    pci_put16(c + VIRTIO_PCI_COMMON_Q_ENABLE, vq->ready);
    pci_put16(c + VIRTIO_PCI_COMMON_Q_NOFF, vp->queue_select);
    memcpy(c + VIRTIO_PCI_COMMON_Q_DESCLO, &vq->desc_gpa, 8);
    memcpy(c + VIRTIO_PCI_COMMON_Q_AVAILLO, &vq->avail_gpa, 8);
    memcpy(c + VIRTIO_PCI_COMMON_Q_USEDLO, &vq->used_gpa, 8);
}

static uint32_t feature_word(uint64_t features, uint32_t select) {
    return select < 2 ? (uint32_t)(features >> (select * 32)) : 0;
}

static void fill(struct virtio_pci *vp, uint8_t *c) {
    const struct virtio_device *vd = vp->vd;
    pci_put32(c + VIRTIO_PCI_COMMON_DFSELECT, vp->device_feature_select);
    pci_put32(c + VIRTIO_PCI_COMMON_DF, feature_word(vd->features, vp->device_feature_select));
    pci_put32(c + VIRTIO_PCI_COMMON_GFSELECT, vp->driver_feature_select);
    pci_put32(c + VIRTIO_PCI_COMMON_GF, feature_word(vd->acked, vp->driver_feature_select));
    pci_put16(c + VIRTIO_PCI_COMMON_MSIX, vp->config_vector);
    pci_put16(c + VIRTIO_PCI_COMMON_NUMQ, vd->ops->queues);
    c[VIRTIO_PCI_COMMON_STATUS] = vd->status;
    c[VIRTIO_PCI_COMMON_CFGGENERATION] = vd->generation;
    pci_put16(c + VIRTIO_PCI_COMMON_Q_SELECT, vp->queue_select);
    fill_queue(vp, c);
}

void virtio_pci_common_read(struct virtio_pci *vp, struct bus_access *a) {
    uint8_t c[VIRTIO_PCI_COMMON_LEN] = {0};
    if (a->offset >= sizeof(c) || a->size > sizeof(c) - a->offset)
        return;
    pthread_mutex_lock(&vp->vd->lock);
    fill(vp, c);
    pthread_mutex_unlock(&vp->vd->lock);
    a->data = 0;
    memcpy(&a->data, c + a->offset, a->size);
}

// A driver may choose features only until FEATURES_OK.
static void write_features(struct virtio_pci *vp, uint32_t v) {
    struct virtio_device *vd = vp->vd;
    unsigned shift = vp->driver_feature_select * 32;
    if (vp->driver_feature_select > 1 || vd->status & VIRTIO_CONFIG_S_FEATURES_OK)
        return;
    vd->acked = (vd->acked & ~((uint64_t)UINT32_MAX << shift)) | (uint64_t)v << shift;
}

// A vector that does not exist reads back as none: so the driver learns of it (4.1.5.1.2.1).
static uint16_t checked_vector(const struct virtio_pci *vp, uint32_t v) {
    return v < vp->msix.count ? (uint16_t)v : VIRTIO_MSI_NO_VECTOR;
}

static void write_half(uint64_t *field, bool high, uint32_t v) {
    *field = high ? (*field & UINT32_MAX) | (uint64_t)v << 32 : (*field & ~(uint64_t)UINT32_MAX) | v;
}

// Fields of the selected queue; fixed once it is enabled, but for the vector.
static void write_queue(struct virtio_pci *vp, unsigned offset, uint32_t v) {
    struct virtq *vq = selected(vp);
    if (!vq)
        return;
    if (offset == VIRTIO_PCI_COMMON_Q_MSIX)
        vq->vector = checked_vector(vp, v);
    if (vq->ready)
        return;
    switch (offset) {
    case VIRTIO_PCI_COMMON_Q_SIZE: vq->size = (uint16_t)v; break;
    case VIRTIO_PCI_COMMON_Q_DESCLO: write_half(&vq->desc_gpa, false, v); break;
    case VIRTIO_PCI_COMMON_Q_DESCHI: write_half(&vq->desc_gpa, true, v); break;
    case VIRTIO_PCI_COMMON_Q_AVAILLO: write_half(&vq->avail_gpa, false, v); break;
    case VIRTIO_PCI_COMMON_Q_AVAILHI: write_half(&vq->avail_gpa, true, v); break;
    case VIRTIO_PCI_COMMON_Q_USEDLO: write_half(&vq->used_gpa, false, v); break;
    case VIRTIO_PCI_COMMON_Q_USEDHI: write_half(&vq->used_gpa, true, v); break;
    case VIRTIO_PCI_COMMON_Q_ENABLE:
        if (v == 1)
            virtio_queue_enable(vp->vd, vp->queue_select);
        break;
    }
}

static unsigned field_size(unsigned offset) {
    switch (offset) {
    case VIRTIO_PCI_COMMON_STATUS: return 1;
    case VIRTIO_PCI_COMMON_MSIX:
    case VIRTIO_PCI_COMMON_Q_SELECT:
    case VIRTIO_PCI_COMMON_Q_SIZE:
    case VIRTIO_PCI_COMMON_Q_MSIX:
    case VIRTIO_PCI_COMMON_Q_ENABLE: return 2;
    case VIRTIO_PCI_COMMON_DFSELECT:
    case VIRTIO_PCI_COMMON_GFSELECT:
    case VIRTIO_PCI_COMMON_GF: return 4;
    default: return offset >= VIRTIO_PCI_COMMON_Q_DESCLO && offset < VIRTIO_PCI_COMMON_LEN && offset % 4 == 0 ? 4 : 0;
    }
}

// vd->lock held.
static void write_field(struct virtio_pci *vp, unsigned offset, uint32_t v) {
    switch (offset) {
    case VIRTIO_PCI_COMMON_DFSELECT: vp->device_feature_select = v; break;
    case VIRTIO_PCI_COMMON_GFSELECT: vp->driver_feature_select = v; break;
    case VIRTIO_PCI_COMMON_GF: write_features(vp, v); break;
    case VIRTIO_PCI_COMMON_MSIX: vp->config_vector = checked_vector(vp, v); break;
    case VIRTIO_PCI_COMMON_Q_SELECT: vp->queue_select = (uint16_t)v; break;
    default: write_queue(vp, offset, v); break;
    }
}

void virtio_pci_common_write(struct virtio_pci *vp, const struct bus_access *a) {
    if (a->size == 8) {
        struct bus_access low = *a, high = *a;
        low.size = high.size = 4;
        low.data = (uint32_t)a->data;
        high.data = a->data >> 32;
        high.offset += 4;
        virtio_pci_common_write(vp, &low);
        virtio_pci_common_write(vp, &high);
        return;
    }
    if (a->offset >= VIRTIO_PCI_COMMON_LEN || a->size != field_size((unsigned)a->offset))
        return;
    if (a->offset == VIRTIO_PCI_COMMON_STATUS) {
        virtio_set_status(vp->vd, (uint8_t)a->data);
        return;
    }
    pthread_mutex_lock(&vp->vd->lock);
    write_field(vp, (unsigned)a->offset, (uint32_t)a->data);
    pthread_mutex_unlock(&vp->vd->lock);
}
