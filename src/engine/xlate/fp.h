// SPDX-License-Identifier: Apache-2.0
// Guest x87/MMX/SSE/AVX state: when it may be used, where it is, and instructions that run on the host as they are.
#ifndef CICADA_XLATE_FP_H
#define CICADA_XLATE_FP_H

#include <ucontext.h>

#include "engine/xlate/emul.h"

// ---- for the lead ----
// Per-vCPU decode cache and thunk memory; made before the seal. emul_cache_create gives NULL, native_init -errno,
// when there is no memory. The vCPU owns them; destroy(NULL) is legal.
struct emul_cache *emul_cache_create(void);
void emul_cache_destroy(struct emul_cache *c);
int native_init(struct xcpu *x);
void native_destroy(struct xcpu *x);
// SIGFPE, SIGSEGV, SIGILL, SIGBUS: true when the signal came from an instruction in one of x's thunks; then uc
// resumes at the thunk's end and emul_native returns the fault. Async-signal-safe.
bool native_handle_sigfpe(struct xcpu *x, ucontext_t *uc);

// ---- availability (SDM vol. 3A ch. 2.5, 13.1; vol. 2A 2.4) ----
enum fp_kind { FP_NONE = 0, FP_X87 = 1, FP_MMX = 2, FP_SSE = 4, FP_AVX = 8, FP_WAIT = 16, FP_VEX_GPR = 32 };
// #UD or #NM for an instruction that needs these units (bit set of enum fp_kind).
enum xres fp_check(struct xcpu *x, unsigned kinds);

// ---- the state in memory ----
// Offsets in the XSAVE area (SDM vol. 1 13.4).
enum {
    XS_FCW = 0,
    XS_FSW = 2,
    XS_FTW = 4,
    XS_FOP = 6,
    XS_FIP = 8,
    XS_FDP = 16,
    XS_MXCSR = 24,
    XS_MXCSR_MASK = 28,
    XS_ST = 32,
    XS_XMM = 160,
    XS_HEADER = 512,
    XS_YMMH = 576,
};
#define MXCSR_INIT 0x1f80u
#define FCW_INIT   0x37fu
// fpu_save, then every component in s.xsave holds its value even where its XSTATE_BV bit is clear.
void fp_to_memory(struct xcpu *x);
// Marks components (XCR0 bits) as changed in memory.
void fp_touched(struct xcpu *x, uint64_t components);
uint64_t *fp_xstate_bv(struct xcpu *x);
void fp_init_component(struct xcpu *x, uint64_t component); // one XCR0 bit: initial configuration, XSTATE_BV cleared
uint32_t fp_mxcsr_mask(void);

// emul_native.c: if the instruction pointer that the host saved is a thunk's, puts the guest's there.
void native_fix_pointers(struct xcpu *x);
// MASKMOVQ and MASKMOVDQU.
enum xres native_maskmov(struct xcpu *x, struct insn *in);

static inline uint16_t fp_get16(const struct xcpu *x, unsigned off) {
    return *(const uint16_t *)(x->s.xsave + off);
}
static inline uint32_t fp_get32(const struct xcpu *x, unsigned off) {
    return *(const uint32_t *)(x->s.xsave + off);
}
static inline void fp_set16(struct xcpu *x, unsigned off, uint16_t v) {
    *(uint16_t *)(x->s.xsave + off) = v;
}
static inline void fp_set32(struct xcpu *x, unsigned off, uint32_t v) {
    *(uint32_t *)(x->s.xsave + off) = v;
}

#endif
