// SPDX-License-Identifier: Apache-2.0
// Raw images over io_uring.
//
// What the page cache can answer is done before the ring is asked (raw_now.c). The submitting thread (a vCPU) looks for
// completions right after it has entered the kernel: what is done by then needs no second thread to be woken. For that
// time the eventfd is off; when it is on again the queue is looked at once more, so no completion is lost. The rest
// arrives on the event loop through the eventfd.
//
// Invariants: the submission queue is touched under sq_lock, the completion queue under cq_lock, neither held while
// done() runs; inflight counts requests from submit to done.
#define LOG_UNIT "raw"
#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "backend/raw_file.h"
#include "backend/raw_now.h"
#include "util/log.h"

#define ENTRIES    256
#define REAP_BATCH 64

struct raw_uring {
    struct block_backend backend;
    int fd, eventfd;
    struct event_source *source;
    struct io_uring ring;
    pthread_mutex_t sq_lock; // submission side of ring
    pthread_mutex_t cq_lock; // completion side of ring
    struct raw_now now;
    pthread_mutex_t lock;
    pthread_cond_t idle_cond;
    // Under lock:
    struct block_req *submitted, **tail; // until the next kick
    unsigned inflight;
};

static struct raw_uring *from_backend(struct block_backend *b) {
    return (struct raw_uring *)b;
}

// ---- submission ----

static void sqe_fill(struct io_uring_sqe *sqe, int fd, const struct raw_step *s) {
    switch (s->call) {
    case RAW_READV: io_uring_prep_readv(sqe, fd, s->iov, s->niov, s->offset); break;
    case RAW_WRITEV: io_uring_prep_writev(sqe, fd, s->iov, s->niov, s->offset); break;
    case RAW_WRITE: io_uring_prep_write(sqe, fd, s->buf, (unsigned)s->bytes, s->offset); break;
    case RAW_FDATASYNC: io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC); break;
    case RAW_FALLOCATE: io_uring_prep_fallocate(sqe, fd, s->mode, (off_t)s->offset, (off_t)s->bytes); break;
    }
}

// sq_lock held. Full only for a client with more than ENTRIES requests (virtio-blk has no more): the kernel takes what
// is queued, and an error from it passes as soon as memory is free again.
static void sq_push(struct raw_uring *u, struct block_req *req) {
    struct raw_step step;
    struct io_uring_sqe *sqe;
    while (!(sqe = io_uring_get_sqe(&u->ring)))
        io_uring_submit(&u->ring);
    raw_step_next(req, &step);
    sqe_fill(sqe, u->fd, &step);
    io_uring_sqe_set_data(sqe, req);
}

static void uring_submit(struct block_backend *b, struct block_req *req) {
    struct raw_uring *u = from_backend(b);
    req->done = 0;
    req->next = NULL;
    pthread_mutex_lock(&u->lock);
    *u->tail = req;
    u->tail = &req->next;
    u->inflight++;
    pthread_mutex_unlock(&u->lock);
}

static struct block_req *take_submitted(struct raw_uring *u) {
    pthread_mutex_lock(&u->lock);
    struct block_req *list = u->submitted;
    u->submitted = NULL;
    u->tail = &u->submitted;
    pthread_mutex_unlock(&u->lock);
    return list;
}

static void sq_push_list(struct raw_uring *u, struct block_req *list) {
    pthread_mutex_lock(&u->sq_lock);
    while (list) {
        struct block_req *next = list->next;
        sq_push(u, list);
        list = next;
    }
    pthread_mutex_unlock(&u->sq_lock);
}

// EAGAIN and EBUSY mean that the kernel is short of memory or that completions wait to be taken; both pass.
static void sq_flush(struct raw_uring *u) {
    pthread_mutex_lock(&u->sq_lock);
    int ret = io_uring_sq_ready(&u->ring) ? io_uring_submit(&u->ring) : 0;
    pthread_mutex_unlock(&u->sq_lock);
    if (ret < 0 && ret != -EAGAIN && ret != -EBUSY && ret != -EINTR)
        log_error("io_uring_enter: error %d", -ret);
}

// ---- completion ----

// Takes up to REAP_BATCH answers; finished requests become a list, others go on with their next step.
static unsigned cq_take(struct raw_uring *u, struct block_req **list, struct block_req **again) {
    struct io_uring_cqe *cqes[REAP_BATCH];
    struct block_req **tail = list;
    *list = *again = NULL;
    pthread_mutex_lock(&u->cq_lock);
    unsigned n = io_uring_peek_batch_cqe(&u->ring, cqes, REAP_BATCH);
    for (unsigned i = 0; i < n; i++) {
        struct block_req *req = io_uring_cqe_get_data(cqes[i]);
        req->next = NULL;
        if (raw_step_result(req, cqes[i]->res)) {
            *tail = req;
            tail = &req->next;
        } else {
            req->next = *again;
            *again = req;
        }
    }
    io_uring_cq_advance(&u->ring, n);
    pthread_mutex_unlock(&u->cq_lock);
    return n;
}

static void hand_over(struct raw_uring *u, struct block_req *list) {
    unsigned n = 0;
    for (struct block_req *r = list; r; r = r->next)
        n++;
    u->backend.done(u->backend.done_ctx, list);
    pthread_mutex_lock(&u->lock);
    u->inflight -= n;
    if (!u->inflight)
        pthread_cond_broadcast(&u->idle_cond);
    pthread_mutex_unlock(&u->lock);
}

static void reap(struct raw_uring *u) {
    struct block_req *list, *again;
    while (cq_take(u, &list, &again)) {
        if (again) {
            sq_push_list(u, again);
            sq_flush(u);
        }
        if (list)
            hand_over(u, list);
    }
}

static void uring_kick(struct block_backend *b) {
    struct raw_uring *u = from_backend(b);
    struct block_req *rest, *list = raw_now_run(&u->now, u->fd, take_submitted(u), &rest);
    if (rest) {
        sq_push_list(u, rest);
        io_uring_cq_eventfd_toggle(&u->ring, false);
        sq_flush(u);
        reap(u);
        io_uring_cq_eventfd_toggle(&u->ring, true);
        atomic_thread_fence(memory_order_seq_cst);
        reap(u); // what came in before the eventfd was on again
    } else {
        sq_flush(u); // what the kernel refused for want of memory
    }
    if (list)
        hand_over(u, list);
}

static void on_eventfd(void *ctx, uint32_t events) {
    struct raw_uring *u = ctx;
    uint64_t count;
    if (read(u->eventfd, &count, sizeof(count)) < 0 && errno != EAGAIN)
        log_error("read eventfd: %m");
    sq_flush(u); // what the kernel refused for want of memory
    reap(u);
}

// Waits here for the kernel, not for the event loop: drain runs on the loop's own thread.
static void uring_drain(struct block_backend *b) {
    struct raw_uring *u = from_backend(b);
    for (;;) {
        struct timespec until;
        uring_kick(b);
        sq_flush(u);
        reap(u);
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 1000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_mutex_lock(&u->lock);
        bool idle = !u->inflight;
        if (!idle) // another thread may be handing over, or the kernel is at work: look again in a millisecond
            pthread_cond_timedwait(&u->idle_cond, &u->lock, &until);
        pthread_mutex_unlock(&u->lock);
        if (idle)
            return;
    }
}

// ---- life ----

static void uring_destroy(struct block_backend *b) {
    struct raw_uring *u = from_backend(b);
    uring_drain(b);
    event_remove(u->source);
    io_uring_queue_exit(&u->ring);
    close(u->eventfd);
    close(u->fd);
    pthread_mutex_destroy(&u->sq_lock);
    pthread_mutex_destroy(&u->cq_lock);
    pthread_mutex_destroy(&u->lock);
    pthread_cond_destroy(&u->idle_cond);
    free(u);
}

static const struct block_backend_ops uring_ops = {
    .name = "raw-uring",
    .submit = uring_submit,
    .kick = uring_kick,
    .drain = uring_drain,
    .destroy = uring_destroy,
};

static int ring_open(struct raw_uring *u, struct event_loop *loop) {
    struct io_uring_params params = {.flags = IORING_SETUP_CLAMP};
    int ret = io_uring_queue_init_params(ENTRIES, &u->ring, &params);
    if (ret)
        return ret;
    u->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    ret = u->eventfd < 0 ? -errno : io_uring_register_eventfd(&u->ring, u->eventfd);
    if (!ret)
        ret = event_add(loop, u->eventfd, EPOLLIN, on_eventfd, u, &u->source);
    if (!ret)
        return 0;
    if (u->eventfd >= 0)
        close(u->eventfd);
    io_uring_queue_exit(&u->ring);
    return ret;
}

int raw_uring_create(int fd, struct event_loop *loop, struct block_backend **b, struct error *err) {
    struct raw_uring *u = calloc(1, sizeof(*u));
    if (!u)
        return error_set(err, -ENOMEM, "create io_uring");
    u->backend.ops = &uring_ops;
    u->fd = fd;
    u->tail = &u->submitted;
    int ret = ring_open(u, loop);
    if (ret) {
        free(u);
        return error_set(err, ret, "create io_uring");
    }
    pthread_mutex_init(&u->sq_lock, NULL);
    pthread_mutex_init(&u->cq_lock, NULL);
    pthread_mutex_init(&u->lock, NULL);
    pthread_cond_init(&u->idle_cond, NULL);
    *b = &u->backend;
    return 0;
}
