// SPDX-License-Identifier: Apache-2.0
// The console on standard input and output. Output goes through char_out. Input is read on the event loop, one
// buffer at a time; while the device takes no more, standard input is not read, so a pipe holds its writer off.
// End of input leaves the VM running. Files that epoll does not know (regular files, /dev/null) are always ready.
// On a terminal input is always read, or Ctrl-A x would not end a guest that has stopped reading; keys typed ahead
// beyond the buffer are dropped, as terminals do.
// All input state belongs to the loop thread, except `posted`.
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define LOG_UNIT "char"
#include "backend/char_escape.h"
#include "backend/char_host.h"
#include "backend/char_out.h"
#include "core/types.h"
#include "util/log.h"

struct char_stdio {
    struct char_host host;
    struct event_loop *loop;
    struct char_out *out;
    int out_fd; // owned by char_file, else standard output
    struct char_escape escape;
    bool use_escape;
    bool watching;            // input is wanted: not ended, not closed
    struct event_source *src; // NULL while the device is full, or always for a file without readiness
    bool pollable;
    atomic_bool posted; // input_resume is in the queue of the loop
    uint8_t buf[1024];
    size_t pos, len; // what the device has not taken yet
};

static void input_ready(void *ctx, uint32_t events);

static void input_unwatch(struct char_stdio *s) {
    if (s->src)
        event_remove(s->src);
    s->src = NULL;
}

static void input_end(struct char_stdio *s, const char *why) {
    log_info("standard input ended: %s", why);
    s->watching = false;
    input_unwatch(s);
}

static bool offer(struct char_stdio *s) {
    s->pos += chardev_receive(&s->host.dev, s->buf + s->pos, s->len - s->pos);
    return s->pos == s->len;
}

// Reads once, behind what the device has not taken yet. False at the end of input.
static bool input_read(struct char_stdio *s) {
    uint8_t fresh[sizeof(s->buf)];
    ssize_t n = read(STDIN_FILENO, fresh, sizeof(fresh));
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        n = 0;
    else if (n <= 0) {
        input_end(s, n ? strerror(errno) : "end of file");
        return false;
    }
    memmove(s->buf, s->buf + s->pos, s->len - s->pos);
    s->len -= s->pos;
    s->pos = 0;
    size_t got = s->use_escape ? char_escape_filter(&s->escape, fresh, (size_t)n) : (size_t)n;
    size_t room = sizeof(s->buf) - s->len; // all of it, except on a terminal
    memcpy(s->buf + s->len, fresh, got < room ? got : room);
    s->len += got < room ? got : room;
    return true;
}

// Watches standard input again. A file without readiness is read here, until the device is full.
static void input_watch(struct char_stdio *s) {
    while (s->watching && s->pos == s->len && !s->src) {
        if (s->pollable) {
            if (event_add(s->loop, STDIN_FILENO, EPOLLIN, input_ready, s, &s->src) != 0)
                input_end(s, "it cannot be watched");
            return;
        }
        if (input_read(s))
            offer(s);
    }
}

static void input_ready(void *ctx, uint32_t events) {
    struct char_stdio *s = ctx;
    // Level-triggered: a hang-up would be reported again and again, so a full device means no watching at all.
    if (input_read(s) && !offer(s) && !s->use_escape)
        input_unwatch(s);
}

static void input_resume(void *ctx) {
    struct char_stdio *s = ctx;
    atomic_store(&s->posted, false);
    if (s->watching && offer(s))
        input_watch(s);
}

// Any thread: the device has room again.
static void stdio_rx_ready(void *ctx) {
    struct char_stdio *s = ctx;
    if (!atomic_exchange(&s->posted, true) && event_post(s->loop, input_resume, s) != 0)
        atomic_store(&s->posted, false);
}

static size_t stdio_write(void *ctx, const uint8_t *buf, size_t n) {
    return char_out_write(((struct char_stdio *)ctx)->out, buf, n);
}

static void stdio_close(struct char_host *h) {
    struct char_stdio *s = CONTAINER_OF(h, struct char_stdio, host);
    s->watching = false;
    input_unwatch(s);
    char_out_close(s->out);
}

static void stdio_destroy(struct char_host *h) {
    struct char_stdio *s = CONTAINER_OF(h, struct char_stdio, host);
    char_out_destroy(s->out);
    if (s->out_fd > STDERR_FILENO)
        close(s->out_fd);
    free(s);
}

static const struct char_host_ops stdio_ops = {.close = stdio_close, .destroy = stdio_destroy};

static int open_output(int fd, struct char_stdio **stdio, struct error *err) {
    struct char_stdio *s = calloc(1, sizeof(*s));
    if (!s)
        return error_set(err, -ENOMEM, "console");
    s->host.ops = &stdio_ops;
    s->host.dev.ctx = s;
    s->host.dev.write = stdio_write;
    s->out_fd = fd;
    int ret = char_out_create(fd, &s->host.dev, &s->out, err);
    if (ret) {
        free(s);
        return ret;
    }
    *stdio = s;
    return 0;
}

static void open_input(struct char_stdio *s, struct event_loop *loop, const struct char_stdio_options *opt) {
    s->loop = loop;
    s->host.dev.rx_ready = stdio_rx_ready;
    s->use_escape = opt->escape;
    s->escape = (struct char_escape){.command = opt->command, .ctx = opt->ctx};
    s->watching = true;
    // EPERM: a file that epoll does not know. It is read when the loop runs, by then the device is attached.
    s->pollable = event_add(loop, STDIN_FILENO, EPOLLIN, input_ready, s, &s->src) == 0;
    if (!s->pollable)
        stdio_rx_ready(s);
}

int char_stdio_open(struct event_loop *loop, const struct char_stdio_options *opt, struct char_host **h,
                    struct error *err) {
    struct char_stdio *s;
    int ret = open_output(STDOUT_FILENO, &s, err);
    if (ret)
        return ret;
    if (opt->input)
        open_input(s, loop, opt);
    *h = &s->host;
    return 0;
}

int char_file_open(const char *path, struct char_host **h, struct error *err) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOCTTY | O_CLOEXEC, 0666);
    if (fd < 0)
        return error_set(err, -errno, "open serial file '%s'", path);
    struct char_stdio *s;
    int ret = open_output(fd, &s, err);
    if (ret) {
        close(fd);
        return ret;
    }
    *h = &s->host;
    return 0;
}
