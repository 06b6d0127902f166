// SPDX-License-Identifier: Apache-2.0
// The raw backend, both over io_uring and over its thread: what it refuses, what it locks, what it stores.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/block.h"

#define SIZE (4u << 20)

struct fixture {
    char dir[32], path[64];
    struct event_loop *loop;
    struct block_backend *b;
    unsigned done, failed;
};

static void on_done(void *ctx, struct block_req *list) {
    struct fixture *f = ctx;
    for (; list; list = list->next) {
        __atomic_add_fetch(&f->done, 1, __ATOMIC_SEQ_CST);
        f->failed += list->result != 0;
    }
}

static void make_file(const char *path, off_t size) {
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, size), 0);
    close(fd);
}

static int setup(void **state) {
    struct fixture *f = calloc(1, sizeof(*f));
    struct error err;
    strcpy(f->dir, "/tmp/cicada-raw-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->path, sizeof(f->path), "%s/disk", f->dir);
    make_file(f->path, SIZE);
    assert_int_equal(event_loop_create(&f->loop, &err), 0);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    struct fixture *f = *state;
    block_destroy(f->b);
    event_loop_destroy(f->loop);
    unlink(f->path);
    rmdir(f->dir);
    free(f);
    return 0;
}

static void open_disk(struct fixture *f, bool no_uring) {
    struct error err = {0};
    const struct raw_options opt = {.no_uring = no_uring};
    assert_int_equal(raw_open(f->path, &opt, f->loop, &f->b, &err), 0);
    assert_int_equal(err.code, 0);
    assert_int_equal(f->b->size, SIZE);
    f->b->done = on_done;
    f->b->done_ctx = f;
}

static void assert_refused(struct fixture *f, const char *path, bool read_only, int code, const char *word) {
    struct error err = {0};
    struct block_backend *b = NULL;
    const struct raw_options opt = {.read_only = read_only};
    assert_int_equal(raw_open(path, &opt, f->loop, &b, &err), code);
    assert_int_equal(err.code, code);
    assert_non_null(strstr(err.text, path));
    assert_non_null(strstr(err.text, word));
}

static void test_refusals(void **state) {
    struct fixture *f = *state;
    char path[96];
    assert_refused(f, "/nonexistent/x.img", false, -ENOENT, "No such file");
    assert_refused(f, f->dir, false, -EISDIR, "s a directory");
    assert_refused(f, f->dir, true, -EISDIR, "s a directory");
    assert_refused(f, "/dev/null", false, -EINVAL, "neither a file nor a block device");
    snprintf(path, sizeof(path), "%s/odd", f->dir);
    make_file(path, 0);
    assert_refused(f, path, false, -EINVAL, "is empty");
    make_file(path, 513);
    assert_refused(f, path, false, -EINVAL, "not a multiple of 512");
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0); // nobody on the other end: must not wait
    assert_refused(f, path, true, -EINVAL, "neither a file");
    unlink(path);
}

static void test_lock(void **state) {
    struct fixture *f = *state;
    struct error err;
    struct block_backend *second;
    const struct raw_options ro = {.read_only = true};
    open_disk(f, false);
    assert_refused(f, f->path, false, -EBUSY, "already in use by another VM");
    assert_refused(f, f->path, true, -EBUSY, "already in use by another VM");
    block_destroy(f->b);
    assert_int_equal(raw_open(f->path, &ro, f->loop, &f->b, &err), 0);
    assert_true(f->b->read_only);
    assert_int_equal(raw_open(f->path, &ro, f->loop, &second, &err), 0); // readers share
    assert_refused(f, f->path, false, -EBUSY, "already in use");
    block_destroy(second);
}

static void run(struct fixture *f, struct block_req *req) {
    unsigned before = f->done;
    block_submit(f->b, req);
    block_kick(f->b);
    block_drain(f->b);
    assert_int_equal(f->done, before + 1);
}

static void data_cycle(struct fixture *f) {
    uint8_t out[12288], in[12288];
    for (unsigned i = 0; i < sizeof(out); i++)
        out[i] = (uint8_t)(i * 7 + 1);
    struct iovec wv[3] = {{out, 1000}, {out + 1000, 3096}, {out + 4096, 8192}};
    struct iovec rv[2] = {{in, 5000}, {in + 5000, 7288}};
    struct block_req w = {.op = BLOCK_WRITE, .offset = 8192, .bytes = sizeof(out), .iov = wv, .niov = 3};
    struct block_req r = {.op = BLOCK_READ, .offset = 8192, .bytes = sizeof(in), .iov = rv, .niov = 2};
    run(f, &w);
    run(f, &r);
    assert_memory_equal(in, out, sizeof(out));
    struct block_req flush = {.op = BLOCK_FLUSH};
    run(f, &flush);
    for (unsigned unmap = 0; unmap < 2; unmap++) {
        struct block_req z = {.op = BLOCK_WRITE_ZEROES, .offset = 8192, .bytes = 4096, .may_unmap = unmap};
        run(f, &z);
    }
    struct block_req d = {.op = BLOCK_DISCARD, .offset = 8192 + 8192, .bytes = 4096};
    run(f, &d);
    rv[0] = (struct iovec){in, sizeof(in)};
    r = (struct block_req){.op = BLOCK_READ, .offset = 8192, .bytes = sizeof(in), .iov = rv, .niov = 1};
    run(f, &r);
    for (unsigned i = 0; i < sizeof(in); i++)
        assert_int_equal(in[i], i < 4096 || i >= 8192 ? 0 : out[i]);
    assert_int_equal(f->failed, 0);
}

static void test_data_uring(void **state) {
    open_disk(*state, false);
    data_cycle(*state);
}

static void test_data_thread(void **state) {
    open_disk(*state, true);
    assert_string_equal(((struct fixture *)*state)->b->ops->name, "raw-thread");
    data_cycle(*state);
}

static void many(struct fixture *f) {
    enum { N = 600 };
    static uint8_t buf[N][512];
    static struct iovec iov[N];
    static struct block_req req[N], discard[N]; // which are never done at once, as writes are
    for (unsigned i = 0; i < N; i++) {
        memset(buf[i], (int)i, 512);
        iov[i] = (struct iovec){buf[i], 512};
        req[i] = (struct block_req){.op = BLOCK_WRITE, .offset = i * 512, .bytes = 512, .iov = &iov[i], .niov = 1};
        block_submit(f->b, &req[i]);
        discard[i] = (struct block_req){.op = BLOCK_DISCARD, .offset = SIZE / 2 + i * 512, .bytes = 512};
        block_submit(f->b, &discard[i]);
    }
    block_kick(f->b);
    block_drain(f->b);
    assert_int_equal(f->done, 2 * N);
    assert_int_equal(f->failed, 0);
    uint8_t got[512];
    int fd = open(f->path, O_RDONLY);
    assert_int_equal(pread(fd, got, 512, 599 * 512), 512);
    assert_memory_equal(got, buf[599], 512);
    close(fd);
}

// More than the ring holds.
static void test_many_uring(void **state) {
    open_disk(*state, false);
    many(*state);
}

static void test_many_thread(void **state) {
    open_disk(*state, true);
    many(*state);
}

// A file that was cut after opening: an error for the request, nothing else.
static void truncated(struct fixture *f) {
    uint8_t buf[1024];
    struct iovec iov = {buf, sizeof(buf)};
    struct block_req r = {.op = BLOCK_READ, .offset = 8192, .bytes = sizeof(buf), .iov = &iov, .niov = 1};
    assert_int_equal(truncate(f->path, 8704), 0);
    run(f, &r);
    assert_int_equal(r.result, -EIO);
}

static void test_truncated_uring(void **state) {
    open_disk(*state, false);
    truncated(*state);
}

static void test_truncated_thread(void **state) {
    open_disk(*state, true);
    truncated(*state);
}

// What the page cache takes is done when kick returns, on the thread that kicks: nobody else runs here.
static void at_once(struct fixture *f) {
    static uint8_t out[4096], in[4096];
    struct iovec w = {out, sizeof(out)}, r = {in, sizeof(in)};
    struct block_req write = {.op = BLOCK_WRITE, .offset = 4096, .bytes = sizeof(out), .iov = &w, .niov = 1};
    struct block_req read = {.op = BLOCK_READ, .offset = 4096, .bytes = sizeof(in), .iov = &r, .niov = 1};
    memset(out, 0x5a, sizeof(out));
    block_submit(f->b, &write);
    assert_int_equal(f->done, 0); // never from submit
    block_kick(f->b);
    assert_int_equal(f->done, 1);
    block_submit(f->b, &read);
    block_kick(f->b);
    block_drain(f->b); // a file system may not know whether a read waits
    assert_int_equal(f->done, 2);
    assert_int_equal(f->failed, 0);
    assert_memory_equal(in, out, sizeof(in));
}

static void test_at_once_uring(void **state) {
    open_disk(*state, false);
    at_once(*state);
}

static void test_at_once_thread(void **state) {
    open_disk(*state, true);
    at_once(*state);
}

// A long write goes to another thread, and its bytes arrive all the same.
static void test_long_write(void **state) {
    struct fixture *f = *state;
    enum { N = 2 << 20 };
    uint8_t *out = malloc(N), *in = calloc(1, N);
    assert_true(out && in);
    for (unsigned i = 0; i < N; i++)
        out[i] = (uint8_t)(i * 31 + (i >> 12));
    struct iovec w = {out, N}, r = {in, N};
    struct block_req write = {.op = BLOCK_WRITE, .offset = 512, .bytes = N, .iov = &w, .niov = 1};
    struct block_req read = {.op = BLOCK_READ, .offset = 512, .bytes = N, .iov = &r, .niov = 1};
    open_disk(f, true);
    block_submit(f->b, &write);
    block_kick(f->b);
    assert_int_equal(f->done, 0); // handed back by drain or by the loop only
    block_drain(f->b);
    run(f, &read);
    assert_memory_equal(in, out, N);
    free(out);
    free(in);
}

static void *loop_thread(void *ctx) {
    event_loop_run(ctx);
    return NULL;
}

// Completions come by the event loop too, not only by kick and drain.
static void by_loop(struct fixture *f) {
    pthread_t t;
    static uint8_t buf[65536];
    struct iovec iov = {buf, sizeof(buf)};
    struct block_req r = {.op = BLOCK_READ, .offset = 0, .bytes = sizeof(buf), .iov = &iov, .niov = 1};
    struct block_req s = {.op = BLOCK_FLUSH}; // never done at once: waits for the disk
    pthread_create(&t, NULL, loop_thread, f->loop);
    block_submit(f->b, &r);
    block_submit(f->b, &s);
    block_kick(f->b);
    for (int i = 0; i < 2000 && __atomic_load_n(&f->done, __ATOMIC_SEQ_CST) < 2; i++)
        usleep(1000);
    assert_int_equal(f->done, 2);
    event_loop_quit(f->loop, 0);
    pthread_join(t, NULL);
}

static void test_loop_uring(void **state) {
    open_disk(*state, false);
    by_loop(*state);
}

static void test_loop_thread(void **state) {
    open_disk(*state, true);
    by_loop(*state);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        T(test_refusals),         T(test_lock),          T(test_data_uring),
        T(test_data_thread),      T(test_many_uring),    T(test_many_thread),
        T(test_truncated_uring),  T(test_loop_uring),    T(test_loop_thread),
        T(test_truncated_thread), T(test_at_once_uring), T(test_at_once_thread),
        T(test_long_write),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
