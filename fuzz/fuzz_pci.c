// SPDX-License-Identifier: Apache-2.0
// Fuzzes what a guest can do to PCI and to a virtio-pci transport: configuration space by ports and by ECAM, the BAR
// wherever it has been moved, MSI-X and doorbells. The input is a list of records of 8 bytes, one access each.
#include <stdlib.h>
#include <string.h>

#include "bus/pci.h"
#include "virtio/rng.h"

#define RAM          0x40000u
#define SLOT         1
#define ACCESSES_MAX 512

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct guest {
    struct machine m;
    struct bus *pio, *mmio;
    struct pci_host *pci;
};

struct record {
    uint8_t op;     // bits 1:0 width, 2 write, 5:3 where
    uint8_t spread; // moves the address a little
    uint16_t addr;
    uint32_t data;
};

static struct guest *guest(void) {
    static struct guest *g;
    struct error err = {0};
    if (g)
        return g;
    g = calloc(1, sizeof(*g));
    if (!g || machine_init(&g->m, &err) || mem_add_ram(g->m.mem, GPA(0), RAM, "ram", &err) ||
        bus_create(&g->pio, "pio", &err) || bus_create(&g->mmio, "mmio", &err) ||
        pci_host_create(&g->m, g->pio, g->mmio, &g->pci, &err) || virtio_rng_create(g->pci, SLOT, 0, &err))
        abort();
    return g;
}

static void access_bus(struct bus *bus, uint64_t addr, const struct record *r) {
    unsigned size = 1u << (r->op & 3);
    uint64_t v = (uint64_t)r->data << 32 | r->data;
    if (r->op & 4)
        bus_write(bus, addr, size, 0, v);
    else
        bus_read(bus, addr, size, 0, &v);
    if (!(r->op & 4) && size < 8 && v >> (size * 8))
        abort(); // more bits than were asked for
}

static void step(struct guest *g, const struct record *r) {
    uint32_t bar = pci_config_read(g->pci, SLOT << 3, 0x10, 4) & ~15u;
    switch (r->op >> 3 & 7) {
    case 0: access_bus(g->pio, PCI_PORT_ADDRESS + (r->addr & 7), r); break;
    case 1: access_bus(g->mmio, PCI_ECAM_BASE + (SLOT << 15) + (r->addr & 0xff), r); break;
    case 2: access_bus(g->mmio, PCI_ECAM_BASE + ((uint32_t)r->addr << 4) + r->spread, r); break;
    case 3: access_bus(g->mmio, bar + (r->addr & 0x7fff), r); break;
    case 4: access_bus(g->mmio, bar + (r->addr & 0x3f), r); break; // the common structure
    case 5: access_bus(g->mmio, bar + 0x3000, r); break;           // a doorbell
    case 6: access_bus(g->mmio, ((uint64_t)r->data << 8) + r->spread, r); break;
    case 7: mem_write(g->m.mem, GPA(r->addr), &r->data, 4); break; // into the rings
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct guest *g = guest();
    struct record r;
    component_reset_all(&g->m.components);
    for (size_t i = 0; i < ACCESSES_MAX && size >= sizeof(r); i++) {
        memcpy(&r, data, sizeof(r));
        data += sizeof(r);
        size -= sizeof(r);
        step(g, &r);
    }
    // Identity survives everything.
    if (pci_config_read(g->pci, SLOT << 3, 0, 4) != 0x10441af4)
        abort();
    return 0;
}
