// SPDX-License-Identifier: Apache-2.0
// virtio-net against a backend of the test: frames both ways, merged buffers, the backlog, bad headers.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <linux/virtio_net.h>

#include "virtio/net.h"
#include "virtio_rig.h"

#define SLOT      2
#define RX        0
#define TX        1
#define BUF       0x200000
#define HDR_BYTES 12

struct fixture {
    struct rig *r;
    struct drv d;
    struct net_backend backend;
    atomic_uint sent, flushed;
    struct net_packet last;
    uint8_t last_data[NET_FRAME_MAX];
    bool paused, echo;
};

static struct fixture *from_backend(struct net_backend *b) {
    return CONTAINER_OF(b, struct fixture, backend);
}

static void fake_send(struct net_backend *b, struct net_packet *p) {
    struct fixture *f = from_backend(b);
    f->last = *p;
    memcpy(f->last_data, p->data, p->len);
    if (f->echo) // at once, from inside send: must not deadlock
        b->receive(b->receive_ctx, p->data, p->len);
    atomic_fetch_add(&f->sent, 1);
}

static void fake_flush(struct net_backend *b) {
    atomic_fetch_add(&from_backend(b)->flushed, 1);
}
static void fake_pause(struct net_backend *b) {
    from_backend(b)->paused = true;
}
static void fake_resume(struct net_backend *b) {
    from_backend(b)->paused = false;
}
static void fake_destroy(struct net_backend *b) {}

static const struct net_backend_ops fake_ops = {.name = "fake",
                                                .send = fake_send,
                                                .flush = fake_flush,
                                                .pause = fake_pause,
                                                .resume = fake_resume,
                                                .destroy = fake_destroy};

static int setup(void **state) {
    struct fixture *f = calloc(1, sizeof(*f));
    const uint8_t mac[6] = {0x52, 0x54, 0, 1, 2, 3};
    f->r = rig_new();
    f->backend = (struct net_backend){.ops = &fake_ops, .mtu = 9000, .csum = true};
    assert_int_equal(virtio_net_create(f->r->host, SLOT, &f->backend, mac, &f->r->err), 0);
    rig_loop_start(f->r);
    drv_attach(&f->d, f->r, SLOT);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    struct fixture *f = *state;
    rig_free(f->r);
    free(f);
    return 0;
}

static void send_frame(struct fixture *f, const struct virtio_net_hdr_v1 *hdr, uint32_t len) {
    const struct drv_seg s[] = {{BUF, HDR_BYTES, false}, {BUF + 0x1000, len, false}};
    struct vring_used_elem u;
    rig_put(f->r, BUF, hdr, HDR_BYTES);
    drv_add(&f->d, TX, s, 2);
    drv_kick(&f->d, TX);
    assert_true(drv_wait(&f->d, TX, &u));
}

static void offer_rx(struct fixture *f, unsigned n, uint32_t len) {
    for (unsigned i = 0; i < n; i++) {
        const struct drv_seg s = {BUF + 0x10000 + (f->d.q[RX].avail_idx % 256u) * 0x1000, len, true};
        drv_add(&f->d, RX, &s, 1);
    }
}

struct delivery {
    struct fixture *f;
    const uint8_t *data;
    size_t len;
    atomic_int done;
};

static void deliver_on_loop(void *ctx) {
    struct delivery *v = ctx;
    v->f->backend.receive(v->f->backend.receive_ctx, v->data, v->len);
    atomic_store(&v->done, 1);
}

// Frames come on the loop thread only.
static void deliver(struct fixture *f, const uint8_t *data, size_t len) {
    struct delivery v = {.f = f, .data = data, .len = len};
    event_post(f->r->m.loop, deliver_on_loop, &v);
    while (!atomic_load(&v.done))
        rig_sleep_ms(1);
}

static void test_config(void **state) {
    struct fixture *f = *state;
    uint64_t c = f->d.bar + VIRTIO_PCI_BAR_DEVICE;
    assert_int_equal(rig_read(f->r, c, 4), 0x01005452);
    assert_int_equal(rig_read(f->r, c + 6, 2), VIRTIO_NET_S_LINK_UP);
    assert_int_equal(rig_read(f->r, c + 10, 2), 9000);
    assert_int_equal(rig_read(f->r, c + 12, 1), 0xff); // behind the end
    assert_true(drv_features(&f->d) & 1ull << VIRTIO_NET_F_CSUM);
    assert_false(drv_features(&f->d) & 1ull << VIRTIO_NET_F_HOST_TSO4);
}

static void test_transmit(void **state) {
    struct fixture *f = *state;
    struct virtio_net_hdr_v1 hdr = {0};
    uint8_t frame[64];
    memset(frame, 0xab, sizeof(frame));
    drv_start(&f->d, 0, true);
    rig_put(f->r, BUF + 0x1000, frame, sizeof(frame));
    send_frame(f, &hdr, sizeof(frame));
    assert_int_equal(f->sent, 1);
    assert_int_equal(f->last.len, 64);
    assert_memory_equal(f->last_data, frame, 64);
    assert_false(f->last.needs_csum);
    assert_true(f->flushed >= 1);
    hdr = (struct virtio_net_hdr_v1){.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 34, .csum_offset = 16};
    send_frame(f, &hdr, sizeof(frame));
    assert_true(f->last.needs_csum);
    assert_int_equal(f->last.csum_start, 34);
    assert_int_equal(f->sent, 2);
    hdr.csum_start = 0xffff; // outside of the frame: dropped
    hdr.csum_offset = 0xffff;
    send_frame(f, &hdr, sizeof(frame));
    hdr = (struct virtio_net_hdr_v1){.gso_type = VIRTIO_NET_HDR_GSO_TCPV4}; // not offered
    send_frame(f, &hdr, sizeof(frame));
    hdr = (struct virtio_net_hdr_v1){0};
    send_frame(f, &hdr, NET_FRAME_MAX + 1);
    const struct drv_seg tiny = {BUF, 4, false};
    struct vring_used_elem u;
    drv_add(&f->d, TX, &tiny, 1);
    drv_kick(&f->d, TX);
    assert_true(drv_wait(&f->d, TX, &u));
    assert_int_equal(f->sent, 2);
    assert_false(drv_needs_reset(&f->d));
}

static void test_receive(void **state) {
    struct fixture *f = *state;
    struct virtio_net_hdr_v1 hdr;
    struct vring_used_elem u;
    uint8_t frame[100], got[100];
    memset(frame, 0xcd, sizeof(frame));
    deliver(f, frame, sizeof(frame)); // before the driver is up: dropped
    drv_start(&f->d, 0, true);
    offer_rx(f, 1, 2048);
    drv_kick(&f->d, RX);
    deliver(f, frame, sizeof(frame));
    assert_true(drv_wait(&f->d, RX, &u));
    assert_int_equal(u.len, HDR_BYTES + 100);
    rig_get(f->r, BUF + 0x10000, &hdr, sizeof(hdr));
    assert_int_equal(hdr.num_buffers, 1);
    assert_int_equal(hdr.flags, VIRTIO_NET_HDR_F_DATA_VALID);
    rig_get(f->r, BUF + 0x10000 + HDR_BYTES, got, sizeof(got));
    assert_memory_equal(got, frame, sizeof(frame));
    assert_true(f->r->msis[17] > 0);
}

static void test_merged(void **state) {
    struct fixture *f = *state;
    static uint8_t frame[9014], got[9014 + HDR_BYTES];
    struct virtio_net_hdr_v1 hdr;
    struct vring_used_elem u;
    for (unsigned i = 0; i < sizeof(frame); i++)
        frame[i] = (uint8_t)(i ^ i >> 8);
    drv_start(&f->d, 0, true);
    offer_rx(f, 3, 2000); // too few: the frame waits
    drv_kick(&f->d, RX);
    deliver(f, frame, sizeof(frame));
    rig_sleep_ms(5);
    assert_int_equal(rig_get16(f->r, f->d.q[RX].used + 2), 0);
    offer_rx(f, 2, 2048);
    drv_kick(&f->d, RX);
    size_t n = 0;
    for (unsigned i = 0; i < 5; i++) {
        assert_true(drv_wait(&f->d, RX, &u));
        assert_int_equal(u.id, i);
        rig_get(f->r, BUF + 0x10000 + i * 0x1000, got + n, u.len);
        n += u.len;
    }
    assert_int_equal(n, sizeof(got));
    memcpy(&hdr, got, sizeof(hdr));
    assert_int_equal(hdr.num_buffers, 5);
    assert_memory_equal(got + HDR_BYTES, frame, sizeof(frame));
}

// With EVENT_IDX the doorbell is due for the first buffer behind those that were seen and put back.
static void test_doorbell_after_wait(void **state) {
    struct fixture *f = *state;
    uint8_t frame[3000] = {0};
    drv_start(&f->d, 0, true);
    offer_rx(f, 1, 2000);
    deliver(f, frame, sizeof(frame));
    assert_int_equal(rig_get16(f->r, f->d.q[RX].used + 4 + 8 * 256), 1); // avail_event
}

static void test_not_mergeable(void **state) {
    struct fixture *f = *state;
    struct vring_used_elem u;
    uint8_t frame[3000] = {0};
    drv_start(&f->d, 1ull << VIRTIO_NET_F_MRG_RXBUF, true);
    offer_rx(f, 2, 2000);
    drv_kick(&f->d, RX);
    deliver(f, frame, sizeof(frame)); // does not fit: dropped, the buffers stay
    deliver(f, frame, 1000);
    assert_true(drv_wait(&f->d, RX, &u));
    assert_int_equal(u.id, 0);
    assert_int_equal(u.len, HDR_BYTES + 1000);
}

static void test_backlog(void **state) {
    struct fixture *f = *state;
    struct vring_used_elem u;
    static uint8_t frame[60000];
    drv_start(&f->d, 0, true);
    for (unsigned i = 0; i < 40; i++) { // more than is kept
        memset(frame, (int)i, sizeof(frame));
        deliver(f, frame, i < 3 ? 100 : sizeof(frame));
    }
    offer_rx(f, 3, 2048);
    drv_kick(&f->d, RX);
    for (unsigned i = 0; i < 3; i++) { // the oldest first
        uint8_t byte;
        assert_true(drv_wait(&f->d, RX, &u));
        rig_get(f->r, BUF + 0x10000 + i * 0x1000 + HDR_BYTES, &byte, 1);
        assert_int_equal(byte, i);
    }
}

static void test_echo_and_rings(void **state) {
    struct fixture *f = *state;
    const struct virtio_net_hdr_v1 hdr = {0};
    struct vring_used_elem u;
    f->echo = true;
    drv_start(&f->d, 0, true);
    offer_rx(f, 4, 2048);
    send_frame(f, &hdr, 64);
    assert_true(drv_wait(&f->d, RX, &u));
    assert_int_equal(u.len, HDR_BYTES + 64);
    drv_offer(&f->d, TX, 9999);
    drv_kick(&f->d, TX);
    assert_true(drv_wait_needs_reset(&f->d));
    deliver(f, f->last_data, 64); // dropped
    drv_start(&f->d, 0, true);
    offer_rx(f, 4, 2048);
    send_frame(f, &hdr, 64);
    assert_true(drv_wait(&f->d, RX, &u));
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        T(test_config),        T(test_transmit), T(test_receive),        T(test_merged), T(test_doorbell_after_wait),
        T(test_not_mergeable), T(test_backlog),  T(test_echo_and_rings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
