// SPDX-License-Identifier: Apache-2.0
// 16550A: output with and without a full host side, input and flow control, every interrupt, loopback, state.
#include "dev/ns16550.h"
#include "dev_harness.h"

#define PORT 0x3f8
enum { THR = PORT, RBR = PORT, IER, FCR, LCR, MCR, LSR, MSR, SCR, IIR = FCR };

struct fixture {
    struct harness *h;
    struct ns16550 *uart;
    struct chardev chr;
    uint8_t out[4096];
    size_t out_len, room;
    unsigned rx_ready;
};

static size_t chr_write(void *ctx, const uint8_t *buf, size_t n) {
    struct fixture *f = ctx;

    if (n > f->room)
        n = f->room;
    memcpy(f->out + f->out_len, buf, n);
    f->out_len += n;
    f->room -= n;
    return n;
}

static void chr_rx_ready(void *ctx) {
    ((struct fixture *)ctx)->rx_ready++;
}

static int setup(void **state) {
    struct fixture *f = calloc(1, sizeof(*f));
    struct error err = {0};

    f->h = harness_create(1);
    f->room = sizeof(f->out);
    f->chr = (struct chardev){.write = chr_write, .rx_ready = chr_rx_ready, .ctx = f};
    assert_int_equal(ns16550_create(&f->h->env, PORT, 4, 0, &f->chr, &f->uart, &err), 0);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    struct fixture *f = *state;

    harness_destroy(f->h);
    free(f);
    return 0;
}

static uint8_t in(struct fixture *f, unsigned port) {
    return inb(f->h, (uint16_t)port);
}
static void out(struct fixture *f, unsigned port, uint8_t val) {
    outb(f->h, (uint16_t)port, val);
}
static bool irq(struct fixture *f) {
    return f->h->gsi[4];
}
static size_t receive(struct fixture *f, const char *s) {
    return chardev_receive(&f->chr, (const uint8_t *)s, strlen(s));
}

static void test_output(void **state) {
    struct fixture *f = *state;

    for (const char *s = "hello"; *s; s++) {
        assert_int_equal(in(f, LSR), 0x60);
        out(f, THR, (uint8_t)*s);
    }
    assert_int_equal(f->out_len, 5);
    assert_memory_equal(f->out, "hello", 5);
}

static void test_output_waits_for_host(void **state) {
    struct fixture *f = *state;

    out(f, FCR, 0x01);
    out(f, IER, 0x02);
    assert_int_equal(in(f, IIR), 0xc2);
    assert_false(irq(f));
    f->room = 3;
    for (int i = 0; i < 16; i++)
        out(f, THR, (uint8_t)('a' + i));
    assert_int_equal(in(f, LSR) & 0x60, 0);
    f->room = 100;
    chardev_writable(&f->chr);
    assert_int_equal(f->out_len, 16);
    assert_memory_equal(f->out, "abcdefghijklmnop", 16);
    assert_int_equal(in(f, LSR) & 0x60, 0x60);
    assert_true(irq(f));
}

static void test_thre_interrupt(void **state) {
    struct fixture *f = *state;

    out(f, IER, 0x02);
    assert_true(irq(f));
    assert_int_equal(in(f, IIR), 0x02);
    assert_false(irq(f)); // reading IIR acknowledges
    unsigned edges = f->h->gsi_edges[4];
    out(f, THR, 'x');
    assert_int_equal(f->h->gsi_edges[4], edges + 1);
    out(f, THR, 'y'); // unacknowledged: the line still makes a new edge
    assert_int_equal(f->h->gsi_edges[4], edges + 2);
    out(f, IER, 0);
    assert_false(irq(f));
    assert_int_equal(in(f, IIR), 0x01);
}

static void test_input_without_fifo(void **state) {
    struct fixture *f = *state;

    out(f, IER, 0x01);
    assert_int_equal(receive(f, "ab"), 1);
    assert_true(irq(f));
    assert_int_equal(in(f, IIR), 0x04);
    assert_int_equal(in(f, LSR) & 1, 1);
    assert_int_equal(f->rx_ready, 1); // told when the guest began to listen
    assert_int_equal(in(f, RBR), 'a');
    assert_int_equal(f->rx_ready, 2);
    assert_false(irq(f));
    assert_int_equal(in(f, RBR), 0);
}

static void test_fifo_trigger_and_timeout(void **state) {
    struct fixture *f = *state;

    out(f, FCR, 0x81); // trigger at 8
    out(f, IER, 0x01);
    assert_int_equal(receive(f, "1234567"), 7);
    assert_false(irq(f));
    harness_advance(f->h, 400000); // 4 characters at 115200
    assert_true(irq(f));
    assert_int_equal(in(f, IIR), 0xcc);
    assert_int_equal(in(f, RBR), '1');
    assert_false(irq(f));
    assert_int_equal(receive(f, "890"), 3);
    assert_int_equal(in(f, IIR), 0xc4); // 9 in it
    in(f, RBR);
    in(f, RBR);
    assert_int_equal(in(f, IIR), 0xc1);
    assert_int_equal(receive(f, "abcdefghijklmnop"), 9); // 16 in all
    assert_false(ns16550_can_receive(f->uart));
    out(f, FCR, 0x83); // cleared: the host side may go on
    assert_int_equal(f->rx_ready, 2);
    assert_int_equal(in(f, LSR) & 1, 0);
}

static void test_break_and_line_status(void **state) {
    struct fixture *f = *state;

    out(f, FCR, 0x01);
    out(f, IER, 0x05);
    ns16550_receive_break(f->uart);
    assert_int_equal(in(f, IIR), 0xc6);
    assert_int_equal(in(f, LSR), 0x71);
    assert_int_equal(in(f, IIR), 0xc4);
    assert_int_equal(in(f, RBR), 0);
    assert_int_equal(in(f, LSR), 0x60);
}

static void test_loopback(void **state) {
    struct fixture *f = *state;

    assert_int_equal(in(f, MSR), 0xb0);
    out(f, IER, 0x08);
    out(f, MCR, 0x1a); // RTS, OUT2: CTS and DCD stay, DSR drops
    assert_int_equal(in(f, IIR), 0x00);
    assert_int_equal(in(f, MSR), 0x92);
    assert_int_equal(in(f, MSR), 0x90);
    assert_false(irq(f));
    out(f, MCR, 0x1e); // ring: no interrupt until it ends
    assert_int_equal(in(f, IIR), 0x01);
    out(f, MCR, 0x1a);
    assert_int_equal(in(f, MSR), 0x94);
    out(f, THR, 0x5a);
    assert_int_equal(f->out_len, 0);
    assert_int_equal(receive(f, "z"), 0);
    out(f, THR, 0x5b); // nobody read the first
    assert_int_equal(in(f, LSR), 0x63);
    assert_int_equal(in(f, RBR), 0x5a);
    assert_int_equal(f->rx_ready, 0);
    out(f, MCR, 0x0b);
    assert_int_equal(f->rx_ready, 1);
}

static void test_registers(void **state) {
    struct fixture *f = *state;

    out(f, SCR, 0xa5);
    assert_int_equal(in(f, SCR), 0xa5);
    out(f, LCR, 0x83);
    out(f, THR, 0x34);
    out(f, IER, 0x12);
    assert_int_equal(in(f, RBR), 0x34);
    assert_int_equal(in(f, IER), 0x12);
    out(f, LCR, 0x03);
    assert_int_equal(in(f, IER), 0);
    out(f, IER, 0xff);
    assert_int_equal(in(f, IER), 0x0f);
    out(f, MCR, 0xff);
    assert_int_equal(in(f, MCR), 0x1f);
    assert_int_equal(f->out_len, 0);
}

static void test_save_load(void **state) {
    struct fixture *f = *state;
    struct state_writer w;

    out(f, FCR, 0x01);
    out(f, IER, 0x03);
    out(f, SCR, 0x77);
    f->room = 0;
    out(f, THR, 'q');
    receive(f, "in");
    harness_save(f->h, "ns16550", &w);
    harness_reset(f->h);
    assert_false(irq(f));
    assert_int_equal(in(f, LSR), 0x60);
    f->room = 10;
    harness_load(f->h, "ns16550", &w);
    assert_int_equal(in(f, SCR), 0x77);
    assert_int_equal(f->out_len, 1);
    assert_int_equal(f->out[0], 'q');
    assert_int_equal(in(f, RBR), 'i');
    assert_int_equal(in(f, RBR), 'n');
}

static void test_input_waits_for_guest(void **state) {
    struct fixture *f = *state;

    assert_int_equal(receive(f, "x"), 0);
    out(f, IER, 0x0f); // a driver's probe
    out(f, IER, 0x00);
    out(f, MCR, 0x1a);
    out(f, MCR, 0x00);
    assert_int_equal(receive(f, "x"), 0);
    assert_int_equal(f->rx_ready, 0);
    out(f, MCR, 0x0b);
    assert_int_equal(f->rx_ready, 1);
    assert_int_equal(receive(f, "x"), 1);
    harness_reset(f->h);
    assert_int_equal(receive(f, "x"), 0);
    for (int i = 0; i < 70; i++) {
        out(f, THR, 'o'); // output alone is no polling for input
        in(f, LSR);
    }
    assert_int_equal(receive(f, "x"), 0);
    for (int i = 0; i < 70; i++)
        in(f, LSR);
    assert_int_equal(f->rx_ready, 2);
    assert_int_equal(receive(f, "x"), 1);
}

static void test_without_host_side(void **state) {
    struct fixture *f = *state;
    struct ns16550 *second;
    struct error err = {0};

    assert_int_equal(ns16550_create(&f->h->env, 0x2f8, 3, 1, NULL, &second, &err), 0);
    outb(f->h, 0x2f8, 'x');
    assert_int_equal(inb(f->h, 0x2fd), 0x60);
    assert_int_not_equal(ns16550_create(&f->h->env, 0x2ff, 3, 2, NULL, &second, &err), 0);
    assert_non_null(strstr(err.text, "ns16550"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_output),
        TEST(test_output_waits_for_host),
        TEST(test_thre_interrupt),
        TEST(test_input_without_fifo),
        TEST(test_fifo_trigger_and_timeout),
        TEST(test_break_and_line_status),
        TEST(test_loopback),
        TEST(test_registers),
        TEST(test_save_load),
        TEST(test_input_waits_for_guest),
        TEST(test_without_host_side),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
