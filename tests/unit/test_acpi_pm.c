// SPDX-License-Identifier: Apache-2.0
// ACPI fixed hardware: power button, S5, PM timer, GPE, reset register, state.
#include "dev/acpi_pm.h"
#include "dev_harness.h"

struct fixture {
    struct harness *h;
    struct acpi_pm *pm;
};

static int setup(void **state) {
    struct fixture *f = calloc(1, sizeof(*f));
    struct error err = {0};

    f->h = harness_create(1);
    f->h->machine.no_reboot = true; // a reset request ends the machine: visible here
    assert_int_equal(acpi_pm_create(&f->h->env, &f->pm, &err), 0);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    struct fixture *f = *state;

    harness_destroy(f->h);
    free(f);
    return 0;
}

static int end(struct fixture *f) {
    return atomic_load(&f->h->machine.end);
}

static void test_power_button(void **state) {
    struct fixture *f = *state;

    acpi_pm_power_button(f->pm);
    assert_false(f->h->gsi[9]);
    outd(f->h, 0x602, 2, 0x100);
    assert_true(f->h->gsi[9]);
    assert_int_equal(ind(f->h, 0x600, 4), 0x01000100);
    outb(f->h, 0x600, 0xff); // the other byte
    assert_true(f->h->gsi[9]);
    outd(f->h, 0x600, 2, 0x100);
    assert_false(f->h->gsi[9]);
}

static void test_control(void **state) {
    struct fixture *f = *state;

    assert_int_equal(ind(f->h, 0x604, 2), 1); // always in ACPI mode
    outd(f->h, 0x604, 2, 0x0000);
    assert_int_equal(ind(f->h, 0x604, 2), 1);
    outd(f->h, 0x604, 2, 3 << 10 | 1 << 13); // S3 is not supported
    assert_int_equal(end(f), MACHINE_RUNNING);
    outd(f->h, 0x604, 2, 5 << 10);
    assert_int_equal(ind(f->h, 0x604, 2), 5 << 10 | 1);
    assert_int_equal(end(f), MACHINE_RUNNING);
    outb(f->h, 0x605, 5 << 2 | 1 << 5); // by bytes
    assert_int_equal(end(f), MACHINE_POWEROFF);
}

static void test_pm_timer(void **state) {
    struct fixture *f = *state;
    uint32_t first = ind(f->h, 0x608, 4);

    harness_advance(f->h, UINT64_C(1000000000));
    assert_in_range(ind(f->h, 0x608, 4) - first, 3579544, 3579546);
    assert_int_equal(ind(f->h, 0x609, 1), ind(f->h, 0x608, 4) >> 8 & 0xff);
    outd(f->h, 0x602, 2, 1);
    harness_advance(f->h, UINT64_C(599) * 1000000000); // 2^31 ticks take just under 600 s
    assert_true(f->h->gsi[9]);
    outd(f->h, 0x600, 2, 1);
    assert_false(f->h->gsi[9]);
    harness_advance(f->h, UINT64_C(600) * 1000000000);
    assert_true(f->h->gsi[9]);
}

static void test_gpe(void **state) {
    struct fixture *f = *state;

    outd(f->h, 0x622, 2, 0x0208);
    acpi_pm_raise_gpe(f->pm, 9);
    assert_true(f->h->gsi[9]);
    assert_int_equal(ind(f->h, 0x620, 4), 0x02080200);
    outb(f->h, 0x621, 0x02);
    assert_false(f->h->gsi[9]);
    acpi_pm_raise_gpe(f->pm, 99);
    assert_int_equal(ind(f->h, 0x620, 2), 0);
}

static void test_reset_register(void **state) {
    struct fixture *f = *state;

    outb(f->h, 0xcf9, 0x02);
    assert_int_equal(inb(f->h, 0xcf9), 0x02);
    assert_int_equal(end(f), MACHINE_RUNNING);
    outb(f->h, 0xcf9, 0x06);
    assert_int_equal(end(f), MACHINE_RESET);
}

static void test_save_load(void **state) {
    struct fixture *f = *state;
    struct state_writer w;

    outd(f->h, 0x602, 2, 0x100);
    acpi_pm_power_button(f->pm);
    harness_save(f->h, "acpi_pm", &w);
    harness_reset(f->h);
    assert_false(f->h->gsi[9]);
    assert_int_equal(ind(f->h, 0x600, 4), 0);
    harness_load(f->h, "acpi_pm", &w);
    assert_int_equal(ind(f->h, 0x600, 4), 0x01000100);
    outd(f->h, 0x600, 2, 0x100);
    assert_int_equal(ind(f->h, 0x600, 4), 0x01000000);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_power_button), TEST(test_control),        TEST(test_pm_timer),
        TEST(test_gpe),          TEST(test_reset_register), TEST(test_save_load),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
