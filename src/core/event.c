// SPDX-License-Identifier: Apache-2.0
// The event loop: epoll for file descriptors, an eventfd for posts and quitting, one timerfd for all timers.
//
// Invariants: one mutex guards every field below it, and no callback runs with it held. A removed source is freed
// only between two batches of epoll events, since the batch may still name it. programmed_ns is the deadline
// the timerfd holds; it may be up to SLACK_NS earlier than the earliest timer (after a cancel or a move to later: the
// loop then wakes once for nothing), never later. So re-arming a timer to a little later, what busy guests do most,
// costs no system call, and one that goes idle and puts its next tick off does not wake the loop.
#define LOG_UNIT "event"
#include "core/event.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "core/timer_heap.h"
#include "util/log.h"

#define NSEC_PER_SEC 1000000000ull
#define NEVER        UINT64_MAX
#define BATCH        32
#define SLACK_NS     8000000ull
// Timers fired between two looks at the file descriptors: a guest that programs a tiny period cannot starve them.
#define TIMER_BATCH  64

struct event_source {
    struct event_loop *loop;
    int fd;
    event_fd_fn fn;
    void *ctx;
    bool dead;                         // removed; under lock
    struct event_source *next, **prev; // all sources, or the dead ones (then prev is unused); under lock
};

struct post {
    event_fn fn;
    void *ctx;
    struct post *next;
};

struct event_loop {
    int epfd, wakefd, timerfd;
    pthread_mutex_t lock;
    struct event_source *sources, *dead;
    struct post *posts, **posts_tail;
    struct timer_heap timers;
    uint64_t programmed_ns;
    bool quit;
    int quit_value;
};

uint64_t event_now_ns(void) {
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

// ---- creation ----

static int watch_own(struct event_loop *loop, int *fd) {
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = fd};

    return epoll_ctl(loop->epfd, EPOLL_CTL_ADD, *fd, &ev) < 0 ? -errno : 0;
}

int event_loop_create(struct event_loop **out, struct error *err) {
    struct event_loop *loop = calloc(1, sizeof(*loop));
    int ret = 0;

    if (!loop)
        return error_set(err, -ENOMEM, "create event loop");
    pthread_mutex_init(&loop->lock, NULL);
    loop->posts_tail = &loop->posts;
    loop->programmed_ns = NEVER;
    loop->wakefd = loop->timerfd = -1;
    loop->epfd = epoll_create1(EPOLL_CLOEXEC);
    if (loop->epfd >= 0)
        loop->wakefd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (loop->wakefd >= 0)
        loop->timerfd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (loop->timerfd < 0)
        ret = -errno;
    if (!ret)
        ret = watch_own(loop, &loop->wakefd);
    if (!ret)
        ret = watch_own(loop, &loop->timerfd);
    if (ret) {
        event_loop_destroy(loop);
        return error_set(err, ret, "create event loop");
    }
    *out = loop;
    return 0;
}

static void sources_free(struct event_source *s) {
    while (s) {
        struct event_source *next = s->next;

        free(s);
        s = next;
    }
}

// Posts not yet run are dropped. Timers belong to their owners, which must not use them afterwards.
void event_loop_destroy(struct event_loop *loop) {
    if (!loop)
        return;
    sources_free(loop->sources);
    sources_free(loop->dead);
    while (loop->posts) {
        struct post *p = loop->posts;

        loop->posts = p->next;
        free(p);
    }
    const int fds[] = {loop->timerfd, loop->wakefd, loop->epfd};
    for (unsigned i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
        if (fds[i] >= 0)
            close(fds[i]);
    pthread_mutex_destroy(&loop->lock);
    free(loop);
}

// ---- posts and quitting ----

static void loop_wake(struct event_loop *loop) {
    const uint64_t one = 1;

    // EAGAIN only with the counter at its maximum: then the loop is awake anyway.
    if (write(loop->wakefd, &one, sizeof(one)) < 0 && errno != EAGAIN)
        log_error("wake event loop: %m");
}

void event_loop_quit(struct event_loop *loop, int value) {
    pthread_mutex_lock(&loop->lock);
    if (!loop->quit) {
        loop->quit = true;
        loop->quit_value = value;
    }
    pthread_mutex_unlock(&loop->lock);
    loop_wake(loop);
}

int event_post(struct event_loop *loop, event_fn fn, void *ctx) {
    struct post *p = malloc(sizeof(*p));

    if (!p)
        return -ENOMEM;
    *p = (struct post){.fn = fn, .ctx = ctx};
    pthread_mutex_lock(&loop->lock);
    bool was_empty = !loop->posts;
    *loop->posts_tail = p;
    loop->posts_tail = &p->next;
    pthread_mutex_unlock(&loop->lock);
    // Who finds the queue not empty knows that the wake-up of its first entry is still to be seen.
    if (was_empty)
        loop_wake(loop);
    return 0;
}

// Takes the whole queue at once: a post that posts again runs after the file descriptors had their turn.
static void run_posts(struct event_loop *loop) {
    uint64_t count;

    if (read(loop->wakefd, &count, sizeof(count)) < 0 && errno != EAGAIN)
        log_error("read eventfd: %m");
    pthread_mutex_lock(&loop->lock);
    struct post *p = loop->posts;
    loop->posts = NULL;
    loop->posts_tail = &loop->posts;
    pthread_mutex_unlock(&loop->lock);
    while (p) {
        struct post *next = p->next;

        p->fn(p->ctx);
        free(p);
        p = next;
    }
}

// ---- file descriptors ----

int event_add(struct event_loop *loop, int fd, uint32_t events, event_fd_fn fn, void *ctx, struct event_source **src) {
    struct event_source *s = malloc(sizeof(*s));
    int ret = 0;

    if (!s)
        return -ENOMEM;
    *s = (struct event_source){.loop = loop, .fd = fd, .fn = fn, .ctx = ctx};
    struct epoll_event ev = {.events = events, .data.ptr = s};
    pthread_mutex_lock(&loop->lock);
    if (epoll_ctl(loop->epfd, EPOLL_CTL_ADD, fd, &ev) < 0) {
        ret = -errno;
        free(s);
    } else {
        s->next = loop->sources;
        s->prev = &loop->sources;
        if (s->next)
            s->next->prev = &s->next;
        loop->sources = s;
        *src = s;
    }
    pthread_mutex_unlock(&loop->lock);
    return ret;
}

int event_modify(struct event_source *src, uint32_t events) {
    struct epoll_event ev = {.events = events, .data.ptr = src};

    return epoll_ctl(src->loop->epfd, EPOLL_CTL_MOD, src->fd, &ev) < 0 ? -errno : 0;
}

void event_remove(struct event_source *src) {
    if (!src)
        return;
    struct event_loop *loop = src->loop;

    pthread_mutex_lock(&loop->lock);
    epoll_ctl(loop->epfd, EPOLL_CTL_DEL, src->fd, NULL);
    *src->prev = src->next;
    if (src->next)
        src->next->prev = src->prev;
    src->dead = true;
    src->next = loop->dead;
    loop->dead = src;
    pthread_mutex_unlock(&loop->lock);
}

static void source_call(struct event_source *s, uint32_t events) {
    pthread_mutex_lock(&s->loop->lock);
    bool dead = s->dead;
    pthread_mutex_unlock(&s->loop->lock);
    if (!dead)
        s->fn(s->ctx, events);
}

static void bury_dead(struct event_loop *loop) {
    pthread_mutex_lock(&loop->lock);
    struct event_source *dead = loop->dead;
    loop->dead = NULL;
    pthread_mutex_unlock(&loop->lock);
    sources_free(dead);
}

// ---- timers ----

// Makes the timerfd expire no later than the earliest timer, and not much earlier. Under lock.
static void timerfd_program(struct event_loop *loop) {
    uint64_t at = loop->timers.root ? loop->timers.root->deadline_ns : NEVER;

    if (at >= loop->programmed_ns && at - loop->programmed_ns <= SLACK_NS)
        return;
    loop->programmed_ns = at;
    if (at == 0)
        at = 1; // zero would disarm
    else if (at == NEVER)
        at = 0;
    struct itimerspec its = {.it_value = {(time_t)(at / NSEC_PER_SEC), (long)(at % NSEC_PER_SEC)}};
    if (timerfd_settime(loop->timerfd, TFD_TIMER_ABSTIME, &its, NULL) < 0)
        log_error("arm timer: %m");
}

void event_timer_init(struct event_timer *t, struct event_loop *loop, event_fn fn, void *ctx) {
    *t = (struct event_timer){.loop = loop, .fn = fn, .ctx = ctx, .deadline_ns = NEVER};
}

static void timer_disarm(struct event_timer *t) {
    if (!t->armed)
        return;
    timer_heap_remove(&t->loop->timers, t);
    t->armed = false;
}

void event_timer_arm(struct event_timer *t, uint64_t deadline_ns) {
    pthread_mutex_lock(&t->loop->lock);
    timer_disarm(t);
    t->deadline_ns = deadline_ns;
    t->armed = true;
    timer_heap_insert(&t->loop->timers, t);
    timerfd_program(t->loop);
    pthread_mutex_unlock(&t->loop->lock);
}

void event_timer_cancel(struct event_timer *t) {
    pthread_mutex_lock(&t->loop->lock);
    timer_disarm(t);
    timerfd_program(t->loop);
    pthread_mutex_unlock(&t->loop->lock);
}

static void run_timers(struct event_loop *loop) {
    uint64_t count, now = event_now_ns();

    if (read(loop->timerfd, &count, sizeof(count)) < 0 && errno != EAGAIN)
        log_error("read timer: %m");
    pthread_mutex_lock(&loop->lock);
    for (int i = 0; i < TIMER_BATCH; i++) {
        struct event_timer *t = loop->timers.root;

        if (!t || t->deadline_ns > now)
            break;
        timer_disarm(t);
        event_fn fn = t->fn;
        void *ctx = t->ctx;
        pthread_mutex_unlock(&loop->lock);
        fn(ctx); // may free t
        pthread_mutex_lock(&loop->lock);
    }
    loop->programmed_ns = NEVER; // has expired: what is left, even in the past, arms it again
    timerfd_program(loop);
    pthread_mutex_unlock(&loop->lock);
}

// ---- the loop ----

static void dispatch(struct event_loop *loop, const struct epoll_event *ev) {
    if (ev->data.ptr == &loop->wakefd)
        run_posts(loop);
    else if (ev->data.ptr == &loop->timerfd)
        run_timers(loop);
    else
        source_call(ev->data.ptr, ev->events);
}

// True once when a quit was asked for; the loop can then be run again.
static bool take_quit(struct event_loop *loop, int *value) {
    pthread_mutex_lock(&loop->lock);
    bool quit = loop->quit;
    *value = loop->quit_value;
    loop->quit = false;
    pthread_mutex_unlock(&loop->lock);
    return quit;
}

int event_loop_run(struct event_loop *loop) {
    struct epoll_event evs[BATCH];
    int value;

    while (!take_quit(loop, &value)) {
        int n = epoll_wait(loop->epfd, evs, BATCH, -1);

        if (n < 0 && errno != EINTR) {
            value = -errno;
            log_error("epoll_wait: %m");
            return value;
        }
        for (int i = 0; i < n; i++)
            dispatch(loop, &evs[i]);
        bury_dead(loop);
    }
    return value;
}
