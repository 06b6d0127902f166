// SPDX-License-Identifier: Apache-2.0
// Interrupt controllers in the kernel: PIC, I/O APIC, local APICs and the PIT (4.24, 4.71), or the local APICs alone
// (7.5); and, where all are in user space, the registers of theirs that are MSRs.
//
// KVM has no reset of its own but for INIT: the state after power-on is set.
#define LOG_UNIT "kvm"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/kvm/kvm.h"
#include "util/log.h"

#define TSS_ADDRESS      0xfffbd000u // three pages, and one before, that no board uses: KVM on Intel needs them
#define IDENTITY_ADDRESS 0xfffbc000u
#define MSR_APIC_BASE    0x1bu
#define MSR_TSC_DEADLINE 0x6e0u

// ---- creation ----

static int create_chips(struct engine *e, struct error *err) {
    struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY}; // port 0x61 as well
    int r = kvm_ioctl(e->vm_fd, KVM_CREATE_IRQCHIP, NULL);

    if (r)
        return error_set(err, r,
                         "kvm: create the interrupt controllers (--kvm-opts irqchip=user has them in user space)");
    r = kvm_routes_wire(e);
    if (r)
        return error_set(err, r, "kvm: route the interrupts");
    // Left on is KVM's re-injection: ticks that the guest missed come later. The chip loses them, but turning it off
    // waits for an RCU grace period, 18 ms of start-up.
    r = kvm_ioctl(e->vm_fd, KVM_CREATE_PIT2, &pit);
    return r ? error_set(err, r, "kvm: create the interval timer") : 0;
}

static int create_lapics(struct engine *e, struct error *err) {
    struct kvm_enable_cap cap = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {X86_IOAPIC_PINS}};
    int r = kvm_has(e->vm_fd, cap.cap) ? kvm_ioctl(e->vm_fd, KVM_ENABLE_CAP, &cap) : -EOPNOTSUPP;

    return r ? error_set(err, r, "kvm: have the local APICs alone in the kernel (--kvm-opts irqchip=split)") : 0;
}

int kvm_chips_create(struct engine *e, struct error *err) {
    uint64_t identity = IDENTITY_ADDRESS;
    int r = kvm_ioctl(e->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity);

    if (r == 0)
        r = kvm_ioctl(e->vm_fd, KVM_SET_TSS_ADDR, (void *)(uintptr_t)TSS_ADDRESS);
    if (r)
        return error_set(err, r, "kvm: place the TSS");
    switch (e->chips) {
    case KVM_CHIPS_KERNEL: return create_chips(e, err);
    case KVM_CHIPS_SPLIT: return create_lapics(e, err);
    default: return kvm_user_msrs_enable(e, err);
    }
}

// ---- state ----

static struct kvm_vcpu *vcpu_at(struct engine *e, unsigned index) {
    return index < e->host->vcpus ? e->vcpus[index] : NULL;
}

int kvm_chips_get(struct engine *e, unsigned chip, unsigned instance, void *state, size_t size) {
    struct kvm_vcpu *v = vcpu_at(e, instance);

    if (chip == X86_CHIP_LAPIC && size == sizeof(struct x86_lapic_state) && v)
        return kvm_lapic_get(v, state);
    if (chip == X86_CHIP_IOAPIC && size == sizeof(struct x86_ioapic_state))
        return kvm_ioapic_get(e, state);
    if (chip == X86_CHIP_PIC && size == sizeof(struct x86_pic_state))
        return kvm_pic_get(e, state);
    if (chip == X86_CHIP_PIT && size == sizeof(struct x86_pit_state))
        return kvm_pit_get(e, state);
    return -EINVAL;
}

int kvm_chips_set(struct engine *e, unsigned chip, unsigned instance, const void *state, size_t size) {
    struct kvm_vcpu *v = vcpu_at(e, instance);

    if (chip == X86_CHIP_LAPIC && size == sizeof(struct x86_lapic_state) && v)
        return kvm_lapic_set(v, state);
    if (chip == X86_CHIP_IOAPIC && size == sizeof(struct x86_ioapic_state))
        return kvm_ioapic_set(e, state);
    if (chip == X86_CHIP_PIC && size == sizeof(struct x86_pic_state))
        return kvm_pic_set(e, state);
    if (chip == X86_CHIP_PIT && size == sizeof(struct x86_pit_state))
        return kvm_pit_set(e, state);
    return -EINVAL;
}

void kvm_chips_resume(struct engine *e) {
    for (unsigned i = 0; i < e->host->vcpus; i++)
        kvm_lapic_resume(e->vcpus[i]);
    kvm_pit_resume(e);
}

static int reset_shared(struct engine *e) {
    struct x86_ioapic_state ioapic = {0};
    struct x86_pic_state pic = {0};
    struct x86_pit_state pit;
    int r = kvm_pic_get(e, &pic); // the lines are the devices'

    x86_ioapic_reset(&ioapic);
    x86_pic_reset(&pic);
    x86_pit_reset(&pit);
    if (r == 0)
        r = kvm_pic_set(e, &pic);
    if (r == 0)
        r = kvm_ioapic_set(e, &ioapic);
    return r ? r : kvm_pit_set(e, &pit);
}

void kvm_chips_reset(struct engine *e) {
    int r = e->chips == KVM_CHIPS_KERNEL ? reset_shared(e) : 0;

    for (unsigned i = 0; r == 0 && i < e->host->vcpus; i++) {
        struct x86_lapic_state s;
        x86_lapic_reset(&s, i);
        r = kvm_lapic_set(e->vcpus[i], &s);
    }
    kvm_chips_resume(e); // no count is under way
    if (r)
        log_error("reset of the interrupt controllers: error %d", r);
}

// ---- interrupts ----

void kvm_chips_line(struct engine *e, unsigned gsi, bool level) {
    struct kvm_irq_level l = {.irq = gsi, .level = level};
    int r = kvm_ioctl(e->vm_fd, KVM_IRQ_LINE, &l);

    if (r < 0)
        log_debug("interrupt line %u: error %d", gsi, r);
}

void kvm_chips_msi(struct engine *e, uint64_t addr, uint32_t data) {
    struct kvm_msi m = {.address_lo = (uint32_t)addr, .address_hi = (uint32_t)(addr >> 32), .data = data};
    int r = kvm_ioctl(e->vm_fd, KVM_SIGNAL_MSI, &m);

    // 0: the guest has blocked it. Negative: a message that goes nowhere, as a guest may write one.
    if (r < 0)
        log_debug("message 0x%llx 0x%x: error %d", (unsigned long long)addr, data, r);
}

// ---- user-space chips ----

// x2APIC registers exit because KVM without a local APIC refuses them; these two it would take for itself.
static int filter_msrs(struct engine *e) {
    static uint8_t none[1] = {0};
    struct kvm_msr_filter f = {
        .flags = KVM_MSR_FILTER_DEFAULT_ALLOW,
        .ranges =
            {{.flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE, .nmsrs = 1, .base = MSR_APIC_BASE, .bitmap = none},
             {.flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE,
              .nmsrs = 1,
              .base = MSR_TSC_DEADLINE,
              .bitmap = none}},
    };

    return kvm_ioctl(e->vm_fd, KVM_X86_SET_MSR_FILTER, &f);
}

int kvm_user_msrs_enable(struct engine *e, struct error *err) {
    struct kvm_enable_cap cap = {
        .cap = KVM_CAP_X86_USER_SPACE_MSR,
        .args = {KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_FILTER}};
    int r;

    if (!kvm_has(e->vm_fd, KVM_CAP_X86_USER_SPACE_MSR) || !kvm_has(e->vm_fd, KVM_CAP_X86_MSR_FILTER))
        return 0; // the guest gets no x2APIC and no TSC deadline then (cpuid.c)
    r = kvm_ioctl(e->vm_fd, KVM_ENABLE_CAP, &cap);
    if (r == 0)
        r = filter_msrs(e);
    if (r)
        return error_set(err, r, "kvm: have the interrupt controller's MSRs");
    return 0;
}
