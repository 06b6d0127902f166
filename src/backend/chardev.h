// SPDX-License-Identifier: Apache-2.0
// A byte stream between a device (UART, virtio-console) and the host (stdio, file, socket).
// The host side fills `host`, the device fills `dev` when it attaches; both directions have flow control and
// neither ever blocks. Either side may be called from any thread and takes its own lock; a callback may call
// back into the other side, so none of them is made with the caller's own lock held.
#ifndef CICADA_BACKEND_CHARDEV_H
#define CICADA_BACKEND_CHARDEV_H

#include <stddef.h>
#include <stdint.h>

struct chardev {
    // ---- host side ----
    // Guest output: takes up to n bytes, returns how many. Fewer than n: full; then it calls
    // chardev_writable once there is room again.
    size_t (*write)(void *ctx, const uint8_t *buf, size_t n);
    // The device refused input earlier and has room again. May be NULL.
    void (*rx_ready)(void *ctx);
    void *ctx;

    // ---- device side; NULL until a device attached ----
    size_t (*dev_receive)(void *dev, const uint8_t *buf, size_t n);
    void (*dev_writable)(void *dev);
    void *dev;
};

// For the device: guest output. Returns how many bytes were taken; all where there is no host side.
static inline size_t chardev_write(struct chardev *c, const uint8_t *buf, size_t n) {
    return c && c->write ? c->write(c->ctx, buf, n) : n;
}

// For the device: there is room for input again.
static inline void chardev_rx_ready(struct chardev *c) {
    if (c && c->rx_ready)
        c->rx_ready(c->ctx);
}

// For the host side: input to the guest. Returns how many bytes the device took; the rest is offered again
// after rx_ready.
static inline size_t chardev_receive(struct chardev *c, const uint8_t *buf, size_t n) {
    return c->dev_receive ? c->dev_receive(c->dev, buf, n) : 0;
}

// For the host side: write takes bytes again.
static inline void chardev_writable(struct chardev *c) {
    if (c->dev_writable)
        c->dev_writable(c->dev);
}

#endif
