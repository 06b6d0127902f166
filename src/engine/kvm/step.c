// SPDX-License-Identifier: Apache-2.0
// run() with a budget: KVM has no instruction counter that a guest could not disturb, so every instruction is a single
// step (4.87 KVM_SET_GUEST_DEBUG). Slow, and good for lockstep and debuggers.
//
// A step ends after an instruction, or before the first one of an exception's or interrupt's handler; a repeated string
// instruction steps once an iteration, as RFLAGS.TF would have it (SDM vol. 3B 17.3.1.4); an OUT that KVM's emulator
// runs is one step with the instruction after it. So the count is not exact in the sense of
// engine_ops.counts_instructions.
#include "engine/kvm/kvm.h"

int kvm_step_set(struct kvm_vcpu *v, uint64_t budget) {
    bool on = budget != BUDGET_UNLIMITED;
    struct kvm_guest_debug debug = {.control = on ? KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP : 0};
    int r = 0;

    if (on != v->stepping)
        r = kvm_ioctl(v->fd, KVM_SET_GUEST_DEBUG, &debug);
    if (r == 0)
        v->stepping = on;
    v->budget = budget;
    return r;
}

// True where the step that has just ended was the last one.
bool kvm_step_done(struct kvm_vcpu *v) {
    return v->stepping && --v->budget == 0;
}
