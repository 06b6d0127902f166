// SPDX-License-Identifier: Apache-2.0
// Guest RAM in a snapshot: what the file `memory` holds, page by page.
//
// The file has the RAM blocks one behind the other, each page at its own place, so that it can be mapped; pages that
// are not in it are holes. The sections ".ram" of the file `state`, one for each block, say which pages are there:
//   u64 gpa, u64 size, u64 offset in `memory` (all in bytes, page aligned), u8 1 for a difference,
//   one bit for each page, rounded up to 8 bytes, then the CRC-32C of each page whose bit is set.
// A page whose bit is clear is zero; in a difference it is as in the parent.
#ifndef CICADA_STATE_RAM_H
#define CICADA_STATE_RAM_H

#include "core/mem.h"
#include "state/sections.h"

#define RAM_SECTION         ".ram"
#define RAM_SECTION_VERSION 1

// ---- while it is written ----

struct ram_block {
    const struct mem_slot *slot;
    uint64_t offset;       // in the file
    unsigned long *pages;  // bit: in the file
    unsigned long *stored; // bit: other bytes than zeroes were written at its place
    uint32_t *crc;         // of each page in the file
};

struct ram_map {
    struct ram_block *blocks; // owned
    unsigned count;
    bool diff;
    uint64_t bytes; // size of the file
};

// A map of no pages for all RAM of mem. -ENOMEM leaves nothing.
int ram_map_create(const struct mem *mem, bool diff, struct ram_map *map);
void ram_map_free(struct ram_map *map); // a zeroed one is legal
void ram_map_put(const struct ram_map *map, struct state_writer *w);

// ---- while it is read ----

struct ram_section {
    uint64_t gpa, size, offset; // bytes
    bool diff;
    const uint8_t *bits, *crcs; // borrowed from the run of sections
};

// Block `instance`, checked for itself. -ENOENT without an error text where there is none; -EINVAL with one.
int ram_section_get(const struct sections *s, unsigned instance, struct ram_section *ram, struct error *err);
// Have the sections the blocks of this memory, no more, no fewer, and is the file as long as they need? *diff: is it a
// difference? -EINVAL with the reason.
int ram_sections_check(const struct sections *s, const struct mem *mem, uint64_t file_bytes, bool *diff,
                       struct error *err);

enum ram_load_how {
    RAM_MAP,  // the file becomes the base of the blocks; pages come when they are used
    RAM_READ, // pages are read now, and their checksums verified
};
// Fills the blocks from the file. A difference is read over what is there; it cannot be mapped. Before the vCPUs run.
int ram_load(const struct sections *s, struct mem *mem, int fd, enum ram_load_how how, struct error *err);
// Reads all pages of the file and compares their checksums.
int ram_verify(const struct sections *s, int fd, struct error *err);

#endif
