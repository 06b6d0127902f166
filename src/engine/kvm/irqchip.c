// SPDX-License-Identifier: Apache-2.0
// Interrupt controllers in the kernel: PIC, I/O APIC, local APICs and the PIT (4.24, 4.71); and, where they are in user
// space, the registers of theirs that are MSRs.
//
// Reset writes back what the chips held after creation: KVM has no reset of its own but for INIT.
#define LOG_UNIT "kvm"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/kvm/kvm.h"
#include "util/log.h"

#define TSS_ADDRESS      0xfffbd000u // three pages, and one before, that no board uses: KVM on Intel needs them
#define IDENTITY_ADDRESS 0xfffbc000u
#define IOAPIC_PINS      24u
#define PIC_PINS         16u
#define MSR_APIC_BASE    0x1bu
#define MSR_TSC_DEADLINE 0x6e0u

// ---- routing ----

static void add_route(struct kvm_irq_routing *t, unsigned gsi, unsigned chip, unsigned pin) {
    t->entries[t->nr++] = (struct kvm_irq_routing_entry){
        .gsi = gsi, .type = KVM_IRQ_ROUTING_IRQCHIP, .u.irqchip = {.irqchip = chip, .pin = pin}};
}

// As dev/i82093aa.h and dev/i8259.h wire it: GSI 0 comes in on pin 2 of the I/O APIC, GSI 2 nowhere.
static int set_routing(struct engine *e) {
    struct kvm_irq_routing *t = calloc(1, sizeof(*t) + (IOAPIC_PINS + PIC_PINS) * sizeof(t->entries[0]));
    int r;

    if (!t)
        return -ENOMEM;
    for (unsigned gsi = 0; gsi < IOAPIC_PINS; gsi++) {
        if (gsi == 2)
            continue;
        if (gsi < PIC_PINS)
            add_route(t, gsi, gsi < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE, gsi & 7);
        add_route(t, gsi, KVM_IRQCHIP_IOAPIC, gsi ? gsi : 2);
    }
    r = kvm_ioctl(e->vm_fd, KVM_SET_GSI_ROUTING, t);
    free(t);
    return r;
}

// ---- creation and reset ----

static int create_chips(struct engine *e, struct error *err) {
    struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY}; // port 0x61 as well
    int r = kvm_ioctl(e->vm_fd, KVM_CREATE_IRQCHIP, NULL);

    if (r)
        return error_set(err, r,
                         "kvm: create the interrupt controllers (--kvm-opts irqchip=user has them in user space)");
    r = set_routing(e);
    if (r)
        return error_set(err, r, "kvm: route the interrupts");
    // Left on is KVM's re-injection: ticks that the guest missed come later. The chip loses them, but turning it off
    // waits for an RCU grace period, 18 ms of start-up.
    r = kvm_ioctl(e->vm_fd, KVM_CREATE_PIT2, &pit);
    return r ? error_set(err, r, "kvm: create the interval timer") : 0;
}

int kvm_chips_create(struct engine *e, struct error *err) {
    uint64_t identity = IDENTITY_ADDRESS;
    int r = kvm_ioctl(e->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity);

    if (r == 0)
        r = kvm_ioctl(e->vm_fd, KVM_SET_TSS_ADDR, (void *)(uintptr_t)TSS_ADDRESS);
    if (r)
        return error_set(err, r, "kvm: place the TSS");
    return e->chips_in_kernel ? create_chips(e, err) : kvm_user_msrs_enable(e, err);
}

int kvm_chips_remember(struct engine *e, struct error *err) {
    int r = 0;

    for (unsigned i = 0; r == 0 && i < ARRAY_LEN(e->chips.chip); i++) {
        e->chips.chip[i].chip_id = i;
        r = kvm_ioctl(e->vm_fd, KVM_GET_IRQCHIP, &e->chips.chip[i]);
    }
    if (r == 0)
        r = kvm_ioctl(e->vm_fd, KVM_GET_PIT2, &e->chips.pit);
    return r ? error_set(err, r, "kvm: read the interrupt controllers") : 0;
}

int kvm_lapic_remember(struct kvm_vcpu *v, struct error *err) {
    int r = kvm_ioctl(v->fd, KVM_GET_LAPIC, &v->lapic);

    return r ? error_set(err, r, "kvm: read the local APIC of vCPU %u", v->index) : 0;
}

// The base register first: it decides which form of the registers KVM_SET_LAPIC takes.
static int reset_lapic(struct kvm_vcpu *v) {
    struct kvm_sregs sregs;
    int r = kvm_ioctl(v->fd, KVM_GET_SREGS, &sregs);

    if (r == 0) {
        sregs.apic_base = v->apic_base;
        sregs.cr8 = 0;
        r = kvm_ioctl(v->fd, KVM_SET_SREGS, &sregs);
    }
    return r ? r : kvm_ioctl(v->fd, KVM_SET_LAPIC, &v->lapic);
}

void kvm_chips_reset(struct engine *e) {
    int r = 0;

    if (!e->chips_in_kernel)
        return;
    for (unsigned i = 0; r == 0 && i < ARRAY_LEN(e->chips.chip); i++)
        r = kvm_ioctl(e->vm_fd, KVM_SET_IRQCHIP, &e->chips.chip[i]);
    if (r == 0)
        r = kvm_ioctl(e->vm_fd, KVM_SET_PIT2, &e->chips.pit);
    for (unsigned i = 0; r == 0 && i < e->host->vcpus; i++)
        r = reset_lapic(e->vcpus[i]);
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
    e->user_msrs = true;
    return 0;
}
