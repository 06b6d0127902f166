// SPDX-License-Identifier: Apache-2.0
// Claims and writes of guest memory at load time. Invariant: claims lie in E820 RAM and never overlap.
#include "boot/image.h"

#include <errno.h>
#include <string.h>

#include "util/io.h"

#define MIB (1ull << 20)

void layout_init(struct boot_layout *l, struct mem *mem, const struct boot_machine *machine) {
    l->mem = mem;
    l->machine = machine;
    l->count = 0;
}

// RAM entries of the map do not touch each other, so a range must lie in one of them.
static bool layout_is_ram(const struct boot_layout *l, uint64_t start, uint64_t end) {
    for (unsigned i = 0; i < l->machine->e820_count; i++) {
        const struct boot_e820 *e = &l->machine->e820[i];
        if (e->type == E820_RAM && start >= e->base && end <= e->base + e->size)
            return true;
    }
    return false;
}

static const struct layout_claim *layout_find_overlap(const struct boot_layout *l, uint64_t start, uint64_t end) {
    for (unsigned i = 0; i < l->count; i++) {
        if (start < l->claims[i].end && l->claims[i].start < end)
            return &l->claims[i];
    }
    return NULL;
}

int layout_claim(struct boot_layout *l, uint64_t gpa, uint64_t size, const char *what, struct error *err) {
    uint64_t end;
    if (size == 0)
        return 0;
    if (__builtin_add_overflow(gpa, size, &end))
        return error_set(err, -EINVAL, "%s at %#llx wraps around the address space", what, (unsigned long long)gpa);
    if (!layout_is_ram(l, gpa, end))
        return error_set(err, -EINVAL, "%s needs %#llx..%#llx, which is not all memory of the guest (%llu MiB)", what,
                         (unsigned long long)gpa, (unsigned long long)end - 1,
                         (unsigned long long)((l->machine->ram_low + l->machine->ram_high) / MIB));
    const struct layout_claim *c = layout_find_overlap(l, gpa, end);
    if (c)
        return error_set(err, -EINVAL, "%s at %#llx..%#llx overlaps %s at %#llx..%#llx", what, (unsigned long long)gpa,
                         (unsigned long long)end - 1, c->what, (unsigned long long)c->start,
                         (unsigned long long)c->end - 1);
    if (l->count == LAYOUT_CLAIMS_MAX)
        return error_set(err, -EINVAL, "%s: too many pieces to load (at most %u)", what, LAYOUT_CLAIMS_MAX);
    l->claims[l->count++] = (struct layout_claim){gpa, end, what};
    return 0;
}

int layout_write(struct boot_layout *l, uint64_t gpa, const void *data, uint64_t size, struct error *err) {
    if (!l->mem || size == 0)
        return 0;
    int ret = mem_write(l->mem, GPA(gpa), data, size);
    if (ret)
        return error_set(err, ret, "write %llu bytes of guest memory at %#llx", (unsigned long long)size,
                         (unsigned long long)gpa);
    return 0;
}

// Straight from the file into the guest's memory.
static int read_into(struct boot_layout *l, uint64_t gpa, int fd, uint64_t offset, uint64_t size) {
    struct iovec iov[4];
    int n = mem_map(l->mem, GPA(gpa), size, MEM_WRITE, iov, 4), ret = n < 0 ? n : 0;
    for (int i = 0; i < n && !ret; i++) {
        mem_populate(iov[i].iov_base, iov[i].iov_len);
        ret = io_read_at(fd, iov[i].iov_base, iov[i].iov_len, offset);
        offset += iov[i].iov_len;
    }
    if (n > 0)
        mem_unmap(l->mem, GPA(gpa), size, true);
    return ret;
}

int layout_write_blob(struct boot_layout *l, uint64_t gpa, struct boot_blob blob, uint64_t offset, uint64_t size,
                      struct error *err) {
    if (!blob.fd)
        return layout_write(l, gpa, blob.data + offset, size, err);
    int ret = l->mem && size ? read_into(l, gpa, blob.fd, offset, size) : 0;
    return ret ? error_set(err, ret, "read %llu bytes of the file at %llu", (unsigned long long)size,
                           (unsigned long long)offset)
               : 0;
}

int layout_zero(struct boot_layout *l, uint64_t gpa, uint64_t size, struct error *err) {
    int ret = l->mem ? mem_zero(l->mem, GPA(gpa), size) : 0;
    if (ret)
        return error_set(err, ret, "clear %llu bytes of guest memory at %#llx", (unsigned long long)size,
                         (unsigned long long)gpa);
    return 0;
}

int layout_put(struct boot_layout *l, uint64_t gpa, const void *data, uint64_t size, const char *what,
               struct error *err) {
    int ret = layout_claim(l, gpa, size, what, err);
    return ret ? ret : layout_write(l, gpa, data, size, err);
}

// Moves below each claim in the way; every round ends strictly lower, so it ends.
static bool layout_find_high(const struct boot_layout *l, uint64_t max, uint64_t size, uint64_t *gpa) {
    uint64_t top = l->machine->ram_low;
    if (max < top - 1)
        top = max + 1;
    while (top >= size) {
        uint64_t start = (top - size) & PAGE_MASK;
        if (start < MIB)
            return false;
        const struct layout_claim *c = layout_find_overlap(l, start, start + size);
        if (!c) {
            *gpa = start;
            return true;
        }
        top = c->start;
    }
    return false;
}

int layout_put_high(struct boot_layout *l, uint64_t max, const void *data, uint64_t size, const char *what,
                    uint64_t *gpa, struct error *err) {
    if (l->machine->ram_low == 0 || !layout_find_high(l, max, size, gpa))
        return error_set(err, -EINVAL, "%s of %llu KiB does not fit beside the kernel into %llu MiB of memory", what,
                         (unsigned long long)(size + 1023) / 1024, (unsigned long long)(l->machine->ram_low / MIB));
    return layout_put(l, *gpa, data, size, what, err);
}

int layout_put_cmdline(struct boot_layout *l, const char *cmdline, struct error *err) {
    size_t size = strlen(cmdline) + 1;
    if (size > LAYOUT_CMDLINE_SIZE)
        return error_set(err, -EINVAL, "command line of %zu bytes is longer than %u", size - 1,
                         LAYOUT_CMDLINE_SIZE - 1);
    return layout_put(l, LAYOUT_CMDLINE, cmdline, size, "command line", err);
}
