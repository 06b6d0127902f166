// SPDX-License-Identifier: Apache-2.0
// The host sides of the console: the Ctrl-A filter, slow readers, end of input, one socket client at a time. A fake
// device with a small FIFO stands on the other side, so that flow control works in both directions.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "backend/char_escape.h"
#include "backend/char_host.h"
#include "backend/char_out.h"

#define FIFO 16

static void sleep_ms(long ms) {
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

// ---- the filter ----

static void note_key(void *ctx, uint8_t key) {
    strcat(ctx, (char[]){(char)key, 0});
}

static void escape_filter(void **state) {
    static const struct {
        const char *in, *out, *keys;
    } cases[] = {
        {"plain", "plain", ""}, {"a\1xb", "ab", "x"},     {"\1\1", "\1", ""}, {"\1\1x", "\1x", ""},
        {"\1\1\1x", "\1", "x"}, {"\1h\1c\1x", "", "hcx"}, {"", "", ""},       {"x\1", "x", ""},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        // Whole, and byte by byte: commands may be cut anywhere.
        for (size_t step = 1; step <= 16; step += 15) {
            char keys[16] = "", out[32] = "";
            struct char_escape e = {.command = note_key, .ctx = keys};
            size_t len = strlen(cases[i].in);
            for (size_t at = 0; at < len; at += step) {
                uint8_t buf[16];
                size_t n = len - at < step ? len - at : step;
                memcpy(buf, cases[i].in + at, n);
                strncat(out, (char *)buf, char_escape_filter(&e, buf, n));
            }
            assert_string_equal(out, cases[i].out);
            assert_string_equal(keys, cases[i].keys);
        }
    }
}

// ---- output ----

static atomic_int writable_calls;
static void count_writable(void *dev) {
    atomic_fetch_add(&writable_calls, 1);
}

// Nothing reads: the buffer fills, writes are cut short and never block; then a slow reader gets every byte.
static void slow_reader(void **state) {
    int p[2];
    struct error err;
    struct char_out *out;
    struct chardev dev = {.dev_writable = count_writable};
    assert_int_equal(pipe(p), 0);
    assert_int_equal(char_out_create(p[1], &dev, &out, &err), 0);
    atomic_store(&writable_calls, 0);
    uint32_t sent = 0, got = 0, word;
    int idle = 0;
    while (idle < 400) { // pipe (64 KiB) and buffer are full when nothing goes for 400 ms, however busy the host
        size_t n = char_out_write(out, (uint8_t *)&sent, 4);
        assert_true(n == 0 || n == 4);
        sent += n == 4;
        idle = n ? 0 : idle + 1;
        if (!n)
            sleep_ms(1);
    }
    assert_in_range(sent, 30000, 40000);
    int before = atomic_load(&writable_calls);
    while (got < sent) {
        assert_int_equal(read(p[0], &word, 4), 4);
        assert_int_equal(word, got);
        got++;
    }
    char_out_close(out);
    assert_int_equal(atomic_load(&writable_calls), before + 1);  // once a refusal
    assert_int_equal(char_out_write(out, (uint8_t *)"x", 1), 1); // dropped after close
    char_out_destroy(out);
    close(p[1]);
    assert_int_equal(read(p[0], &word, 4), 0);
    close(p[0]);
}

static void reader_gone(void **state) {
    int p[2];
    struct error err;
    struct char_out *out;
    struct chardev dev = {0};
    uint8_t block[4096] = {0};
    assert_int_equal(pipe(p), 0);
    close(p[0]);
    assert_int_equal(char_out_create(p[1], &dev, &out, &err), 0);
    for (int i = 0; i < 100; i++) { // more than the buffer: taken and dropped, once the writer has seen it
        char_out_write(out, block, sizeof(block));
        sleep_ms(1);
    }
    assert_int_equal(char_out_write(out, block, sizeof(block)), sizeof(block));
    char_out_close(out);
    char_out_destroy(out);
    close(p[1]);
}

static void stuck_reader_does_not_hold_the_end_up(void **state) {
    int p[2];
    struct error err;
    struct char_out *out;
    struct chardev dev = {0};
    static uint8_t block[65536];
    struct timespec a, b;
    assert_int_equal(pipe(p), 0);
    assert_int_equal(char_out_create(p[1], &dev, &out, &err), 0);
    for (int i = 0; i < 4; i++) {
        char_out_write(out, block, sizeof(block));
        sleep_ms(10);
    }
    clock_gettime(CLOCK_MONOTONIC, &a);
    char_out_close(out);
    clock_gettime(CLOCK_MONOTONIC, &b);
    assert_in_range(b.tv_sec - a.tv_sec, 0, 3);
    char_out_destroy(out); // the thread stays in write(2) for ever
}

static void file_output(void **state) {
    char path[] = "/tmp/cicada-test-XXXXXX", buf[16] = "";
    struct char_host *h;
    struct error err = {0};
    int fd = mkstemp(path);
    assert_int_equal(write(fd, "old old old", 11), 11);
    assert_int_equal(char_file_open(path, &h, &err), 0);
    assert_int_equal(chardev_write(&h->dev, (uint8_t *)"new\n", 4), 4);
    char_host_close(h);
    char_host_destroy(h);
    assert_int_equal(pread(fd, buf, sizeof(buf), 0), 4);
    assert_string_equal(buf, "new\n");
    close(fd);
    unlink(path);
    assert_int_equal(char_file_open("/nonexistent/x", &h, &err), -ENOENT);
    assert_non_null(strstr(err.text, "/nonexistent/x"));
    assert_int_equal(char_file_open("/tmp", &h, &err), -EISDIR);
}

// ---- a device with a FIFO ----

struct device {
    struct chardev *c;
    pthread_mutex_t lock;
    uint8_t fifo[FIFO];
    size_t count, max; // max: the guest reads no more than this, of `got`
    char got[65536];
    size_t ngot;
};

static size_t device_receive(void *ctx, const uint8_t *buf, size_t n) {
    struct device *d = ctx;
    pthread_mutex_lock(&d->lock);
    size_t take = n < FIFO - d->count ? n : FIFO - d->count;
    memcpy(d->fifo + d->count, buf, take);
    d->count += take;
    pthread_mutex_unlock(&d->lock);
    return take;
}

// The guest: empties the FIFO until it has `want` bytes; gives up when nothing comes for two seconds.
static void device_read(struct device *d, size_t want) {
    for (int idle = 0; idle < 20000 && d->ngot < want; idle++) {
        pthread_mutex_lock(&d->lock);
        size_t n = d->count;
        memcpy(d->got + d->ngot, d->fifo, n);
        d->ngot += n;
        d->count = 0;
        pthread_mutex_unlock(&d->lock);
        if (n) {
            idle = 0;
            chardev_rx_ready(d->c);
        } else {
            nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
        }
    }
    assert_int_equal(d->ngot, want);
}

static void device_attach(struct device *d, struct chardev *c) {
    *d = (struct device){.c = c};
    pthread_mutex_init(&d->lock, NULL);
    c->dev = d;
    c->dev_receive = device_receive;
    c->dev_writable = count_writable;
}

static void *loop_thread(void *loop) {
    event_loop_run(loop);
    return NULL;
}

static void fill_pattern(char *buf, size_t n) {
    for (size_t i = 0; i < n; i++)
        buf[i] = (char)(i * 31 + i / 256);
}

// ---- stdio ----

// Puts `fd` in the place of standard input for one test. cmocka prints to standard output.
static int swap_stdin(int fd) {
    int saved = dup(0);
    dup2(fd, 0);
    close(fd);
    return saved;
}

static void stdin_from(int fd, const char *want, size_t n) {
    struct event_loop *loop;
    struct error err;
    struct char_host *h;
    static struct device d;
    pthread_t thread;
    int saved = swap_stdin(fd);
    struct char_stdio_options opt = {.input = true};
    assert_int_equal(event_loop_create(&loop, &err), 0);
    assert_int_equal(char_stdio_open(loop, &opt, &h, &err), 0);
    device_attach(&d, &h->dev);
    pthread_create(&thread, NULL, loop_thread, loop);
    device_read(&d, n);
    assert_memory_equal(d.got, want, n);
    sleep_ms(20); // the end of the input must not make the loop spin or stop
    event_loop_quit(loop, 0);
    pthread_join(thread, NULL);
    assert_int_equal(d.count, 0);
    char_host_close(h);
    char_host_destroy(h);
    event_loop_destroy(loop);
    dup2(saved, 0);
    close(saved);
}

static void *feed(void *arg) {
    int fd = *(int *)arg;
    static char buf[50000];
    fill_pattern(buf, sizeof(buf));
    if (write(fd, buf, sizeof(buf)) != sizeof(buf))
        abort();
    close(fd);
    return NULL;
}

static void stdin_pipe(void **state) {
    static char want[50000];
    int p[2];
    pthread_t feeder;
    fill_pattern(want, sizeof(want));
    assert_int_equal(pipe(p), 0);
    pthread_create(&feeder, NULL, feed, &p[1]);
    stdin_from(p[0], want, sizeof(want));
    pthread_join(feeder, NULL);
}

// epoll refuses regular files and /dev/null.
static void stdin_file(void **state) {
    static char want[10000];
    char path[] = "/tmp/cicada-test-XXXXXX";
    int fd = mkstemp(path);
    fill_pattern(want, sizeof(want));
    assert_int_equal(write(fd, want, sizeof(want)), sizeof(want));
    lseek(fd, 0, SEEK_SET);
    unlink(path);
    stdin_from(fd, want, sizeof(want));
    stdin_from(open("/dev/null", O_RDONLY), "", 0);
}

// ---- unix socket ----

static int client(const char *path) {
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    strcpy(addr.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    return fd;
}

static void unix_socket(void **state) {
    char path[64], buf[16];
    struct event_loop *loop;
    struct error err = {0};
    struct char_host *h, *second;
    struct stat st;
    static struct device d;
    pthread_t thread;
    static char want[30000];
    fill_pattern(want, sizeof(want));
    snprintf(path, sizeof(path), "/tmp/cicada-test-%d.sock", (int)getpid());
    assert_int_equal(event_loop_create(&loop, &err), 0);
    assert_int_equal(char_unix_open(loop, path, &h, &err), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(char_unix_open(loop, path, &second, &err), -EADDRINUSE);
    device_attach(&d, &h->dev);
    pthread_create(&thread, NULL, loop_thread, loop);
    sleep_ms(20); // the client of the refused second server comes and goes
    assert_int_equal(chardev_write(&h->dev, (uint8_t *)"nobody", 6), 6);
    int a = client(path);
    // What it sent before it hung up arrives, all of it, and then it is the next one's turn.
    assert_int_equal(write(a, want, sizeof(want)), sizeof(want));
    int b = client(path);
    close(a);
    device_read(&d, sizeof(want));
    assert_memory_equal(d.got, want, sizeof(want));
    assert_int_equal(write(b, "b", 1), 1);
    device_read(&d, sizeof(want) + 1);
    // It does not read: writes are cut short; then it does, and the device is told.
    size_t sent = 0, n;
    while ((n = chardev_write(&h->dev, (uint8_t *)want, sizeof(want))) > 0)
        sent += n;
    atomic_store(&writable_calls, 0);
    static char sink[65536];
    while (sent > 0)
        sent -= (size_t)recv(b, sink, sizeof(sink), 0);
    for (int i = 0; i < 2000 && !atomic_load(&writable_calls); i++)
        sleep_ms(1);
    assert_int_not_equal(atomic_load(&writable_calls), 0);
    event_loop_quit(loop, 0);
    pthread_join(thread, NULL);
    char_host_close(h);
    assert_int_equal(recv(b, buf, sizeof(buf), 0), 0);
    assert_int_equal(stat(path, &st), -1);
    char_host_destroy(h);
    close(b);
    event_loop_destroy(loop);
}

static void unix_leftovers(void **state) {
    char path[64];
    struct event_loop *loop;
    struct error err = {0};
    struct char_host *h;
    snprintf(path, sizeof(path), "/tmp/cicada-test-%d.sock", (int)getpid());
    assert_int_equal(event_loop_create(&loop, &err), 0);
    // A socket of a process that died is replaced; a file that is none is not.
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    strcpy(addr.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    close(fd);
    assert_int_equal(char_unix_open(loop, path, &h, &err), 0);
    char_host_close(h);
    char_host_destroy(h);
    fd = open(path, O_CREAT | O_WRONLY, 0600);
    close(fd);
    assert_int_equal(char_unix_open(loop, path, &h, &err), -EEXIST);
    assert_int_equal(access(path, F_OK), 0);
    unlink(path);
    event_loop_destroy(loop);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(escape_filter),  cmocka_unit_test(slow_reader),
        cmocka_unit_test(reader_gone),    cmocka_unit_test(stuck_reader_does_not_hold_the_end_up),
        cmocka_unit_test(file_output),    cmocka_unit_test(stdin_pipe),
        cmocka_unit_test(stdin_file),     cmocka_unit_test(unix_socket),
        cmocka_unit_test(unix_leftovers),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
