// SPDX-License-Identifier: Apache-2.0
// virtio-console and virtio-rng.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "virtio/console.h"
#include "virtio/rng.h"
#include "virtio_rig.h"

#define CONSOLE 4
#define RNG     5
#define RX      0
#define TX      1
#define BUF     0x200000

struct fixture {
    struct rig *r;
    struct drv con, rng;
    struct chardev chr;
    pthread_mutex_t lock; // guards out, room
    uint8_t out[32768];
    size_t out_len, room;
    atomic_uint ready;
};

static size_t host_write(void *ctx, const uint8_t *buf, size_t n) {
    struct fixture *f = ctx;
    pthread_mutex_lock(&f->lock);
    if (n > f->room)
        n = f->room;
    memcpy(f->out + f->out_len, buf, n);
    f->out_len += n;
    f->room -= n;
    pthread_mutex_unlock(&f->lock);
    return n;
}

static void host_rx_ready(void *ctx) {
    atomic_fetch_add(&((struct fixture *)ctx)->ready, 1);
}

static void host_room(struct fixture *f, size_t n) {
    pthread_mutex_lock(&f->lock);
    f->room = n;
    pthread_mutex_unlock(&f->lock);
}

static bool host_has(struct fixture *f, size_t n) {
    for (int i = 0; i < 2000; i++) {
        pthread_mutex_lock(&f->lock);
        bool enough = f->out_len >= n;
        pthread_mutex_unlock(&f->lock);
        if (enough)
            return true;
        rig_sleep_ms(1);
    }
    return false;
}

static int setup(void **state) {
    struct fixture *f = calloc(1, sizeof(*f));
    pthread_mutex_init(&f->lock, NULL);
    f->r = rig_new();
    f->chr = (struct chardev){.write = host_write, .rx_ready = host_rx_ready, .ctx = f};
    f->room = sizeof(f->out);
    assert_int_equal(virtio_console_create(f->r->host, CONSOLE, &f->chr, &f->r->err), 0);
    assert_int_equal(virtio_rng_create(f->r->host, RNG, 1000000, &f->r->err), 0);
    rig_loop_start(f->r);
    drv_attach(&f->con, f->r, CONSOLE);
    drv_attach(&f->rng, f->r, RNG);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    struct fixture *f = *state;
    rig_free(f->r);
    assert_null(f->chr.dev_receive);
    free(f);
    return 0;
}

static void test_output(void **state) {
    struct fixture *f = *state;
    const struct drv_seg s[] = {{BUF, 3, false}, {BUF + 3, 4, false}};
    struct vring_used_elem u;
    drv_start(&f->con, 0, true);
    rig_put(f->r, BUF, "login: ", 7);
    drv_add(&f->con, TX, s, 2);
    drv_kick(&f->con, TX);
    assert_true(drv_wait(&f->con, TX, &u));
    assert_true(host_has(f, 7));
    assert_memory_equal(f->out, "login: ", 7);
}

// One chain larger than the device's buffer, and a host that takes it in small pieces: nothing lost or repeated.
static void test_output_slow_host(void **state) {
    struct fixture *f = *state;
    static uint8_t text[20000];
    const struct drv_seg s = {BUF, sizeof(text), false};
    struct vring_used_elem u;
    for (unsigned i = 0; i < sizeof(text); i++)
        text[i] = (uint8_t)(i * 31 >> 3);
    rig_put(f->r, BUF, text, sizeof(text));
    host_room(f, 0);
    drv_start(&f->con, 0, true);
    drv_add(&f->con, TX, &s, 1);
    drv_kick(&f->con, TX);
    rig_sleep_ms(5);
    assert_int_equal(rig_get16(f->r, f->con.q[TX].used + 2), 0); // held back
    for (size_t got = 0; got < sizeof(text); got += 1000) {
        host_room(f, 1000);
        chardev_writable(&f->chr);
        assert_true(host_has(f, got + 1000));
    }
    assert_true(drv_wait(&f->con, TX, &u));
    assert_memory_equal(f->out, text, sizeof(text));
    assert_int_equal(f->out_len, sizeof(text));
}

static void test_input(void **state) {
    struct fixture *f = *state;
    const struct drv_seg s = {BUF, 4, true};
    struct vring_used_elem u;
    char got[5] = {0};
    assert_int_equal(chardev_receive(&f->chr, (const uint8_t *)"x", 1), 0); // nobody listens yet
    drv_start(&f->con, 0, true);
    drv_add(&f->con, RX, &s, 1);
    assert_int_equal(chardev_receive(&f->chr, (const uint8_t *)"abcdef", 6), 4);
    assert_true(drv_wait(&f->con, RX, &u));
    assert_int_equal(u.len, 4);
    rig_get(f->r, BUF, got, 4);
    assert_string_equal(got, "abcd");
    unsigned before = f->ready;
    drv_add(&f->con, RX, &s, 1);
    drv_kick(&f->con, RX);
    for (int i = 0; i < 1000 && f->ready == before; i++)
        rig_sleep_ms(1);
    assert_true(f->ready > before); // "ef" may be offered again
    assert_int_equal(chardev_receive(&f->chr, (const uint8_t *)"ef", 2), 2);
}

static void test_bad_console_ring(void **state) {
    struct fixture *f = *state;
    drv_start(&f->con, 0, true);
    drv_offer(&f->con, RX, 64);
    assert_int_equal(chardev_receive(&f->chr, (const uint8_t *)"abc", 3), 0);
    assert_true(drv_needs_reset(&f->con));
    assert_int_equal(chardev_receive(&f->chr, (const uint8_t *)"abc", 3), 0);
}

static void test_rng(void **state) {
    struct fixture *f = *state;
    const struct drv_seg s = {BUF, 64, true};
    struct vring_used_elem u;
    uint8_t a[64], b[64];
    drv_start(&f->rng, 0, true);
    drv_add(&f->rng, 0, &s, 1);
    drv_kick(&f->rng, 0);
    assert_true(drv_wait(&f->rng, 0, &u));
    assert_int_equal(u.len, 64);
    rig_get(f->r, BUF, a, 64);
    drv_add(&f->rng, 0, &s, 1);
    drv_kick(&f->rng, 0);
    assert_true(drv_wait(&f->rng, 0, &u));
    rig_get(f->r, BUF, b, 64);
    assert_memory_not_equal(a, b, 64);
}

// 1 MB/s: 64 KiB at once, then the guest waits, and is served by the timer.
static void test_rng_rate(void **state) {
    struct fixture *f = *state;
    const struct drv_seg huge = {BUF, 0x400000, true};
    struct vring_used_elem u;
    drv_start(&f->rng, 0, true);
    drv_add(&f->rng, 0, &huge, 1);
    drv_kick(&f->rng, 0);
    assert_true(drv_wait(&f->rng, 0, &u));
    assert_in_range(u.len, 1, 65536);
    uint64_t start = clock_now_ns(&f->r->m.clock), total = 0;
    for (unsigned i = 0; i < 5; i++) {
        drv_add(&f->rng, 0, &huge, 1);
        drv_kick(&f->rng, 0);
        assert_true(drv_wait(&f->rng, 0, &u));
        total += u.len;
    }
    uint64_t elapsed = clock_now_ns(&f->r->m.clock) - start;
    assert_true(total <= elapsed / 1000 + 2000);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        T(test_output), T(test_output_slow_host), T(test_input), T(test_bad_console_ring),
        T(test_rng),    T(test_rng_rate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
