// SPDX-License-Identifier: Apache-2.0
// Model-specific registers (SDM vol. 4; AMD APM vol. 2 app. A; Linux Documentation/virt/kvm/x86/msr.rst).
//
// Registers that are a field of the canonical state, or a constant, are lines of a table with the rule that a write
// has to obey; those that do something have a function. What is nowhere raises #GP.
#include "arch/x86/kvmclock.h"
#include "engine/xlate/engine.h"
#include "engine/xlate/sys.h"

#define MSR_TSC               0x10u
#define MSR_APIC_BASE         0x1bu
#define MSR_TSC_ADJUST        0x3bu
#define MSR_SPEC_CTRL         0x48u
#define MSR_PRED_CMD          0x49u
#define MSR_UCODE_REV         0x8bu
#define MSR_PLATFORM_INFO     0xceu
#define MSR_ARCH_CAPABILITIES 0x10au
#define MSR_FLUSH_CMD         0x10bu
#define MSR_TSC_DEADLINE      0x6e0u
#define MSR_X2APIC_FIRST      0x800u
#define MSR_X2APIC_LAST       0x8ffu
#define MSR_EFER              0xc0000080u
#define MSR_STAR              0xc0000081u
#define MSR_FS_BASE           0xc0000100u
#define MSR_GS_BASE           0xc0000101u
#define MSR_KERNEL_GS_BASE    0xc0000102u
#define MSR_KVM_WALL_OLD      0x11u
#define MSR_KVM_TIME_OLD      0x12u
#define MSR_KVM_WALL          0x4b564d00u
#define MSR_KVM_TIME          0x4b564d01u

enum msr_rule {
    ANY,
    CANONICAL,
    LOW32,     // bits 63:32 must be 0
    PAT_TYPES, // eight bytes, each a memory type of the PAT
    MTRR_TYPES,
    MTRR_BASE,
    MTRR_MASK,
    MTRR_DEF,
    MASK,     // only the bits of `value` may be set
    CONSTANT, // reads `value`, a write is #GP
    IGNORED,  // reads `value`, a write is dropped
};

struct msr_def {
    uint32_t msr;
    uint16_t field; // offset in struct cpu_state
    uint8_t rule;
    uint64_t value;
};

#define F(m, f, r)                                                                                                     \
    { m, offsetof(struct cpu_state, f), r, 0 }
#define C(m, v)                                                                                                        \
    { m, 0, CONSTANT, v }
#define I(m, v)                                                                                                        \
    { m, 0, IGNORED, v }
#define VAR(n) F(0x200 + 2 * (n), mtrr_base[n], MTRR_BASE), F(0x201 + 2 * (n), mtrr_mask[n], MTRR_MASK)

static const struct msr_def msr_table[] = {
    F(MSR_KERNEL_GS_BASE, kernel_gs_base, CANONICAL),
    F(MSR_STAR, star, ANY),
    F(0xc0000082, lstar, CANONICAL),
    F(0xc0000083, cstar, CANONICAL),
    F(0xc0000084, fmask, LOW32),
    F(0xc0000103, tsc_aux, LOW32),
    F(0x174, sysenter_cs, ANY),
    F(0x175, sysenter_esp, CANONICAL),
    F(0x176, sysenter_eip, CANONICAL),
    F(0x1a0, misc_enable, ANY),
    {0x1d9, offsetof(struct cpu_state, debugctl), MASK, 3}, // LBR, BTF
    F(0x277, pat, PAT_TYPES),
    C(0xfe, 0x500 | X86_MTRR_VAR), // MTRRCAP: WC, fixed ranges
    F(0x2ff, mtrr_def_type, MTRR_DEF),
    VAR(0),
    VAR(1),
    VAR(2),
    VAR(3),
    VAR(4),
    VAR(5),
    VAR(6),
    VAR(7),
    F(0x250, mtrr_fixed[0], MTRR_TYPES),
    F(0x258, mtrr_fixed[1], MTRR_TYPES),
    F(0x259, mtrr_fixed[2], MTRR_TYPES),
    F(0x268, mtrr_fixed[3], MTRR_TYPES),
    F(0x269, mtrr_fixed[4], MTRR_TYPES),
    F(0x26a, mtrr_fixed[5], MTRR_TYPES),
    F(0x26b, mtrr_fixed[6], MTRR_TYPES),
    F(0x26c, mtrr_fixed[7], MTRR_TYPES),
    F(0x26d, mtrr_fixed[8], MTRR_TYPES),
    F(0x26e, mtrr_fixed[9], MTRR_TYPES),
    F(0x26f, mtrr_fixed[10], MTRR_TYPES),
    C(0x17, 0),  // PLATFORM_ID
    C(0x3a, 1),  // FEATURE_CONTROL: locked, nothing enabled
    I(0x79, 0),  // microcode update trigger
    C(0x179, 0), // MCG_CAP: no banks
    {0x17a, offsetof(struct cpu_state, mcg_status), MASK, 7},
    C(0x198, 0), // PERF_STATUS
    C(0x1db, 0), // LASTBRANCHFROMIP
    C(0x1dc, 0),
    C(0x1dd, 0),
    C(0x1de, 0),
    // AMD: what its kernels look at or set without asking CPUID
    I(0xc0010010, 0), // SYSCFG
    I(0xc0010015, 0), // HWCR
    I(0xc001001f, 0), // NB_CFG
    I(0xc0010055, 0), // interrupt pending message
    I(0xc0010058, 0), // MMIO configuration base
    C(0xc0010140, 0), // OSVW length
    C(0xc0010141, 0), // OSVW status
    I(0xc0011020, 0), // LS_CFG
    I(0xc0011021, 0), // IC_CFG
    I(0xc0011022, 0), // DC_CFG
    I(0xc0011029, 2), // DE_CFG: LFENCE serialises
};

static const struct msr_def *msr_find(uint32_t msr) {
    for (unsigned i = 0; i < sizeof(msr_table) / sizeof(msr_table[0]); i++)
        if (msr_table[i].msr == msr)
            return &msr_table[i];
    return NULL;
}

// ---- rules ----

// Memory types (SDM vol. 3A 11.12.2, 11.11.2.1): 0 UC, 1 WC, 4 WT, 5 WP, 6 WB, 7 UC- (PAT alone).
static bool types_valid(uint64_t v, unsigned bytes, bool pat) {
    for (unsigned i = 0; i < bytes; i++, v >>= 8) {
        unsigned t = v & 0xff;

        if (t > (pat ? 7u : 6u) || t == 2 || t == 3)
            return false;
    }
    return true;
}

static bool msr_value_ok(const struct xcpu *x, const struct msr_def *d, uint64_t val) {
    uint64_t phys = ~0ull << xcpu_policy(x)->phys_bits;

    switch (d->rule) {
    case ANY:
    case IGNORED: return true;
    case CANONICAL: return is_canonical(val);
    case LOW32: return !(val >> 32);
    case PAT_TYPES: return types_valid(val, 8, true);
    case MTRR_TYPES: return types_valid(val, 8, false);
    case MTRR_BASE: return types_valid(val, 1, false) && !(val & (0xf00 | phys));
    case MTRR_MASK: return !(val & (0x7ff | phys));
    case MTRR_DEF: return types_valid(val, 1, false) && !(val & ~0xcffull);
    case MASK: return !(val & ~d->value);
    default: return false;
    }
}

// ---- time ----

// Guest TSC and TSC_ADJUST move together (SDM vol. 3B 17.17.3). The interrupt controller, which compares deadlines
// with the guest's TSC, is told the new offset as register 10h.
static void tsc_moved_by(struct xcpu *x, uint64_t delta) {
    x->s.tsc_offset += delta;
    x->s.tsc_adjust += delta;
    fpu_save(x);
    (void)x->irqchip->ops->reg_write(x->irqchip->ctx, MSR_TSC, x->s.tsc_offset);
    kvmclock_update(&x->s, x->engine->host->mem, xcpu_policy(x)->tsc_hz);
}

static void kvm_time_write(struct xcpu *x, uint64_t val) {
    x->s.kvmclock_system_time = val;
    fpu_save(x); // core/mem.h is ordinary code
    kvmclock_update(&x->s, x->engine->host->mem, xcpu_policy(x)->tsc_hz);
}

static void kvm_wall_write(struct xcpu *x, uint64_t val) {
    const struct engine_host *host = x->engine->host;

    x->s.kvmclock_wall = val;
    fpu_save(x);
    kvmclock_update_wall(&x->s, host->mem, xcpu_policy(x)->tsc_hz, host_tsc(x), nondet_realtime_ns(host->nondet));
}

// ---- EFER ----

static enum xres efer_write(struct xcpu *x, uint64_t val) {
    uint64_t allowed = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE | (xcpu_policy(x)->has_auto_ibrs ? EFER_AUTOIBRS : 0);
    uint64_t changed;

    if (val & ~allowed)
        return gp0(x);
    val = (val & ~EFER_LMA) | (x->s.efer & EFER_LMA); // LMA is read-only
    changed = val ^ x->s.efer;
    if ((changed & EFER_LME) && (x->s.cr0 & CR0_PG))
        return gp0(x);
    x->s.efer = val;
    if (changed & EFER_NXE)
        mmu_flush_all(x);
    if (changed)
        mode_update(x);
    return X_OK;
}

// ---- speculation control ----

static bool has_spec_ctrl(const struct xcpu *x) {
    return cpuid_policy_has_spec_ctrl(xcpu_policy(x));
}

static enum xres spec_write(struct xcpu *x, uint32_t msr, uint64_t val) {
    // SPEC_CTRL: IBRS, STIBP, SSBD, BHI_DIS_S. PRED_CMD: IBPB. FLUSH_CMD: L1D_FLUSH. Kept or dropped: xlate isolates
    // nothing.
    uint64_t allowed = msr == MSR_SPEC_CTRL ? 0x407 : 1;

    if (!has_spec_ctrl(x) || (val & ~allowed))
        return gp0(x);
    if (msr == MSR_SPEC_CTRL)
        x->s.spec_ctrl = val;
    return X_OK;
}

// ---- registers of the interrupt controller ----

static inline bool is_chip_msr(uint32_t msr) {
    return msr == MSR_TSC_DEADLINE || (msr >= MSR_X2APIC_FIRST && msr <= MSR_X2APIC_LAST) || msr == MSR_APIC_BASE;
}

static enum xres chip_write(struct xcpu *x, uint32_t msr, uint64_t val) {
    fpu_save(x); // timers are ordinary code
    if (x->irqchip->ops->reg_write(x->irqchip->ctx, msr, val) < 0)
        return gp0(x);
    if (x->s.rflags & RFLAGS_IF) // EOI and TPR may have uncovered an interrupt
        intr_window(x);
    return X_OK;
}

static enum xres chip_read(struct xcpu *x, uint32_t msr, uint64_t *val) {
    fpu_save(x);
    return x->irqchip->ops->reg_read(x->irqchip->ctx, msr, val) < 0 ? gp0(x) : X_OK;
}

// ---- the two doors ----

static enum xres base_write(struct xcpu *x, enum x86_seg seg, uint64_t val) {
    if (!is_canonical(val))
        return gp0(x);
    x->s.seg[seg].base = val;
    return X_OK;
}

static enum xres table_write(struct xcpu *x, uint32_t msr, uint64_t val) {
    const struct msr_def *d = msr_find(msr);

    if (!d || !msr_value_ok(x, d, val))
        return gp0(x);
    if (d->rule != IGNORED)
        *(uint64_t *)((uint8_t *)&x->s + d->field) = val;
    return X_OK;
}

enum xres msr_write(struct xcpu *x, uint32_t msr, uint64_t val) {
    if (is_chip_msr(msr))
        return chip_write(x, msr, val);
    switch (msr) {
    case MSR_FS_BASE: return base_write(x, X86_FS, val);
    case MSR_GS_BASE: return base_write(x, X86_GS, val);
    case MSR_EFER: return efer_write(x, val);
    case MSR_TSC: tsc_moved_by(x, val - host_tsc(x)); return X_OK;
    case MSR_TSC_ADJUST: tsc_moved_by(x, val - x->s.tsc_adjust); return X_OK;
    case MSR_SPEC_CTRL:
    case MSR_PRED_CMD:
    case MSR_FLUSH_CMD: return spec_write(x, msr, val);
    case MSR_UCODE_REV: return X_OK; // Intel's way to ask for the revision begins with writing 0
    case MSR_KVM_TIME:
    case MSR_KVM_TIME_OLD: kvm_time_write(x, val); return X_OK;
    case MSR_KVM_WALL:
    case MSR_KVM_WALL_OLD: kvm_wall_write(x, val); return X_OK;
    default: return table_write(x, msr, val);
    }
}

static enum xres table_read(struct xcpu *x, uint32_t msr, uint64_t *val) {
    const struct msr_def *d = msr_find(msr);

    if (!d)
        return gp0(x);
    *val = d->rule == CONSTANT || d->rule == IGNORED ? d->value : *(uint64_t *)((uint8_t *)&x->s + d->field);
    return X_OK;
}

enum xres msr_read(struct xcpu *x, uint32_t msr, uint64_t *val) {
    if (is_chip_msr(msr))
        return chip_read(x, msr, val);
    switch (msr) {
    case MSR_FS_BASE: *val = x->s.seg[X86_FS].base; return X_OK;
    case MSR_GS_BASE: *val = x->s.seg[X86_GS].base; return X_OK;
    case MSR_EFER: *val = x->s.efer; return X_OK;
    case MSR_TSC: *val = host_tsc(x); return X_OK;
    case MSR_TSC_ADJUST: *val = x->s.tsc_adjust; return X_OK;
    case MSR_SPEC_CTRL: *val = x->s.spec_ctrl; return has_spec_ctrl(x) ? X_OK : gp0(x);
    case MSR_ARCH_CAPABILITIES: *val = xcpu_policy(x)->arch_capabilities; return *val ? X_OK : gp0(x);
    case MSR_UCODE_REV: *val = is_vendor_intel(x) ? 1ull << 32 : 0x01000065; return X_OK;
    case MSR_PLATFORM_INFO: *val = xcpu_policy(x)->tsc_hz / 100000000 << 8; return X_OK; // ratio to 100 MHz
    case MSR_KVM_TIME:
    case MSR_KVM_TIME_OLD: *val = x->s.kvmclock_system_time; return X_OK;
    case MSR_KVM_WALL:
    case MSR_KVM_WALL_OLD: *val = x->s.kvmclock_wall; return X_OK;
    default: return table_read(x, msr, val);
    }
}

enum xres sys_wrmsr(struct xcpu *x) {
    if (x->cpl)
        return gp0(x);
    return msr_write(x, (uint32_t)x->s.gpr[X86_RCX], (uint32_t)x->s.gpr[X86_RAX] | x->s.gpr[X86_RDX] << 32);
}

enum xres sys_rdmsr(struct xcpu *x) {
    uint64_t val = 0;

    if (x->cpl)
        return gp0(x);
    TRY(msr_read(x, (uint32_t)x->s.gpr[X86_RCX], &val));
    x->s.gpr[X86_RAX] = (uint32_t)val;
    x->s.gpr[X86_RDX] = val >> 32;
    return X_OK;
}
