// SPDX-License-Identifier: Apache-2.0
// What KVM_RUN returned for (5, struct kvm_run), by a const table over the exit reason.
#include <string.h>

#include "engine/kvm/kvm.h"

// True where run() is to return with *exit filled.
typedef bool exit_fn(struct kvm_vcpu *v, struct vm_exit *exit);

// ---- accesses, answered on the spot ----

static void ask_host(struct kvm_vcpu *v, struct vm_exit *access) {
    v->engine->host->exit(v->engine->host->ctx, v->index, access);
}

// A string instruction comes as `count` accesses of `size` bytes in one exit.
static bool on_io(struct kvm_vcpu *v, struct vm_exit *exit) {
    const struct kvm_run *r = v->run;
    uint8_t *data = (uint8_t *)v->run + r->io.data_offset, size = r->io.size;
    bool write = r->io.direction == KVM_EXIT_IO_OUT;

    kvm_count(v, KC_PIO);
    for (uint32_t i = 0; i < r->io.count; i++, data += size) {
        struct vm_exit a = {.reason = EXIT_PIO, .pio = {.port = r->io.port, .size = size, .write = write}};
        if (write)
            memcpy(&a.pio.data, data, size);
        ask_host(v, &a);
        if (!write)
            memcpy(data, &a.pio.data, size);
    }
    v->unfinished = true;
    return false;
}

// Largest power of two that is at most len: the bus knows 1, 2, 4 and 8.
static uint8_t piece(uint32_t len) {
    return len >= 8 ? 8 : len >= 4 ? 4 : len >= 2 ? 2 : 1;
}

static bool on_mmio(struct kvm_vcpu *v, struct vm_exit *exit) {
    struct kvm_run *r = v->run;
    uint32_t done = 0, len = r->mmio.len <= sizeof(r->mmio.data) ? r->mmio.len : (uint32_t)sizeof(r->mmio.data);

    kvm_count(v, KC_MMIO);
    while (done < len) {
        uint8_t size = piece(len - done);
        struct vm_exit a = {.reason = EXIT_MMIO,
                            .mmio = {.gpa = GPA(r->mmio.phys_addr + done), .size = size, .write = r->mmio.is_write}};
        if (a.mmio.write)
            memcpy(&a.mmio.data, r->mmio.data + done, size);
        else
            a.mmio.data = ~0ull;
        ask_host(v, &a);
        if (!a.mmio.write)
            memcpy(r->mmio.data + done, &a.mmio.data, size);
        done += size;
    }
    v->unfinished = true;
    return false;
}

// Registers of interrupt controllers in user space; any other comes here because KVM does not know it: #GP.
static bool on_msr(struct kvm_vcpu *v, struct vm_exit *exit) {
    struct kvm_run *r = v->run;
    const struct irqchip_cpu *c = v->irqchip;
    bool write = r->exit_reason == KVM_EXIT_X86_WRMSR;
    uint64_t value = 0;
    int ret = -1;

    kvm_count(v, KC_MSR);
    if (c)
        ret = write ? c->ops->reg_write(c->ctx, r->msr.index, r->msr.data)
                    : c->ops->reg_read(c->ctx, r->msr.index, &value);
    r->msr.error = ret != 0;
    if (!write)
        r->msr.data = value;
    v->unfinished = true;
    return false;
}

// ---- nothing to answer ----

static bool go_on(struct kvm_vcpu *v, struct vm_exit *exit) {
    return false;
}

// Chips in user space only: the next turn of the loop looks for an interrupt first.
static bool on_hlt(struct kvm_vcpu *v, struct vm_exit *exit) {
    v->activity = X86_HALTED;
    return false;
}

// Local APICs alone in the kernel: a level-triggered interrupt of the I/O APIC is done.
static bool on_eoi(struct kvm_vcpu *v, struct vm_exit *exit) {
    kvm_count(v, KC_EOIS);
    v->irqchip->ops->eoi(v->irqchip->ctx, v->run->eoi.vector);
    return false;
}

static bool on_ring_full(struct kvm_vcpu *v, struct vm_exit *exit) {
    if (kvm_ring_full(v))
        return false;
    kvm_report_failure(v, exit, "KVM has written over its dirty ring (--kvm-opts dirty=bitmap goes without)");
    return true;
}

// ---- ends of run() ----

static bool on_shutdown(struct kvm_vcpu *v, struct vm_exit *exit) {
    exit->reason = EXIT_SHUTDOWN;
    return true;
}

// The step of a budget, or what a debugger has set.
static bool on_debug(struct kvm_vcpu *v, struct vm_exit *exit) {
    return kvm_step_exit(v, exit);
}

static bool on_fail_entry(struct kvm_vcpu *v, struct vm_exit *exit) {
    kvm_report_failure(v, exit, "the processor refuses to enter the guest, reason 0x%llx",
                       (unsigned long long)v->run->fail_entry.hardware_entry_failure_reason);
    return true;
}

static bool on_unknown(struct kvm_vcpu *v, struct vm_exit *exit) {
    kvm_report_failure(v, exit, "KVM does not know hardware exit 0x%llx",
                       (unsigned long long)v->run->hw.hardware_exit_reason);
    return true;
}

static bool on_internal_error(struct kvm_vcpu *v, struct vm_exit *exit) {
    static const char *const names[] = {[0] = "unknown",
                                        [KVM_INTERNAL_ERROR_EMULATION] = "cannot emulate the instruction",
                                        [KVM_INTERNAL_ERROR_SIMUL_EX] = "exception while delivering one",
                                        [KVM_INTERNAL_ERROR_DELIVERY_EV] = "exit while delivering an event",
                                        [KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON] = "unexpected hardware exit"};
    uint32_t sub = v->run->internal.suberror;

    kvm_report_failure(v, exit, "KVM internal error %u (%s)", sub, sub < ARRAY_LEN(names) ? names[sub] : "unknown");
    return true;
}

static exit_fn *const handlers[] = {
    [KVM_EXIT_UNKNOWN] = on_unknown,
    [KVM_EXIT_IO] = on_io,
    [KVM_EXIT_MMIO] = on_mmio,
    [KVM_EXIT_X86_RDMSR] = on_msr,
    [KVM_EXIT_X86_WRMSR] = on_msr,
    [KVM_EXIT_HLT] = on_hlt,
    [KVM_EXIT_IRQ_WINDOW_OPEN] = go_on,
    [KVM_EXIT_INTR] = go_on,
    [KVM_EXIT_SET_TPR] = go_on,
    [KVM_EXIT_IOAPIC_EOI] = on_eoi,
    [KVM_EXIT_SHUTDOWN] = on_shutdown,
    [KVM_EXIT_DEBUG] = on_debug,
    [KVM_EXIT_DIRTY_RING_FULL] = on_ring_full,
    [KVM_EXIT_FAIL_ENTRY] = on_fail_entry,
    [KVM_EXIT_INTERNAL_ERROR] = on_internal_error,
};

bool kvm_exit_handle(struct kvm_vcpu *v, struct vm_exit *exit) {
    uint32_t reason = v->run->exit_reason;

    if (reason < ARRAY_LEN(handlers) && handlers[reason])
        return handlers[reason](v, exit);
    kvm_report_failure(v, exit, "no handler for KVM exit %u", reason);
    return true;
}
