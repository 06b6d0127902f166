// SPDX-License-Identifier: Apache-2.0
// Reads a whole file into memory. Not mapped, because a file that shrinks under a mapping kills the process.
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "boot/image.h"
#include "util/io.h"

#define LARGE_PAGE  (2u << 20)
#define NOTES_MAX   (1u << 20)
#define KERNEL_HEAD (64u << 10) // bytes of an ELF kernel that are read for its headers

uint8_t *boot_blob_alloc(size_t size) {
    if (size < LARGE_PAGE)
        return malloc(size);
    size_t bytes = (size + LARGE_PAGE - 1) & ~(size_t)(LARGE_PAGE - 1);
    uint8_t *p = aligned_alloc(LARGE_PAGE, bytes);
    if (p)
        (void)madvise(p, bytes, MADV_HUGEPAGE); // a wish: fewer faults
    return p;
}

static int file_check(int fd, const char *path, const char *what, uint64_t max, size_t *size, struct error *err) {
    struct stat st;
    if (fstat(fd, &st) < 0)
        return error_set(err, -errno, "open %s '%s'", what, path);
    if (S_ISDIR(st.st_mode))
        return error_set(err, -EISDIR, "open %s '%s'", what, path);
    if (!S_ISREG(st.st_mode))
        return error_set(err, -EINVAL, "open %s '%s': not a regular file", what, path);
    if (st.st_size == 0)
        return error_set(err, -EINVAL, "open %s '%s': the file is empty", what, path);
    if ((uint64_t)st.st_size > max)
        return error_set(err, -EINVAL, "open %s '%s': %llu MiB are more than the guest's memory takes (%llu MiB)", what,
                         path, (unsigned long long)st.st_size >> 20, (unsigned long long)max >> 20);
    *size = (size_t)st.st_size;
    return 0;
}

int boot_file_open(const char *path, const char *what, struct error *err) {
    // O_NONBLOCK: a FIFO must not hang us.
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    return fd < 0 ? error_set(err, -errno, "open %s '%s'", what, path) : fd;
}

static int read_part(int fd, const char *path, uint8_t *buf, size_t size, uint64_t offset, struct error *err) {
    int ret = io_read_at(fd, buf + offset, size, offset);
    return ret ? error_set(err, ret, "read kernel '%s'", path) : 0;
}

// Notes say whether there is a PVH entry; much longer ones than any kernel has count as empty. Headers that lie are the
// parser's business.
static int read_notes(int fd, const char *path, uint8_t *buf, size_t size, struct error *err) {
    Elf64_Phdr p;
    int ret = 0;
    for (unsigned i = 0; !ret && elf_peek_phdr((struct boot_blob){.data = buf, .size = size}, i, KERNEL_HEAD, &p); i++)
        if (p.p_type == PT_NOTE && p.p_filesz <= NOTES_MAX && p.p_offset < size && p.p_filesz <= size - p.p_offset)
            ret = read_part(fd, path, buf, p.p_filesz, p.p_offset, err);
    return ret;
}

int boot_file_read_kernel(int fd, const char *path, uint64_t max, struct boot_blob *out, struct error *err) {
    uint8_t magic[SELFMAG] = {0};
    size_t size = 0;
    int ret = file_check(fd, path, "kernel", max, &size, err);
    if (ret)
        return ret;
    if (size < KERNEL_HEAD || io_read_at(fd, magic, SELFMAG, 0) != 0 || memcmp(magic, ELFMAG, SELFMAG) != 0)
        return boot_file_read_fd(fd, path, "kernel", max, out, err);
    uint8_t *buf = calloc(1, size); // untouched where nothing is read
    if (!buf)
        return error_set(err, -ENOMEM, "read kernel '%s'", path);
    ret = read_part(fd, path, buf, KERNEL_HEAD, 0, err);
    if (!ret)
        ret = read_notes(fd, path, buf, size, err);
    if (ret) {
        free(buf);
        return ret;
    }
    *out = (struct boot_blob){buf, size, fd};
    return 0;
}

int boot_file_read_fd(int fd, const char *path, const char *what, uint64_t max, struct boot_blob *out,
                      struct error *err) {
    size_t size = 0;
    int ret = file_check(fd, path, what, max, &size, err);
    if (ret)
        return ret;
    uint8_t *buf = boot_blob_alloc(size);
    if (!buf)
        return error_set(err, -ENOMEM, "read %s '%s'", what, path);
    ret = io_read_at(fd, buf, size, 0);
    if (ret) {
        free(buf);
        return error_set(err, ret, "read %s '%s'", what, path);
    }
    *out = (struct boot_blob){.data = buf, .size = size};
    return 0;
}
