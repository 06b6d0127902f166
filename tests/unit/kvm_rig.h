// SPDX-License-Identifier: Apache-2.0
// A VM of the kvm engine without a machine around it, for test_kvm_*.c: 1 MiB of RAM, a log of the accesses that the
// engine asks about, and an interrupt controller that says what the test tells it. Skips where there is no /dev/kvm.
#ifndef CICADA_TESTS_KVM_RIG_H
#define CICADA_TESTS_KVM_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "arch/x86/cpuid.h"
#include "arch/x86/state.h"
#include "core/engine.h"

#define RIG_RAM   0x100000u
#define RIG_VCPUS 2u
#define RIG_LOG   64u

struct rig_chip { // of one vCPU
    int vector;   // that waits, or -1
    uint32_t events;
    uint8_t tpr;
    unsigned resets;
    unsigned eois;
    uint8_t eoi; // the last
};

struct rig {
    const struct engine_ops *ops;
    struct engine *engine;
    struct engine_vcpu *vcpu[RIG_VCPUS];
    struct engine_host host;
    uint64_t speed; // guest instructions a second
    struct nondet nondet;
    struct cpuid_policy cpuid;
    struct irqchip_cpu chips[RIG_VCPUS];
    struct rig_chip chip[RIG_VCPUS];
    struct vm_exit log[RIG_LOG]; // accesses, in order
    unsigned nlog;
    uint64_t answer; // to reads
    void (*on_access)(struct rig *r, unsigned vcpu);
};

static int rig_pending(void *ctx) {
    return ((struct rig_chip *)ctx)->vector;
}
static int rig_ack(void *ctx) {
    struct rig_chip *c = ctx;
    int v = c->vector;

    c->vector = -1;
    return v;
}
static uint32_t rig_events(void *ctx) {
    struct rig_chip *c = ctx;
    uint32_t e = c->events;

    c->events = 0;
    return e;
}
static uint8_t rig_tpr_get(void *ctx) {
    return ((struct rig_chip *)ctx)->tpr;
}
static void rig_tpr_set(void *ctx, uint8_t tpr) {
    ((struct rig_chip *)ctx)->tpr = tpr;
}
static int rig_reg_read(void *ctx, uint32_t reg, uint64_t *val) {
    *val = reg;
    return reg == 0x802 ? 0 : -1;
}
static int rig_reg_write(void *ctx, uint32_t reg, uint64_t val) {
    return 0;
}
static void rig_reset(void *ctx, bool init) {
    ((struct rig_chip *)ctx)->resets++;
}
static void rig_eoi(void *ctx, uint8_t vector) {
    ((struct rig_chip *)ctx)->eois++;
    ((struct rig_chip *)ctx)->eoi = vector;
}
static const struct irqchip_cpu_ops rig_chip_ops = {.pending = rig_pending,
                                                    .ack = rig_ack,
                                                    .take_events = rig_events,
                                                    .tpr_get = rig_tpr_get,
                                                    .tpr_set = rig_tpr_set,
                                                    .reg_read = rig_reg_read,
                                                    .reg_write = rig_reg_write,
                                                    .eoi = rig_eoi,
                                                    .reset = rig_reset};

static void rig_exit(void *ctx, unsigned vcpu, struct vm_exit *e) {
    struct rig *r = ctx;

    if (e->reason == EXIT_PIO && !e->pio.write)
        e->pio.data = (uint32_t)r->answer;
    if (e->reason == EXIT_MMIO && !e->mmio.write)
        e->mmio.data = r->answer;
    if (r->nlog < RIG_LOG)
        r->log[r->nlog++] = *e;
    if (r->on_access)
        r->on_access(r, vcpu);
}

static void rig_must(int ret, const struct error *err) {
    if (ret)
        fail_msg("%d: %s", ret, err->text);
}

// features: as --kvm-opts.
static struct rig *rig_new_with(const char *features, uint64_t ram) {
    struct rig *r = calloc(1, sizeof(*r));
    struct engine_options opt = {.features = features};
    struct error err = {0};

    r->ops = engine_find("kvm");
    assert_non_null(r->ops);
    if (r->ops->probe(&r->speed, &err)) {
        print_message("SKIP: %s\n", err.text);
        free(r);
        skip();
    }
    nondet_init_live(&r->nondet);
    for (unsigned i = 0; i < RIG_VCPUS; i++) {
        r->chip[i].vector = -1;
        r->chips[i] = (struct irqchip_cpu){&rig_chip_ops, &r->chip[i]};
    }
    r->host = (struct engine_host){.ctx = r,
                                   .exit = rig_exit,
                                   .nondet = &r->nondet,
                                   .irqchips = r->chips,
                                   .cpu_policy = &r->cpuid,
                                   .vcpus = RIG_VCPUS};
    rig_must(mem_create(&r->host.mem, &err), &err);
    rig_must(mem_add_ram(r->host.mem, GPA(0), ram, "ram", &err), &err);
    rig_must(cpuid_policy_init(&r->cpuid, CPU_MOVABLE, RIG_VCPUS, r->nondet.tsc_hz, &err), &err);
    rig_must(r->ops->limit_policy(&r->cpuid, &opt, &err), &err);
    rig_must(r->ops->create(&r->host, &opt, &r->engine, &err), &err);
    for (unsigned i = 0; i < RIG_VCPUS; i++)
        rig_must(r->ops->vcpu_create(r->engine, i, &r->vcpu[i], &err), &err);
    rig_must(r->ops->vcpu_enter_thread(r->vcpu[0], &err), &err);
    return r;
}

static struct rig *rig_new(const char *features) {
    return rig_new_with(features, RIG_RAM);
}

static void rig_free(struct rig *r) {
    for (unsigned i = 0; i < RIG_VCPUS; i++)
        r->ops->vcpu_destroy(r->vcpu[i]);
    r->ops->destroy(r->engine);
    mem_destroy(r->host.mem);
    free(r);
}

static void rig_get(struct rig *r, unsigned vcpu, struct cpu_state *s) {
    assert_int_equal(r->ops->get_state(r->vcpu[vcpu], s, sizeof(*s)), 0);
}
static void rig_set(struct rig *r, unsigned vcpu, const struct cpu_state *s) {
    assert_int_equal(r->ops->set_state(r->vcpu[vcpu], s, sizeof(*s)), 0);
}

#endif
