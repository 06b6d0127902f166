// SPDX-License-Identifier: Apache-2.0
// Between net_user.c (the network) and net_user_poll.c (its descriptors and timers on the event loop).
#ifndef CICADA_BACKEND_NET_USER_H
#define CICADA_BACKEND_NET_USER_H

#include <poll.h>
#include <slirp/libslirp.h>

#include "backend/net.h"

struct fd_list {
    struct pollfd *fds;
    unsigned count, capacity;
};

struct fd_state {
    uint32_t events;     // in epfd, 0: not there
    uint32_t generation; // of the last update that named the descriptor
};

// Under backend->lock.
struct net_user_poll {
    struct net_backend *backend;
    struct Slirp *slirp;
    struct event_loop *loop;
    struct clock *clock;
    int epfd; // holds slirp's descriptors; itself watched by the event loop
    struct event_source *source;
    struct vtimer timer;
    struct fd_list now;      // what slirp has named last
    struct fd_list watched;  // what it had named when the set was brought up to date
    uint32_t timeout_ms;     // of the last naming, UINT32_MAX: none
    struct fd_state *states; // by descriptor number
    unsigned nstates;
    uint32_t generation;
    bool paused;
};

int net_user_poll_init(struct net_user_poll *p, struct net_backend *backend, struct event_loop *loop,
                       struct clock *clock);
void net_user_poll_fini(struct net_user_poll *p);
// With the lock held: serves what is ready, and learns what slirp waits for. After everything that may have changed
// that.
void net_user_poll_turn(struct net_user_poll *p);
void net_user_poll_forget(struct net_user_poll *p, int fd); // about to be closed; with the lock held
// These two take the lock; loop thread.
void net_user_poll_pause(struct net_user_poll *p);
void net_user_poll_resume(struct net_user_poll *p);

#endif
