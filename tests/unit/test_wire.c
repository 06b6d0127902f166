// SPDX-License-Identifier: Apache-2.0
// The migration stream: messages come over whole however the socket cuts them, and nothing that is not one of ours or
// is damaged gives a message.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "state/migrate/wire.h"
#include "util/crc32c.h"

struct pair {
    struct wire a, b;
    int raw; // instead of a: bytes by hand
};

static void pair_make(struct pair *p, bool by_hand) {
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    *p = (struct pair){.a.fd = -1, .raw = by_hand ? fds[0] : -1};
    if (!by_hand)
        assert_int_equal(wire_init(&p->a, fds[0]), 0);
    assert_int_equal(wire_init(&p->b, fds[1]), 0);
}

static void pair_free(struct pair *p) {
    if (p->raw >= 0)
        close(p->raw);
    wire_fini(&p->a);
    wire_fini(&p->b);
}

static void test_messages_come_over(void **state) {
    struct pair p;
    struct wire_message m;
    struct error err = {0};
    size_t len = 3 << 20;
    uint8_t *body = malloc(len);
    pair_make(&p, false);
    for (size_t i = 0; i < len; i++)
        body[i] = (uint8_t)(i * 7 >> 3);
    assert_int_equal(wire_put(&p.a, WIRE_STATE, body, len), 0);
    assert_int_equal(wire_put(&p.a, WIRE_COMMIT, NULL, 0), 0);
    int got = 0;
    while (got < 2) {
        int flushed = wire_flush(&p.a); // a socket's buffer holds less than the message
        assert_true(flushed == 0 || flushed == -EAGAIN);
        int filled = wire_fill(&p.b);
        assert_true(filled == 0 || filled == -EAGAIN);
        while (wire_next(&p.b, &m, &err) == 1) {
            assert_int_equal(m.type, got ? WIRE_COMMIT : WIRE_STATE);
            assert_int_equal(m.len, got ? 0 : len);
            assert_true(got || memcmp(m.body, body, len) == 0);
            got++;
        }
        assert_int_equal(err.code, 0);
    }
    assert_int_equal(wire_queued(&p.a), 0);
    close(p.a.fd);
    p.a.fd = -1;
    assert_int_equal(wire_fill(&p.b), -ECONNRESET);
    free(body);
    pair_free(&p);
}

// ---- by hand ----

static void put_message(uint8_t *buf, uint32_t type, const void *body, uint32_t len) {
    wire_set32(buf, type);
    wire_set32(buf + 4, len);
    wire_set32(buf + 8, crc32c(0, body, len));
    wire_set32(buf + 12, crc32c(0, buf, 12));
    memcpy(buf + 16, body, len);
}

static void put_hello(uint8_t *buf, uint32_t version) {
    uint8_t hello[12];
    memcpy(hello, "CICADAMG", 8);
    wire_set32(hello + 8, version);
    put_message(buf, WIRE_HELLO, hello, sizeof(hello));
}

// What wire_next makes of these bytes; the text in err.
static int feed(const void *bytes, size_t len, struct wire_message *m, struct error *err) {
    struct pair p;
    pair_make(&p, true);
    assert_int_equal(send(p.raw, bytes, len, 0), len);
    assert_int_equal(wire_fill(&p.b), 0);
    int ret = wire_next(&p.b, m, err);
    pair_free(&p);
    return ret;
}

static void test_strangers(void **state) {
    struct wire_message m;
    struct error err;
    uint8_t buf[64] = "GET / HTTP/1.1\r\nHost: somewhere\r\n\r\n";
    assert_int_equal(feed(buf, 36, &m, &err), -EINVAL);
    assert_non_null(strstr(err.text, "no cicada"));
    put_hello(buf, WIRE_VERSION + 1);
    assert_int_equal(feed(buf, 28, &m, &err), -EINVAL);
    assert_non_null(strstr(err.text, "version 2"));
    put_message(buf, WIRE_COMMIT, "", 0); // a message before the greeting
    assert_int_equal(feed(buf, 16, &m, &err), -EINVAL);
    put_hello(buf, WIRE_VERSION);
    assert_int_equal(feed(buf, 28, &m, &err), 0);
    assert_int_equal(feed(buf, 27, &m, &err), 0); // not whole yet
}

static void test_damage(void **state) {
    uint8_t good[28 + 16 + 8];
    struct wire_message m;
    struct error err;
    put_hello(good, WIRE_VERSION);
    put_message(good + 28, WIRE_STATE, "contents", 8);
    assert_int_equal(feed(good, sizeof(good), &m, &err), 1);
    for (size_t bit = 28 * 8; bit < sizeof(good) * 8; bit++) {
        uint8_t bad[sizeof(good)];
        memcpy(bad, good, sizeof(good));
        bad[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_int_equal(feed(bad, sizeof(bad), &m, &err), -EINVAL);
    }
}

// A right checksum makes a huge length or an unknown type no better.
static void test_impossible_headers(void **state) {
    uint8_t buf[28 + 16];
    struct wire_message m;
    struct error err;
    put_hello(buf, WIRE_VERSION);
    put_message(buf + 28, WIRE_TYPE_END, "", 0);
    assert_int_equal(feed(buf, sizeof(buf), &m, &err), -EINVAL);
    put_message(buf + 28, WIRE_STATE, "", 0);
    wire_set32(buf + 28 + 4, (uint32_t)WIRE_BODY_MAX + 1);
    wire_set32(buf + 28 + 12, crc32c(0, buf + 28, 12));
    assert_int_equal(feed(buf, sizeof(buf), &m, &err), -EINVAL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages_come_over),
        cmocka_unit_test(test_strangers),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_impossible_headers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
