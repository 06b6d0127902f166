// SPDX-License-Identifier: Apache-2.0
// Output buffer with a writer thread; see the header.
// Invariants under `lock`: tail - head <= OUT_SIZE; both only grow and are taken modulo OUT_SIZE; head moves only
// in the writer thread, so it may write from the buffer without holding the lock.
#include "backend/char_out.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LOG_UNIT "char"
#include "util/log.h"

#define OUT_SIZE         65536u  // a power of two
#define COALESCE_NS      1000000 // a UART gives bytes one by one: let a burst gather before it is written
#define CLOSE_PATIENCE_S 1       // without progress

struct char_out {
    int fd;
    struct chardev *dev;
    pthread_t thread;
    pthread_mutex_t lock; // guards everything below
    pthread_cond_t more;  // to the writer: bytes, or closing
    pthread_cond_t less;  // to char_out_close: bytes were written, or the writer has ended
    size_t head, tail;
    bool refused; // a write was cut short: tell the device when there is room
    bool closing, gone, ended;
    uint8_t buf[OUT_SIZE];
};

static void wait_writable(int fd) {
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    poll(&p, 1, 1000);
}

// Writes one contiguous piece. Returns the bytes written, or a negative errno when the reader is gone.
static ssize_t write_piece(struct char_out *out, size_t head, size_t n) {
    size_t at = head % OUT_SIZE;
    size_t len = n < OUT_SIZE - at ? n : OUT_SIZE - at;
    for (;;) {
        ssize_t done = write(out->fd, out->buf + at, len);
        if (done > 0)
            return done;
        if (done < 0 && errno != EINTR && errno != EAGAIN)
            return -errno;
        if (done == 0 || errno == EAGAIN) // somebody else made the shared description non-blocking
            wait_writable(out->fd);
    }
}

// Takes a written piece (or a failure) into account. Called and returns with the lock held.
static void account(struct char_out *out, ssize_t done) {
    if (done < 0) {
        log_warn("console output is dropped from now on: %s", strerror((int)-done));
        out->gone = true;
        out->head = out->tail;
    } else {
        out->head += (size_t)done;
    }
    pthread_cond_broadcast(&out->less);
    bool tell = out->refused && (out->gone || out->tail - out->head <= OUT_SIZE / 2);
    if (!tell)
        return;
    out->refused = false;
    pthread_mutex_unlock(&out->lock);
    chardev_writable(out->dev);
    pthread_mutex_lock(&out->lock);
}

// Waits for bytes and lets a burst gather. False when it is time to end.
static bool await_bytes(struct char_out *out) {
    if (out->tail != out->head)
        return true;
    while (out->tail == out->head && !out->closing)
        pthread_cond_wait(&out->more, &out->lock);
    if (!out->closing) {
        pthread_mutex_unlock(&out->lock);
        nanosleep(&(struct timespec){.tv_nsec = COALESCE_NS}, NULL);
        pthread_mutex_lock(&out->lock);
    }
    return out->tail != out->head;
}

static void *writer(void *arg) {
    struct char_out *out = arg;
    pthread_mutex_lock(&out->lock);
    for (;;) {
        if (!await_bytes(out)) {
            if (out->closing)
                break;
            continue;
        }
        size_t head = out->head, n = out->tail - out->head;
        pthread_mutex_unlock(&out->lock);
        ssize_t done = write_piece(out, head, n);
        pthread_mutex_lock(&out->lock);
        account(out, done);
    }
    out->ended = true;
    pthread_cond_broadcast(&out->less);
    pthread_mutex_unlock(&out->lock);
    return NULL;
}

int char_out_create(int fd, struct chardev *dev, struct char_out **out, struct error *err) {
    struct char_out *o = calloc(1, sizeof(*o));
    if (!o)
        return error_set(err, -ENOMEM, "console output");
    o->fd = fd;
    o->dev = dev;
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&o->lock, NULL);
    pthread_cond_init(&o->more, NULL);
    pthread_cond_init(&o->less, &attr);
    pthread_condattr_destroy(&attr);
    int ret = pthread_create(&o->thread, NULL, writer, o);
    if (ret) {
        free(o);
        return error_set(err, -ret, "start the console output thread");
    }
    *out = o;
    return 0;
}

size_t char_out_write(struct char_out *out, const uint8_t *buf, size_t n) {
    pthread_mutex_lock(&out->lock);
    size_t room = OUT_SIZE - (out->tail - out->head), take = n < room ? n : room;
    if (out->closing || out->gone) {
        take = n;
    } else {
        bool was_empty = out->tail == out->head;
        size_t at = out->tail % OUT_SIZE, first = take < OUT_SIZE - at ? take : OUT_SIZE - at;
        memcpy(out->buf + at, buf, first);
        memcpy(out->buf, buf + first, take - first);
        out->tail += take;
        out->refused |= take < n;
        if (was_empty && take)
            pthread_cond_signal(&out->more);
    }
    pthread_mutex_unlock(&out->lock);
    return take;
}

void char_out_close(struct char_out *out) {
    pthread_mutex_lock(&out->lock);
    out->closing = true;
    pthread_cond_signal(&out->more);
    while (!out->ended) {
        size_t before = out->head;
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += CLOSE_PATIENCE_S;
        int ret = pthread_cond_timedwait(&out->less, &out->lock, &until);
        if (ret == ETIMEDOUT && out->head == before && !out->ended) {
            log_warn("%zu bytes of console output could not be written", out->tail - out->head);
            break;
        }
    }
    pthread_mutex_unlock(&out->lock);
}

void char_out_destroy(struct char_out *out) {
    if (!out)
        return;
    pthread_mutex_lock(&out->lock);
    bool ended = out->ended;
    pthread_mutex_unlock(&out->lock);
    if (!ended) {
        pthread_detach(out->thread);
        return;
    }
    pthread_join(out->thread, NULL);
    pthread_mutex_destroy(&out->lock);
    pthread_cond_destroy(&out->more);
    pthread_cond_destroy(&out->less);
    free(out);
}
