// SPDX-License-Identifier: Apache-2.0
// Reads a whole file into memory. Not mapped, because a file that shrinks under a mapping kills the process.
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "boot/image.h"
#include "util/io.h"

#define LARGE_PAGE (2u << 20)

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
    *out = (struct boot_blob){buf, size};
    return 0;
}
