// SPDX-License-Identifier: Apache-2.0
// The CPUID policy: builds the table of leaves once, and answers the instruction (SDM vol. 2A CPUID; AMD APM vol. 3
// app. E; KVM: Linux Documentation/virt/kvm/x86/cpuid.rst).
//
// The guest sees the host's vendor, one socket with a core per vCPU, APIC id = vCPU index, and the host's caches.
// Family and model of the movable models are fixed.
#include "arch/x86/cpuid.h"

#include <errno.h>
#include <string.h>

#include "arch/x86/cpuid_models.h"
#include "arch/x86/state.h"

#define INTEGER_ONLY __attribute__((target("general-regs-only")))

#define LAPIC_BUS_HZ     1000000000ull // of dev/lapic.h
#define MAX_BASIC        0x1fu
#define MAX_KVM          0x40000010u
#define VENDOR_INTEL_EBX 0x756e6547u // "Genu"
#define VENDOR_AMD_EBX   0x68747541u // "Auth"
// No model that was ever made: a program that knows the model takes all its features as given (the clones that gcc
// makes for "arch=skylake-avx512" run by model alone), and every known one either has AVX-512 or needs workarounds in
// kernels.
#define SIGNATURE_INTEL  0x000f06f0u
#define SIGNATURE_AMD    0x00a10f11u // Zen 4
#define PHYS_BITS        40u
#define LINEAR_BITS      48u

#define KVM_FEATURE_NOP_IO_DELAY       (1u << 1)
#define KVM_FEATURE_CLOCKSOURCE2       (1u << 3)
#define KVM_FEATURE_CLOCKSOURCE_STABLE (1u << 24)

// ---- building ----

struct builder {
    struct cpuid_policy *p;
    struct cpu_features f;
    bool intel, host_model;
    unsigned core_shift; // bits of the APIC id that number the cores
};

static void add(struct builder *b, uint32_t function, uint32_t index, uint32_t eax, uint32_t ebx, uint32_t ecx,
                uint32_t edx) {
    struct cpuid_policy *p = b->p;

    if (p->count < CPUID_MAX_LEAVES)
        p->leaf[p->count++] = (struct cpuid_leaf){function, index, eax, ebx, ecx, edx};
}

static void add_host(struct builder *b, uint32_t function) {
    uint32_t r[4];

    host_cpuid(function, 0, r);
    add(b, function, CPUID_NO_INDEX, r[0], r[1], r[2], r[3]);
}

static unsigned ceil_log2(unsigned n) {
    unsigned bits = 0;

    while ((1u << bits) < n)
        bits++;
    return bits;
}

static uint32_t signature(const struct builder *b) {
    uint32_t r[4];

    if (!b->host_model)
        return b->intel ? SIGNATURE_INTEL : SIGNATURE_AMD;
    host_cpuid(7, 0, r);
    if (b->intel && (r[1] & F7B_AVX512F)) // the guest does not get it, so it must not see a model that has it
        return SIGNATURE_INTEL;
    host_cpuid(1, 0, r);
    return r[0];
}

static void add_identity(struct builder *b) {
    unsigned logical = 1u << b->core_shift;
    uint32_t ecx = b->f.word[FEAT_1_ECX], edx = b->f.word[FEAT_1_EDX], r[4];

    host_cpuid(0, 0, r);
    add(b, 0, CPUID_NO_INDEX, MAX_BASIC, r[1], r[2], r[3]); // first entry: is_vendor_intel() relies on it
    if (b->p->vcpus > 1)
        edx |= F1D_HTT;
    if (logical > 255)
        logical = 255;
    add(b, 1, CPUID_NO_INDEX, signature(b), logical << 16 | 8 << 8, ecx, edx); // CLFLUSH line: 8 * 8 bytes
    if (b->intel)
        add_host(b, 2); // TLB and cache descriptors
}

// Sharing fields of a cache: L3 and beyond by all cores, the others by one.
static uint32_t cache_eax(const struct builder *b, uint32_t eax, bool intel) {
    unsigned level = eax >> 5 & 7, all = (1u << b->core_shift) - 1;
    uint32_t sharing = level >= 3 ? all : 0;

    eax &= 0x3fff;
    eax |= (sharing > 0xfff ? 0xfff : sharing) << 14;
    return intel ? eax | (all > 63 ? 63 : all) << 26 : eax;
}

static void add_caches(struct builder *b, uint32_t function) {
    for (uint32_t i = 0; i < 8; i++) {
        uint32_t r[4];

        host_cpuid(function, i, r);
        if (!(r[0] & 31))
            break;
        add(b, function, i, cache_eax(b, r[0], function == 4), r[1], r[2], r[3]);
    }
}

static void add_features(struct builder *b) {
    uint32_t edx = b->f.word[FEAT_7_EDX];

    if (b->intel)
        edx |= F7D_SPEC_CTRL | F7D_ARCH_CAP;
    add(b, 6, CPUID_NO_INDEX, BIT(2), 0, 0, 0); // ARAT: the APIC timer never stops
    add(b, 7, 0, b->intel ? 2 : b->f.word[FEAT_7_1_EAX] ? 1 : 0, b->f.word[FEAT_7_EBX], b->f.word[FEAT_7_ECX], edx);
    if (b->f.word[FEAT_7_1_EAX])
        add(b, 7, 1, b->f.word[FEAT_7_1_EAX], 0, 0, 0);
    // BHI_CTRL: Linux then sets SPEC_CTRL.BHI_DIS_S once instead of clearing the branch history on each system call
    // (some of its versions do so even when BHI_NO is set). MCDT_NO.
    if (b->intel)
        add(b, 7, 2, 0, 0, 0, F72D_BHI_CTRL | F72D_MCDT_NO);
}

// Leaves Bh and 1Fh: thread level (one per core), core level. EDX, the x2APIC id, is filled in by cpuid_query.
static void add_topology(struct builder *b, uint32_t function) {
    add(b, function, 0, 0, 1, 0 | 1 << 8, 0);
    add(b, function, 1, b->core_shift, b->p->vcpus, 1 | 2 << 8, 0);
}

// EBX of 0Dh.0 and .1 are filled in by cpuid_query. The AVX component is at 576 on every processor.
static void add_xsave(struct builder *b) {
    bool avx = b->p->has_avx;

    if (!b->p->has_xsave)
        return;
    add(b, 0xd, 0, XCR0_X87 | XCR0_SSE | (avx ? XCR0_AVX : 0), 0, avx ? X86_XSAVE_SIZE : 576, 0);
    add(b, 0xd, 1, b->f.word[FEAT_D_1_EAX], 0, 0, 0);
    if (avx)
        add(b, 0xd, 2, 256, 576, 0, 0);
}

// Leaf 15h gives TSC = crystal * EBX / EAX, and kernels take the crystal for the APIC timer's clock too, so it has to
// be LAPIC_BUS_HZ. Linux multiplies crystal kHz by EBX in 32 bits, so the ratio has to be small: whole MHz only.
static void add_tsc(struct builder *b) {
    uint64_t hz = b->p->tsc_hz, mhz = (hz + 500000) / 1000000;
    uint64_t error = hz > mhz * 1000000 ? hz - mhz * 1000000 : mhz * 1000000 - hz;

    if (mhz && mhz < 4290 && error < mhz * 10) // within 10 ppm
        add(b, 0x15, CPUID_NO_INDEX, (uint32_t)(LAPIC_BUS_HZ / 1000000), (uint32_t)mhz, LAPIC_BUS_HZ, 0);
    if (b->intel)
        add(b, 0x16, CPUID_NO_INDEX, (uint32_t)mhz, (uint32_t)mhz, 100, 0);
}

static void add_hypervisor(struct builder *b) {
    add(b, 0x40000000, CPUID_NO_INDEX, MAX_KVM, 0x4b4d564b, 0x564b4d56, 0x4d); // "KVMKVMKVM"
    add(b, 0x40000001, CPUID_NO_INDEX,
        KVM_FEATURE_NOP_IO_DELAY | KVM_FEATURE_CLOCKSOURCE2 | KVM_FEATURE_CLOCKSOURCE_STABLE, 0, 0, 0);
    add(b, 0x40000010, CPUID_NO_INDEX, (uint32_t)(b->p->tsc_hz / 1000), (uint32_t)(LAPIC_BUS_HZ / 1000), 0, 0);
}

static void add_brand(struct builder *b) {
    char brand[48] = "Cicada virtual x86-64 processor";
    uint32_t r[12];

    if (b->host_model) {
        add_host(b, 0x80000002);
        add_host(b, 0x80000003);
        add_host(b, 0x80000004);
        return;
    }
    memcpy(r, brand, sizeof(r));
    for (unsigned i = 0; i < 3; i++)
        add(b, 0x80000002 + i, CPUID_NO_INDEX, r[4 * i], r[4 * i + 1], r[4 * i + 2], r[4 * i + 3]);
}

static void add_extended(struct builder *b) {
    uint32_t ecx = b->f.word[FEAT_EXT1_ECX], edx = b->f.word[FEAT_EXT1_EDX];
    uint32_t ids = 0, spec = 0;

    if (!b->intel) {
        ecx |= FXC_CR8 | FXC_TOPOEXT | (b->p->vcpus > 1 ? FXC_CMP_LEGACY : 0);
        edx |= F1D_BASE & FXD_LEGACY;
        ids = b->core_shift << 12 | ((b->p->vcpus - 1) & 0xff);
        spec = BIT(12) | BIT(14) | BIT(26); // IBPB, IBRS, SSB_NO
    }
    add(b, 0x80000000, CPUID_NO_INDEX, b->intel ? 0x80000008 : 0x80000021, 0, 0, 0);
    add(b, 0x80000001, CPUID_NO_INDEX, b->intel ? 0 : signature(b), 0, ecx, edx);
    add_brand(b);
    if (!b->intel)
        add_host(b, 0x80000005);                         // L1 caches and TLBs
    add_host(b, 0x80000006);                             // L2
    add(b, 0x80000007, CPUID_NO_INDEX, 0, 0, 0, BIT(8)); // invariant TSC
    add(b, 0x80000008, CPUID_NO_INDEX, b->p->phys_bits | LINEAR_BITS << 8, spec, ids, 0);
}

// AMD: cache topology; automatic IBRS, LFENCE serialises, null selector clears the base, and what the processor is
// not vulnerable to: SRSO_NO (EAX 29), TSA_SQ_NO and TSA_L1_NO (ECX 1, 2).
static void add_amd(struct builder *b) {
    if (b->intel)
        return;
    add_caches(b, 0x8000001d);
    add(b, 0x8000001e, CPUID_NO_INDEX, 0, 0, 0, 0);
    add(b, 0x80000021, CPUID_NO_INDEX, BIT(2) | BIT(6) | F21A_AUTO_IBRS | BIT(29), 0, BIT(1) | BIT(2), 0);
}

static uint8_t guest_phys_bits(void) {
    uint32_t max[4], r[4];

    host_cpuid(0x80000000, 0, max);
    if (max[0] < 0x80000008)
        return 36;
    host_cpuid(0x80000008, 0, r);
    return (r[0] & 0xff) < PHYS_BITS ? (uint8_t)r[0] : PHYS_BITS;
}

int cpuid_policy_init(struct cpuid_policy *p, enum cpu_model model, unsigned vcpus, uint64_t tsc_hz,
                      struct error *err) {
    struct builder b = {.p = p, .host_model = model == CPU_HOST};
    struct cpu_features host;
    uint32_t r[4];
    int ret;

    if (!vcpus)
        return error_set(err, -EINVAL, "a machine needs at least one vCPU");
    cpu_features_host(&host);
    ret = cpu_features_model(model, &host, &b.f, err);
    if (ret < 0)
        return ret;
    memset(p, 0, sizeof(*p));
    p->tsc_hz = tsc_hz;
    p->vcpus = vcpus;
    p->phys_bits = guest_phys_bits();
    host_cpuid(0, 0, r);
    b.intel = r[1] != VENDOR_AMD_EBX && r[1] != 0x6f677948; // neither AMD nor Hygon
    b.core_shift = ceil_log2(vcpus);
    p->has_xsave = b.f.word[FEAT_1_ECX] & F1C_XSAVE; // for add_xsave
    p->has_avx = b.f.word[FEAT_1_ECX] & F1C_AVX;

    add_identity(&b);
    if (b.intel)
        add_caches(&b, 4);
    add_features(&b);
    add_topology(&b, 0xb);
    add_xsave(&b);
    add_tsc(&b);
    add_topology(&b, 0x1f);
    add_hypervisor(&b);
    add_extended(&b);
    add_amd(&b);
    p->arch_capabilities = b.intel ? ARCH_CAP_GUEST : 0;
    cpuid_policy_set_flags(p);
    return 0;
}

// ---- answering ----

INTEGER_ONLY const struct cpuid_leaf *cpuid_policy_leaf(const struct cpuid_policy *p, uint32_t function,
                                                        uint32_t index) {
    for (unsigned i = 0; i < p->count; i++) {
        const struct cpuid_leaf *l = &p->leaf[i];

        if (l->function == function && (l->index == CPUID_NO_INDEX || l->index == index))
            return l;
    }
    return NULL;
}

INTEGER_ONLY bool cpuid_policy_has_spec_ctrl(const struct cpuid_policy *p) {
    const struct cpuid_leaf *l7 = cpuid_policy_leaf(p, 7, 0), *amd = cpuid_policy_leaf(p, 0x80000008, 0);

    return (l7 && (l7->edx & F7D_SPEC_CTRL)) || (amd && (amd->ebx & BIT(14)));
}

// Sizes of the XSAVE area for a set of components: standard form, and compacted form.
INTEGER_ONLY static uint32_t xsave_size(uint64_t xcr0) {
    return xcr0 & XCR0_AVX ? X86_XSAVE_SIZE : 576;
}

// A leaf beyond the last basic one answers as the last basic one does, on Intel; AMD answers zero.
INTEGER_ONLY static uint32_t clamp_function(const struct cpuid_policy *p, uint32_t function) {
    uint32_t last = p->leaf[0].eax;

    if (p->leaf[0].ebx != VENDOR_INTEL_EBX)
        return function;
    if (function < 0x40000000)
        return function > last ? last : function;
    if (function < 0x80000000)
        return function > MAX_KVM ? last : function;
    return function > 0x80000008 ? last : function;
}

INTEGER_ONLY static void fill_topology(uint32_t function, uint32_t index, unsigned vcpu, uint32_t out[4]) {
    if (function != 0xb && function != 0x1f)
        return;
    out[2] |= index & 0xff; // also where the level does not exist
    out[3] = vcpu;
}

INTEGER_ONLY static void fill_dynamic(uint64_t cr4, uint64_t xcr0, uint32_t function, uint32_t index, unsigned vcpu,
                                      uint32_t out[4]) {
    switch (function) {
    case 1:
        out[1] |= vcpu << 24;
        if ((cr4 & CR4_OSXSAVE) && (out[2] & F1C_XSAVE))
            out[2] |= F1C_OSXSAVE;
        break;
    case 0xd:
        if (index == 0 && out[0])
            out[1] = xsave_size(xcr0);
        else if (index == 1 && (out[0] & FD1A_XSAVEC))
            out[1] = xsave_size(xcr0); // the one extended component begins at 576 in both forms
        break;
    case 0x8000001e:
        out[0] = vcpu;
        out[1] = vcpu & 0xff; // core id; one thread per core
        break;
    default: break;
    }
}

INTEGER_ONLY void cpuid_query(const struct cpuid_policy *p, unsigned vcpu, uint64_t cr4, uint64_t xcr0,
                              uint32_t function, uint32_t index, uint32_t out[4]) {
    uint32_t fn = clamp_function(p, function);
    const struct cpuid_leaf *l = cpuid_policy_leaf(p, fn, index);

    out[0] = out[1] = out[2] = out[3] = 0;
    if (l) {
        out[0] = l->eax;
        out[1] = l->ebx;
        out[2] = l->ecx;
        out[3] = l->edx;
        fill_dynamic(cr4, xcr0, fn, index, vcpu, out);
    }
    fill_topology(fn, index, vcpu, out);
}
