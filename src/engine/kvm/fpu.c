// SPDX-License-Identifier: Apache-2.0
// x87, SSE and AVX registers (4.42 KVM_GET_XSAVE, 4.26 KVM_GET_FPU; SDM vol. 1 13.4 for the area).
//
// The canonical area is KVM's own (standard format), cut after the components that a guest can have. Where the host
// processor has no XSAVE, the legacy 512 bytes come and go by KVM_GET_FPU in another order.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/kvm/kvm.h"

#define AVAILABLE  464u // to software: KVM leaves a signature of the kernel's here
#define XSTATE_BV  512u
#define XCOMP_BV   520u
#define ST0        32u
#define XMM0       160u
#define MXCSR      24u
#define HEADER_END 576u

// ---- without XSAVE ----

static int legacy_get(struct kvm_vcpu *v, uint8_t *area) {
    struct kvm_fpu f;
    const uint64_t used = XCR0_X87 | XCR0_SSE;
    int r = kvm_ioctl(v->fd, KVM_GET_FPU, &f);

    if (r)
        return r;
    memcpy(area, &f.fcw, 2);
    memcpy(area + 2, &f.fsw, 2);
    area[4] = f.ftwx;
    memcpy(area + 6, &f.last_opcode, 2);
    memcpy(area + 8, &f.last_ip, 8);
    memcpy(area + 16, &f.last_dp, 8);
    memcpy(area + MXCSR, &f.mxcsr, 4);
    memcpy(area + ST0, f.fpr, sizeof(f.fpr));
    memcpy(area + XMM0, f.xmm, sizeof(f.xmm));
    memcpy(area + XSTATE_BV, &used, sizeof(used));
    return 0;
}

static int legacy_set(struct kvm_vcpu *v, const uint8_t *area) {
    struct kvm_fpu f = {.ftwx = area[4]};

    memcpy(&f.fcw, area, 2);
    memcpy(&f.fsw, area + 2, 2);
    memcpy(&f.last_opcode, area + 6, 2);
    memcpy(&f.last_ip, area + 8, 8);
    memcpy(&f.last_dp, area + 16, 8);
    memcpy(&f.mxcsr, area + MXCSR, 4);
    memcpy(f.fpr, area + ST0, sizeof(f.fpr));
    memcpy(f.xmm, area + XMM0, sizeof(f.xmm));
    return kvm_ioctl(v->fd, KVM_SET_FPU, &f);
}

// ---- with XSAVE ----

static int xsave_get(struct kvm_vcpu *v, uint8_t *area) {
    struct kvm_xsave *x = aligned_alloc(64, sizeof(*x));
    uint64_t used;
    int r = x ? kvm_ioctl(v->fd, KVM_GET_XSAVE, x) : -ENOMEM;

    if (r == 0) {
        memcpy(area, x, X86_XSAVE_SIZE);
        memcpy(&used, area + XSTATE_BV, sizeof(used));
        used &= X86_XCR0_SUPPORTED;
        memcpy(area + XSTATE_BV, &used, sizeof(used));
        memset(area + XCOMP_BV, 0, HEADER_END - XCOMP_BV);
        memset(area + AVAILABLE, 0, XSTATE_BV - AVAILABLE);
    }
    free(x);
    return r;
}

// Components that the canonical form lacks are left in their initial state, as after reset.
static int xsave_set(struct kvm_vcpu *v, const uint8_t *area) {
    struct kvm_xsave *x = aligned_alloc(64, sizeof(*x));
    uint64_t used;
    int r;

    if (!x)
        return -ENOMEM;
    memset(x, 0, sizeof(*x));
    memcpy(x, area, X86_XSAVE_SIZE);
    memcpy(&used, area + XSTATE_BV, sizeof(used));
    used &= X86_XCR0_SUPPORTED;
    memcpy((uint8_t *)x + XSTATE_BV, &used, sizeof(used));
    memset((uint8_t *)x + XCOMP_BV, 0, HEADER_END - XCOMP_BV);
    r = kvm_ioctl(v->fd, KVM_SET_XSAVE, x);
    free(x);
    return r;
}

static int xcr_get(struct kvm_vcpu *v, struct cpu_state *s) {
    struct kvm_xcrs x;
    int r = kvm_ioctl(v->fd, KVM_GET_XCRS, &x);

    s->xcr0 = r == 0 && x.nr_xcrs ? x.xcrs[0].value : XCR0_X87;
    return r;
}

static int xcr_set(struct kvm_vcpu *v, const struct cpu_state *s) {
    struct kvm_xcrs x = {.nr_xcrs = 1, .xcrs = {{.value = s->xcr0}}};

    return kvm_ioctl(v->fd, KVM_SET_XCRS, &x);
}

int kvm_fpu_get(struct kvm_vcpu *v, struct cpu_state *s) {
    int r = v->engine->has_xsave ? xsave_get(v, s->xsave) : legacy_get(v, s->xsave);

    s->xcr0 = XCR0_X87;
    return r || !v->engine->has_xcrs ? r : xcr_get(v, s);
}

int kvm_fpu_set(struct kvm_vcpu *v, const struct cpu_state *s) {
    int r = v->engine->has_xsave ? xsave_set(v, s->xsave) : legacy_set(v, s->xsave);

    return r || !v->engine->has_xcrs ? r : xcr_set(v, s);
}
