// SPDX-License-Identifier: Apache-2.0
// Which clusters of a disk are still to be copied: data and holes of an image, the layer over it, and every write of
// the guest, in whole or in part of a cluster, before the device hears that it is done.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <unistd.h>

#include "backend/image_copy.h"
#include "state/block_log.h"
#include "temp.h"

#define CLUSTERS 200u
#define SIZE     ((uint64_t)CLUSTERS * BLOCK_CLUSTER - 512) // the last one is shorter

static char path[TEMP_PATH_MAX];
static struct block_backend *disk;
static struct block_log blocks;
static int device;          // the context of its done
static bool marked_in_time; // when done was called, the log had it

static void done(void *ctx, struct block_req *list) {
    assert_ptr_equal(ctx, &device);
    uint64_t cluster = list->offset / BLOCK_CLUSTER;
    marked_in_time = blocks.written && blocks.written[cluster / 64] >> (cluster % 64) & 1;
}

static void request(enum block_op op, uint64_t offset, uint64_t len) {
    static uint8_t data[3 * BLOCK_CLUSTER];
    memset(data, 0xd5, sizeof(data));
    struct iovec iov = {data, len};
    struct block_req req = {.op = op, .offset = offset, .bytes = len, .iov = &iov, .niov = 1};
    block_submit(disk, &req);
    block_kick(disk);
    assert_int_equal(req.result, 0);
}

// Takes the whole list, which must be this.
static void assert_list(const uint64_t *expected, unsigned count) {
    uint64_t cluster = 0;
    assert_int_equal(block_log_left(&blocks), (uint64_t)count * BLOCK_CLUSTER);
    for (unsigned i = 0; i < count; i++) {
        assert_true(block_log_take(&blocks, cluster, &cluster));
        assert_int_equal(cluster, expected[i]);
    }
    assert_false(block_log_take(&blocks, 0, &cluster));
    assert_int_equal(block_log_left(&blocks), 0);
}
#define LIST(...) assert_list((const uint64_t[]){__VA_ARGS__}, sizeof((const uint64_t[]){__VA_ARGS__}) / 8)

// Data in the clusters 3, 64 and the last one, holes between.
static int setup(void **state) {
    static const uint64_t at[] = {3 * BLOCK_CLUSTER, 64 * BLOCK_CLUSTER + 4096, SIZE - 1};
    struct error err = {0};
    int fd = mkstemp(temp_template(path, "disk"));
    if (fd < 0 || ftruncate(fd, SIZE))
        return -1;
    for (unsigned i = 0; i < 3; i++)
        if (pwrite(fd, "x", 1, (off_t)at[i]) != 1)
            return -1;
    close(fd);
    if (overlay_open(path, &disk, &err) || block_log_create(&blocks, disk))
        return -1;
    disk->done = done;
    disk->done_ctx = &device;
    return 0;
}

static int teardown(void **state) {
    block_log_destroy(&blocks);
    block_destroy(disk);
    unlink(path);
    return 0;
}

static void test_image_and_layer(void **state) {
    block_log_add_all(&blocks, true);
    LIST(3, 64, CLUSTERS - 1);
    request(BLOCK_WRITE, 7 * BLOCK_CLUSTER + 512, 512);
    block_log_add_all(&blocks, false);
    LIST(7);
    block_log_add_all(&blocks, true);
    LIST(3, 7, 64, CLUSTERS - 1);
}

static void test_writes_are_marked(void **state) {
    block_log_listen(&blocks, true);
    request(BLOCK_WRITE, 10 * BLOCK_CLUSTER - 512, 1024);
    assert_true(marked_in_time);
    request(BLOCK_READ, 20 * BLOCK_CLUSTER, 512);
    assert_false(marked_in_time);
    request(BLOCK_FLUSH, 0, 0);
    request(BLOCK_WRITE_ZEROES, 63 * BLOCK_CLUSTER, 2 * BLOCK_CLUSTER);
    assert_true(marked_in_time);
    request(BLOCK_DISCARD, 100 * BLOCK_CLUSTER, 1);
    request(BLOCK_WRITE, SIZE - 512, 512);
    assert_int_equal(block_log_left(&blocks), 0);
    block_log_sync(&blocks);
    LIST(9, 10, 63, 64, 100, CLUSTERS - 1);
    block_log_sync(&blocks); // not twice
    assert_int_equal(block_log_left(&blocks), 0);
    block_log_listen(&blocks, false);
    request(BLOCK_WRITE, 30 * BLOCK_CLUSTER, 512);
    assert_false(marked_in_time);
    block_log_sync(&blocks);
    assert_int_equal(block_log_left(&blocks), 0);
}

static void test_what_is_read(void **state) {
    static uint8_t buf[BLOCK_CLUSTER];
    request(BLOCK_WRITE, 7 * BLOCK_CLUSTER + 512, 512);
    assert_int_equal(block_log_bytes(&blocks, 7), BLOCK_CLUSTER);
    assert_int_equal(block_log_read(&blocks, 7, buf), 0);
    assert_true(buf[511] == 0 && buf[512] == 0xd5 && buf[1023] == 0xd5 && buf[1024] == 0);
    assert_int_equal(block_log_bytes(&blocks, CLUSTERS - 1), BLOCK_CLUSTER - 512);
    assert_int_equal(block_log_read(&blocks, CLUSTERS - 1, buf), 0);
    assert_int_equal(buf[BLOCK_CLUSTER - 513], 'x');
    assert_int_equal(block_log_read(&blocks, 50, buf), 0);
    assert_true(image_is_zero(buf, sizeof(buf)));
    buf[BLOCK_CLUSTER - 1] = 1;
    assert_false(image_is_zero(buf, sizeof(buf)));
}

int main(void) {
#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(test_image_and_layer),
        CASE(test_writes_are_marked),
        CASE(test_what_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
