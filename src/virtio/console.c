// SPDX-License-Identifier: Apache-2.0
// virtio-console: a byte stream over two queues. VIRTIO 1.2, 5.3 (without multiport).
//
// Output runs on the event-loop thread alone: chains are copied into a small buffer and given back, and the buffer goes
// to the host as fast as that takes it; while it is not empty no more chains are taken, which is the flow control.
// Input comes on any thread and is copied straight into the guest's buffers.
//
// Invariants: no chain is held while vd.lock is free; a chain larger than the buffer is put back with the offset that
// was reached remembered in tx_skip. The chardev is called without vd.lock.
#include "virtio/console.h"

#include <errno.h>
#include <linux/virtio_console.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>

#include "virtio/iov.h"
#include "virtio/virtio_pci.h"

enum { QUEUE_RX, QUEUE_TX, QUEUES };

#define QUEUE_SIZE 64
#define TX_BYTES   4096
#define TX_ROUNDS  16 // buffers written before the loop thread does something else

struct virtio_console {
    struct virtio_device vd;
    struct chardev *chr;
    // Loop thread only:
    uint8_t tx[TX_BYTES];
    size_t tx_len;
    // Under vd.lock:
    uint32_t tx_skip; // bytes of the next chain that are in tx already, or gone
    bool rx_starved;  // the host offered more than the guest had room for
};

static struct virtio_console *from_vd(struct virtio_device *vd) {
    return CONTAINER_OF(vd, struct virtio_console, vd);
}

// ---- output ----

// Takes one chain, or a part of it. False when there is none. vd.lock held.
static bool tx_take(struct virtio_console *con) {
    struct virtq *vq = &con->vd.queues[QUEUE_TX];
    struct virtq_elem *e = virtq_pop(vq);
    if (!e)
        return false;
    size_t room = sizeof(con->tx) - con->tx_len;
    size_t n = iov_to_buf(e->out, e->nout, con->tx_skip, con->tx + con->tx_len, room);
    con->tx_len += n;
    con->tx_skip += (uint32_t)n;
    if (con->tx_skip < e->out_len) {
        virtq_unpop(vq, e);
        return false; // full
    }
    con->tx_skip = 0;
    virtq_push(vq, e, 0);
    return true;
}

// Fills the buffer from the ring.
static void tx_fill(struct virtio_console *con) {
    struct virtq *vq = &con->vd.queues[QUEUE_TX];
    pthread_mutex_lock(&con->vd.lock);
    if (virtio_live(&con->vd)) {
        unsigned left = QUEUE_SIZE;
        do
            while (con->tx_len < sizeof(con->tx) && left && tx_take(con))
                left--;
        while (virtq_doorbell_on(vq) && left && con->tx_len < sizeof(con->tx));
        virtio_publish(&con->vd, QUEUE_TX);
    }
    pthread_mutex_unlock(&con->vd.lock);
}

// Returns false when the host is full.
static bool tx_drain(struct virtio_console *con) {
    size_t n = chardev_write(con->chr, con->tx, con->tx_len);
    if (n > con->tx_len)
        n = con->tx_len;
    memmove(con->tx, con->tx + n, con->tx_len - n);
    con->tx_len -= n;
    return !con->tx_len;
}

static void tx_run(struct virtio_console *con) {
    for (unsigned i = 0; i < TX_ROUNDS; i++) {
        tx_fill(con);
        if (!con->tx_len || !tx_drain(con))
            return;
    }
    virtio_defer(&con->vd, QUEUE_TX);
}

static void console_writable(void *dev) {
    struct virtio_console *con = dev;
    virtio_defer(&con->vd, QUEUE_TX);
}

// ---- input ----

static size_t console_receive(void *dev, const uint8_t *buf, size_t n) {
    struct virtio_console *con = dev;
    struct virtq *vq = &con->vd.queues[QUEUE_RX];
    struct virtq_elem *e;
    size_t done = 0;
    pthread_mutex_lock(&con->vd.lock);
    while (done < n && virtio_live(&con->vd) && (e = virtq_pop(vq))) {
        size_t part = iov_from_buf(e->in, e->nin, 0, buf + done, n - done);
        virtq_push(vq, e, (uint32_t)part);
        done += part;
    }
    con->rx_starved = done < n;
    if (virtio_live(&con->vd)) {
        virtq_doorbell_on(vq); // tell us of new buffers
        virtio_publish(&con->vd, QUEUE_RX);
    }
    pthread_mutex_unlock(&con->vd.lock);
    return done;
}

// The guest added buffers.
static void rx_run(struct virtio_console *con) {
    pthread_mutex_lock(&con->vd.lock);
    bool starved = con->rx_starved && virtio_live(&con->vd);
    if (starved)
        con->rx_starved = false;
    pthread_mutex_unlock(&con->vd.lock);
    if (starved)
        chardev_rx_ready(con->chr);
}

// ---- device ----

static void console_handle_queue(struct virtio_device *vd, unsigned queue) {
    struct virtio_console *con = from_vd(vd);
    if (queue == QUEUE_TX)
        tx_run(con);
    else
        rx_run(con);
}

// Neither SIZE nor MULTIPORT is offered, so no field means anything.
static void console_config(struct virtio_device *vd, uint8_t *buf) {}

static void console_reset(struct virtio_device *vd) {
    from_vd(vd)->tx_skip = 0;
}

static void console_save(struct virtio_device *vd, struct state_writer *w) {
    struct virtio_console *con = from_vd(vd);
    state_put_u32(w, con->tx_skip);
    state_put_u32(w, (uint32_t)con->tx_len);
    state_put_bytes(w, con->tx, con->tx_len);
}

static void console_load(struct virtio_device *vd, struct state_reader *r) {
    struct virtio_console *con = from_vd(vd);
    con->tx_skip = state_get_u32(r);
    uint32_t len = state_get_u32(r);
    if (len > sizeof(con->tx)) {
        r->error = -EINVAL;
        len = 0;
    }
    state_get_bytes(r, con->tx, len);
    con->tx_len = len;
    con->rx_starved = true; // the host side is asked again
}

static void console_destroy(struct virtio_device *vd) {
    struct virtio_console *con = from_vd(vd);
    if (con->chr) {
        con->chr->dev_receive = NULL;
        con->chr->dev_writable = NULL;
        con->chr->dev = NULL;
    }
    virtio_device_fini(vd);
    free(con);
}

static const struct virtio_device_ops console_ops = {
    .name = "virtio-console",
    .id = VIRTIO_ID_CONSOLE,
    .class_code = 0x078000,
    .queues = QUEUES,
    .queue_size = {QUEUE_SIZE, QUEUE_SIZE},
    .config_len = sizeof(struct virtio_console_config),
    .doorbell_on_loop = true,
    .config_read = console_config,
    .handle_queue = console_handle_queue,
    .reset = console_reset,
    .save = console_save,
    .load = console_load,
    .destroy = console_destroy,
};

static const struct component_ops console_component = VIRTIO_COMPONENT_OPS("virtio-console", 1);

int virtio_console_create(struct pci_host *host, unsigned slot, struct chardev *chr, struct error *err) {
    struct virtio_console *con = calloc(1, sizeof(*con));
    if (!con)
        return error_set(err, -ENOMEM, "create virtio-console");
    int ret = virtio_device_init(&con->vd, &console_ops, pci_host_machine(host), 0, err);
    if (ret) {
        free(con);
        return ret;
    }
    ret = virtio_pci_attach(&con->vd, host, slot, &console_component, err);
    if (ret) {
        console_destroy(&con->vd);
        return ret;
    }
    con->chr = chr;
    chr->dev_receive = console_receive;
    chr->dev_writable = console_writable;
    chr->dev = con;
    return 0;
}
