// SPDX-License-Identifier: Apache-2.0
// Can a processor be in this state? Asked of what comes from a file, before an engine gets it.
//
// The rules are those that instructions enforce (a state that a guest can reach must pass) and that hardware checks
// when it enters a guest (SDM vol. 3C 26.3.1), not more: what a guest may do to itself is not our business.
#include <errno.h>
#include <string.h>

#include "arch/x86/state_io.h"
#include "core/types.h"

#define CR0_DEFINED (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG)
#define CR4_ALWAYS                                                                                                     \
    (CR4_VME | CR4_PVI | CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE | CR4_PCE | CR4_OSFXSR |             \
     CR4_OSXMMEXCPT)
#define EFER_DEFINED (EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE)
#define RFLAGS_DEFINED                                                                                                 \
    (RFLAGS_ARITH | RFLAGS_FIXED1 | RFLAGS_TF | RFLAGS_IF | RFLAGS_DF | RFLAGS_IOPL | RFLAGS_NT | RFLAGS_RF |          \
     RFLAGS_VM | RFLAGS_AC | RFLAGS_VIF | RFLAGS_VIP | RFLAGS_ID)
#define SEG_DEFINED       0x1f0ffu
#define DEBUG_PENDING_MAX 0x1ffffull // B0-B3, BD, BS, BT, RTM; bit 12: a breakpoint was enabled
#define XSAVE_MXCSR       24u
#define XSAVE_HEADER      512u
#define XSAVE_HEADER_SIZE 64u
#define MXCSR_DEFINED     0xffffu

// Each returns NULL, or what is wrong.
typedef const char *check_fn(const struct cpu_state *s, const struct cpuid_policy *p);

static bool is_canonical(uint64_t a) {
    return (uint64_t)((int64_t)(a << 16) >> 16) == a;
}

static bool beyond_memory(uint64_t a, const struct cpuid_policy *p) {
    return a >> p->phys_bits;
}

// ---- control registers ----

static uint64_t cr4_allowed(const struct cpuid_policy *p) {
    return CR4_ALWAYS | (p->has_umip ? CR4_UMIP : 0) | (p->has_fsgsbase ? CR4_FSGSBASE : 0) |
           (p->has_pcid ? CR4_PCIDE : 0) | (p->has_xsave ? CR4_OSXSAVE : 0) | (p->has_smep ? CR4_SMEP : 0) |
           (p->has_smap ? CR4_SMAP : 0);
}

static const char *check_control(const struct cpu_state *s, const struct cpuid_policy *p) {
    if (s->cr0 & ~CR0_DEFINED)
        return "reserved bits in CR0";
    if ((s->cr0 & CR0_PG && !(s->cr0 & CR0_PE)) || (s->cr0 & CR0_NW && !(s->cr0 & CR0_CD)))
        return "bits of CR0 that exclude each other";
    if (s->cr4 & ~cr4_allowed(p))
        return "bits in CR4 that this processor model does not have";
    if (beyond_memory(s->cr3, p))
        return "CR3 beyond the physical addresses of this processor model";
    return NULL;
}

static const char *check_long_mode(const struct cpu_state *s, const struct cpuid_policy *p) {
    bool lma = s->efer & EFER_LMA;

    if (s->efer & ~(EFER_DEFINED | (p->has_auto_ibrs ? EFER_AUTOIBRS : 0)))
        return "reserved bits in EFER";
    if (lma != (s->efer & EFER_LME && s->cr0 & CR0_PG))
        return "EFER.LMA does not follow from EFER.LME and CR0.PG";
    if (lma && !(s->cr4 & CR4_PAE))
        return "long mode without CR4.PAE";
    if (!lma && s->cr4 & CR4_PCIDE)
        return "CR4.PCIDE outside of long mode";
    if (lma && s->seg[X86_CS].attr & SEG_L && s->seg[X86_CS].attr & SEG_DB)
        return "code segment of both 32 and 64 bits";
    if (!(lma && s->seg[X86_CS].attr & SEG_L) && s->rip >> 32)
        return "RIP beyond 4 GiB outside of 64-bit mode";
    return NULL;
}

static const char *check_flags(const struct cpu_state *s, const struct cpuid_policy *p) {
    if (s->rflags & ~RFLAGS_DEFINED || !(s->rflags & RFLAGS_FIXED1))
        return "reserved bits in RFLAGS";
    if (s->rflags & RFLAGS_VM && (!(s->cr0 & CR0_PE) || s->efer & EFER_LMA))
        return "virtual-8086 mode in a mode that does not have it";
    if (s->dr6 >> 32 || s->dr7 >> 32)
        return "upper bits in DR6 or DR7";
    return NULL;
}

// ---- segments ----

// A limit is either below 1 MiB, or in pages (SDM vol. 3C 26.3.1.2).
static bool limit_valid(const struct x86_segment *g) {
    return g->attr & SEG_G ? (g->limit & 0xfff) == 0xfff : !(g->limit >> 20);
}

static const char *check_segments(const struct cpu_state *s, const struct cpuid_policy *p) {
    for (unsigned i = 0; i < X86_SEG_COUNT; i++) {
        const struct x86_segment *g = &s->seg[i];
        bool wide = i == X86_FS || i == X86_GS || i == X86_LDTR || i == X86_TR;

        if (g->attr & ~SEG_DEFINED)
            return "reserved bits in the attributes of a segment";
        if (i == X86_FS || i == X86_GS ? !is_canonical(g->base) : false)
            return "base of FS or GS is not canonical"; // it counts also where the segment is unusable
        if (g->attr & SEG_UNUSABLE)
            continue;
        if (!limit_valid(g))
            return "limit of a segment does not fit its granularity";
        if (wide ? !is_canonical(g->base) : g->base >> 32)
            return "base of a segment is out of range";
    }
    return is_canonical(s->gdtr.base) && is_canonical(s->idtr.base) ? NULL : "base of GDTR or IDTR is not canonical";
}

// ---- model-specific registers ----

// SDM vol. 3A 11.12.2, 11.11.2.1: 0 UC, 1 WC, 4 WT, 5 WP, 6 WB, and UC- (7) in the PAT alone.
static bool types_valid(uint64_t v, unsigned n, unsigned max) {
    for (; n; n--, v >>= 8)
        if ((v & 0xff) > max || (v & 0xff) == 2 || (v & 0xff) == 3)
            return false;
    return true;
}

static const char *check_memory_types(const struct cpu_state *s, const struct cpuid_policy *p) {
    if (!types_valid(s->pat, 8, 7))
        return "memory types in PAT";
    if (s->mtrr_def_type & ~0xcffull || !types_valid(s->mtrr_def_type, 1, 6))
        return "reserved bits in MTRR_DEF_TYPE";
    for (unsigned i = 0; i < X86_MTRR_FIXED; i++)
        if (!types_valid(s->mtrr_fixed[i], 8, 6))
            return "memory types in a fixed MTRR";
    for (unsigned i = 0; i < X86_MTRR_VAR; i++) {
        if (s->mtrr_base[i] & 0xf00 || !types_valid(s->mtrr_base[i], 1, 6) || s->mtrr_mask[i] & 0x7ff)
            return "reserved bits in a variable MTRR";
        if (beyond_memory(s->mtrr_base[i], p) || beyond_memory(s->mtrr_mask[i], p))
            return "MTRR beyond the physical addresses of this processor model";
    }
    return NULL;
}

static const char *check_msrs(const struct cpu_state *s, const struct cpuid_policy *p) {
    const uint64_t addresses[] = {s->lstar, s->cstar, s->kernel_gs_base, s->sysenter_esp, s->sysenter_eip};

    for (unsigned i = 0; i < ARRAY_LEN(addresses); i++)
        if (!is_canonical(addresses[i]))
            return "an MSR holds an address that is not canonical";
    if (s->fmask >> 32 || s->tsc_aux >> 32)
        return "upper bits in FMASK or TSC_AUX";
    return NULL;
}

// ---- floating point ----

static const char *check_fpu(const struct cpu_state *s, const struct cpuid_policy *p) {
    static const uint8_t zero[XSAVE_HEADER_SIZE - 8];
    uint64_t xcr0 = XCR0_X87 | (p->has_xsave ? XCR0_SSE : 0) | (p->has_avx ? XCR0_AVX : 0), in_use;
    uint32_t mxcsr;

    if (s->xcr0 & ~xcr0 || !(s->xcr0 & XCR0_X87) || (s->xcr0 & XCR0_AVX && !(s->xcr0 & XCR0_SSE)))
        return "XCR0 that this processor model cannot hold";
    memcpy(&mxcsr, s->xsave + XSAVE_MXCSR, sizeof(mxcsr));
    if (mxcsr & ~MXCSR_DEFINED)
        return "reserved bits in MXCSR";
    memcpy(&in_use, s->xsave + XSAVE_HEADER, sizeof(in_use));
    if (in_use & ~X86_XCR0_SUPPORTED || memcmp(s->xsave + XSAVE_HEADER + 8, zero, sizeof(zero)))
        return "XSAVE header";
    return NULL;
}

// ---- events ----

static const char *check_events(const struct cpu_state *s, const struct cpuid_policy *p) {
    if (s->activity > X86_IN_SHUTDOWN)
        return "activity";
    if (s->intr_shadow > 3 || s->nmi_pending > 1 || s->nmi_blocked > 1 || s->debug_pending > 1 || s->intr_taken > 1)
        return "pending events";
    if (s->debug_pending_dr6 > DEBUG_PENDING_MAX)
        return "bits of a pending debug trap";
    return s->intr_taken || !s->intr_vector ? NULL : "vector of an interrupt that is not there";
}

int x86_state_check(const struct cpu_state *s, const struct cpuid_policy *p, struct error *err) {
    static check_fn *const checks[] = {check_control,      check_long_mode, check_flags, check_segments,
                                       check_memory_types, check_msrs,      check_fpu,   check_events};

    for (unsigned i = 0; i < ARRAY_LEN(checks); i++) {
        const char *wrong = checks[i](s, p);
        if (wrong)
            return error_set(err, -EINVAL, "saved vCPU state: %s", wrong);
    }
    return 0;
}
