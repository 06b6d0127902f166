// SPDX-License-Identifier: Apache-2.0
// Interrupts and exceptions: which one, in what order, and what follows when delivering one fails
// (SDM vol. 3A 6.9 priorities, 6.15 double fault, 6.8 masking).
//
// No event is lost: intr_poll takes the request back before it looks, and whoever opens a window (STI, POPF, IRET, the
// end of a shadow) asks again. With an interrupt shadow open the dispatcher executes one instruction before polling.
#include "engine/xlate/debug.h"
#include "engine/xlate/stats.h"
#include "engine/xlate/sys.h"

#define SHADOW_STI    1u
#define SHADOW_MOV_SS 2u

static enum xres deliver(struct xcpu *x, const struct intr_event *ev) {
    bool in_insn = ev->kind == INTR_SOFTWARE || ev->kind == INTR_ICEBP;
    bool stepping = in_insn && (x->s.rflags & RFLAGS_TF);

    if (!cpu_protected(x))
        TRY(intr_deliver_real(x, ev));
    else if (x->long_mode)
        TRY(intr_deliver_long(x, ev));
    else
        TRY(intr_deliver_legacy(x, ev));
    x->s.activity = X86_ACTIVE;
    x->s.intr_shadow = 0;
    if (stepping)
        x->s.debug_pending |= DEBUG_NO_STEP;
    return X_OK;
}

enum fault_class { BENIGN, CONTRIBUTORY, PAGE_FAULT, DOUBLE_FAULT };

static enum fault_class fault_class(unsigned vector) {
    switch (vector) {
    case X86_DE:
    case X86_TS:
    case X86_NP:
    case X86_SS_FAULT:
    case X86_GP: return CONTRIBUTORY;
    case X86_PF: return PAGE_FAULT;
    case X86_DF: return DOUBLE_FAULT;
    default: return BENIGN;
    }
}

// SDM vol. 3A table 6-5: both together make a double fault.
static bool is_double(enum fault_class first, enum fault_class second) {
    if (first == CONTRIBUTORY)
        return second == CONTRIBUTORY;
    return first == PAGE_FAULT && second != BENIGN;
}

static enum xres shutdown(struct xcpu *x) {
    x->s.activity = X86_IN_SHUTDOWN;
    x->exit = (struct vm_exit){.reason = EXIT_SHUTDOWN};
    return X_EXIT;
}

static enum xres deliver_exception(struct xcpu *x, const struct xfault *f) {
    struct intr_event ev = {
        .kind = INTR_EXCEPTION,
        .vector = f->vector,
        .has_error = f->has_error,
        .error = f->error,
        .return_rip = x->s.rip,
        .rflags = x->s.rflags,
        .ext = DESC_EXT,
    };

    // Faults push RF = 1, so that an instruction breakpoint does not hit again; #DB and #DF push it as it is.
    if (f->vector != X86_DB && f->vector != X86_DF)
        ev.rflags |= RFLAGS_RF;
    if (f->vector == X86_PF)
        x->s.cr2 = f->cr2;
    if (f->vector == X86_DB)
        debug_commit(x, f->dr6);
    return deliver(x, &ev);
}

enum xres intr_deliver_fault(struct xcpu *x) {
    struct xfault first = x->fault;

    for (;;) {
        enum xres res = deliver_exception(x, &first);

        if (res != X_FAULT)
            return res;
        // Every second exception but a benign one ends #DF in shutdown (SDM vol. 3A 6.15), and none of those that
        // delivery can raise is benign.
        if (first.vector == X86_DF)
            return shutdown(x);
        if (x->fault.vector == X86_PF)
            x->s.cr2 = x->fault.cr2; // also where it becomes a double fault: kernels find stack overflows by it
        if (is_double(fault_class(first.vector), fault_class(x->fault.vector)))
            first = (struct xfault){.vector = X86_DF, .has_error = true};
        else
            first = x->fault;
    }
}

enum xres intr_deliver_external(struct xcpu *x, uint8_t vector) {
    struct intr_event ev = {
        .kind = INTR_EXTERNAL,
        .vector = vector,
        .return_rip = x->s.rip,
        .rflags = x->s.rflags,
        .ext = DESC_EXT,
    };
    enum xres res = deliver(x, &ev);

    x->stat[XS_INTERRUPTS]++;
    return res == X_FAULT ? intr_deliver_fault(x) : res;
}

// Bit `vector` of the software interrupt redirection bitmap, which ends where the I/O permission bitmap begins.
static enum xres vme_redirects(struct xcpu *x, uint8_t vector, bool *redirect) {
    const struct x86_segment *tr = &x->s.seg[X86_TR];
    uint16_t io_base;
    uint8_t bits;

    *redirect = false;
    if (tr->limit < 103)
        return gp0(x);
    TRY(mmu_read(x, tr->base + 102, &io_base, 2, MMU_SYSTEM));
    if (io_base < 32 || io_base - 32u + vector / 8u > tr->limit)
        return gp0(x);
    TRY(mmu_read(x, tr->base + io_base - 32u + vector / 8u, &bits, 1, MMU_SYSTEM));
    *redirect = !(bits >> (vector & 7) & 1);
    return X_OK;
}

static enum xres software_vm86(struct xcpu *x, const struct intr_event *ev, bool *done) {
    bool redirect = false;

    if (x->s.cr4 & CR4_VME)
        TRY(vme_redirects(x, ev->vector, &redirect));
    *done = redirect;
    if (redirect)
        return intr_deliver_vme(x, ev);
    return (x->s.rflags & RFLAGS_IOPL) != RFLAGS_IOPL ? gp0(x) : X_OK;
}

enum xres intr_software(struct xcpu *x, uint8_t vector, uint64_t next_rip, bool int3_or_into) {
    struct intr_event ev = {
        .kind = INTR_SOFTWARE,
        .vector = vector,
        .return_rip = next_rip,
        .rflags = x->s.rflags & ~RFLAGS_RF,
    };
    uint16_t task = x->s.seg[X86_TR].sel;
    bool done = false;
    enum xres res;

    if (cpu_vm86(x) && !int3_or_into)
        TRY(software_vm86(x, &ev, &done));
    if (done)
        return X_OK;
    res = deliver(x, &ev);
    return res == X_FAULT ? task_fault(x, task) : res;
}

// INT1 is a #DB trap that no DPL check guards and that leaves DR6 alone ("ICEBP"; SDM vol. 2 INT n/INTO/INT3/INT1).
enum xres intr_icebp(struct xcpu *x, uint64_t next_rip) {
    struct intr_event ev = {
        .kind = INTR_ICEBP,
        .vector = X86_DB,
        .return_rip = next_rip,
        .rflags = x->s.rflags & ~RFLAGS_RF,
        .ext = DESC_EXT,
    };

    TRY(deliver(x, &ev));
    debug_commit(x, 0);
    return X_OK;
}

// ---- the instruction boundary ----

static void take_init(struct xcpu *x) {
    fpu_save(x); // what follows is ordinary code
    x->irqchip->ops->reset(x->irqchip->ctx, true);
    x86_state_reset(&x->s, x->index == 0, true);
    mmu_flush_all(x);
    mode_update(x);
}

static void take_sipi(struct xcpu *x, uint8_t vector) {
    if (x->s.activity != X86_WAIT_SIPI)
        return;
    fpu_save(x);
    x86_state_sipi(&x->s, vector);
    mmu_flush_all(x);
    mode_update(x);
}

static void take_events(struct xcpu *x) {
    uint32_t ev = x->irqchip->ops->take_events(x->irqchip->ctx);

    if (__builtin_expect(!ev, 1))
        return;
    if (ev & IRQCHIP_INIT)
        take_init(x);
    if (ev & IRQCHIP_SIPI)
        take_sipi(x, (uint8_t)(ev >> 8));
    if ((ev & IRQCHIP_NMI) && x->s.activity != X86_WAIT_SIPI)
        x->s.nmi_pending = 1;
}

static enum xres leave(struct xcpu *x, enum exit_reason reason) {
    x->exit = (struct vm_exit){.reason = reason};
    return X_EXIT;
}

// Takes at most one event. *taken: something was delivered, the vCPU runs.
static enum xres take_one(struct xcpu *x, bool *taken) {
    const struct irqchip_cpu *chip = x->irqchip;
    int vector;

    *taken = true;
    if (x->s.intr_taken) { // state from an engine that stopped between acknowledge and delivery
        x->s.intr_taken = 0;
        return intr_deliver_external(x, x->s.intr_vector);
    }
    if ((x->s.debug_pending & DEBUG_TRAP_PENDING) && !(x->s.intr_shadow & SHADOW_MOV_SS)) {
        uint64_t bits = x->s.debug_pending_dr6;

        x->s.debug_pending = 0;
        x->s.debug_pending_dr6 = 0;
        fault_debug(x, bits);
        return intr_deliver_fault(x);
    }
    if (x->debug_step == DEBUG_STEP_MASKED && x->s.activity != X86_HALTED) {
        *taken = false;
        return X_OK;
    }
    if (x->s.nmi_pending && !x->s.nmi_blocked && !(x->s.intr_shadow & SHADOW_MOV_SS)) {
        x->s.nmi_pending = 0;
        x->s.nmi_blocked = 1;
        return intr_deliver_external(x, X86_NMI);
    }
    if ((x->s.rflags & RFLAGS_IF) && !x->s.intr_shadow && chip->ops->pending(chip->ctx) >= 0) {
        vector = chip->ops->ack(chip->ctx);
        if (vector >= 0)
            return intr_deliver_external(x, (uint8_t)vector);
    }
    *taken = false;
    return X_OK;
}

// Something that waits behind what was just delivered, or behind a shadow, needs another look.
static void ask_again(struct xcpu *x) {
    bool masked_nmi = x->s.nmi_pending && x->s.nmi_blocked;
    bool want = (x->s.debug_pending & DEBUG_TRAP_PENDING) || (x->s.nmi_pending && !masked_nmi) ||
                ((x->s.rflags & RFLAGS_IF) && x->irqchip->ops->pending(x->irqchip->ctx) >= 0);

    if (want)
        request_exit(x);
}

enum xres intr_poll(struct xcpu *x) {
    bool taken;

    atomic_exchange(&x->jump_mask, JUMP_MASK);
    if (atomic_load_explicit(&x->kicked, memory_order_relaxed) && atomic_exchange(&x->kicked, 0)) {
        request_exit(x); // the other events are looked at when run() is called again
        return leave(x, EXIT_KICKED);
    }
    take_events(x);
    if (x->s.activity == X86_WAIT_SIPI)
        return leave(x, EXIT_WAIT_SIPI);
    if (x->s.activity == X86_IN_SHUTDOWN)
        return leave(x, EXIT_SHUTDOWN);
    TRY(take_one(x, &taken));
    if (taken || x->s.intr_shadow)
        ask_again(x);
    if (x->s.activity == X86_HALTED)
        return leave(x, EXIT_HALT);
    return X_OK;
}
