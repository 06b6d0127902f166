// SPDX-License-Identifier: Apache-2.0
// PCI devices: header, BARs, capabilities, INTx, and configuration space as the guest sees it.
//
// Invariants: config changes only through wmask; a BAR is on the MMIO bus exactly when memory decoding is on, its
// address lies in the window and no other BAR was there first. The host's lock is taken before any device's lock.
#define LOG_UNIT "pci"
#include "bus/pci.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <string.h>

#include "bus/pci_host.h"
#include "util/log.h"

#define COMMAND_WRITABLE (PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_SERR | PCI_COMMAND_INTX_DISABLE)

void pci_device_init(struct pci_device *dev, const struct pci_device_ops *ops, const struct pci_id *id) {
    memset(dev, 0, sizeof(*dev));
    dev->ops = ops;
    dev->cap_end = 0x40; // right behind the type 0 header
    pthread_mutex_init(&dev->intx_lock, NULL);

    uint8_t *c = dev->config;
    pci_put16(c + PCI_VENDOR_ID, id->vendor);
    pci_put16(c + PCI_DEVICE_ID, id->device);
    pci_put32(c + PCI_CLASS_REVISION, id->class_code << 8 | id->revision);
    pci_put16(c + PCI_SUBSYSTEM_VENDOR_ID, id->subsystem_vendor);
    pci_put16(c + PCI_SUBSYSTEM_ID, id->subsystem);
    c[PCI_INTERRUPT_PIN] = id->pin;

    pci_put16(dev->wmask + PCI_COMMAND, COMMAND_WRITABLE);
    dev->wmask[PCI_CACHE_LINE_SIZE] = 0xff;
    dev->wmask[PCI_INTERRUPT_LINE] = 0xff; // a scratch register: the routing is fixed (PCI 3.0, 6.2.4)
}

void pci_device_fini(struct pci_device *dev) {
    if (!dev || !dev->ops)
        return;
    if (dev->host)
        pci_host_detach(dev->host, dev);
    pthread_mutex_destroy(&dev->intx_lock);
}

void pci_device_add_bar(struct pci_device *dev, unsigned bar, uint32_t size, const struct bus_ops *ops, void *ctx) {
    dev->bars[bar] = (struct pci_bar){.size = size, .ops = ops, .ctx = ctx};
    // All ones written read back as the size mask: that is how a BAR is sized (PCI 3.0, 6.2.5.1).
    pci_put32(dev->wmask + PCI_BASE_ADDRESS_0 + bar * 4, ~(size - 1));
    pci_put32(dev->config + PCI_BASE_ADDRESS_0 + bar * 4, PCI_BASE_ADDRESS_MEM_TYPE_32);
}

int pci_device_add_capability(struct pci_device *dev, uint8_t id, unsigned len) {
    unsigned offset = dev->cap_end;
    if (len < 2 || len > PCI_CONFIG_SIZE - offset)
        return -ENOSPC;
    dev->config[offset] = id;
    dev->config[offset + 1] = 0;
    dev->config[dev->cap_last ? dev->cap_last + 1 : PCI_CAPABILITY_LIST] = (uint8_t)offset;
    dev->config[PCI_STATUS] |= PCI_STATUS_CAP_LIST;
    dev->cap_last = offset;
    dev->cap_end = (offset + len + 3) & ~3u;
    return (int)offset;
}

bool pci_bus_master(const struct pci_device *dev) {
    return atomic_load_explicit(&dev->command, memory_order_relaxed) & PCI_COMMAND_MASTER;
}

// Drives the shared line from intx_level and the disable bit. intx_lock held.
static void intx_update(struct pci_device *dev) {
    if (!dev->host)
        return;
    bool level = dev->intx_level && !(dev->command & PCI_COMMAND_INTX_DISABLE);
    irq_line_set(pci_host_line(dev->host, pci_intx_gsi(dev->slot, 0)), &dev->intx_held, level);
}

void pci_intx_set(struct pci_device *dev, bool level) {
    pthread_mutex_lock(&dev->intx_lock);
    dev->intx_level = level;
    intx_update(dev);
    pthread_mutex_unlock(&dev->intx_lock);
}

void pci_device_command_changed(struct pci_device *dev) {
    pthread_mutex_lock(&dev->intx_lock);
    atomic_store(&dev->command, pci_get16(dev->config + PCI_COMMAND));
    intx_update(dev);
    pthread_mutex_unlock(&dev->intx_lock);
}

void pci_device_reset(struct pci_device *dev) {
    memcpy(dev->config, dev->reset_config, sizeof(dev->config));
    pthread_mutex_lock(&dev->intx_lock);
    dev->intx_level = false;
    pthread_mutex_unlock(&dev->intx_lock);
    pci_device_command_changed(dev);
}

// Where the BAR should answer now, 0 for nowhere. Only addresses in the window count: a BAR that is being sized, or
// that a guest puts over RAM or over the interrupt controllers, answers nowhere.
static uint32_t bar_wanted(const struct pci_device *dev, unsigned bar) {
    const struct pci_bar *b = &dev->bars[bar];
    if (!b->size || !(dev->command & PCI_COMMAND_MEMORY))
        return 0;
    uint32_t addr = pci_get32(dev->config + PCI_BASE_ADDRESS_0 + bar * 4) & PCI_BASE_ADDRESS_MEM_MASK;
    if (addr < PCI_MMIO_BASE || addr > PCI_MMIO_LAST || b->size - 1 > PCI_MMIO_LAST - addr)
        return 0;
    return addr;
}

static void bar_moved_to(struct pci_device *dev, unsigned bar, uint32_t addr) {
    dev->bars[bar].mapped_at = addr;
    if (dev->ops->bar_moved)
        dev->ops->bar_moved(dev, bar);
}

void pci_device_unmap_moved(struct pci_device *dev, struct bus *mmio, bool all) {
    for (unsigned i = 0; i < PCI_BARS; i++) {
        struct pci_bar *b = &dev->bars[i];
        if (!b->mapped_at || (!all && b->mapped_at == bar_wanted(dev, i)))
            continue;
        bus_unmap(mmio, b->mapped_at);
        bar_moved_to(dev, i, 0);
    }
}

void pci_device_map_wanted(struct pci_device *dev, struct bus *mmio) {
    for (unsigned i = 0; i < PCI_BARS; i++) {
        struct pci_bar *b = &dev->bars[i];
        uint32_t addr = bar_wanted(dev, i);
        if (!addr || b->mapped_at)
            continue;
        if (bus_map(mmio, addr, b->size, b->ops, b->ctx) == 0)
            bar_moved_to(dev, i, addr);
        else
            log_debug("slot %u BAR %u: %#x is taken, BAR not decoded", dev->slot, i, addr);
    }
}

uint32_t pci_device_config_read(struct pci_device *dev, unsigned offset, unsigned size) {
    if (dev->ops->config_reading)
        dev->ops->config_reading(dev, offset, size);
    uint32_t data = 0;
    for (unsigned i = 0; i < size; i++) {
        uint32_t byte = dev->config[offset + i];
        if (offset + i == PCI_STATUS) {
            pthread_mutex_lock(&dev->intx_lock);
            byte |= dev->intx_level ? PCI_STATUS_INTERRUPT : 0;
            pthread_mutex_unlock(&dev->intx_lock);
        }
        data |= byte << (i * 8);
    }
    return data;
}

static bool overlaps(unsigned offset, unsigned size, unsigned start, unsigned len) {
    return offset < start + len && start < offset + size;
}

bool pci_device_config_write(struct pci_device *dev, unsigned offset, unsigned size, uint32_t data) {
    for (unsigned i = 0; i < size; i++) {
        uint8_t *c = &dev->config[offset + i], mask = dev->wmask[offset + i];
        *c = (uint8_t)((*c & ~mask) | ((data >> (i * 8)) & mask));
    }
    bool command = overlaps(offset, size, PCI_COMMAND, 2);
    if (command)
        pci_device_command_changed(dev);
    if (dev->ops->config_written)
        dev->ops->config_written(dev, offset, size);
    return command || overlaps(offset, size, PCI_BASE_ADDRESS_0, PCI_BARS * 4);
}
