// SPDX-License-Identifier: Apache-2.0
// SYSCALL, SYSRET, SYSENTER, SYSEXIT (SDM vol. 2). They load fixed flat segments and read no descriptor.
#include "engine/xlate/debug.h"
#include "engine/xlate/sys.h"

#define FLAT_CODE64 0xa09bu // P, S, code, readable, accessed, L, G
#define FLAT_CODE32 0xc09bu
#define FLAT_DATA   0xc093u

static inline void set_flat(struct xcpu *x, enum x86_seg seg, uint64_t sel, uint32_t attr, unsigned dpl) {
    x->s.seg[seg] = (struct x86_segment){.limit = 0xffffffff, .attr = attr | dpl << 5, .sel = (uint16_t)sel};
}

static inline void set_flat_pair(struct xcpu *x, uint64_t cs, uint64_t ss, bool code64, unsigned dpl) {
    set_flat(x, X86_CS, cs, code64 ? FLAT_CODE64 : FLAT_CODE32, dpl);
    set_flat(x, X86_SS, ss, FLAT_DATA, dpl);
}

enum xres sys_syscall(struct xcpu *x, uint64_t next_rip) {
    uint64_t cs = x->s.star >> 32 & 0xfffc;
    bool from64 = cpu_64bit(x);

    if (!(x->s.efer & EFER_SCE) || (!from64 && (is_vendor_intel(x) || !cpu_protected(x))))
        return ud(x);
    if (x->s.rflags & x->s.fmask & RFLAGS_TF) // TF is masked: no trap after it
        x->s.debug_pending |= DEBUG_NO_STEP;
    x->s.gpr[X86_RCX] = next_rip;
    if (__builtin_expect(!x->long_mode, 0)) { // AMD's legacy form: STAR holds EIP
        x->s.rflags &= ~(RFLAGS_VM | RFLAGS_IF | RFLAGS_RF);
        x->s.rip = (uint32_t)x->s.star;
        set_flat_pair(x, cs, cs + 8, false, 0);
    } else {
        x->s.gpr[X86_R11] = x->s.rflags & ~RFLAGS_RF;
        x->s.rflags = (x->s.rflags & ~(x->s.fmask | RFLAGS_RF)) | RFLAGS_FIXED1;
        x->s.rip = from64 ? x->s.lstar : x->s.cstar;
        set_flat_pair(x, cs, cs + 8, true, 0);
    }
    mode_update(x);
    return X_OK;
}

enum xres sys_sysret(struct xcpu *x, bool opsize64) {
    const uint64_t keep = RFLAGS_CF | RFLAGS_PF | RFLAGS_AF | RFLAGS_ZF | RFLAGS_SF | RFLAGS_TF | RFLAGS_IF |
                          RFLAGS_DF | RFLAGS_OF | RFLAGS_IOPL | RFLAGS_NT | RFLAGS_AC | RFLAGS_VIF | RFLAGS_VIP |
                          RFLAGS_ID;
    uint64_t base = x->s.star >> 48;
    bool had_if = x->s.rflags & RFLAGS_IF;

    if (!(x->s.efer & EFER_SCE) || (!x->long_mode && (is_vendor_intel(x) || !cpu_protected(x))))
        return ud(x);
    // Intel faults here, at CPL 0; AMD at the first fetch, at CPL 3 (SDM vol. 2B, APM vol. 3 SYSRET).
    if (x->cpl || (opsize64 && is_vendor_intel(x) && !is_canonical(x->s.gpr[X86_RCX])))
        return gp0(x);
    if (x->long_mode)
        x->s.rflags = (x->s.gpr[X86_R11] & keep) | RFLAGS_FIXED1;
    else
        x->s.rflags |= RFLAGS_IF;
    if (x->long_mode && (x->s.rflags & RFLAGS_TF)) // unlike IRET it traps at once, before its target
        debug_step_now(x);
    x->s.rip = opsize64 ? x->s.gpr[X86_RCX] : (uint32_t)x->s.gpr[X86_RCX];
    set_flat_pair(x, (base + (opsize64 ? 16 : 0)) | 3, (base + 8) | 3, opsize64, 3);
    mode_update(x);
    if (!had_if && (x->s.rflags & RFLAGS_IF))
        intr_window(x);
    return X_OK;
}

enum xres insn_syscall(struct xcpu *x, struct insn *in) {
    return sys_syscall(x, in->next_rip);
}
enum xres insn_sysret(struct xcpu *x, struct insn *in) {
    return sys_sysret(x, in->z.operand_width == 64);
}

enum xres insn_sysenter(struct xcpu *x, struct insn *in) {
    uint64_t cs = x->s.sysenter_cs & 0xfffc;

    if (x->long_mode && !is_vendor_intel(x)) // AMD: not in long mode
        return ud(x);
    if (!cpu_protected(x) || !cs)
        return gp0(x);
    x->s.rflags &= ~(RFLAGS_VM | RFLAGS_IF | RFLAGS_RF);
    x->s.gpr[X86_RSP] = x->long_mode ? x->s.sysenter_esp : (uint32_t)x->s.sysenter_esp;
    x->s.rip = x->long_mode ? x->s.sysenter_eip : (uint32_t)x->s.sysenter_eip;
    set_flat_pair(x, cs, cs + 8, x->long_mode, 0);
    mode_update(x);
    return X_OK;
}

enum xres insn_sysexit(struct xcpu *x, struct insn *in) {
    bool to64 = in->z.operand_width == 64;
    uint64_t cs = x->s.sysenter_cs & 0xfffc;
    uint64_t rip = x->s.gpr[X86_RDX], rsp = x->s.gpr[X86_RCX];

    if (x->long_mode && !is_vendor_intel(x))
        return ud(x);
    if (!cpu_protected(x) || !cs || x->cpl)
        return gp0(x);
    if (to64 && (!is_canonical(rip) || !is_canonical(rsp)))
        return gp0(x);
    x->s.rip = to64 ? rip : (uint32_t)rip;
    x->s.gpr[X86_RSP] = to64 ? rsp : (uint32_t)rsp;
    set_flat_pair(x, (cs + (to64 ? 32 : 16)) | 3, (cs + (to64 ? 40 : 24)) | 3, to64, 3);
    mode_update(x);
    return X_OK;
}
