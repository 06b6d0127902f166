// SPDX-License-Identifier: Apache-2.0
// The host bridge: both ways into configuration space, BAR addresses, shared INTx lines, save and load of the bus.
//
// Invariants: functions other than 0 and buses other than 0 do not exist; the 256 bytes of conventional
// configuration space answer, extended space reads all ones (PCI Express Base 3.0, 7.2).
#include <errno.h>
#include <linux/pci_regs.h>
#include <stdlib.h>
#include <string.h>

#include "bus/pci_host.h"

#define ADDRESS_ENABLE 0x80000000u
#define BAR_ALIGN_MIN  4096u

struct pci_host {
    struct machine *machine;
    struct bus *pio, *mmio;
    pthread_mutex_t lock; // guards address, devices[] and their configuration space
    uint32_t address;     // CONFIG_ADDRESS, port 0xcf8
    struct pci_device *devices[PCI_SLOTS];
    struct pci_device bridge;
    uint32_t bar_next; // first free byte of the BAR window; only while the board is built
    struct irq_line lines[PCI_GSI_COUNT];
};

struct machine *pci_host_machine(struct pci_host *host) {
    return host->machine;
}

struct irq_line *pci_host_line(struct pci_host *host, unsigned gsi) {
    return &host->lines[gsi - PCI_GSI_BASE];
}

// Brings the MMIO bus in line with the BARs. All devices are looked at: where two BARs change places one of them
// can be mapped only after the other has moved away.
static void host_remap(struct pci_host *host) {
    for (unsigned i = 0; i < PCI_SLOTS; i++)
        if (host->devices[i])
            pci_device_unmap_moved(host->devices[i], host->mmio, false);
    for (unsigned i = 0; i < PCI_SLOTS; i++)
        if (host->devices[i])
            pci_device_map_wanted(host->devices[i], host->mmio);
}

// ---- configuration space ----

static struct pci_device *host_find(struct pci_host *host, unsigned devfn, unsigned offset, unsigned size) {
    if (devfn > 0xff || devfn & 7 || offset >= PCI_CONFIG_SIZE || size > PCI_CONFIG_SIZE - offset)
        return NULL;
    return host->devices[devfn >> 3];
}

uint32_t pci_config_read(struct pci_host *host, unsigned devfn, unsigned offset, unsigned size) {
    uint32_t data = UINT32_MAX;
    pthread_mutex_lock(&host->lock);
    struct pci_device *dev = host_find(host, devfn, offset, size);
    if (dev)
        data = pci_device_config_read(dev, offset, size);
    pthread_mutex_unlock(&host->lock);
    return data;
}

void pci_config_write(struct pci_host *host, unsigned devfn, unsigned offset, unsigned size, uint32_t data) {
    pthread_mutex_lock(&host->lock);
    struct pci_device *dev = host_find(host, devfn, offset, size);
    if (dev && pci_device_config_write(dev, offset, size, data))
        host_remap(host);
    pthread_mutex_unlock(&host->lock);
}

// PCI Express Base 3.0, 7.2.2: bits 27:20 bus, 19:12 device and function, 11:0 register.
static void ecam_read(void *ctx, struct bus_access *a) {
    unsigned size = a->size > 4 ? 4 : a->size, devfn = (a->offset >> 12) & 0xff, reg = a->offset & 0xfff;
    a->data = pci_config_read(ctx, devfn, reg, size);
    if (a->size == 8)
        a->data |= (uint64_t)pci_config_read(ctx, devfn, reg + 4, 4) << 32;
}

static void ecam_write(void *ctx, const struct bus_access *a) {
    unsigned size = a->size > 4 ? 4 : a->size, devfn = (a->offset >> 12) & 0xff, reg = a->offset & 0xfff;
    pci_config_write(ctx, devfn, reg, size, (uint32_t)a->data);
    if (a->size == 8)
        pci_config_write(ctx, devfn, reg + 4, 4, (uint32_t)(a->data >> 32));
}

// Configuration mechanism #1 (PCI 3.0, 3.2.2.3.2). CONFIG_ADDRESS is a dword register only: narrower accesses pass
// it by, which is how the reset register at 0xcf9 shares its ports.
static void address_read(void *ctx, struct bus_access *a) {
    struct pci_host *host = ctx;
    if (a->size != 4 || a->offset)
        return;
    pthread_mutex_lock(&host->lock);
    a->data = host->address;
    pthread_mutex_unlock(&host->lock);
}

static void address_write(void *ctx, const struct bus_access *a) {
    struct pci_host *host = ctx;
    if (a->size != 4 || a->offset)
        return;
    pthread_mutex_lock(&host->lock);
    host->address = (uint32_t)a->data & 0x80fffffcu;
    pthread_mutex_unlock(&host->lock);
}

static bool address_decode(struct pci_host *host, unsigned *devfn, unsigned *offset) {
    pthread_mutex_lock(&host->lock);
    uint32_t address = host->address;
    pthread_mutex_unlock(&host->lock);
    *devfn = (address >> 8) & 0xff;
    *offset = address & 0xfc;
    return address & ADDRESS_ENABLE && !(address & 0xff0000);
}

static void data_read(void *ctx, struct bus_access *a) {
    unsigned devfn, offset;
    if (a->size <= 4 && address_decode(ctx, &devfn, &offset))
        a->data = pci_config_read(ctx, devfn, offset + (unsigned)a->offset, a->size);
}

static void data_write(void *ctx, const struct bus_access *a) {
    unsigned devfn, offset;
    if (a->size <= 4 && address_decode(ctx, &devfn, &offset))
        pci_config_write(ctx, devfn, offset + (unsigned)a->offset, a->size, (uint32_t)a->data);
}

static const struct bus_ops ecam_ops = {.name = "pci-ecam", .read = ecam_read, .write = ecam_write};
static const struct bus_ops address_ops = {.name = "pci-address", .read = address_read, .write = address_write};
static const struct bus_ops data_ops = {.name = "pci-data", .read = data_read, .write = data_write};

// ---- devices ----

// Gives every BAR its address, largest alignment cost accepted: the window holds 512 MiB, the BARs a few KiB.
static int host_place_bars(struct pci_host *host, struct pci_device *dev, struct error *err) {
    uint32_t next = host->bar_next;
    for (unsigned i = 0; i < PCI_BARS; i++) {
        struct pci_bar *b = &dev->bars[i];
        if (!b->size)
            continue;
        uint64_t home = ((uint64_t)next + b->size - 1) & ~((uint64_t)b->size - 1);
        if (b->size < BAR_ALIGN_MIN || home + b->size - 1 > PCI_MMIO_LAST)
            return error_set(err, -ENOSPC, "PCI window full at slot %u BAR %u", dev->slot, i);
        b->home = (uint32_t)home;
        next = b->home + b->size;
        uint8_t *reg = dev->config + PCI_BASE_ADDRESS_0 + i * 4;
        pci_put32(reg, b->home | pci_get32(reg));
    }
    host->bar_next = next;
    return 0;
}

int pci_host_attach(struct pci_host *host, struct pci_device *dev, unsigned slot, struct error *err) {
    if (slot >= PCI_SLOTS)
        return error_set(err, -EINVAL, "PCI slot %u does not exist (0 to %u)", slot, PCI_SLOTS - 1);
    if (host->devices[slot])
        return error_set(err, -EBUSY, "PCI slot %u", slot);
    dev->slot = slot;
    int ret = host_place_bars(host, dev, err);
    if (ret)
        return ret;
    // What firmware would leave behind.
    if (dev->config[PCI_INTERRUPT_PIN])
        dev->config[PCI_INTERRUPT_LINE] = (uint8_t)pci_intx_gsi(slot, 0);
    pci_put16(dev->config + PCI_COMMAND, PCI_COMMAND_MEMORY);
    memcpy(dev->reset_config, dev->config, sizeof(dev->config));

    pthread_mutex_lock(&host->lock);
    dev->host = host;
    host->devices[slot] = dev;
    pci_device_command_changed(dev);
    host_remap(host);
    pthread_mutex_unlock(&host->lock);
    return 0;
}

void pci_host_detach(struct pci_host *host, struct pci_device *dev) {
    pci_intx_set(dev, false);
    pthread_mutex_lock(&host->lock);
    pci_device_unmap_moved(dev, host->mmio, true);
    host->devices[dev->slot] = NULL;
    dev->host = NULL;
    pthread_mutex_unlock(&host->lock);
}

// ---- component ----

static void host_reset(void *ctx) {
    struct pci_host *host = ctx;
    pthread_mutex_lock(&host->lock);
    host->address = 0;
    for (unsigned i = 0; i < PCI_SLOTS; i++)
        if (host->devices[i])
            pci_device_reset(host->devices[i]);
    host_remap(host);
    pthread_mutex_unlock(&host->lock);
}

static void host_save(void *ctx, struct state_writer *w) {
    struct pci_host *host = ctx;
    pthread_mutex_lock(&host->lock);
    state_put_u32(w, host->address);
    for (unsigned i = 0; i < PCI_SLOTS; i++) {
        state_put_u8(w, host->devices[i] != NULL);
        if (host->devices[i])
            state_put_bytes(w, host->devices[i]->config, PCI_CONFIG_SIZE);
    }
    pthread_mutex_unlock(&host->lock);
}

// Only writable bits come from the snapshot: a file cannot turn one device into another.
static int device_load(struct pci_device *dev, const uint8_t *config, unsigned slot, struct error *err) {
    if (memcmp(config, dev->config, 4)) // vendor and device ID
        return error_set(err, -EINVAL, "snapshot has another PCI device in slot %u", slot);
    for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++)
        dev->config[i] = (uint8_t)((dev->config[i] & ~dev->wmask[i]) | (config[i] & dev->wmask[i]));
    pci_device_command_changed(dev);
    return 0;
}

static int slots_load(struct pci_host *host, struct state_reader *r, struct error *err) {
    for (unsigned i = 0; i < PCI_SLOTS; i++) {
        struct pci_device *dev = host->devices[i];
        uint8_t config[PCI_CONFIG_SIZE];
        if ((state_get_u8(r) != 0) != (dev != NULL))
            return error_set(err, -EINVAL, "snapshot and machine differ in PCI slot %u", i);
        if (!dev)
            continue;
        state_get_bytes(r, config, sizeof(config));
        int ret = r->error ? error_set(err, -EINVAL, "PCI state is truncated") : device_load(dev, config, i, err);
        if (ret)
            return ret;
    }
    return r->error ? error_set(err, -EINVAL, "PCI state is truncated") : 0;
}

static int host_load(void *ctx, struct state_reader *r, struct error *err) {
    struct pci_host *host = ctx;
    pthread_mutex_lock(&host->lock);
    host->address = state_get_u32(r) & 0x80fffffcu;
    int ret = slots_load(host, r, err);
    host_remap(host);
    pthread_mutex_unlock(&host->lock);
    return ret;
}

static void host_destroy(void *ctx) {
    struct pci_host *host = ctx;
    if (!host)
        return;
    bus_unmap(host->mmio, PCI_ECAM_BASE);
    bus_unmap(host->pio, PCI_PORT_DATA);
    bus_unmap(host->pio, PCI_PORT_ADDRESS);
    pci_device_fini(&host->bridge);
    pthread_mutex_destroy(&host->lock);
    free(host);
}

static const struct component_ops host_component = {
    .name = "pci",
    .version = 1,
    .reset = host_reset,
    .save = host_save,
    .load = host_load,
    .destroy = host_destroy,
};

// The identity of a host bridge that every guest knows and for which none needs a driver.
static const struct pci_id bridge_id = {.vendor = 0x1b36, .device = 0x0008, .class_code = 0x060000};
static const struct pci_device_ops bridge_ops = {.name = "host-bridge"};

static int host_map(struct pci_host *host, struct error *err) {
    int ret = bus_map(host->mmio, PCI_ECAM_BASE, PCI_ECAM_SIZE, &ecam_ops, host);
    if (ret)
        return error_set(err, ret, "map the PCI ECAM window at %#x", PCI_ECAM_BASE);
    ret = bus_map_background(host->pio, PCI_PORT_ADDRESS, 4, &address_ops, host);
    if (!ret)
        ret = bus_map(host->pio, PCI_PORT_DATA, 4, &data_ops, host);
    return ret ? error_set(err, ret, "map the PCI configuration ports") : 0;
}

int pci_host_create(struct machine *m, struct bus *pio, struct bus *mmio, struct pci_host **out, struct error *err) {
    struct pci_host *host = calloc(1, sizeof(*host));
    if (!host)
        return error_set(err, -ENOMEM, "create PCI host bridge");
    host->machine = m;
    host->pio = pio;
    host->mmio = mmio;
    host->bar_next = PCI_MMIO_BASE;
    pthread_mutex_init(&host->lock, NULL);
    for (unsigned i = 0; i < PCI_GSI_COUNT; i++)
        irq_line_init(&host->lines[i], &m->irq, PCI_GSI_BASE + i);
    pci_device_init(&host->bridge, &bridge_ops, &bridge_id);

    int ret = host_map(host, err);
    if (!ret)
        ret = pci_host_attach(host, &host->bridge, 0, err);
    if (!ret && (ret = component_add(&m->components, &host_component, host, 0)))
        error_set(err, ret, "register PCI host bridge");
    if (ret) {
        host_destroy(host);
        return ret;
    }
    *out = host;
    return 0;
}
