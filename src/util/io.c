// SPDX-License-Identifier: Apache-2.0
// Whole transfers and waits over system calls that may do less, or be interrupted.
#include "util/io.h"

#include <errno.h>
#include <poll.h>
#include <time.h>
#include <unistd.h>

// What one call has done, into *done: 0 to go on.
static int account(ssize_t n, size_t *done) {
    if (n < 0 && errno == EINTR)
        return 0;
    if (n <= 0)
        return n < 0 ? -errno : -EIO;
    *done += (size_t)n;
    return 0;
}

int io_read_at(int fd, void *buf, size_t len, uint64_t offset) {
    int ret = 0;
    for (size_t done = 0; !ret && done < len;)
        ret = account(pread(fd, (uint8_t *)buf + done, len - done, (off_t)(offset + done)), &done);
    return ret;
}

int io_write_at(int fd, const void *buf, size_t len, uint64_t offset) {
    int ret = 0;
    for (size_t done = 0; !ret && done < len;)
        ret = account(pwrite(fd, (const uint8_t *)buf + done, len - done, (off_t)(offset + done)), &done);
    return ret;
}

int io_write(int fd, const void *buf, size_t len) {
    int ret = 0;
    for (size_t done = 0; !ret && done < len;)
        ret = account(write(fd, (const uint8_t *)buf + done, len - done), &done);
    return ret;
}

uint64_t io_now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int64_t io_now_ms(void) {
    return (int64_t)(io_now_ns() / 1000000u);
}

int io_wait(int fd, short events, int64_t until) {
    for (;;) {
        int64_t left = until - io_now_ms();
        struct pollfd p = {.fd = fd, .events = events};
        int n = left > 0 ? poll(&p, 1, (int)left) : 0;
        if (n > 0)
            return 0;
        if (n == 0)
            return -ETIMEDOUT;
        if (errno != EINTR)
            return -errno;
    }
}
