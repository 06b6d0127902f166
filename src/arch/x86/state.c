// SPDX-License-Identifier: Apache-2.0
// Processor state after power-on, INIT and SIPI (SDM vol. 3A 9.1.1 and table 9-1, 8.4.4).
#include "arch/x86/state.h"

#include <string.h>

#define PAT_RESET         0x0007040600070406ull
#define MISC_ENABLE_RESET 0x1801ull // fast strings; no BTS, no PEBS
#define CR0_RESET         (CR0_CD | CR0_NW | CR0_ET)
#define DR6_RESET         0xffff0ff0ull
#define DR7_RESET         0x400ull
#define FCW_RESET         0x37fu // what firmware leaves (FNINIT), not 40h, which unmasks every x87 exception
#define MXCSR_RESET       0x1f80u
#define SIGNATURE         0x600u // EDX: family 6

static void reset_segments(struct cpu_state *s) {
    static const struct x86_segment data = {.limit = 0xffff, .attr = 0x93};

    for (int i = X86_ES; i <= X86_GS; i++)
        s->seg[i] = data;
    s->seg[X86_CS] = (struct x86_segment){.base = 0xffff0000, .limit = 0xffff, .attr = 0x9b, .sel = 0xf000};
    s->seg[X86_LDTR] = (struct x86_segment){.limit = 0xffff, .attr = 0x82};
    s->seg[X86_TR] = (struct x86_segment){.limit = 0xffff, .attr = 0x8b};
    s->gdtr = (struct x86_table){.limit = 0xffff};
    s->idtr = (struct x86_table){.limit = 0xffff};
}

static void reset_fpu(struct cpu_state *s) {
    const uint16_t fcw = FCW_RESET;
    const uint32_t mxcsr = MXCSR_RESET;
    const uint64_t xstate_bv = XCR0_X87 | XCR0_SSE;

    memset(s->xsave, 0, sizeof(s->xsave));
    memcpy(s->xsave, &fcw, sizeof(fcw));
    memcpy(s->xsave + 24, &mxcsr, sizeof(mxcsr));
    memcpy(s->xsave + 512, &xstate_bv, sizeof(xstate_bv));
    s->xcr0 = XCR0_X87;
}

// What both power-on and INIT set.
static void reset_common(struct cpu_state *s) {
    memset(s->gpr, 0, sizeof(s->gpr));
    s->gpr[X86_RDX] = SIGNATURE;
    s->rip = 0xfff0;
    s->rflags = RFLAGS_FIXED1;
    reset_segments(s);
    s->cr2 = s->cr3 = s->cr4 = s->efer = s->debugctl = 0;
    memset(s->dr, 0, sizeof(s->dr));
    s->dr6 = DR6_RESET;
    s->dr7 = DR7_RESET;
    s->intr_shadow = s->nmi_pending = s->nmi_blocked = s->debug_pending = 0;
    s->debug_pending_dr6 = 0;
    s->sipi_vector = 0;
}

void x86_state_reset(struct cpu_state *s, bool apic_bsp, bool init) {
    if (init) {
        // INIT keeps the FPU, XCR0, the caching bits, the MSRs but EFER, and the TSC.
        s->cr0 = (s->cr0 & (CR0_CD | CR0_NW)) | CR0_ET;
    } else {
        memset(s, 0, sizeof(*s));
        s->cr0 = CR0_RESET;
        s->pat = PAT_RESET;
        s->misc_enable = MISC_ENABLE_RESET;
        reset_fpu(s);
    }
    reset_common(s);
    s->activity = apic_bsp ? X86_ACTIVE : X86_WAIT_SIPI;
}

void x86_state_sipi(struct cpu_state *s, uint8_t vector) {
    struct x86_segment *cs = &s->seg[X86_CS];

    cs->sel = (uint16_t)(vector << 8);
    cs->base = (uint64_t)vector << 12;
    cs->limit = 0xffff;
    cs->attr = 0x9b;
    s->rip = 0;
    s->sipi_vector = vector;
    s->activity = X86_ACTIVE;
}
