// SPDX-License-Identifier: Apache-2.0
// Raw images through one worker thread, for hosts that forbid io_uring (many containers do). It gets what would wait.
//
// Invariants: submitted, waiting, finished, inflight and quit are under lock; the worker calls into the kernel without
// it and hands finished requests to the event loop, which calls done().
#define LOG_UNIT "raw"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "backend/raw_file.h"
#include "backend/raw_now.h"
#include "util/log.h"
#include "util/thread.h"

struct req_list {
    struct block_req *head, **tail;
};

struct raw_thread {
    struct block_backend backend;
    int fd, eventfd;
    struct raw_now now;
    struct event_source *source;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t work, idle; // something waits or quit; something finished
    struct req_list submitted, waiting, finished;
    unsigned inflight;
    bool quit;
};

static struct raw_thread *from_backend(struct block_backend *b) {
    return (struct raw_thread *)b;
}

static void list_init(struct req_list *l) {
    l->head = NULL;
    l->tail = &l->head;
}

static void list_add(struct req_list *l, struct block_req *req) {
    req->next = NULL;
    *l->tail = req;
    l->tail = &req->next;
}

static struct block_req *list_take_all(struct req_list *l) {
    struct block_req *head = l->head;
    list_init(l);
    return head;
}

// ---- worker ----

static void req_run(int fd, struct block_req *req) {
    struct raw_step step;
    do
        raw_step_next(req, &step);
    while (!raw_step_result(req, raw_step_run(fd, &step)));
}

static void wake_loop(struct raw_thread *t) {
    const uint64_t one = 1;
    if (write(t->eventfd, &one, sizeof(one)) < 0 && errno != EAGAIN)
        log_error("write eventfd: %m");
}

static void *worker(void *arg) {
    struct raw_thread *t = arg;
    pthread_mutex_lock(&t->lock);
    for (;;) {
        while (!t->waiting.head && !t->quit)
            pthread_cond_wait(&t->work, &t->lock);
        if (!t->waiting.head)
            break;
        struct block_req *req = t->waiting.head;
        t->waiting.head = req->next;
        if (!req->next)
            list_init(&t->waiting);
        pthread_mutex_unlock(&t->lock);
        req_run(t->fd, req);
        pthread_mutex_lock(&t->lock);
        bool first = !t->finished.head;
        list_add(&t->finished, req);
        pthread_cond_broadcast(&t->idle);
        if (first)
            wake_loop(t);
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

// ---- the device's side ----

static void thread_submit(struct block_backend *b, struct block_req *req) {
    struct raw_thread *t = from_backend(b);
    req->done = 0;
    pthread_mutex_lock(&t->lock);
    list_add(&t->submitted, req);
    t->inflight++;
    pthread_mutex_unlock(&t->lock);
}

// Lock held; drops it while done() runs.
static void hand_over(struct raw_thread *t, struct block_req *list) {
    unsigned n = 0;
    for (struct block_req *r = list; r; r = r->next)
        n++;
    if (!list)
        return;
    pthread_mutex_unlock(&t->lock);
    t->backend.done(t->backend.done_ctx, list);
    pthread_mutex_lock(&t->lock);
    t->inflight -= n;
    if (!t->inflight)
        pthread_cond_broadcast(&t->idle);
}

static void thread_kick(struct block_backend *b) {
    struct raw_thread *t = from_backend(b);
    struct block_req *rest;
    pthread_mutex_lock(&t->lock);
    struct block_req *list = list_take_all(&t->submitted);
    pthread_mutex_unlock(&t->lock);
    list = raw_now_run(&t->now, t->fd, list, &rest);
    pthread_mutex_lock(&t->lock);
    if (rest)
        pthread_cond_signal(&t->work);
    while (rest) {
        struct block_req *next = rest->next;
        list_add(&t->waiting, rest);
        rest = next;
    }
    hand_over(t, list);
    pthread_mutex_unlock(&t->lock);
}

static void on_eventfd(void *ctx, uint32_t events) {
    struct raw_thread *t = ctx;
    uint64_t count;
    if (read(t->eventfd, &count, sizeof(count)) < 0 && errno != EAGAIN)
        log_error("read eventfd: %m");
    pthread_mutex_lock(&t->lock);
    hand_over(t, list_take_all(&t->finished));
    pthread_mutex_unlock(&t->lock);
}

static void thread_drain(struct block_backend *b) {
    struct raw_thread *t = from_backend(b);
    thread_kick(b);
    pthread_mutex_lock(&t->lock);
    while (t->inflight) {
        if (t->finished.head)
            hand_over(t, list_take_all(&t->finished));
        else
            pthread_cond_wait(&t->idle, &t->lock);
    }
    pthread_mutex_unlock(&t->lock);
}

// ---- life ----

static void thread_free(struct raw_thread *t) {
    event_remove(t->source);
    if (t->eventfd >= 0)
        close(t->eventfd);
    pthread_mutex_destroy(&t->lock);
    pthread_cond_destroy(&t->work);
    pthread_cond_destroy(&t->idle);
    free(t);
}

static void thread_destroy(struct block_backend *b) {
    struct raw_thread *t = from_backend(b);
    thread_drain(b);
    pthread_mutex_lock(&t->lock);
    t->quit = true;
    pthread_cond_signal(&t->work);
    pthread_mutex_unlock(&t->lock);
    pthread_join(t->thread, NULL);
    close(t->fd);
    thread_free(t);
}

static const struct block_backend_ops thread_ops = {
    .name = "raw-thread",
    .submit = thread_submit,
    .kick = thread_kick,
    .drain = thread_drain,
    .destroy = thread_destroy,
};

int raw_thread_create(int fd, struct event_loop *loop, struct block_backend **b, struct error *err) {
    struct raw_thread *t = calloc(1, sizeof(*t));
    if (!t)
        return error_set(err, -ENOMEM, "create I/O thread");
    t->backend.ops = &thread_ops;
    t->fd = fd;
    list_init(&t->submitted);
    list_init(&t->waiting);
    list_init(&t->finished);
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->work, NULL);
    pthread_cond_init(&t->idle, NULL);
    t->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int ret = t->eventfd < 0 ? -errno : event_add(loop, t->eventfd, EPOLLIN, on_eventfd, t, &t->source);
    if (!ret)
        ret = thread_start(&t->thread, worker, t);
    if (ret) {
        thread_free(t);
        return error_set(err, ret, "create I/O thread");
    }
    *b = &t->backend;
    return 0;
}
