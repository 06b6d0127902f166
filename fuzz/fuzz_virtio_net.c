// SPDX-License-Identifier: Apache-2.0
// Fuzzes virtio-net from both sides: headers and commands of a hostile driver, and frames of a hostile network, which
// may be merged. Rings are in order (fuzz_virtq.c breaks those). The input: the features that the driver leaves out,
// then records. What the backend gets must be in range; what the guest gets must fit and count its buffers.
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>

#include "bus/pci.h"
#include "virtio/net.h"
#include "virtio/virtio_pci.h"

#define RAM         0x200000u
#define SLOT        1
#define SIZE        256
#define RING(queue) (0x10000u + (queue)*0x10000u)
#define BUFFERS     0x80000u
#define BUFFER      4096u
#define RECORDS_MAX 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct guest {
    struct machine m;
    struct bus *pio, *mmio;
    struct pci_host *pci;
    struct net_backend net;
    uint64_t bar;
    uint16_t avail[3], seen;
};

struct record {
    uint8_t op;
    uint8_t repeat;
    uint16_t len; // bytes of the input that belong to it
};

static void on_send(struct net_backend *b, struct net_packet *p) {
    volatile uint8_t last = p->data[p->len ? p->len - 1 : 0];
    (void)last;
    if (p->len > NET_FRAME_MAX || (p->needs_csum && (size_t)p->csum_start + p->csum_offset + 2 > p->len))
        abort();
}
static void on_nothing(struct net_backend *b) {}

static const struct net_backend_ops backend_ops = {.name = "fuzz",
                                                   .send = on_send,
                                                   .flush = on_nothing,
                                                   .pause = on_nothing,
                                                   .resume = on_nothing,
                                                   .destroy = on_nothing};

static struct guest *guest(void) {
    static struct guest *g;
    struct error err = {0};
    const uint8_t mac[6] = {2};
    if (g)
        return g;
    g = calloc(1, sizeof(*g));
    if (!g)
        abort();
    g->net = (struct net_backend){
        .ops = &backend_ops, .lock = PTHREAD_MUTEX_INITIALIZER, .mtu = 1500, .csum = true, .tso = true};
    if (machine_init(&g->m, &err) || mem_add_ram(g->m.mem, GPA(0), RAM, "ram", &err) ||
        bus_create(&g->pio, "pio", &err) || bus_create(&g->mmio, "mmio", &err) ||
        pci_host_create(&g->m, g->pio, g->mmio, &g->pci, &err) || virtio_net_create(g->pci, SLOT, &g->net, mac, &err))
        abort();
    return g;
}

static void put(struct guest *g, uint64_t gpa, const void *p, size_t n) {
    if (mem_write(g->m.mem, GPA(gpa), p, n))
        abort();
}
static uint16_t get16(struct guest *g, uint64_t gpa) {
    uint16_t v;
    if (mem_read(g->m.mem, GPA(gpa), &v, sizeof(v)))
        abort();
    return v;
}

static void set(struct guest *g, unsigned reg, unsigned size, uint64_t v) {
    bus_write(g->mmio, g->bar + VIRTIO_PCI_BAR_COMMON + reg, size, 0, v);
}

static void queue_start(struct guest *g, unsigned q) {
    static const uint8_t zero[0x4000];
    put(g, RING(q), zero, sizeof(zero));
    set(g, VIRTIO_PCI_COMMON_Q_SELECT, 2, q);
    set(g, VIRTIO_PCI_COMMON_Q_DESCLO, 4, RING(q));
    set(g, VIRTIO_PCI_COMMON_Q_AVAILLO, 4, RING(q) + 0x2000);
    set(g, VIRTIO_PCI_COMMON_Q_USEDLO, 4, RING(q) + 0x3000);
    set(g, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
    g->avail[q] = 0;
}

static void start(struct guest *g, uint32_t without) {
    component_reset_all(&g->m.components);
    uint64_t ecam = PCI_ECAM_BASE + (SLOT << 15);
    bus_write(g->mmio, ecam + 4, 2, 0, 6);
    g->bar = pci_config_read(g->pci, SLOT << 3, 0x10, 4) & ~15u;
    set(g, VIRTIO_PCI_COMMON_STATUS, 1, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
    uint64_t offered;
    set(g, VIRTIO_PCI_COMMON_DFSELECT, 4, 0);
    bus_read(g->mmio, g->bar + VIRTIO_PCI_COMMON_DF, 4, 0, &offered);
    set(g, VIRTIO_PCI_COMMON_GFSELECT, 4, 0);
    set(g, VIRTIO_PCI_COMMON_GF, 4, offered & ~without);
    set(g, VIRTIO_PCI_COMMON_GFSELECT, 4, 1);
    set(g, VIRTIO_PCI_COMMON_GF, 4, 1); // VERSION_1
    set(g, VIRTIO_PCI_COMMON_STATUS, 1, 11);
    for (unsigned q = 0; q < 3; q++)
        queue_start(g, q);
    g->seen = 0;
    set(g, VIRTIO_PCI_COMMON_STATUS, 1, 15);
}

// One chain: `out` bytes at gpa for the device to read, `in` bytes behind them to write.
static void offer(struct guest *g, unsigned q, uint64_t gpa, uint32_t out, uint32_t in) {
    unsigned ring = q == 2 ? 64 : SIZE, head = 2u * g->avail[q] % ring;
    const struct vring_desc d[2] = {
        {.addr = gpa, .len = out, .flags = VRING_DESC_F_NEXT, .next = (uint16_t)(head + 1)},
        {.addr = gpa + out, .len = in, .flags = VRING_DESC_F_WRITE},
    };
    put(g, RING(q) + head * sizeof(d[0]), d, sizeof(d));
    put(g, RING(q) + 0x2004 + 2u * (g->avail[q] % ring), &(uint16_t){(uint16_t)head}, 2);
    g->avail[q]++;
    put(g, RING(q) + 0x2002, &g->avail[q], 2);
}

static void kick(struct guest *g, unsigned q) {
    bus_write(g->mmio, g->bar + VIRTIO_PCI_BAR_NOTIFY + q * VIRTIO_PCI_NOTIFY_MULTIPLIER, 2, 0, q);
}

// The buffers of a frame come one behind the other, and its header is whole.
static void check_received(struct guest *g) {
    uint16_t used = get16(g, RING(0) + 0x3002);
    while (g->seen != used) {
        struct vring_used_elem u;
        struct virtio_net_hdr_v1 h;
        if (mem_read(g->m.mem, GPA(RING(0) + 0x3004 + 8u * (g->seen % SIZE)), &u, sizeof(u)) ||
            mem_read(g->m.mem, GPA(BUFFERS + u.id / 2 * BUFFER), &h, sizeof(h)))
            abort();
        if (u.len < sizeof(h) || !h.num_buffers || h.num_buffers > (uint16_t)(used - g->seen))
            abort();
        if (h.gso_type != VIRTIO_NET_HDR_GSO_NONE && (!h.gso_size || !(h.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)))
            abort();
        g->seen = (uint16_t)(g->seen + h.num_buffers);
    }
}

static void receive(struct guest *g, const uint8_t *data, size_t len, unsigned repeat) {
    uint8_t frame[8192];
    memcpy(frame, data, len);
    pthread_mutex_lock(&g->net.lock);
    for (unsigned i = 0; i <= repeat % 8; i++) {
        g->net.receive(g->net.receive_ctx, frame, len);
        if (len > 54) { // the next segment of the same connection, if it is one
            uint32_t seq = ((uint32_t)frame[38] << 24 | frame[39] << 16 | frame[40] << 8 | frame[41]) +
                           (uint32_t)(len - 14 - 20 - (frame[46] >> 4) * 4u);
            for (unsigned b = 0; b < 4; b++)
                frame[38 + b] = (uint8_t)(seq >> (24 - 8 * b));
        }
    }
    net_received(&g->net);
    pthread_mutex_unlock(&g->net.lock);
    check_received(g);
}

static void step(struct guest *g, const struct record *r, const uint8_t *data, size_t len) {
    switch (r->op % 4) {
    case 0: // transmit, header and all from the input; the rest of a long frame is what lies in memory
        put(g, BUFFERS + 0x100000, data, len);
        offer(g, 1, BUFFERS + 0x100000, (uint32_t)len + r->repeat * 260u, 0);
        kick(g, 1);
        break;
    case 1: receive(g, data, len, r->repeat); break;
    case 2:
        put(g, BUFFERS + 0x100000, data, len);
        offer(g, 2, BUFFERS + 0x100000, (uint32_t)len, r->repeat % 2);
        kick(g, 2);
        break;
    case 3:
        for (unsigned i = 0; i <= r->repeat % 16 && (uint16_t)(g->avail[0] - g->seen) < SIZE / 2; i++)
            offer(g, 0, BUFFERS + g->avail[0] % (SIZE / 2) * BUFFER, 0, BUFFER);
        kick(g, 0);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct guest *g = guest();
    uint32_t without;
    if (size < sizeof(without))
        return 0;
    memcpy(&without, data, sizeof(without));
    data += sizeof(without);
    size -= sizeof(without);
    start(g, without & ~(1u << VIRTIO_NET_F_MRG_RXBUF)); // buffers of a page need it
    for (unsigned i = 0; i < RECORDS_MAX && size >= sizeof(struct record); i++) {
        struct record r;
        memcpy(&r, data, sizeof(r));
        data += sizeof(r);
        size -= sizeof(r);
        size_t len = r.len % 4096 < size ? r.len % 4096 : size;
        step(g, &r, data, len);
        data += len;
        size -= len;
    }
    return 0;
}
