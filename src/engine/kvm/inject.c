// SPDX-License-Identifier: Apache-2.0
// Interrupts and events from chips in user space (core/irqchip.h), delivered by hand before each KVM_RUN.
//
// Without local APICs in the kernel the vCPU's activity is ours: KVM has no INIT, no SIPI, and HLT exits. The task
// priority lives in the chip and is copied into run->cr8 and back, because the guest's CR8 is answered by KVM (4.10).
// With them (split) only the PIC's interrupts come this way, where the vCPU's LINT0 takes them now: KVM says by
// ready_for_interrupt_injection when that is.
#include <errno.h>

#include "engine/kvm/kvm.h"

// ---- INIT and SIPI ----

static int init_vcpu(struct kvm_vcpu *v) {
    struct cpu_state s;
    int r = kvm_state_get(v, &s);

    if (r)
        return r;
    v->irqchip->ops->reset(v->irqchip->ctx, true);
    x86_state_reset(&s, v->index == 0, true);
    return kvm_state_set(v, &s);
}

static int start_vcpu(struct kvm_vcpu *v, uint8_t vector) {
    struct cpu_state s;
    int r;

    if (v->activity != X86_WAIT_SIPI)
        return 0;
    r = kvm_state_get(v, &s);
    if (r)
        return r;
    x86_state_sipi(&s, vector);
    return kvm_state_set(v, &s);
}

static int take_events(struct kvm_vcpu *v) {
    uint32_t events = v->irqchip->ops->take_events(v->irqchip->ctx);
    int r = 0;

    if (events & IRQCHIP_INIT)
        r = init_vcpu(v);
    if (r == 0 && (events & IRQCHIP_SIPI))
        r = start_vcpu(v, (uint8_t)(events >> 8));
    if (r == 0 && (events & IRQCHIP_NMI)) {
        if (v->activity == X86_HALTED)
            v->activity = X86_ACTIVE;
        r = kvm_ioctl(v->fd, KVM_NMI, NULL);
    }
    return r;
}

// ---- interrupts ----

static int deliver(struct kvm_vcpu *v) {
    struct kvm_interrupt irq;
    int vector = v->irqchip->ops->ack(v->irqchip->ctx);

    if (vector < 0)
        return 0;
    kvm_count(v, KC_INTERRUPTS);
    v->activity = X86_ACTIVE;
    irq.irq = (uint32_t)vector;
    return kvm_ioctl(v->fd, KVM_INTERRUPT, &irq);
}

static int take_interrupt(struct kvm_vcpu *v) {
    const struct irqchip_cpu_ops *ops = v->irqchip->ops;
    int r = 0;

    if (v->debug_step == DEBUG_STEP_MASKED && v->activity == X86_ACTIVE)
        return 0;
    if (ops->pending(v->irqchip->ctx) >= 0 && v->run->ready_for_interrupt_injection && v->run->if_flag) {
        r = deliver(v);
        v->run->ready_for_interrupt_injection = 0; // one at a time
    }
    v->run->request_interrupt_window = ops->pending(v->irqchip->ctx) >= 0;
    return r;
}

static int idle(struct kvm_vcpu *v, struct vm_exit *exit, enum exit_reason reason) {
    kvm_count(v, KC_HALTS);
    exit->reason = reason;
    return 1;
}

int kvm_inject(struct kvm_vcpu *v, struct vm_exit *exit) {
    const struct irqchip_cpu_ops *ops = v->irqchip->ops;
    int r;

    if (kvm_lapic_in_kernel(v)) // what waits is the PIC's
        return take_interrupt(v);
    r = take_events(v);
    if (r < 0)
        return r;
    if (v->activity == X86_WAIT_SIPI)
        return idle(v, exit, EXIT_WAIT_SIPI);
    r = take_interrupt(v);
    if (r < 0)
        return r;
    if (v->activity == X86_HALTED)
        return idle(v, exit, EXIT_HALT);
    v->run->cr8 = ops->tpr_get(v->irqchip->ctx) >> 4;
    return 0;
}

void kvm_inject_after(struct kvm_vcpu *v) {
    const struct irqchip_cpu_ops *ops = v->irqchip->ops;
    uint8_t cr8 = (uint8_t)(v->run->cr8 & 15);

    if (!kvm_lapic_in_kernel(v) && cr8 != ops->tpr_get(v->irqchip->ctx) >> 4)
        ops->tpr_set(v->irqchip->ctx, (uint8_t)(cr8 << 4));
}
