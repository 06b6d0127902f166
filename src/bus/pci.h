// SPDX-License-Identifier: Apache-2.0
// One PCI bus behind a host bridge: configuration space by ECAM and by ports 0xcf8/0xcfc, 32-bit memory BARs, INTx.
// PCI Local Bus Specification 3.0 (chapter 6), PCI Express Base Specification 3.0 (7.2.2, ECAM).
//
// There is no firmware on the microvm board: pci_host_attach gives every BAR an address in the window below and
// turns memory decoding on, at creation and again at every reset. The guest may move the BARs afterwards.
#ifndef CICADA_BUS_PCI_H
#define CICADA_BUS_PCI_H

#include <pthread.h>
#include <stdatomic.h>

#include "bus/bus.h"
#include "core/machine.h"

// For the board and for ACPI (MCFG, _CRS, _PRT).
#define PCI_ECAM_BASE    0xe0000000u
#define PCI_ECAM_SIZE    0x00100000u // one bus
#define PCI_MMIO_BASE    0xc0000000u // 32-bit non-prefetchable window
#define PCI_MMIO_LAST    0xdfffffffu // inclusive
#define PCI_PORT_ADDRESS 0xcf8
#define PCI_PORT_DATA    0xcfc
#define PCI_SLOTS        32
#define PCI_PINS         4
#define PCI_GSI_BASE     16
#define PCI_GSI_COUNT    8

// GSI of a slot's pin (0: INTA# to 3: INTD#).
static inline unsigned pci_intx_gsi(unsigned slot, unsigned pin) {
    return PCI_GSI_BASE + ((slot + pin) & (PCI_GSI_COUNT - 1));
}

#define PCI_CONFIG_SIZE 256
#define PCI_BARS        6

struct pci_device;
struct pci_host;

// All are called with the host's lock held and may not call back into pci_host_*; NULL where not needed.
struct pci_device_ops {
    const char *name;
    void (*config_reading)(struct pci_device *dev, unsigned offset, unsigned size); // may refresh dev->config
    void (*config_written)(struct pci_device *dev, unsigned offset, unsigned size);
    void (*bar_moved)(struct pci_device *dev, unsigned bar); // bars[bar].mapped_at has changed
};

struct pci_id {
    uint16_t vendor, device, subsystem_vendor, subsystem;
    uint32_t class_code; // 24 bits: class, subclass, interface
    uint8_t revision;
    uint8_t pin; // 0: none, 1: INTA#
};

struct pci_bar {
    uint32_t size; // power of two, 0: no BAR
    uint32_t home; // address given at creation
    const struct bus_ops *ops;
    void *ctx;
    uint32_t mapped_at; // 0: not on the bus
};

// Embedded in the device. Everything is under host->lock, except what says otherwise.
struct pci_device {
    const struct pci_device_ops *ops;
    struct pci_host *host; // NULL before attach
    unsigned slot;
    uint8_t config[PCI_CONFIG_SIZE];
    uint8_t wmask[PCI_CONFIG_SIZE];        // bits that the guest can write; fixed after attach
    uint8_t reset_config[PCI_CONFIG_SIZE]; // config at power-on
    struct pci_bar bars[PCI_BARS];
    unsigned cap_end;          // first free byte for a capability
    unsigned cap_last;         // offset of the last capability, 0: none
    _Atomic uint16_t command;  // copy of the command register, read without a lock
    pthread_mutex_t intx_lock; // guards the two fields below; innermost
    bool intx_level;           // what the device asks for
    bool intx_held;            // what reaches the shared line
};

// Maps the ECAM window and the two ports, puts the host bridge into slot 0 and registers the component.
int pci_host_create(struct machine *m, struct bus *pio, struct bus *mmio, struct pci_host **out, struct error *err);
struct machine *pci_host_machine(struct pci_host *host);

// Fills the header. Then BARs and capabilities are added, then the device is attached.
void pci_device_init(struct pci_device *dev, const struct pci_device_ops *ops, const struct pci_id *id);
void pci_device_fini(struct pci_device *dev); // detaches; NULL-safe
// size: power of two of at least 4 KiB.
void pci_device_add_bar(struct pci_device *dev, unsigned bar, uint32_t size, const struct bus_ops *ops, void *ctx);
// Returns the offset of a new capability of len bytes (id and next pointer included), or -ENOSPC.
int pci_device_add_capability(struct pci_device *dev, uint8_t id, unsigned len);
// -EBUSY for a slot in use, -EINVAL for one that does not exist, -ENOSPC when the BAR window is full.
int pci_host_attach(struct pci_host *host, struct pci_device *dev, unsigned slot, struct error *err);

// Level of INTA#. Thread-safe, from under any device lock.
void pci_intx_set(struct pci_device *dev, bool level);
// Whether the guest allows the device to reach memory (bus master enable; DMA and MSI). Thread-safe.
bool pci_bus_master(const struct pci_device *dev);

// One access to configuration space of bus 0; size 1, 2 or 4. For the ports, ECAM and the fuzzer.
uint32_t pci_config_read(struct pci_host *host, unsigned devfn, unsigned offset, unsigned size);
void pci_config_write(struct pci_host *host, unsigned devfn, unsigned offset, unsigned size, uint32_t data);

// Little-endian helpers for configuration space and registers.
static inline uint16_t pci_get16(const uint8_t *p) {
    return (uint16_t)(p[0] | p[1] << 8);
}
static inline uint32_t pci_get32(const uint8_t *p) {
    return pci_get16(p) | (uint32_t)pci_get16(p + 2) << 16;
}
static inline void pci_put16(uint8_t *p, uint16_t v) {
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}
static inline void pci_put32(uint8_t *p, uint32_t v) {
    pci_put16(p, (uint16_t)v);
    pci_put16(p + 2, (uint16_t)(v >> 16));
}

#endif
