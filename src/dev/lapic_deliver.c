// SPDX-License-Identifier: Apache-2.0
// Local APIC: how interrupts reach it, from IPIs, MSIs, the I/O APIC, the LVT and the LINT pins.
// Everything here may run on any thread and changes only `posted` fields of the target.
#include "dev/lapic_priv.h"

GPR_ONLY_BEGIN

// TMR before IRR, IRR before its summary: whoever sees the later one sees the earlier one.
static bool irr_post(struct lapic_cpu *c, uint8_t vector, bool level) {
    unsigned w = vector / 64;
    uint64_t bit = UINT64_C(1) << vector % 64;
    bool was_level = atomic_load_explicit(&c->tmr[w], memory_order_relaxed) & bit;

    if (level && !was_level)
        atomic_fetch_or(&c->tmr[w], bit);
    else if (!level && was_level)
        atomic_fetch_and(&c->tmr[w], ~bit);
    if (atomic_fetch_or(&c->irr[w], bit) & bit)
        return false; // whoever set it wakes the vCPU
    atomic_fetch_or(&c->irr_words, 1u << w);
    return true;
}

void lapic_cpu_accept(struct lapic_cpu *c, uint8_t vector, bool level) {
    if (!lapic_is_software_enabled(c))
        return;
    if (vector < 16) {
        lapic_cpu_error(c, ESR_RECEIVE_ILLEGAL);
        return;
    }
    if (irr_post(c, vector, level))
        lapic_cpu_wake(c);
}

// SDM 3A 11.5.3: an error is interrupted for only when its bit was not already pending.
void lapic_cpu_error(struct lapic_cpu *c, uint32_t bit) {
    uint32_t lvt = lapic_lvt(c, X86_LVT_ERROR);

    if (atomic_fetch_or(&c->esr_pending, bit) & bit)
        return;
    // An illegal vector in the error LVT itself must not recurse.
    if (!(lvt & X86_LVT_MASKED) && (lvt & 0xff) >= 16)
        lapic_cpu_accept(c, lvt & 0xff, false);
}

// INIT cancels a start-up message that was there before it; the order of the two is all that counts.
static void post_event(struct lapic_cpu *c, uint32_t event, uint8_t sipi_vector) {
    const uint32_t sipi_bits = IRQCHIP_SIPI | 0xff00;
    uint32_t old = atomic_load(&c->events), events;

    do {
        events = old | event;
        if (event == IRQCHIP_INIT)
            events &= ~sipi_bits;
        if (event == IRQCHIP_SIPI)
            events = (old & ~sipi_bits) | IRQCHIP_SIPI | (uint32_t)sipi_vector << 8;
    } while (!atomic_compare_exchange_weak(&c->events, &old, events));
    lapic_cpu_wake(c);
}

void lapic_cpu_deliver(struct lapic_cpu *c, enum lapic_delivery mode, uint8_t vector, bool level) {
    if (!lapic_is_enabled(c))
        return;
    switch (mode) {
    case LAPIC_DM_FIXED:
    case LAPIC_DM_LOWEST: lapic_cpu_accept(c, vector, level); break;
    case LAPIC_DM_SMI: post_event(c, IRQCHIP_SMI, 0); break;
    case LAPIC_DM_NMI: post_event(c, IRQCHIP_NMI, 0); break;
    case LAPIC_DM_INIT: post_event(c, IRQCHIP_INIT, 0); break;
    case LAPIC_DM_SIPI: post_event(c, IRQCHIP_SIPI, vector); break;
    case LAPIC_DM_EXTINT: break; // reserved in messages; the 8259 has its own wire
    }
}

void lapic_cpu_deliver_lvt(struct lapic_cpu *c, unsigned entry) {
    uint32_t lvt = lapic_lvt(c, entry);
    bool fixed_only = entry == X86_LVT_TIMER || entry == X86_LVT_ERROR;

    if (lvt & X86_LVT_MASKED)
        return;
    lapic_cpu_deliver(c, fixed_only ? LAPIC_DM_FIXED : LVT_MODE(lvt), lvt & 0xff, false);
}

uint32_t lapic_dest8(uint32_t dest, bool logical) {
    return dest == 0xff && !logical ? LAPIC_BROADCAST : dest;
}

// SDM 3A 11.6.2.2 (flat and cluster model) and 11.12.10.2 (x2APIC).
static bool matches_logical(struct lapic_cpu *c, uint32_t dest) {
    uint32_t ldr;

    if (lapic_is_x2apic(c)) {
        ldr = (c->index >> 4) << 16 | 1u << (c->index & 15);
        return dest == LAPIC_BROADCAST || (dest >> 16 == ldr >> 16 && dest & ldr & 0xffff);
    }
    if (dest == 0xff || dest == LAPIC_BROADCAST)
        return true;
    ldr = atomic_load_explicit(&c->ldr, memory_order_relaxed) >> 24;
    if (atomic_load_explicit(&c->dfr, memory_order_relaxed) >> 28 == 0xf)
        return dest <= 0xff && dest & ldr;
    return dest >> 4 == ldr >> 4 && dest & ldr & 0xf;
}

static bool matches(struct lapic_cpu *c, const struct lapic_msg *msg, int exclude) {
    if ((int)c->index == exclude)
        return false;
    if (msg->logical)
        return matches_logical(c, msg->dest);
    return msg->dest == LAPIC_BROADCAST || msg->dest == c->index;
}

// SDM 3A 11.6.2.4: the one with the lowest processor priority; ties go round.
static void send_lowest(struct lapic *l, const struct lapic_msg *msg, int exclude) {
    unsigned start = atomic_fetch_add_explicit(&l->arbiter, 1, memory_order_relaxed);
    struct lapic_cpu *best = NULL;
    uint32_t best_priority = UINT32_MAX;

    for (unsigned n = 0; n < l->nvcpus; n++) {
        struct lapic_cpu *c = &l->cpus[(start + n) % l->nvcpus];
        uint32_t priority = atomic_load_explicit(&c->ppr, memory_order_relaxed) >> 4;
        if (priority < best_priority && lapic_is_software_enabled(c) && matches(c, msg, exclude)) {
            best = c;
            best_priority = priority;
        }
    }
    if (best)
        lapic_cpu_accept(best, msg->vector, msg->level);
}

static void send_excluding(struct lapic *l, const struct lapic_msg *msg, int exclude) {
    if (msg->mode == LAPIC_DM_LOWEST) {
        send_lowest(l, msg, exclude);
        return;
    }
    for (unsigned i = 0; i < l->nvcpus; i++)
        if (matches(&l->cpus[i], msg, exclude))
            lapic_cpu_deliver(&l->cpus[i], msg->mode, msg->vector, msg->level);
}

void lapic_send(struct lapic *l, const struct lapic_msg *msg) {
    if (l->remote)
        lapic_remote_send(l, msg);
    else if (msg->logical || msg->dest == LAPIC_BROADCAST)
        send_excluding(l, msg, -1);
    else if (msg->dest < l->nvcpus)
        lapic_cpu_deliver(&l->cpus[msg->dest], msg->mode, msg->vector, msg->level);
}

// Destination in address bits 19:12; bits 11:5 carry its bits 14:8 where the guest was told so (the extended
// destination ID of paravirtual interfaces) and are 0 else. SDM 3A 11.11.1 and 11.11.2.
void lapic_msi(void *ctx, uint64_t addr, uint32_t data) {
    bool logical = addr & 4;
    struct lapic_msg msg = {
        .dest = lapic_dest8((addr >> 12 & 0xff) | (addr >> 5 & 0x7f) << 8, logical),
        .logical = logical,
        .mode = (enum lapic_delivery)(data >> 8 & 7),
        .vector = data & 0xff,
        .level = data & 1u << 15,
    };

    if (addr >> 20 == LAPIC_DEFAULT_BASE >> 20)
        lapic_send(ctx, &msg);
}

// SDM 3A 11.6.1. IPIs are edge-triggered whatever bit 15 says; INIT level de-assert only synchronised
// arbitration IDs on the APIC bus of old and does nothing.
void lapic_cpu_send_ipi(struct lapic_cpu *c, uint64_t icr, bool x2apic) {
    struct lapic_msg msg = {
        .logical = icr & 1u << 11,
        .mode = (enum lapic_delivery)(icr >> 8 & 7),
        .vector = icr & 0xff,
    };

    if (msg.mode == LAPIC_DM_INIT && !(icr & 1u << 14) && icr & 1u << 15)
        return;
    if ((msg.mode == LAPIC_DM_FIXED || msg.mode == LAPIC_DM_LOWEST) && msg.vector < 16) {
        lapic_cpu_error(c, ESR_SEND_ILLEGAL);
        return;
    }
    msg.dest = x2apic ? (uint32_t)(icr >> 32) : lapic_dest8((uint32_t)(icr >> 56), msg.logical);
    switch (icr >> 18 & 3) {
    case 0: lapic_send(c->lapic, &msg); return;
    case 1: lapic_cpu_deliver(c, msg.mode, msg.vector, false); return;
    }
    msg.dest = LAPIC_BROADCAST;
    msg.logical = false;
    send_excluding(c->lapic, &msg, (icr >> 18 & 3) == 3 ? (int)c->index : -1);
}

// ExtINT needs the vCPU to look: it alone knows whether it takes the interrupt. The other modes of LINT0 are
// messages of their own at a rising edge (Linux tries the 8254 through a fixed vector that way).
void lapic_set_extint(struct lapic *l, int vector) {
    struct lapic_cpu *bsp = &l->cpus[0];
    int old = atomic_exchange(&l->extint, vector);

    if (vector < 0 || vector == old)
        return;
    if (!lapic_is_enabled(bsp) || LVT_MODE(lapic_lvt(bsp, X86_LVT_LINT0)) == LAPIC_DM_EXTINT)
        lapic_cpu_wake(bsp);
    else if (old < 0)
        lapic_cpu_deliver_lvt(bsp, X86_LVT_LINT0);
}

void lapic_set_lint1(struct lapic *l, bool level) {
    if (atomic_exchange(&l->lint1, level) || !level)
        return;
    for (unsigned i = 0; i < l->nvcpus; i++) {
        if (lapic_is_enabled(&l->cpus[i]))
            lapic_cpu_deliver_lvt(&l->cpus[i], X86_LVT_LINT1);
        else if (i == 0)
            post_event(&l->cpus[i], IRQCHIP_NMI, 0); // LINT1 is the NMI pin while the APIC is off
    }
}

GPR_ONLY_END
