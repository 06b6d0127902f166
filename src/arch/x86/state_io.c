// SPDX-License-Identifier: Apache-2.0
// Serialisation of struct cpu_state.
//
// Invariant: one list of fields serves both directions, so what is written is what is read. The order of the list is
// the format: it does not follow the struct, which may change.
#include "arch/x86/state_io.h"

#include <errno.h>
#include <string.h>

// Exactly one of the two is set.
struct direction {
    struct state_writer *w;
    struct state_reader *r;
};

static void u8(struct direction *d, uint8_t *v) {
    if (d->w)
        state_put_u8(d->w, *v);
    else
        *v = state_get_u8(d->r);
}

static void u16(struct direction *d, uint16_t *v) {
    if (d->w)
        state_put_u16(d->w, *v);
    else
        *v = state_get_u16(d->r);
}

static void u32(struct direction *d, uint32_t *v) {
    if (d->w)
        state_put_u32(d->w, *v);
    else
        *v = state_get_u32(d->r);
}

static void u64s(struct direction *d, uint64_t *v, unsigned n) {
    for (unsigned i = 0; i < n; i++) {
        if (d->w)
            state_put_u64(d->w, v[i]);
        else
            v[i] = state_get_u64(d->r);
    }
}

static void u64(struct direction *d, uint64_t *v) {
    u64s(d, v, 1);
}

static void bytes(struct direction *d, uint8_t *v, size_t n) {
    if (d->w)
        state_put_bytes(d->w, v, n);
    else
        state_get_bytes(d->r, v, n);
}

// ---- the fields ----

static void segments(struct direction *d, struct cpu_state *s) {
    for (unsigned i = 0; i < X86_SEG_COUNT; i++) {
        u16(d, &s->seg[i].sel);
        u32(d, &s->seg[i].attr);
        u32(d, &s->seg[i].limit);
        u64(d, &s->seg[i].base);
    }
    u64(d, &s->gdtr.base);
    u16(d, &s->gdtr.limit);
    u64(d, &s->idtr.base);
    u16(d, &s->idtr.limit);
}

static void registers(struct direction *d, struct cpu_state *s) {
    u64s(d, s->gpr, 16);
    u64(d, &s->rip);
    u64(d, &s->rflags);
    segments(d, s);
    u64(d, &s->cr0);
    u64(d, &s->cr2);
    u64(d, &s->cr3);
    u64(d, &s->cr4);
    u64(d, &s->efer);
    u64s(d, s->dr, 4);
    u64(d, &s->dr6);
    u64(d, &s->dr7);
}

static void msrs(struct direction *d, struct cpu_state *s) {
    u64(d, &s->star);
    u64(d, &s->lstar);
    u64(d, &s->cstar);
    u64(d, &s->fmask);
    u64(d, &s->kernel_gs_base);
    u64(d, &s->sysenter_cs);
    u64(d, &s->sysenter_esp);
    u64(d, &s->sysenter_eip);
    u64(d, &s->pat);
    u64(d, &s->tsc_aux);
    u64(d, &s->misc_enable);
    u64(d, &s->tsc_adjust);
    u64(d, &s->spec_ctrl);
    u64(d, &s->debugctl);
    u64(d, &s->mtrr_def_type);
    u64s(d, s->mtrr_fixed, X86_MTRR_FIXED);
    u64s(d, s->mtrr_base, X86_MTRR_VAR);
    u64s(d, s->mtrr_mask, X86_MTRR_VAR);
    u64(d, &s->mcg_status);
    u64(d, &s->kvmclock_system_time);
    u64(d, &s->kvmclock_wall);
}

static void events(struct direction *d, struct cpu_state *s) {
    u8(d, &s->activity);
    u8(d, &s->intr_shadow);
    u8(d, &s->nmi_pending);
    u8(d, &s->nmi_blocked);
    u8(d, &s->sipi_vector);
    u8(d, &s->debug_pending);
    u64(d, &s->debug_pending_dr6);
    u8(d, &s->intr_taken);
    u8(d, &s->intr_vector);
}

static void everything(struct direction *d, struct cpu_state *s, uint64_t *guest_tsc) {
    registers(d, s);
    msrs(d, s);
    u64(d, guest_tsc);
    events(d, s);
    u64(d, &s->xcr0);
    bytes(d, s->xsave, X86_XSAVE_SIZE);
}

// ---- the two directions ----

void x86_state_save(const struct cpu_state *s, uint64_t host_tsc, struct state_writer *w) {
    struct direction d = {.w = w};
    uint64_t guest_tsc = host_tsc + s->tsc_offset;

    everything(&d, (struct cpu_state *)s, &guest_tsc); // a writer changes nothing in it
}

int x86_state_load(struct cpu_state *s, uint64_t host_tsc, const struct cpuid_policy *p, struct state_reader *r,
                   struct error *err) {
    struct direction d = {.r = r};
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
