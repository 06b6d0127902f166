// SPDX-License-Identifier: Apache-2.0
// CPUID policy: the table of leaves that a guest sees, made once per VM from the model and the host.
#ifndef CICADA_ARCH_X86_CPUID_H
#define CICADA_ARCH_X86_CPUID_H

#include <stdbool.h>
#include <stdint.h>

#include "util/error.h"

enum cpu_model { CPU_MOVABLE, CPU_HOST, CPU_X86_64_V2, CPU_X86_64_V3 };

#define CPUID_NO_INDEX 0xffffffffu // the leaf has no sub-leaves

struct cpuid_leaf {
    uint32_t function, index;
    uint32_t eax, ebx, ecx, edx;
};

#define CPUID_MAX_LEAVES 96
struct cpuid_policy {
    struct cpuid_leaf leaf[CPUID_MAX_LEAVES];
    unsigned count;
    uint64_t tsc_hz;
    unsigned vcpus;
    uint8_t phys_bits; // guest MAXPHYADDR
    bool has_avx, has_pcid, has_smap, has_smep, has_umip, has_fsgsbase, has_1g_pages, has_rdtscp, has_x2apic, has_xsave,
        has_auto_ibrs;
    uint64_t arch_capabilities; // IA32_ARCH_CAPABILITIES as the guest reads it
};

// Builds the table. -EINVAL with the missing feature named when the host cannot give the model.
int cpuid_policy_init(struct cpuid_policy *p, enum cpu_model model, unsigned vcpus, uint64_t tsc_hz, struct error *err);

// Takes out the features that `have` lacks: what `who` (an engine, for the log) gives on this host, leaf by leaf as
// CPUID would tell it. What is built by us on every engine stays: topology, caches, the hypervisor leaves.
void cpuid_policy_limit(struct cpuid_policy *p, const struct cpuid_leaf *have, unsigned count, const char *who);
// Does the policy still have what the model promises? -EINVAL naming the first feature that is missing.
int cpuid_policy_check(const struct cpuid_policy *p, enum cpu_model model, const char *who, struct error *err);
// Sets the has_* members from the table.
void cpuid_policy_set_flags(struct cpuid_policy *p);

// What the CPUID instruction returns on this vCPU: fills the dynamic bits (APIC id, OSXSAVE, XSAVE size of the enabled
// components, topology) and applies the rule for leaves out of range (SDM vol. 2A CPUID).
void cpuid_query(const struct cpuid_policy *p, unsigned vcpu, uint64_t cr4, uint64_t xcr0, uint32_t function,
                 uint32_t index, uint32_t out[4]);

// The static entry of a leaf, NULL where the table has none. Free of SSE, as cpuid_query is.
const struct cpuid_leaf *cpuid_policy_leaf(const struct cpuid_policy *p, uint32_t function, uint32_t index);
// The guest may use IA32_SPEC_CTRL and IA32_PRED_CMD.
bool cpuid_policy_has_spec_ctrl(const struct cpuid_policy *p);
// "movable", "host", "x86-64-v2", "x86-64-v3". 0 or -EINVAL.
int cpu_model_parse(const char *name, enum cpu_model *model);

#endif
