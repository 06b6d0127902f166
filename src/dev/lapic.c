// SPDX-License-Identifier: Apache-2.0
// Local APIC: creation, and what the engine asks for on the vCPU's thread (core/irqchip.h).
// Invariants: ppr is always that of tpr and isr; irr_words never misses a bit that stays in irr.
#include "dev/lapic_priv.h"

#include <errno.h>
#include <stdlib.h>

GPR_ONLY_BEGIN

static int words_highest(const uint64_t *words) {
    for (int w = 3; w >= 0; w--)
        if (words[w])
            return w * 64 + 63 - __builtin_clzll(words[w]);
    return -1;
}

static int irr_highest(struct lapic_cpu *c) {
    uint32_t words = atomic_load_explicit(&c->irr_words, memory_order_acquire);

    while (words) {
        int w = 31 - __builtin_clz(words);
        uint64_t bits = atomic_load_explicit(&c->irr[w], memory_order_relaxed);
        if (bits)
            return w * 64 + 63 - __builtin_clzll(bits);
        words &= ~(1u << w);
    }
    return -1;
}

// A poster sets the bit, then the summary; so after clearing the summary the word is looked at again.
static void irr_clear(struct lapic_cpu *c, unsigned vector) {
    unsigned w = vector / 64;

    if (atomic_fetch_and(&c->irr[w], ~(UINT64_C(1) << vector % 64)) & ~(UINT64_C(1) << vector % 64))
        return;
    atomic_fetch_and(&c->irr_words, ~(1u << w));
    if (atomic_load(&c->irr[w]))
        atomic_fetch_or(&c->irr_words, 1u << w);
}

static int extint_vector(struct lapic_cpu *c) {
    return c->takes_extint ? atomic_load_explicit(&c->lapic->extint, memory_order_relaxed) : -1;
}

// SDM 3A 11.8.3.1: the processor takes a vector only of a class above that of PPR.
static int irr_deliverable(struct lapic_cpu *c) {
    int vector = irr_highest(c);

    return vector >> 4 > (int)(atomic_load_explicit(&c->ppr, memory_order_relaxed) >> 4) ? vector : -1;
}

int lapic_cpu_pending(void *ctx) {
    struct lapic_cpu *c = ctx;
    int vector = extint_vector(c);

    return vector >= 0 ? vector : irr_deliverable(c);
}

static int cpu_ack(void *ctx) {
    struct lapic_cpu *c = ctx;
    int vector;

    if (extint_vector(c) >= 0)
        return c->lapic->pic_ack(c->lapic->pic_ctx);
    vector = irr_deliverable(c);
    if (vector < 0)
        return -1;
    irr_clear(c, vector);
    c->isr[vector / 64] |= UINT64_C(1) << vector % 64;
    lapic_cpu_update_ppr(c);
    return vector;
}

void lapic_cpu_update_ppr(struct lapic_cpu *c) {
    int isrv = words_highest(c->isr);
    uint32_t in_service = isrv < 0 ? 0 : isrv & 0xf0;

    atomic_store_explicit(&c->ppr, (c->tpr & 0xf0) >= in_service ? c->tpr : in_service, memory_order_relaxed);
}

static void tell_eoi(void *ctx, uint8_t vector) {
    struct lapic_cpu *c = ctx;

    if (c->lapic->eoi)
        c->lapic->eoi(c->lapic->eoi_ctx, vector);
}

// SDM 3A 11.8.5: the highest vector in service is done; a level-triggered one is told to the I/O APIC.
void lapic_cpu_eoi(struct lapic_cpu *c) {
    int vector = words_highest(c->isr);
    uint64_t bit;

    if (vector < 0)
        return;
    bit = UINT64_C(1) << vector % 64;
    c->isr[vector / 64] &= ~bit;
    lapic_cpu_update_ppr(c);
    if (atomic_load_explicit(&c->tmr[vector / 64], memory_order_relaxed) & bit)
        tell_eoi(c, (uint8_t)vector);
}

// The 8259's INTR goes straight to the BSP while its APIC is off, through LINT0 in ExtINT mode otherwise.
void lapic_cpu_update_extint(struct lapic_cpu *c) {
    uint32_t lint0 = lapic_lvt(c, X86_LVT_LINT0);

    if (c->index != 0 || !c->lapic->pic_ack)
        c->takes_extint = false;
    else
        c->takes_extint = !lapic_is_enabled(c) || (!(lint0 & X86_LVT_MASKED) && LVT_MODE(lint0) == LAPIC_DM_EXTINT);
}

static uint32_t cpu_take_events(void *ctx) {
    struct lapic_cpu *c = ctx;

    return atomic_load_explicit(&c->events, memory_order_relaxed) ? atomic_exchange(&c->events, 0) : 0;
}

static uint8_t cpu_tpr_get(void *ctx) {
    struct lapic_cpu *c = ctx;

    return c->tpr;
}

static void cpu_tpr_set(void *ctx, uint8_t tpr) {
    struct lapic_cpu *c = ctx;

    c->tpr = tpr;
    lapic_cpu_update_ppr(c);
}

void lapic_cpu_wake(struct lapic_cpu *c) {
    // The vCPUs are created after their interrupt controllers; nobody runs before.
    if (c->lapic->machine->vcpus)
        vcpu_wake(&c->lapic->machine->vcpus[c->index]);
}

void lapic_cpu_recheck(struct lapic_cpu *c) {
    if (lapic_cpu_pending(c) >= 0)
        lapic_cpu_wake(c);
}

static void reset_vectors(struct lapic_cpu *c) {
    for (int w = 0; w < 4; w++) {
        atomic_store(&c->irr[w], 0);
        atomic_store(&c->tmr[w], 0);
        c->isr[w] = 0;
    }
    atomic_store(&c->irr_words, 0);
}

// SDM 3A 11.4.7: INIT resets all but the ID and IA32_APIC_BASE. In x2APIC mode the LDR is derived from the ID.
void lapic_cpu_reset(void *ctx, bool init) {
    struct lapic_cpu *c = ctx;
    bool bsp = c->index == 0;

    if (!init) {
        atomic_store(&c->base, LAPIC_DEFAULT_BASE | X86_APIC_BASE_ENABLE | (bsp ? X86_APIC_BASE_BSP : 0));
        atomic_store(&c->events, 0);
    }
    lapic_timer_reset(c);
    for (int i = 0; i < X86_LVT_COUNT; i++)
        atomic_store(&c->lvt[i], X86_LVT_MASKED);
    // At power-on firmware leaves virtual-wire mode (MP specification 3.6.2.2): the 8259 reaches the BSP.
    if (bsp && !init)
        atomic_store(&c->lvt[X86_LVT_LINT0], (uint32_t)LAPIC_DM_EXTINT << 8);
    reset_vectors(c);
    atomic_store(&c->svr, 0xff);
    atomic_store(&c->ldr, 0);
    atomic_store(&c->dfr, UINT32_MAX);
    atomic_store(&c->esr_pending, 0);
    c->esr = 0;
    c->icr = 0;
    c->tpr = 0;
    lapic_cpu_update_ppr(c);
    lapic_cpu_update_extint(c);
}

static const struct irqchip_cpu_ops cpu_ops = {
    .pending = lapic_cpu_pending,
    .ack = cpu_ack,
    .take_events = cpu_take_events,
    .tpr_get = cpu_tpr_get,
    .tpr_set = cpu_tpr_set,
    .reg_read = lapic_cpu_reg_read,
    .reg_write = lapic_cpu_reg_write,
    .eoi = tell_eoi,
    .reset = lapic_cpu_reset,
};

GPR_ONLY_END

static void component_reset(void *ctx) {
    struct lapic *l = ctx;

    atomic_store(&l->lint1, false);
    for (unsigned i = 0; i < l->nvcpus; i++)
        lapic_cpu_reset(&l->cpus[i], false);
}

static void component_resume(void *ctx) {
    struct lapic *l = ctx;

    for (unsigned i = 0; i < l->nvcpus; i++)
        lapic_timer_rearm(&l->cpus[i]);
}

static void lapic_destroy(void *ctx) {
    struct lapic *l = ctx;

    if (!l)
        return;
    for (unsigned i = 0; l->cpus && i < l->nvcpus; i++)
        lapic_timer_fini(&l->cpus[i]);
    free(l->cpus);
    free(l->chips);
    free(l);
}

static const struct component_ops component_ops = {
    .name = X86_LAPIC_SECTION,
    .version = X86_LAPIC_VERSION,
    .reset = component_reset,
    .resume = component_resume,
    .save = lapic_save,
    .load = lapic_load,
    .destroy = lapic_destroy,
};

static int init_cpus(struct lapic *l, unsigned nvcpus) {
    l->chips = calloc(nvcpus, sizeof(*l->chips));
    l->cpus = aligned_alloc(64, nvcpus * sizeof(*l->cpus));
    if (!l->chips || !l->cpus)
        return -ENOMEM;
    for (unsigned i = 0; i < nvcpus; i++) {
        struct lapic_cpu *c = &l->cpus[i];
        *c = (struct lapic_cpu){.lapic = l, .index = i};
        lapic_timer_init(c);
        l->nvcpus = i + 1;
        lapic_cpu_reset(c, false);
        l->chips[i] = (struct irqchip_cpu){.ops = &cpu_ops, .ctx = c};
    }
    return 0;
}

int lapic_create(struct dev_env *env, unsigned nvcpus, uint64_t tsc_hz, struct lapic **out, struct error *err) {
    const struct dev_range range = {env->mmio, LAPIC_DEFAULT_BASE, PAGE_SIZE, &lapic_mmio_ops};
    struct lapic *l = calloc(1, sizeof(*l));
    int ret;

    if (!l)
        return error_set(err, -ENOMEM, "create local APICs");
    l->machine = env->machine;
    l->tsc_hz = tsc_hz ? tsc_hz : env->machine->nondet.tsc_hz;
    atomic_store(&l->extint, -1);
    if (!nvcpus || !l->tsc_hz) {
        lapic_destroy(l);
        return error_set(err, -EINVAL, "create local APICs: %s", nvcpus ? "TSC frequency unknown" : "no vCPU");
    }
    l->tsc_to_ns = (uint64_t)(((unsigned __int128)1000000000 << 32) / l->tsc_hz);
    ret = init_cpus(l, nvcpus);
    if (ret)
        error_set(err, ret, "create local APICs");
    else
        ret = dev_attach(env, &component_ops, l, 0, &range, 1, err);
    if (ret) {
        lapic_destroy(l);
        return ret;
    }
    irq_set_msi_sink(&env->machine->irq, lapic_msi, l);
    *out = l;
    return 0;
}

const struct irqchip_cpu *lapic_irqchips(const struct lapic *l) {
    return l->chips;
}

void lapic_set_eoi_sink(struct lapic *l, void (*eoi)(void *ctx, uint8_t vector), void *ctx) {
    l->eoi = eoi;
    l->eoi_ctx = ctx;
}

void lapic_set_pic(struct lapic *l, int (*ack)(void *ctx), void *ctx) {
    l->pic_ack = ack;
    l->pic_ctx = ctx;
    lapic_cpu_update_extint(&l->cpus[0]);
}
