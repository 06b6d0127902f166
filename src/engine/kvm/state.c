// SPDX-License-Identifier: Apache-2.0
// Canonical state to KVM's structures and back: set(get()) changes nothing that a guest can observe.
//
// Order of get: the activity first, since reading it makes KVM take an INIT or SIPI that waits.
// Order of set: control registers first (they decide what the rest may hold), MSRs, then the counter, events last. The
// local APIC's own registers in kvm_sregs (apic_base, CR8) belong to the interrupt controller and are left as they are.
// KVM's exceptions "injected" but not delivered are not kept: RIP still stands at the instruction that raised them,
// which raises them again. An external interrupt in that state cannot come again and is kept.
#include <errno.h>
#include <string.h>

#include "engine/kvm/kvm.h"

// ---- segments ----

static struct kvm_segment segment_to_kvm(const struct x86_segment *s) {
    return (struct kvm_segment){
        .base = s->base,
        .limit = s->limit,
        .selector = s->sel,
        .type = SEG_TYPE(s->attr),
        .present = s->attr & SEG_P ? 1 : 0,
        .dpl = SEG_DPL(s->attr),
        .db = s->attr & SEG_DB ? 1 : 0,
        .s = s->attr & SEG_S ? 1 : 0,
        .l = s->attr & SEG_L ? 1 : 0,
        .g = s->attr & SEG_G ? 1 : 0,
        .avl = s->attr >> 12 & 1,
        .unusable = s->attr & SEG_UNUSABLE ? 1 : 0,
    };
}

static struct x86_segment segment_from_kvm(const struct kvm_segment *k) {
    return (struct x86_segment){
        .base = k->base,
        .limit = k->limit,
        .sel = k->selector,
        .attr = (uint32_t)k->type | (k->s ? SEG_S : 0) | (uint32_t)k->dpl << 5 | (k->present ? SEG_P : 0) |
                (uint32_t)k->avl << 12 | (k->l ? SEG_L : 0) | (k->db ? SEG_DB : 0) | (k->g ? SEG_G : 0) |
                (k->unusable ? SEG_UNUSABLE : 0),
    };
}

static struct kvm_segment *sregs_segment(struct kvm_sregs *k, unsigned seg) {
    struct kvm_segment *const at[X86_SEG_COUNT] = {
        [X86_ES] = &k->es, [X86_CS] = &k->cs, [X86_SS] = &k->ss,    [X86_DS] = &k->ds,
        [X86_FS] = &k->fs, [X86_GS] = &k->gs, [X86_LDTR] = &k->ldt, [X86_TR] = &k->tr,
    };

    return at[seg];
}

// ---- registers ----

static int regs_get(struct kvm_vcpu *v, struct cpu_state *s) {
    struct kvm_regs k;
    int r = kvm_ioctl(v->fd, KVM_GET_REGS, &k);

    memcpy(s->gpr,
           (uint64_t[]){k.rax, k.rcx, k.rdx, k.rbx, k.rsp, k.rbp, k.rsi, k.rdi, k.r8, k.r9, k.r10, k.r11, k.r12, k.r13,
                        k.r14, k.r15},
           sizeof(s->gpr));
    s->rip = k.rip;
    s->rflags = k.rflags;
    return r;
}

static int regs_set(struct kvm_vcpu *v, const struct cpu_state *s) {
    const uint64_t *g = s->gpr;
    struct kvm_regs k = {
        .rax = g[X86_RAX],
        .rcx = g[X86_RCX],
        .rdx = g[X86_RDX],
        .rbx = g[X86_RBX],
        .rsp = g[X86_RSP],
        .rbp = g[X86_RBP],
        .rsi = g[X86_RSI],
        .rdi = g[X86_RDI],
        .r8 = g[X86_R8],
        .r9 = g[X86_R9],
        .r10 = g[X86_R10],
        .r11 = g[X86_R11],
        .r12 = g[X86_R12],
        .r13 = g[X86_R13],
        .r14 = g[X86_R14],
        .r15 = g[X86_R15],
        .rip = s->rip,
        .rflags = s->rflags,
    };

    return kvm_ioctl(v->fd, KVM_SET_REGS, &k);
}

static int sregs_get(struct kvm_vcpu *v, struct cpu_state *s) {
    struct kvm_sregs k;
    int r = kvm_ioctl(v->fd, KVM_GET_SREGS, &k);

    if (r)
        return r;
    for (unsigned i = 0; i < X86_SEG_COUNT; i++)
        s->seg[i] = segment_from_kvm(sregs_segment(&k, i));
    s->gdtr = (struct x86_table){.base = k.gdt.base, .limit = k.gdt.limit};
    s->idtr = (struct x86_table){.base = k.idt.base, .limit = k.idt.limit};
    s->cr0 = k.cr0;
    s->cr2 = k.cr2;
    s->cr3 = k.cr3;
    s->cr4 = k.cr4;
    s->efer = k.efer;
    return 0;
}

static int sregs_set(struct kvm_vcpu *v, const struct cpu_state *s) {
    struct kvm_sregs k;
    int r = kvm_ioctl(v->fd, KVM_GET_SREGS, &k);

    if (r)
        return r;
    for (unsigned i = 0; i < X86_SEG_COUNT; i++)
        *sregs_segment(&k, i) = segment_to_kvm(&s->seg[i]);
    k.gdt = (struct kvm_dtable){.base = s->gdtr.base, .limit = s->gdtr.limit};
    k.idt = (struct kvm_dtable){.base = s->idtr.base, .limit = s->idtr.limit};
    k.cr0 = s->cr0;
    k.cr2 = s->cr2;
    k.cr3 = s->cr3;
    k.cr4 = s->cr4;
    k.efer = s->efer;
    memset(k.interrupt_bitmap, 0, sizeof(k.interrupt_bitmap)); // goes with the events
    return kvm_ioctl(v->fd, KVM_SET_SREGS, &k);
}

static int debug_get(struct kvm_vcpu *v, struct cpu_state *s) {
    struct kvm_debugregs k = {0};
    int r = kvm_ioctl(v->fd, KVM_GET_DEBUGREGS, &k);

    memcpy(s->dr, (uint64_t[]){k.db[0], k.db[1], k.db[2], k.db[3]}, sizeof(s->dr));
    s->dr6 = k.dr6;
    s->dr7 = k.dr7;
    return r;
}

static int debug_set(struct kvm_vcpu *v, const struct cpu_state *s) {
    struct kvm_debugregs k = {.db = {s->dr[0], s->dr[1], s->dr[2], s->dr[3]}, .dr6 = s->dr6, .dr7 = s->dr7};

    return kvm_ioctl(v->fd, KVM_SET_DEBUGREGS, &k);
}

// ---- events ----

static int events_get(struct kvm_vcpu *v, struct cpu_state *s) {
    struct kvm_vcpu_events k = {0};
    int r = kvm_ioctl(v->fd, KVM_GET_VCPU_EVENTS, &k);

    s->intr_shadow = (k.interrupt.shadow & KVM_X86_SHADOW_INT_STI ? 1 : 0) |
                     (k.interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS ? 2 : 0);
    s->intr_taken = k.interrupt.injected && !k.interrupt.soft;
    s->intr_vector = s->intr_taken ? k.interrupt.nr : 0;
    s->nmi_pending = k.nmi.pending || k.nmi.injected;
    s->nmi_blocked = k.nmi.masked && !k.nmi.injected;
    s->sipi_vector = (uint8_t)k.sipi_vector;
    s->debug_pending = k.exception.pending && k.exception.nr == X86_DB;
    s->debug_pending_dr6 = s->debug_pending && k.exception_has_payload ? k.exception_payload : 0;
    return r;
}

static int events_set(struct kvm_vcpu *v, const struct cpu_state *s) {
    struct kvm_vcpu_events k = {
        .flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR | KVM_VCPUEVENT_VALID_SHADOW,
        .interrupt = {.injected = s->intr_taken,
                      .nr = s->intr_vector,
                      .shadow = (s->intr_shadow & 1 ? KVM_X86_SHADOW_INT_STI : 0) |
                                (s->intr_shadow & 2 ? KVM_X86_SHADOW_INT_MOV_SS : 0)},
        .nmi = {.pending = s->nmi_pending, .masked = s->nmi_blocked},
        .sipi_vector = s->sipi_vector,
    };

    if (v->engine->has_payload) {
        k.flags |= KVM_VCPUEVENT_VALID_PAYLOAD;
        k.exception.pending = s->debug_pending;
        k.exception.nr = s->debug_pending ? X86_DB : 0;
        k.exception_has_payload = s->debug_pending;
        k.exception_payload = s->debug_pending_dr6;
    }
    return kvm_ioctl(v->fd, KVM_SET_VCPU_EVENTS, &k);
}

// ---- activity ----

static int activity_get(struct kvm_vcpu *v, struct cpu_state *s) {
    struct kvm_mp_state k;
    int r;

    s->activity = v->activity;
    if (!kvm_lapic_in_kernel(v))
        return 0;
    r = kvm_ioctl(v->fd, KVM_GET_MP_STATE, &k);
    if (r)
        return r;
    switch (k.mp_state) {
    case KVM_MP_STATE_HALTED: s->activity = X86_HALTED; break;
    case KVM_MP_STATE_UNINITIALIZED:
    case KVM_MP_STATE_INIT_RECEIVED: s->activity = X86_WAIT_SIPI; break;
    default: s->activity = X86_ACTIVE; break;
    }
    return 0;
}

static int activity_set(struct kvm_vcpu *v, const struct cpu_state *s) {
    struct kvm_mp_state k = {.mp_state = KVM_MP_STATE_RUNNABLE};

    v->activity = s->activity;
    if (!kvm_lapic_in_kernel(v))
        return 0;
    if (s->activity == X86_HALTED)
        k.mp_state = KVM_MP_STATE_HALTED;
    else if (s->activity == X86_WAIT_SIPI)
        k.mp_state = KVM_MP_STATE_INIT_RECEIVED;
    return kvm_ioctl(v->fd, KVM_SET_MP_STATE, &k);
}

// ---- all of it ----

int kvm_state_get(struct kvm_vcpu *v, struct cpu_state *s) {
    static int (*const parts[])(struct kvm_vcpu *, struct cpu_state *) = {
        activity_get, regs_get, sregs_get, debug_get, kvm_fpu_get, kvm_msrs_get, kvm_tsc_get, events_get};

    memset(s, 0, sizeof(*s));
    for (unsigned i = 0; i < ARRAY_LEN(parts); i++) {
        int r = parts[i](v, s);
        if (r)
            return r;
    }
    return 0;
}

int kvm_state_set(struct kvm_vcpu *v, const struct cpu_state *s) {
    static int (*const parts[])(struct kvm_vcpu *, const struct cpu_state *) = {
        sregs_set, regs_set, kvm_fpu_set, kvm_msrs_set, kvm_tsc_set, debug_set, activity_set, events_set};

    for (unsigned i = 0; i < ARRAY_LEN(parts); i++) {
        int r = parts[i](v, s);
        if (r)
            return r;
    }
    // KVM fills these only when KVM_RUN returns; inject.c reads them before.
    v->run->if_flag = s->rflags & RFLAGS_IF ? 1 : 0;
    v->run->ready_for_interrupt_injection = v->run->if_flag && !s->intr_shadow && !s->intr_taken;
    return 0;
}
