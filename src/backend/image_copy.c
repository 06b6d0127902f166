// SPDX-License-Identifier: Apache-2.0
// Copies of disk images; see the header. Works after the seal: nothing but calls on open files.
#include "backend/image_copy.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "util/io.h"

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

int image_share(int from, int to) {
    return ioctl(to, FICLONE, from) == 0 ? 0 : -errno;
}

int image_copy(int from, uint64_t size, int to) {
    if (image_share(from, to) == 0)
        return 0;
    if (ftruncate(to, (off_t)size) < 0)
        return -errno;
    uint8_t *buf = malloc(PIECE_BYTES);
    int ret = buf ? copy_data(from, size, to, buf) : -ENOMEM;
    free(buf);
    return ret;
}

bool image_is_zero(const uint8_t *p, uint64_t bytes) {
    return p[0] == 0 && memcmp(p, p + 1, bytes - 1) == 0;
}

int image_write_zeroes(int fd, uint64_t bytes, uint64_t offset) {
    static const uint8_t zeroes[BLOCK_CLUSTER];
    int ret = 0;
    if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)bytes) == 0)
        return 0;
    for (uint64_t at = 0, n; ret == 0 && at < bytes; at += n) {
        n = bytes - at < sizeof(zeroes) ? bytes - at : sizeof(zeroes);
        ret = io_write_at(fd, zeroes, n, offset + at);
    }
    return ret;
}

// ---- disks ----

int block_peek(struct block_backend *b, uint8_t *buf, uint64_t bytes, uint64_t offset) {
    return b->ops->peek ? b->ops->peek(b, buf, bytes, offset) : io_read_at(b->fd, buf, bytes, offset);
}

static int copy_layer(struct block_backend *b, int fd, uint8_t *buf) {
    int ret = 0;
    for (uint64_t at = 0; ret == 0 && at < b->size; at += BLOCK_CLUSTER) {
        uint64_t bytes = b->size - at < BLOCK_CLUSTER ? b->size - at : BLOCK_CLUSTER;
        if (!b->ops->own(b, at))
            continue;
        ret = block_peek(b, buf, bytes, at);
        if (ret == 0)
            ret = io_write_at(fd, buf, bytes, at);
    }
    return ret;
}

int block_copy_to(struct block_backend *b, int fd) {
    int ret = b->fd >= 0 ? image_copy(b->fd, b->size, fd) : -EOPNOTSUPP;
    if (ret || !b->ops->own)
        return ret;
    uint8_t *buf = malloc(BLOCK_CLUSTER);
    ret = buf ? copy_layer(b, fd, buf) : -ENOMEM;
    free(buf);
    return ret;
}
