// SPDX-License-Identifier: Apache-2.0
// Merging of received TCP segments. The rules are those that keep a merged packet equal to what was merged: taken
// apart again at `segment` bytes, it gives the same segments, but for the identification of the IP header.
//
// Invariants: all frames in a packet have the same Ethernet, IP and TCP headers but for length, identification,
// sequence number, PSH and checksums; all have `segment` bytes of payload but the last, which may have fewer.
#include "virtio/net_merge.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <string.h>

#include "backend/inet_sum.h"

#define IP_AT     ETH_HLEN
#define TCP_AT    (IP_AT + sizeof(struct iphdr)) // without options
#define TCP_FLAGS 13                             // offset in the header
#define LEN_MAX   (IP_AT + (size_t)UINT16_MAX)

struct segment {
    struct iphdr ip;
    struct tcphdr tcp;
    size_t payload_at, payload; // bytes
};

// False for what is no whole segment with payload that carries no other flag than ACK and PSH.
static bool parse(const uint8_t *frame, size_t len, struct segment *s) {
    if (len < TCP_AT + sizeof(s->tcp) || frame[12] != ETH_P_IP >> 8 || frame[13] != (ETH_P_IP & 0xff))
        return false;
    memcpy(&s->ip, frame + IP_AT, sizeof(s->ip));
    memcpy(&s->tcp, frame + TCP_AT, sizeof(s->tcp));
    s->payload_at = TCP_AT + s->tcp.doff * 4u;
    if (s->ip.version != 4 || s->ip.ihl != 5 || s->ip.protocol != IPPROTO_TCP ||
        ntohs(s->ip.frag_off) & (IP_MF | IP_OFFMASK) || IP_AT + (size_t)ntohs(s->ip.tot_len) != len)
        return false;
    if (s->tcp.doff < 5 || s->payload_at >= len)
        return false;
    s->payload = len - s->payload_at;
    return (frame[TCP_AT + TCP_FLAGS] & ~TH_PUSH) == TH_ACK && s->tcp.res1 == 0;
}

static bool follows(const struct net_merge *m, const uint8_t *frame, const struct segment *s) {
    struct segment first;
    memcpy(&first.ip, m->frame + IP_AT, sizeof(first.ip));
    memcpy(&first.tcp, m->frame + TCP_AT, sizeof(first.tcp));
    return !m->complete && ntohl(s->tcp.seq) == m->next_seq && s->payload <= m->segment &&
           s->payload <= LEN_MAX - m->len && s->payload_at == m->payload_at && memcmp(frame, m->frame, ETH_HLEN) == 0 &&
           first.ip.saddr == s->ip.saddr && first.ip.daddr == s->ip.daddr && first.ip.tos == s->ip.tos &&
           first.ip.ttl == s->ip.ttl && first.ip.frag_off == s->ip.frag_off && first.tcp.source == s->tcp.source &&
           first.tcp.dest == s->tcp.dest && first.tcp.ack_seq == s->tcp.ack_seq && first.tcp.window == s->tcp.window &&
           memcmp(frame + TCP_AT + sizeof(s->tcp), m->frame + TCP_AT + sizeof(s->tcp),
                  s->payload_at - TCP_AT - sizeof(s->tcp)) == 0;
}

static void append(struct net_merge *m, const uint8_t *frame, const struct segment *s) {
    memcpy(m->frame + m->len, frame + s->payload_at, s->payload);
    m->frame[TCP_AT + TCP_FLAGS] |= frame[TCP_AT + TCP_FLAGS]; // PSH of the last
    m->len += s->payload;
}

static void begin(struct net_merge *m, const uint8_t *frame, size_t len, const struct segment *s) {
    memcpy(m->frame, frame, len);
    m->len = len;
    m->payload_at = s->payload_at;
    m->segment = s->payload;
    m->count = 0;
    m->complete = false;
    m->next_seq = ntohl(s->tcp.seq);
}

bool net_merge_add(struct net_merge *m, const uint8_t *frame, size_t len) {
    struct segment s;
    if (len > LEN_MAX || !parse(frame, len, &s))
        return false;
    if (!m->len)
        begin(m, frame, len, &s);
    else if (follows(m, frame, &s))
        append(m, frame, &s);
    else
        return false;
    m->count++;
    m->next_seq += (uint32_t)s.payload;
    m->complete = s.payload < m->segment || s.tcp.psh;
    return true;
}

// ---- taking ----

static void put16(uint8_t *p, uint16_t v) {
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static void ip_finish(struct net_merge *m, size_t len) {
    uint8_t *ip = m->frame + IP_AT;
    put16(ip + offsetof(struct iphdr, tot_len), (uint16_t)(len - IP_AT));
    put16(ip + offsetof(struct iphdr, check), 0);
    put16(ip + offsetof(struct iphdr, check), (uint16_t)~inet_sum(ip, sizeof(struct iphdr)));
}

// The checksum over the payload is left to whoever needs it: the field holds the sum of the pseudo header.
static void tcp_finish(struct net_merge *m, size_t len) {
    uint16_t sum = inet_sum(m->frame + IP_AT + offsetof(struct iphdr, saddr), 8);
    sum = inet_sum_add(sum, IPPROTO_TCP);
    sum = inet_sum_add(sum, (uint16_t)(len - TCP_AT));
    put16(m->frame + TCP_AT + offsetof(struct tcphdr, check), sum);
}

size_t net_merge_take(struct net_merge *m, struct virtio_net_hdr_v1 *hdr) {
    size_t len = m->len;
    m->len = 0;
    *hdr = (struct virtio_net_hdr_v1){.flags = VIRTIO_NET_HDR_F_DATA_VALID};
    if (!len || m->count == 1)
        return len;
    ip_finish(m, len);
    tcp_finish(m, len);
    *hdr = (struct virtio_net_hdr_v1){
        .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
        .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
        .hdr_len = (uint16_t)m->payload_at,
        .gso_size = (uint16_t)m->segment,
        .csum_start = TCP_AT,
        .csum_offset = offsetof(struct tcphdr, check),
    };
    return len;
}

void net_merge_clear(struct net_merge *m) {
    m->len = 0;
}
