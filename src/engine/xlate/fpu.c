// SPDX-License-Identifier: Apache-2.0
// The guest's x87/SSE/AVX state between the host's registers and cpu_state.xsave (SDM vol. 1 ch. 13).
//
// x->fpu_live says where it is. The host runs C code only after fpu_save, which also gives the host registers a sane
// configuration: the guest's MXCSR and x87 stack must not show through in libc. Only components 0..2 are touched.
#include <cpuid.h>

#include "engine/xlate/emul_int.h"

enum { FPU_UNKNOWN, FPU_FXSAVE, FPU_XSAVE, FPU_XSAVE_AVX };
static uint8_t host_fpu;
static uint32_t host_mxcsr_mask;

static uint64_t xgetbv0(void) {
    uint32_t lo, hi;

    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

static void detect_mask(void) {
    uint8_t area[512] __attribute__((aligned(16)));

    *(volatile uint32_t *)(area + XS_MXCSR_MASK) = 0;
    __asm__ volatile("fxsave64 (%0)" ::"r"(area) : "memory");
    host_mxcsr_mask = *(volatile uint32_t *)(area + XS_MXCSR_MASK);
    if (!host_mxcsr_mask)
        host_mxcsr_mask = 0xffbf; // SDM vol. 1 11.6.6
}

// Idempotent; the first call comes before any guest state is live.
static uint8_t fpu_kind(void) {
    unsigned a, b, c = 0, d;

    if (__builtin_expect(host_fpu != FPU_UNKNOWN, 1))
        return host_fpu;
    detect_mask();
    __cpuid(1, a, b, c, d);
    if (!(c & bit_OSXSAVE))
        host_fpu = FPU_FXSAVE;
    else
        host_fpu = xgetbv0() & XCR0_AVX ? FPU_XSAVE_AVX : FPU_XSAVE;
    return host_fpu;
}

uint32_t fp_mxcsr_mask(void) {
    fpu_kind();
    return host_mxcsr_mask;
}

uint64_t *fp_xstate_bv(struct xcpu *x) {
    return (uint64_t *)(x->s.xsave + XS_HEADER);
}

// Full clean-up of the host's registers for C code.
static void host_registers_reset(const struct xcpu *x, uint8_t kind) {
    static const uint32_t mxcsr = MXCSR_INIT;
    uint64_t in_use = *(const uint64_t *)(x->s.xsave + XS_HEADER);

    if (in_use & XCR0_X87)
        __asm__ volatile("fninit");
    if (kind == FPU_XSAVE_AVX && (in_use & XCR0_AVX))
        __asm__ volatile("vzeroupper");
    __asm__ volatile("ldmxcsr %0" ::"m"(mxcsr));
}

void fpu_save(struct xcpu *x) {
    if (!x->fpu_live)
        return;
    uint8_t kind = fpu_kind();
    if (kind == FPU_FXSAVE) {
        __asm__ volatile("fxsave64 (%0)" ::"r"(x->s.xsave) : "memory");
        *fp_xstate_bv(x) = XCR0_X87 | XCR0_SSE;
    } else {
        __asm__ volatile("xsave64 (%0)" ::"r"(x->s.xsave), "a"(7), "d"(0) : "memory");
    }
    x->fpu_live = false;
    native_fix_pointers(x);
    host_registers_reset(x, kind);
}

// A saved state may come from a file: nothing in it may make XRSTOR fault.
static void sanitise(struct xcpu *x) {
    uint64_t *header = fp_xstate_bv(x);

    header[0] &= X86_XCR0_SUPPORTED;
    for (unsigned i = 1; i < 8; i++)
        header[i] = 0;
    fp_set32(x, XS_MXCSR, fp_get32(x, XS_MXCSR) & host_mxcsr_mask);
}

void fpu_load(struct xcpu *x) {
    if (x->fpu_live)
        return;
    uint8_t kind = fpu_kind();
    sanitise(x);
    if (kind == FPU_FXSAVE) {
        fp_to_memory(x);
        __asm__ volatile("fxrstor64 (%0)" ::"r"(x->s.xsave) : "memory");
    } else {
        __asm__ volatile("xrstor64 (%0)" ::"r"(x->s.xsave), "a"(7), "d"(0) : "memory");
    }
    x->fpu_live = true;
}

// ---- the state in memory ----

static void zero(uint8_t *p, unsigned n) {
    __asm__ volatile("rep stosb" : "+D"(p), "+c"((uint64_t){n}) : "a"(0) : "memory");
}

// Initial configurations: SDM vol. 1 13.6.
static void init_values(struct xcpu *x, uint64_t component) {
    switch (component) {
    case XCR0_X87:
        zero(x->s.xsave, XS_MXCSR);
        zero(x->s.xsave + XS_ST, 128);
        fp_set16(x, XS_FCW, FCW_INIT);
        break;
    case XCR0_SSE: zero(x->s.xsave + XS_XMM, 256); break; // MXCSR is the caller's
    case XCR0_AVX: zero(x->s.xsave + XS_YMMH, 256); break;
    }
}

void fp_to_memory(struct xcpu *x) {
    fpu_save(x);
    for (uint64_t c = XCR0_X87; c <= XCR0_AVX; c <<= 1)
        if (!(*fp_xstate_bv(x) & c))
            init_values(x, c);
}

void fp_touched(struct xcpu *x, uint64_t components) {
    *fp_xstate_bv(x) |= components;
}

void fp_init_component(struct xcpu *x, uint64_t component) {
    init_values(x, component);
    *fp_xstate_bv(x) &= ~component;
}

// ---- availability ----

// Vector instructions: SDM vol. 2A 2.4 (VEX), vol. 3A 13.1.
static bool vector_undefined(const struct xcpu *x, unsigned kinds) {
    if (kinds & (FP_AVX | FP_VEX_GPR)) {
        if (!cpu_protected(x) || cpu_vm86(x))
            return true;
    }
    if (kinds & FP_AVX)
        return !(x->s.cr4 & CR4_OSXSAVE) || (x->s.xcr0 & 6) != 6;
    if ((kinds & (FP_SSE | FP_MMX)) && (x->s.cr0 & CR0_EM))
        return true;
    return (kinds & FP_SSE) && !(x->s.cr4 & CR4_OSFXSR);
}

enum xres fp_check(struct xcpu *x, unsigned kinds) {
    uint64_t cr0 = x->s.cr0;

    if (vector_undefined(x, kinds))
        return ud(x);
    if ((kinds & FP_X87) && (cr0 & (CR0_EM | CR0_TS)))
        return fault_raise(x, X86_NM);
    if ((kinds & FP_WAIT) && (cr0 & (CR0_MP | CR0_TS)) == (CR0_MP | CR0_TS))
        return fault_raise(x, X86_NM);
    if ((kinds & (FP_MMX | FP_SSE | FP_AVX)) && (cr0 & CR0_TS))
        return fault_raise(x, X86_NM);
    return X_OK;
}
