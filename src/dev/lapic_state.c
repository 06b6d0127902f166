// SPDX-License-Identifier: Apache-2.0
// Local APIC: save and load of all vCPUs, through the canonical state. The TSC offset is not part of it: it depends on
// the host and is set by whoever restores the vCPU's TSC; the TSC deadline is in guest ticks and armed again on resume.
#include "dev/lapic_priv.h"

#include <errno.h>
#include <stdlib.h>

static void get_timer(struct lapic_cpu *c, struct x86_lapic_state *s) {
    pthread_mutex_lock(&c->timer_lock);
    s->initial = c->initial;
    s->divide = c->divide;
    s->counting = c->counting;
    s->start_ns = c->start_ns;
    s->tsc_deadline = c->tsc_deadline;
    pthread_mutex_unlock(&c->timer_lock);
}

static void get_cpu(struct lapic_cpu *c, struct x86_lapic_state *s) {
    *s = (struct x86_lapic_state){
        .base = c->base,
        .events = c->events,
        .esr = c->esr,
        .esr_pending = c->esr_pending,
        .svr = c->svr,
        .ldr = c->ldr,
        .dfr = c->dfr,
        .tpr = c->tpr,
        .icr = c->icr,
    };
    for (unsigned i = 0; i < 4; i++) {
        s->irr[i] = c->irr[i];
        s->isr[i] = c->isr[i];
        s->tmr[i] = c->tmr[i];
    }
    for (unsigned i = 0; i < X86_LVT_COUNT; i++)
        s->lvt[i] = c->lvt[i];
    get_timer(c, s);
}

static void put_vectors(struct lapic_cpu *c, const struct x86_lapic_state *s) {
    uint32_t words = 0;

    for (unsigned i = 0; i < 4; i++) {
        c->irr[i] = s->irr[i];
        c->isr[i] = s->isr[i];
        c->tmr[i] = s->tmr[i];
        words |= (uint32_t)(s->irr[i] != 0) << i;
    }
    c->irr_words = words;
}

static void put_timer(struct lapic_cpu *c, const struct x86_lapic_state *s) {
    pthread_mutex_lock(&c->timer_lock);
    c->initial = s->initial;
    c->divide = s->divide;
    c->counting = s->counting;
    c->start_ns = s->start_ns;
    c->tsc_deadline = s->tsc_deadline;
    pthread_mutex_unlock(&c->timer_lock);
}

static void put_cpu(struct lapic_cpu *c, const struct x86_lapic_state *s) {
    lapic_cpu_reset(c, false);
    c->base = s->base;
    put_vectors(c, s);
    c->events = s->events;
    c->esr = s->esr;
    c->esr_pending = s->esr_pending;
    c->svr = s->svr;
    c->ldr = s->ldr;
    c->dfr = s->dfr;
    c->tpr = s->tpr;
    c->icr = s->icr;
    for (unsigned i = 0; i < X86_LVT_COUNT; i++)
        c->lvt[i] = s->lvt[i];
    put_timer(c, s);
    lapic_cpu_update_ppr(c);
    lapic_cpu_update_extint(c);
}

void lapic_save(void *ctx, struct state_writer *w) {
    struct lapic *l = ctx;
    struct x86_lapic_state *s = calloc(l->nvcpus, sizeof(*s));

    if (!s) {
        w->error = -ENOMEM;
        return;
    }
    for (unsigned i = 0; i < l->nvcpus; i++)
        get_cpu(&l->cpus[i], &s[i]);
    x86_lapics_save(s, l->nvcpus, l->lint1, w);
    free(s);
}

int lapic_load(void *ctx, struct state_reader *r, struct error *err) {
    struct lapic *l = ctx;
    struct x86_lapic_state *s = calloc(l->nvcpus, sizeof(*s));
    bool lint1;
    int ret = s ? x86_lapics_load(s, l->nvcpus, &lint1, r, err) : error_set(err, -ENOMEM, "load local APICs");

    for (unsigned i = 0; ret == 0 && i < l->nvcpus; i++)
        put_cpu(&l->cpus[i], &s[i]);
    if (ret == 0)
        l->lint1 = lint1;
    free(s);
    return ret;
}
