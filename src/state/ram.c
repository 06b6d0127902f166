// SPDX-License-Identifier: Apache-2.0
// Maps of guest RAM in a snapshot: see the header. The reader trusts no number before it was compared with the length
// of its section; page counts are bounded by what the section really holds.
#include "state/ram.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "util/crc32c.h"
#include "util/io.h"

#define BITS_PER_WORD (8 * sizeof(unsigned long))
#define HEADER_SIZE   25
#define CHUNK_PAGES   64 // read at once

// ---- writing ----

static int block_init(struct ram_block *b, const struct mem_slot *slot, uint64_t offset) {
    uint64_t words = mem_bitmap_words(slot);
    *b = (struct ram_block){.slot = slot, .offset = offset};
    b->pages = calloc(words, sizeof(*b->pages));
    b->stored = calloc(words, sizeof(*b->stored));
    b->crc = calloc(slot->size >> PAGE_SHIFT, sizeof(*b->crc));
    return b->pages && b->stored && b->crc ? 0 : -ENOMEM;
}

int ram_map_create(const struct mem *mem, bool diff, struct ram_map *map) {
    unsigned nslots;
    const struct mem_slot *slots = mem_slots(mem, &nslots);
    *map = (struct ram_map){.diff = diff};
    map->blocks = calloc(nslots ? nslots : 1, sizeof(*map->blocks));
    int ret = map->blocks ? 0 : -ENOMEM;
    for (unsigned i = 0; ret == 0 && i < nslots; i++) {
        if (slots[i].rom)
            continue; // the board makes it anew
        ret = block_init(&map->blocks[map->count++], &slots[i], map->bytes);
        map->bytes += slots[i].size;
    }
    if (ret)
        ram_map_free(map);
    return ret;
}

void ram_map_free(struct ram_map *map) {
    for (unsigned i = 0; i < map->count; i++) {
        free(map->blocks[i].pages);
        free(map->blocks[i].stored);
        free(map->blocks[i].crc);
    }
    free(map->blocks);
    *map = (struct ram_map){0};
}

static void block_put(const struct ram_block *b, bool diff, struct state_writer *w) {
    uint64_t pages = b->slot->size >> PAGE_SHIFT;
    state_put_u64(w, b->slot->gpa);
    state_put_u64(w, b->slot->size);
    state_put_u64(w, b->offset);
    state_put_u8(w, diff);
    for (uint64_t i = 0; i < mem_bitmap_words(b->slot); i++)
        state_put_u64(w, b->pages[i]);
    for (uint64_t page = 0; page < pages; page++)
        if (b->pages[page / BITS_PER_WORD] >> (page % BITS_PER_WORD) & 1)
            state_put_u32(w, b->crc[page]);
}

void ram_map_put(const struct ram_map *map, struct state_writer *w) {
    for (unsigned i = 0; i < map->count; i++) {
        struct state_writer one = {0};
        block_put(&map->blocks[i], map->diff, &one);
        if (state_writer_error(&one))
            w->error = state_writer_error(&one);
        else
            sections_put(w, RAM_SECTION, i, RAM_SECTION_VERSION, one.buf, one.len);
        state_writer_free(&one);
    }
}

// ---- reading ----

static bool bit(const uint8_t *bits, uint64_t page) {
    return bits[page / 8] >> (page % 8) & 1;
}

static uint64_t count_bits(const uint8_t *bits, uint64_t bytes) {
    uint64_t n = 0, word;
    for (uint64_t i = 0; i < bytes; i += sizeof(word)) { // a multiple of 8
        memcpy(&word, bits + i, sizeof(word));
        n += (unsigned)__builtin_popcountll(word);
    }
    return n;
}

int ram_section_get(const struct sections *s, unsigned instance, struct ram_section *ram, struct error *err) {
    const struct section *sec = sections_find(s, RAM_SECTION, instance);
    if (!sec)
        return -ENOENT;
    if (sec->version > RAM_SECTION_VERSION)
        return error_set(err, -EINVAL, "the map of RAM block %u is of version %u, this program reads up to %u",
                         instance, sec->version, RAM_SECTION_VERSION);
    struct state_reader r = {.buf = sec->data, .len = sec->len};
    *ram = (struct ram_section){.gpa = state_get_u64(&r), .size = state_get_u64(&r), .offset = state_get_u64(&r)};
    ram->diff = state_get_u8(&r) != 0;
    uint64_t pages = ram->size >> PAGE_SHIFT, bytes = (pages + 63) / 64 * 8;
    bool good = !r.error && ram->size && !((ram->gpa | ram->size | ram->offset) & ~PAGE_MASK) &&
                bytes <= sec->len - HEADER_SIZE && ram->offset <= INT64_MAX - ram->size;
    if (good) {
        ram->bits = sec->data + HEADER_SIZE;
        ram->crcs = ram->bits + bytes;
        good = count_bits(ram->bits, bytes) * sizeof(uint32_t) == sec->len - HEADER_SIZE - bytes;
        for (uint64_t page = pages; good && page < bytes * 8; page++)
            good = !bit(ram->bits, page);
    }
    return good ? 0 : error_set(err, -EINVAL, "corrupt: the map of RAM block %u", instance);
}

int ram_sections_check(const struct sections *s, const struct mem *mem, uint64_t file_bytes, bool *diff,
                       struct error *err) {
    unsigned nslots, instance = 0;
    const struct mem_slot *slots = mem_slots(mem, &nslots);
    struct ram_section ram;
    for (unsigned i = 0; i < nslots; i++) {
        if (slots[i].rom)
            continue;
        int ret = ram_section_get(s, instance, &ram, err);
        if (ret == -ENOENT)
            return error_set(err, -EINVAL, "the saved machine has less memory than this one");
        if (ret)
            return ret;
        if (ram.gpa != slots[i].gpa || ram.size != slots[i].size || (instance && ram.diff != *diff))
            return error_set(err, -EINVAL, "the saved machine has RAM at other addresses than this one");
        if (ram.offset + ram.size > file_bytes)
            return error_set(err, -EINVAL, "truncated: the file of the memory has %llu bytes, %llu are needed",
                             (unsigned long long)file_bytes, (unsigned long long)(ram.offset + ram.size));
        *diff = ram.diff;
        instance++;
    }
    if (sections_find(s, RAM_SECTION, instance))
        return error_set(err, -EINVAL, "the saved machine has more memory than this one");
    return 0;
}

static uint32_t crc_at(const struct ram_section *ram, uint64_t index) {
    const uint8_t *p = ram->crcs + 4 * index;
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

// Where pages go, and the buffer on their way.
struct reading {
    const struct ram_section *ram;
    struct mem *mem; // NULL: only compares
    int fd;
    uint8_t *buf;   // CHUNK_PAGES
    uint64_t index; // of the next checksum
};

// Pages [page, page + n), all of them in the file.
static int read_run(struct reading *rd, uint64_t page, unsigned n, struct error *err) {
    const struct ram_section *ram = rd->ram;
    uint8_t *buf = rd->buf;
    int ret = io_read_at(rd->fd, buf, n * PAGE_SIZE, ram->offset + (page << PAGE_SHIFT));
    if (ret)
        return error_set(err, ret, "read the memory");
    for (unsigned i = 0; i < n; i++)
        if (crc32c(0, buf + i * PAGE_SIZE, PAGE_SIZE) != crc_at(ram, rd->index++))
            return error_set(err, -EINVAL, "corrupt: checksum of the page at 0x%llx",
                             (unsigned long long)(ram->gpa + ((page + i) << PAGE_SHIFT)));
    if (!rd->mem)
        return 0;
    ret = mem_load(rd->mem, GPA(ram->gpa + (page << PAGE_SHIFT)), buf, n * PAGE_SIZE);
    return ret ? error_set(err, ret, "no RAM where the saved machine has some") : 0;
}

static int read_block(const struct ram_section *ram, struct mem *mem, int fd, struct error *err) {
    uint64_t pages = ram->size >> PAGE_SHIFT;
    struct reading rd = {.ram = ram, .mem = mem, .fd = fd, .buf = malloc(CHUNK_PAGES * PAGE_SIZE)};
    int ret = rd.buf ? 0 : error_set(err, -ENOMEM, "read the memory");
    for (uint64_t page = 0; ret == 0 && page < pages;) {
        unsigned n = 0;
        while (n < CHUNK_PAGES && page + n < pages && bit(ram->bits, page + n))
            n++;
        ret = n ? read_run(&rd, page, n, err) : 0;
        page += n ? n : 1;
    }
    free(rd.buf);
    return ret;
}

int ram_load(const struct sections *s, struct mem *mem, int fd, enum ram_load_how how, struct error *err) {
    struct ram_section ram;
    int ret = 0;
    for (unsigned i = 0; (ret = ram_section_get(s, i, &ram, err)) == 0; i++) {
        if (how == RAM_MAP && !ram.diff)
            ret = mem_set_base(mem, GPA(ram.gpa), fd, ram.offset, err);
        else
            ret = read_block(&ram, mem, fd, err);
        if (ret)
            return ret;
    }
    return ret == -ENOENT ? 0 : ret;
}

int ram_verify(const struct sections *s, int fd, struct error *err) {
    struct ram_section ram;
    int ret;
    for (unsigned i = 0; (ret = ram_section_get(s, i, &ram, err)) == 0; i++) {
        ret = read_block(&ram, NULL, fd, err);
        if (ret)
            return ret;
    }
    return ret == -ENOENT ? 0 : ret;
}
