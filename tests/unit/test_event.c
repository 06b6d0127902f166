// SPDX-License-Identifier: Apache-2.0
// The event loop: posts, descriptors, removal inside a batch, timers, quitting; the timer heap against a model.
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/timer_heap.h"

#define MS 1000000ull

static struct event_loop *loop;
static char trace[128];

static int setup(void **state) {
    struct error err;

    trace[0] = 0;
    return event_loop_create(&loop, &err);
}

static int teardown(void **state) {
    event_loop_destroy(loop);
    return 0;
}

static void note(void *ctx) {
    strcat(trace, ctx);
}
static void quit_7(void *ctx) {
    event_loop_quit(loop, 7);
}

static void post_more(void *ctx) {
    note("m");
    event_post(loop, note, "n");
    event_post(loop, quit_7, NULL);
}

static void test_posts_in_order(void **state) {
    event_post(loop, note, "a");
    event_post(loop, note, "b");
    event_post(loop, post_more, NULL);
    event_post(loop, note, "c");
    assert_int_equal(event_loop_run(loop), 7);
    assert_string_equal(trace, "abmcn");
}

static void test_first_quit_wins(void **state) {
    event_loop_quit(loop, 3);
    event_loop_quit(loop, 4);
    assert_int_equal(event_loop_run(loop), 3);
    event_post(loop, quit_7, NULL);
    assert_int_equal(event_loop_run(loop), 7); // can run again
}

static void *poster(void *arg) {
    for (int i = 0; i < 1000; i++)
        event_post(loop, (event_fn)(uintptr_t)arg, NULL);
    return NULL;
}

static int counted;
static void count_one(void *ctx) {
    if (++counted == 4000)
        event_loop_quit(loop, 1);
}

static void test_posts_from_threads(void **state) {
    pthread_t t[4];

    counted = 0;
    for (int i = 0; i < 4; i++)
        pthread_create(&t[i], NULL, poster, (void *)(uintptr_t)count_one);
    assert_int_equal(event_loop_run(loop), 1);
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    assert_int_equal(counted, 4000);
}

// ---- descriptors ----

struct pair {
    int fd[2];
    struct event_source *src[2];
    unsigned calls;
};

// Both descriptors are ready in one batch; the first callback removes the second source.
static void remove_other(void *ctx, uint32_t events) {
    struct pair *p = ctx;

    p->calls++;
    event_remove(p->src[0]);
    event_remove(p->src[1]);
    event_post(loop, quit_7, NULL);
}

static void test_removed_source_is_silent(void **state) {
    struct pair p = {0};

    for (int i = 0; i < 2; i++) {
        p.fd[i] = eventfd(1, EFD_NONBLOCK);
        assert_int_equal(event_add(loop, p.fd[i], EPOLLIN, remove_other, &p, &p.src[i]), 0);
    }
    assert_int_equal(event_loop_run(loop), 7);
    assert_int_equal(p.calls, 1);
    close(p.fd[0]);
    close(p.fd[1]);
}

static void read_end(void *ctx, uint32_t events) {
    char c = 0;

    assert_true(events & EPOLLIN);
    assert_int_equal(read(*(int *)ctx, &c, 1), 1);
    strncat(trace, &c, 1);
    if (c == 'z')
        event_loop_quit(loop, 0);
}

static void test_pipe_and_modify(void **state) {
    struct event_source *src;
    int fd[2];

    assert_int_equal(pipe(fd), 0);
    assert_int_equal(event_add(loop, fd[0], EPOLLIN, read_end, &fd[0], &src), 0);
    assert_int_equal(write(fd[1], "xyz", 3), 3); // level-triggered: three calls
    assert_int_equal(event_loop_run(loop), 0);
    assert_string_equal(trace, "xyz");
    assert_int_equal(event_modify(src, 0), 0);
    assert_int_equal(write(fd[1], "q", 1), 1);
    struct event_timer t;
    event_timer_init(&t, loop, quit_7, NULL);
    event_timer_arm(&t, event_now_ns() + 5 * MS);
    assert_int_equal(event_loop_run(loop), 7);
    assert_string_equal(trace, "xyz");
    event_remove(src);
    close(fd[0]);
    close(fd[1]);
}

static void test_add_errors(void **state) {
    struct event_source *src;
    int fd = open("/proc/self/exe", O_RDONLY);

    assert_int_equal(event_add(loop, -1, EPOLLIN, read_end, NULL, &src), -EBADF);
    assert_int_equal(event_add(loop, fd, EPOLLIN, read_end, NULL, &src), -EPERM);
    event_remove(NULL);
    close(fd);
}

// ---- timers ----

static void test_timer_order(void **state) {
    struct event_timer a, b, c, d, end;
    uint64_t now = event_now_ns();

    event_timer_init(&a, loop, note, "a");
    event_timer_init(&b, loop, note, "b");
    event_timer_init(&c, loop, note, "c");
    event_timer_init(&d, loop, note, "d");
    event_timer_init(&end, loop, quit_7, NULL);
    event_timer_arm(&end, now + 20 * MS);
    event_timer_arm(&c, now + 9 * MS);
    event_timer_arm(&a, now + 2 * MS);
    event_timer_arm(&b, 0); // the past: at once
    event_timer_arm(&d, now + 1 * MS);
    event_timer_cancel(&d);
    event_timer_cancel(&d);
    event_timer_arm(&a, now + 12 * MS); // moves behind c
    assert_int_equal(event_loop_run(loop), 7);
    assert_true(event_now_ns() >= now + 20 * MS);
    assert_string_equal(trace, "bca");
}

static struct event_timer storm;
static unsigned storms;
static void storm_again(void *ctx) {
    storms++;
    event_timer_arm(&storm, 1);
}

// A timer that re-arms itself in the past must not keep posts (and descriptors) from their turn.
// Seconds, rounded up, until the descriptor of the loop's timers expires; 0: it does not. From /proc/self/fdinfo.
static unsigned programmed_s(void) {
    char path[64], what[64], line[128];
    unsigned seconds = 0, ns = 0;
    for (int fd = 0; fd < 64; fd++) {
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        ssize_t n = readlink(path, what, sizeof(what) - 1);
        if (n < 0 || strncmp(what, "anon_inode:[timerfd]", (size_t)n))
            continue;
        snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
        FILE *f = fopen(path, "r");
        while (fgets(line, sizeof(line), f))
            sscanf(line, "it_value: (%u, %u)", &seconds, &ns);
        fclose(f);
        return seconds + (ns != 0);
    }
    fail();
    return 0;
}

// A timer that is put off by little leaves the descriptor as it is, by much it takes the descriptor along: the loop
// would wake for nothing.
static void test_timer_put_off(void **state) {
    struct event_timer t;
    uint64_t now = event_now_ns();
    event_timer_init(&t, loop, note, "t");
    assert_int_equal(programmed_s(), 0);
    event_timer_arm(&t, now + 100000 * MS);
    assert_in_range(programmed_s(), 99, 100);
    event_timer_arm(&t, now + 100004 * MS);
    assert_in_range(programmed_s(), 99, 100);
    event_timer_arm(&t, now + 200000 * MS);
    assert_in_range(programmed_s(), 199, 200);
    event_timer_arm(&t, now + 50000 * MS);
    assert_in_range(programmed_s(), 49, 50);
    event_timer_cancel(&t);
    assert_int_equal(programmed_s(), 0);
}

static void test_timer_storm_does_not_starve(void **state) {
    storms = 0;
    event_timer_init(&storm, loop, storm_again, NULL);
    event_timer_arm(&storm, 1);
    event_post(loop, quit_7, NULL);
    assert_int_equal(event_loop_run(loop), 7);
    assert_true(storms <= 64);
    event_timer_cancel(&storm);
}

static void *arm_from_thread(void *arg) {
    usleep(2000);
    event_timer_arm(arg, event_now_ns() + MS);
    return NULL;
}

// The loop sleeps until a far deadline when another thread arms a nearer one.
static void test_timer_from_thread(void **state) {
    struct event_timer far, near;
    pthread_t th;
    uint64_t start = event_now_ns();

    event_timer_init(&far, loop, note, "far");
    event_timer_init(&near, loop, quit_7, NULL);
    event_timer_arm(&far, start + 60000 * MS);
    pthread_create(&th, NULL, arm_from_thread, &near);
    assert_int_equal(event_loop_run(loop), 7);
    pthread_join(th, NULL);
    assert_true(event_now_ns() - start < 30000 * MS);
    assert_string_equal(trace, "");
}

#define HEAP_N 200

static void test_heap_against_model(void **state) {
    static struct event_timer t[HEAP_N];
    static bool in[HEAP_N];
    struct timer_heap h = {0};
    unsigned seed = 12345;

    for (int step = 0; step < 20000; step++) {
        seed = seed * 1664525 + 1013904223;
        unsigned i = (seed >> 8) % HEAP_N;
        if (in[i]) {
            timer_heap_remove(&h, &t[i]);
        } else {
            t[i].deadline_ns = (seed >> 4) % 1000;
            timer_heap_insert(&h, &t[i]);
        }
        in[i] = !in[i];
        uint64_t least = UINT64_MAX;
        for (int k = 0; k < HEAP_N; k++)
            if (in[k] && t[k].deadline_ns < least)
                least = t[k].deadline_ns;
        assert_true(h.root ? h.root->deadline_ns == least : least == UINT64_MAX);
    }
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        T(test_posts_in_order),
        T(test_first_quit_wins),
        T(test_posts_from_threads),
        T(test_removed_source_is_silent),
        T(test_pipe_and_modify),
        T(test_add_errors),
        T(test_timer_order),
        T(test_timer_storm_does_not_starve),
        T(test_timer_put_off),
        T(test_timer_from_thread),
        cmocka_unit_test(test_heap_against_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
