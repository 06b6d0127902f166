// SPDX-License-Identifier: Apache-2.0
// System instructions that concern the flags and the flow of the processor: CLI, STI, PUSHF, POPF, STAC, CLAC, HLT,
// CPUID, time stamps, XCR0, FS/GS bases, SWAPGS, hypercalls (SDM vol. 2; VME and PVI: vol. 3A 20.3, 20.4).
#include "engine/xlate/sys.h"

void flags_set(struct xcpu *x, uint64_t rflags) {
    uint64_t changed = x->s.rflags ^ rflags;

    x->s.rflags = rflags | RFLAGS_FIXED1;
    if (changed & MODE_FLAGS)
        mode_update(x);
    if (changed & rflags & RFLAGS_IF)
        intr_window(x);
}

static inline unsigned iopl(const struct xcpu *x) {
    return x->s.rflags >> 12 & 3;
}

// Below IOPL, CLI and STI act on VIF in virtual-8086 mode with VME and at CPL 3 with PVI.
static inline bool has_virtual_if(const struct xcpu *x) {
    return x->cpl == 3 && (x->s.cr4 & (cpu_vm86(x) ? CR4_VME : CR4_PVI));
}

enum xres sys_cli(struct xcpu *x) {
    if (__builtin_expect(x->cpl <= iopl(x), 1))
        x->s.rflags &= ~RFLAGS_IF;
    else if (has_virtual_if(x))
        x->s.rflags &= ~RFLAGS_VIF;
    else
        return gp0(x);
    return X_OK;
}

enum xres sys_sti(struct xcpu *x) {
    if (__builtin_expect(x->cpl <= iopl(x), 1)) {
        if (x->s.rflags & RFLAGS_IF)
            return X_OK;
        x->s.rflags |= RFLAGS_IF;
        x->s.intr_shadow |= 1;
        intr_window(x);
        return X_OK;
    }
    if (!has_virtual_if(x) || (x->s.rflags & RFLAGS_VIP))
        return gp0(x);
    x->s.rflags |= RFLAGS_VIF;
    return X_OK;
}

enum xres sys_pushf(struct xcpu *x, unsigned op_size) {
    uint64_t image = x->s.rflags & ~(RFLAGS_RF | RFLAGS_VM);

    if (cpu_vm86(x) && iopl(x) < 3) {
        if (op_size != 2 || !(x->s.cr4 & CR4_VME))
            return gp0(x);
        image = (image & ~RFLAGS_IF) | RFLAGS_IOPL | (image & RFLAGS_VIF ? RFLAGS_IF : 0);
    }
    return stack_push(x, image, op_size);
}

// POPF below IOPL 3 in virtual-8086 mode with VME: IF goes to VIF.
static enum xres popf_vme(struct xcpu *x, uint64_t image) {
    const uint64_t mask = RFLAGS_ARITH | RFLAGS_TF | RFLAGS_DF | RFLAGS_NT | RFLAGS_VIF;

    if ((image & RFLAGS_TF) || ((image & RFLAGS_IF) && (x->s.rflags & RFLAGS_VIP)))
        return gp0(x);
    image = (image & ~RFLAGS_VIF) | (image & RFLAGS_IF ? RFLAGS_VIF : 0);
    flags_set(x, (x->s.rflags & ~mask & ~RFLAGS_RF) | (image & mask));
    return X_OK;
}

enum xres sys_popf(struct xcpu *x, unsigned op_size) {
    uint64_t mask = RFLAGS_ARITH | RFLAGS_TF | RFLAGS_DF | RFLAGS_NT;
    uint64_t image, rsp = x->s.gpr[X86_RSP];
    bool vme = cpu_vm86(x) && iopl(x) < 3;
    enum xres res;

    if (vme && (op_size != 2 || !(x->s.cr4 & CR4_VME)))
        return gp0(x);
    TRY(stack_pop(x, &image, op_size));
    if (__builtin_expect(vme, 0)) {
        res = popf_vme(x, image);
        if (res != X_OK)
            x->s.gpr[X86_RSP] = rsp;
        return res;
    }
    if (op_size > 2)
        mask |= RFLAGS_AC | RFLAGS_ID;
    if (x->cpl <= iopl(x))
        mask |= RFLAGS_IF;
    if (x->cpl == 0)
        mask |= RFLAGS_IOPL;
    flags_set(x, (x->s.rflags & ~mask & ~RFLAGS_RF) | (image & mask));
    return X_OK;
}

enum xres insn_cli(struct xcpu *x, struct insn *in) {
    return sys_cli(x);
}
enum xres insn_sti(struct xcpu *x, struct insn *in) {
    return sys_sti(x);
}
enum xres insn_pushf(struct xcpu *x, struct insn *in) {
    return sys_pushf(x, in->z.operand_width / 8u);
}
enum xres insn_popf(struct xcpu *x, struct insn *in) {
    return sys_popf(x, in->z.operand_width / 8u);
}

static enum xres set_ac(struct xcpu *x, uint64_t ac) {
    if (x->cpl || !xcpu_policy(x)->has_smap)
        return ud(x);
    flags_set(x, (x->s.rflags & ~RFLAGS_AC) | ac);
    return X_OK;
}

enum xres insn_stac(struct xcpu *x, struct insn *in) {
    return set_ac(x, RFLAGS_AC);
}
enum xres insn_clac(struct xcpu *x, struct insn *in) {
    return set_ac(x, 0);
}

// ---- HLT ----

enum xres insn_hlt(struct xcpu *x, struct insn *in) {
    if (x->cpl)
        return gp0(x);
    x->s.rip = in->next_rip;
    x->s.intr_shadow = 0;
    if (x->s.rflags & RFLAGS_TF) // the single-step trap that follows ends the halt
        return X_OK;
    x->s.activity = X86_HALTED;
    return intr_poll(x); // something may wait already, behind the shadow of STI for instance
}

// MONITOR and MWAIT are not offered.
enum xres insn_monitor(struct xcpu *x, struct insn *in) {
    return ud(x);
}
enum xres insn_pause(struct xcpu *x, struct insn *in) {
    return X_OK;
}
enum xres insn_ud(struct xcpu *x, struct insn *in) {
    return ud(x);
}

// ---- identification and time ----

enum xres sys_cpuid(struct xcpu *x) {
    uint32_t out[4];

    cpuid_query(xcpu_policy(x), x->index, x->s.cr4, x->s.xcr0, (uint32_t)x->s.gpr[X86_RAX], (uint32_t)x->s.gpr[X86_RCX],
                out);
    x->s.gpr[X86_RAX] = out[0];
    x->s.gpr[X86_RBX] = out[1];
    x->s.gpr[X86_RCX] = out[2];
    x->s.gpr[X86_RDX] = out[3];
    return X_OK;
}

enum xres insn_cpuid(struct xcpu *x, struct insn *in) {
    return sys_cpuid(x);
}

enum xres sys_rdtsc(struct xcpu *x, bool with_aux) {
    uint64_t tsc;

    if ((x->s.cr4 & CR4_TSD) && x->cpl)
        return gp0(x);
    tsc = host_tsc(x);
    x->s.gpr[X86_RAX] = (uint32_t)tsc;
    x->s.gpr[X86_RDX] = tsc >> 32;
    if (with_aux)
        x->s.gpr[X86_RCX] = (uint32_t)x->s.tsc_aux;
    return X_OK;
}

enum xres insn_rdtsc(struct xcpu *x, struct insn *in) {
    return sys_rdtsc(x, false);
}

enum xres insn_rdtscp(struct xcpu *x, struct insn *in) {
    return xcpu_policy(x)->has_rdtscp ? sys_rdtsc(x, true) : ud(x);
}

enum xres insn_rdpid(struct xcpu *x, struct insn *in) {
    reg_write(x, in->op[0].reg.value, (uint32_t)x->s.tsc_aux);
    return X_OK;
}

// There is no performance counter, so every index is out of range.
enum xres insn_rdpmc(struct xcpu *x, struct insn *in) {
    return gp0(x);
}

// RDRAND and RDSEED: always successful.
enum xres insn_rdrand(struct xcpu *x, struct insn *in) {
    uint64_t val = 0;

    host_random(x, &val, in->op[0].size / 8u);
    reg_write(x, in->op[0].reg.value, val);
    x->s.rflags = (x->s.rflags & ~RFLAGS_ARITH) | RFLAGS_CF;
    return X_OK;
}

// ---- XCR0 ----

enum xres insn_xgetbv(struct xcpu *x, struct insn *in) {
    uint64_t val = x->s.xcr0;

    if (!(x->s.cr4 & CR4_OSXSAVE))
        return ud(x);
    if ((uint32_t)x->s.gpr[X86_RCX] == 1) { // XINUSE: XSTATE_BV of the area
        fpu_save(x);
        __builtin_memcpy(&val, x->s.xsave + 512, 8);
        val &= x->s.xcr0;
    } else if ((uint32_t)x->s.gpr[X86_RCX]) {
        return gp0(x);
    }
    x->s.gpr[X86_RAX] = (uint32_t)val;
    x->s.gpr[X86_RDX] = val >> 32;
    return X_OK;
}

// SDM vol. 1 13.3: x87 always, AVX only with SSE.
enum xres insn_xsetbv(struct xcpu *x, struct insn *in) {
    uint64_t val = (uint32_t)x->s.gpr[X86_RAX] | x->s.gpr[X86_RDX] << 32;
    uint64_t have = XCR0_X87 | XCR0_SSE | (xcpu_policy(x)->has_avx ? XCR0_AVX : 0);

    if (!(x->s.cr4 & CR4_OSXSAVE))
        return ud(x);
    if (x->cpl || (uint32_t)x->s.gpr[X86_RCX] || (val & ~have) || !(val & XCR0_X87))
        return gp0(x);
    if ((val & XCR0_AVX) && !(val & XCR0_SSE))
        return gp0(x);
    x->s.xcr0 = val;
    mode_update(x);
    return X_OK;
}

// ---- FS and GS base ----

static inline bool base_insns_on(const struct xcpu *x) {
    return cpu_64bit(x) && (x->s.cr4 & CR4_FSGSBASE);
}

// RDFSBASE, RDGSBASE
enum xres insn_rdfsbase(struct xcpu *x, struct insn *in) {
    enum x86_seg seg = in->z.mnemonic == ZYDIS_MNEMONIC_RDFSBASE ? X86_FS : X86_GS;

    if (!base_insns_on(x))
        return ud(x);
    reg_write(x, in->op[0].reg.value, in->op[0].size == 64 ? x->s.seg[seg].base : (uint32_t)x->s.seg[seg].base);
    return X_OK;
}

// WRFSBASE, WRGSBASE
enum xres insn_wrfsbase(struct xcpu *x, struct insn *in) {
    enum x86_seg seg = in->z.mnemonic == ZYDIS_MNEMONIC_WRFSBASE ? X86_FS : X86_GS;
    uint64_t val = reg_read(x, in->op[0].reg.value);

    if (!base_insns_on(x))
        return ud(x);
    if (!is_canonical(val))
        return gp0(x);
    x->s.seg[seg].base = val;
    return X_OK;
}

enum xres sys_swapgs(struct xcpu *x) {
    uint64_t base = x->s.seg[X86_GS].base;

    if (!cpu_64bit(x))
        return ud(x);
    if (x->cpl)
        return gp0(x);
    x->s.seg[X86_GS].base = x->s.kernel_gs_base;
    x->s.kernel_gs_base = base;
    return X_OK;
}

enum xres insn_swapgs(struct xcpu *x, struct insn *in) {
    return sys_swapgs(x);
}

// ---- hypercalls ----

#define KVM_HC_VAPIC_POLL_IRQ 1
#define KVM_EPERM             1
#define KVM_ENOSYS            1000

// VMCALL and VMMCALL alike, as under KVM. CPUID offers no feature that needs one.
enum xres insn_vmcall(struct xcpu *x, struct insn *in) {
    int64_t res = -KVM_ENOSYS;

    if (x->cpl)
        res = -KVM_EPERM;
    else if (x->s.gpr[X86_RAX] == KVM_HC_VAPIC_POLL_IRQ)
        res = 0;
    x->s.gpr[X86_RAX] = cpu_64bit(x) ? (uint64_t)res : (uint32_t)res;
    return X_OK;
}

enum xres insn_rdmsr(struct xcpu *x, struct insn *in) {
    return sys_rdmsr(x);
}
enum xres insn_wrmsr(struct xcpu *x, struct insn *in) {
    return sys_wrmsr(x);
}
