// SPDX-License-Identifier: Apache-2.0
// virtio-net against a backend of the test: frames both ways, merged buffers, the backlog, bad headers, offloads.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <errno.h>
#include <linux/virtio_net.h>

#include "net_frames.h"
#include "virtio/net.h"
#include "virtio_rig.h"

#define SLOT      2
#define RX        0
#define TX        1
#define CTRL      2
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
    f->backend = (struct net_backend){
        .ops = &fake_ops, .lock = PTHREAD_MUTEX_INITIALIZER, .mtu = 9000, .csum = true, .tso = true};
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
    const uint8_t *const *data; // count frames of len bytes
    unsigned count;
    size_t len;
    atomic_int done;
};

static void deliver_on_loop(void *ctx) {
    struct delivery *v = ctx;
    struct net_backend *b = &v->f->backend;
    pthread_mutex_lock(&b->lock);
    for (unsigned i = 0; i < v->count; i++)
        b->receive(b->receive_ctx, v->data[i], v->len);
    net_received(b);
    pthread_mutex_unlock(&b->lock);
    atomic_store(&v->done, 1);
}

// One run of the backend.
static void deliver_run(struct fixture *f, const uint8_t *const *data, unsigned count, size_t len) {
    struct delivery v = {.f = f, .data = data, .count = count, .len = len};
    event_post(f->r->m.loop, deliver_on_loop, &v);
    while (!atomic_load(&v.done))
        rig_sleep_ms(1);
}

static void deliver(struct fixture *f, const uint8_t *data, size_t len) {
    deliver_run(f, &data, 1, len);
}

static void test_config(void **state) {
    struct fixture *f = *state;
    uint64_t c = f->d.bar + VIRTIO_PCI_BAR_DEVICE;
    assert_int_equal(rig_read(f->r, c, 4), 0x01005452);
    assert_int_equal(rig_read(f->r, c + 6, 2), VIRTIO_NET_S_LINK_UP);
    assert_int_equal(rig_read(f->r, c + 10, 2), 9000);
    assert_int_equal(rig_read(f->r, c + 12, 1), 0xff); // behind the end
    assert_true(drv_features(&f->d) & 1ull << VIRTIO_NET_F_CSUM);
    assert_false(drv_features(&f->d) & 1ull << VIRTIO_NET_F_HOST_UFO);
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
    hdr = (struct virtio_net_hdr_v1){.gso_type = VIRTIO_NET_HDR_GSO_UDP}; // not offered
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

// A doorbell is handled by the thread that rings it, unless the backend is busy.
static void test_transmit_threads(void **state) {
    struct fixture *f = *state;
    const struct virtio_net_hdr_v1 hdr = {0};
    const struct drv_seg s[] = {{BUF, HDR_BYTES, false}, {BUF + 0x1000, 64, false}};
    struct vring_used_elem u;
    drv_start(&f->d, 0, true);
    rig_put(f->r, BUF, &hdr, HDR_BYTES);
    drv_add(&f->d, TX, s, 2);
    drv_kick(&f->d, TX);
    assert_int_equal(f->sent, 1); // without waiting
    pthread_mutex_lock(&f->backend.lock);
    drv_add(&f->d, TX, s, 2);
    drv_kick(&f->d, TX); // returns
    assert_int_equal(f->sent, 1);
    pthread_mutex_unlock(&f->backend.lock);
    deliver_run(f, NULL, 0, 0); // comes behind it on the loop
    assert_int_equal(f->sent, 2);
    assert_true(drv_wait(&f->d, TX, &u));
    assert_true(drv_wait(&f->d, TX, &u));
}

static struct virtio_net_hdr_v1 tso_hdr(void) {
    return (struct virtio_net_hdr_v1){.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
                                      .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
                                      .hdr_len = 54,
                                      .gso_size = 1460,
                                      .csum_start = 34,
                                      .csum_offset = 16};
}

static void test_segmentation(void **state) {
    struct fixture *f = *state;
    struct virtio_net_hdr_v1 hdr = tso_hdr();
    drv_start(&f->d, 1ull << VIRTIO_NET_F_HOST_ECN, true);
    send_frame(f, &hdr, 60000);
    assert_int_equal(f->sent, 1);
    assert_int_equal(f->last.len, 60000); // whole: the backend takes it
    assert_true(f->last.needs_csum);
    hdr.gso_type = VIRTIO_NET_HDR_GSO_TCPV6;
    hdr.hdr_len = 0xffff; // a hint that is not believed
    send_frame(f, &hdr, 60000);
    assert_int_equal(f->sent, 2);
    // Each is dropped, and the device goes on.
    struct virtio_net_hdr_v1 bad[6];
    for (unsigned i = 0; i < 6; i++)
        bad[i] = tso_hdr();
    bad[0].gso_size = 0;
    bad[1].flags = 0;
    bad[2].gso_type |= VIRTIO_NET_HDR_GSO_ECN; // not negotiated
    bad[3].csum_start = 59999;                 // reaches beyond the end
    bad[4].gso_type = 0x7f;
    bad[5].csum_offset = 0xffff;
    for (unsigned i = 0; i < 6; i++)
        send_frame(f, &bad[i], 60000);
    assert_int_equal(f->sent, 2);
    assert_false(drv_needs_reset(&f->d));
    drv_start(&f->d, 1ull << VIRTIO_NET_F_HOST_TSO4, true);
    hdr = tso_hdr();
    send_frame(f, &hdr, 60000);
    assert_int_equal(f->sent, 2);
    drv_start(&f->d, 1ull << VIRTIO_NET_F_CSUM, true);
    hdr.gso_type = VIRTIO_NET_HDR_GSO_NONE;
    send_frame(f, &hdr, 1000);
    assert_int_equal(f->sent, 2);
}

// Three segments in one run of the backend, 100 bytes each, into buffers of 2048. Returns how many buffers that took
// and the header of the first.
static unsigned receive_segments(struct fixture *f, struct virtio_net_hdr_v1 *hdr) {
    uint8_t a[154], b[154], c[154];
    const uint8_t *const frames[] = {a, b, c};
    uint16_t before = rig_get16(f->r, f->d.q[RX].used + 2);
    unsigned msis = f->r->msis[17];
    offer_rx(f, 3, 2048);
    for (unsigned i = 0; i < 3; i++)
        frame_tcp((uint8_t *[]){a, b, c}[i], 1000 + i * 100, TCP_ACK, 100);
    deliver_run(f, frames, 3, sizeof(a));
    assert_int_equal(f->r->msis[17], msis + 1); // one interrupt for the run
    struct vring_used_elem u;
    assert_true(drv_wait(&f->d, RX, &u));
    rig_get(f->r, BUF + 0x10000 + u.id * 0x1000, hdr, sizeof(*hdr));
    uint16_t count = (uint16_t)(rig_get16(f->r, f->d.q[RX].used + 2) - before);
    f->d.q[RX].used_seen = (uint16_t)(before + count);
    return count;
}

static void test_merged_segments(void **state) {
    struct fixture *f = *state;
    struct virtio_net_hdr_v1 hdr;
    uint8_t got[54 + 300];
    drv_start(&f->d, 1ull << VIRTIO_RING_F_EVENT_IDX, true);
    assert_int_equal(receive_segments(f, &hdr), 1);
    assert_int_equal(hdr.gso_type, VIRTIO_NET_HDR_GSO_TCPV4);
    assert_int_equal(hdr.gso_size, 100);
    assert_int_equal(hdr.flags, VIRTIO_NET_HDR_F_NEEDS_CSUM);
    assert_int_equal(hdr.num_buffers, 1);
    rig_get(f->r, BUF + 0x10000 + HDR_BYTES, got, sizeof(got));
    assert_int_equal(frame_get16(got + 16), 340);
    const uint64_t without[] = {VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_CSUM};
    for (unsigned i = 0; i < 2; i++) {
        drv_start(&f->d, 1ull << VIRTIO_RING_F_EVENT_IDX | 1ull << without[i], true);
        assert_int_equal(receive_segments(f, &hdr), 3);
        assert_int_equal(hdr.gso_type, VIRTIO_NET_HDR_GSO_NONE);
    }
}

static uint8_t control(struct fixture *f, uint8_t class, uint8_t cmd, uint64_t offloads, uint32_t len) {
    const uint8_t head[2] = {class, cmd};
    const struct drv_seg s[] = {{BUF, 2, false}, {BUF + 0x100, len, false}, {BUF + 0x200, 1, true}};
    const uint8_t unset = 0x55;
    struct vring_used_elem u;
    uint8_t ack;
    rig_put(f->r, BUF, head, 2);
    rig_put(f->r, BUF + 0x100, &offloads, 8);
    rig_put(f->r, BUF + 0x200, &unset, 1);
    drv_add(&f->d, CTRL, s, 3);
    drv_kick(&f->d, CTRL);
    assert_true(drv_wait(&f->d, CTRL, &u));
    rig_get(f->r, BUF + 0x200, &ack, 1);
    return ack;
}

static uint8_t set_offloads(struct fixture *f, uint64_t offloads) {
    return control(f, VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, offloads, 8);
}

#define OFFLOAD_CSUM (1ull << VIRTIO_NET_F_GUEST_CSUM)
#define OFFLOAD_TSO4 (1ull << VIRTIO_NET_F_GUEST_TSO4)

static void test_control(void **state) {
    struct fixture *f = *state;
    struct virtio_net_hdr_v1 hdr;
    drv_start(&f->d, 1ull << VIRTIO_RING_F_EVENT_IDX, true);
    assert_int_equal(set_offloads(f, OFFLOAD_CSUM), VIRTIO_NET_OK);
    assert_int_equal(receive_segments(f, &hdr), 3);
    assert_int_equal(hdr.flags, VIRTIO_NET_HDR_F_DATA_VALID);
    assert_int_equal(set_offloads(f, 0), VIRTIO_NET_OK);
    assert_int_equal(receive_segments(f, &hdr), 3);
    assert_int_equal(hdr.flags, 0);
    assert_int_equal(set_offloads(f, OFFLOAD_CSUM | OFFLOAD_TSO4), VIRTIO_NET_OK);
    assert_int_equal(receive_segments(f, &hdr), 1);
    // What is not known, not negotiated or has another length changes nothing.
    assert_int_equal(set_offloads(f, 1ull << VIRTIO_NET_F_GUEST_UFO), VIRTIO_NET_ERR);
    assert_int_equal(control(f, VIRTIO_NET_CTRL_GUEST_OFFLOADS, 1, 0, 8), VIRTIO_NET_ERR);
    assert_int_equal(control(f, VIRTIO_NET_CTRL_GUEST_OFFLOADS, 0, 0, 7), VIRTIO_NET_ERR);
    assert_int_equal(control(f, VIRTIO_NET_CTRL_RX, 0, 0, 8), VIRTIO_NET_ERR);
    assert_int_equal(receive_segments(f, &hdr), 1);
    const struct drv_seg tiny = {BUF, 1, false};
    struct vring_used_elem u;
    drv_add(&f->d, CTRL, &tiny, 1); // without room for an answer
    drv_kick(&f->d, CTRL);
    assert_true(drv_wait(&f->d, CTRL, &u));
    assert_int_equal(u.len, 0);
    assert_false(drv_needs_reset(&f->d));
    assert_int_equal(set_offloads(f, 0), VIRTIO_NET_OK);
    drv_start(&f->d, 1ull << VIRTIO_RING_F_EVENT_IDX | OFFLOAD_TSO4, true); // a reset switches them on again
    assert_int_equal(receive_segments(f, &hdr), 3);
    assert_int_equal(hdr.flags, VIRTIO_NET_HDR_F_DATA_VALID);
    assert_int_equal(set_offloads(f, OFFLOAD_TSO4), VIRTIO_NET_ERR);
}

static const struct component *net_component(struct fixture *f) {
    const struct component *c = f->r->m.components.head;
    while (strcmp(c->ops->name, "virtio-net"))
        c = c->next;
    return c;
}

static void test_save_load(void **state) {
    struct fixture *f = *state;
    const struct component *c = net_component(f);
    struct virtio_net_hdr_v1 hdr;
    struct error err;
    drv_start(&f->d, 1ull << VIRTIO_RING_F_EVENT_IDX, true);
    assert_int_equal(set_offloads(f, OFFLOAD_CSUM), VIRTIO_NET_OK);
    rig_loop_stop(f->r);
    c->ops->pause(c->ctx);
    struct state_writer w = {0};
    c->ops->save(c->ctx, &w);
    c->ops->reset(c->ctx);
    assert_false(drv_common(&f->d, VIRTIO_PCI_COMMON_STATUS, 1));
    struct state_reader old = {.buf = w.buf, .len = w.len, .version = 1}, r = old;
    assert_int_equal(c->ops->load(c->ctx, &old, &err), -EINVAL); // had no control queue
    assert_non_null(strstr(err.text, "version 1"));
    r.version = c->ops->version;
    assert_int_equal(c->ops->load(c->ctx, &r, &err), 0);
    assert_int_equal(r.pos, w.len);
    state_writer_free(&w);
    c->ops->resume(c->ctx);
    rig_loop_start(f->r);
    drv_msix_on(&f->d, drv_find_cap(&f->d, PCI_CAP_ID_MSIX), 16);
    assert_int_equal(receive_segments(f, &hdr), 3); // still off
    assert_int_equal(hdr.flags, VIRTIO_NET_HDR_F_DATA_VALID);
    assert_int_equal(set_offloads(f, OFFLOAD_CSUM | OFFLOAD_TSO4), VIRTIO_NET_OK);
    assert_int_equal(receive_segments(f, &hdr), 1);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        T(test_config),
        T(test_transmit),
        T(test_receive),
        T(test_merged),
        T(test_doorbell_after_wait),
        T(test_not_mergeable),
        T(test_backlog),
        T(test_echo_and_rings),
        T(test_transmit_threads),
        T(test_segmentation),
        T(test_merged_segments),
        T(test_control),
        T(test_save_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
