// SPDX-License-Identifier: Apache-2.0
// Log lines to standard error, and a ring of the last lines of every level.
//
// Invariants: a ring slot always holds a terminated string (dump runs in signal handlers, beside writers, without
// the lock: it may show a half-written line, never run over its end). Control characters are replaced, because
// lines quote names and text that come from guests and files and must not drive a terminal.
#include "util/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define RING_LINES 256 // power of two
#define LINE_SIZE  512

static const char *const level_names[] = {"error", "warn", "info", "debug", "trace"};
#define LEVEL_COUNT (sizeof(level_names) / sizeof(level_names[0]))

static atomic_int log_level = LOG_WARN;
static pthread_mutex_t ring_lock = PTHREAD_MUTEX_INITIALIZER;
static char ring[RING_LINES][LINE_SIZE]; // written under ring_lock
static atomic_uint ring_next;            // lines ever written; advanced under ring_lock

void log_set_level(enum log_level level) {
    atomic_store_explicit(&log_level, (int)level, memory_order_relaxed);
}

enum log_level log_get_level(void) {
    return (enum log_level)atomic_load_explicit(&log_level, memory_order_relaxed);
}

int log_level_parse(const char *name, enum log_level *level) {
    for (unsigned i = 0; i < LEVEL_COUNT; i++) {
        if (strcmp(name, level_names[i]) == 0) {
            *level = (enum log_level)i;
            return 0;
        }
    }
    return -EINVAL;
}

// A write error is nowhere to be reported; a short write to a pipe goes on.
static void write_all(int fd, const char *p, size_t n) {
    while (n > 0) {
        ssize_t done = write(fd, p, n);

        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return;
        p += done;
        n -= (size_t)done;
    }
}

// Makes one line of buf: no control characters, one newline at its end. Returns its length.
static size_t line_finish(char *buf, size_t len) {
    while (len > 0 && buf[len - 1] == '\n')
        len--;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)buf[i];

        if ((c < 0x20 && c != '\t') || c == 0x7f)
            buf[i] = '?';
    }
    buf[len++] = '\n';
    buf[len] = 0;
    return len;
}

static void ring_add(const char *line, size_t len) {
    pthread_mutex_lock(&ring_lock);
    unsigned n = atomic_load_explicit(&ring_next, memory_order_relaxed);
    memcpy(ring[n % RING_LINES], line, len + 1);
    atomic_store_explicit(&ring_next, n + 1, memory_order_release);
    pthread_mutex_unlock(&ring_lock);
}

void log_write(enum log_level level, const char *unit, const char *fmt, ...) {
    char buf[LINE_SIZE];
    const size_t room = sizeof(buf) - 2; // newline and terminator
    int saved_errno = errno;
    struct timespec ts;
    va_list ap;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    const char *name = (unsigned)level < LEVEL_COUNT ? level_names[level] : "?";
    int n = snprintf(buf, room, "%ld.%06ld %s: %s: ", (long)ts.tv_sec, ts.tv_nsec / 1000, unit, name);
    size_t len = n < 0 ? 0 : (size_t)n < room ? (size_t)n : room - 1;
    va_start(ap, fmt);
    n = vsnprintf(buf + len, room - len, fmt, ap);
    va_end(ap);
    if (n > 0)
        len = (size_t)n < room - len ? len + (size_t)n : room - 1;
    len = line_finish(buf, len);
    ring_add(buf, len);
    if (level <= log_get_level())
        write_all(STDERR_FILENO, buf, len);
    errno = saved_errno;
}

void log_dump_ring(int fd) {
    unsigned end = atomic_load_explicit(&ring_next, memory_order_acquire);
    unsigned start = end > RING_LINES ? end - RING_LINES : 0;

    for (unsigned i = start; i != end; i++) {
        const char *line = ring[i % RING_LINES];
        size_t len = 0;

        // The last byte of a slot is never written: always a terminator.
        while (len < LINE_SIZE - 1 && line[len])
            len++;
        write_all(fd, line, len);
    }
}
