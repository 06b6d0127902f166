// SPDX-License-Identifier: Apache-2.0
// The symbol table of a kernel in guest memory: built here in both layouts, found, and looked into; then damaged.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "debug/kallsyms.h"

#define RAM     (4u << 20)
#define AT      0x201000u // guest address of the tables
#define SYMBOLS 700       // three markers
#define BASE    0xffffffff9a000000ull
#define PERCPU  3 // symbols with addresses of their own
#define STEP    0x40

enum layout { OLD, OLD_WITH_SEQS, NEW, LAYOUTS };

struct image {
    uint8_t bytes[256 << 10];
    size_t len;
};

static void put(struct image *m, const void *p, size_t n) {
    memcpy(m->bytes + m->len, p, n);
    m->len += n;
}
static void pad(struct image *m) {
    m->len = (m->len + 7) & ~(size_t)7;
}
static void put32(struct image *m, uint32_t v) {
    put(m, &v, 4);
}

// "Tname_000": a type, the token 1 for "func_", and digits, which stand for themselves.
static void put_names(struct image *m, uint32_t *markers) {
    size_t start = m->len;
    for (unsigned i = 0; i < SYMBOLS; i++) {
        uint8_t name[6] = {5, 'T', 1, (uint8_t)('0' + i / 100), (uint8_t)('0' + i / 10 % 10), (uint8_t)('0' + i % 10)};
        if (i % 256 == 0)
            markers[i / 256] = (uint32_t)(m->len - start);
        put(m, name, sizeof(name));
    }
    pad(m);
}

static void put_tokens(struct image *m) {
    uint16_t index[256];
    size_t start = m->len;
    for (unsigned i = 0; i < 256; i++) {
        const char self[2] = {(char)i, 0};
        const char *text = i == 1 ? "func_" : i > ' ' && i < 127 ? self : "";
        index[i] = (uint16_t)(m->len - start);
        put(m, text, strlen(text) + 1);
    }
    pad(m);
    put(m, index, sizeof(index));
    pad(m);
}

static void put_offsets(struct image *m) {
    const uint64_t base = BASE;
    for (unsigned i = 0; i < SYMBOLS; i++)
        put32(m, i < PERCPU ? i * 8 : (uint32_t)(-1 - (int32_t)((i - PERCPU) * STEP)));
    pad(m);
    put(m, &base, 8);
}

static void put_seqs(struct image *m) {
    for (unsigned i = 0; i < SYMBOLS; i++)
        put(m, (const uint8_t[3]){0, (uint8_t)(i >> 8), (uint8_t)i}, 3);
    pad(m);
}

static void build(struct image *m, enum layout layout) {
    uint32_t markers[(SYMBOLS + 255) / 256];
    *m = (struct image){.len = 0};
    if (layout != NEW)
        put_offsets(m);
    put32(m, SYMBOLS);
    pad(m);
    put_names(m, markers);
    put(m, markers, sizeof(markers));
    pad(m);
    if (layout == OLD_WITH_SEQS)
        put_seqs(m);
    put_tokens(m);
    if (layout == NEW)
        put_offsets(m);
}

static struct mem *guest(const struct image *m) {
    struct error err = {0};
    struct mem *mem = NULL;
    assert_int_equal(mem_create(&mem, &err), 0);
    assert_int_equal(mem_add_ram(mem, GPA(0), RAM, "ram", &err), 0);
    assert_int_equal(mem_write(mem, GPA(AT), m->bytes, m->len), 0);
    return mem;
}

static void assert_name(const struct kallsyms *k, uint64_t addr, const char *want) {
    char name[KALLSYMS_NAME_MAX];
    assert_true(kallsyms_name(k, addr, name));
    assert_string_equal(name, want);
}

static void test_layouts(void **state) {
    static struct image m;
    char name[KALLSYMS_NAME_MAX];
    for (enum layout l = OLD; l < LAYOUTS; l++) {
        struct kallsyms *k = NULL;
        build(&m, l);
        struct mem *mem = guest(&m);
        assert_int_equal(kallsyms_open(mem, &k), 0);
        assert_name(k, BASE, "func_003");
        assert_name(k, BASE + STEP - 1, "func_003");
        assert_name(k, BASE + STEP, "func_004");
        assert_name(k, BASE + (512 - PERCPU) * STEP + 5, "func_512"); // first of the last marker
        assert_name(k, BASE + (699 - PERCPU) * STEP, "func_699");
        assert_false(kallsyms_name(k, BASE - 1, name));
        assert_false(kallsyms_name(k, BASE + (700 - PERCPU) * STEP, name)); // behind the last symbol
        assert_false(kallsyms_name(k, 8, name));
        kallsyms_close(k);
        mem_destroy(mem);
    }
}

static void test_none(void **state) {
    static const struct image nothing;
    struct kallsyms *k = NULL;
    struct mem *mem = guest(&nothing);
    assert_int_equal(kallsyms_open(mem, &k), -ENOENT);
    mem_destroy(mem);
    kallsyms_close(NULL);
}

// Whatever is wrong in the tables: no access outside of them (the sanitizers watch), and an end.
static void test_damaged(void **state) {
    static struct image good, bad;
    char name[KALLSYMS_NAME_MAX];
    unsigned found = 0;
    srand(7);
    build(&good, OLD_WITH_SEQS);
    struct mem *mem = guest(&good);
    for (unsigned round = 0; round < 400; round++) {
        struct kallsyms *k = NULL;
        bad = good;
        for (unsigned i = 0; i < 4; i++)
            bad.bytes[(size_t)rand() % bad.len] = (uint8_t)rand();
        assert_int_equal(mem_write(mem, GPA(AT), bad.bytes, bad.len), 0);
        if (kallsyms_open(mem, &k) == 0) {
            found++;
            for (unsigned i = 0; i < SYMBOLS; i++)
                if (kallsyms_name(k, BASE + i * STEP, name))
                    assert_true(strlen(name) < KALLSYMS_NAME_MAX);
        }
        kallsyms_close(k);
    }
    assert_true(found > 50); // most damage is to single names
    mem_destroy(mem);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layouts),
        cmocka_unit_test(test_none),
        cmocka_unit_test(test_damaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
