// SPDX-License-Identifier: Apache-2.0
// CPUID: what this KVM gives, taken out of the machine's policy (4.46 KVM_GET_SUPPORTED_CPUID), and the table of a vCPU
// (4.20, 4.22 KVM_SET_CPUID2), which is that policy.
//
// KVM itself fills what changes at run time: OSXSAVE, the APIC bit, the sizes in leaf Dh.
#define LOG_UNIT "kvm"
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "arch/x86/cpuid_models.h"
#include "engine/kvm/kvm.h"
#include "util/log.h"

#define MAX_ENTRIES           256u
#define MSR_ARCH_CAPABILITIES 0x10au

static struct kvm_cpuid2 *table_new(void) {
    struct kvm_cpuid2 *t = calloc(1, sizeof(*t) + MAX_ENTRIES * sizeof(t->entries[0]));

    if (t)
        t->nent = MAX_ENTRIES;
    return t;
}

// ---- what KVM gives ----

// What leaf 1 may show of the interrupt controller depends on where it is.
static uint32_t chip_features(int fd, bool user_chips, uint32_t ecx) {
    const uint32_t both = F1C_X2APIC | F1C_TSC_DEADLINE;

    if (user_chips)
        return kvm_has(fd, KVM_CAP_X86_USER_SPACE_MSR) && kvm_has(fd, KVM_CAP_X86_MSR_FILTER) ? both : 0;
    return (ecx & F1C_X2APIC) | (kvm_has(fd, KVM_CAP_TSC_DEADLINE_TIMER) ? F1C_TSC_DEADLINE : 0);
}

static struct cpuid_leaf leaf_of(int fd, bool user_chips, const struct kvm_cpuid_entry2 *e) {
    bool indexed = e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
    struct cpuid_leaf l = {e->function, indexed ? e->index : CPUID_NO_INDEX, e->eax, e->ebx, e->ecx, e->edx};

    if (e->function == 1)
        l.ecx = (l.ecx & ~(F1C_X2APIC | F1C_TSC_DEADLINE)) | chip_features(fd, user_chips, l.ecx);
    return l;
}

// The MSR behind a CPUID bit; what KVM does not vouch for is not promised to the guest.
static void limit_arch_capabilities(int fd, struct cpuid_policy *p) {
    struct kvm_one_msr m = {.head.nmsrs = 1, .entry = {.index = MSR_ARCH_CAPABILITIES}};

    p->arch_capabilities &= kvm_ioctl(fd, KVM_GET_MSRS, &m) == 1 ? m.entry.data : 0;
}

static int limit(int fd, struct cpuid_policy *p, bool user_chips) {
    struct cpuid_leaf leaves[MAX_ENTRIES];
    struct kvm_cpuid2 *t = table_new();
    int r = t ? kvm_ioctl(fd, KVM_GET_SUPPORTED_CPUID, t) : -ENOMEM;

    for (unsigned i = 0; r == 0 && i < t->nent; i++)
        leaves[i] = leaf_of(fd, user_chips, &t->entries[i]);
    if (r == 0) {
        cpuid_policy_limit(p, leaves, t->nent, "KVM");
        limit_arch_capabilities(fd, p);
    }
    free(t);
    return r;
}

int kvm_limit_policy(void *policy, const struct engine_options *opt, struct error *err) {
    struct kvm_options o;
    int fd, r = kvm_options_parse(&o, opt, err);

    if (r)
        return r;
    bool handed = opt && opt->device > 0;
    fd = handed ? opt->device : kvm_open(err);
    if (fd < 0)
        return fd;
    r = handed ? kvm_check(fd, err) : 0;
    if (r)
        return r;
    r = limit(fd, policy, o.chips == KVM_CHIPS_USER);
    if (!handed)
        close(fd);
    return r ? error_set(err, r, "kvm: read what its processors can do") : 0;
}

// ---- the table of a vCPU ----

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

int kvm_cpuid_set(struct kvm_vcpu *v, struct error *err) {
    const struct cpuid_policy *p = v->engine->host->cpu_policy;
    struct kvm_one_msr m = {.head.nmsrs = 1, .entry = {.index = MSR_ARCH_CAPABILITIES, .data = p->arch_capabilities}};
    struct kvm_cpuid2 *t = table_new();
    int r = t ? 0 : -ENOMEM;

    if (r == 0) {
        fill(t, p, v->index);
        r = kvm_ioctl(v->fd, KVM_SET_CPUID2, t);
    }
    free(t);
    if (r)
        return error_set(err, r, "kvm: set the CPUID table of vCPU %u (try --cpu x86-64-v2)", v->index);
    if (p->arch_capabilities && kvm_ioctl(v->fd, KVM_SET_MSRS, &m) != 1)
        log_debug("IA32_ARCH_CAPABILITIES stays as KVM has it");
    return 0;
}
