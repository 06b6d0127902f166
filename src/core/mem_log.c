// SPDX-License-Identifier: Apache-2.0
// Guest memory as snapshots and migration see it: the base under a RAM block, the dirty log, and which pages have been
// written since when.
//
// Invariants: dirty, since and own are disjoint in time, not in pages: a bit moves from dirty to since when the log is
// fetched, and from since to own at a checkpoint; none is ever lost. Over a base, a page that is in none of the three
// is still the base's.
#define LOG_UNIT "mem"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/mem_lazy.h"
#include "core/mem_private.h"
#include "util/log.h"

#define BITS_PER_WORD (8 * sizeof(unsigned long))

static struct mem_backing *backing_of(struct mem *mem, const struct mem_slot *slot) {
    return &mem->backing[slot - mem->slots];
}

uint64_t mem_bitmap_words(const struct mem_slot *slot) {
    return ((slot->size >> PAGE_SHIFT) + BITS_PER_WORD - 1) / BITS_PER_WORD;
}

// ---- base ----

static int base_check(const struct mem_slot *s, int fd, uint64_t offset, struct error *err) {
    struct stat st;
    if (offset & ~PAGE_MASK)
        return error_set(err, -EINVAL, "memory '%s': its base does not begin at a page", s->name);
    if (fstat(fd, &st) < 0)
        return error_set(err, -errno, "base of memory '%s'", s->name);
    // A page behind the end of the file would be a SIGBUS.
    if (offset > (uint64_t)st.st_size || (uint64_t)st.st_size - offset < s->size)
        return error_set(err, -EINVAL, "memory '%s': its base is too short", s->name);
    return 0;
}

int mem_set_base(struct mem *mem, gpa_t base, int fd, uint64_t offset, struct error *err) {
    struct mem_slot *s = (struct mem_slot *)mem_find_slot(mem, base.v);
    if (!s || s->gpa != base.v || s->rom)
        return error_set(err, -EINVAL, "no RAM block begins at 0x%llx", (unsigned long long)base.v);
    struct mem_backing *b = backing_of(mem, s);
    int ret = base_check(s, fd, offset, err);
    if (ret)
        return ret;
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (own < 0)
        return error_set(err, -errno, "base of memory '%s'", s->name);
    if (mmap(s->hva, s->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED, own, (off_t)offset) ==
        MAP_FAILED) {
        ret = -errno;
        close(own);
        return error_set(err, ret, "map the base of memory '%s'", s->name);
    }
    if (madvise(s->hva, s->size, MADV_DONTDUMP) < 0)
        log_debug("madvise '%s': %s", s->name, strerror(errno));
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
    if (b->base_fd >= 0)
        close(b->base_fd);
    b->base_fd = own;
    b->base_offset = offset;
    memset(b->own, 0, mem_bitmap_words(s) * sizeof(*b->own));
    memset(b->since, 0, mem_bitmap_words(s) * sizeof(*b->since));
    memset(s->dirty, 0, mem_bitmap_words(s) * sizeof(*s->dirty));
    return 0;
}

// ---- dirty log ----

uint64_t mem_dirty_fetch(struct mem *mem, const struct mem_slot *slot, unsigned long *out) {
    unsigned long *since = backing_of(mem, slot)->since;
    uint64_t count = 0;

    for (uint64_t i = 0; i < mem_bitmap_words(slot); i++) {
        out[i] = __atomic_exchange_n(&slot->dirty[i], 0ul, __ATOMIC_RELAXED);
        since[i] |= out[i];
        count += (unsigned)__builtin_popcountl(out[i]);
    }
    return count;
}

void mem_since_checkpoint(struct mem *mem, const struct mem_slot *slot, unsigned long *out) {
    const unsigned long *since = backing_of(mem, slot)->since;
    for (uint64_t i = 0; i < mem_bitmap_words(slot); i++)
        out[i] = since[i] | __atomic_load_n(&slot->dirty[i], __ATOMIC_RELAXED);
}

void mem_checkpoint(struct mem *mem, const struct mem_slot *slot) {
    struct mem_backing *b = backing_of(mem, slot);
    for (uint64_t i = 0; i < mem_bitmap_words(slot); i++) {
        b->own[i] |= b->since[i];
        b->since[i] = 0;
    }
    mem->checkpointed = true;
}

bool mem_has_checkpoint(const struct mem *mem) {
    bool any = mem->checkpointed;
    for (unsigned i = 0; i < mem->nslots; i++)
        any |= mem->backing[i].base_fd >= 0;
    return any;
}

void mem_checkpoint_undo(struct mem *mem, const struct mem_slot *slot, const unsigned long *since) {
    struct mem_backing *b = backing_of(mem, slot);
    for (uint64_t i = 0; i < mem_bitmap_words(slot); i++)
        b->since[i] |= since[i];
}

// ---- which pages there are ----

static void set_range(unsigned long *map, uint64_t from, uint64_t to) {
    for (uint64_t page = from; page < to; page++)
        map[page / BITS_PER_WORD] |= 1ul << (page % BITS_PER_WORD);
}

// The data in [offset, offset + slot->size) of a file; a file system that knows no holes says: all of it.
static int file_data(const struct mem_slot *slot, int fd, uint64_t offset, unsigned long *out) {
    uint64_t end = offset + slot->size;
    for (uint64_t at = offset; at < end;) {
        off_t data = lseek(fd, (off_t)at, SEEK_DATA);
        if (data < 0 && errno == ENXIO)
            return 0;
        off_t hole = data < 0 ? -1 : lseek(fd, data, SEEK_HOLE);
        if (hole < 0)
            return -errno;
        if ((uint64_t)data >= end)
            return 0;
        uint64_t to = (uint64_t)hole < end ? (uint64_t)hole : end;
        set_range(out, ((uint64_t)data - offset) >> PAGE_SHIFT, (to - offset + PAGE_SIZE - 1) >> PAGE_SHIFT);
        at = (uint64_t)hole;
    }
    return 0;
}

int mem_present(struct mem *mem, const struct mem_slot *slot, unsigned long *out) {
    const struct mem_backing *b = backing_of(mem, slot);
    uint64_t words = mem_bitmap_words(slot);
    memset(out, 0, words * sizeof(*out));
    if (mem_lazy(mem) && !slot->rom) {
        set_range(out, 0, slot->size >> PAGE_SHIFT); // what is missing is no hole
        return 0;
    }
    if (b->base_fd < 0)
        return file_data(slot, slot->fd, 0, out);
    int ret = file_data(slot, b->base_fd, b->base_offset, out);
    for (uint64_t i = 0; i < words; i++)
        out[i] |= b->own[i] | b->since[i] | __atomic_load_n(&slot->dirty[i], __ATOMIC_RELAXED);
    return ret;
}
