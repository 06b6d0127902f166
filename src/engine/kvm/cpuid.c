// SPDX-License-Identifier: Apache-2.0
// The CPUID table of a vCPU: the machine's policy, without the features that this KVM cannot give (4.20, 4.46).
//
// KVM itself fills what changes at run time: OSXSAVE, the APIC bit, the sizes in leaf Dh.
#define LOG_UNIT "kvm"
#include <errno.h>
#include <stdlib.h>

#include "arch/x86/cpuid_models.h"
#include "engine/kvm/kvm.h"
#include "util/log.h"

#define MAX_ENTRIES           256u
#define MSR_ARCH_CAPABILITIES 0x10au

enum reg { EAX, EBX, ECX, EDX };

// Registers whose bits are features: the guest may have those that KVM lists, and `always` besides, which KVM does not
// list but leaves to the VMM.
static const struct {
    uint32_t function, index;
    enum reg reg;
    uint32_t always;
} masked[] = {
    {1, 0, ECX, F1C_HYPERVISOR},
    {1, 0, EDX, F1D_HTT},
    {7, 0, EBX, 0},
    {7, 0, ECX, 0},
    {7, 0, EDX, 0},
    {7, 1, EAX, 0},
    {0xd, 0, EAX, 0},
    {0xd, 1, EAX, 0},
    {0x80000001, 0, ECX, 0},
    {0x80000001, 0, EDX, 0},
    {0x80000007, 0, EDX, 0},
    {0x80000008, 0, EBX, 0},
    {0x80000021, 0, EAX, 0},
};

static uint32_t *reg_of(struct kvm_cpuid_entry2 *e, enum reg r) {
    uint32_t *const regs[] = {&e->eax, &e->ebx, &e->ecx, &e->edx};

    return regs[r];
}

static struct kvm_cpuid_entry2 *find(struct kvm_cpuid2 *t, uint32_t function, uint32_t index) {
    for (unsigned i = 0; i < t->nent; i++)
        if (t->entries[i].function == function &&
            (!(t->entries[i].flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) || t->entries[i].index == index))
            return &t->entries[i];
    return NULL;
}

static struct kvm_cpuid2 *table_new(void) {
    struct kvm_cpuid2 *t = calloc(1, sizeof(*t) + MAX_ENTRIES * sizeof(t->entries[0]));

    if (t)
        t->nent = MAX_ENTRIES;
    return t;
}

// ---- building ----

static void fill(struct kvm_cpuid2 *t, const struct cpuid_policy *p, unsigned vcpu) {
    t->nent = 0;
    for (unsigned i = 0; i < p->count && t->nent < MAX_ENTRIES; i++) {
        const struct cpuid_leaf *l = &p->leaf[i];
        bool indexed = l->index != CPUID_NO_INDEX;
        struct kvm_cpuid_entry2 *e = &t->entries[t->nent++];
        uint32_t out[4];

        cpuid_query(p, vcpu, 0, XCR0_X87, l->function, indexed ? l->index : 0, out);
        *e = (struct kvm_cpuid_entry2){.function = l->function,
                                       .index = indexed ? l->index : 0,
                                       .flags = indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
                                       .eax = out[0],
                                       .ebx = out[1],
                                       .ecx = out[2],
                                       .edx = out[3]};
    }
}

// What leaf 1 may show of the interrupt controller depends on where it is.
static uint32_t chip_features(const struct engine *e, uint32_t ecx) {
    if (!e->chips_in_kernel)
        return e->user_msrs ? F1C_X2APIC | F1C_TSC_DEADLINE : 0;
    return (ecx & F1C_X2APIC) | (kvm_has(e->vm_fd, KVM_CAP_TSC_DEADLINE_TIMER) ? F1C_TSC_DEADLINE : 0);
}

static void mask(struct engine *e, struct kvm_cpuid2 *t, struct kvm_cpuid2 *have, bool tell) {
    for (unsigned i = 0; i < ARRAY_LEN(masked); i++) {
        struct kvm_cpuid_entry2 *want = find(t, masked[i].function, masked[i].index);
        struct kvm_cpuid_entry2 *got = find(have, masked[i].function, masked[i].index);
        uint32_t allowed = masked[i].always | (got ? *reg_of(got, masked[i].reg) : 0), *value;

        if (!want)
            continue;
        if (masked[i].function == 1 && masked[i].reg == ECX)
            allowed = (allowed & ~(F1C_X2APIC | F1C_TSC_DEADLINE)) | chip_features(e, allowed);
        value = reg_of(want, masked[i].reg);
        if (tell && (*value & ~allowed))
            log_info("CPUID 0x%x.%u register %d: KVM lacks 0x%x of the model", masked[i].function, masked[i].index,
                     (int)masked[i].reg, *value & ~allowed);
        *value &= allowed;
    }
}

// The MSR behind a CPUID bit; what the host's KVM does not vouch for is not promised to the guest.
static void set_arch_capabilities(struct kvm_vcpu *v, const struct cpuid_policy *p) {
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry entry;
    } m = {.head.nmsrs = 1, .entry = {.index = MSR_ARCH_CAPABILITIES}};

    if (kvm_ioctl(v->engine->sys_fd, KVM_GET_MSRS, &m) != 1)
        return;
    m.entry.data &= p->arch_capabilities;
    if (kvm_ioctl(v->fd, KVM_SET_MSRS, &m) != 1)
        log_debug("IA32_ARCH_CAPABILITIES stays as KVM has it");
}

int kvm_cpuid_set(struct kvm_vcpu *v, struct error *err) {
    struct engine *e = v->engine;
    struct kvm_cpuid2 *have = table_new(), *t = table_new();
    int r = have && t ? kvm_ioctl(e->sys_fd, KVM_GET_SUPPORTED_CPUID, have) : -ENOMEM;

    if (r == 0) {
        fill(t, e->host->cpu_policy, v->index);
        mask(e, t, have, v->index == 0);
        r = kvm_ioctl(v->fd, KVM_SET_CPUID2, t);
    }
    if (r == 0)
        set_arch_capabilities(v, e->host->cpu_policy);
    free(have);
    free(t);
    return r ? error_set(err, r, "kvm: set the CPUID table of vCPU %u (try --cpu x86-64-v2)", v->index) : 0;
}
