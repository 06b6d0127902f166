// SPDX-License-Identifier: Apache-2.0
// ACPI tables: checksums, pointers, contents that a guest depends on, AML encodings; and iasl must take them.
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "boot/acpi.h"
#include "boot/aml.h"
#include "boot/le.h"

static struct acpi_config full_config(unsigned cpus) {
    return (struct acpi_config){.cpus = cpus,
                                .ecam_base = 0xe0000000,
                                .buses = 1,
                                .pci32_first = 0xc0000000,
                                .pci32_last = 0xdfffffff,
                                .pci64_first = 0x8000000000,
                                .pci64_last = 0x8fffffffff,
                                .com1 = true,
                                .rtc = true,
                                .i8042 = true,
                                .pvpanic = true,
                                .fw_cfg = true};
}

static uint8_t area[ACPI_AREA_SIZE];

static size_t build(const struct acpi_config *cfg) {
    struct error err = {0};
    size_t size = 0;
    if (acpi_build(cfg, area, &size, &err))
        fail_msg("%s", err.text);
    assert_true(size > 0 && size <= ACPI_AREA_SIZE);
    return size;
}

static uint8_t sum(const uint8_t *p, size_t n) {
    uint8_t s = 0;
    while (n--)
        s = (uint8_t)(s + *p++);
    return s;
}

static const uint8_t *table_at(uint64_t gpa) {
    assert_in_range(gpa, ACPI_AREA_BASE, ACPI_AREA_BASE + ACPI_AREA_SIZE - 36);
    return area + (gpa - ACPI_AREA_BASE);
}

// Looks it up through the XSDT.
static const uint8_t *find_table(const char *signature) {
    const uint8_t *xsdt = table_at(le64_get(area + 24));
    for (size_t i = 36; i < le32_get(xsdt + 4); i += 8) {
        const uint8_t *t = table_at(le64_get(xsdt + i));
        if (memcmp(t, signature, 4) == 0)
            return t;
    }
    return NULL;
}

static const uint8_t *find_dsdt(void) {
    return table_at(le32_get(find_table("FACP") + 40));
}

static void test_pointers_and_checksums(void **state) {
    struct acpi_config cfg = full_config(2);
    build(&cfg);
    assert_memory_equal(area, "RSD PTR ", 8);
    assert_int_equal(sum(area, 20), 0);
    assert_int_equal(sum(area, 36), 0);
    const uint8_t *rsdt = table_at(le32_get(area + 16)), *xsdt = table_at(le64_get(area + 24));
    assert_memory_equal(rsdt, "RSDT", 4);
    assert_memory_equal(xsdt, "XSDT", 4);
    assert_int_equal(le32_get(xsdt + 4), 36 + 3 * 8);
    assert_int_equal(le32_get(rsdt + 4), 36 + 3 * 4);
    assert_int_equal(sum(rsdt, le32_get(rsdt + 4)), 0);
    assert_int_equal(sum(xsdt, le32_get(xsdt + 4)), 0);
    for (unsigned i = 0; i < 3; i++) {
        uint64_t gpa = le64_get(xsdt + 36 + i * 8);
        assert_int_equal(le32_get(rsdt + 36 + i * 4), gpa);
        assert_int_equal(sum(table_at(gpa), le32_get(table_at(gpa) + 4)), 0);
    }
    const uint8_t *dsdt = find_dsdt();
    assert_memory_equal(dsdt, "DSDT", 4);
    assert_int_equal(sum(dsdt, le32_get(dsdt + 4)), 0);
}

static void test_fadt(void **state) {
    struct acpi_config cfg = full_config(1);
    build(&cfg);
    const uint8_t *t = find_table("FACP");
    assert_non_null(t);
    assert_int_equal(le32_get(t + 4), 276);
    const uint8_t *facs = table_at(le32_get(t + 36));
    assert_memory_equal(facs, "FACS", 4);
    assert_int_equal((uintptr_t)(facs - area) % 64, 0);
    assert_int_equal(le16_get(t + 46), 9);
    assert_int_equal(le32_get(t + 48), 0); // SMI_CMD: always in ACPI mode
    assert_int_equal(le32_get(t + 56), 0x600);
    assert_int_equal(le32_get(t + 64), 0x604);
    assert_int_equal(le32_get(t + 76), 0x608);
    assert_int_equal(le32_get(t + 80), 0x620);
    assert_int_equal(le64_get(t + 148 + 4), 0x600);
    assert_int_equal(le64_get(t + 116 + 4), 0xcf9);
    assert_int_equal(t[128], 6);
    assert_int_equal(le16_get(t + 109), 0x7);     // legacy devices, 8042, no VGA
    assert_true(le32_get(t + 112) & (1u << 10));  // reset register
    assert_false(le32_get(t + 112) & (1u << 20)); // not hardware-reduced
    assert_true(le32_get(t + 112) & (1u << 8));   // 32-bit PM timer
    cfg.i8042 = false;
    build(&cfg);
    t = find_table("FACP");
    assert_int_equal(le16_get(t + 109), 0x5);
}

// Counts MADT entries of a type; checks that their lengths add up to the table's.
static unsigned count_madt(unsigned type) {
    const uint8_t *t = find_table("APIC");
    size_t size = le32_get(t + 4), at = 44;
    unsigned n = 0;
    while (at < size) {
        assert_true(t[at + 1] >= 2);
        n += t[at] == type;
        at += t[at + 1];
    }
    assert_int_equal(at, size);
    return n;
}

static void test_madt(void **state) {
    struct acpi_config cfg = full_config(4);
    build(&cfg);
    assert_int_equal(count_madt(0), 4);
    assert_int_equal(count_madt(1), 1);
    assert_int_equal(count_madt(2), 2);
    assert_int_equal(count_madt(4), 1);
    assert_int_equal(count_madt(9), 0);
    const uint8_t *t = find_table("APIC") + 44 + 4 * 8 + 12; // behind LAPICs and I/O APIC: the overrides
    assert_int_equal(t[3], 0);
    assert_int_equal(le32_get(t + 4), 2);
    assert_int_equal(t[10 + 3], 9);
    assert_int_equal(le16_get(t + 10 + 8), 0xd);

    cfg.cpus = 300; // IDs 255..299 need x2APIC entries
    build(&cfg);
    assert_int_equal(count_madt(0), 255);
    assert_int_equal(count_madt(9), 45);
    assert_int_equal(count_madt(10), 1);
}

static void test_mcfg_and_options(void **state) {
    struct acpi_config cfg = full_config(1);
    build(&cfg);
    const uint8_t *t = find_table("MCFG");
    assert_int_equal(le64_get(t + 44), 0xe0000000);
    assert_int_equal(t[55], 0);
    size_t with = le32_get(find_dsdt() + 4);
    cfg = (struct acpi_config){.cpus = 1};
    build(&cfg);
    assert_null(find_table("MCFG"));
    assert_true(le32_get(find_dsdt() + 4) < with);
}

static void test_too_many_cpus(void **state) {
    struct acpi_config cfg = full_config(100000);
    struct error err = {0};
    size_t size;
    assert_int_equal(acpi_build(&cfg, area, &size, &err), -EINVAL);
    assert_non_null(strstr(err.text, "100000 CPUs"));
}

static void test_load(void **state) {
    struct acpi_config cfg = full_config(2);
    struct error err = {0};
    struct mem *mem;
    uint64_t rsdp = 0;
    uint8_t magic[8];
    assert_int_equal(mem_create(&mem, &err), 0);
    assert_int_equal(acpi_load(&cfg, mem, &rsdp, &err), -EFAULT); // no RAM there
    assert_int_equal(mem_add_ram(mem, GPA(0), 1 << 20, "ram", &err), 0);
    assert_int_equal(acpi_load(&cfg, mem, &rsdp, &err), 0);
    assert_int_equal(rsdp, 0xe0000);
    assert_int_equal(mem_read(mem, GPA(rsdp), magic, 8), 0);
    assert_memory_equal(magic, "RSD PTR ", 8);
    mem_destroy(mem);
}

// ---- AML encodings, by ACPI 6.4 chapter 20 ----

static void test_aml_integers(void **state) {
    uint8_t buf[64];
    struct aml a;
    aml_init(&a, buf, sizeof(buf));
    aml_integer(&a, 0);
    aml_integer(&a, 1);
    aml_integer(&a, 0xff);
    aml_integer(&a, 0x100);
    aml_integer(&a, 0x10000);
    aml_integer(&a, 0x100000000);
    static const uint8_t want[] = {0x00, 0x01, 0x0a, 0xff, 0x0b, 0x00, 0x01, 0x0c, 0, 0, 1,
                                   0,    0x0e, 0,    0,    0,    0,    1,    0,    0, 0};
    assert_int_equal(a.len, sizeof(want));
    assert_memory_equal(buf, want, sizeof(want));
}

static void test_aml_eisaid(void **state) {
    uint8_t buf[8];
    struct aml a;
    aml_init(&a, buf, sizeof(buf));
    aml_eisaid(&a, "PNP0A08");
    assert_memory_equal(buf, "\x0c\x41\xd0\x0a\x08", 5);
}

// Package lengths on both sides of each width: the length counts its own bytes.
static void check_length(size_t body, const uint8_t *want, size_t n) {
    static uint8_t buf[1 << 17], fill[1 << 17];
    struct aml a;
    aml_init(&a, buf, sizeof(buf));
    struct aml_mark m = aml_scope(&a, "X");
    assert_int_equal(a.len, 5);
    aml_bytes(&a, fill, body - 4); // the name counts
    aml_end(&a, m);
    assert_false(a.overrun);
    assert_int_equal(a.len, 1 + n + body);
    assert_memory_equal(buf + 1, want, n);
    assert_memory_equal(buf + 1 + n, "X___", 4);
}

static void test_aml_lengths(void **state) {
    check_length(62, (uint8_t[]){0x3f}, 1);
    check_length(63, (uint8_t[]){0x41, 0x04}, 2);            // 65
    check_length(0xffd, (uint8_t[]){0x4f, 0xff}, 2);         // 0xfff
    check_length(0xffe, (uint8_t[]){0x81, 0x00, 0x01}, 3);   // 0x1001
    check_length(0x10000, (uint8_t[]){0x83, 0x00, 0x10}, 3); // 0x10003
}

static void test_aml_overrun(void **state) {
    uint8_t buf[8];
    struct aml a;
    aml_init(&a, buf, sizeof(buf));
    struct aml_mark m = aml_device(&a, "DEV0");
    aml_integer(&a, 0x100);
    assert_true(a.overrun);
    aml_end(&a, m);
    assert_true(a.len <= sizeof(buf));
}

// ---- iasl ----

static void write_table(const char *path, const uint8_t *t) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, t, le32_get(t + 4)), le32_get(t + 4));
    close(fd);
}

static char iasl_log[1 << 20];

static void run(const char *command) {
    FILE *p = popen(command, "r");
    assert_non_null(p);
    size_t n = fread(iasl_log, 1, sizeof(iasl_log) - 1, p);
    iasl_log[n] = 0;
    if (pclose(p) != 0 || strstr(iasl_log, "Error "))
        fail_msg("%s: %s", command, iasl_log);
}

// Disassembles every table and compiles the DSDT again: iasl finds what is wrong in both directions.
static void test_iasl(void **state) {
    struct acpi_config cfg = full_config(3);
    char dir[] = "/tmp/cicada-acpi-XXXXXX", path[64], command[256];
    if (system("iasl -v >/dev/null 2>&1") != 0) {
        print_message("skipped: iasl (package acpica-tools) is not installed\n");
        skip();
    }
    assert_non_null(mkdtemp(dir));
    build(&cfg);
    const uint8_t *tables[] = {find_dsdt(),
                               find_table("FACP"),
                               find_table("APIC"),
                               find_table("MCFG"),
                               table_at(le64_get(area + 24)),
                               table_at(le32_get(find_table("FACP") + 36))};
    for (size_t i = 0; i < ARRAY_LEN(tables); i++) {
        snprintf(path, sizeof(path), "%s/%.4s.dat", dir, (const char *)tables[i]);
        write_table(path, tables[i]);
        snprintf(command, sizeof(command), "iasl -d %s 2>&1", path);
        run(command);
    }
    snprintf(command, sizeof(command), "iasl -vw 3073 %s/DSDT.dsl 2>&1 && cat %s/DSDT.dsl", dir, dir);
    run(command);
    assert_non_null(strstr(iasl_log, "0 Errors"));
    static const char *const want[] = {"Name (_HID, EisaId (\"PNP0A08\")",
                                       "\"QEMU0001\"",
                                       "\"QEMU0002\"",
                                       "EisaId (\"PNP0501\")",
                                       "\"ACPI0007\"",
                                       "0x0000008FFFFFFFFF"};
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        if (!strstr(iasl_log, want[i]))
            fail_msg("DSDT does not say %s", want[i]);
    }
    if (getenv("CICADA_TEST_KEEP"))
        return;
    snprintf(command, sizeof(command), "rm -r %s", dir);
    run(command);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pointers_and_checksums),
        cmocka_unit_test(test_fadt),
        cmocka_unit_test(test_madt),
        cmocka_unit_test(test_mcfg_and_options),
        cmocka_unit_test(test_too_many_cpus),
        cmocka_unit_test(test_load),
        cmocka_unit_test(test_aml_integers),
        cmocka_unit_test(test_aml_eisaid),
        cmocka_unit_test(test_aml_lengths),
        cmocka_unit_test(test_aml_overrun),
        cmocka_unit_test(test_iasl),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
