// SPDX-License-Identifier: Apache-2.0
// The one source of what a guest cannot compute: a serial port that is always ready, a port that ends the guest, and
// nothing else. No time passes here. Who makes an access first is answered and logged, the other one is checked.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lockstep/lockstep.h"

#define COM1_DATA  0x3f8
#define COM1_LSR   0x3fd
#define LSR_READY  0x60 // transmitter and holding register empty
#define DEBUG_EXIT 0xf4

static uint32_t port_read(uint16_t port) {
    return port == COM1_LSR ? LSR_READY : ~0u;
}

static void port_write(struct pair *p, uint16_t port, uint32_t data) {
    if (port == COM1_DATA && p->nlog >= p->silent)
        putchar((int)(data & 0xff));
    if (port == DEBUG_EXIT) {
        p->over = true;
        p->exit_code = (uint8_t)data;
    }
}

static uint64_t mask_of(uint8_t size) {
    return size >= 8 ? ~0ull : (1ull << 8 * size) - 1;
}

static void answer(struct pair *p, struct vm_exit *e) {
    if (e->reason == EXIT_MMIO && !e->mmio.write)
        e->mmio.data = mask_of(e->mmio.size);
    if (e->reason != EXIT_PIO)
        return;
    if (e->pio.write)
        port_write(p, e->pio.port, e->pio.data);
    else
        e->pio.data = port_read(e->pio.port) & (uint32_t)mask_of(e->pio.size);
}

static void log_append(struct pair *p, const struct vm_exit *e) {
    if (p->nlog == p->room) {
        uint64_t room = p->room ? 2 * p->room : 1024;
        struct vm_exit *log = realloc(p->log, room * sizeof(*log));

        if (!log) {
            fputs("lockstep: out of memory\n", stderr);
            exit(2);
        }
        p->log = log;
        p->room = room;
    }
    p->log[p->nlog++] = *e;
}

static void describe(const struct vm_exit *e, char *out, size_t size) {
    if (e->reason == EXIT_PIO)
        snprintf(out, size, "%s port %x, %u bytes, %x", e->pio.write ? "write" : "read", e->pio.port, e->pio.size,
                 e->pio.data);
    else
        snprintf(out, size, "%s address %lx, %u bytes, %lx", e->mmio.write ? "write" : "read", e->mmio.gpa.v,
                 e->mmio.size, e->mmio.data);
}

static bool same_access(const struct vm_exit *a, const struct vm_exit *b) {
    if (a->reason != b->reason)
        return false;
    if (a->reason == EXIT_PIO)
        return a->pio.port == b->pio.port && a->pio.size == b->pio.size && a->pio.write == b->pio.write &&
               (!a->pio.write || ((a->pio.data ^ b->pio.data) & (uint32_t)mask_of(a->pio.size)) == 0);
    return a->mmio.gpa.v == b->mmio.gpa.v && a->mmio.size == b->mmio.size && a->mmio.write == b->mmio.write &&
           (!a->mmio.write || ((a->mmio.data ^ b->mmio.data) & mask_of(a->mmio.size)) == 0);
}

static void check(struct side *s, struct vm_exit *e, const struct vm_exit *logged) {
    struct pair *p = s->pair;
    char was[100], is[100];

    if (!same_access(e, logged)) {
        describe(logged, was, sizeof(was));
        describe(e, is, sizeof(is));
        snprintf(p->why, sizeof(p->why), "access %lu of %s: %s; the other side: %s", s->accesses + 1, s->name, is, was);
        p->broken = true;
        return;
    }
    *e = *logged;
}

void devices_access(void *ctx, unsigned vcpu, struct vm_exit *e) {
    struct side *s = ctx;
    struct pair *p = s->pair;

    if (s->accesses < p->nlog) {
        check(s, e, &p->log[s->accesses]);
    } else {
        answer(p, e);
        log_append(p, e);
    }
    s->accesses++;
    s->kicked = true;
    s->ops->kick(s->vcpu);
}
