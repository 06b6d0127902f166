// SPDX-License-Identifier: Apache-2.0
// Hardware task switches with 16- and 32-bit TSSs (SDM vol. 3A 8.2, 8.3). Legacy modes only.
//
// Everything that can fault in the outgoing task is checked first. From the load of TR on the new task is current, and
// a fault that its own segments raise is delivered in it, as the manual has it.
#include "engine/xlate/debug.h"
#include "engine/xlate/sys.h"

// Offsets in the TSS: figure 8-2 (32-bit) and 8-10 (16-bit).
struct tss_layout {
    uint8_t width, cr3, ip, flags, gpr, seg, nsegs, ldt, trap, limit;
};
static const struct tss_layout tss32 = {4, 0x1c, 0x20, 0x24, 0x28, 0x48, 6, 0x60, 0x64, 0x67};
static const struct tss_layout tss16 = {2, 0, 0x0e, 0x10, 0x12, 0x22, 4, 0x2a, 0, 0x2b};

static const enum x86_seg tss_segs[6] = {X86_ES, X86_CS, X86_SS, X86_DS, X86_FS, X86_GS};

struct task_image {
    uint32_t cr3, ip, flags, gpr[8];
    uint16_t seg[6], ldt;
    bool trap;
};

static inline const struct tss_layout *layout_of(uint32_t type) {
    return type & 8 ? &tss32 : &tss16;
}

static enum xres get(struct xcpu *x, uint64_t lin, unsigned size, uint32_t *val) {
    *val = 0;
    return mmu_read(x, lin, val, size, MMU_SYSTEM);
}

static enum xres put(struct xcpu *x, uint64_t lin, unsigned size, uint32_t val) {
    return mmu_write(x, lin, &val, size, MMU_WRITE | MMU_SYSTEM);
}

static enum xres read_image(struct xcpu *x, uint64_t base, const struct tss_layout *l, struct task_image *t) {
    uint32_t v;

    *t = (struct task_image){0};
    TRY(get(x, base + l->ip, l->width, &t->ip));
    TRY(get(x, base + l->flags, l->width, &t->flags));
    for (unsigned i = 0; i < 8; i++)
        TRY(get(x, base + l->gpr + i * l->width, l->width, &t->gpr[i]));
    for (unsigned i = 0; i < l->nsegs; i++) {
        TRY(get(x, base + l->seg + i * l->width, 2, &v));
        t->seg[i] = (uint16_t)v;
    }
    TRY(get(x, base + l->ldt, 2, &v));
    t->ldt = (uint16_t)v;
    if (l->cr3) {
        TRY(get(x, base + l->cr3, 4, &t->cr3));
        TRY(get(x, base + l->trap, 2, &v));
        t->trap = v & 1;
    }
    return X_OK;
}

static enum xres save_outgoing(struct xcpu *x, uint64_t rip, uint64_t rflags) {
    const struct x86_segment *tr = &x->s.seg[X86_TR];
    const struct tss_layout *l = layout_of(SEG_TYPE(tr->attr));

    TRY(put(x, tr->base + l->ip, l->width, (uint32_t)rip));
    TRY(put(x, tr->base + l->flags, l->width, (uint32_t)rflags));
    for (unsigned i = 0; i < 8; i++)
        TRY(put(x, tr->base + l->gpr + i * l->width, l->width, (uint32_t)x->s.gpr[i]));
    for (unsigned i = 0; i < l->nsegs; i++)
        TRY(put(x, tr->base + l->seg + i * l->width, 2, x->s.seg[tss_segs[i]].sel));
    return X_OK;
}

static enum xres set_busy(struct xcpu *x, uint16_t sel, bool busy) {
    uint64_t lin = x->s.gdtr.base + (sel & ~7u) + 5;
    uint8_t access;

    TRY(mmu_read(x, lin, &access, 1, MMU_SYSTEM));
    access = (uint8_t)(busy ? access | 2 : access & ~2);
    return mmu_write(x, lin, &access, 1, MMU_WRITE | MMU_SYSTEM);
}

// ---- the incoming task ----

static enum xres load_cs(struct xcpu *x, uint16_t sel) {
    uint32_t error = sel & ~3u;
    unsigned rpl = sel & 3u;
    uint64_t d;

    if (!error)
        return fault_raise_err(x, X86_TS, 0);
    TRY(desc_read(x, sel, 0, X86_TS, &d));
    if (!desc_is_segment(d) || !desc_is_code(d))
        return fault_raise_err(x, X86_TS, error);
    if (desc_conforming(d) ? desc_dpl(d) > rpl : desc_dpl(d) != rpl)
        return fault_raise_err(x, X86_TS, error);
    if (!desc_present(d))
        return fault_raise_err(x, X86_NP, error);
    TRY(desc_set_accessed(x, sel, &d));
    seg_set(x, X86_CS, sel, d);
    return X_OK;
}

static enum xres load_segments(struct xcpu *x, const struct task_image *t) {
    unsigned cpl = t->seg[1] & 3u;
    uint64_t d;

    if (cpu_vm86(x)) {
        for (unsigned i = 0; i < 6; i++)
            seg_set_real(x, tss_segs[i], t->seg[i]);
        return X_OK;
    }
    for (unsigned i = 0; i < 6; i++) // selectors are visible even if their descriptors turn out bad
        seg_set_null(x, tss_segs[i], t->seg[i]);
    seg_set_null_ss(x, t->seg[2], cpl);
    mode_update(x);
    TRY(load_cs(x, t->seg[1]));
    TRY(seg_check_ss(x, t->seg[2], cpl, 0, X86_TS, &d));
    TRY(desc_set_accessed(x, t->seg[2], &d));
    seg_set(x, X86_SS, t->seg[2], d);
    mode_update(x);
    for (unsigned i = 0; i < 6; i++)
        if (tss_segs[i] != X86_CS && tss_segs[i] != X86_SS && (t->seg[i] & ~3u))
            TRY(seg_load_data(x, tss_segs[i], t->seg[i], X86_TS));
    return x->s.rip > x->s.seg[X86_CS].limit ? fault_raise_err(x, X86_GP, 0) : X_OK;
}

static enum xres enter_task(struct xcpu *x, const struct task_image *t, const struct tss_layout *l) {
    for (unsigned i = 0; i < 8; i++)
        x->s.gpr[i] = l->width == 4 ? t->gpr[i] : (x->s.gpr[i] & ~0xffffull) | t->gpr[i];
    x->s.rip = t->ip;
    x->s.rflags = (t->flags & 0x3f7fd7u) | RFLAGS_FIXED1;
    seg_set_null(x, X86_LDTR, t->ldt);
    if (l->cr3 && (x->s.cr0 & CR0_PG))
        TRY(mmu_set_cr3(x, t->cr3));
    TRY(seg_load_ldtr(x, t->ldt, X86_TS));
    TRY(load_segments(x, t));
    mode_update(x);
    return X_OK;
}

// ---- the switch ----

static enum xres check_tss(struct xcpu *x, uint16_t sel, enum task_reason reason, uint32_t ext, uint64_t *d) {
    enum x86_vector bad = reason == TASK_IRET ? X86_TS : X86_GP;
    unsigned want_busy = reason == TASK_IRET ? 2 : 0;
    uint32_t error = (sel & ~3u) | ext;

    if (!(sel & ~3u) || (sel & 4))
        return fault_raise_err(x, bad, error);
    TRY(desc_read(x, sel, ext, bad, d));
    if (desc_is_segment(*d) || (desc_type(*d) & 7) != (1 | want_busy))
        return fault_raise_err(x, bad, error);
    if (!desc_present(*d))
        return fault_raise_err(x, X86_NP, error);
    if (desc_limit(*d) < layout_of(desc_type(*d))->limit)
        return fault_raise_err(x, X86_TS, error);
    return X_OK;
}

static enum xres push_error(struct xcpu *x, unsigned size, uint32_t error, uint32_t ext) {
    struct xstack st;

    xstack_current(x, &st);
    st.error = ext;
    TRY(xstack_push(x, &st, error, size));
    xstack_commit(x, &st);
    return X_OK;
}

enum xres task_switch(struct xcpu *x, uint16_t sel, enum task_reason reason, uint64_t old_rip, bool has_error,
                      uint32_t error, uint32_t ext) {
    struct x86_segment *tr = &x->s.seg[X86_TR];
    bool nested = reason == TASK_CALL || reason == TASK_INTR;
    uint64_t d, rflags = x->s.rflags;
    const struct tss_layout *l;
    struct task_image t;

    TRY(check_tss(x, sel, reason, ext, &d));
    l = layout_of(desc_type(d));
    if (tr->limit < layout_of(SEG_TYPE(tr->attr))->limit)
        return fault_raise_err(x, X86_TS, (tr->sel & ~3u) | ext);
    TRY(read_image(x, desc_base(d), l, &t));
    TRY(mmu_probe(x, desc_base(d), 2, MMU_WRITE | MMU_SYSTEM));
    if (reason == TASK_IRET)
        rflags &= ~RFLAGS_NT;
    TRY(save_outgoing(x, old_rip, rflags));
    if (!nested)
        TRY(set_busy(x, tr->sel, false));
    if (nested) {
        TRY(put(x, desc_base(d), 2, tr->sel));
        t.flags |= RFLAGS_NT;
    }
    if (reason != TASK_IRET)
        TRY(set_busy(x, sel, true));

    seg_set(x, X86_TR, sel, d | 2ull << 40);
    x->s.cr0 |= CR0_TS;
    x->s.dr7 &= ~0x155ull; // local breakpoint enables belong to the task
    TRY(enter_task(x, &t, l));
    if (has_error)
        TRY(push_error(x, l->width, error, ext));
    if (t.trap) {
        x->s.debug_pending |= DEBUG_TRAP_PENDING;
        x->s.debug_pending_dr6 |= DR6_BT;
        request_exit(x);
    }
    if (x->s.rflags & RFLAGS_IF)
        intr_window(x);
    return X_OK;
}

enum xres task_fault(struct xcpu *x, uint16_t old_task) {
    return x->s.seg[X86_TR].sel == old_task ? X_FAULT : intr_deliver_fault(x);
}
