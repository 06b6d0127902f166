// SPDX-License-Identifier: Apache-2.0
// Guest-physical memory: set-up of RAM blocks, checked mapping and copying, dirty log.
//
// Invariants: slots are sorted, disjoint, page aligned and never reach the top of the 64-bit space, so gpa + size
// does not overflow. Every host mapping stands between inaccessible guards, so an engine's access that runs over the
// end of a block faults instead of reaching another object. Pages have host addresses aligned like 2 MiB huge pages.
#define LOG_UNIT "mem"
#include "core/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/mem_lazy.h"
#include "core/mem_private.h"
#include "util/log.h"

#define HUGE_SIZE (2ull << 20)
// No implementation has more than 52 physical address bits (Intel SDM 3A 4.1.4).
#define GPA_LIMIT (1ull << 52)

int mem_create(struct mem **mem, struct error *err) {
    struct mem *m = calloc(1, sizeof(*m));

    if (!m)
        return error_set(err, -ENOMEM, "create guest memory");
    m->lazy_fd = -1;
    *mem = m;
    return 0;
}

static void slot_release(struct mem_slot *s, struct mem_backing *b) {
    if (b->reserve)
        munmap(b->reserve, b->reserve_size);
    if (s->fd >= 0)
        close(s->fd);
    if (b->base_fd >= 0)
        close(b->base_fd);
    free(b->since);
    free(b->own);
    free(s->dirty);
    free((char *)s->name);
}

void mem_destroy(struct mem *mem) {
    if (!mem)
        return;
    for (unsigned i = 0; i < mem->nslots; i++)
        slot_release(&mem->slots[i], &mem->backing[i]);
    if (mem->lazy_fd >= 0)
        close(mem->lazy_fd);
    free(mem);
}

// ---- set-up ----

static int range_check(const struct mem *mem, gpa_t base, uint64_t size, const char *name, struct error *err) {
    if (size == 0 || ((base.v | size) & ~PAGE_MASK))
        return error_set(err, -EINVAL, "memory '%s': address and size must be multiples of 4 KiB and not zero", name);
    if (base.v >= GPA_LIMIT || size > GPA_LIMIT - base.v)
        return error_set(err, -EINVAL, "memory '%s': beyond 52 address bits", name);
    if (mem->nslots == MEM_MAX_SLOTS)
        return error_set(err, -ENOSPC, "memory '%s': more than %d blocks", name, MEM_MAX_SLOTS);
    for (unsigned i = 0; i < mem->nslots; i++) {
        const struct mem_slot *s = &mem->slots[i];

        if (base.v < s->gpa + s->size && s->gpa < base.v + size)
            return error_set(err, -EEXIST, "memory '%s' overlaps '%s'", name, s->name);
    }
    return 0;
}

// A memfd of fixed size: no one who is given it can shrink it under us, which would be a SIGBUS.
static int backing_open(struct mem_slot *s) {
    s->fd = memfd_create(s->name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (s->fd < 0 || ftruncate(s->fd, (off_t)s->size) < 0)
        return -errno;
    if (fcntl(s->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0)
        log_debug("seal '%s': %s", s->name, strerror(errno));
    return 0;
}

// Reserves [guard][slack][block][guard] and maps the block at a 2 MiB boundary of it.
static int backing_map(struct mem_slot *s, struct mem_backing *b) {
    size_t reserve_size = s->size + 2 * HUGE_SIZE;
    void *reserve = mmap(NULL, reserve_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (reserve == MAP_FAILED)
        return -errno;
    b->reserve = reserve;
    b->reserve_size = reserve_size;
    // At least a page over the start, less than 2 MiB + 1 page: a guard page is left on both sides.
    uintptr_t at = ((uintptr_t)reserve + PAGE_SIZE + HUGE_SIZE - 1) & ~(uintptr_t)(HUGE_SIZE - 1);
    void *hva = mmap((void *)at, s->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED, s->fd, 0);
    if (hva == MAP_FAILED)
        return -errno;
    s->hva = hva;
    // Both are wishes: guest RAM does not belong into core dumps, huge pages for shmem are a host setting.
    if (madvise(hva, s->size, MADV_DONTDUMP) < 0 || madvise(hva, s->size, MADV_HUGEPAGE) < 0)
        log_debug("madvise '%s': %s", s->name, strerror(errno));
    return 0;
}

static void slot_insert(struct mem *mem, const struct mem_slot *s, const struct mem_backing *b) {
    unsigned at = mem->nslots;

    for (; at > 0 && mem->slots[at - 1].gpa > s->gpa; at--) {
        mem->slots[at] = mem->slots[at - 1];
        mem->backing[at] = mem->backing[at - 1];
    }
    mem->slots[at] = *s;
    mem->backing[at] = *b;
    mem->nslots++;
}

static int slot_add(struct mem *mem, gpa_t base, uint64_t size, bool rom, const char *name, struct error *err) {
    struct mem_slot s = {.gpa = base.v, .size = size, .rom = rom, .fd = -1};
    struct mem_backing b = {.base_fd = -1};
    int ret = range_check(mem, base, size, name, err);

    if (ret)
        return ret;
    s.name = strdup(name);
    s.dirty = calloc(mem_bitmap_words(&s), sizeof(*s.dirty));
    b.since = calloc(mem_bitmap_words(&s), sizeof(*b.since));
    b.own = calloc(mem_bitmap_words(&s), sizeof(*b.own));
    ret = s.name && s.dirty && b.since && b.own ? 0 : -ENOMEM;
    if (!ret)
        ret = backing_open(&s);
    if (!ret)
        ret = backing_map(&s, &b);
    if (ret) {
        slot_release(&s, &b);
        return error_set(err, ret, "allocate %llu MiB of guest memory '%s'", (unsigned long long)size >> 20, name);
    }
    slot_insert(mem, &s, &b);
    return 0;
}

int mem_add_ram(struct mem *mem, gpa_t base, uint64_t size, const char *name, struct error *err) {
    return slot_add(mem, base, size, false, name, err);
}

int mem_add_rom(struct mem *mem, gpa_t base, uint64_t size, const char *name, struct error *err) {
    return slot_add(mem, base, size, true, name, err);
}

void mem_add_listener(struct mem *mem, struct mem_listener *l) {
    l->next = mem->listeners;
    mem->listeners = l;
}

void mem_remove_listener(struct mem *mem, struct mem_listener *l) {
    struct mem_listener **at = &mem->listeners;

    while (*at && *at != l)
        at = &(*at)->next;
    if (*at)
        *at = l->next;
}

// ---- mapping and copying ----

// Why memory is reached; decides whether ROM may be written.
enum reason { FOR_READ, FOR_WRITE, FOR_LOAD };

// The next piece of [gpa, gpa+len) that is contiguous in the host, at most one slot. Returns its length, 0 where
// there is no memory or it must not be written.
static uint64_t next_piece(const struct mem *mem, uint64_t gpa, uint64_t len, enum reason why, uint8_t **hva) {
    const struct mem_slot *s = mem_find_slot(mem, gpa);

    if (!s || (why == FOR_WRITE && s->rom))
        return 0;
    uint64_t off = gpa - s->gpa;
    *hva = s->hva + off;
    return len < s->size - off ? len : s->size - off;
}

// The kernel may not be able to wait for a missing page (core/mem_lazy.h); it will not meet one.
static void bring_in(const uint8_t *hva, uint64_t len) {
    for (uintptr_t at = (uintptr_t)hva; at < (uintptr_t)hva + len; at = (at & PAGE_MASK) + PAGE_SIZE)
        (void)*(const volatile uint8_t *)at;
}

int mem_map(struct mem *mem, gpa_t gpa, uint64_t len, enum mem_access access, struct iovec *iov, int max) {
    enum reason why = access & MEM_WRITE ? FOR_WRITE : FOR_READ;
    uint64_t end, n;
    int count = 0;

    if (__builtin_add_overflow(gpa.v, len, &end))
        return -EFAULT;
    for (uint64_t at = gpa.v; at < end; at += n) {
        uint8_t *hva = NULL;

        n = next_piece(mem, at, end - at, why, &hva);
        if (n == 0)
            return -EFAULT;
        if (count == max)
            return -ENOBUFS;
        if (mem_lazy(mem))
            bring_in(hva, n);
        iov[count++] = (struct iovec){.iov_base = hva, .iov_len = n};
    }
    return count;
}

static void announce_write(struct mem *mem, gpa_t gpa, uint64_t len) {
    if (len == 0)
        return;
    mem_mark_dirty(mem, gpa, len);
    for (struct mem_listener *l = mem->listeners; l; l = l->next)
        l->written(l->ctx, gpa, len);
}

void mem_unmap(struct mem *mem, gpa_t gpa, uint64_t len, bool written) {
    if (written)
        announce_write(mem, gpa, len);
}

static bool range_ok(const struct mem *mem, uint64_t gpa, uint64_t len, enum reason why) {
    uint8_t *hva;
    uint64_t end;

    if (__builtin_add_overflow(gpa, len, &end))
        return false;
    while (gpa < end) {
        uint64_t n = next_piece(mem, gpa, end - gpa, why, &hva);

        if (n == 0)
            return false;
        gpa += n;
    }
    return true;
}

// Slots are fixed while the copies run, so what range_ok found holds for them.
int mem_read(struct mem *mem, gpa_t gpa, void *buf, uint64_t len) {
    uint8_t *dst = buf, *hva = NULL;

    if (!range_ok(mem, gpa.v, len, FOR_READ))
        return -EFAULT;
    for (uint64_t done = 0; done < len;) {
        uint64_t n = next_piece(mem, gpa.v + done, len - done, FOR_READ, &hva);

        memcpy(dst + done, hva, n);
        done += n;
    }
    return 0;
}

#define POPULATE_MIN (64u << 10)
void mem_populate(void *hva, uint64_t len) {
    uint8_t *page = (uint8_t *)((uintptr_t)hva & PAGE_MASK);

    if (len >= POPULATE_MIN)
        (void)madvise(page, len + (uint64_t)((uint8_t *)hva - page), MADV_POPULATE_WRITE);
}

static int copy_in(struct mem *mem, gpa_t gpa, const void *buf, uint64_t len, enum reason why) {
    const uint8_t *src = buf;
    uint8_t *hva = NULL;

    if (!range_ok(mem, gpa.v, len, why))
        return -EFAULT;
    for (uint64_t done = 0; done < len;) {
        uint64_t n = next_piece(mem, gpa.v + done, len - done, why, &hva);

        mem_populate(hva, n);
        memcpy(hva, src + done, n);
        done += n;
    }
    announce_write(mem, gpa, len);
    return 0;
}

// Whole pages of an own layer are given back to the host: they read as zeroes and cost no memory.
static void zero_piece(const struct mem_slot *s, uint8_t *hva, uint64_t len) {
    uint8_t *first = (uint8_t *)(((uintptr_t)hva + PAGE_SIZE - 1) & PAGE_MASK);
    uint8_t *last = (uint8_t *)(((uintptr_t)hva + len) & PAGE_MASK);

    if (s->fd < 0 || first >= last || madvise(first, (size_t)(last - first), MADV_REMOVE) < 0)
        first = last = hva + len;
    memset(hva, 0, (size_t)(first - hva));
    memset(last, 0, (size_t)(hva + len - last));
}

int mem_zero(struct mem *mem, gpa_t gpa, uint64_t len) {
    uint8_t *hva = NULL;

    if (!range_ok(mem, gpa.v, len, FOR_WRITE))
        return -EFAULT;
    for (uint64_t done = 0; done < len;) {
        uint64_t n = next_piece(mem, gpa.v + done, len - done, FOR_WRITE, &hva);

        zero_piece(mem_find_slot(mem, gpa.v + done), hva, n);
        done += n;
    }
    announce_write(mem, gpa, len);
    return 0;
}

int mem_write(struct mem *mem, gpa_t gpa, const void *buf, uint64_t len) {
    return copy_in(mem, gpa, buf, len, FOR_WRITE);
}

int mem_load(struct mem *mem, gpa_t gpa, const void *buf, uint64_t len) {
    return copy_in(mem, gpa, buf, len, FOR_LOAD);
}

// ---- questions ----

uint64_t mem_ram_size(const struct mem *mem) {
    uint64_t sum = 0;

    for (unsigned i = 0; i < mem->nslots; i++)
        if (!mem->slots[i].rom)
            sum += mem->slots[i].size;
    return sum;
}

uint64_t mem_ram_below_4g(const struct mem *mem) {
    uint64_t end = 0;

    for (unsigned i = 0; i < mem->nslots && !mem->slots[i].rom && mem->slots[i].gpa == end; i++)
        end += mem->slots[i].size;
    return end < (1ull << 32) ? end : 1ull << 32;
}
