// SPDX-License-Identifier: Apache-2.0
// Doorbells between the engine and the event loop. Invariant: `engine` is compared, never followed: the one that had
// the doorbell may be gone, its doorbells with it.
#include "core/doorbell.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "util/log.h"

static void on_write(void *ctx, uint32_t events) {
    struct doorbell *d = ctx;
    uint64_t count;

    if (read(d->fd, &count, sizeof(count)) == sizeof(count))
        d->ring(d->ctx);
}

int doorbell_init(struct doorbell *d, struct machine *m, bool on_loop, event_fn ring, void *ctx, struct error *err) {
    int r;

    *d = (struct doorbell){.machine = m, .on_loop = on_loop, .ring = ring, .ctx = ctx};
    d->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (d->fd < 0) {
        r = -errno;
        d->machine = NULL;
        return error_set(err, r, "create a doorbell");
    }
    r = event_add(m->loop, d->fd, EPOLLIN, on_write, d, &d->source);
    if (r) {
        doorbell_fini(d);
        return error_set(err, r, "watch a doorbell");
    }
    return 0;
}

void doorbell_remove(struct doorbell *d) {
    struct machine *m = d->machine;

    if (d->engine && d->engine == m->engine)
        m->engine_ops->doorbell_remove(m->engine, d->gpa, d->fd);
    d->engine = NULL;
}

void doorbell_place(struct doorbell *d, gpa_t gpa) {
    struct machine *m = d->machine;
    int r;

    if (d->engine && d->engine == m->engine && d->gpa.v == gpa.v)
        return;
    doorbell_remove(d);
    if (!m->engine || !m->engine_ops->doorbell_add)
        return;
    r = m->engine_ops->doorbell_add(m->engine, gpa, d->fd, d->on_loop);
    if (r == 0) {
        d->engine = m->engine;
        d->gpa = gpa;
    } else if (r != -EOPNOTSUPP) { // its writes come as accesses
        log_debug("doorbell at 0x%llx: error %d", (unsigned long long)gpa.v, r);
    }
}

void doorbell_fini(struct doorbell *d) {
    if (!d->machine)
        return;
    event_remove(d->source);
    close(d->fd);
    *d = (struct doorbell){0};
}
