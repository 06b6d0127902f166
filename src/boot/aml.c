// SPDX-License-Identifier: Apache-2.0
// AML encoding. Invariant: len <= cap; after an overrun the contents are worthless and only `overrun` counts.
#include "boot/aml.h"

#include <string.h>

#include "boot/le.h"

// ACPI 6.4 20.2
#define OP_NAME       0x08
#define OP_BYTE       0x0a
#define OP_WORD       0x0b
#define OP_DWORD      0x0c
#define OP_STRING     0x0d
#define OP_QWORD      0x0e
#define OP_SCOPE      0x10
#define OP_BUFFER     0x11
#define OP_PACKAGE    0x12
#define OP_METHOD     0x14
#define OP_EXT        0x5b
#define OP_EXT_DEVICE 0x82
#define OP_NOTIFY     0x86

#define METHOD_SERIALIZED 8 // MethodFlags, beside the number of arguments

// Resource descriptors, 6.4.2 and 6.4.3
#define RES_IO                  0x47
#define RES_IRQ_NOFLAGS         0x22
#define RES_END                 0x79
#define RES_MEMORY32_FIXED      0x86
#define RES_DWORD_SPACE         0x87
#define RES_WORD_SPACE          0x88
#define RES_INTERRUPT           0x89
#define RES_QWORD_SPACE         0x8a
#define SPACE_MEMORY            0
#define SPACE_IO                1
#define SPACE_BUS               2
#define SPACE_FIXED             0x0c // general flags: producer, minimum and maximum fixed, positive decode
#define MEMORY_RW               0x01 // type flags: not cacheable, read-write
#define IO_ENTIRE_RANGE         3
#define INTERRUPT_CONSUMER_EDGE 3 // active high, exclusive

void aml_init(struct aml *a, uint8_t *buf, size_t cap) {
    *a = (struct aml){buf, 0, cap, false};
}

void aml_bytes(struct aml *a, const void *p, size_t n) {
    if (a->overrun || n > a->cap - a->len) {
        a->overrun = true;
        return;
    }
    memcpy(a->buf + a->len, p, n);
    a->len += n;
}

static void aml_u8(struct aml *a, uint8_t v) {
    aml_bytes(a, &v, 1);
}
static void aml_u16(struct aml *a, uint16_t v) {
    aml_bytes(a, &v, 2);
}
static void aml_u32(struct aml *a, uint32_t v) {
    aml_bytes(a, &v, 4);
}
static void aml_u64(struct aml *a, uint64_t v) {
    aml_bytes(a, &v, 8);
}

static void aml_name_segment(struct aml *a, const char *name) {
    char seg[4] = {'_', '_', '_', '_'};
    if (*name == '\\')
        aml_u8(a, (uint8_t)*name++);
    size_t n = strnlen(name, sizeof(seg));
    memcpy(seg, name, n);
    aml_bytes(a, seg, sizeof(seg));
}

// PkgLength, 20.2.4: counts itself; 1 byte up to 63, else 4 bits in the first byte and 1 to 3 bytes more.
static size_t aml_encode_length(uint8_t out[4], size_t body) {
    if (body + 1 <= 0x3f) {
        out[0] = (uint8_t)(body + 1);
        return 1;
    }
    size_t extra = body + 2 < 1 << 12 ? 1 : body + 3 < 1 << 20 ? 2 : 3;
    size_t total = body + 1 + extra;
    out[0] = (uint8_t)(extra << 6 | (total & 0xf));
    for (size_t i = 0; i < extra; i++)
        out[1 + i] = (uint8_t)(total >> (4 + 8 * i));
    return 1 + extra;
}

// Inserts the length in front of what came after the mark.
void aml_end(struct aml *a, struct aml_mark m) {
    uint8_t length[4];
    if (a->overrun)
        return;
    size_t body = a->len - m.at, n = aml_encode_length(length, body);
    if (n > a->cap - a->len) {
        a->overrun = true;
        return;
    }
    memmove(a->buf + m.at + n, a->buf + m.at, body);
    memcpy(a->buf + m.at, length, n);
    a->len += n;
}

struct aml_mark aml_scope(struct aml *a, const char *name) {
    aml_u8(a, OP_SCOPE);
    struct aml_mark m = {a->len};
    aml_name_segment(a, name);
    return m;
}

struct aml_mark aml_device(struct aml *a, const char *name) {
    aml_u8(a, OP_EXT);
    aml_u8(a, OP_EXT_DEVICE);
    struct aml_mark m = {a->len};
    aml_name_segment(a, name);
    return m;
}

struct aml_mark aml_package(struct aml *a, unsigned elements) {
    aml_u8(a, OP_PACKAGE);
    struct aml_mark m = {a->len};
    aml_u8(a, (uint8_t)elements);
    return m;
}

struct aml_mark aml_method(struct aml *a, const char *name, unsigned arguments) {
    aml_u8(a, OP_METHOD);
    struct aml_mark m = {a->len};
    aml_name_segment(a, name);
    aml_u8(a, (uint8_t)(arguments | METHOD_SERIALIZED));
    return m;
}

void aml_notify(struct aml *a, const char *device, unsigned value) {
    aml_u8(a, OP_NOTIFY);
    aml_name_segment(a, device);
    aml_integer(a, value);
}

void aml_name(struct aml *a, const char *name) {
    aml_u8(a, OP_NAME);
    aml_name_segment(a, name);
}

// The shortest form, as iasl does.
void aml_integer(struct aml *a, uint64_t v) {
    if (v <= 1) {
        aml_u8(a, (uint8_t)v); // ZeroOp, OneOp
    } else if (v <= UINT8_MAX) {
        aml_u8(a, OP_BYTE);
        aml_u8(a, (uint8_t)v);
    } else if (v <= UINT16_MAX) {
        aml_u8(a, OP_WORD);
        aml_u16(a, (uint16_t)v);
    } else if (v <= UINT32_MAX) {
        aml_u8(a, OP_DWORD);
        aml_u32(a, (uint32_t)v);
    } else {
        aml_u8(a, OP_QWORD);
        aml_u64(a, v);
    }
}

void aml_string(struct aml *a, const char *text) {
    aml_u8(a, OP_STRING);
    aml_bytes(a, text, strlen(text) + 1);
}

static unsigned hex_digit(char c) {
    return (unsigned)(c <= '9' ? c - '0' : c - 'A' + 10);
}

// 19.3.4 EISAID macro: three letters of 5 bits, four hex digits, as a big-endian 32-bit number.
void aml_eisaid(struct aml *a, const char *id) {
    uint32_t v = (uint32_t)(id[0] - 0x40) << 26 | (uint32_t)(id[1] - 0x40) << 21 | (uint32_t)(id[2] - 0x40) << 16 |
                 hex_digit(id[3]) << 12 | hex_digit(id[4]) << 8 | hex_digit(id[5]) << 4 | hex_digit(id[6]);
    aml_u8(a, OP_DWORD);
    aml_u32(a, __builtin_bswap32(v));
}

void aml_name_integer(struct aml *a, const char *name, uint64_t value) {
    aml_name(a, name);
    aml_integer(a, value);
}

void aml_name_eisaid(struct aml *a, const char *name, const char *id) {
    aml_name(a, name);
    aml_eisaid(a, id);
}

void aml_name_string(struct aml *a, const char *name, const char *text) {
    aml_name(a, name);
    aml_string(a, text);
}

// ---- resource templates ----

// Buffer: PkgLength BufferSize bytes. The size is a word at a fixed place, filled in at the end.
struct aml_crs aml_crs_begin(struct aml *a) {
    struct aml_crs crs;
    aml_name(a, "_CRS");
    aml_u8(a, OP_BUFFER);
    crs.name.at = a->len;
    aml_u8(a, OP_WORD);
    aml_u16(a, 0);
    crs.body = a->len;
    return crs;
}

void aml_crs_end(struct aml *a, struct aml_crs crs) {
    aml_u8(a, RES_END);
    aml_u8(a, 0); // checksum 0: not used
    if (!a->overrun)
        le16_put(a->buf + crs.body - 2, (uint16_t)(a->len - crs.body));
    aml_end(a, crs.name);
}

void aml_res_io(struct aml *a, uint16_t base, uint8_t len) {
    aml_u8(a, RES_IO);
    aml_u8(a, 1); // decodes 16 bits
    aml_u16(a, base);
    aml_u16(a, base);
    aml_u8(a, 1); // alignment
    aml_u8(a, len);
}

void aml_res_irq(struct aml *a, unsigned irq) {
    aml_u8(a, RES_IRQ_NOFLAGS);
    aml_u16(a, (uint16_t)(1u << irq));
}

void aml_res_gsi(struct aml *a, uint32_t gsi) {
    aml_u8(a, RES_INTERRUPT);
    aml_u16(a, 6);
    aml_u8(a, INTERRUPT_CONSUMER_EDGE);
    aml_u8(a, 1); // of them
    aml_u32(a, gsi);
}

void aml_res_memory32(struct aml *a, uint32_t base, uint32_t len) {
    aml_u8(a, RES_MEMORY32_FIXED);
    aml_u16(a, 9);
    aml_u8(a, 1); // read-write
    aml_u32(a, base);
    aml_u32(a, len);
}

static void aml_res_word_space(struct aml *a, uint8_t type, uint8_t type_flags, uint16_t first, uint16_t last) {
    aml_u8(a, RES_WORD_SPACE);
    aml_u16(a, 13);
    aml_u8(a, type);
    aml_u8(a, SPACE_FIXED);
    aml_u8(a, type_flags);
    aml_u16(a, 0); // granularity
    aml_u16(a, first);
    aml_u16(a, last);
    aml_u16(a, 0); // translation
    aml_u16(a, (uint16_t)(last - first + 1));
}

void aml_res_bus_range(struct aml *a, uint16_t first, uint16_t last) {
    aml_res_word_space(a, SPACE_BUS, 0, first, last);
}

void aml_res_io_window(struct aml *a, uint16_t first, uint16_t last) {
    aml_res_word_space(a, SPACE_IO, IO_ENTIRE_RANGE, first, last);
}

static void aml_res_dword_memory(struct aml *a, uint32_t first, uint32_t last) {
    aml_u8(a, RES_DWORD_SPACE);
    aml_u16(a, 23);
    aml_u8(a, SPACE_MEMORY);
    aml_u8(a, SPACE_FIXED);
    aml_u8(a, MEMORY_RW);
    aml_u32(a, 0);
    aml_u32(a, first);
    aml_u32(a, last);
    aml_u32(a, 0);
    aml_u32(a, last - first + 1);
}

static void aml_res_qword_memory(struct aml *a, uint64_t first, uint64_t last) {
    aml_u8(a, RES_QWORD_SPACE);
    aml_u16(a, 43);
    aml_u8(a, SPACE_MEMORY);
    aml_u8(a, SPACE_FIXED);
    aml_u8(a, MEMORY_RW);
    aml_u64(a, 0);
    aml_u64(a, first);
    aml_u64(a, last);
    aml_u64(a, 0);
    aml_u64(a, last - first + 1);
}

void aml_res_memory_window(struct aml *a, uint64_t first, uint64_t last) {
    if (last <= UINT32_MAX)
        aml_res_dword_memory(a, (uint32_t)first, (uint32_t)last);
    else
        aml_res_qword_memory(a, first, last);
}
