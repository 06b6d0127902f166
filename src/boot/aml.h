// SPDX-License-Identifier: Apache-2.0
// Small builder for ACPI Machine Language (ACPI 6.4 chapter 20) and resource descriptors (6.4). Appends to a buffer
// of fixed size; an overrun is remembered in `overrun`, later calls do nothing, so callers check once at the end.
#ifndef CICADA_BOOT_AML_H
#define CICADA_BOOT_AML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct aml {
    uint8_t *buf; // borrowed
    size_t len, cap;
    bool overrun;
};

// Place of an open package; its length is filled in by aml_end.
struct aml_mark {
    size_t at;
};

void aml_init(struct aml *a, uint8_t *buf, size_t cap);
void aml_bytes(struct aml *a, const void *p, size_t n);

// Blocks: everything up to aml_end is inside.
struct aml_mark aml_scope(struct aml *a, const char *name);
struct aml_mark aml_device(struct aml *a, const char *name);
struct aml_mark aml_package(struct aml *a, unsigned elements);
struct aml_mark aml_method(struct aml *a, const char *name, unsigned arguments); // serialized
void aml_end(struct aml *a, struct aml_mark m);

// Notify (device, value), in a method. device: one segment, found from the method outwards.
void aml_notify(struct aml *a, const char *device, unsigned value);

// Name (name, ...): the object follows. name is one segment, or \ and one segment; shorter ones are padded with _.
void aml_name(struct aml *a, const char *name);
void aml_integer(struct aml *a, uint64_t value);
void aml_string(struct aml *a, const char *text);
void aml_eisaid(struct aml *a, const char *id); // "PNP0A08"
void aml_name_integer(struct aml *a, const char *name, uint64_t value);
void aml_name_eisaid(struct aml *a, const char *name, const char *id);
void aml_name_string(struct aml *a, const char *name, const char *text);

// Name (_CRS, ResourceTemplate () {...}): descriptors up to aml_crs_end.
struct aml_crs {
    struct aml_mark name;
    size_t body;
};
struct aml_crs aml_crs_begin(struct aml *a);
void aml_crs_end(struct aml *a, struct aml_crs crs);
void aml_res_io(struct aml *a, uint16_t base, uint8_t len);
void aml_res_irq(struct aml *a, unsigned irq); // edge, active high, exclusive
void aml_res_gsi(struct aml *a, uint32_t gsi); // edge, active high, exclusive; any GSI
void aml_res_memory32(struct aml *a, uint32_t base, uint32_t len);
void aml_res_bus_range(struct aml *a, uint16_t first, uint16_t last);
void aml_res_io_window(struct aml *a, uint16_t first, uint16_t last);
void aml_res_memory_window(struct aml *a, uint64_t first, uint64_t last); // 32-bit or 64-bit by its end

#endif
