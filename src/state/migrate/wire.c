// SPDX-License-Identifier: Apache-2.0
// Framing; see the header. Invariants: a length from the peer is believed only behind a right checksum of its header
// and below WIRE_BODY_MAX; a body is given out only behind a right checksum.
#include "state/migrate/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "util/crc32c.h"
#include "util/io.h"

#define HEADER    16
#define READ_STEP ((size_t)1 << 20)

static const char magic[8] = {'C', 'I', 'C', 'A', 'D', 'A', 'M', 'G'};
#define HELLO_LEN (sizeof(magic) + 4)

// ---- buffers ----

static size_t buffer_used(const struct wire_buffer *b) {
    return b->end - b->begin;
}

// Room for n more bytes at the end.
static int buffer_reserve(struct wire_buffer *b, size_t n) {
    if (b->begin == b->end)
        b->begin = b->end = 0;
    if (b->capacity - b->end >= n)
        return 0;
    if (b->begin) {
        memmove(b->data, b->data + b->begin, buffer_used(b));
        b->end -= b->begin;
        b->begin = 0;
    }
    if (b->capacity - b->end >= n)
        return 0;
    size_t capacity = b->end + n + b->capacity / 2;
    uint8_t *data = realloc(b->data, capacity);
    if (!data)
        return -ENOMEM;
    b->data = data;
    b->capacity = capacity;
    return 0;
}

// ---- life ----

int wire_init(struct wire *w, int fd) {
    int flags = fcntl(fd, F_GETFL);
    *w = (struct wire){.fd = -1};
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return -errno;
    uint8_t hello[HELLO_LEN];
    memcpy(hello, magic, sizeof(magic));
    wire_set32(hello + sizeof(magic), WIRE_VERSION);
    int ret = wire_put(w, WIRE_HELLO, hello, sizeof(hello));
    if (ret == 0)
        w->fd = fd;
    return ret;
}

void wire_fini(struct wire *w) {
    if (w->fd >= 0)
        close(w->fd);
    free(w->out.data);
    free(w->in.data);
    *w = (struct wire){.fd = -1};
}

// ---- sending ----

uint8_t *wire_begin(struct wire *w, enum wire_type type, size_t len) {
    if (len > WIRE_BODY_MAX || buffer_reserve(&w->out, HEADER + len))
        return NULL;
    uint8_t *p = w->out.data + w->out.end;
    wire_set32(p, (uint32_t)type);
    wire_set32(p + 4, (uint32_t)len);
    return p + HEADER;
}

void wire_end(struct wire *w) {
    uint8_t *p = w->out.data + w->out.end;
    size_t len = wire_get32(p + 4);
    wire_set32(p + 8, crc32c(0, p + HEADER, len));
    wire_set32(p + 12, crc32c(0, p, 12));
    w->out.end += HEADER + len;
}

int wire_put(struct wire *w, enum wire_type type, const void *body, size_t len) {
    uint8_t *p = wire_begin(w, type, len);
    if (!p)
        return -ENOMEM;
    if (len)
        memcpy(p, body, len);
    wire_end(w);
    return 0;
}

size_t wire_queued(const struct wire *w) {
    return buffer_used(&w->out);
}

int wire_flush(struct wire *w) {
    while (buffer_used(&w->out)) {
        ssize_t n = send(w->fd, w->out.data + w->out.begin, buffer_used(&w->out), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EWOULDBLOCK ? -EAGAIN : -errno;
        w->out.begin += (size_t)n;
        w->sent += (uint64_t)n;
    }
    return 0;
}

// ---- receiving ----

// How many bytes of the message at the front are still to come; 0 where its length is not known to be right.
static size_t missing(const struct wire *w) {
    size_t have = buffer_used(&w->in);
    const uint8_t *p = w->in.data + w->in.begin;
    if (have < HEADER || wire_get32(p + 12) != crc32c(0, p, 12))
        return 0;
    size_t want = HEADER + (size_t)wire_get32(p + 4);
    return want <= HEADER + WIRE_BODY_MAX && want > have ? want - have : 0;
}

static void drop_taken(struct wire *w) {
    w->in.begin += w->taken;
    w->taken = 0;
}

int wire_fill(struct wire *w) {
    drop_taken(w);
    size_t want = missing(w);
    if (want < READ_STEP)
        want = READ_STEP;
    if (buffer_reserve(&w->in, want))
        return -ENOMEM;
    for (;;) {
        ssize_t n = recv(w->fd, w->in.data + w->in.end, want, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EWOULDBLOCK ? -EAGAIN : -errno;
        if (n == 0)
            return -ECONNRESET;
        w->in.end += (size_t)n;
        w->received += (uint64_t)n;
        return 0;
    }
}

static int check_hello(struct wire *w, const struct wire_message *m, struct error *err) {
    if (m->type != WIRE_HELLO || m->len != HELLO_LEN || memcmp(m->body, magic, sizeof(magic)) != 0)
        return error_set(err, -EINVAL, "the other side is no cicada");
    uint32_t version = wire_get32(m->body + sizeof(magic));
    if (version != WIRE_VERSION)
        return error_set(err, -EINVAL, "the other side speaks version %u of the migration stream, this one %u", version,
                         WIRE_VERSION);
    w->greeted = true;
    return 0;
}

// The message at the front: 1, 0 or -EINVAL.
static int take(struct wire *w, struct wire_message *m, struct error *err) {
    const uint8_t *p = w->in.data + w->in.begin;
    size_t have = buffer_used(&w->in);
    if (have < HEADER)
        return 0;
    uint32_t type = wire_get32(p), len = wire_get32(p + 4);
    if (wire_get32(p + 12) != crc32c(0, p, 12) || len > WIRE_BODY_MAX || type == 0 || type >= WIRE_TYPE_END)
        return error_set(err, -EINVAL, w->greeted ? "damaged stream" : "the other side is no cicada");
    if (have - HEADER < len)
        return 0;
    if (wire_get32(p + 8) != crc32c(0, p + HEADER, len))
        return error_set(err, -EINVAL, "damaged stream: wrong checksum");
    *m = (struct wire_message){.type = (enum wire_type)type, .body = p + HEADER, .len = len};
    w->taken = HEADER + len;
    return 1;
}

int wire_next(struct wire *w, struct wire_message *m, struct error *err) {
    for (;;) {
        drop_taken(w);
        int ret = take(w, m, err);
        if (ret <= 0 || w->greeted)
            return ret;
        ret = check_hello(w, m, err);
        if (ret)
            return ret;
    }
}

// ---- waiting ----

int wire_flush_wait(struct wire *w, int timeout_ms, struct error *err) {
    int64_t until = io_now_ms() + timeout_ms;
    int ret;
    while ((ret = wire_flush(w)) == -EAGAIN)
        if ((ret = io_wait(w->fd, POLLOUT, until)))
            break;
    return ret ? error_set(err, ret, "send to the other side") : 0;
}

int wire_next_wait(struct wire *w, struct wire_message *m, int timeout_ms, struct error *err) {
    int64_t until = io_now_ms() + timeout_ms;
    for (;;) {
        int ret = wire_next(w, m, err);
        if (ret)
            return ret < 0 ? ret : 0;
        ret = io_wait(w->fd, POLLIN, until);
        if (ret == 0)
            ret = wire_fill(w);
        if (ret && ret != -EAGAIN)
            return error_set(err, ret, "receive from the other side");
    }
}
