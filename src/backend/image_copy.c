// SPDX-License-Identifier: Apache-2.0
// Copies of disk images; see the header. Works after the seal: nothing but calls on open files.
#include "backend/image_copy.h"

#include <errno.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define PIECE_BYTES ((size_t)1 << 20)

static int copy_piece(int from, int to, uint8_t *buf, size_t len, uint64_t at) {
    ssize_t n = pread(from, buf, len, (off_t)at);
    if (n <= 0)
        return n < 0 ? -errno : -EIO;
    for (ssize_t done = 0; done < n;) {
        ssize_t w = pwrite(to, buf + done, (size_t)(n - done), (off_t)at + done);
        if (w <= 0)
            return w < 0 ? -errno : -EIO;
        done += w;
    }
    return (int)n;
}

static int copy_data(int from, uint64_t size, int to, uint8_t *buf) {
    for (uint64_t at = 0; at < size;) {
        off_t data = lseek(from, (off_t)at, SEEK_DATA);
        if (data < 0 && errno == ENXIO)
            return 0;
        at = data < 0 ? at : (uint64_t)data; // a block device: all is data
        off_t hole = data < 0 ? (off_t)size : lseek(from, data, SEEK_HOLE);
        uint64_t end = hole < 0 || (uint64_t)hole > size ? size : (uint64_t)hole;
        while (at < end) {
            int n = copy_piece(from, to, buf, end - at < PIECE_BYTES ? (size_t)(end - at) : PIECE_BYTES, at);
            if (n < 0)
                return n;
            at += (uint64_t)n;
        }
    }
    return 0;
}

int image_copy(int from, uint64_t size, int to) {
    if (ioctl(to, FICLONE, from) == 0)
        return 0;
    if (ftruncate(to, (off_t)size) < 0)
        return -errno;
    uint8_t *buf = malloc(PIECE_BYTES);
    int ret = buf ? copy_data(from, size, to, buf) : -ENOMEM;
    free(buf);
    return ret;
}

int block_copy_to(struct block_backend *b, int fd) {
    if (b->ops->copy_to)
        return b->ops->copy_to(b, fd);
    return b->fd >= 0 ? image_copy(b->fd, b->size, fd) : -EOPNOTSUPP;
}
