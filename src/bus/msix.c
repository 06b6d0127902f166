// SPDX-License-Identifier: Apache-2.0
// MSI-X table, masks and pending bits.
//
// Invariants: a pending bit stays set exactly as long as its vector cannot be sent; everything that may open the way
// (unmask, enable, function mask off, bus master on) calls msix_deliver.
#include "bus/msix.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <string.h>

int msix_init(struct msix *x, struct pci_device *dev, unsigned count, unsigned bar, uint32_t table_offset,
              uint32_t pba_offset) {
    if (!count || count > MSIX_VECTORS_MAX)
        return -EINVAL;
    int cap = pci_device_add_capability(dev, PCI_CAP_ID_MSIX, PCI_CAP_MSIX_SIZEOF);
    if (cap < 0)
        return cap;
    *x = (struct msix){.dev = dev, .cap = (unsigned)cap, .count = count};
    pthread_mutex_init(&x->lock, NULL);
    pci_put16(dev->config + cap + PCI_MSIX_FLAGS, (uint16_t)(count - 1));
    pci_put16(dev->wmask + cap + PCI_MSIX_FLAGS, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
    pci_put32(dev->config + cap + PCI_MSIX_TABLE, table_offset | bar);
    pci_put32(dev->config + cap + PCI_MSIX_PBA, pba_offset | bar);
    msix_reset(x);
    return 0;
}

void msix_fini(struct msix *x) {
    if (x && x->dev)
        pthread_mutex_destroy(&x->lock);
}

void msix_reset(struct msix *x) {
    pthread_mutex_lock(&x->lock);
    memset(x->table, 0, sizeof(x->table));
    for (unsigned i = 0; i < x->count; i++)
        x->table[i * MSIX_ENTRY_SIZE + PCI_MSIX_ENTRY_VECTOR_CTRL] = PCI_MSIX_ENTRY_CTRL_MASKBIT;
    x->pending = 0;
    x->enabled = x->function_mask = false;
    pthread_mutex_unlock(&x->lock);
}

static uint8_t *entry(struct msix *x, unsigned vector) {
    return x->table + vector * MSIX_ENTRY_SIZE;
}

// An MSI is a memory write of the device, so it needs bus mastering too.
static bool can_send(struct msix *x, unsigned vector) {
    return x->enabled && !x->function_mask && pci_bus_master(x->dev) &&
           !(entry(x, vector)[PCI_MSIX_ENTRY_VECTOR_CTRL] & PCI_MSIX_ENTRY_CTRL_MASKBIT);
}

static void send(struct msix *x, unsigned vector) {
    const uint8_t *e = entry(x, vector);
    uint64_t addr = pci_get32(e + PCI_MSIX_ENTRY_LOWER_ADDR) | (uint64_t)pci_get32(e + PCI_MSIX_ENTRY_UPPER_ADDR) << 32;
    if (x->dev->host)
        irq_msi(&pci_host_machine(x->dev->host)->irq, addr, pci_get32(e + PCI_MSIX_ENTRY_DATA));
}

// Sends what is pending and no longer held back. Lock held.
static void msix_deliver(struct msix *x) {
    for (uint64_t left = x->pending; left; left &= left - 1) {
        unsigned vector = (unsigned)__builtin_ctzll(left);
        if (!can_send(x, vector))
            continue;
        x->pending &= ~(UINT64_C(1) << vector);
        send(x, vector);
    }
}

void msix_notify(struct msix *x, unsigned vector) {
    if (vector >= x->count)
        return;
    pthread_mutex_lock(&x->lock);
    if (can_send(x, vector))
        send(x, vector);
    else if (x->enabled)
        x->pending |= UINT64_C(1) << vector;
    pthread_mutex_unlock(&x->lock);
}

bool msix_enabled(struct msix *x) {
    pthread_mutex_lock(&x->lock);
    bool enabled = x->enabled;
    pthread_mutex_unlock(&x->lock);
    return enabled;
}

static void flags_update(struct msix *x) {
    uint16_t flags = pci_get16(x->dev->config + x->cap + PCI_MSIX_FLAGS);
    x->enabled = flags & PCI_MSIX_FLAGS_ENABLE;
    x->function_mask = flags & PCI_MSIX_FLAGS_MASKALL;
}

void msix_config_written(struct msix *x) {
    pthread_mutex_lock(&x->lock);
    flags_update(x);
    msix_deliver(x);
    pthread_mutex_unlock(&x->lock);
}

static bool access_inside(const struct bus_access *a, uint64_t len) {
    return a->offset < len && a->size <= len - a->offset;
}

void msix_table_read(struct msix *x, struct bus_access *a) {
    if (!access_inside(a, (uint64_t)x->count * MSIX_ENTRY_SIZE))
        return;
    a->data = 0;
    pthread_mutex_lock(&x->lock);
    memcpy(&a->data, x->table + a->offset, a->size);
    pthread_mutex_unlock(&x->lock);
}

// Only aligned dwords and quadwords are defined; others are dropped (PCI 3.0, 6.8.2).
void msix_table_write(struct msix *x, const struct bus_access *a) {
    if (a->size < 4 || a->offset % a->size || !access_inside(a, (uint64_t)x->count * MSIX_ENTRY_SIZE))
        return;
    pthread_mutex_lock(&x->lock);
    memcpy(x->table + a->offset, &a->data, a->size);
    uint8_t *control = entry(x, (unsigned)(a->offset / MSIX_ENTRY_SIZE)) + PCI_MSIX_ENTRY_VECTOR_CTRL;
    pci_put32(control, *control & PCI_MSIX_ENTRY_CTRL_MASKBIT); // the rest is reserved
    msix_deliver(x);
    pthread_mutex_unlock(&x->lock);
}

void msix_pba_read(struct msix *x, struct bus_access *a) {
    if (!access_inside(a, sizeof(x->pending)))
        return;
    a->data = 0;
    pthread_mutex_lock(&x->lock);
    memcpy(&a->data, (uint8_t *)&x->pending + a->offset, a->size);
    pthread_mutex_unlock(&x->lock);
}

void msix_save(struct msix *x, struct state_writer *w) {
    pthread_mutex_lock(&x->lock);
    state_put_bytes(w, x->table, (size_t)x->count * MSIX_ENTRY_SIZE);
    state_put_u64(w, x->pending);
    pthread_mutex_unlock(&x->lock);
}

void msix_load(struct msix *x, struct state_reader *r) {
    pthread_mutex_lock(&x->lock);
    state_get_bytes(r, x->table, (size_t)x->count * MSIX_ENTRY_SIZE);
    x->pending = state_get_u64(r);
    if (x->count < 64)
        x->pending &= (UINT64_C(1) << x->count) - 1;
    for (unsigned i = 0; i < x->count; i++)
        pci_put32(entry(x, i) + PCI_MSIX_ENTRY_VECTOR_CTRL,
                  entry(x, i)[PCI_MSIX_ENTRY_VECTOR_CTRL] & PCI_MSIX_ENTRY_CTRL_MASKBIT);
    flags_update(x);
    pthread_mutex_unlock(&x->lock);
}
