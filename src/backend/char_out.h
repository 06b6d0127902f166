// SPDX-License-Identifier: Apache-2.0
// A bounded buffer in front of a file descriptor that may block (terminal, pipe, file), drained by a thread of
// its own. So the descriptor keeps its file status flags, which other processes share with us: O_NONBLOCK on
// standard output would be set for the shell as well. A vCPU never waits: where the buffer is full, char_out_write
// takes less, and the device holds the guest off until the reader has caught up. Nothing is lost.
#ifndef CICADA_BACKEND_CHAR_OUT_H
#define CICADA_BACKEND_CHAR_OUT_H

#include "backend/chardev.h"
#include "util/error.h"

struct char_out;

// Starts the thread. fd stays the caller's. `dev` is told by chardev_writable when there is room again.
int char_out_create(int fd, struct chardev *dev, struct char_out **out, struct error *err);
// Any thread. Returns how many bytes were taken. All, and dropped, once closed or after the reader has gone away.
size_t char_out_write(struct char_out *out, const uint8_t *buf, size_t n);
// Waits until the buffer is written out, as long as there is progress at least once a second; later writes are
// dropped.
void char_out_close(struct char_out *out);
// After char_out_close; nobody may be in char_out_write. Where the thread is stuck in write(2) for a reader that
// stands still, the thread and the buffer stay until the process ends.
void char_out_destroy(struct char_out *out);

#endif
