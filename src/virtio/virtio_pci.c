// SPDX-License-Identifier: Apache-2.0
// The modern virtio-pci transport: capabilities, BAR regions, interrupts.
//
// Invariants: all registers are under vd->lock; a doorbell and a status write run without it, since they call into the
// device. Interrupts are raised under vd->lock, so that reading ISR cannot lose one.
#include "virtio/virtio_pci.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <stdlib.h>
#include <string.h>

#include "bus/msix.h"
#include "virtio/virtio_pci_common.h"

#define VIRTIO_PCI_VENDOR      0x1af4
#define VIRTIO_PCI_DEVICE_BASE 0x1040 // + device ID: not transitional (VIRTIO 1.2, 4.1.2.1)

#define ISR_QUEUE  1
#define ISR_CONFIG 2

// ---- interrupts ----

// vd->lock held.
static void isr_raise(struct virtio_pci *vp, uint8_t bits) {
    vp->isr |= bits;
    pci_intx_set(&vp->pci, true);
}

static void pci_notify(struct virtio_pci *vp, uint16_t vector, uint8_t isr_bits) {
    if (!msix_enabled(&vp->msix))
        isr_raise(vp, isr_bits);
    else if (vector != VIRTIO_MSI_NO_VECTOR)
        msix_notify(&vp->msix, vector);
}

static void notify_queue(void *ctx, unsigned queue) {
    struct virtio_pci *vp = ctx;
    pci_notify(vp, vp->vd->queues[queue].vector, ISR_QUEUE);
}

static void notify_config(void *ctx) {
    struct virtio_pci *vp = ctx;
    pci_notify(vp, vp->config_vector, ISR_CONFIG);
}

static bool dma_allowed(void *ctx) {
    struct virtio_pci *vp = ctx;
    return pci_bus_master(&vp->pci);
}

// ---- doorbells ----

static void doorbell_rung(void *ctx) {
    struct virtio_pci_doorbell *d = ctx;
    virtio_doorbell_on_loop(d->vp->vd, (unsigned)(d - d->vp->doorbells));
}

static int doorbells_init(struct virtio_pci *vp, struct error *err) {
    const struct virtio_device_ops *ops = vp->vd->ops;
    bool on_loop = ops->doorbell_on_loop && !ops->try_queue;
    int ret = 0;
    for (unsigned i = 0; !ret && i < ops->queues; i++) {
        struct virtio_pci_doorbell *d = &vp->doorbells[i];
        d->vp = vp;
        ret = doorbell_init(&d->doorbell, vp->vd->machine, on_loop, doorbell_rung, d, err);
    }
    return ret;
}

// Taking a doorbell away is slow, so a device that is reset keeps its own: the driver comes back. vd->lock held.
static void place_doorbells(void *ctx) {
    struct virtio_pci *vp = ctx;
    for (unsigned i = 0; i < vp->vd->ops->queues; i++)
        if (vp->bar)
            doorbell_place(&vp->doorbells[i].doorbell,
                           GPA(vp->bar + VIRTIO_PCI_BAR_NOTIFY + i * VIRTIO_PCI_NOTIFY_MULTIPLIER));
        else
            doorbell_remove(&vp->doorbells[i].doorbell);
}

// ---- BAR 0 ----

// Reading ISR clears it and lowers the line (VIRTIO 1.2, 4.1.4.5).
static void isr_read(struct virtio_pci *vp, struct bus_access *a) {
    if (a->offset)
        return;
    pthread_mutex_lock(&vp->vd->lock);
    a->data = vp->isr;
    vp->isr = 0;
    pci_intx_set(&vp->pci, false);
    pthread_mutex_unlock(&vp->vd->lock);
}

static void device_read(struct virtio_pci *vp, struct bus_access *a) {
    pthread_mutex_lock(&vp->vd->lock);
    virtio_config_read(vp->vd, a->offset, a->size, &a->data);
    pthread_mutex_unlock(&vp->vd->lock);
}

// The address alone names the queue: queue_notify_off is the queue's number.
static void notify_write(struct virtio_pci *vp, const struct bus_access *a) {
    if (a->offset % VIRTIO_PCI_NOTIFY_MULTIPLIER == 0)
        virtio_doorbell(vp->vd, (unsigned)(a->offset / VIRTIO_PCI_NOTIFY_MULTIPLIER));
}

static void table_read(struct virtio_pci *vp, struct bus_access *a) {
    msix_table_read(&vp->msix, a);
}
static void table_write(struct virtio_pci *vp, const struct bus_access *a) {
    msix_table_write(&vp->msix, a);
}
static void pba_read(struct virtio_pci *vp, struct bus_access *a) {
    msix_pba_read(&vp->msix, a);
}

// By page of the BAR.
static const struct {
    void (*read)(struct virtio_pci *vp, struct bus_access *a);
    void (*write)(struct virtio_pci *vp, const struct bus_access *a);
} regions[VIRTIO_PCI_BAR_SIZE >> PAGE_SHIFT] = {
    [VIRTIO_PCI_BAR_COMMON >> PAGE_SHIFT] = {virtio_pci_common_read, virtio_pci_common_write},
    [VIRTIO_PCI_BAR_ISR >> PAGE_SHIFT] = {isr_read, NULL},
    [VIRTIO_PCI_BAR_DEVICE >> PAGE_SHIFT] = {device_read, NULL},
    [VIRTIO_PCI_BAR_NOTIFY >> PAGE_SHIFT] = {NULL, notify_write},
    [VIRTIO_PCI_BAR_MSIX_TABLE >> PAGE_SHIFT] = {table_read, table_write},
    [VIRTIO_PCI_BAR_MSIX_PBA >> PAGE_SHIFT] = {pba_read, NULL},
};

static void bar_read(void *ctx, struct bus_access *a) {
    uint64_t region = a->offset >> PAGE_SHIFT;
    a->offset &= ~PAGE_MASK;
    if (region < ARRAY_LEN(regions) && regions[region].read)
        regions[region].read(ctx, a);
}

static void bar_write(void *ctx, const struct bus_access *access) {
    struct bus_access a = *access;
    uint64_t region = a.offset >> PAGE_SHIFT;
    a.offset &= ~PAGE_MASK;
    if (region < ARRAY_LEN(regions) && regions[region].write)
        regions[region].write(ctx, &a);
}

static const struct bus_ops bar_ops = {.name = "virtio-pci", .read = bar_read, .write = bar_write};

// ---- configuration space ----

static struct virtio_pci *from_pci(struct pci_device *dev) {
    return CONTAINER_OF(dev, struct virtio_pci, pci);
}

// The window of the PCI configuration access capability (VIRTIO 1.2, 4.1.4.9): reaches the BAR without mapping it.
static bool window_access(struct virtio_pci *vp, struct bus_access *a) {
    const uint8_t *cap = vp->pci.config + vp->window;
    uint32_t offset = pci_get32(cap + VIRTIO_PCI_CAP_OFFSET), len = pci_get32(cap + VIRTIO_PCI_CAP_LENGTH);
    if (cap[VIRTIO_PCI_CAP_BAR] || (len != 1 && len != 2 && len != 4) || offset % len || offset >= VIRTIO_PCI_BAR_SIZE)
        return false;
    *a = (struct bus_access){.offset = offset, .size = (uint8_t)len, .data = UINT32_MAX};
    return true;
}

static bool hits_window(const struct virtio_pci *vp, unsigned offset, unsigned size) {
    unsigned data = vp->window + VIRTIO_PCI_CAP_PCI_CFG_DATA;
    return offset < data + 4 && data < offset + size;
}

static void config_reading(struct pci_device *dev, unsigned offset, unsigned size) {
    struct virtio_pci *vp = from_pci(dev);
    struct bus_access a;
    if (!hits_window(vp, offset, size) || !window_access(vp, &a))
        return;
    bar_read(vp, &a);
    pci_put32(dev->config + vp->window + VIRTIO_PCI_CAP_PCI_CFG_DATA, (uint32_t)a.data);
}

static void config_written(struct pci_device *dev, unsigned offset, unsigned size) {
    struct virtio_pci *vp = from_pci(dev);
    struct bus_access a;
    msix_config_written(&vp->msix);
    if (!hits_window(vp, offset, size) || !window_access(vp, &a))
        return;
    a.data = pci_get32(dev->config + vp->window + VIRTIO_PCI_CAP_PCI_CFG_DATA);
    a.data &= UINT32_MAX >> (32 - a.size * 8);
    bar_write(vp, &a);
}

static void bar_moved(struct pci_device *dev, unsigned bar) {
    struct virtio_pci *vp = from_pci(dev);
    pthread_mutex_lock(&vp->vd->lock);
    vp->bar = dev->bars[0].mapped_at;
    if (!vp->bar || vp->vd->status & VIRTIO_CONFIG_S_DRIVER_OK)
        place_doorbells(vp);
    pthread_mutex_unlock(&vp->vd->lock);
}

static const struct pci_device_ops pci_ops = {
    .name = "virtio-pci",
    .config_reading = config_reading,
    .config_written = config_written,
    .bar_moved = bar_moved,
};

// struct virtio_pci_cap (VIRTIO 1.2, 4.1.4). Returns its offset or -ENOSPC.
static int add_cap(struct virtio_pci *vp, uint8_t type, unsigned len, uint32_t offset, uint32_t region_len) {
    int cap = pci_device_add_capability(&vp->pci, PCI_CAP_ID_VNDR, len);
    if (cap < 0)
        return cap;
    uint8_t *c = vp->pci.config + cap;
    c[VIRTIO_PCI_CAP_LEN] = (uint8_t)len;
    c[VIRTIO_PCI_CAP_CFG_TYPE] = type;
    pci_put32(c + VIRTIO_PCI_CAP_OFFSET, offset);
    pci_put32(c + VIRTIO_PCI_CAP_LENGTH, region_len);
    return cap;
}

static int add_window(struct virtio_pci *vp) {
    int cap = add_cap(vp, VIRTIO_PCI_CAP_PCI_CFG, VIRTIO_PCI_CAP_PCI_CFG_DATA + 4, 0, 0);
    if (cap < 0)
        return cap;
    vp->window = (unsigned)cap;
    uint8_t *mask = vp->pci.wmask + cap;
    mask[VIRTIO_PCI_CAP_BAR] = 0xff;
    memset(mask + VIRTIO_PCI_CAP_OFFSET, 0xff, 12); // offset, length, data
    return 0;
}

static int add_caps(struct virtio_pci *vp) {
    const struct virtio_device_ops *ops = vp->vd->ops;
    int ret = add_cap(vp, VIRTIO_PCI_CAP_COMMON_CFG, 16, VIRTIO_PCI_BAR_COMMON, VIRTIO_PCI_COMMON_LEN);
    if (ret >= 0)
        ret = add_cap(vp, VIRTIO_PCI_CAP_ISR_CFG, 16, VIRTIO_PCI_BAR_ISR, 1);
    if (ret >= 0 && ops->config_len) // a device without configuration has no such structure (4.1.4.6)
        ret = add_cap(vp, VIRTIO_PCI_CAP_DEVICE_CFG, 16, VIRTIO_PCI_BAR_DEVICE, ops->config_len);
    if (ret >= 0)
        ret = add_cap(vp, VIRTIO_PCI_CAP_NOTIFY_CFG, 20, VIRTIO_PCI_BAR_NOTIFY,
                      ops->queues * VIRTIO_PCI_NOTIFY_MULTIPLIER);
    if (ret < 0)
        return ret;
    pci_put32(vp->pci.config + ret + 16, VIRTIO_PCI_NOTIFY_MULTIPLIER);
    return add_window(vp);
}

// ---- life ----

// vd->lock held.
static void transport_reset(void *ctx, bool machine) {
    struct virtio_pci *vp = ctx;
    vp->device_feature_select = vp->driver_feature_select = 0;
    vp->queue_select = 0;
    vp->config_vector = VIRTIO_MSI_NO_VECTOR;
    vp->isr = 0;
    pci_intx_set(&vp->pci, false);
    if (machine)
        msix_reset(&vp->msix);
}

static void transport_save(void *ctx, struct state_writer *w) {
    struct virtio_pci *vp = ctx;
    state_put_u32(w, vp->device_feature_select);
    state_put_u32(w, vp->driver_feature_select);
    state_put_u16(w, vp->queue_select);
    state_put_u16(w, vp->config_vector);
    state_put_u8(w, vp->isr);
    msix_save(&vp->msix, w);
}

static void transport_load(void *ctx, struct state_reader *r) {
    struct virtio_pci *vp = ctx;
    vp->device_feature_select = state_get_u32(r);
    vp->driver_feature_select = state_get_u32(r);
    vp->queue_select = state_get_u16(r);
    vp->config_vector = state_get_u16(r);
    vp->isr = state_get_u8(r);
    msix_load(&vp->msix, r);
    pci_intx_set(&vp->pci, vp->isr != 0);
}

static void transport_destroy(void *ctx) {
    struct virtio_pci *vp = ctx;
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++)
        doorbell_fini(&vp->doorbells[i].doorbell);
    pci_device_fini(&vp->pci);
    msix_fini(&vp->msix);
    free(vp);
}

static const struct virtio_transport_ops transport_ops = {
    .notify_queue = notify_queue,
    .notify_config = notify_config,
    .dma_allowed = dma_allowed,
    .place_doorbells = place_doorbells,
    .reset = transport_reset,
    .save = transport_save,
    .load = transport_load,
    .destroy = transport_destroy,
};

static int build(struct virtio_pci *vp, struct error *err) {
    const struct virtio_device_ops *ops = vp->vd->ops;
    const struct pci_id id = {
        .vendor = VIRTIO_PCI_VENDOR,
        .device = (uint16_t)(VIRTIO_PCI_DEVICE_BASE + ops->id),
        .subsystem_vendor = VIRTIO_PCI_VENDOR,
        .subsystem = (uint16_t)(VIRTIO_PCI_DEVICE_BASE + ops->id),
        .class_code = ops->class_code,
        .revision = 1,
        .pin = 1,
    };
    pci_device_init(&vp->pci, &pci_ops, &id);
    pci_device_add_bar(&vp->pci, 0, VIRTIO_PCI_BAR_SIZE, &bar_ops, vp);
    // One vector a queue and one for the configuration.
    int ret = msix_init(&vp->msix, &vp->pci, ops->queues + 1u, 0, VIRTIO_PCI_BAR_MSIX_TABLE, VIRTIO_PCI_BAR_MSIX_PBA);
    if (ret >= 0)
        ret = add_caps(vp);
    if (ret >= 0 && (ret = doorbells_init(vp, err)))
        return ret;
    return ret < 0 ? error_set(err, ret, "set up PCI capabilities of %s", ops->name) : 0;
}

int virtio_pci_attach(struct virtio_device *vd, struct pci_host *host, unsigned slot, const struct component_ops *ops,
                      struct error *err) {
    struct virtio_pci *vp = calloc(1, sizeof(*vp));
    if (!vp)
        return error_set(err, -ENOMEM, "create %s", vd->ops->name);
    vp->vd = vd;
    vp->config_vector = VIRTIO_MSI_NO_VECTOR;
    vd->transport_ctx = vp;
    vd->transport = &transport_ops;
    int ret = build(vp, err);
    if (!ret)
        ret = pci_host_attach(host, &vp->pci, slot, err);
    if (!ret && (ret = component_add(&vd->machine->components, ops, vd, slot)))
        error_set(err, ret, "register %s", vd->ops->name);
    if (ret) {
        vd->transport = NULL;
        transport_destroy(vp);
    }
    return ret;
}
