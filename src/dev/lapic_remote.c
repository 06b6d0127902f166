// SPDX-License-Identifier: Apache-2.0
// Local APICs that an engine keeps itself while I/O APIC and PIC are ours: their messages go to the engine, and it asks
// for the PIC's interrupts and tells of EOIs by irqchip_cpu_ops (lapic.c). Ours stand in their reset state meanwhile,
// in which the BSP takes what the PIC offers; whether the guest's does, the engine knows.
#include "core/machine.h"
#include "dev/lapic_priv.h"

#define DATA_LEVEL (1u << 15)

// SDM 3A 11.11.1 and 11.11.2; bits 14:8 of the destination in 11:5 as in lapic_msi.
static uint64_t address_of(const struct lapic_msg *msg) {
    uint32_t dest = msg->dest == LAPIC_BROADCAST ? 0xff : msg->dest;

    return LAPIC_DEFAULT_BASE | (dest & 0xff) << 12 | (dest >> 8 & 0x7f) << 5 | (msg->logical ? 4 : 0);
}

static uint32_t data_of(const struct lapic_msg *msg) {
    return msg->vector | (uint32_t)msg->mode << 8 | (msg->level ? DATA_LEVEL : 0);
}

void lapic_remote_send(struct lapic *l, const struct lapic_msg *msg) {
    struct machine *m = l->machine;

    if (m->engine)
        m->engine_ops->irq_msi(m->engine, address_of(msg), data_of(msg));
}

void lapic_route(struct lapic *l, unsigned pin, const struct lapic_msg *msg) {
    struct machine *m = l->machine;

    if (!l->remote || !m->engine)
        return;
    if (msg->level && msg->mode <= LAPIC_DM_LOWEST)
        m->engine_ops->irq_route(m->engine, pin, address_of(msg), data_of(msg));
    else
        m->engine_ops->irq_route(m->engine, pin, 0, 0);
}

void lapic_set_remote(struct lapic *l, bool remote) {
    l->remote = remote;
}
