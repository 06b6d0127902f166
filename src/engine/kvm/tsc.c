// SPDX-License-Identifier: Apache-2.0
// The guest's time-stamp counter and the clock that hangs on it.
//
// Canonical is the distance to the host's counter, which does not age. KVM takes it as it is (vcpu.rst 4.1,
// Linux 5.16), older ones only a counter value, which is off by the time between reading the host's and the ioctl. The
// paravirtual clock is a function of the guest's counter (arch/x86/kvmclock.h); KVM's own runs from its creation, so it
// is set.
#include <errno.h>
#include <stdint.h>

#include "arch/x86/kvmclock.h"
#include "engine/kvm/kvm.h"

#define MSR_TSC 0x10u // as a register of the interrupt controller: the offset, for its TSC deadlines

static int offset_attr(struct kvm_vcpu *v, unsigned long request, uint64_t *offset) {
    struct kvm_device_attr a = {
        .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uint64_t)(uintptr_t)offset};

    return kvm_ioctl(v->fd, request, &a);
}

// Tried, because a KVM may say yes to everything: a moved offset must read back. Before the vCPU has run.
bool kvm_tsc_has_offset(struct kvm_vcpu *v) {
    uint64_t before, moved, after;

    if (offset_attr(v, KVM_GET_DEVICE_ATTR, &before))
        return false;
    moved = before - 4096;
    if (offset_attr(v, KVM_SET_DEVICE_ATTR, &moved) || offset_attr(v, KVM_GET_DEVICE_ATTR, &after))
        return false;
    return after == moved && offset_attr(v, KVM_SET_DEVICE_ATTR, &before) == 0;
}

static int tsc_msr(struct kvm_vcpu *v, unsigned long request, uint64_t *value) {
    struct kvm_one_msr m = {.head.nmsrs = 1, .entry = {.index = MSR_TSC, .data = *value}};
    int r = kvm_ioctl(v->fd, request, &m);

    *value = m.entry.data;
    return r == 1 ? 0 : r < 0 ? r : -EINVAL;
}

int kvm_tsc_get(struct kvm_vcpu *v, struct cpu_state *s) {
    uint64_t value = 0;
    int r;

    if (v->engine->has_tsc_offset)
        return offset_attr(v, KVM_GET_DEVICE_ATTR, &s->tsc_offset);
    r = tsc_msr(v, KVM_GET_MSRS, &value);
    s->tsc_offset = value - nondet_tsc(v->engine->host->nondet);
    return r;
}

static int set_clock(struct kvm_vcpu *v, const struct cpu_state *s) {
    const struct cpuid_policy *p = v->engine->host->cpu_policy;
    uint64_t ticks = nondet_tsc(v->engine->host->nondet) + s->tsc_offset - s->tsc_adjust;
    struct kvm_clock_data c = {.clock = kvmclock_ns(p->tsc_hz, ticks)};

    return kvm_ioctl(v->engine->vm_fd, KVM_SET_CLOCK, &c);
}

int kvm_tsc_set(struct kvm_vcpu *v, const struct cpu_state *s) {
    uint64_t value = s->tsc_offset;
    int r;

    if (v->engine->has_tsc_offset) {
        r = offset_attr(v, KVM_SET_DEVICE_ATTR, &value);
    } else {
        value += nondet_tsc(v->engine->host->nondet);
        r = tsc_msr(v, KVM_SET_MSRS, &value);
    }
    if (r == 0 && !kvm_lapic_in_kernel(v))
        (void)v->irqchip->ops->reg_write(v->irqchip->ctx, MSR_TSC, s->tsc_offset);
    return r ? r : set_clock(v, s);
}
