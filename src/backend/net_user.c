// SPDX-License-Identifier: Apache-2.0
// User-mode network: libslirp terminates the guest's TCP and UDP and opens ordinary sockets of the host for them.
//
// A TCP segment of 64 KiB, as a guest with segmentation offload hands it over, is taken as it is: slirp writes its
// payload to a socket, and nothing in between has a smaller MTU. What slirp sends obeys the guest's MSS.
//
// Invariants: slirp runs with backend.lock held, on the event-loop thread or on that of a vCPU. Its connections are not
// part of the machine's state: a restored machine finds them reset, DHCP and ARP answers are the same again.
#define LOG_UNIT "net"
#include "backend/net_user.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backend/inet_sum.h"
#include "util/log.h"

#define NET_ADDR(host)  htonl(0x0a000200u | (host)) // 10.0.2.host
#define HOST_GATEWAY    2
#define HOST_DNS        3
#define HOST_DHCP_START 15
#define NSEC_PER_MSEC   1000000

struct net_user {
    struct net_backend backend;
    struct net_user_poll poll;
    struct Slirp *slirp;
};

// ---- callbacks of slirp ----

static ssize_t on_packet(const void *buf, size_t len, void *opaque) {
    struct net_user *n = opaque;
    if (n->backend.receive)
        n->backend.receive(n->backend.receive_ctx, buf, len);
    return (ssize_t)len;
}

static void on_guest_error(const char *msg, void *opaque) {
    log_debug("guest: %s", msg);
}

static int64_t on_clock(void *opaque) {
    struct net_user *n = opaque;
    return (int64_t)clock_now_ns(n->poll.clock);
}

struct slirp_timer {
    struct net_user *net;
    struct vtimer vtimer;
    SlirpTimerCb fn;
    void *opaque;
};

static void timer_fired(void *ctx) {
    struct slirp_timer *t = ctx;
    pthread_mutex_lock(&t->net->backend.lock);
    t->fn(t->opaque);
    net_received(&t->net->backend);
    pthread_mutex_unlock(&t->net->backend.lock);
}

static void *on_timer_new(SlirpTimerCb fn, void *fn_opaque, void *opaque) {
    struct net_user *n = opaque;
    struct slirp_timer *t = calloc(1, sizeof(*t));
    if (!t)
        return NULL;
    t->net = n;
    t->fn = fn;
    t->opaque = fn_opaque;
    vtimer_init(&t->vtimer, n->poll.clock, timer_fired, t);
    return t;
}

static void on_timer_free(void *timer, void *opaque) {
    struct slirp_timer *t = timer;
    if (!t)
        return;
    vtimer_fini(&t->vtimer);
    free(t);
}

static void on_timer_mod(void *timer, int64_t expire_ms, void *opaque) {
    struct slirp_timer *t = timer;
    if (t)
        vtimer_arm(&t->vtimer, expire_ms > 0 ? (uint64_t)expire_ms * NSEC_PER_MSEC : 0);
}

static void on_register(int fd, void *opaque) {}

static void on_unregister(int fd, void *opaque) {
    struct net_user *n = opaque;
    net_user_poll_forget(&n->poll, fd);
}

static void on_notify(void *opaque) {} // every run of slirp is followed by an update anyway

static const SlirpCb callbacks = {
    .send_packet = on_packet,
    .guest_error = on_guest_error,
    .clock_get_ns = on_clock,
    .timer_new = on_timer_new,
    .timer_free = on_timer_free,
    .timer_mod = on_timer_mod,
    .register_poll_fd = on_register,
    .unregister_poll_fd = on_unregister,
    .notify = on_notify,
};

// ---- sending ----

static void checksum_complete(struct net_packet *p) {
    uint16_t sum = (uint16_t)~inet_sum(p->data + p->csum_start, p->len - p->csum_start);
    if (!sum)
        sum = 0xffff; // zero means "none" to UDP; to TCP both are zero
    p->data[p->csum_start + p->csum_offset] = (uint8_t)(sum >> 8);
    p->data[p->csum_start + p->csum_offset + 1] = (uint8_t)sum;
}

static void user_send(struct net_backend *b, struct net_packet *p) {
    struct net_user *n = (struct net_user *)b;
    if (p->len < NET_HEADER_BYTES)
        return;
    if (p->needs_csum)
        checksum_complete(p);
    slirp_input(n->slirp, p->data, (int)p->len);
}

static void user_flush(struct net_backend *b) {
    net_user_poll_turn(&((struct net_user *)b)->poll);
}
static void user_pause(struct net_backend *b) {
    net_user_poll_pause(&((struct net_user *)b)->poll);
}
static void user_resume(struct net_backend *b) {
    net_user_poll_resume(&((struct net_user *)b)->poll);
}

static void user_destroy(struct net_backend *b) {
    struct net_user *n = (struct net_user *)b;
    n->backend.receive = NULL;
    n->backend.received = NULL;
    if (n->slirp)
        slirp_cleanup(n->slirp);
    net_user_poll_fini(&n->poll);
    pthread_mutex_destroy(&n->backend.lock);
    free(n);
}

static const struct net_backend_ops user_ops = {
    .name = "user",
    .send = user_send,
    .flush = user_flush,
    .pause = user_pause,
    .resume = user_resume,
    .destroy = user_destroy,
};

// ---- opening ----

static int parse_addr(const char *text, uint32_t otherwise, struct in_addr *addr, struct error *err) {
    addr->s_addr = otherwise;
    if (text && inet_pton(AF_INET, text, addr) != 1)
        return error_set(err, -EINVAL, "port forwarding: '%s' is not an IPv4 address", text);
    return 0;
}

static int add_forward(struct net_user *n, const struct net_forward *f, struct error *err) {
    struct in_addr host, guest;
    int ret = parse_addr(f->host_addr, htonl(INADDR_LOOPBACK), &host, err);
    if (!ret)
        ret = parse_addr(f->guest_addr, NET_ADDR(HOST_DHCP_START), &guest, err);
    if (ret)
        return ret;
    errno = 0;
    if (slirp_add_hostfwd(n->slirp, f->udp, host, f->host_port, guest, f->guest_port) < 0)
        return error_set(err, errno ? -errno : -EADDRINUSE, "forward %s port %u of the host", f->udp ? "UDP" : "TCP",
                         f->host_port);
    return 0;
}

static struct Slirp *slirp_open(struct net_user *n, const struct net_user_options *opt) {
    const SlirpConfig config = {
        .version = 1,
        .restricted = opt->restricted,
        .in_enabled = true,
        .vnetwork.s_addr = NET_ADDR(0),
        .vnetmask.s_addr = htonl(0xffffff00),
        .vhost.s_addr = NET_ADDR(HOST_GATEWAY),
        .vdhcp_start.s_addr = NET_ADDR(HOST_DHCP_START),
        .vnameserver.s_addr = NET_ADDR(HOST_DNS),
        .if_mtu = n->backend.mtu,
        .if_mru = n->backend.mtu,
    };
    return slirp_new(&config, &callbacks, n);
}

static int user_start(struct net_user *n, const struct net_user_options *opt, struct error *err) {
    n->slirp = n->poll.slirp = slirp_open(n, opt);
    if (!n->slirp)
        return error_set(err, -EINVAL, "create user-mode network with an MTU of %u", n->backend.mtu);
    for (unsigned i = 0; i < opt->nforwards; i++) {
        int ret = add_forward(n, &opt->forwards[i], err);
        if (ret)
            return ret;
    }
    net_user_poll_turn(&n->poll);
    return 0;
}

int net_user_open(const struct net_user_options *opt, struct event_loop *loop, struct clock *clock,
                  struct net_backend **b, struct error *err) {
    struct net_user *n = calloc(1, sizeof(*n));
    if (!n)
        return error_set(err, -ENOMEM, "create user-mode network");
    n->backend.ops = &user_ops;
    n->backend.mtu = !opt->mtu ? NET_MTU_USER : opt->mtu < NET_MTU_MAX ? opt->mtu : NET_MTU_MAX;
    n->backend.csum = n->backend.tso = true;
    pthread_mutex_init(&n->backend.lock, NULL);
    int ret = net_user_poll_init(&n->poll, &n->backend, loop, clock);
    if (ret) {
        vtimer_fini(&n->poll.timer);
        pthread_mutex_destroy(&n->backend.lock);
        free(n);
        return error_set(err, ret, "create user-mode network");
    }
    ret = user_start(n, opt, err);
    if (ret) {
        user_destroy(&n->backend);
        return ret;
    }
    *b = &n->backend;
    return 0;
}
