// SPDX-License-Identifier: Apache-2.0
// The small chips: fw_cfg, keyboard controller, port 92h, pvpanic, debug exit; and dev_attach.
#include <errno.h>
#include <stdio.h>

#include "dev/debug_exit.h"
#include "dev/fw_cfg.h"
#include "dev/i8042.h"
#include "dev/port92.h"
#include "dev/pvpanic.h"
#include "dev_harness.h"

static int setup(void **state) {
    struct harness *h = harness_create(1);

    h->machine.no_reboot = true; // a reset request ends the machine: visible here
    *state = h;
    return 0;
}

static int teardown(void **state) {
    harness_destroy(*state);
    return 0;
}

static int end(struct harness *h) {
    return atomic_load(&h->machine.end);
}

static void fw_read(struct harness *h, uint16_t key, void *buf, size_t n) {
    outd(h, 0x510, 2, key);
    for (size_t i = 0; i < n; i++)
        ((uint8_t *)buf)[i] = inb(h, 0x511);
}

static void test_fw_cfg_standard(void **state) {
    struct harness *h = *state;
    struct fw_cfg *f;
    struct error err = {0};
    uint8_t buf[16];

    assert_int_equal(fw_cfg_create(&h->env, 0x123456789, 3, 260, &f, &err), 0);
    fw_read(h, 0x00, buf, 6);
    assert_memory_equal(buf, "QEMU\0\0", 6); // zero past the end
    fw_read(h, 0x01, buf, 4);
    assert_memory_equal(buf, "\1\0\0\0", 4);
    fw_read(h, 0x03, buf, 8);
    assert_memory_equal(buf, "\x89\x67\x45\x23\x01\0\0\0", 8);
    fw_read(h, 0x05, buf, 2);
    assert_memory_equal(buf, "\3\0", 2);
    fw_read(h, 0x0f, buf, 2);
    assert_memory_equal(buf, "\4\1", 2);
    fw_read(h, 0x7777, buf, 2);
    assert_memory_equal(buf, "\0\0", 2);
    fw_read(h, 0xffff, buf, 2);
    assert_memory_equal(buf, "\0\0", 2);
}

static void test_fw_cfg_files(void **state) {
    struct harness *h = *state;
    struct fw_cfg *f;
    struct error err = {0};
    char name[80];
    uint8_t dir[4 + 64], buf[8];

    assert_int_equal(fw_cfg_create(&h->env, 1 << 20, 1, 1, &f, &err), 0);
    assert_int_equal(fw_cfg_add_bytes(f, FW_CFG_SIGNATURE, "x", 1), -EEXIST);
    assert_int_equal(fw_cfg_add_bytes(f, FW_CFG_FILE_DIR, "x", 1), -EINVAL);
    assert_int_equal(fw_cfg_add_bytes(f, 0x4000, "x", 1), -EINVAL);
    assert_int_equal(fw_cfg_add_file(f, "etc/some", "content", 7), 0);
    assert_int_equal(fw_cfg_add_file(f, "etc/some", "content", 7), -EEXIST);
    assert_int_equal(fw_cfg_add_file(f, "", "", 0), -EINVAL);
    memset(name, 'n', sizeof(name));
    name[56] = 0;
    assert_int_equal(fw_cfg_add_file(f, name, "", 0), -EINVAL);
    fw_read(h, 0x19, dir, sizeof(dir));
    assert_memory_equal(dir, "\0\0\0\1\0\0\0\7\0\x20\0\0etc/some", 20);
    fw_read(h, 0x20, buf, 8);
    assert_memory_equal(buf, "content\0", 8);
    for (int i = 1; i < 96; i++) {
        snprintf(name, sizeof(name), "f%d", i);
        assert_int_equal(fw_cfg_add_file(f, name, "", 0), 0);
    }
    assert_int_equal(fw_cfg_add_file(f, "one too many", "", 0), -ENOSPC);
}

static void test_fw_cfg_save_load(void **state) {
    struct harness *h = *state;
    struct fw_cfg *f;
    struct error err = {0};
    struct state_writer w;
    uint8_t buf[2];

    assert_int_equal(fw_cfg_create(&h->env, 1 << 20, 1, 1, &f, &err), 0);
    fw_read(h, 0x00, buf, 2);
    harness_save(h, "fw_cfg", &w);
    harness_reset(h);
    harness_load(h, "fw_cfg", &w);
    assert_int_equal(inb(h, 0x511), 'M');
}

static void test_i8042_probe(void **state) {
    struct harness *h = *state;
    struct i8042 *k;
    struct error err = {0};

    assert_int_equal(i8042_create(&h->env, &k, &err), 0);
    assert_int_equal(inb(h, 0x64) & 0x43, 0);
    outb(h, 0x64, 0xaa);
    assert_int_equal(inb(h, 0x64) & 1, 1);
    assert_int_equal(inb(h, 0x60), 0x55);
    assert_int_equal(inb(h, 0x64) & 1, 0);
    outb(h, 0x64, 0x60); // configuration: interrupt on, try to switch the auxiliary port on
    outb(h, 0x60, 0x01);
    outb(h, 0x64, 0x20);
    assert_true(h->gsi[1]);
    assert_int_equal(inb(h, 0x60), 0x21);
    assert_false(h->gsi[1]);
    outb(h, 0x60, 0xf2); // identify: nobody there
    assert_int_equal(inb(h, 0x64) & 0x41, 0x41);
    assert_int_equal(inb(h, 0x60), 0xfe);
    outb(h, 0x64, 0xd3);
    outb(h, 0x60, 0x5a);
    assert_int_equal(inb(h, 0x64) & 0x21, 0x01); // came back without the auxiliary flag
    assert_int_equal(inb(h, 0x60), 0x5a);
    outb(h, 0x64, 0xd1);
    outb(h, 0x60, 0xdf); // A20 on, no reset
    outb(h, 0x64, 0xd0);
    assert_int_equal(inb(h, 0x60) & 3, 3);
    outb(h, 0x64, 0xff); // pulse of nothing
    assert_int_equal(end(h), MACHINE_RUNNING);
    outb(h, 0x64, 0xfe);
    assert_int_equal(end(h), MACHINE_RESET);
}

static void test_i8042_save_load(void **state) {
    struct harness *h = *state;
    struct i8042 *k;
    struct error err = {0};
    struct state_writer w;

    assert_int_equal(i8042_create(&h->env, &k, &err), 0);
    outb(h, 0x64, 0xaa);
    harness_save(h, "i8042", &w);
    harness_reset(h);
    assert_int_equal(inb(h, 0x64) & 1, 0);
    harness_load(h, "i8042", &w);
    assert_int_equal(inb(h, 0x60), 0x55);
    outb(h, 0x64, 0xd1);
    outb(h, 0x60, 0x02); // reset line low
    assert_int_equal(end(h), MACHINE_RESET);
}

static void test_port92(void **state) {
    struct harness *h = *state;
    struct error err = {0};
    struct state_writer w;

    assert_int_equal(port92_create(&h->env, &err), 0);
    assert_int_equal(inb(h, 0x92), 0x02);
    outb(h, 0x92, 0x00);
    harness_save(h, "port92", &w);
    harness_reset(h);
    assert_int_equal(inb(h, 0x92), 0x02);
    harness_load(h, "port92", &w);
    assert_int_equal(inb(h, 0x92), 0x00);
    assert_int_equal(end(h), MACHINE_RUNNING);
    outb(h, 0x92, 0x01);
    assert_int_equal(end(h), MACHINE_RESET);
}

static void test_pvpanic(void **state) {
    struct harness *h = *state;
    struct error err = {0};

    assert_int_equal(pvpanic_create(&h->env, &err), 0);
    assert_int_equal(inb(h, 0x505), 3);
    outb(h, 0x505, 2);
    outb(h, 0x505, 4);
    assert_int_equal(end(h), MACHINE_RUNNING);
    outb(h, 0x505, 1);
    assert_int_equal(end(h), MACHINE_CRASH);
}

static void test_debug_exit(void **state) {
    struct harness *h = *state;
    struct error err = {0};

    assert_int_equal(debug_exit_create(&h->env, &err), 0);
    outd(h, 0xf4, 4, 0x10005);
    assert_int_equal(end(h), MACHINE_DEBUG_EXIT);
    outb(h, 0xf4, 7); // the first wins
    assert_int_equal(h->machine.debug_exit, 0x10005);
}

static void test_attach_unwinds(void **state) {
    struct harness *h = *state;
    static const struct bus_ops none;
    static const struct component_ops component = {.name = "thing"};
    const struct dev_range ranges[] = {{h->env.pio, 0x100, 4, &none}, {h->env.pio, 0x102, 4, &none}};
    struct error err = {0};

    assert_int_equal(dev_attach(&h->env, &component, h, 0, ranges, 2, &err), -EEXIST);
    assert_non_null(strstr(err.text, "thing"));
    assert_int_equal(bus_map(h->env.pio, 0x100, 8, &none, h), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_fw_cfg_standard), TEST(test_fw_cfg_files),    TEST(test_fw_cfg_save_load),
        TEST(test_i8042_probe),     TEST(test_i8042_save_load), TEST(test_port92),
        TEST(test_pvpanic),         TEST(test_debug_exit),      TEST(test_attach_unwinds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
