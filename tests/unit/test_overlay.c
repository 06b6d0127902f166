// SPDX-License-Identifier: Apache-2.0
// A layer over a disk image: reads see what was written, else the base; the base stays as it is; a copy has both.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <stdio.h>
#include <unistd.h>

#include "backend/image_copy.h"
#include "temp.h"

#define SIZE (200u * 1024) // three clusters of 64 KiB and a part of one

static char base_path[TEMP_PATH_MAX];
static uint8_t expected[SIZE], buf[SIZE];
static struct block_backend *disk;
static unsigned finished;
static int last;

static void done(void *ctx, struct block_req *list) {
    for (; list; list = list->next) {
        finished++;
        last = list->result;
    }
}

static int request(enum block_op op, uint64_t offset, void *data, size_t len) {
    struct iovec iov[2] = {{data, len / 3}, {(uint8_t *)data + len / 3, len - len / 3}};
    struct block_req req = {.op = op, .offset = offset, .bytes = len, .iov = iov, .niov = data ? 2 : 0};
    finished = 0;
    last = -1;
    block_submit(disk, &req);
    block_kick(disk);
    assert_int_equal(finished, 1);
    return last;
}

static void check_all(void) {
    memset(buf, 0xee, SIZE);
    assert_int_equal(request(BLOCK_READ, 0, buf, SIZE), 0);
    assert_memory_equal(buf, expected, SIZE);
}

static void test_reads_and_writes(void **state) {
    static const struct {
        uint32_t at, len;
    } writes[] = {{512, 512},        {65536 - 512, 1024}, {0, SIZE},
                  {SIZE - 512, 512}, {131072, 65536},     {3 * 65536, SIZE - 3 * 65536}};
    check_all();
    for (unsigned i = 0; i < sizeof(writes) / sizeof(writes[0]); i++) {
        for (uint32_t k = 0; k < writes[i].len; k++)
            expected[writes[i].at + k] = (uint8_t)(i * 37 + k * 11 + 1);
        memcpy(buf, expected + writes[i].at, writes[i].len);
        assert_int_equal(request(BLOCK_WRITE, writes[i].at, buf, writes[i].len), 0);
        check_all();
    }
    memset(expected + 1024, 0, 100 * 1024);
    assert_int_equal(request(BLOCK_WRITE_ZEROES, 1024, NULL, 100 * 1024), 0);
    check_all();
    assert_int_equal(request(BLOCK_FLUSH, 0, NULL, 0), 0);
    assert_int_equal(request(BLOCK_DISCARD, 0, NULL, 4096), 0);
    check_all();
}

static void test_the_copy_is_flat(void **state) {
    FILE *f = tmpfile();
    assert_non_null(f);
    block_drain(disk);
    assert_int_equal(block_copy_to(disk, fileno(f)), 0);
    assert_int_equal(pread(fileno(f), buf, SIZE, 0), SIZE);
    assert_memory_equal(buf, expected, SIZE);
    fclose(f);
}

static void test_the_base_is_as_it_was(void **state) {
    FILE *f = fopen(base_path, "rb");
    assert_non_null(f);
    assert_int_equal(fread(buf, 1, SIZE, f), SIZE);
    fclose(f);
    for (unsigned i = 0; i < SIZE; i++)
        assert_int_equal(buf[i], (uint8_t)(i % 251));
}

static void test_a_writer_is_kept_out(void **state) {
    struct block_backend *other;
    struct error err = {0};
    assert_int_equal(raw_open(base_path, &(struct raw_options){.no_uring = true}, NULL, &other, &err), -16); // EBUSY
    assert_int_equal(overlay_open(base_path, &other, &err), 0); // a second layer is welcome
    block_destroy(other);
    assert_true(overlay_open("/tmp", &other, &err) < 0);
    assert_true(overlay_open("/nowhere", &other, &err) < 0);
}

static int setup(void **state) {
    struct error err = {0};
    int fd = mkstemp(temp_template(base_path, "base"));
    for (unsigned i = 0; i < SIZE; i++)
        expected[i] = (uint8_t)(i % 251);
    if (fd < 0 || write(fd, expected, SIZE) != SIZE)
        return -1;
    close(fd);
    if (overlay_open(base_path, &disk, &err))
        return -1;
    disk->done = done;
    return 0;
}

static int teardown(void **state) {
    block_destroy(disk);
    return unlink(base_path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_and_writes),
        cmocka_unit_test(test_the_copy_is_flat),
        cmocka_unit_test(test_the_base_is_as_it_was),
        cmocka_unit_test(test_a_writer_is_kept_out),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
