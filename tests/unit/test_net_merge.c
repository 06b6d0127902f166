// SPDX-License-Identifier: Apache-2.0
// Merging of received TCP segments: what is merged, what never is, and that the result is what a driver may be given.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <linux/virtio_net.h>
#include <string.h>

#include "backend/inet_sum.h"
#include "net_frames.h"
#include "virtio/net_merge.h"

#define SEQ 0xfffffff0u // wraps soon

static struct net_merge m;
static struct virtio_net_hdr_v1 hdr;

static int setup(void **state) {
    memset(&m, 0xee, sizeof(m));
    net_merge_clear(&m);
    return 0;
}

static void test_sum(void **state) {
    uint8_t data[64];
    for (unsigned i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(0xf0 + i * 31);
    for (size_t len = 0; len <= sizeof(data); len++) {
        uint32_t sum = 0; // RFC 1071 by the letter
        for (size_t i = 0; i < len; i++)
            sum += i % 2 ? data[i] : (uint32_t)data[i] << 8;
        while (sum >> 16)
            sum = (sum & 0xffff) + (sum >> 16);
        assert_int_equal(inet_sum(data, len), sum);
    }
    assert_int_equal(inet_sum_add(0xffff, 1), 1);
}

static void test_merge(void **state) {
    uint8_t a[1514], b[1514], c[154];
    size_t n = frame_tcp(a, SEQ, TCP_ACK, 1460), k = frame_tcp(b, SEQ + 1460, TCP_ACK, 1460);
    assert_int_equal(n, sizeof(a));
    assert_true(net_merge_add(&m, a, n));
    assert_true(net_merge_add(&m, b, k));
    k = frame_tcp(c, SEQ + 2920, TCP_ACK | TCP_PSH, 100);
    assert_true(net_merge_add(&m, c, k));
    assert_int_equal(net_merge_take(&m, &hdr), 54 + 3020);
    assert_int_equal(hdr.flags, VIRTIO_NET_HDR_F_NEEDS_CSUM);
    assert_int_equal(hdr.gso_type, VIRTIO_NET_HDR_GSO_TCPV4);
    assert_int_equal(hdr.gso_size, 1460);
    assert_int_equal(hdr.hdr_len, 54);
    assert_int_equal(hdr.csum_start, 34);
    assert_int_equal(hdr.csum_offset, 16);
    assert_int_equal(frame_get16(m.frame + 16), 40 + 3020);
    assert_int_equal(inet_sum(m.frame + 14, 20), 0xffff);
    assert_int_equal(m.frame[47], TCP_ACK | TCP_PSH);
    assert_memory_equal(m.frame + 54, a + 54, 1460);
    assert_memory_equal(m.frame + 54 + 1460, b + 54, 1460);
    assert_memory_equal(m.frame + 54 + 2920, c + 54, 100);
    // Completed as a driver would, the checksum is right.
    uint16_t sum = (uint16_t)~inet_sum(m.frame + 34, 20 + 3020);
    m.frame[50] = (uint8_t)(sum >> 8);
    m.frame[51] = (uint8_t)sum;
    assert_true(frame_tcp_sum_ok(m.frame, 54 + 3020));
    assert_int_equal(net_merge_take(&m, &hdr), 0);
}

static void test_alone(void **state) {
    uint8_t a[1514];
    size_t n = frame_tcp(a, SEQ, TCP_ACK, 1460);
    assert_true(net_merge_add(&m, a, n));
    assert_int_equal(net_merge_take(&m, &hdr), n);
    assert_memory_equal(m.frame, a, n); // untouched, with its own checksums
    assert_int_equal(hdr.flags, VIRTIO_NET_HDR_F_DATA_VALID);
    assert_int_equal(hdr.gso_type, VIRTIO_NET_HDR_GSO_NONE);
}

// Frames that do not follow: each differs from the right one in one place.
static void test_not_next(void **state) {
    static const struct {
        unsigned at;
        uint8_t flip;
    } differences[] = {
        {5, 1}, {11, 1}, {15, 4}, {20, 0x40}, {22, 1}, {29, 1}, {33, 1}, {35, 1}, {37, 1}, {41, 1}, {45, 1}, {49, 1},
    };
    uint8_t a[1514], b[1514];
    size_t n = frame_tcp(a, SEQ, TCP_ACK, 1460);
    for (unsigned i = 0; i < sizeof(differences) / sizeof(differences[0]); i++) {
        assert_true(net_merge_add(&m, a, n));
        frame_tcp(b, SEQ + 1460, TCP_ACK, 1460);
        b[differences[i].at] ^= differences[i].flip;
        assert_false(net_merge_add(&m, b, n));
        b[differences[i].at] ^= differences[i].flip;
        assert_true(net_merge_add(&m, b, n)); // nothing else was wrong with it
        assert_int_equal(net_merge_take(&m, &hdr), n + 1460);
    }
}

static void test_ends(void **state) {
    uint8_t a[1514], b[1514];
    assert_true(net_merge_add(&m, a, frame_tcp(a, SEQ, TCP_ACK | TCP_PSH, 1000))); // PSH is the last
    assert_false(net_merge_add(&m, b, frame_tcp(b, SEQ + 1000, TCP_ACK, 1000)));
    net_merge_take(&m, &hdr);
    assert_true(net_merge_add(&m, a, frame_tcp(a, SEQ, TCP_ACK, 1000)));
    assert_false(net_merge_add(&m, b, frame_tcp(b, SEQ + 1000, TCP_ACK, 1001))); // larger than the first
    assert_true(net_merge_add(&m, b, frame_tcp(b, SEQ + 1000, TCP_ACK, 999)));   // smaller: the last
    assert_false(net_merge_add(&m, b, frame_tcp(b, SEQ + 1999, TCP_ACK, 999)));
    net_merge_clear(&m);
    static uint8_t big[54 + 20000];
    uint32_t seq = SEQ;
    for (unsigned i = 0; i < 3; i++, seq += 20000)
        assert_true(net_merge_add(&m, big, frame_tcp(big, seq, TCP_ACK, 20000)));
    assert_false(net_merge_add(&m, big, frame_tcp(big, seq, TCP_ACK, 20000))); // beyond 64 KiB
    assert_int_equal(net_merge_take(&m, &hdr), 54 + 60000);
}

static void test_never(void **state) {
    uint8_t a[1514];
    const uint8_t flags[] = {0, TCP_ACK | 1, TCP_ACK | 2, TCP_ACK | 4, TCP_ACK | 0x20, TCP_ACK | 0x40, TCP_ACK | 0x80};
    for (unsigned i = 0; i < sizeof(flags); i++)
        assert_false(net_merge_add(&m, a, frame_tcp(a, SEQ, flags[i], 100)));
    assert_false(net_merge_add(&m, a, frame_tcp(a, SEQ, TCP_ACK, 0)));
    size_t n = frame_tcp(a, SEQ, TCP_ACK, 100);
    for (size_t len = 0; len < n; len++) // cut short
        assert_false(net_merge_add(&m, a, len));
    assert_false(net_merge_add(&m, a, n + 1)); // padded
    const struct {
        unsigned at;
        uint8_t value;
    } other[] = {{12, 0x86}, {14, 0x46}, {14, 0x65}, {20, 0x20}, {21, 1}, {23, 17}, {46, 0x40}, {46, 0xf0}};
    for (unsigned i = 0; i < sizeof(other) / sizeof(other[0]); i++) {
        frame_tcp(a, SEQ, TCP_ACK, i == 7 ? 40 : 100); // header beyond the end
        n = i == 7 ? 94 : 154;
        a[other[i].at] = other[i].value;
        assert_false(net_merge_add(&m, a, n));
    }
    assert_int_equal(net_merge_take(&m, &hdr), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_sum, setup),   cmocka_unit_test_setup(test_merge, setup),
        cmocka_unit_test_setup(test_alone, setup), cmocka_unit_test_setup(test_not_next, setup),
        cmocka_unit_test_setup(test_ends, setup),  cmocka_unit_test_setup(test_never, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
