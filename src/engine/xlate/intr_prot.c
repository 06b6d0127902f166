// SPDX-License-Identifier: Apache-2.0
// Delivery of interrupts and exceptions outside long mode: protected mode (16- and 32-bit gates, task gates, from
// virtual-8086 mode), real mode, and the VME redirection of INT n (SDM vol. 3A 6.12, 20.1.4, 20.3).
#include "engine/xlate/sys.h"

static inline uint32_t idt_error(const struct intr_event *ev) {
    return ev->vector * 8u + DESC_IDT + ev->ext;
}

static enum xres read_gate(struct xcpu *x, const struct intr_event *ev, struct gate *g) {
    uint64_t e;

    *g = (struct gate){0};
    if (ev->vector * 8u + 7 > x->s.idtr.limit)
        return fault_raise_err(x, X86_GP, idt_error(ev));
    TRY(mmu_read(x, x->s.idtr.base + ev->vector * 8u, &e, 8, MMU_SYSTEM));
    *g = gate_parse(e, 0, false);
    if (desc_is_segment(e) || !(g->type == DESC_TYPE_TASK_GATE || (g->type & 6) == 6))
        return fault_raise_err(x, X86_GP, idt_error(ev));
    if (ev->kind == INTR_SOFTWARE && g->dpl < x->cpl)
        return fault_raise_err(x, X86_GP, idt_error(ev));
    if (!g->present)
        return fault_raise_err(x, X86_NP, idt_error(ev));
    return X_OK;
}

static enum xres read_handler_cs(struct xcpu *x, const struct intr_event *ev, uint16_t sel, uint64_t *d) {
    uint32_t error = (sel & ~3u) | ev->ext;

    if (!(sel & ~3u))
        return fault_raise_err(x, X86_GP, ev->ext);
    TRY(desc_read(x, sel, ev->ext, X86_GP, d));
    if (!desc_is_segment(*d) || !desc_is_code(*d) || desc_dpl(*d) > x->cpl)
        return fault_raise_err(x, X86_GP, error);
    if (!desc_present(*d))
        return fault_raise_err(x, X86_NP, error);
    if (cpu_vm86(x) && (desc_conforming(*d) || desc_dpl(*d) != 0)) // only CPL 0 serves virtual-8086 mode
        return fault_raise_err(x, X86_GP, error);
    return desc_set_accessed(x, sel, d);
}

// The inner stack out of the TSS, with the outer one (and vm86's data segments) already on it.
static enum xres enter_inner_stack(struct xcpu *x, const struct intr_event *ev, unsigned cpl, unsigned size,
                                   struct xstack *st, uint16_t *ss_sel, uint64_t *ss) {
    uint32_t esp;

    TRY(tss_stack_legacy(x, cpl, ev->ext, ss_sel, &esp));
    TRY(seg_check_ss(x, *ss_sel, cpl, ev->ext, X86_TS, ss));
    TRY(desc_set_accessed(x, *ss_sel, ss));
    xstack_from_desc(st, *ss, esp, cpl);
    st->error = (*ss_sel & ~3u) | ev->ext;
    if (cpu_vm86(x)) {
        TRY(xstack_push(x, st, x->s.seg[X86_GS].sel, size));
        TRY(xstack_push(x, st, x->s.seg[X86_FS].sel, size));
        TRY(xstack_push(x, st, x->s.seg[X86_DS].sel, size));
        TRY(xstack_push(x, st, x->s.seg[X86_ES].sel, size));
    }
    TRY(xstack_push(x, st, x->s.seg[X86_SS].sel, size));
    return xstack_push(x, st, x->s.gpr[X86_RSP], size);
}

static enum xres push_frame(struct xcpu *x, const struct intr_event *ev, unsigned size, struct xstack *st) {
    TRY(xstack_push(x, st, ev->rflags, size));
    TRY(xstack_push(x, st, x->s.seg[X86_CS].sel, size));
    TRY(xstack_push(x, st, ev->return_rip, size));
    if (ev->has_error)
        TRY(xstack_push(x, st, ev->error, size));
    return X_OK;
}

static void leave_vm86(struct xcpu *x) {
    if (!cpu_vm86(x))
        return;
    seg_set_null(x, X86_GS, 0);
    seg_set_null(x, X86_FS, 0);
    seg_set_null(x, X86_DS, 0);
    seg_set_null(x, X86_ES, 0);
}

enum xres intr_deliver_legacy(struct xcpu *x, const struct intr_event *ev) {
    uint64_t cs, ss = 0;
    uint16_t ss_sel = 0;
    struct xstack st;
    struct gate g;
    unsigned cpl, size;
    bool inner;

    TRY(read_gate(x, ev, &g));
    if (g.type == DESC_TYPE_TASK_GATE)
        return task_switch(x, g.sel, TASK_INTR, ev->return_rip, ev->has_error, ev->error, ev->ext);
    TRY(read_handler_cs(x, ev, g.sel, &cs));
    cpl = desc_conforming(cs) ? x->cpl : desc_dpl(cs);
    inner = cpl < x->cpl;
    size = g.type & 8 ? 4 : 2;
    if (inner) {
        TRY(enter_inner_stack(x, ev, cpl, size, &st, &ss_sel, &ss));
    } else {
        xstack_current(x, &st);
        st.error = ev->ext;
    }
    TRY(push_frame(x, ev, size, &st));
    if (g.offset > desc_limit(cs))
        return fault_raise_err(x, X86_GP, ev->ext);

    leave_vm86(x);
    seg_set(x, X86_CS, (uint16_t)((g.sel & ~3u) | cpl), cs);
    if (inner) {
        seg_set(x, X86_SS, ss_sel, ss);
        x->s.gpr[X86_RSP] = st.sp | (st.mask == 0xffff ? x->s.gpr[X86_RSP] & 0xffff0000 : 0);
    } else {
        xstack_commit(x, &st);
    }
    x->s.rip = g.offset;
    x->s.rflags &= ~(RFLAGS_TF | RFLAGS_NT | RFLAGS_RF | RFLAGS_VM | (g.type & 1 ? 0 : RFLAGS_IF));
    mode_update(x);
    return X_OK;
}

// Enters the handler of a real-mode style vector table at `ivt`.
static enum xres enter_ivt(struct xcpu *x, const struct intr_event *ev, uint64_t ivt, uint64_t flags_image) {
    uint32_t vector;
    struct xstack st;

    TRY(mmu_read(x, ivt + ev->vector * 4u, &vector, 4, MMU_SYSTEM));
    xstack_current(x, &st);
    TRY(xstack_push(x, &st, flags_image, 2));
    TRY(xstack_push(x, &st, x->s.seg[X86_CS].sel, 2));
    TRY(xstack_push(x, &st, ev->return_rip, 2));
    xstack_commit(x, &st);
    seg_set_real(x, X86_CS, (uint16_t)(vector >> 16));
    x->s.rip = vector & 0xffff;
    return X_OK;
}

// Error codes are not pushed in real mode (SDM vol. 3A 20.1.4).
enum xres intr_deliver_real(struct xcpu *x, const struct intr_event *ev) {
    if (ev->vector * 4u + 3 > x->s.idtr.limit)
        return fault_raise_err(x, X86_GP, idt_error(ev));
    TRY(enter_ivt(x, ev, x->s.idtr.base, ev->rflags));
    x->s.rflags &= ~(RFLAGS_IF | RFLAGS_TF | RFLAGS_AC | RFLAGS_RF);
    mode_update(x);
    return X_OK;
}

// SDM vol. 3A 20.3.3, methods 5 and 6: the program's own vector table at 0, IF virtualised when IOPL < 3.
enum xres intr_deliver_vme(struct xcpu *x, const struct intr_event *ev) {
    bool virtual_if = (x->s.rflags & RFLAGS_IOPL) != RFLAGS_IOPL;
    uint64_t image = ev->rflags;

    if (virtual_if) {
        image = (image & ~RFLAGS_IF) | RFLAGS_IOPL;
        if (image & RFLAGS_VIF)
            image |= RFLAGS_IF;
    }
    TRY(enter_ivt(x, ev, 0, image));
    x->s.rflags &= ~(RFLAGS_TF | RFLAGS_NT | RFLAGS_RF | (virtual_if ? RFLAGS_VIF : RFLAGS_IF));
    mode_update(x);
    return X_OK;
}
