// SPDX-License-Identifier: Apache-2.0
// Local APIC: save and load of all vCPUs. The TSC offset is not part of it: it depends on the host and is set
// by whoever restores the vCPU's TSC; the TSC deadline is in guest ticks and armed again on resume.
#include "dev/lapic_priv.h"

#include <errno.h>

static void save_cpu(struct lapic_cpu *c, struct state_writer *w) {
    state_put_u64(w, c->base);
    for (int i = 0; i < 4; i++) {
        state_put_u64(w, c->irr[i]);
        state_put_u64(w, c->isr[i]);
        state_put_u64(w, c->tmr[i]);
    }
    state_put_u32(w, c->events);
    state_put_u32(w, c->esr_pending);
    state_put_u32(w, c->esr);
    state_put_u32(w, c->svr);
    state_put_u32(w, c->ldr);
    state_put_u32(w, c->dfr);
    state_put_u32(w, c->tpr);
    state_put_u64(w, c->icr);
    for (int i = 0; i < LVT_COUNT; i++)
        state_put_u32(w, c->lvt[i]);
    pthread_mutex_lock(&c->timer_lock);
    state_put_u32(w, c->initial);
    state_put_u32(w, c->divide);
    state_put_u8(w, c->counting);
    state_put_u64(w, c->start_ns);
    state_put_u64(w, c->tsc_deadline);
    pthread_mutex_unlock(&c->timer_lock);
}

static void load_vectors(struct lapic_cpu *c, struct state_reader *r) {
    uint32_t words = 0;

    for (unsigned i = 0; i < 4; i++) {
        uint64_t legal = i ? UINT64_MAX : ~UINT64_C(0xffff); // vectors 0..15 do not exist
        c->irr[i] = state_get_u64(r) & legal;
        c->isr[i] = state_get_u64(r) & legal;
        c->tmr[i] = state_get_u64(r) & legal;
        words |= (uint32_t)(c->irr[i] != 0) << i;
    }
    c->irr_words = words;
}

static void load_timer(struct lapic_cpu *c, struct state_reader *r) {
    pthread_mutex_lock(&c->timer_lock);
    c->initial = state_get_u32(r);
    c->divide = state_get_u32(r) & 0xb;
    c->counting = state_get_u8(r) && c->initial;
    c->start_ns = state_get_u64(r);
    c->tsc_deadline = state_get_u64(r);
    pthread_mutex_unlock(&c->timer_lock);
}

static int load_cpu(struct lapic_cpu *c, struct state_reader *r) {
    const uint64_t modes = BASE_ENABLE | BASE_X2APIC;
    const uint64_t reserved = ~(UINT64_C(0x000ffffffffff000) | modes | BASE_BSP);

    lapic_cpu_reset(c, false);
    c->base = (state_get_u64(r) & ~BASE_BSP) | (c->index == 0 ? BASE_BSP : 0);
    load_vectors(c, r);
    c->events = state_get_u32(r) & 0xff0f;
    c->esr_pending = state_get_u32(r) & 0xff;
    c->esr = state_get_u32(r) & 0xff;
    c->svr = state_get_u32(r) & (0xff | SVR_ENABLE | SVR_NO_EOI_BROADCAST);
    c->ldr = state_get_u32(r);
    c->dfr = state_get_u32(r);
    c->tpr = state_get_u32(r) & 0xff;
    c->icr = state_get_u64(r);
    for (int i = 0; i < LVT_COUNT; i++)
        c->lvt[i] = state_get_u32(r) & 0x7ffff;
    load_timer(c, r);
    lapic_cpu_update_ppr(c);
    lapic_cpu_update_extint(c);
    return (c->base & reserved) || (c->base & modes) == BASE_X2APIC ? -EINVAL : 0;
}

void lapic_save(void *ctx, struct state_writer *w) {
    struct lapic *l = ctx;

    state_put_u32(w, l->nvcpus);
    state_put_u8(w, l->lint1);
    for (unsigned i = 0; i < l->nvcpus; i++)
        save_cpu(&l->cpus[i], w);
}

int lapic_load(void *ctx, struct state_reader *r, struct error *err) {
    struct lapic *l = ctx;
    uint32_t n = state_get_u32(r);
    int ret = 0;

    if (n != l->nvcpus)
        return error_set(err, -EINVAL, "local APICs of %u vCPUs in the saved state, %u in the machine", n, l->nvcpus);
    l->lint1 = state_get_u8(r);
    for (unsigned i = 0; !ret && i < n; i++)
        ret = load_cpu(&l->cpus[i], r);
    if (!ret)
        ret = r->error;
    return ret ? error_set(err, ret, "saved local APIC state is damaged") : 0;
}
