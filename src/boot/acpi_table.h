// SPDX-License-Identifier: Apache-2.0
// Inside of the ACPI tables: one builder for the area at ACPI_AREA_BASE and a function for each table.
#ifndef CICADA_BOOT_ACPI_TABLE_H
#define CICADA_BOOT_ACPI_TABLE_H

#include "boot/acpi.h"
#include "boot/aml.h"

#define ACPI_HEADER_SIZE 36

// The area being filled. `overrun` is remembered, as in aml.
struct acpi_area {
    uint8_t *buf;
    size_t len, cap;
    bool overrun;
};

uint64_t acpi_area_gpa(const struct acpi_area *area, const uint8_t *p);
// Zeroed, aligned to 64 (FACS needs it); NULL after an overrun.
uint8_t *acpi_area_alloc(struct acpi_area *area, size_t size);
// Header of a system description table (5.2.6) and the checksum over `size` bytes; call when the body is complete.
void acpi_finish(uint8_t *table, const char signature[4], uint8_t revision, size_t size);
void acpi_checksum(uint8_t *p, size_t size, size_t at);

// Each returns the table in the area, NULL after an overrun.
uint8_t *acpi_add_dsdt(struct acpi_area *area, const struct acpi_config *cfg);
uint8_t *acpi_add_facs(struct acpi_area *area);
uint8_t *acpi_add_fadt(struct acpi_area *area, const struct acpi_config *cfg, uint64_t facs, uint64_t dsdt);
uint8_t *acpi_add_madt(struct acpi_area *area, const struct acpi_config *cfg);
uint8_t *acpi_add_mcfg(struct acpi_area *area, const struct acpi_config *cfg);

#endif
