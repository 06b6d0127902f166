// SPDX-License-Identifier: Apache-2.0
// Model-specific registers of the canonical state (4.18 KVM_GET_MSRS).
//
// Which of them a KVM has depends on its version, the host processor and the guest's CPUID, so each is read once on the
// first vCPU. One that is not there is not visible to the guest either. Only those that change are written: KVM refuses
// some writes (and complains in the host's log) even where the value is the one it holds.
#define LOG_UNIT "kvm"
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

#include "engine/kvm/kvm.h"
#include "util/log.h"

#define FIELD(msr, name)                                                                                               \
    { msr, offsetof(struct cpu_state, name) }
#define VARIABLE(n) FIELD(0x200 + 2 * (n), mtrr_base[n]), FIELD(0x201 + 2 * (n), mtrr_mask[n])

// TSC_ADJUST stands before the offset of the counter, which is set on its own (tsc.c).
static const struct msr_field {
    uint32_t msr;
    uint16_t offset;
} fields[] = {
    FIELD(0xc0000081, star),
    FIELD(0xc0000082, lstar),
    FIELD(0xc0000083, cstar),
    FIELD(0xc0000084, fmask),
    FIELD(0xc0000102, kernel_gs_base),
    FIELD(0xc0000103, tsc_aux),
    FIELD(0x174, sysenter_cs),
    FIELD(0x175, sysenter_esp),
    FIELD(0x176, sysenter_eip),
    FIELD(0x277, pat),
    FIELD(0x1a0, misc_enable),
    FIELD(0x3b, tsc_adjust),
    FIELD(0x48, spec_ctrl),
    FIELD(0x1d9, debugctl),
    FIELD(0x17a, mcg_status),
    FIELD(0x2ff, mtrr_def_type),
    VARIABLE(0),
    VARIABLE(1),
    VARIABLE(2),
    VARIABLE(3),
    VARIABLE(4),
    VARIABLE(5),
    VARIABLE(6),
    VARIABLE(7),
    FIELD(0x250, mtrr_fixed[0]),
    FIELD(0x258, mtrr_fixed[1]),
    FIELD(0x259, mtrr_fixed[2]),
    FIELD(0x268, mtrr_fixed[3]),
    FIELD(0x269, mtrr_fixed[4]),
    FIELD(0x26a, mtrr_fixed[5]),
    FIELD(0x26b, mtrr_fixed[6]),
    FIELD(0x26c, mtrr_fixed[7]),
    FIELD(0x26d, mtrr_fixed[8]),
    FIELD(0x26e, mtrr_fixed[9]),
    FIELD(0x26f, mtrr_fixed[10]),
    FIELD(0x4b564d00, kvmclock_wall),
    FIELD(0x4b564d01, kvmclock_system_time),
};
_Static_assert(ARRAY_LEN(fields) <= KVM_MAX_MSRS, "KVM_MAX_MSRS");

struct msr_list {
    struct kvm_msrs head;
    struct kvm_msr_entry entry[KVM_MAX_MSRS];
};

static uint64_t *field_of(struct cpu_state *s, unsigned field) {
    return (uint64_t *)((char *)s + fields[field].offset);
}

void kvm_msrs_probe(struct engine *e, struct kvm_vcpu *v) {
    e->nmsrs = 0;
    for (unsigned i = 0; i < ARRAY_LEN(fields); i++) {
        struct msr_list m = {.head.nmsrs = 1, .entry = {{.index = fields[i].msr}}};
        if (kvm_ioctl(v->fd, KVM_GET_MSRS, &m) == 1)
            e->msr_field[e->nmsrs++] = (uint8_t)i;
        else
            log_debug("no MSR 0x%x here", fields[i].msr);
    }
}

static int read_all(struct kvm_vcpu *v, struct msr_list *m) {
    struct engine *e = v->engine;
    int r;

    m->head = (struct kvm_msrs){.nmsrs = e->nmsrs};
    for (unsigned i = 0; i < e->nmsrs; i++)
        m->entry[i] = (struct kvm_msr_entry){.index = fields[e->msr_field[i]].msr};
    r = kvm_ioctl(v->fd, KVM_GET_MSRS, m);
    return r == (int)e->nmsrs ? 0 : r < 0 ? r : -EIO;
}

int kvm_msrs_get(struct kvm_vcpu *v, struct cpu_state *s) {
    struct msr_list m;
    int r = read_all(v, &m);

    for (unsigned i = 0; r == 0 && i < v->engine->nmsrs; i++)
        *field_of(s, v->engine->msr_field[i]) = m.entry[i].data;
    return r;
}

int kvm_msrs_set(struct kvm_vcpu *v, const struct cpu_state *s) {
    struct msr_list m;
    unsigned n = 0;
    int r = read_all(v, &m);

    if (r)
        return r;
    for (unsigned i = 0; i < v->engine->nmsrs; i++) {
        uint64_t value = *field_of((struct cpu_state *)s, v->engine->msr_field[i]);
        if (m.entry[i].data != value)
            m.entry[n++] = (struct kvm_msr_entry){.index = m.entry[i].index, .data = value};
    }
    m.head.nmsrs = n;
    r = n ? kvm_ioctl(v->fd, KVM_SET_MSRS, &m) : 0;
    if (r == (int)n)
        return 0;
    if (r >= 0) // the number of those before the one that was refused
        log_error("vCPU %u: KVM refuses MSR 0x%x = 0x%llx", v->index, m.entry[r].index,
                  (unsigned long long)m.entry[r].data);
    return r < 0 ? r : -EINVAL;
}
