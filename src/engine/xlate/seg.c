// SPDX-License-Identifier: Apache-2.0
// Segment registers: descriptor access, the checks of every kind of load, and what a register holds afterwards
// (SDM vol. 3A ch. 3.4, 5; vol. 2 MOV, POP, LDS).
//
// The CPL is the DPL of SS (as in VMX): whoever changes it loads SS with an attr of that DPL, a null SS included.
#include "engine/xlate/sys.h"

uint64_t desc_linear(const struct xcpu *x, uint16_t sel) {
    uint64_t base = sel & 4 ? x->s.seg[X86_LDTR].base : x->s.gdtr.base;

    return base + (sel & ~7u);
}

static bool desc_in_table(const struct xcpu *x, uint16_t sel, unsigned size) {
    const struct x86_segment *ldt = &x->s.seg[X86_LDTR];
    uint32_t last = (sel & ~7u) + size - 1;

    if (!(sel & 4))
        return last <= x->s.gdtr.limit;
    return !(ldt->attr & SEG_UNUSABLE) && last <= ldt->limit;
}

enum xres desc_read(struct xcpu *x, uint16_t sel, uint32_t ext, enum x86_vector vector, uint64_t *d) {
    if (!desc_in_table(x, sel, 8))
        return fault_raise_err(x, vector, (sel & ~3u) | ext);
    return mmu_read(x, desc_linear(x, sel), d, 8, MMU_SYSTEM);
}

enum xres desc_peek(struct xcpu *x, uint16_t sel, uint64_t *d, bool *ok) {
    *ok = (sel & ~3u) && desc_in_table(x, sel, 8);
    if (!*ok)
        return X_OK;
    return mmu_read(x, desc_linear(x, sel), d, 8, MMU_SYSTEM);
}

enum xres desc_read_high(struct xcpu *x, uint16_t sel, uint32_t ext, uint64_t *high) {
    if (!desc_in_table(x, sel, 16))
        return fault_raise_err(x, X86_GP, (sel & ~3u) | ext);
    TRY(mmu_read(x, desc_linear(x, sel) + 8, high, 8, MMU_SYSTEM));
    if ((*high >> 40 & 0x1f) != 0) // the type field of the second half has to be 0 (SDM vol. 3A 5.8.3.1)
        return fault_raise_err(x, X86_GP, (sel & ~3u) | ext);
    return X_OK;
}

enum xres desc_set_accessed(struct xcpu *x, uint16_t sel, uint64_t *d) {
    uint8_t access;

    if (*d >> 40 & 1)
        return X_OK;
    *d |= 1ull << 40;
    access = (uint8_t)(*d >> 40);
    return mmu_write(x, desc_linear(x, sel) + 5, &access, 1, MMU_WRITE | MMU_SYSTEM);
}

struct gate gate_parse(uint64_t low, uint64_t high, bool long_mode) {
    struct gate g = {
        .offset = (low & 0xffff) | (low >> 32 & 0xffff0000),
        .sel = (uint16_t)(low >> 16),
        .type = (uint8_t)desc_type(low),
        .dpl = (uint8_t)desc_dpl(low),
        .ist = low >> 32 & 7,
        .params = low >> 32 & 31,
        .present = desc_present(low),
    };

    if (long_mode)
        g.offset |= high << 32;
    else if (g.type < 8)
        g.offset &= 0xffff; // 16-bit gate
    return g;
}

// ---- filling a register ----

void seg_set(struct xcpu *x, enum x86_seg seg, uint16_t sel, uint64_t d) {
    x->s.seg[seg] = (struct x86_segment){
        .base = desc_base(d),
        .limit = desc_limit(d),
        .attr = desc_attr(d),
        .sel = sel,
    };
}

void seg_set_null(struct xcpu *x, enum x86_seg seg, uint16_t sel) {
    x->s.seg[seg] = (struct x86_segment){.attr = SEG_UNUSABLE, .sel = sel};
}

void seg_set_null_ss(struct xcpu *x, uint16_t sel, unsigned cpl) {
    x->s.seg[X86_SS] = (struct x86_segment){.attr = SEG_UNUSABLE | cpl << 5, .sel = sel};
}

// Real mode leaves limit and attributes alone (so "unreal mode" works), unless there are none to keep.
void seg_set_real(struct xcpu *x, enum x86_seg seg, uint16_t sel) {
    struct x86_segment *s = &x->s.seg[seg];

    s->sel = sel;
    s->base = (uint32_t)sel << 4;
    if (cpu_vm86(x)) {
        s->limit = 0xffff;
        s->attr = 0xf3;
    } else if (s->attr & SEG_UNUSABLE) {
        s->limit = 0xffff;
        s->attr = 0x93;
    }
}

static void drop_if_inner(struct xcpu *x, enum x86_seg seg, unsigned cpl) {
    const struct x86_segment *s = &x->s.seg[seg];
    bool conforming_code = (s->attr & 0x1c) == 0x1c;

    if (!(s->attr & SEG_UNUSABLE) && !conforming_code && SEG_DPL(s->attr) < cpl)
        seg_set_null(x, seg, 0);
}

void seg_drop_inner(struct xcpu *x, unsigned cpl) {
    drop_if_inner(x, X86_ES, cpl);
    drop_if_inner(x, X86_DS, cpl);
    drop_if_inner(x, X86_FS, cpl);
    drop_if_inner(x, X86_GS, cpl);
}

// ---- checks ----

enum xres seg_check_ss(struct xcpu *x, uint16_t sel, unsigned cpl, uint32_t ext, enum x86_vector vector, uint64_t *d) {
    uint32_t error = (sel & ~3u) | ext;

    if (!(sel & ~3u))
        return fault_raise_err(x, vector, ext);
    TRY(desc_read(x, sel, ext, vector, d));
    if ((sel & 3u) != cpl || desc_dpl(*d) != cpl || !desc_writable_data(*d))
        return fault_raise_err(x, vector, error);
    if (!desc_present(*d))
        return fault_raise_err(x, X86_SS_FAULT, error);
    return X_OK;
}

enum xres seg_check_cs_direct(struct xcpu *x, uint16_t sel, uint64_t d) {
    uint32_t error = sel & ~3u;

    if (desc_conforming(d) ? desc_dpl(d) > x->cpl : ((sel & 3u) > x->cpl || desc_dpl(d) != x->cpl))
        return fault_raise_err(x, X86_GP, error);
    if (x->long_mode && desc_long(d) && desc_db(d))
        return fault_raise_err(x, X86_GP, error);
    if (!desc_present(d))
        return fault_raise_err(x, X86_NP, error);
    return X_OK;
}

static enum xres load_ss(struct xcpu *x, uint16_t sel) {
    uint64_t d;

    if (!(sel & ~3u)) {
        if (!cpu_64bit(x) || x->cpl == 3 || (sel & 3u) != x->cpl)
            return gp0(x);
        seg_set_null_ss(x, sel, x->cpl);
        mode_update(x);
        return X_OK;
    }
    TRY(seg_check_ss(x, sel, x->cpl, 0, X86_GP, &d));
    TRY(desc_set_accessed(x, sel, &d));
    seg_set(x, X86_SS, sel, d);
    mode_update(x);
    return X_OK;
}

enum xres seg_load_data(struct xcpu *x, enum x86_seg seg, uint16_t sel, enum x86_vector bad) {
    uint32_t error = sel & ~3u;
    unsigned rpl = sel & 3u;
    uint64_t d;

    TRY(desc_read(x, sel, 0, bad, &d));
    if (!desc_is_segment(d) || (desc_is_code(d) && !(d >> 41 & 1))) // system, or code that cannot be read
        return fault_raise_err(x, bad, error);
    if (!(desc_is_code(d) && desc_conforming(d)) && (rpl > desc_dpl(d) || x->cpl > desc_dpl(d)))
        return fault_raise_err(x, bad, error);
    if (!desc_present(d))
        return fault_raise_err(x, X86_NP, error);
    TRY(desc_set_accessed(x, sel, &d));
    seg_set(x, seg, sel, d);
    return X_OK;
}

enum xres seg_load(struct xcpu *x, enum x86_seg seg, uint16_t sel) {
    if (!cpu_protected(x) || cpu_vm86(x)) {
        seg_set_real(x, seg, sel);
        mode_update(x);
        return X_OK;
    }
    if (seg == X86_SS)
        return load_ss(x, sel);
    if (sel & ~3u)
        TRY(seg_load_data(x, seg, sel, X86_GP));
    else
        seg_set_null(x, seg, sel);
    if (!cpu_64bit(x)) // flat or not decides how 16- and 32-bit code is run
        mode_update(x);
    return X_OK;
}

// `bad`: the vector for a selector that is no LDT (#GP for LLDT, #TS in a task switch).
enum xres seg_load_ldtr(struct xcpu *x, uint16_t sel, enum x86_vector bad) {
    uint32_t error = sel & ~3u;
    uint64_t d, high = 0;

    if (!error) {
        seg_set_null(x, X86_LDTR, sel);
        return X_OK;
    }
    if (sel & 4)
        return fault_raise_err(x, bad, error);
    TRY(desc_read(x, sel, 0, bad, &d));
    if (desc_is_segment(d) || desc_type(d) != DESC_TYPE_LDT)
        return fault_raise_err(x, bad, error);
    if (!desc_present(d))
        return fault_raise_err(x, bad == X86_TS ? X86_TS : X86_NP, error);
    if (x->long_mode) {
        TRY(desc_read_high(x, sel, 0, &high));
        if (!is_canonical(high << 32 | desc_base(d)))
            return fault_raise_err(x, X86_GP, error);
    }
    seg_set(x, X86_LDTR, sel, d);
    x->s.seg[X86_LDTR].base |= high << 32;
    return X_OK;
}
