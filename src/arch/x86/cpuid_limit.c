// SPDX-License-Identifier: Apache-2.0
// A CPUID policy cut down to what an engine gives on this host, and the flags that follow from a policy.
#define LOG_UNIT "cpuid"
#include <stddef.h>

#include <stddef.h>

#include "arch/x86/cpuid.h"
#include "arch/x86/cpuid_models.h"
#include "arch/x86/state.h"
#include "util/log.h"

enum reg { EAX, EBX, ECX, EDX };

// Registers whose bits are features; `ours` are those that do not depend on an engine: how the machine is built.
static const struct {
    uint32_t function, index;
    enum reg reg;
    uint32_t ours;
} features[] = {
    {1, 0, ECX, F1C_HYPERVISOR},
    {1, 0, EDX, F1D_HTT},
    {7, 0, EBX, 0},
    {7, 0, ECX, 0},
    {7, 0, EDX, 0},
    {7, 1, EAX, 0},
    {7, 2, EDX, 0},
    {0xd, 0, EAX, 0},
    {0xd, 1, EAX, 0},
    {0x80000001, 0, ECX, FXC_CMP_LEGACY | FXC_TOPOEXT},
    {0x80000001, 0, EDX, 0},
    {0x80000007, 0, EDX, 0},
    {0x80000008, 0, EBX, 0},
    {0x80000021, 0, EAX, 0},
};

static uint32_t *reg_of(struct cpuid_leaf *l, enum reg r) {
    uint32_t *const regs[] = {&l->eax, &l->ebx, &l->ecx, &l->edx};

    return regs[r];
}

static struct cpuid_leaf *find(struct cpuid_leaf *list, unsigned count, uint32_t function, uint32_t index) {
    for (unsigned i = 0; i < count; i++)
        if (list[i].function == function && (list[i].index == CPUID_NO_INDEX || list[i].index == index))
            return &list[i];
    return NULL;
}

static uint32_t value_of(const struct cpuid_policy *p, uint32_t function, uint32_t index, enum reg r) {
    struct cpuid_leaf *l = find((struct cpuid_leaf *)p->leaf, p->count, function, index);

    return l ? *reg_of(l, r) : 0;
}

static void clear(struct cpuid_policy *p, uint32_t function, uint32_t index, enum reg r, uint32_t bits) {
    struct cpuid_leaf *l = find(p->leaf, p->count, function, index);

    if (l)
        *reg_of(l, r) &= ~bits;
}

// A feature whose state or foundation went goes too.
static void drop_dependents(struct cpuid_policy *p) {
    struct cpuid_leaf *sizes = find(p->leaf, p->count, 0xd, 0);

    if (!(value_of(p, 1, 0, ECX) & F1C_XSAVE)) {
        clear(p, 1, 0, ECX, F1C_AVX);
        clear(p, 0xd, 0, EAX, UINT32_MAX);
        clear(p, 0xd, 1, EAX, UINT32_MAX);
    }
    if (!(value_of(p, 0xd, 0, EAX) & XCR0_AVX))
        clear(p, 1, 0, ECX, F1C_AVX);
    if (value_of(p, 1, 0, ECX) & F1C_AVX)
        return;
    clear(p, 1, 0, ECX, F1C_FMA | F1C_F16C);
    clear(p, 7, 0, EBX, F7B_AVX2);
    clear(p, 7, 0, ECX, F7C_VAES | F7C_VPCLMUL);
    clear(p, 7, 1, EAX, F71A_AVX_VNNI);
    clear(p, 0xd, 0, EAX, XCR0_AVX);
    clear(p, 0xd, 2, EAX, UINT32_MAX);
    clear(p, 0xd, 2, EBX, UINT32_MAX);
    if (sizes)
        sizes->ecx = sizes->eax ? 576 : 0;
}

void cpuid_policy_limit(struct cpuid_policy *p, const struct cpuid_leaf *have, unsigned count, const char *who) {
    for (unsigned i = 0; i < sizeof(features) / sizeof(features[0]); i++) {
        uint32_t function = features[i].function, index = features[i].index, lacks;
        struct cpuid_leaf *got = find((struct cpuid_leaf *)have, count, function, index);

        lacks = value_of(p, function, index, features[i].reg) & ~features[i].ours;
        if (got)
            lacks &= ~*reg_of(got, features[i].reg);
        if (lacks)
            log_info("leaf 0x%x.%u %s: without 0x%x, which %s lacks", function, index,
                     (const char *[]){"EAX", "EBX", "ECX", "EDX"}[features[i].reg], lacks, who);
        clear(p, function, index, features[i].reg, lacks);
    }
    drop_dependents(p);
    cpuid_policy_set_flags(p);
}

int cpuid_policy_check(const struct cpuid_policy *p, enum cpu_model model, const char *who, struct error *err) {
    const struct cpu_features f = {.word = {
                                       [FEAT_1_ECX] = value_of(p, 1, 0, ECX),
                                       [FEAT_1_EDX] = value_of(p, 1, 0, EDX),
                                       [FEAT_7_EBX] = value_of(p, 7, 0, EBX),
                                       [FEAT_7_ECX] = value_of(p, 7, 0, ECX),
                                       [FEAT_7_EDX] = value_of(p, 7, 0, EDX),
                                       [FEAT_7_1_EAX] = value_of(p, 7, 1, EAX),
                                       [FEAT_D_1_EAX] = value_of(p, 0xd, 1, EAX),
                                       [FEAT_EXT1_ECX] = value_of(p, 0x80000001, 0, ECX),
                                       [FEAT_EXT1_EDX] = value_of(p, 0x80000001, 0, EDX),
                                   }};

    return cpu_model_check(model, &f, who, err);
}

void cpuid_policy_set_flags(struct cpuid_policy *p) {
    uint32_t ecx1 = value_of(p, 1, 0, ECX), ebx7 = value_of(p, 7, 0, EBX), edx_ext = value_of(p, 0x80000001, 0, EDX);

    p->has_xsave = ecx1 & F1C_XSAVE;
    p->has_avx = ecx1 & F1C_AVX;
    p->has_pcid = ecx1 & F1C_PCID;
    p->has_x2apic = ecx1 & F1C_X2APIC;
    p->has_fsgsbase = ebx7 & F7B_FSGSBASE;
    p->has_smep = ebx7 & F7B_SMEP;
    p->has_smap = ebx7 & F7B_SMAP;
    p->has_umip = value_of(p, 7, 0, ECX) & F7C_UMIP;
    p->has_1g_pages = edx_ext & FXD_1G;
    p->has_rdtscp = edx_ext & FXD_RDTSCP;
    p->has_auto_ibrs = value_of(p, 0x80000021, 0, EAX) & F21A_AUTO_IBRS;
    if (!(value_of(p, 7, 0, EDX) & F7D_ARCH_CAP))
        p->arch_capabilities = 0;
}
