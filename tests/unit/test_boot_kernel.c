// SPDX-License-Identifier: Apache-2.0
// Boot protocols on a real Debian kernel (CICADA_TEST_KERNEL, or the one that tools/guest/kernel.sh fetched), and
// payload extraction by every format. Skips with its reason where there is no kernel.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <lz4.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include "boot/image.h"
#include "boot/le.h"

#define MIB (1ull << 20)
#define RAM (256 * MIB)

static const char *find_kernel(void) {
    static const char *const paths[] = {".cache/kernel/vmlinuz", "../.cache/kernel/vmlinuz",
                                        "../../.cache/kernel/vmlinuz", "/boot/vmlinuz"};
    const char *env = getenv("CICADA_TEST_KERNEL");
    if (env)
        return env;
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        if (access(paths[i], R_OK) == 0)
            return paths[i];
    }
    return NULL;
}

static const char *need_kernel(void) {
    const char *path = find_kernel();
    if (!path) {
        print_message("skipped: no kernel; run tools/guest/kernel.sh or set CICADA_TEST_KERNEL\n");
        skip();
    }
    return path;
}

static void load_kernel(enum boot_protocol wanted, enum boot_protocol got, struct boot_entry *e, struct mem **mem) {
    struct boot_config cfg = {.kernel = need_kernel(), .cmdline = "console=ttyS0", .protocol = wanted};
    struct boot_machine bm;
    struct boot_image *img = NULL;
    struct error err = {0};
    if (boot_open(&cfg, &img, &err))
        fail_msg("%s", err.text);
    assert_int_equal(boot_image_protocol(img), got);
    assert_int_equal(mem_create(mem, &err), 0);
    assert_int_equal(mem_add_ram(*mem, GPA(0), RAM, "ram", &err), 0);
    boot_machine_init(&bm, RAM, 0, 0, 1, 0);
    if (boot_load(img, *mem, &bm, e, &err))
        fail_msg("%s", err.text);
    boot_close(img);
}

// The entry is code, not a hole.
static void check_entry(struct mem *mem, const struct boot_entry *e) {
    uint64_t code = 0;
    assert_int_equal(mem_read(mem, GPA(e->rip), &code, 8), 0);
    assert_true(code != 0 && code != UINT64_MAX);
    mem_destroy(mem);
}

static void test_kernel_bzimage(void **state) {
    struct boot_entry e;
    struct mem *mem;
    load_kernel(BOOT_AUTO, BOOT_BZIMAGE64, &e, &mem);
    assert_int_equal(e.mode, BOOT_LONG64);
    assert_int_equal(e.rip & 0xfff, 0x200);
    check_entry(mem, &e);
    load_kernel(BOOT_BZIMAGE32, BOOT_BZIMAGE32, &e, &mem);
    assert_int_equal(e.mode, BOOT_PROT32_FLAT);
    check_entry(mem, &e);
}

static void test_kernel_payload(void **state) {
    struct boot_entry e;
    struct mem *mem;
    load_kernel(BOOT_PAYLOAD, BOOT_PVH, &e, &mem);
    assert_int_equal(e.mode, BOOT_PROT32_FLAT);
    check_entry(mem, &e);
    load_kernel(BOOT_PVH, BOOT_PVH, &e, &mem);
    check_entry(mem, &e);
    load_kernel(BOOT_ELF64, BOOT_ELF64, &e, &mem);
    assert_int_equal(e.mode, BOOT_LONG64);
    check_entry(mem, &e);
}

// Cut at every quarter: always a clear error.
static void test_kernel_truncated(void **state) {
    struct boot_blob file = {0};
    struct error err = {0};
    struct boot_config cfg = {.kernel = need_kernel()};
    struct boot_source source;
    assert_int_equal(boot_source_read(&source, cfg.kernel, "kernel", BOOT_KERNEL_MAX, &file, &err), 0);
    boot_source_close(&source);
    for (size_t size = file.size / 4; size < file.size; size += file.size / 4) {
        uint8_t *copy = malloc(size);
        struct boot_image *img = NULL;
        assert_non_null(copy);
        memcpy(copy, file.data, size);
        int ret = boot_open_buffers(&cfg, (struct boot_blob){.data = copy, .size = size}, NULL, 0, &img, &err);
        if (!ret) { // only a signature may be cut off without harm
            assert_true(size > file.size - file.size / 4);
            boot_close(img);
            continue;
        }
        assert_int_equal(ret, -EINVAL);
        assert_non_null(strstr(err.text, "truncated"));
    }
    free((void *)file.data);
}

// ---- payload formats ----

#define PLAIN_SIZE (9u << 20) // more than one lz4 block

static uint8_t *plain;

static int make_plain(void **state) {
    plain = malloc(PLAIN_SIZE);
    if (!plain)
        return -1;
    for (size_t i = 0; i < PLAIN_SIZE; i++)
        plain[i] = (uint8_t)(i * i >> 13 ^ i);
    return 0;
}

static int free_plain(void **state) {
    free(plain);
    return 0;
}

static size_t pack_lz4(uint8_t *out, size_t cap) {
    size_t done = 0, at = 4;
    le32_put(out, 0x184c2102);
    while (done < PLAIN_SIZE) {
        size_t n = PLAIN_SIZE - done < 8 * MIB ? PLAIN_SIZE - done : 8 * MIB;
        int got = LZ4_compress_default((char *)plain + done, (char *)out + at + 4, (int)n, (int)(cap - at - 4));
        assert_true(got > 0);
        le32_put(out + at, (uint32_t)got);
        at += 4 + (size_t)got;
        done += n;
    }
    return at;
}

static size_t pack_xz(uint8_t *out, size_t cap) {
    size_t at = 0;
    assert_int_equal(lzma_easy_buffer_encode(0, LZMA_CHECK_CRC32, NULL, plain, PLAIN_SIZE, out, &at, cap), LZMA_OK);
    return at;
}

static size_t pack_zstd(uint8_t *out, size_t cap) {
    size_t n = ZSTD_compress(out, cap, plain, PLAIN_SIZE, 1);
    assert_false(ZSTD_isError(n));
    return n;
}

static size_t pack_gzip(uint8_t *out, size_t cap) {
    z_stream s = {.next_in = plain, .avail_in = PLAIN_SIZE, .next_out = out, .avail_out = (uInt)cap};
    assert_int_equal(deflateInit2(&s, 1, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&s, Z_FINISH), Z_STREAM_END);
    size_t n = s.total_out;
    deflateEnd(&s);
    return n;
}

static int extract(const uint8_t *packed, size_t size, struct boot_blob *out) {
    struct error err = {0};
    int ret = payload_extract((struct boot_blob){.data = packed, .size = size}, out, &err);
    assert_int_equal(ret, err.code);
    return ret;
}

// Good; then wrong size word, damaged in the middle, cut: each refused.
static void check_format(size_t (*pack)(uint8_t *, size_t), bool size_inside) {
    size_t cap = PLAIN_SIZE + (1 << 20);
    uint8_t *packed = malloc(cap);
    struct boot_blob out = {0};
    assert_non_null(packed);
    size_t size = pack(packed, cap - 4);
    if (!size_inside) {
        le32_put(packed + size, PLAIN_SIZE);
        size += 4;
    }
    assert_int_equal(extract(packed, size, &out), 0);
    assert_int_equal(out.size, PLAIN_SIZE);
    assert_memory_equal(out.data, plain, PLAIN_SIZE);
    free((void *)out.data);

    static const uint32_t sizes[] = {0, 1, PLAIN_SIZE - 1, PLAIN_SIZE + 1, UINT32_MAX};
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        le32_put(packed + size - 4, sizes[i]);
        assert_int_equal(extract(packed, size, &out), -EINVAL);
    }
    le32_put(packed + size - 4, PLAIN_SIZE);
    assert_int_equal(extract(packed, size / 2, &out), -EINVAL);
    memset(packed + size / 2, 0xff, 64);
    assert_int_equal(extract(packed, size, &out), -EINVAL);
    free(packed);
}

static void test_payload_lz4(void **state) {
    check_format(pack_lz4, false);
}
static void test_payload_xz(void **state) {
    check_format(pack_xz, false);
}
static void test_payload_zstd(void **state) {
    check_format(pack_zstd, false);
}
static void test_payload_gzip(void **state) {
    check_format(pack_gzip, true);
}

static void test_payload_unknown(void **state) {
    struct boot_blob out;
    assert_int_equal(extract((const uint8_t *)"BZh91AY&SY...", 12, &out), -EINVAL);
    assert_int_equal(extract((const uint8_t *)"????????????", 12, &out), -EINVAL);
    assert_int_equal(extract((const uint8_t *)"\x02\x21\x4c\x18", 4, &out), -EINVAL);
    assert_int_equal(extract((const uint8_t *)"", 0, &out), -EINVAL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_payload_lz4),     cmocka_unit_test(test_payload_xz),
        cmocka_unit_test(test_payload_zstd),    cmocka_unit_test(test_payload_gzip),
        cmocka_unit_test(test_payload_unknown), cmocka_unit_test(test_kernel_bzimage),
        cmocka_unit_test(test_kernel_payload),  cmocka_unit_test(test_kernel_truncated),
    };
    return cmocka_run_group_tests(tests, make_plain, free_plain);
}
