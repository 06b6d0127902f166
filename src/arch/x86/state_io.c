// SPDX-License-Identifier: Apache-2.0
// Serialisation of struct cpu_state.
//
// Invariant: one list of fields serves both directions, so what is written is what is read. The order of the list is
// the format: it does not follow the struct, which may change.
#include "arch/x86/state_io.h"

#include <errno.h>
#include <string.h>

#include "core/state_fields.h"

// ---- the fields ----

static void segments(const struct state_fields *d, struct cpu_state *s) {
    for (unsigned i = 0; i < X86_SEG_COUNT; i++) {
        state_field_u16(d, &s->seg[i].sel);
        state_field_u32(d, &s->seg[i].attr);
        state_field_u32(d, &s->seg[i].limit);
        state_field_u64(d, &s->seg[i].base);
    }
    state_field_u64(d, &s->gdtr.base);
    state_field_u16(d, &s->gdtr.limit);
    state_field_u64(d, &s->idtr.base);
    state_field_u16(d, &s->idtr.limit);
}

static void registers(const struct state_fields *d, struct cpu_state *s) {
    state_field_u64s(d, s->gpr, 16);
    state_field_u64(d, &s->rip);
    state_field_u64(d, &s->rflags);
    segments(d, s);
    state_field_u64(d, &s->cr0);
    state_field_u64(d, &s->cr2);
    state_field_u64(d, &s->cr3);
    state_field_u64(d, &s->cr4);
    state_field_u64(d, &s->efer);
    state_field_u64s(d, s->dr, 4);
    state_field_u64(d, &s->dr6);
    state_field_u64(d, &s->dr7);
}

static void msrs(const struct state_fields *d, struct cpu_state *s) {
    state_field_u64(d, &s->star);
    state_field_u64(d, &s->lstar);
    state_field_u64(d, &s->cstar);
    state_field_u64(d, &s->fmask);
    state_field_u64(d, &s->kernel_gs_base);
    state_field_u64(d, &s->sysenter_cs);
    state_field_u64(d, &s->sysenter_esp);
    state_field_u64(d, &s->sysenter_eip);
    state_field_u64(d, &s->pat);
    state_field_u64(d, &s->tsc_aux);
    state_field_u64(d, &s->misc_enable);
    state_field_u64(d, &s->tsc_adjust);
    state_field_u64(d, &s->spec_ctrl);
    state_field_u64(d, &s->debugctl);
    state_field_u64(d, &s->mtrr_def_type);
    state_field_u64s(d, s->mtrr_fixed, X86_MTRR_FIXED);
    state_field_u64s(d, s->mtrr_base, X86_MTRR_VAR);
    state_field_u64s(d, s->mtrr_mask, X86_MTRR_VAR);
    state_field_u64(d, &s->mcg_status);
    state_field_u64(d, &s->kvmclock_system_time);
    state_field_u64(d, &s->kvmclock_wall);
}

static void events(const struct state_fields *d, struct cpu_state *s) {
    state_field_u8(d, &s->activity);
    state_field_u8(d, &s->intr_shadow);
    state_field_u8(d, &s->nmi_pending);
    state_field_u8(d, &s->nmi_blocked);
    state_field_u8(d, &s->sipi_vector);
    state_field_u8(d, &s->debug_pending);
    state_field_u64(d, &s->debug_pending_dr6);
    state_field_u8(d, &s->intr_taken);
    state_field_u8(d, &s->intr_vector);
}

static void everything(const struct state_fields *d, struct cpu_state *s, uint64_t *guest_tsc) {
    registers(d, s);
    msrs(d, s);
    state_field_u64(d, guest_tsc);
    events(d, s);
    state_field_u64(d, &s->xcr0);
    state_field_bytes(d, s->xsave, X86_XSAVE_SIZE);
}

// ---- the two directions ----

void x86_state_save(const struct cpu_state *s, uint64_t host_tsc, struct state_writer *w) {
    const struct state_fields d = {.w = w};
    uint64_t guest_tsc = host_tsc + s->tsc_offset;

    everything(&d, (struct cpu_state *)s, &guest_tsc); // a writer changes nothing in it
}

int x86_state_load(struct cpu_state *s, uint64_t host_tsc, const struct cpuid_policy *p, struct state_reader *r,
                   struct error *err) {
    const struct state_fields d = {.r = r};
    uint64_t guest_tsc;

    if (r->version != X86_STATE_VERSION)
        return error_set(err, -EINVAL, "saved vCPU state: version %u, this program knows %d", r->version,
                         X86_STATE_VERSION);
    memset(s, 0, sizeof(*s));
    everything(&d, s, &guest_tsc);
    if (r->error)
        return error_set(err, -EINVAL, "saved vCPU state: truncated");
    s->tsc_offset = guest_tsc - host_tsc;
    return x86_state_check(s, p, err);
}
