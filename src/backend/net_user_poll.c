// SPDX-License-Identifier: Apache-2.0
// Slirp wants to be asked for its descriptors before each sleep and to be told about all of them after it. Here it is
// asked after each time it ran; its descriptors live in an epoll set of their own, of which the event loop watches
// only the one descriptor, so that one wake-up serves all that are ready.
//
// After frames from the guest the descriptors are looked at once on the thread that sent them, before the set is
// brought up to date: when a bulk transfer to the guest waits for nothing but its acknowledgements, all of it takes
// place on the vCPU's thread and the loop sleeps.
//
// Invariants: between two turns a descriptor is in the set exactly with the events of states[fd]; one that slirp closes
// is taken out before, so that its number can come back.
#define LOG_UNIT "net"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "backend/net_user.h"
#include "util/log.h"

#define NSEC_PER_MSEC UINT64_C(1000000)

static uint32_t to_epoll(int events) {
    return (events & SLIRP_POLL_IN ? EPOLLIN : 0u) | (events & SLIRP_POLL_OUT ? EPOLLOUT : 0u) |
           (events & SLIRP_POLL_PRI ? EPOLLPRI : 0u) | (events & SLIRP_POLL_ERR ? EPOLLERR : 0u) |
           (events & SLIRP_POLL_HUP ? EPOLLHUP : 0u);
}

// poll.h and epoll.h have the same values for these on Linux.
static int from_poll(short revents) {
    return (revents & POLLIN ? SLIRP_POLL_IN : 0) | (revents & POLLOUT ? SLIRP_POLL_OUT : 0) |
           (revents & POLLPRI ? SLIRP_POLL_PRI : 0) | (revents & POLLERR ? SLIRP_POLL_ERR : 0) |
           (revents & POLLHUP ? SLIRP_POLL_HUP : 0);
}

static void fd_watch(struct net_user_poll *p, int fd, uint32_t events) {
    struct epoll_event ev = {.events = events, .data.fd = fd};
    struct fd_state *s = &p->states[fd];
    if (s->events == events)
        return;
    int op = !events ? EPOLL_CTL_DEL : s->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    if (epoll_ctl(p->epfd, op, fd, &ev) < 0 && events) {
        log_warn("watch a socket: %m");
        events = 0;
    }
    s->events = events;
}

static bool list_grow(struct fd_list *l, unsigned count) {
    if (count <= l->capacity)
        return true;
    unsigned capacity = l->capacity ? l->capacity : 32;
    while (capacity < count)
        capacity *= 2;
    struct pollfd *fds = realloc(l->fds, capacity * sizeof(*fds));
    if (!fds)
        return false;
    l->fds = fds;
    l->capacity = capacity;
    return true;
}

static bool states_grow(struct net_user_poll *p, unsigned fd) {
    if (fd < p->nstates)
        return true;
    unsigned n = (fd + 64) & ~63u;
    struct fd_state *states = realloc(p->states, n * sizeof(*states));
    if (!states)
        return false;
    memset(states + p->nstates, 0, (n - p->nstates) * sizeof(*states));
    p->states = states;
    p->nstates = n;
    return true;
}

// Out of memory the descriptor is not watched this time; -1 makes get_revents answer nothing.
static int add_poll(int fd, int events, void *opaque) {
    struct net_user_poll *p = opaque;
    if (fd < 0 || !list_grow(&p->now, p->now.count + 1) || !states_grow(p, (unsigned)fd))
        return -1;
    p->now.fds[p->now.count] = (struct pollfd){.fd = fd, .events = (short)to_epoll(events)};
    return (int)p->now.count++;
}

static int get_revents(int index, void *opaque) {
    struct net_user_poll *p = opaque;
    return index >= 0 && (unsigned)index < p->now.count ? from_poll(p->now.fds[index].revents) : 0;
}

// Asks slirp what it waits for now.
static void ask(struct net_user_poll *p) {
    p->timeout_ms = UINT32_MAX;
    p->now.count = 0;
    slirp_pollfds_fill(p->slirp, &p->timeout_ms, add_poll, p);
}

// How many of the descriptors that slirp has named are ready.
static int look(struct net_user_poll *p) {
    return p->now.count ? poll(p->now.fds, p->now.count, 0) : 0;
}

static void watch_named(struct net_user_poll *p) {
    p->generation++;
    for (unsigned i = 0; i < p->now.count; i++) {
        const struct pollfd *f = &p->now.fds[i];
        struct fd_state *s = &p->states[f->fd];
        uint32_t named_before = s->generation == p->generation ? s->events : 0;
        s->generation = p->generation;
        fd_watch(p, f->fd, named_before | (uint16_t)f->events);
    }
}

static void drop_unnamed(struct net_user_poll *p) {
    for (unsigned i = 0; i < p->watched.count; i++) {
        int fd = p->watched.fds[i].fd;
        if (p->states[fd].generation != p->generation)
            fd_watch(p, fd, 0);
    }
}

// Brings the set and the timer to what slirp has named.
static void sleep_on(struct net_user_poll *p) {
    watch_named(p);
    drop_unnamed(p);
    // Out of memory nothing is known of what is watched: it stays so until slirp closes it.
    p->watched.count = list_grow(&p->watched, p->now.count) ? p->now.count : 0;
    if (p->watched.count)
        memcpy(p->watched.fds, p->now.fds, p->watched.count * sizeof(*p->now.fds));
    if (p->timeout_ms == UINT32_MAX)
        vtimer_cancel(&p->timer);
    else
        vtimer_arm(&p->timer, clock_now_ns(p->clock) + p->timeout_ms * NSEC_PER_MSEC);
}

void net_user_poll_turn(struct net_user_poll *p) {
    if (p->paused)
        return;
    ask(p);
    if (look(p) > 0) {
        slirp_pollfds_poll(p->slirp, false, get_revents, p);
        ask(p);
    }
    sleep_on(p);
}

void net_user_poll_forget(struct net_user_poll *p, int fd) {
    if (fd >= 0 && (unsigned)fd < p->nstates && p->states[fd].events)
        fd_watch(p, fd, 0);
}

// Something is ready, or slirp's time has come.
static void run(struct net_user_poll *p) {
    pthread_mutex_lock(&p->backend->lock);
    if (!p->paused) {
        slirp_pollfds_poll(p->slirp, look(p) < 0, get_revents, p);
        net_received(p->backend);
        ask(p);
        sleep_on(p);
    }
    pthread_mutex_unlock(&p->backend->lock);
}

static void on_ready(void *ctx, uint32_t events) {
    run(ctx);
}
static void on_timer(void *ctx) {
    run(ctx);
}

void net_user_poll_pause(struct net_user_poll *p) {
    pthread_mutex_lock(&p->backend->lock);
    p->paused = true;
    event_modify(p->source, 0);
    vtimer_cancel(&p->timer);
    pthread_mutex_unlock(&p->backend->lock);
}

void net_user_poll_resume(struct net_user_poll *p) {
    pthread_mutex_lock(&p->backend->lock);
    p->paused = false;
    event_modify(p->source, EPOLLIN);
    net_user_poll_turn(p);
    net_received(p->backend);
    pthread_mutex_unlock(&p->backend->lock);
}

int net_user_poll_init(struct net_user_poll *p, struct net_backend *backend, struct event_loop *loop,
                       struct clock *clock) {
    *p = (struct net_user_poll){.backend = backend, .loop = loop, .clock = clock};
    vtimer_init(&p->timer, clock, on_timer, p);
    p->epfd = epoll_create1(EPOLL_CLOEXEC);
    if (p->epfd < 0)
        return -errno;
    int ret = event_add(loop, p->epfd, EPOLLIN, on_ready, p, &p->source);
    if (ret)
        close(p->epfd);
    return ret;
}

void net_user_poll_fini(struct net_user_poll *p) {
    vtimer_fini(&p->timer);
    event_remove(p->source);
    if (p->epfd >= 0)
        close(p->epfd);
    free(p->now.fds);
    free(p->watched.fds);
    free(p->states);
}
