// SPDX-License-Identifier: Apache-2.0
// What 4.87 KVM_SET_GUEST_DEBUG does for us: run() with a budget, and a debugger's steps and points.
//
// KVM has no instruction counter that a guest could not disturb, so every instruction of a budget is a single step:
// slow, and good for lockstep. A step ends after an instruction, or before the first one of an exception's or
// interrupt's handler; a repeated string instruction steps once an iteration, as RFLAGS.TF would have it (SDM vol. 3B
// 17.3.1.4); an OUT that KVM's emulator runs is one step with the instruction after it. So the count is not exact in
// the sense of engine_ops.counts_instructions.
//
// While a debugger has points or steps, #DB and #BP come to us. What is not its own goes back into the guest. The
// debug registers are its own then: breakpoints that the guest has set for itself do not hit.
#define LOG_UNIT "kvm"
#include <string.h>

#include "engine/kvm/kvm.h"
#include "util/log.h"

// A halted vCPU goes on by an interrupt only.
static bool masks_interrupts(struct kvm_vcpu *v) {
    struct kvm_mp_state mp = {.mp_state = KVM_MP_STATE_RUNNABLE};

    if (v->debug_step != DEBUG_STEP_MASKED || !v->engine->blocks_irqs)
        return false;
    if (kvm_lapic_in_kernel(v))
        kvm_ioctl(v->fd, KVM_GET_MP_STATE, &mp);
    return mp.mp_state == KVM_MP_STATE_RUNNABLE;
}

static struct kvm_guest_debug wanted(struct kvm_vcpu *v) {
    const struct kvm_points *p = &v->engine->points;
    struct kvm_guest_debug d;

    memset(&d, 0, sizeof(d)); // compared as bytes
    if (v->stepping || v->debug_step != DEBUG_RUN)
        d.control |= KVM_GUESTDBG_SINGLESTEP;
    if (masks_interrupts(v))
        d.control |= KVM_GUESTDBG_BLOCKIRQ;
    if (p->dr7)
        d.control |= KVM_GUESTDBG_USE_HW_BP;
    if (p->patches)
        d.control |= KVM_GUESTDBG_USE_SW_BP;
    if (!d.control)
        return d;
    d.control |= KVM_GUESTDBG_ENABLE;
    for (unsigned i = 0; i < 4; i++)
        d.arch.debugreg[i] = p->dr[i];
    d.arch.debugreg[7] = p->dr7;
    return d;
}

int kvm_step_set(struct kvm_vcpu *v, uint64_t budget) {
    struct kvm_guest_debug d;
    int r = 0;

    v->stepping = budget != BUDGET_UNLIMITED;
    v->budget = budget;
    d = wanted(v);
    if (memcmp(&d, &v->debug, sizeof(d)) != 0)
        r = kvm_ioctl(v->fd, KVM_SET_GUEST_DEBUG, &d);
    if (r == 0)
        v->debug = d;
    return r;
}

// ---- what came ----

static bool report(struct vm_exit *exit, enum debug_kind kind, uint64_t addr) {
    exit->reason = EXIT_DEBUG;
    exit->debug.kind = kind;
    exit->debug.addr = addr;
    return true;
}

// The guest's own exception: it is delivered when the vCPU is entered again.
static bool give_back(struct kvm_vcpu *v, struct vm_exit *exit, unsigned vector, uint64_t dr6) {
    struct kvm_vcpu_events e = {0};
    int r = kvm_ioctl(v->fd, KVM_GET_VCPU_EVENTS, &e);

    e.flags = 0;
    e.exception.nr = (uint8_t)vector;
    e.exception.has_error_code = 0;
    if (vector == X86_DB && v->engine->has_payload) {
        e.flags = KVM_VCPUEVENT_VALID_PAYLOAD;
        e.exception.injected = 0;
        e.exception.pending = 1;
        e.exception_has_payload = 1;
        e.exception_payload = dr6 & (15u | 1u << 13 | 1u << 14 | 1u << 15);
    } else {
        e.exception.injected = 1;
    }
    if (r == 0)
        r = kvm_ioctl(v->fd, KVM_SET_VCPU_EVENTS, &e);
    if (r == 0)
        return false;
    kvm_report_failure(v, exit, "give exception %u back to the guest: %s", vector, strerrordesc_np(-r));
    return true;
}

bool kvm_step_exit(struct kvm_vcpu *v, struct vm_exit *exit) {
    const struct kvm_debug_exit_arch *a = &v->run->debug.arch;
    const struct debug_point *p = kvm_points_find(v->engine, a->exception, a->pc, a->dr6);

    if (p)
        return report(exit, p->kind, p->addr);
    if (a->exception == X86_BP)
        return give_back(v, exit, X86_BP, 0);
    if (v->stepping) {
        exit->reason = EXIT_BUDGET;
        return --v->budget == 0;
    }
    if (v->debug_step != DEBUG_RUN)
        return report(exit, DEBUG_STEPPED, 0);
    return give_back(v, exit, X86_DB, a->dr6);
}
