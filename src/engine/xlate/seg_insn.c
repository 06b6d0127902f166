// SPDX-License-Identifier: Apache-2.0
// Instructions about segments and descriptor tables: MOV/PUSH/POP Sreg, LDS..LGS, LAR, LSL, VERR, VERW, ARPL,
// LLDT, LTR, SLDT, STR, LGDT, LIDT, SGDT, SIDT, SMSW, LMSW (SDM vol. 2; UMIP: vol. 3A 2.5).
#include "engine/xlate/sys.h"

static bool seg_of_reg(ZydisRegister r, enum x86_seg *seg) {
    if (r < ZYDIS_REGISTER_ES || r > ZYDIS_REGISTER_GS)
        return false;
    *seg = (enum x86_seg)(r - ZYDIS_REGISTER_ES); // Zydis has the order of ModRM
    return true;
}

static inline bool is_mem(const struct insn *in, unsigned i) {
    return in->op[i].type == ZYDIS_OPERAND_TYPE_MEMORY;
}

// These exist in protected mode only, virtual-8086 mode not included.
static inline bool no_descriptors(const struct xcpu *x) {
    return !cpu_protected(x) || cpu_vm86(x);
}

static inline enum xres umip_check(struct xcpu *x) {
    return (x->s.cr4 & CR4_UMIP) && x->cpl > 0 ? gp0(x) : X_OK;
}

// A selector-sized result: memory takes 16 bits, a register its full operand size, zero-extended.
static enum xres write_word(struct xcpu *x, struct insn *in, uint64_t val) {
    uint16_t w = (uint16_t)val;

    if (is_mem(in, 0))
        return seg_write(x, insn_seg(&in->op[0]), insn_ea(x, in, &in->op[0]), &w, 2, MMU_WRITE);
    return op_write(x, in, 0, val);
}

static enum xres read_word(struct xcpu *x, struct insn *in, unsigned i, uint16_t *w) {
    uint64_t v;

    if (is_mem(in, i))
        return seg_read(x, insn_seg(&in->op[i]), insn_ea(x, in, &in->op[i]), w, 2, MMU_READ);
    TRY(op_read(x, in, i, &v));
    *w = (uint16_t)v;
    return X_OK;
}

// ---- MOV, PUSH, POP ----

enum xres sys_insn_mov_seg(struct xcpu *x, struct insn *in) {
    enum x86_seg seg;
    uint16_t sel;

    if (in->op[1].type == ZYDIS_OPERAND_TYPE_REGISTER && seg_of_reg(in->op[1].reg.value, &seg))
        return write_word(x, in, x->s.seg[seg].sel);
    if (in->op[0].type != ZYDIS_OPERAND_TYPE_REGISTER || !seg_of_reg(in->op[0].reg.value, &seg) || seg == X86_CS)
        return ud(x);
    TRY(read_word(x, in, 1, &sel));
    TRY(seg_load(x, seg, sel));
    if (seg == X86_SS)
        x->s.intr_shadow |= 2;
    return X_OK;
}

enum xres sys_insn_push_seg(struct xcpu *x, struct insn *in) {
    enum x86_seg seg;
    struct xstack st;

    if (!seg_of_reg(in->op[0].reg.value, &seg))
        return ud(x);
    // With a 32-bit operand current processors write 16 bits only and leave the rest of the slot (SDM vol. 2 PUSH).
    if (in->z.operand_width != 32)
        return stack_push(x, x->s.seg[seg].sel, in->z.operand_width / 8u);
    xstack_current(x, &st);
    st.sp = (st.sp - 2) & st.mask;
    TRY(xstack_push(x, &st, x->s.seg[seg].sel, 2));
    xstack_commit(x, &st);
    return X_OK;
}

enum xres sys_insn_pop_seg(struct xcpu *x, struct insn *in) {
    unsigned size = in->z.operand_width / 8u;
    enum x86_seg seg;
    struct xstack st;
    uint64_t sel;

    if (!seg_of_reg(in->op[0].reg.value, &seg) || seg == X86_CS)
        return ud(x);
    xstack_current(x, &st);
    TRY(xstack_pop(x, &st, &sel, 2));
    st.sp = (st.sp + size - 2) & st.mask;
    TRY(seg_load(x, seg, (uint16_t)sel));
    xstack_commit(x, &st);
    if (seg == X86_SS)
        x->s.intr_shadow |= 2;
    return X_OK;
}

// LDS, LES, LSS, LFS, LGS
enum xres insn_lfs(struct xcpu *x, struct insn *in) {
    unsigned size = in->z.operand_width / 8u;
    enum x86_seg seg = X86_DS;
    uint8_t buf[10] = {0};
    uint64_t off = 0;
    uint16_t sel;

    if (!is_mem(in, 1))
        return ud(x);
    switch (in->z.mnemonic) {
    case ZYDIS_MNEMONIC_LES: seg = X86_ES; break;
    case ZYDIS_MNEMONIC_LSS: seg = X86_SS; break;
    case ZYDIS_MNEMONIC_LFS: seg = X86_FS; break;
    case ZYDIS_MNEMONIC_LGS: seg = X86_GS; break;
    default: break;
    }
    TRY(seg_read(x, insn_seg(&in->op[1]), insn_ea(x, in, &in->op[1]), buf, size + 2, MMU_READ));
    __builtin_memcpy(&off, buf, 8);
    if (size < 8)
        off &= (1ull << (8 * size)) - 1;
    sel = (uint16_t)(buf[size] | buf[size + 1] << 8);
    TRY(seg_load(x, seg, sel));
    reg_write(x, in->op[0].reg.value, off);
    return X_OK;
}

// ---- looking at descriptors without loading them ----

static void set_zf(struct xcpu *x, bool zf) {
    x->s.rflags = zf ? x->s.rflags | RFLAGS_ZF : x->s.rflags & ~RFLAGS_ZF;
}

// Types of system descriptors that LAR and LSL accept, one bit each (SDM vol. 2 tables 3-52, 3-53).
#define LAR_TYPES      0x1a3eu // TSS16, LDT, TSS16 busy, call16, task gate, TSS32, TSS32 busy, call32
#define LAR_TYPES_LONG 0x1a04u // LDT, TSS64, TSS64 busy, call64
#define LSL_TYPES      0x0a0eu
#define LSL_TYPES_LONG 0x0a04u

static bool may_look(const struct xcpu *x, uint16_t sel, uint64_t d, unsigned types) {
    if (desc_is_segment(d)) {
        if (desc_is_code(d) && desc_conforming(d))
            return true;
    } else if (!(types >> desc_type(d) & 1)) {
        return false;
    }
    return desc_dpl(d) >= x->cpl && desc_dpl(d) >= (sel & 3u);
}

enum xres insn_lar(struct xcpu *x, struct insn *in) {
    unsigned types = x->long_mode ? LAR_TYPES_LONG : LAR_TYPES;
    uint16_t sel;
    uint64_t d;
    bool ok;

    if (no_descriptors(x))
        return ud(x);
    TRY(read_word(x, in, 1, &sel));
    TRY(desc_peek(x, sel, &d, &ok));
    ok = ok && may_look(x, sel, d, types);
    if (ok)
        reg_write(x, in->op[0].reg.value, d >> 32 & (in->z.operand_width == 16 ? 0xff00 : 0xf0ff00));
    set_zf(x, ok);
    return X_OK;
}

enum xres insn_lsl(struct xcpu *x, struct insn *in) {
    unsigned types = x->long_mode ? LSL_TYPES_LONG : LSL_TYPES;
    uint16_t sel;
    uint64_t d;
    bool ok;

    if (no_descriptors(x))
        return ud(x);
    TRY(read_word(x, in, 1, &sel));
    TRY(desc_peek(x, sel, &d, &ok));
    ok = ok && may_look(x, sel, d, types);
    if (ok)
        reg_write(x, in->op[0].reg.value, desc_limit(d));
    set_zf(x, ok);
    return X_OK;
}

// VERR and VERW
enum xres insn_verr(struct xcpu *x, struct insn *in) {
    bool write = in->z.mnemonic == ZYDIS_MNEMONIC_VERW;
    uint16_t sel;
    uint64_t d;
    bool ok;

    if (no_descriptors(x))
        return ud(x);
    TRY(read_word(x, in, 0, &sel));
    TRY(desc_peek(x, sel, &d, &ok));
    ok = ok && desc_is_segment(d) && may_look(x, sel, d, 0);
    if (ok && write)
        ok = desc_writable_data(d);
    else if (ok)
        ok = !desc_is_code(d) || (d >> 41 & 1);
    set_zf(x, ok);
    return X_OK;
}

enum xres insn_arpl(struct xcpu *x, struct insn *in) {
    uint16_t dst;
    uint64_t src;
    bool adjust;

    if (no_descriptors(x))
        return ud(x);
    TRY(read_word(x, in, 0, &dst));
    TRY(op_read(x, in, 1, &src));
    adjust = (dst & 3u) < (src & 3u);
    TRY(write_word(x, in, (dst & ~3u) | (adjust ? src & 3u : dst & 3u)));
    set_zf(x, adjust);
    return X_OK;
}

// ---- LDTR and TR ----

enum xres insn_lldt(struct xcpu *x, struct insn *in) {
    uint16_t sel;

    if (no_descriptors(x))
        return ud(x);
    if (x->cpl)
        return gp0(x);
    TRY(read_word(x, in, 0, &sel));
    return seg_load_ldtr(x, sel, X86_GP);
}

enum xres insn_ltr(struct xcpu *x, struct insn *in) {
    uint64_t d, high = 0;
    uint32_t error;
    uint8_t access;
    uint16_t sel;

    if (no_descriptors(x))
        return ud(x);
    if (x->cpl)
        return gp0(x);
    TRY(read_word(x, in, 0, &sel));
    error = sel & ~3u;
    if (!error || (sel & 4))
        return fault_raise_err(x, X86_GP, error);
    TRY(desc_read(x, sel, 0, X86_GP, &d));
    if (desc_is_segment(d) || !(desc_type(d) == DESC_TYPE_TSS32 || (desc_type(d) == DESC_TYPE_TSS16 && !x->long_mode)))
        return fault_raise_err(x, X86_GP, error);
    if (!desc_present(d))
        return fault_raise_err(x, X86_NP, error);
    if (x->long_mode) {
        TRY(desc_read_high(x, sel, 0, &high));
        if (!is_canonical(high << 32 | desc_base(d)))
            return fault_raise_err(x, X86_GP, error);
    }
    d |= 2ull << 40; // busy
    access = (uint8_t)(d >> 40);
    TRY(mmu_write(x, desc_linear(x, sel) + 5, &access, 1, MMU_WRITE | MMU_SYSTEM));
    seg_set(x, X86_TR, sel, d);
    x->s.seg[X86_TR].base |= high << 32;
    return X_OK;
}

enum xres insn_sldt(struct xcpu *x, struct insn *in) {
    if (no_descriptors(x))
        return ud(x);
    TRY(umip_check(x));
    return write_word(x, in, x->s.seg[X86_LDTR].sel);
}

enum xres insn_str(struct xcpu *x, struct insn *in) {
    if (no_descriptors(x))
        return ud(x);
    TRY(umip_check(x));
    return write_word(x, in, x->s.seg[X86_TR].sel);
}

// ---- GDTR and IDTR ----

// LGDT and LIDT
enum xres insn_lgdt(struct xcpu *x, struct insn *in) {
    struct x86_table *t = in->z.mnemonic == ZYDIS_MNEMONIC_LGDT ? &x->s.gdtr : &x->s.idtr;
    unsigned size = cpu_64bit(x) ? 8 : 4;
    uint64_t base = 0;
    uint8_t buf[10];

    if (x->cpl) // vm86 runs at CPL 3
        return gp0(x);
    TRY(seg_read(x, insn_seg(&in->op[0]), insn_ea(x, in, &in->op[0]), buf, size + 2, MMU_READ));
    __builtin_memcpy(&base, buf + 2, 4);
    if (size == 8)
        __builtin_memcpy(&base, buf + 2, 8);
    else if (in->z.operand_width == 16)
        base &= 0xffffff;
    if (!is_canonical(base))
        return gp0(x);
    t->limit = (uint16_t)(buf[0] | buf[1] << 8);
    t->base = base;
    return X_OK;
}

// SGDT and SIDT
enum xres insn_sgdt(struct xcpu *x, struct insn *in) {
    const struct x86_table *t = in->z.mnemonic == ZYDIS_MNEMONIC_SGDT ? &x->s.gdtr : &x->s.idtr;
    unsigned size = cpu_64bit(x) ? 8 : 4;
    uint8_t buf[10];

    TRY(umip_check(x));
    buf[0] = (uint8_t)t->limit;
    buf[1] = (uint8_t)(t->limit >> 8);
    __builtin_memcpy(buf + 2, &t->base, 8);
    return seg_write(x, insn_seg(&in->op[0]), insn_ea(x, in, &in->op[0]), buf, size + 2, MMU_WRITE);
}

// ---- machine status word ----

enum xres insn_smsw(struct xcpu *x, struct insn *in) {
    TRY(umip_check(x));
    return write_word(x, in, x->s.cr0);
}

// Sets PE, MP, EM, TS; cannot clear PE.
enum xres insn_lmsw(struct xcpu *x, struct insn *in) {
    uint16_t w;

    if (x->cpl)
        return gp0(x);
    TRY(read_word(x, in, 0, &w));
    return sys_mov_to_cr(x, 0, (x->s.cr0 & ~0xeull) | (w & 0xfu));
}
