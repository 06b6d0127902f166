// SPDX-License-Identifier: Apache-2.0
// Host sides of a struct chardev: standard input and output, a file, a unix socket, nothing.
// Life: open (phase "open"), attach a device to &host->dev, run, char_host_close while the event loop still
// exists, then destroy the device, then char_host_destroy.
#ifndef CICADA_BACKEND_CHAR_HOST_H
#define CICADA_BACKEND_CHAR_HOST_H

#include <stdbool.h>

#include "backend/chardev.h"
#include "core/event.h"

struct char_host;

struct char_host_ops {
    void (*close)(struct char_host *h);
    void (*destroy)(struct char_host *h);
};

struct char_host {
    struct chardev dev; // for the device to attach to
    const struct char_host_ops *ops;
    bool closed;
};

// What to do with the keys behind Ctrl-A on a terminal; called on the loop thread.
struct char_stdio_options {
    bool input;                              // read standard input at all
    bool escape;                             // it is a terminal: Ctrl-A starts a command
    void (*command)(void *ctx, uint8_t key); // the key after Ctrl-A, other than Ctrl-A itself
    void *ctx;
};

int char_stdio_open(struct event_loop *loop, const struct char_stdio_options *opt, struct char_host **h,
                    struct error *err);
// Truncates the file; blocks only in a thread of its own.
int char_file_open(const char *path, struct char_host **h, struct error *err);
// Listens at path and serves one client at a time; output without a client is dropped, as on an open line.
int char_unix_open(struct event_loop *loop, const char *path, struct char_host **h, struct error *err);
// Takes everything, gives nothing.
int char_null_open(struct char_host **h, struct error *err);

// Stops input, writes out what is buffered (for at most about a second without progress) and drops all later
// output. On the loop thread or with the loop stopped; the device may still be alive. Twice is once.
void char_host_close(struct char_host *h);
void char_host_destroy(struct char_host *h); // NULL is legal

#endif
