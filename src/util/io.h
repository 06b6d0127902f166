// SPDX-License-Identifier: Apache-2.0
// Whole transfers, waits with an end, and the host's clock for them. Any thread; no state.
#ifndef CICADA_UTIL_IO_H
#define CICADA_UTIL_IO_H

#include <stddef.h>
#include <stdint.h>

// All of len bytes at `offset` of a file: 0, a negative errno, or -EIO where the file ends before.
int io_read_at(int fd, void *buf, size_t len, uint64_t offset);
int io_write_at(int fd, const void *buf, size_t len, uint64_t offset);
// The same where the file stands.
int io_write(int fd, const void *buf, size_t len);

// CLOCK_MONOTONIC of the host. Nothing of it may reach a guest: guests have core/nondet.h.
uint64_t io_now_ns(void);
int64_t io_now_ms(void);
// Until poll(2) reports one of `events`: 0, -ETIMEDOUT at `until` (io_now_ms), or a negative errno.
int io_wait(int fd, short events, int64_t until);

#endif
