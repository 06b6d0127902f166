// SPDX-License-Identifier: Apache-2.0
// The user-mode network as a guest sees it: DHCP, ARP, and a TCP connection to a port of the host and back by a
// forwarded port. Needs the loopback interface only.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backend/net.h"
#include "core/nondet.h"

static const uint8_t guest_mac[6] = {0x52, 0x54, 0, 0x12, 0x34, 0x56};

struct received {
    struct received *next;
    size_t len;
    uint8_t data[];
};

struct fixture {
    struct nondet nd;
    struct event_loop *loop;
    struct clock clock;
    struct net_backend *b;
    struct event_timer timeout;
    uint8_t want_proto; // IP protocol to stop at, or 0 for ARP
    uint16_t want_port; // guest's port
    struct received *queue, **queue_end;
    uint8_t frame[NET_FRAME_MAX]; // taken last
    size_t len;
    uint16_t host_port; // forwarded
};

static void on_timeout(void *ctx) {
    event_loop_quit(((struct fixture *)ctx)->loop, 1);
}

static uint16_t get16be(const uint8_t *p) {
    return (uint16_t)(p[0] << 8 | p[1]);
}

static void on_frame(void *ctx, const uint8_t *frame, size_t len) {
    struct fixture *f = ctx;
    bool arp = get16be(frame + 12) == 0x0806;
    if (arp && frame[21] == 1) { // "who has 10.0.2.15": the guest answers
        uint8_t reply[42] = {0};
        memcpy(reply, frame + 6, 6);
        memcpy(reply + 6, guest_mac, 6);
        memcpy(reply + 12, frame + 12, 10);
        reply[21] = 2;
        memcpy(reply + 22, guest_mac, 6);
        memcpy(reply + 28, frame + 38, 4);
        memcpy(reply + 32, frame + 22, 10);
        struct net_packet p = {.data = reply, .len = sizeof(reply)};
        f->b->ops->send(f->b, &p);
        return;
    }
    struct received *r = malloc(sizeof(*r) + len);
    *r = (struct received){.len = len};
    memcpy(r->data, frame, len);
    *f->queue_end = r;
    f->queue_end = &r->next;
    event_loop_quit(f->loop, 0);
}

// Takes the next frame that is wanted, and drops those before it. Answers may have come from inside send.
static bool take_frame(struct fixture *f) {
    bool found = false;
    while (!found && f->queue) {
        struct received *r = f->queue;
        f->queue = r->next;
        if (!f->queue)
            f->queue_end = &f->queue;
        bool arp = get16be(r->data + 12) == 0x0806;
        found = arp ? !f->want_proto : r->data[14 + 9] == f->want_proto && get16be(r->data + 36) == f->want_port;
        f->len = r->len;
        memcpy(f->frame, r->data, r->len);
        free(r);
    }
    return found;
}

static uint16_t unused_port(void) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(a);
    int s = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(s, (struct sockaddr *)&a, n), 0);
    assert_int_equal(getsockname(s, (struct sockaddr *)&a, &n), 0);
    close(s);
    return ntohs(a.sin_port);
}

static int setup(void **state) {
    struct fixture *f = calloc(1, sizeof(*f));
    struct error err;
    nondet_init_live(&f->nd);
    assert_int_equal(event_loop_create(&f->loop, &err), 0);
    assert_int_equal(clock_init(&f->clock, &f->nd, f->loop), 0);
    clock_resume(&f->clock);
    f->host_port = unused_port();
    const struct net_forward fwd = {.host_port = f->host_port, .guest_port = 22};
    const struct net_user_options opt = {.forwards = &fwd, .nforwards = 1};
    assert_int_equal(net_user_open(&opt, f->loop, &f->clock, &f->b, &err), 0);
    f->queue_end = &f->queue;
    f->b->receive = on_frame;
    f->b->receive_ctx = f;
    event_timer_init(&f->timeout, f->loop, on_timeout, f);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    struct fixture *f = *state;
    while (f->queue)
        take_frame(f);
    net_destroy(f->b);
    event_timer_cancel(&f->timeout);
    clock_destroy(&f->clock);
    event_loop_destroy(f->loop);
    free(f);
    return 0;
}

// Runs the loop until a frame that is wanted has come.
static bool wait_frame(struct fixture *f, uint8_t proto, uint16_t port) {
    f->want_proto = proto;
    f->want_port = port;
    event_timer_arm(&f->timeout, nondet_monotonic_ns(&f->nd) + 3000000000ull);
    while (!take_frame(f))
        if (event_loop_run(f->loop))
            return false;
    return true;
}

static void send_packet(struct fixture *f, uint8_t *frame, size_t len, uint16_t csum_start, uint16_t csum_offset) {
    struct net_packet p = {
        .data = frame, .len = len, .needs_csum = csum_start, .csum_start = csum_start, .csum_offset = csum_offset};
    f->b->ops->send(f->b, &p);
    f->b->ops->flush(f->b);
}

// Ethernet and IPv4 around a payload that is in place already; the IP checksum as the device would complete it.
static void wrap_ip(uint8_t *f, const uint8_t *dst_mac, const uint8_t *src, const uint8_t *dst, uint8_t proto,
                    uint16_t payload) {
    uint32_t sum = 0;
    memcpy(f, dst_mac, 6);
    memcpy(f + 6, guest_mac, 6);
    f[12] = 8;
    f[13] = 0;
    const uint8_t ip[12] = {0x45, 0, (uint8_t)((20 + payload) >> 8), (uint8_t)(20 + payload), 0, 0, 0, 0, 64, proto};
    memcpy(f + 14, ip, 12);
    memcpy(f + 26, src, 4);
    memcpy(f + 30, dst, 4);
    for (unsigned i = 0; i < 20; i += 2)
        sum += get16be(f + 14 + i);
    sum = ~((sum & 0xffff) + (sum >> 16));
    f[24] = (uint8_t)(sum >> 8);
    f[25] = (uint8_t)sum;
}

static const uint8_t any[4] = {0}, all[4] = {255, 255, 255, 255}, guest_ip[4] = {10, 0, 2, 15},
                     host_ip[4] = {10, 0, 2, 2};
static const uint8_t everyone[6] = {255, 255, 255, 255, 255, 255}, host_mac[6] = {0x52, 0x55, 10, 0, 2, 2};

static const uint8_t *dhcp_option(const uint8_t *frame, size_t len, uint8_t want) {
    for (size_t i = 42 + 240; i + 2 <= len && frame[i] != 255; i += 2u + frame[i + 1])
        if (frame[i] == want)
            return frame + i + 2;
    return NULL;
}

static void test_dhcp(void **state) {
    struct fixture *f = *state;
    uint8_t p[42 + 300] = {0};
    const uint8_t udp[8] = {0, 68, 0, 67, (308) >> 8, (uint8_t)308};
    memcpy(p + 34, udp, 8);
    p[42] = 1; // BOOTREQUEST
    p[43] = 1;
    p[44] = 6;
    memcpy(p + 42 + 28, guest_mac, 6);
    const uint8_t options[] = {99, 130, 83, 99, 53, 1, 1, 255}; // DISCOVER
    memcpy(p + 42 + 236, options, sizeof(options));
    wrap_ip(p, everyone, any, all, 17, 308);
    send_packet(f, p, sizeof(p), 0, 0);
    assert_non_null(f->queue); // answered from inside send
    assert_true(wait_frame(f, 17, 68));
    assert_true(f->len > 42 + 240);
    assert_memory_equal(f->frame + 42 + 16, guest_ip, 4); // yiaddr
    const uint8_t *dns = dhcp_option(f->frame, f->len, 6), *router = dhcp_option(f->frame, f->len, 3);
    assert_non_null(dns);
    assert_non_null(router);
    assert_memory_equal(dns, ((uint8_t[]){10, 0, 2, 3}), 4);
    assert_memory_equal(router, host_ip, 4);
}

static void test_arp(void **state) {
    struct fixture *f = *state;
    uint8_t p[42] = {255, 255, 255, 255, 255, 255, 0x52, 0x54, 0, 0x12, 0x34, 0x56, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1};
    memcpy(p + 22, guest_mac, 6);
    memcpy(p + 28, guest_ip, 4);
    memcpy(p + 38, host_ip, 4);
    send_packet(f, p, sizeof(p), 0, 0);
    assert_non_null(f->queue); // answered from inside send
    assert_true(wait_frame(f, 0, 0));
    assert_int_equal(get16be(f->frame + 20), 2);
    assert_memory_equal(f->frame + 22, host_mac, 6);
}

// A TCP segment of 20 bytes header; flags, then the checksum left to the backend.
static void send_tcp_data(struct fixture *f, uint16_t sport, uint16_t dport, uint32_t seq, uint32_t ack, uint8_t flags,
                          uint16_t window, const void *data, uint16_t n) {
    static uint8_t p[NET_FRAME_MAX];
    memset(p, 0, 54);
    uint32_t sum = 6 + 20u + n;
    const uint16_t ports[2] = {htons(sport), htons(dport)};
    const uint32_t numbers[2] = {htonl(seq), htonl(ack)};
    memcpy(p + 34, ports, 4);
    memcpy(p + 38, numbers, 8);
    p[46] = 0x50;
    p[47] = flags;
    p[48] = (uint8_t)(window >> 8);
    p[49] = (uint8_t)window;
    memcpy(p + 54, data, n);
    wrap_ip(p, host_mac, guest_ip, host_ip, 6, (uint16_t)(20 + n));
    for (unsigned i = 26; i < 34; i += 2) // pseudo header
        sum += get16be(p + i);
    sum = (sum & 0xffff) + (sum >> 16);
    p[50] = (uint8_t)(sum >> 8);
    p[51] = (uint8_t)sum;
    send_packet(f, p, 54u + n, 34, 16);
}

static void send_tcp_window(struct fixture *f, uint16_t sport, uint16_t dport, uint32_t seq, uint32_t ack,
                            uint8_t flags, uint16_t window, const char *text) {
    send_tcp_data(f, sport, dport, seq, ack, flags, window, text, (uint16_t)strlen(text));
}

static void send_tcp(struct fixture *f, uint16_t sport, uint16_t dport, uint32_t seq, uint32_t ack, uint8_t flags,
                     const char *text) {
    send_tcp_window(f, sport, dport, seq, ack, flags, 0x2000, text);
}

static uint32_t get32be(const uint8_t *p) {
    return (uint32_t)get16be(p) << 16 | get16be(p + 2);
}

// A listener on a port of the host.
static int listen_local(uint16_t *port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(a);
    int s = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(s, (struct sockaddr *)&a, n), 0);
    assert_int_equal(listen(s, 1), 0);
    getsockname(s, (struct sockaddr *)&a, &n);
    *port = ntohs(a.sin_port);
    return s;
}

// A receiver whose window has shrunk to a little less than half of its largest, as Linux's does, is sent to without
// waiting for the 5 s of the persist timer; wait_frame gives up after 3 s.
static void test_tcp_small_window(void **state) {
    enum { LARGE = 65480, SMALL = 32712, TOTAL = 65536 };
    struct fixture *f = *state;
    static char data[TOTAL];
    uint16_t port;
    int s = listen_local(&port);
    send_tcp_window(f, 4001, port, 1000, 0, 2, LARGE, "");
    assert_true(wait_frame(f, 6, 4001));
    uint32_t next = get32be(f->frame + 38) + 1, end = next + TOTAL;
    send_tcp_window(f, 4001, port, 1001, next, 0x10, LARGE, "");
    int c = accept(s, NULL, NULL);
    assert_true(c >= 0);
    assert_int_equal(send(c, data, TOTAL, 0), TOTAL);
    while (next != end) {
        assert_true(wait_frame(f, 6, 4001));
        if (f->len > 54 && get32be(f->frame + 38) == next) {
            next += (uint32_t)f->len - 54;
            send_tcp_window(f, 4001, port, 1001, next, 0x10, SMALL, "");
        }
    }
    close(c);
    close(s);
}

// A packet that a guest with segmentation offload hands over: far larger than the MTU, larger than what is left of the
// window even.
static void test_tcp_large(void **state) {
    enum { LARGE = 65000, PART = 60000 };
    struct fixture *f = *state;
    static uint8_t data[LARGE], got[LARGE];
    uint16_t port;
    int s = listen_local(&port);
    for (unsigned i = 0; i < LARGE; i++)
        data[i] = (uint8_t)(i * 7 ^ i >> 8);
    assert_true(f->b->tso && f->b->mtu < LARGE);
    send_tcp(f, 4002, port, 1000, 0, 2, "");
    assert_true(wait_frame(f, 6, 4002));
    uint32_t ack = get32be(f->frame + 38) + 1;
    send_tcp(f, 4002, port, 1001, ack, 0x10, "");
    int c = accept(s, NULL, NULL);
    assert_true(c >= 0);
    send_tcp_data(f, 4002, port, 1001, ack, 0x18, 0x2000, data, PART);
    assert_true(wait_frame(f, 6, 4002));
    assert_int_equal(get32be(f->frame + 42), 1001 + PART); // acknowledged as one
    assert_int_equal(recv(c, got, PART, MSG_WAITALL), PART);
    assert_memory_equal(got, data, PART);
    send_tcp_data(f, 4002, port, 1001 + PART, ack, 0x18, 0x2000, data, LARGE);
    assert_int_equal(recv(c, got, LARGE, MSG_WAITALL), LARGE);
    assert_memory_equal(got, data, LARGE);
    close(c);
    close(s);
}

static void test_tcp_out(void **state) {
    struct fixture *f = *state;
    uint16_t port;
    int s = listen_local(&port);
    send_tcp(f, 4000, port, 1000, 0, 2, ""); // SYN
    assert_true(wait_frame(f, 6, 4000));
    assert_int_equal(f->frame[47], 0x12); // SYN+ACK
    uint32_t seq;
    memcpy(&seq, f->frame + 38, 4);
    seq = ntohl(seq);
    f->len = 0;
    send_tcp(f, 4000, port, 1001, seq + 1, 0x18, "hello");
    int c = accept(s, NULL, NULL);
    assert_true(c >= 0);
    char buf[8] = {0};
    for (int i = 0; i < 100 && recv(c, buf, sizeof(buf), MSG_DONTWAIT | MSG_PEEK) <= 0; i++)
        wait_frame(f, 6, 4000); // the ACK
    assert_int_equal(recv(c, buf, sizeof(buf), MSG_DONTWAIT), 5);
    assert_string_equal(buf, "hello");
    assert_int_equal(send(c, "world", 5, 0), 5);
    do
        assert_true(wait_frame(f, 6, 4000));
    while (f->len < 59);
    assert_memory_equal(f->frame + f->len - 5, "world", 5);
    close(c);
    close(s);
}

static void test_forward(void **state) {
    struct fixture *f = *state;
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(f->host_port)};
    int c = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(c, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_true(wait_frame(f, 6, 22));
    assert_int_equal(f->frame[47] & 2, 2); // SYN to the guest's port 22
    assert_memory_equal(f->frame + 30, guest_ip, 4);
    close(c);
}

static void test_port_taken(void **state) {
    struct fixture *f = *state;
    const struct net_forward fwd = {.host_port = f->host_port, .guest_port = 80};
    const struct net_forward bad = {.host_addr = "1.2.3", .host_port = 1, .guest_port = 80};
    struct net_user_options opt = {.forwards = &fwd, .nforwards = 1};
    struct error err = {0};
    struct net_backend *b;
    assert_int_equal(net_user_open(&opt, f->loop, &f->clock, &b, &err), -EADDRINUSE);
    assert_non_null(strstr(err.text, "TCP port"));
    opt.forwards = &bad;
    assert_int_equal(net_user_open(&opt, f->loop, &f->clock, &b, &err), -EINVAL);
    assert_non_null(strstr(err.text, "1.2.3"));
}

static void test_pause(void **state) {
    struct fixture *f = *state;
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(f->host_port)};
    int c = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    f->b->ops->pause(f->b);
    connect(c, (struct sockaddr *)&a, sizeof(a));
    event_timer_arm(&f->timeout, nondet_monotonic_ns(&f->nd) + 50000000);
    f->want_proto = 6;
    f->want_port = 22;
    assert_int_equal(event_loop_run(f->loop), 1);
    f->b->ops->resume(f->b);
    assert_true(wait_frame(f, 6, 22));
    close(c);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        T(test_dhcp),      T(test_arp),     T(test_tcp_out),    T(test_tcp_small_window),
        T(test_tcp_large), T(test_forward), T(test_port_taken), T(test_pause),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
