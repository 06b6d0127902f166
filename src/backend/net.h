// SPDX-License-Identifier: Apache-2.0
// The host end of a network card: Ethernet frames without FCS.
//
// Lock order: backend->lock, then the device's. Frames go both ways on any thread that holds backend->lock, so that a
// vCPU which sends finds the answers of a user-mode network in its ring without a switch to another thread.
#ifndef CICADA_BACKEND_NET_H
#define CICADA_BACKEND_NET_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/clock.h"
#include "core/event.h"
#include "util/error.h"

#define NET_HEADER_BYTES 14    // Ethernet
#define NET_FRAME_MAX    65550 // header and the largest MTU below, with a little room
#define NET_MTU_MAX      65520
// Of the user-mode network: segments of 16380 bytes. libslirp knows no window scaling, so a window is below 64 KiB;
// with segments as large as that its avoidance of silly windows (RFC 1122, 4.2.3.4) holds back what does not fill one,
// for the 5 s of its persist timer. Four of these fit into a window, and two into the half of it that Linux puts into
// one packet.
#define NET_MTU_USER     (16380 + 40)

struct net_packet {
    uint8_t *data; // of the caller, who may read it changed afterwards
    size_t len;
    // The Internet checksum over [csum_start, len) is still to be put at csum_start + csum_offset, which holds the
    // pseudo-header's sum. In range: the device has checked it.
    bool needs_csum;
    uint16_t csum_start, csum_offset;
};

struct net_backend;

struct net_backend_ops {
    const char *name;
    // Any thread, with the lock held.
    void (*send)(struct net_backend *b, struct net_packet *p); // may call receive
    void (*flush)(struct net_backend *b);                      // end of a batch of sends
    // Loop thread, no lock held.
    void (*pause)(struct net_backend *b); // no receive until resume
    void (*resume)(struct net_backend *b);
    void (*destroy)(struct net_backend *b);
};

struct net_backend {
    const struct net_backend_ops *ops;
    pthread_mutex_t lock; // of the backend, which makes and destroys it
    unsigned mtu;         // bytes
    bool csum;            // send completes checksums, and received frames have been checked
    bool tso;             // send takes TCP packets larger than the MTU, up to 64 KiB, as if they were segments
    // Set by the device, both NULL until attached; called with the lock held.
    void (*receive)(void *ctx, const uint8_t *frame, size_t len); // takes or drops the frame
    void (*received)(void *ctx);                                  // end of a run of receive; not from inside send
    void *receive_ctx;
};

static inline void net_destroy(struct net_backend *b) {
    if (b)
        b->ops->destroy(b);
}

static inline void net_received(struct net_backend *b) {
    if (b->received)
        b->received(b->receive_ctx);
}

struct net_forward {
    bool udp;
    const char *host_addr; // IPv4 to listen on; NULL: 127.0.0.1
    uint16_t host_port;
    const char *guest_addr; // NULL: 10.0.2.15, what DHCP gives the guest
    uint16_t guest_port;
};

struct net_user_options {
    const struct net_forward *forwards;
    unsigned nforwards;
    unsigned mtu;    // 0: NET_MTU_USER
    bool restricted; // nothing but the forwards
};

// User-mode network 10.0.2.0/24: gateway and host 10.0.2.2, DNS 10.0.2.3, guest 10.0.2.15 by DHCP. Opens sockets on the
// guest's behalf while it runs, and reads /etc/resolv.conf when the guest asks for names. A port that is taken is an
// error that names it.
int net_user_open(const struct net_user_options *opt, struct event_loop *loop, struct clock *clock,
                  struct net_backend **b, struct error *err);

#endif
