// SPDX-License-Identifier: Apache-2.0
// Packets of gdb's protocol: framing, checksums, escapes, limits, numbers.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "debug/gdb_packet.h"

static struct gdb_reader reader;
static struct gdb_text text;

static enum gdb_token feed(const char *bytes) {
    enum gdb_token t = GDB_NOTHING;
    for (; *bytes; bytes++)
        t = gdb_read_byte(&reader, (uint8_t)*bytes);
    return t;
}

static void test_frame(void **state) {
    memset(&reader, 0, sizeof(reader));
    assert_int_equal(feed("noise$g#67"), GDB_PACKET);
    assert_string_equal(reader.data, "g");
    assert_int_equal(feed("$#00"), GDB_PACKET);
    assert_int_equal(reader.len, 0);
    assert_int_equal(feed("$OK#9A"), GDB_PACKET); // either case of digits
    assert_int_equal(feed("$g#68"), GDB_BROKEN);
    assert_int_equal(feed("$g#6"), GDB_NOTHING);
    assert_int_equal(feed("x"), GDB_BROKEN);
    assert_int_equal(feed("$m1,$g#67"), GDB_PACKET); // the end of the first was lost
    assert_string_equal(reader.data, "g");
}

static void test_single_bytes(void **state) {
    memset(&reader, 0, sizeof(reader));
    assert_int_equal(feed("+"), GDB_ACK);
    assert_int_equal(feed("-"), GDB_NAK);
    assert_int_equal(feed("\003"), GDB_INTERRUPT);
    assert_int_equal(feed("$\003-+#4a"), GDB_BROKEN); // data within a packet; 3 + 45 + 43 = 0x5b
    assert_int_equal(feed("$\003-+#5b"), GDB_PACKET);
}

static void test_escapes(void **state) {
    memset(&reader, 0, sizeof(reader));
    assert_int_equal(feed("$X}\003}\004}]#33"), GDB_PACKET); // '#', '$' and '}'
    assert_int_equal(reader.len, 4);
    assert_memory_equal(reader.data, "X#$}", 5);
    text = (struct gdb_text){0};
    gdb_put_binary(&text, "a#b$c}d*e", 9);
    assert_int_equal(text.len, 13);
    assert_memory_equal(text.data, "a}\003b}\004c}]d}\ne", 13);
}

static void test_too_long(void **state) {
    memset(&reader, 0, sizeof(reader));
    gdb_read_byte(&reader, '$');
    uint8_t sum = 0;
    for (unsigned i = 0; i <= GDB_PACKET_MAX; i++, sum += 'a')
        assert_int_equal(gdb_read_byte(&reader, 'a'), GDB_NOTHING);
    char end[4];
    snprintf(end, sizeof(end), "#%02x", sum);
    assert_int_equal(feed(end), GDB_BROKEN);
    assert_int_equal(feed("$g#67"), GDB_PACKET);
}

static void test_compose(void **state) {
    char frame[GDB_FRAME_MAX + 1];
    text = (struct gdb_text){0};
    gdb_put(&text, "T%02x", 5);
    gdb_put_hex(&text, "\xde\xad", 2);
    size_t n = gdb_frame(&text, frame);
    frame[n] = 0;
    assert_string_equal(frame, "$T05dead#47");
    while (!text.overflow)
        gdb_put_hex(&text, "0123456789", 10);
    assert_true(text.len <= sizeof(text.data)); // what did not fit is not there
    assert_true(gdb_frame(&text, frame) <= GDB_FRAME_MAX);
}

static void test_numbers(void **state) {
    const char *p = "ffffffffffffffff,10000000000000000,x";
    uint64_t v = 0;
    uint8_t bytes[3];
    assert_true(gdb_get_hex(&p, &v));
    assert_true(v == UINT64_MAX);
    assert_true(gdb_get_char(&p, ','));
    assert_false(gdb_get_hex(&p, &v)); // 65 bits
    p = "x";
    assert_false(gdb_get_hex(&p, &v));
    assert_string_equal(p, "x");
    p = "";
    assert_false(gdb_get_char(&p, 0));
    p = "0aFf1";
    assert_true(gdb_get_bytes(&p, bytes, 2));
    assert_memory_equal(bytes, "\x0a\xff", 2);
    assert_string_equal(p, "1");
    assert_false(gdb_get_bytes(&p, bytes, 1));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frame),    cmocka_unit_test(test_single_bytes), cmocka_unit_test(test_escapes),
        cmocka_unit_test(test_too_long), cmocka_unit_test(test_compose),      cmocka_unit_test(test_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
