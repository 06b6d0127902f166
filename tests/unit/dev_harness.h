// SPDX-License-Identifier: Apache-2.0
// A minimal machine for tests of chips: the real core and buses, an engine that only counts pokes, and time that
// moves when the test says so. Timers fire in harness_advance, on the test's thread.
#ifndef CICADA_TESTS_DEV_HARNESS_H
#define CICADA_TESTS_DEV_HARNESS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "dev/dev.h"

#define HARNESS_TSC_HZ    UINT64_C(2000000000)
#define HARNESS_MAX_VCPUS 32

struct harness {
    struct machine machine;
    struct dev_env env;
    uint64_t mono_ns, real_ns;
    unsigned pokes[HARNESS_MAX_VCPUS];
    unsigned gsi_edges[IRQ_GSI_COUNT]; // rising
    bool gsi[IRQ_GSI_COUNT];
};

static struct harness *harness_now; // the engine ops have no context of their own

static uint64_t harness_mono(void *ctx) {
    return ((struct harness *)ctx)->mono_ns;
}
static uint64_t harness_real(void *ctx) {
    return ((struct harness *)ctx)->real_ns;
}
static uint64_t harness_tsc(void *ctx) {
    return ((struct harness *)ctx)->mono_ns * 2;
}
static void harness_random(void *ctx, void *buf, size_t len) {
    memset(buf, 4, len);
}

static int harness_engine_create(const struct engine_host *host, const struct engine_options *opt, struct engine **e,
                                 struct error *err) {
    *e = (struct engine *)harness_now;
    return 0;
}
static void harness_engine_destroy(struct engine *e) {}
static int harness_vcpu_create(struct engine *e, unsigned index, struct engine_vcpu **v, struct error *err) {
    *v = (struct engine_vcpu *)&harness_now->pokes[index];
    return 0;
}
static void harness_vcpu_destroy(struct engine_vcpu *v) {}
static void harness_poke(struct engine_vcpu *v) {
    ++*(unsigned *)v;
}

static void harness_sink(void *ctx, unsigned gsi, bool level) {
    struct harness *h = ctx;

    h->gsi_edges[gsi] += level && !h->gsi[gsi];
    h->gsi[gsi] = level;
}

static struct harness *harness_create(unsigned vcpus) {
    static const struct nondet_ops nondet_ops = {harness_mono, harness_real, harness_tsc, harness_random};
    static const struct engine_ops engine_ops = {
        .name = "none",
        .create = harness_engine_create,
        .destroy = harness_engine_destroy,
        .vcpu_create = harness_vcpu_create,
        .vcpu_destroy = harness_vcpu_destroy,
        .kick = harness_poke,
        .poke = harness_poke,
    };
    static const struct engine_options options;
    struct harness *h = calloc(1, sizeof(*h));
    struct error err = {0};

    assert_non_null(h);
    harness_now = h;
    assert_int_equal(machine_init(&h->machine, &err), 0);
    h->mono_ns = 1000000;
    h->real_ns = UINT64_C(1700000000) * 1000000000; // 2023-11-14 22:13:20, a Tuesday
    h->machine.nondet.ops = &nondet_ops;
    h->machine.nondet.ctx = h;
    h->machine.nondet.tsc_hz = HARNESS_TSC_HZ;
    h->machine.host.vcpus = vcpus;
    assert_int_equal(machine_create_vcpus(&h->machine, &engine_ops, &options, &err), 0);
    assert_int_equal(bus_create(&h->env.pio, "pio", &err), 0);
    assert_int_equal(bus_create(&h->env.mmio, "mmio", &err), 0);
    h->env.machine = &h->machine;
    irq_add_sink(&h->machine.irq, harness_sink, h);
    clock_resume(&h->machine.clock);
    return h;
}

static void harness_destroy(struct harness *h) {
    machine_destroy(&h->machine);
    bus_destroy(h->env.pio);
    bus_destroy(h->env.mmio);
    free(h);
}

// The earliest timer due at or before `until`.
static struct vtimer *harness_next(struct harness *h, uint64_t until) {
    struct vtimer *best = NULL;

    for (struct vtimer *t = h->machine.clock.timers; t; t = t->next)
        if (t->deadline_ns <= until && (!best || t->deadline_ns < best->deadline_ns))
            best = t;
    return best;
}

// Moves time by ns and fires the timers on the way, each exactly at its deadline.
static inline void harness_advance(struct harness *h, uint64_t ns) {
    uint64_t end = clock_now_ns(&h->machine.clock) + ns, now;
    struct vtimer *t;

    while ((t = harness_next(h, end))) {
        now = clock_now_ns(&h->machine.clock);
        if (t->deadline_ns > now) {
            h->mono_ns += t->deadline_ns - now;
            h->real_ns += t->deadline_ns - now;
        }
        t->deadline_ns = UINT64_MAX;
        t->fn(t->ctx);
    }
    now = clock_now_ns(&h->machine.clock);
    h->mono_ns += end - now;
    h->real_ns += end - now;
}

// Time that passes before the event loop gets to run.
static inline void harness_lag(struct harness *h, uint64_t ns) {
    h->mono_ns += ns;
    h->real_ns += ns;
}

static inline uint8_t inb(struct harness *h, uint16_t port) {
    uint64_t v = 0;

    bus_read(h->env.pio, port, 1, 0, &v);
    return (uint8_t)v;
}

static inline uint32_t ind(struct harness *h, uint16_t port, unsigned size) {
    uint64_t v = 0;

    bus_read(h->env.pio, port, size, 0, &v);
    return (uint32_t)v;
}

static inline void outb(struct harness *h, uint16_t port, uint8_t val) {
    bus_write(h->env.pio, port, 1, 0, val);
}
static inline void outd(struct harness *h, uint16_t port, unsigned size, uint32_t val) {
    bus_write(h->env.pio, port, size, 0, val);
}

static inline uint32_t mmio_read32(struct harness *h, uint64_t addr, unsigned vcpu) {
    uint64_t v = 0;

    bus_read(h->env.mmio, addr, 4, vcpu, &v);
    return (uint32_t)v;
}

static inline void mmio_write32(struct harness *h, uint64_t addr, unsigned vcpu, uint32_t val) {
    bus_write(h->env.mmio, addr, 4, vcpu, val);
}

static inline struct component *harness_component(struct harness *h, const char *name) {
    for (struct component *c = h->machine.components.head; c; c = c->next)
        if (!strcmp(c->ops->name, name))
            return c;
    fail_msg("no component %s", name);
    return NULL;
}

static inline void harness_save(struct harness *h, const char *name, struct state_writer *w) {
    struct component *c = harness_component(h, name);

    memset(w, 0, sizeof(*w));
    c->ops->save(c->ctx, w);
    assert_int_equal(w->error, 0);
}

// Loads what save wrote; every truncation of it must be refused.
static inline void harness_load(struct harness *h, const char *name, struct state_writer *w) {
    struct component *c = harness_component(h, name);
    struct error err = {0};

    for (size_t len = 0; len < w->len; len += 1 + len / 8) {
        struct state_reader part = {.buf = w->buf, .len = len, .version = c->ops->version};
        assert_int_not_equal(c->ops->load(c->ctx, &part, &err), 0);
        assert_int_not_equal(err.text[0], 0);
    }
    struct state_reader r = {.buf = w->buf, .len = w->len, .version = c->ops->version};
    assert_int_equal(c->ops->load(c->ctx, &r, &err), 0);
    assert_int_equal(r.pos, w->len);
    if (c->ops->resume)
        c->ops->resume(c->ctx);
    state_writer_free(w);
}

static inline void harness_reset(struct harness *h) {
    component_reset_all(&h->machine.components);
}

#endif
