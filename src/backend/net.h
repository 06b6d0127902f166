// SPDX-License-Identifier: Apache-2.0
// The host end of a network card: Ethernet frames without FCS. Everything runs on the event-loop thread.
#ifndef CICADA_BACKEND_NET_H
#define CICADA_BACKEND_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/clock.h"
#include "core/event.h"
#include "util/error.h"

#define NET_HEADER_BYTES 14    // Ethernet
#define NET_FRAME_MAX    65550 // header and the largest MTU below, with a little room
#define NET_MTU_MAX      65520
// Of the user-mode network: segments of 16 KiB. libslirp knows no window scaling, so a window is below 64 KiB; with
// segments as large as that its avoidance of silly windows (RFC 1122, 4.2.3.4) holds back what does not fill one, for
// the 5 s of its persist timer. Four segments to a window keep both sides going, and cost no more than one does.
#define NET_MTU_USER     (16384 + 40)

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
    void (*send)(struct net_backend *b, struct net_packet *p); // may call receive
    void (*flush)(struct net_backend *b);                      // end of a batch of sends
    void (*pause)(struct net_backend *b);                      // no receive until resume
    void (*resume)(struct net_backend *b);
    void (*destroy)(struct net_backend *b);
};

struct net_backend {
    const struct net_backend_ops *ops;
    unsigned mtu; // bytes
    bool csum;    // send completes checksums, and received frames have been checked
    // Set by the device. Takes or drops the frame; NULL until attached.
    void (*receive)(void *ctx, const uint8_t *frame, size_t len);
    void *receive_ctx;
};

static inline void net_destroy(struct net_backend *b) {
    if (b)
        b->ops->destroy(b);
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
