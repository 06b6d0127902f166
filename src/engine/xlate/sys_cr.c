// SPDX-License-Identifier: Apache-2.0
// Control and debug registers, TLB and cache maintenance (SDM vol. 3A 2.5, 4.10, 9.9; vol. 2 MOV CR, MOV DR, INVPCID).
#include "engine/xlate/debug.h"
#include "engine/xlate/sys.h"

#define CR0_DEFINED (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG)
#define CR4_ALWAYS                                                                                                     \
    (CR4_VME | CR4_PVI | CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE | CR4_PCE | CR4_OSFXSR |             \
     CR4_OSXMMEXCPT)

static inline bool pae_paging(const struct xcpu *x) {
    return (x->s.cr0 & CR0_PG) && (x->s.cr4 & CR4_PAE) && !(x->s.efer & EFER_LMA);
}

// Puts new control registers into force. PAE paging keeps the four PDPTEs in registers; some writes load them again
// (SDM vol. 3A 4.4.1), and when these are bad the old values come back.
static enum xres apply(struct xcpu *x, uint64_t cr0, uint64_t cr4, uint64_t efer, bool reload) {
    const uint64_t old_cr0 = x->s.cr0, old_cr4 = x->s.cr4, old_efer = x->s.efer;

    x->s.cr0 = cr0;
    x->s.cr4 = cr4;
    x->s.efer = efer;
    mode_update(x); // mmu_set_cr3 asks it for the kind of paging
    if (!reload || !pae_paging(x) || mmu_set_cr3(x, x->s.cr3) == X_OK)
        return X_OK;
    x->s.cr0 = old_cr0;
    x->s.cr4 = old_cr4;
    x->s.efer = old_efer;
    mode_update(x);
    return X_FAULT;
}

// ---- CR0 ----

static bool cr0_valid(const struct xcpu *x, uint64_t val) {
    uint64_t changed = x->s.cr0 ^ val;

    if ((val & CR0_PG) && !(val & CR0_PE))
        return false;
    if ((val & CR0_NW) && !(val & CR0_CD))
        return false;
    if (!(changed & CR0_PG))
        return true;
    if (val & CR0_PG) // entering long mode: PAE on, and not from a 64-bit code segment
        return !(x->s.efer & EFER_LME) || ((x->s.cr4 & CR4_PAE) && !(x->s.seg[X86_CS].attr & SEG_L));
    return !cpu_64bit(x) && !(x->s.cr4 & CR4_PCIDE);
}

static enum xres write_cr0(struct xcpu *x, uint64_t val) {
    uint64_t efer = x->s.efer, changed;

    if (val >> 32)
        return gp0(x);
    val = (val & CR0_DEFINED) | CR0_ET;
    if (!cr0_valid(x, val))
        return gp0(x);
    changed = x->s.cr0 ^ val;
    if (!changed)
        return X_OK;
    if (changed & CR0_PG)
        efer = (val & CR0_PG) && (efer & EFER_LME) ? efer | EFER_LMA : efer & ~EFER_LMA;
    TRY(apply(x, val, x->s.cr4, efer, changed & (CR0_PG | CR0_CD | CR0_NW)));
    if (changed & (CR0_PG | CR0_WP | CR0_PE))
        mmu_flush_all(x);
    return X_OK;
}

// ---- CR3 ----

static enum xres write_cr3(struct xcpu *x, uint64_t val) {
    uint64_t phys = 1ull << xcpu_policy(x)->phys_bits;

    if (x->long_mode) {
        uint64_t no_flush = x->s.cr4 & CR4_PCIDE ? CR3_NO_FLUSH : 0;

        if ((val & ~no_flush) >= phys)
            return gp0(x);
    } else {
        val = (uint32_t)val;
    }
    return mmu_set_cr3(x, val);
}

// ---- CR4 ----

static uint64_t cr4_allowed(const struct cpuid_policy *p) {
    return CR4_ALWAYS | (p->has_umip ? CR4_UMIP : 0) | (p->has_fsgsbase ? CR4_FSGSBASE : 0) |
           (p->has_pcid ? CR4_PCIDE : 0) | (p->has_xsave ? CR4_OSXSAVE : 0) | (p->has_smep ? CR4_SMEP : 0) |
           (p->has_smap ? CR4_SMAP : 0);
}

static bool cr4_valid(const struct xcpu *x, uint64_t val) {
    uint64_t changed = x->s.cr4 ^ val;

    if (val & ~cr4_allowed(xcpu_policy(x)))
        return false;
    if (x->long_mode && !(val & CR4_PAE))
        return false;
    if (changed & val & CR4_PCIDE)
        return x->long_mode && !(x->s.cr3 & CR3_PCID_MASK);
    return true;
}

static enum xres write_cr4(struct xcpu *x, uint64_t val) {
    uint64_t changed = x->s.cr4 ^ val;

    if (!cr4_valid(x, val))
        return gp0(x);
    if (!changed)
        return X_OK;
    TRY(apply(x, x->s.cr0, val, x->s.efer, changed & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP)));
    if (changed & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP | CR4_SMAP | CR4_PCIDE))
        mmu_flush_all(x);
    return X_OK;
}

// ---- CR8 ----

static enum xres write_cr8(struct xcpu *x, uint64_t val) {
    if (val > 15)
        return gp0(x);
    x->irqchip->ops->tpr_set(x->irqchip->ctx, (uint8_t)(val << 4));
    if (x->s.rflags & RFLAGS_IF)
        intr_window(x);
    return X_OK;
}

enum xres sys_mov_to_cr(struct xcpu *x, unsigned cr, uint64_t val) {
    if (x->cpl)
        return gp0(x);
    switch (cr) {
    case 0: return write_cr0(x, val);
    case 2: x->s.cr2 = val; return X_OK;
    case 3: return write_cr3(x, val);
    case 4: return write_cr4(x, val);
    case 8: return write_cr8(x, val);
    default: return ud(x);
    }
}

enum xres sys_mov_from_cr(struct xcpu *x, unsigned cr, uint64_t *val) {
    if (x->cpl)
        return gp0(x);
    switch (cr) {
    case 0: *val = x->s.cr0; return X_OK;
    case 2: *val = x->s.cr2; return X_OK;
    case 3: *val = x->s.cr3; return X_OK;
    case 4: *val = x->s.cr4; return X_OK;
    case 8: *val = x->irqchip->ops->tpr_get(x->irqchip->ctx) >> 4; return X_OK;
    default: return ud(x);
    }
}

// ---- debug registers ----

// DR4 and DR5 are DR6 and DR7 unless CR4.DE says #UD.
static enum xres dr_access_check(struct xcpu *x, unsigned *dr) {
    if (*dr > 7 || ((*dr == 4 || *dr == 5) && (x->s.cr4 & CR4_DE)))
        return ud(x);
    if (x->cpl)
        return gp0(x);
    if (x->s.dr7 & DR7_GD)
        return fault_debug(x, DR6_BD);
    if (*dr == 4 || *dr == 5)
        *dr += 2;
    return X_OK;
}

static enum xres write_dr(struct xcpu *x, unsigned dr, uint64_t val) {
    if (dr < 4) {
        x->s.dr[dr] = val;
        return X_OK;
    }
    if (val >> 32)
        return gp0(x);
    if (dr == 6) {
        x->s.dr6 = (val & DR6_WRITABLE) | DR6_FIXED;
    } else {
        x->s.dr7 = (val & DR7_WRITABLE) | DR7_FIXED;
        mode_update(x);
    }
    return X_OK;
}

static uint64_t read_dr(const struct xcpu *x, unsigned dr) {
    return dr < 4 ? x->s.dr[dr] : dr == 6 ? x->s.dr6 : x->s.dr7;
}

static bool reg_in(ZydisRegister r, ZydisRegister first, unsigned *n) {
    if (r < first || r > first + 15)
        return false;
    *n = (unsigned)(r - first);
    return true;
}

enum xres sys_insn_mov_crdr(struct xcpu *x, struct insn *in) {
    ZydisRegister dst = in->op[0].reg.value, src = in->op[1].reg.value;
    uint64_t val;
    unsigned n;

    if (reg_in(dst, ZYDIS_REGISTER_CR0, &n))
        return sys_mov_to_cr(x, n, reg_read(x, src));
    if (reg_in(src, ZYDIS_REGISTER_CR0, &n)) {
        TRY(sys_mov_from_cr(x, n, &val));
        reg_write(x, dst, val);
        return X_OK;
    }
    if (reg_in(dst, ZYDIS_REGISTER_DR0, &n)) {
        TRY(dr_access_check(x, &n));
        return write_dr(x, n, reg_read(x, src));
    }
    if (!reg_in(src, ZYDIS_REGISTER_DR0, &n))
        return ud(x);
    TRY(dr_access_check(x, &n));
    reg_write(x, dst, read_dr(x, n));
    return X_OK;
}

enum xres insn_clts(struct xcpu *x, struct insn *in) {
    if (x->cpl)
        return gp0(x);
    if (x->s.cr0 & CR0_TS) {
        x->s.cr0 &= ~CR0_TS;
        mode_update(x);
    }
    return X_OK;
}

// ---- TLB ----

enum xres sys_invlpg(struct xcpu *x, uint64_t lin) {
    if (x->cpl)
        return gp0(x);
    if (is_canonical(lin))
        mmu_flush_page(x, lin);
    return X_OK;
}

// The address is not checked against the segment.
enum xres insn_invlpg(struct xcpu *x, struct insn *in) {
    enum x86_seg seg = insn_seg(&in->op[0]);
    uint64_t lin = insn_ea(x, in, &in->op[0]);

    if (!cpu_64bit(x))
        lin = (uint32_t)(lin + x->s.seg[seg].base);
    else if (seg == X86_FS || seg == X86_GS)
        lin += x->s.seg[seg].base;
    return sys_invlpg(x, lin);
}

enum xres insn_invpcid(struct xcpu *x, struct insn *in) {
    uint64_t type = reg_read(x, in->op[0].reg.value), d[2];

    if (x->cpl)
        return gp0(x);
    TRY(seg_read(x, insn_seg(&in->op[1]), insn_ea(x, in, &in->op[1]), d, 16, MMU_READ));
    if (type > 3 || (type < 2 && (d[0] >> 12))) // bits 63:12 of the first quadword are reserved
        return gp0(x);
    if (type < 2 && !(x->s.cr4 & CR4_PCIDE) && (d[0] & CR3_PCID_MASK))
        return gp0(x);
    if (type == 0 && !is_canonical(d[1]))
        return gp0(x);
    mmu_invpcid(x, (unsigned)type, d[0] & CR3_PCID_MASK, d[1]);
    return X_OK;
}

// ---- caches: the host's are coherent ----

// INVD, WBINVD
enum xres insn_cache(struct xcpu *x, struct insn *in) {
    return x->cpl ? gp0(x) : X_OK;
}

// CLFLUSH, CLFLUSHOPT, CLWB fault like a load of one byte.
enum xres insn_clflush(struct xcpu *x, struct insn *in) {
    uint64_t lin;

    TRY(seg_linear(x, insn_seg(&in->op[0]), insn_ea(x, in, &in->op[0]), 1, MMU_READ, &lin));
    return mmu_probe(x, lin, 1, MMU_READ);
}
