// SPDX-License-Identifier: Apache-2.0
// Assembles the ACPI tables: RSDP at the start of the area, then XSDT, RSDT and what they point to.
#include "boot/acpi.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "boot/acpi_table.h"
#include "boot/le.h"

#define RSDP_SIZE   36
#define TABLES_MAX  4
#define TABLE_ALIGN 64

uint64_t acpi_area_gpa(const struct acpi_area *area, const uint8_t *p) {
    return ACPI_AREA_BASE + (uint64_t)(p - area->buf);
}

uint8_t *acpi_area_alloc(struct acpi_area *area, size_t size) {
    size_t at = (area->len + TABLE_ALIGN - 1) & ~(size_t)(TABLE_ALIGN - 1);
    if (area->overrun || at > area->cap || size > area->cap - at) {
        area->overrun = true;
        return NULL;
    }
    area->len = at + size;
    return memset(area->buf + at, 0, size);
}

// Sum of all bytes becomes 0.
void acpi_checksum(uint8_t *p, size_t size, size_t at) {
    uint8_t sum = 0;
    p[at] = 0;
    for (size_t i = 0; i < size; i++)
        sum = (uint8_t)(sum + p[i]);
    p[at] = (uint8_t)-sum;
}

void acpi_finish(uint8_t *t, const char signature[4], uint8_t revision, size_t size) {
    memcpy(t, signature, 4);
    le32_put(t + 4, (uint32_t)size);
    t[8] = revision;
    memcpy(t + 10, "CICADA", 6);
    memcpy(t + 16, "MICROVM ", 8);
    le32_put(t + 24, 1); // OEM revision
    memcpy(t + 28, "CCDA", 4);
    le32_put(t + 32, 1); // creator revision
    acpi_checksum(t, size, 9);
}

// 5.2.5.3
static void acpi_fill_rsdp(uint8_t *p, uint64_t rsdt, uint64_t xsdt) {
    memcpy(p, "RSD PTR ", 8);
    memcpy(p + 9, "CICADA", 6);
    p[15] = 2; // revision
    le32_put(p + 16, (uint32_t)rsdt);
    le32_put(p + 20, RSDP_SIZE);
    le64_put(p + 24, xsdt);
    acpi_checksum(p, 20, 8);
    acpi_checksum(p, RSDP_SIZE, 32);
}

struct acpi_roots {
    uint8_t *rsdp, *xsdt, *rsdt;
};

// 5.2.7 and 5.2.8
static void acpi_fill_roots(const struct acpi_area *area, const struct acpi_roots *r, uint8_t *const *tables,
                            unsigned n) {
    for (unsigned i = 0; i < n; i++) {
        uint64_t gpa = acpi_area_gpa(area, tables[i]);
        le64_put(r->xsdt + ACPI_HEADER_SIZE + i * 8, gpa);
        le32_put(r->rsdt + ACPI_HEADER_SIZE + i * 4, (uint32_t)gpa);
    }
    acpi_finish(r->xsdt, "XSDT", 1, ACPI_HEADER_SIZE + n * 8);
    acpi_finish(r->rsdt, "RSDT", 1, ACPI_HEADER_SIZE + n * 4);
    acpi_fill_rsdp(r->rsdp, acpi_area_gpa(area, r->rsdt), acpi_area_gpa(area, r->xsdt));
}

int acpi_build(const struct acpi_config *cfg, uint8_t *buf, size_t *size, struct error *err) {
    struct acpi_area area = {buf, 0, ACPI_VMGENID_GPA - ACPI_AREA_BASE, false};
    struct acpi_roots roots;
    uint8_t *tables[TABLES_MAX];
    unsigned n = 0;

    roots.rsdp = acpi_area_alloc(&area, RSDP_SIZE);
    roots.xsdt = acpi_area_alloc(&area, ACPI_HEADER_SIZE + TABLES_MAX * 8);
    roots.rsdt = acpi_area_alloc(&area, ACPI_HEADER_SIZE + TABLES_MAX * 4);
    uint8_t *facs = acpi_add_facs(&area);
    uint8_t *dsdt = acpi_add_dsdt(&area, cfg);
    if (!area.overrun)
        tables[n++] = acpi_add_fadt(&area, cfg, acpi_area_gpa(&area, facs), acpi_area_gpa(&area, dsdt));
    if (!area.overrun)
        tables[n++] = acpi_add_madt(&area, cfg);
    if (!area.overrun && cfg->ecam_base)
        tables[n++] = acpi_add_mcfg(&area, cfg);
    if (area.overrun)
        return error_set(err, -EINVAL, "ACPI tables for %u CPUs do not fit into %u KiB", cfg->cpus,
                         ACPI_AREA_SIZE / 1024);
    acpi_fill_roots(&area, &roots, tables, n);
    *size = area.len;
    return 0;
}

int acpi_load(const struct acpi_config *cfg, struct mem *mem, uint64_t *rsdp, struct error *err) {
    size_t size;
    uint8_t *buf = calloc(1, ACPI_AREA_SIZE);
    if (!buf)
        return error_set(err, -ENOMEM, "build ACPI tables");
    int ret = acpi_build(cfg, buf, &size, err);
    if (ret)
        goto out;
    ret = mem_load(mem, GPA(ACPI_AREA_BASE), buf, size);
    if (ret)
        error_set(err, ret, "write ACPI tables at %#x", ACPI_AREA_BASE);
    else
        *rsdp = ACPI_AREA_BASE;
out:
    free(buf);
    return ret;
}
