// SPDX-License-Identifier: Apache-2.0
// ACPI tables of the microvm board (ACPI 6.4): RSDP, XSDT, RSDT, FADT, FACS, MADT, MCFG, DSDT. They live in the BIOS
// area, which is RAM on this board, so they are written again at every power-on.
#ifndef CICADA_BOOT_ACPI_H
#define CICADA_BOOT_ACPI_H

#include "core/mem.h"
#include "util/error.h"

#define ACPI_AREA_BASE 0xe0000 // RSDP first; where BIOS searches find it too
#define ACPI_AREA_SIZE 0x20000

// Virtual Machine Generation ID (Microsoft's specification of that name): 16 bytes that change when the machine's
// past is not unique any more (restored, cloned), so that the guest makes new keys. At the end of the area. An edge of
// the GSI makes the guest look at it (by a generic event device, ACPI 6.4 5.6.9).
#define ACPI_VMGENID_GPA   (ACPI_AREA_BASE + ACPI_AREA_SIZE - 0x1000)
#define ACPI_VMGENID_BYTES 16
#define ACPI_VMGENID_GSI   5

struct acpi_config {
    unsigned cpus;                    // APIC ID of CPU i = i
    uint64_t ecam_base;               // 0: no MCFG
    unsigned buses;                   // PCI buses from 0 on, 1 MiB of ECAM each; 1..256
    uint64_t pci32_first, pci32_last; // window for BARs below 4 GiB; last 0: no PCI host bridge
    uint64_t pci64_first, pci64_last; // above 4 GiB; last 0: none
    bool com1;                        // 16550 at 0x3f8, IRQ 4
    bool rtc;                         // MC146818 at 0x70, IRQ 8
    bool i8042;                       // keyboard controller; Linux then probes its ports
    bool pvpanic;                     // port 0x505
    bool fw_cfg;                      // ports 0x510, 0x511
    bool vmgenid;                     // generation of the machine at ACPI_VMGENID_GPA, told by ACPI_VMGENID_GSI
};

// The tables as they stand at ACPI_AREA_BASE, whose first bytes are the RSDP. buf has ACPI_AREA_SIZE bytes.
// Fills *size. -EINVAL when they do not fit (too many CPUs).
int acpi_build(const struct acpi_config *cfg, uint8_t *buf, size_t *size, struct error *err);

// Builds and writes them into guest memory; *rsdp = GPA of the RSDP. vCPUs stopped.
int acpi_load(const struct acpi_config *cfg, struct mem *mem, uint64_t *rsdp, struct error *err);

#endif
