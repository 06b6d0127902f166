// SPDX-License-Identifier: Apache-2.0
// GSI routing (4.52 KVM_SET_GSI_ROUTING). With all chips in the kernel: which of their pins a line reaches. With the
// local APICs alone: KVM does not send by these routes (kvm_chips_msi does), it learns from them which vectors are
// level-triggered, so that their EOI leaves KVM_RUN (7.5 KVM_CAP_SPLIT_IRQCHIP).
#define LOG_UNIT "kvm"
#include <errno.h>
#include <stdlib.h>

#include "engine/kvm/kvm.h"
#include "util/log.h"

#define PIC_PINS   16u
#define ROUTES_MAX (X86_IOAPIC_PINS + PIC_PINS)

static struct kvm_irq_routing *new_table(void) {
    return calloc(1, sizeof(struct kvm_irq_routing) + ROUTES_MAX * sizeof(struct kvm_irq_routing_entry));
}

static int put_table(struct engine *e, struct kvm_irq_routing *t) {
    int r = kvm_ioctl(e->vm_fd, KVM_SET_GSI_ROUTING, t);

    free(t);
    return r;
}

// ---- all chips in the kernel ----

static void add_pin(struct kvm_irq_routing *t, unsigned gsi, unsigned chip, unsigned pin) {
    t->entries[t->nr++] = (struct kvm_irq_routing_entry){
        .gsi = gsi, .type = KVM_IRQ_ROUTING_IRQCHIP, .u.irqchip = {.irqchip = chip, .pin = pin}};
}

// As dev/i82093aa.h and dev/i8259.h wire it: GSI 0 comes in on pin 2 of the I/O APIC, GSI 2 nowhere.
int kvm_routes_wire(struct engine *e) {
    struct kvm_irq_routing *t = new_table();

    if (!t)
        return -ENOMEM;
    for (unsigned gsi = 0; gsi < X86_IOAPIC_PINS; gsi++) {
        if (gsi == 2)
            continue;
        if (gsi < PIC_PINS)
            add_pin(t, gsi, gsi < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE, gsi & 7);
        add_pin(t, gsi, KVM_IRQCHIP_IOAPIC, gsi ? gsi : 2);
    }
    return put_table(e, t);
}

// ---- local APICs in the kernel ----

static int put_messages(struct engine *e) {
    struct kvm_irq_routing *t = new_table();

    if (!t)
        return -ENOMEM;
    for (unsigned pin = 0; pin < X86_IOAPIC_PINS; pin++) {
        const struct kvm_msi *m = &e->level_routes[pin];
        if (!m->address_lo)
            continue;
        t->entries[t->nr++] = (struct kvm_irq_routing_entry){
            .gsi = pin, .type = KVM_IRQ_ROUTING_MSI, .u.msi = {.address_lo = m->address_lo, .data = m->data}};
    }
    return put_table(e, t);
}

void kvm_routes_level(struct engine *e, unsigned pin, uint64_t addr, uint32_t data) {
    struct kvm_msi *m;
    int r;

    if (pin >= X86_IOAPIC_PINS)
        return;
    m = &e->level_routes[pin];
    if (m->address_lo == addr && m->data == data)
        return;
    m->address_lo = (uint32_t)addr;
    m->data = data;
    r = put_messages(e);
    if (r)
        log_error("route of pin %u: error %d", pin, r);
}
