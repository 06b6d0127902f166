// SPDX-License-Identifier: Apache-2.0
// MADT (ACPI 6.4 5.2.12): local APICs (x2APIC entries for the IDs that do not fit into 8 bits), one I/O APIC,
// the overrides of a PC, NMI on LINT1. And MCFG (PCI Firmware Specification 3.2, 4.1.2).
#include "boot/acpi_table.h"
#include "boot/le.h"
#include "dev/acpi_pm.h"
#include "dev/i82093aa.h"
#include "dev/lapic.h"

#define MADT_REVISION 5
#define MADT_FIXED    44
#define PCAT_COMPAT   1 // the two 8259 are there
#define XAPIC_ID_MAX  254

#define ENTRY_LAPIC      0
#define ENTRY_IOAPIC     1
#define ENTRY_OVERRIDE   2
#define ENTRY_LAPIC_NMI  4
#define ENTRY_X2APIC     9
#define ENTRY_X2APIC_NMI 10
#define LAPIC_LEN        8
#define IOAPIC_LEN       12
#define OVERRIDE_LEN     10
#define LAPIC_NMI_LEN    6
#define X2APIC_LEN       16
#define X2APIC_NMI_LEN   12

#define INTI_BUS        0
#define INTI_HIGH_LEVEL 0x000d // polarity active high (01), trigger level (11)

// Returns what follows.
static uint8_t *madt_put_cpu(uint8_t *p, unsigned id) {
    bool wide = id > XAPIC_ID_MAX;
    p[0] = wide ? ENTRY_X2APIC : ENTRY_LAPIC;
    p[1] = wide ? X2APIC_LEN : LAPIC_LEN;
    if (wide) {
        le32_put(p + 4, id);
        le32_put(p + 8, 1);   // enabled
        le32_put(p + 12, id); // processor UID
    } else {
        p[2] = (uint8_t)id; // processor UID
        p[3] = (uint8_t)id;
        le32_put(p + 4, 1); // enabled
    }
    return p + p[1];
}

static uint8_t *madt_put_ioapic(uint8_t *p) {
    p[0] = ENTRY_IOAPIC;
    p[1] = IOAPIC_LEN;
    p[2] = 0; // I/O APIC ID
    le32_put(p + 4, (uint32_t)I82093AA_BASE);
    le32_put(p + 8, 0); // first GSI
    return p + IOAPIC_LEN;
}

static uint8_t *madt_put_override(uint8_t *p, uint8_t irq, uint32_t gsi, uint16_t flags) {
    p[0] = ENTRY_OVERRIDE;
    p[1] = OVERRIDE_LEN;
    p[2] = 0; // ISA
    p[3] = irq;
    le32_put(p + 4, gsi);
    le16_put(p + 8, flags);
    return p + OVERRIDE_LEN;
}

// LINT1 of all processors.
static uint8_t *madt_put_nmi(uint8_t *p, bool wide) {
    p[0] = wide ? ENTRY_X2APIC_NMI : ENTRY_LAPIC_NMI;
    p[1] = wide ? X2APIC_NMI_LEN : LAPIC_NMI_LEN;
    if (wide) {
        le32_put(p + 4, UINT32_MAX);
        p[8] = 1;
    } else {
        p[2] = 0xff;
        p[5] = 1;
    }
    return p + p[1];
}

static size_t madt_size(unsigned cpus) {
    unsigned narrow = cpus <= XAPIC_ID_MAX + 1 ? cpus : XAPIC_ID_MAX + 1, wide = cpus - narrow;
    return MADT_FIXED + narrow * (size_t)LAPIC_LEN + wide * (size_t)X2APIC_LEN + IOAPIC_LEN + 2 * OVERRIDE_LEN +
           LAPIC_NMI_LEN + (wide ? X2APIC_NMI_LEN : 0);
}

uint8_t *acpi_add_madt(struct acpi_area *area, const struct acpi_config *cfg) {
    size_t size = madt_size(cfg->cpus);
    uint8_t *t = acpi_area_alloc(area, size);
    if (!t)
        return NULL;
    le32_put(t + 36, (uint32_t)LAPIC_DEFAULT_BASE);
    le32_put(t + 40, PCAT_COMPAT);
    uint8_t *p = t + MADT_FIXED;
    for (unsigned i = 0; i < cfg->cpus; i++)
        p = madt_put_cpu(p, i);
    p = madt_put_ioapic(p);
    p = madt_put_override(p, 0, 2, INTI_BUS);                                    // the PIT
    p = madt_put_override(p, ACPI_PM_SCI_GSI, ACPI_PM_SCI_GSI, INTI_HIGH_LEVEL); // SCI
    p = madt_put_nmi(p, false);
    if (cfg->cpus > XAPIC_ID_MAX + 1)
        p = madt_put_nmi(p, true);
    acpi_finish(t, "APIC", MADT_REVISION, (size_t)(p - t));
    return t;
}

#define MCFG_SIZE 60

uint8_t *acpi_add_mcfg(struct acpi_area *area, const struct acpi_config *cfg) {
    uint8_t *t = acpi_area_alloc(area, MCFG_SIZE);
    if (!t)
        return NULL;
    le64_put(t + 44, cfg->ecam_base);
    le16_put(t + 52, 0); // segment
    t[54] = 0;           // first bus
    t[55] = (uint8_t)(cfg->buses - 1);
    acpi_finish(t, "MCFG", 1, MCFG_SIZE);
    return t;
}
