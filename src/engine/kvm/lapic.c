// SPDX-License-Identifier: Apache-2.0
// The local APIC inside KVM to its canonical state and back (4.57, 4.58 KVM_GET_LAPIC, KVM_SET_LAPIC).
//
// A state that was set counts no time: its timer stands until kvm_lapic_resume, as the machine's clock does, and is
// read back as it was set. What KVM cannot hold: the errors that the next write to ESR would show, and the initial
// count of a one-shot timer that has expired (writing it would start the timer), which reads 0 afterwards.
//
// KVM does not tell an expired one-shot timer whose interrupt waits for the next KVM_RUN from one whose interrupt the
// guest has had. Such a timer reads as due, so it interrupts (again) after a move: a spurious tick, not a lost one.
#define LOG_UNIT "kvm"
#include <errno.h>
#include <string.h>

#include "core/clock.h"
#include "engine/kvm/kvm.h"
#include "util/log.h"

#define MSR_TSC_DEADLINE 0x6e0u
#define MSI_ADDRESS      0xfee00000u

static uint32_t reg_get(const struct kvm_lapic_state *k, unsigned reg) {
    uint32_t value;

    memcpy(&value, k->regs + 16 * reg, sizeof(value));
    return value;
}

static void reg_set(struct kvm_lapic_state *k, unsigned reg, uint32_t value) {
    memcpy(k->regs + 16 * reg, &value, sizeof(value));
}

static void vectors_get(const struct kvm_lapic_state *k, unsigned reg, uint64_t words[4]) {
    for (unsigned i = 0; i < 4; i++)
        words[i] = reg_get(k, reg + 2 * i) | (uint64_t)reg_get(k, reg + 2 * i + 1) << 32;
}

static void vectors_set(struct kvm_lapic_state *k, unsigned reg, const uint64_t words[4]) {
    for (unsigned i = 0; i < 4; i++) {
        reg_set(k, reg + 2 * i, (uint32_t)words[i]);
        reg_set(k, reg + 2 * i + 1, (uint32_t)(words[i] >> 32));
    }
}

static bool has_deadline(const struct x86_lapic_state *s) {
    return X86_LVT_MODE(s->lvt[X86_LVT_TIMER]) == X86_TIMER_TSC_DEADLINE;
}

static int deadline_msr(struct kvm_vcpu *v, unsigned long request, uint64_t *value) {
    struct kvm_one_msr m = {.head.nmsrs = 1, .entry = {.index = MSR_TSC_DEADLINE, .data = *value}};
    int r = kvm_ioctl(v->fd, request, &m);

    *value = m.entry.data;
    return r == 1 ? 0 : r < 0 ? r : -EINVAL;
}

// ---- get ----

static void registers_get(const struct kvm_lapic_state *k, struct x86_lapic_state *s) {
    bool x2apic = s->base & X86_APIC_BASE_X2APIC;

    vectors_get(k, X86_APIC_IRR, s->irr);
    vectors_get(k, X86_APIC_ISR, s->isr);
    vectors_get(k, X86_APIC_TMR, s->tmr);
    s->esr = reg_get(k, X86_APIC_ESR);
    s->svr = reg_get(k, X86_APIC_SVR);
    s->ldr = x2apic ? 0 : reg_get(k, X86_APIC_LDR);
    s->dfr = reg_get(k, X86_APIC_DFR);
    s->tpr = reg_get(k, X86_APIC_TPR);
    s->icr = reg_get(k, X86_APIC_ICR) | (uint64_t)reg_get(k, X86_APIC_ICR_HIGH) << 32;
    for (unsigned i = 0; i < X86_LVT_COUNT; i++)
        s->lvt[i] = reg_get(k, X86_APIC_LVT + i);
    s->divide = reg_get(k, X86_APIC_TIMER_DIVIDE);
}

static int timer_get(struct kvm_vcpu *v, const struct kvm_lapic_state *k, struct x86_lapic_state *s) {
    uint64_t left = (uint64_t)reg_get(k, X86_APIC_TIMER_CURRENT) << X86_LAPIC_DIVIDE_SHIFT(s->divide);

    if (v->timer_held) {
        s->initial = v->timer.initial;
        s->counting = v->timer.counting;
        s->start_ns = v->timer.start_ns;
        s->tsc_deadline = v->timer.tsc_deadline;
        return 0;
    }
    if (has_deadline(s))
        return deadline_msr(v, KVM_GET_MSRS, &s->tsc_deadline);
    s->initial = reg_get(k, X86_APIC_TIMER_INITIAL);
    s->counting = s->initial != 0;
    s->start_ns = s->counting ? kvm_clock_now(v->engine) - (x86_lapic_period_ns(s) - left) : 0;
    return 0;
}

int kvm_lapic_get(struct kvm_vcpu *v, struct x86_lapic_state *s) {
    struct kvm_lapic_state k;
    struct kvm_sregs sregs;
    int r = kvm_ioctl(v->fd, KVM_GET_SREGS, &sregs);

    if (r == 0)
        r = kvm_ioctl(v->fd, KVM_GET_LAPIC, &k);
    if (r)
        return r;
    *s = (struct x86_lapic_state){.base = sregs.apic_base};
    registers_get(&k, s);
    return timer_get(v, &k, s);
}

// ---- set ----

// Before the registers: it decides which form of them KVM_SET_LAPIC takes.
static int base_set(struct kvm_vcpu *v, const struct x86_lapic_state *s) {
    struct kvm_sregs sregs;
    int r = kvm_ioctl(v->fd, KVM_GET_SREGS, &sregs);

    if (r)
        return r;
    sregs.apic_base = s->base;
    sregs.cr8 = s->tpr >> 4;
    return kvm_ioctl(v->fd, KVM_SET_SREGS, &sregs);
}

// All but the timer's counts. PPR follows from the others, and the version is KVM's.
static void registers_set(struct kvm_lapic_state *k, const struct x86_lapic_state *s, unsigned index) {
    reg_set(k, X86_APIC_ID, index << 24); // in x2APIC mode too (KVM_CAP_X2APIC_API is off)
    vectors_set(k, X86_APIC_IRR, s->irr);
    vectors_set(k, X86_APIC_ISR, s->isr);
    vectors_set(k, X86_APIC_TMR, s->tmr);
    reg_set(k, X86_APIC_ESR, s->esr);
    reg_set(k, X86_APIC_SVR, s->svr);
    reg_set(k, X86_APIC_LDR, s->ldr);
    reg_set(k, X86_APIC_DFR, s->dfr);
    reg_set(k, X86_APIC_TPR, s->tpr);
    reg_set(k, X86_APIC_ICR, (uint32_t)s->icr);
    reg_set(k, X86_APIC_ICR_HIGH, (uint32_t)(s->icr >> 32));
    for (unsigned i = 0; i < X86_LVT_COUNT; i++)
        reg_set(k, X86_APIC_LVT + i, s->lvt[i]);
    reg_set(k, X86_APIC_TIMER_DIVIDE, s->divide);
    reg_set(k, X86_APIC_TIMER_INITIAL, 0);
    reg_set(k, X86_APIC_TIMER_CURRENT, 0);
}

// Events that were posted and not taken come again as messages.
static int post_events(struct kvm_vcpu *v, uint32_t events) {
    static const struct { uint32_t event, mode; } kinds[] = {{IRQCHIP_NMI, 4}, {IRQCHIP_INIT, 5}, {IRQCHIP_SIPI, 6}};
    int r = 0;

    for (unsigned i = 0; r >= 0 && i < ARRAY_LEN(kinds); i++) {
        struct kvm_msi m = {.address_lo = MSI_ADDRESS | v->index << 12, .data = kinds[i].mode << X86_LVT_DELIVERY};
        if (!(events & kinds[i].event))
            continue;
        if (kinds[i].event == IRQCHIP_SIPI)
            m.data |= events >> 8 & 0xff;
        r = kvm_ioctl(v->engine->vm_fd, KVM_SIGNAL_MSI, &m);
    }
    return r < 0 ? r : 0;
}

int kvm_lapic_set(struct kvm_vcpu *v, const struct x86_lapic_state *s) {
    struct kvm_lapic_state k;
    uint64_t none = 0;
    int r = base_set(v, s);

    if (r == 0)
        r = kvm_ioctl(v->fd, KVM_GET_LAPIC, &k);
    if (r)
        return r;
    registers_set(&k, s, v->index);
    r = kvm_ioctl(v->fd, KVM_SET_LAPIC, &k);
    if (r == 0 && has_deadline(s))
        r = deadline_msr(v, KVM_SET_MSRS, &none);
    v->timer = *s;
    v->timer_held = true;
    return r ? r : post_events(v, s->events);
}

// ---- time goes on ----

static int start_count(struct kvm_vcpu *v) {
    const struct x86_lapic_state *s = &v->timer;
    uint64_t period = x86_lapic_period_ns(s), gone = kvm_clock_now(v->engine) - s->start_ns;
    struct kvm_lapic_state k;
    int r = kvm_ioctl(v->fd, KVM_GET_LAPIC, &k);

    if (X86_LVT_MODE(s->lvt[X86_LVT_TIMER]) == X86_TIMER_PERIODIC)
        gone %= period;
    else if (gone > period)
        gone = period;
    reg_set(&k, X86_APIC_TIMER_INITIAL, s->initial);
    reg_set(&k, X86_APIC_TIMER_CURRENT, (uint32_t)((period - gone) >> X86_LAPIC_DIVIDE_SHIFT(s->divide)));
    return r ? r : kvm_ioctl(v->fd, KVM_SET_LAPIC, &k);
}

void kvm_lapic_resume(struct kvm_vcpu *v) {
    const struct x86_lapic_state *s = &v->timer;
    uint64_t deadline = s->tsc_deadline;
    int r = 0;

    if (!v->timer_held)
        return;
    if (has_deadline(s))
        r = deadline ? deadline_msr(v, KVM_SET_MSRS, &deadline) : 0;
    else if (s->counting)
        r = start_count(v);
    if (r)
        log_error("vCPU %u: start the timer of its local APIC: error %d", v->index, r);
    v->timer_held = false;
}
