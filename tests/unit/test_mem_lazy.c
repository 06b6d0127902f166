// SPDX-License-Identifier: Apache-2.0
// Guest memory whose pages come when they are used: who touches one waits until it was put, by whatever way the memory
// is reached; pages that are there stay; the end lets everybody go.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/uio.h>
#include <unistd.h>

#include "core/mem_lazy.h"

#define PAGES   8u
#define WAIT_MS 20000

static struct mem *mem;
static const struct mem_slot *slot;

static int setup(void **state) {
    struct error err = {0};
    unsigned count;
    if (mem_create(&mem, &err) || mem_add_ram(mem, GPA(0), PAGES * PAGE_SIZE, "ram", &err))
        return -1;
    slot = mem_slots(mem, &count);
    return 0;
}

static int teardown(void **state) {
    mem_destroy(mem);
    return 0;
}

static void open_or_skip(void) {
    struct error err = {0};
    if (mem_lazy_open(mem, false, &err))
        skip();
}

// ---- somebody who touches a page ----

struct toucher {
    uint64_t page;
    int (*touch)(struct toucher *t);
    int result;
    uint8_t byte;
    atomic_bool done;
    pthread_t thread;
};

static int by_read(struct toucher *t) {
    return mem_read(mem, GPA(t->page * PAGE_SIZE), &t->byte, 1);
}

static int by_write(struct toucher *t) {
    const uint8_t mark = 0x77;
    int ret = mem_write(mem, GPA(t->page * PAGE_SIZE + 1), &mark, 1);
    return ret ? ret : by_read(t);
}

// The kernel reads the memory then: it must not meet a missing page (EFAULT where its faults are not served).
static int by_system_call(struct toucher *t) {
    uint8_t copy[2 * PAGE_SIZE];
    struct iovec iov, to = {copy, sizeof(copy)};
    int n = mem_map(mem, GPA(t->page * PAGE_SIZE), sizeof(copy), MEM_READ, &iov, 1), fds[2];
    if (n != 1 || pipe(fds))
        return -1;
    ssize_t written = writev(fds[1], &iov, 1), got = readv(fds[0], &to, 1);
    close(fds[0]);
    close(fds[1]);
    t->byte = copy[0];
    return written == (ssize_t)sizeof(copy) && got == (ssize_t)sizeof(copy) ? 0 : -1;
}

static void *touch(void *arg) {
    struct toucher *t = arg;
    t->result = t->touch(t);
    atomic_store(&t->done, true);
    return NULL;
}

static void start(struct toucher *t, uint64_t page, int (*fn)(struct toucher *t)) {
    *t = (struct toucher){.page = page, .touch = fn, .result = 1};
    assert_int_equal(pthread_create(&t->thread, NULL, touch, t), 0);
}

static uint64_t next_fault(void) {
    struct pollfd p = {.fd = mem_lazy_fd(mem), .events = POLLIN};
    const struct mem_slot *s = NULL;
    uint64_t page = UINT64_MAX;
    assert_int_equal(poll(&p, 1, WAIT_MS), 1);
    assert_int_equal(mem_lazy_fault(mem, &s, &page), 1);
    assert_ptr_equal(s, slot);
    return page;
}

static void put(uint64_t page, uint8_t fill) {
    uint8_t data[PAGE_SIZE];
    memset(data, fill, sizeof(data));
    assert_int_equal(mem_lazy_put(mem, slot, page, data), 0);
}

static void finish(struct toucher *t, uint8_t byte) {
    pthread_join(t->thread, NULL);
    assert_int_equal(t->result, 0);
    assert_int_equal(t->byte, byte);
}

// ---- tests ----

static void test_who_touches_waits(void **state) {
    struct error err = {0};
    struct toucher t;
    uint8_t old = 0x55;
    open_or_skip();
    assert_int_equal(mem_write(mem, GPA(2 * PAGE_SIZE), &old, 1), 0);
    assert_int_equal(mem_lazy_begin_empty(mem, &err), 0); // what was there is gone
    start(&t, 2, by_read);
    assert_int_equal(next_fault(), 2);
    assert_false(atomic_load(&t.done));
    put(2, 0xa1);
    finish(&t, 0xa1);
    put(2, 0xee); // it is there: nothing happens
    start(&t, 2, by_read);
    finish(&t, 0xa1);
    start(&t, 3, by_write);
    assert_int_equal(next_fault(), 3);
    assert_int_equal(mem_lazy_zero(mem, slot, 3, 2), 0);
    finish(&t, 0);
    start(&t, 4, by_read);
    finish(&t, 0);
}

static void test_system_calls_meet_no_missing_page(void **state) {
    struct error err = {0};
    struct toucher t;
    open_or_skip();
    assert_int_equal(mem_lazy_begin_empty(mem, &err), 0);
    start(&t, 5, by_system_call);
    assert_int_equal(next_fault(), 5);
    put(5, 0xb5);
    assert_int_equal(next_fault(), 6);
    put(6, 0xb6);
    finish(&t, 0xb5);
}

static void test_what_is_there_stays_unless_dropped(void **state) {
    struct error err = {0};
    struct toucher t;
    uint8_t byte;
    open_or_skip();
    for (byte = 0; byte < 4; byte++)
        assert_int_equal(mem_write(mem, GPA(byte * PAGE_SIZE), &byte, 1), 0);
    assert_int_equal(mem_lazy_begin(mem, &err), 0);
    assert_int_equal(mem_lazy_drop(mem, slot, 1, 2), 0);
    start(&t, 3, by_read);
    finish(&t, 3);
    start(&t, 1, by_read);
    assert_int_equal(next_fault(), 1);
    put(1, 0xc1);
    finish(&t, 0xc1);
}

static void test_missing_pages_count_as_present(void **state) {
    struct error err = {0};
    unsigned long map = 0;
    open_or_skip();
    assert_int_equal(mem_lazy_begin_empty(mem, &err), 0);
    assert_int_equal(mem_present(mem, slot, &map), 0);
    assert_int_equal(map, (1u << PAGES) - 1);
    assert_int_equal(mem_dirty_fetch(mem, slot, &map), 0); // what comes was not written
    put(0, 1);
    assert_int_equal(mem_dirty_fetch(mem, slot, &map), 0);
}

static void test_the_end_lets_everybody_go(void **state) {
    struct error err = {0};
    struct toucher t;
    open_or_skip();
    assert_int_equal(mem_lazy_begin_empty(mem, &err), 0);
    assert_true(mem_lazy(mem));
    start(&t, 7, by_read);
    assert_int_equal(next_fault(), 7);
    mem_lazy_end(mem);
    finish(&t, 0);
    assert_false(mem_lazy(mem));
    mem_lazy_end(mem);
}

int main(void) {
#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(test_who_touches_waits),
        CASE(test_system_calls_meet_no_missing_page),
        CASE(test_what_is_there_stays_unless_dropped),
        CASE(test_missing_pages_count_as_present),
        CASE(test_the_end_lets_everybody_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
