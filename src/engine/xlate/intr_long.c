// SPDX-License-Identifier: Apache-2.0
// Delivery of interrupts and exceptions in long mode (SDM vol. 3A 6.14). The hot one: three reads and one write.
#include "engine/xlate/sys.h"

static inline uint32_t idt_error(const struct intr_event *ev) {
    return ev->vector * 8u + DESC_IDT + ev->ext;
}

static enum xres read_gate(struct xcpu *x, const struct intr_event *ev, struct gate *g) {
    uint64_t e[2];

    if (ev->vector * 16u + 15 > x->s.idtr.limit)
        return fault_raise_err(x, X86_GP, idt_error(ev));
    TRY(mmu_read(x, x->s.idtr.base + ev->vector * 16u, e, 16, MMU_SYSTEM));
    *g = gate_parse(e[0], e[1], true);
    if (desc_is_segment(e[0]) || (g->type != DESC_TYPE_INT32 && g->type != DESC_TYPE_TRAP32))
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
    if (!desc_is_segment(*d) || !desc_is_code(*d) || desc_dpl(*d) > x->cpl || !desc_long(*d) || desc_db(*d))
        return fault_raise_err(x, X86_GP, error);
    if (!desc_present(*d))
        return fault_raise_err(x, X86_NP, error);
    return desc_set_accessed(x, sel, d);
}

// Writes the frame below *rsp (aligned to 16) and moves it.
static enum xres push_frame(struct xcpu *x, const struct intr_event *ev, unsigned cpl, uint64_t *rsp) {
    uint64_t frame[6] = {ev->error,  ev->return_rip,    x->s.seg[X86_CS].sel,
                         ev->rflags, x->s.gpr[X86_RSP], x->s.seg[X86_SS].sel};
    unsigned skip = ev->has_error ? 0 : 1;
    unsigned size = (6 - skip) * 8;
    uint64_t sp = (*rsp & ~15ull) - size;

    if (!is_canonical(sp) || !is_canonical(sp + size - 1))
        return fault_raise_err(x, X86_SS_FAULT, ev->ext);
    *rsp = sp;
    // The stack of an inner level is written with that level's rights; without a change of CPL these are the current.
    return mmu_write(x, sp, frame + skip, size, MMU_WRITE | (cpl < x->cpl ? MMU_SYSTEM : 0));
}

static void commit(struct xcpu *x, const struct gate *g, uint64_t cs, unsigned cpl, uint64_t rsp) {
    bool same_mode = cpl == x->cpl && cpu_64bit(x) && !(x->s.rflags & RFLAGS_TF);
    uint64_t clear = RFLAGS_TF | RFLAGS_NT | RFLAGS_RF | RFLAGS_VM | (g->type == DESC_TYPE_INT32 ? RFLAGS_IF : 0);

    seg_set(x, X86_CS, (uint16_t)((g->sel & ~3u) | cpl), cs);
    if (cpl != x->cpl)
        seg_set_null_ss(x, (uint16_t)cpl, cpl);
    x->s.gpr[X86_RSP] = rsp;
    x->s.rip = g->offset;
    x->s.rflags &= ~clear;
    if (!same_mode)
        mode_update(x);
}

enum xres intr_deliver_long(struct xcpu *x, const struct intr_event *ev) {
    uint64_t cs, rsp = x->s.gpr[X86_RSP];
    struct gate g = {0};
    unsigned cpl;

    TRY(read_gate(x, ev, &g));
    TRY(read_handler_cs(x, ev, g.sel, &cs));
    cpl = desc_conforming(cs) ? x->cpl : desc_dpl(cs);
    if (g.ist || cpl < x->cpl)
        TRY(tss_stack_long(x, cpl, g.ist, ev->ext, &rsp));
    TRY(push_frame(x, ev, cpl, &rsp));
    if (!is_canonical(g.offset))
        return fault_raise_err(x, X86_GP, ev->ext);
    commit(x, &g, cs, cpl, rsp);
    return X_OK;
}
