// SPDX-License-Identifier: Apache-2.0
// DSDT (ACPI 6.4 5.2.11.1): the devices that cannot be enumerated, the PCI host bridge with its windows and interrupt
// routing, the processors, and the sleep type of S5.
#include <stdio.h>
#include <string.h>

#include "boot/acpi_table.h"
#include "bus/pci.h"
#include "dev/acpi_pm.h"
#include "dev/fw_cfg.h"
#include "dev/pvpanic.h"

#define DSDT_REVISION 2 // 64-bit integers
#define PCI_SLOTS     32
#define PCI_PINS      4
#define PCI_FIRST_GSI 16 // as in bus/pci.h: slot s pin p -> GSI 16 + ((s + p) & 7)

// 7.4.2.6: the values for SLP_TYP of PM1a and PM1b.
static void dsdt_put_s5(struct aml *a) {
    aml_name(a, "\\_S5");
    struct aml_mark p = aml_package(a, 4);
    aml_integer(a, ACPI_PM_S5_TYPE);
    aml_integer(a, ACPI_PM_S5_TYPE);
    aml_integer(a, 0);
    aml_integer(a, 0);
    aml_end(a, p);
}

// 8.4: processor devices, matched with the MADT by _UID.
static void dsdt_put_cpus(struct aml *a, const struct acpi_config *cfg) {
    for (unsigned i = 0; i < cfg->cpus; i++) {
        char name[8];
        snprintf(name, sizeof(name), "C%03X", i & 0xfff);
        struct aml_mark d = aml_device(a, name);
        aml_name_string(a, "_HID", "ACPI0007");
        aml_name_integer(a, "_UID", i);
        aml_end(a, d);
    }
}

// 6.2.13: {address, pin, source, index}; a source of 0 makes the index a GSI, level and active low as PCI asks.
static void dsdt_put_prt(struct aml *a) {
    aml_name(a, "_PRT");
    struct aml_mark table = aml_package(a, PCI_SLOTS * PCI_PINS);
    for (unsigned slot = 0; slot < PCI_SLOTS; slot++) {
        for (unsigned pin = 0; pin < PCI_PINS; pin++) {
            struct aml_mark entry = aml_package(a, 4);
            aml_integer(a, slot << 16 | 0xffff);
            aml_integer(a, pin);
            aml_integer(a, 0);
            aml_integer(a, pci_intx_gsi(slot, pin));
            aml_end(a, entry);
        }
    }
    aml_end(a, table);
}

// What the bridge forwards: its buses, all ports but the configuration ones (which it uses itself), its windows.
static void dsdt_put_pci_crs(struct aml *a, const struct acpi_config *cfg) {
    struct aml_crs crs = aml_crs_begin(a);
    aml_res_bus_range(a, 0, (uint16_t)(cfg->buses - 1));
    aml_res_io(a, PCI_PORT_ADDRESS, 8);
    aml_res_io_window(a, 0, 0xcf7);
    aml_res_io_window(a, 0xd00, 0xffff);
    aml_res_memory_window(a, cfg->pci32_first, cfg->pci32_last);
    if (cfg->pci64_last)
        aml_res_memory_window(a, cfg->pci64_first, cfg->pci64_last);
    aml_crs_end(a, crs);
}

static void dsdt_put_pci(struct aml *a, const struct acpi_config *cfg) {
    struct aml_mark d = aml_device(a, "PCI0");
    aml_name_eisaid(a, "_HID", "PNP0A08"); // PCI Express: configuration space through ECAM
    aml_name_eisaid(a, "_CID", "PNP0A03");
    aml_name_integer(a, "_SEG", 0);
    aml_name_integer(a, "_BBN", 0);
    aml_name_integer(a, "_UID", 0);
    dsdt_put_pci_crs(a, cfg);
    dsdt_put_prt(a);
    aml_end(a, d);
}

// PCI Firmware Specification 4.1.2: ECAM is reserved by a motherboard resource.
static void dsdt_put_ecam(struct aml *a, const struct acpi_config *cfg) {
    struct aml_mark d = aml_device(a, "MBRD");
    aml_name_eisaid(a, "_HID", "PNP0C02");
    struct aml_crs crs = aml_crs_begin(a);
    aml_res_memory32(a, (uint32_t)cfg->ecam_base, cfg->buses << 20);
    aml_crs_end(a, crs);
    aml_end(a, d);
}

// A device with ports and at most one interrupt (-1 = none). hid: EISA ID ("PNP....") or string.
static void dsdt_put_io_device(struct aml *a, const char *name, const char *hid, uint16_t port, uint8_t len, int irq) {
    struct aml_mark d = aml_device(a, name);
    if (strncmp(hid, "PNP", 3) == 0)
        aml_name_eisaid(a, "_HID", hid);
    else
        aml_name_string(a, "_HID", hid);
    aml_name_integer(a, "_UID", 1);
    aml_name_integer(a, "_STA", 0xf); // present, enabled, shown, working
    struct aml_crs crs = aml_crs_begin(a);
    aml_res_io(a, port, len);
    if (irq >= 0)
        aml_res_irq(a, (unsigned)irq);
    aml_crs_end(a, crs);
    aml_end(a, d);
}

static void dsdt_put_vmgenid(struct aml *a) {
    struct aml_mark d = aml_device(a, "VGEN");
    aml_name_string(a, "_HID", "CCDA0001");
    aml_name_string(a, "_CID", "VM_Gen_Counter");
    aml_name_string(a, "_DDN", "VM_Gen_Counter");
    aml_name(a, "ADDR");
    struct aml_mark p = aml_package(a, 2);
    aml_integer(a, ACPI_VMGENID_GPA);
    aml_integer(a, 0);
    aml_end(a, p);
    aml_end(a, d);

    d = aml_device(a, "GED");
    aml_name_string(a, "_HID", "ACPI0013");
    aml_name_integer(a, "_UID", 0);
    struct aml_crs crs = aml_crs_begin(a);
    aml_res_gsi(a, ACPI_VMGENID_GSI);
    aml_crs_end(a, crs);
    struct aml_mark m = aml_method(a, "_EVT", 1);
    aml_notify(a, "VGEN", 0x80);
    aml_end(a, m);
    aml_end(a, d);
}

static void dsdt_put_devices(struct aml *a, const struct acpi_config *cfg) {
    if (cfg->pci32_last)
        dsdt_put_pci(a, cfg);
    if (cfg->ecam_base)
        dsdt_put_ecam(a, cfg);
    if (cfg->com1)
        dsdt_put_io_device(a, "COM1", "PNP0501", 0x3f8, 8, 4);
    if (cfg->rtc)
        dsdt_put_io_device(a, "RTC", "PNP0B00", 0x70, 2, 8);
    if (cfg->pvpanic)
        dsdt_put_io_device(a, "PEVT", "QEMU0001", PVPANIC_PORT, 1, -1);
    if (cfg->fw_cfg)
        dsdt_put_io_device(a, "FWCF", "QEMU0002", FW_CFG_PORT, 2, -1);
    if (cfg->vmgenid)
        dsdt_put_vmgenid(a);
}

uint8_t *acpi_add_dsdt(struct acpi_area *area, const struct acpi_config *cfg) {
    struct aml a;
    uint8_t *t = acpi_area_alloc(area, ACPI_HEADER_SIZE);
    if (!t)
        return NULL;
    aml_init(&a, area->buf + area->len, area->cap - area->len);
    dsdt_put_s5(&a);
    struct aml_mark sb = aml_scope(&a, "\\_SB");
    dsdt_put_cpus(&a, cfg);
    dsdt_put_devices(&a, cfg);
    aml_end(&a, sb);
    if (a.overrun) {
        area->overrun = true;
        return NULL;
    }
    area->len += a.len;
    acpi_finish(t, "DSDT", DSDT_REVISION, ACPI_HEADER_SIZE + a.len);
    return t;
}
