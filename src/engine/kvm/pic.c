// SPDX-License-Identifier: Apache-2.0
// The 8259 pair and the I/O APIC inside KVM to their canonical state and back (4.26, 4.27 KVM_GET_IRQCHIP).
//
// KVM's PIC keeps the level of every input in last_irr. Its I/O APIC keeps it in irr, but an edge that was delivered is
// left out of what KVM_GET_IRQCHIP tells, and one that is in what KVM_SET_IRQCHIP is told comes again; so the level of
// edge-triggered pins is taken from the PIC and not given back. The PIC has no single mode.
#include <errno.h>

#include "engine/kvm/kvm.h"

static int chip_ioctl(struct engine *e, unsigned long request, unsigned id, struct kvm_irqchip *k) {
    k->chip_id = id;
    return kvm_ioctl(e->vm_fd, request, k);
}

// ---- 8259 pair ----

static struct x86_pic_chip pic_from_kvm(const struct kvm_pic_state *k) {
    return (struct x86_pic_chip){
        .lines = k->last_irr,
        .irr = k->irr,
        .isr = k->isr,
        .imr = k->imr,
        .elcr = k->elcr,
        .vector_base = k->irq_base,
        .first = k->priority_add,
        .step = k->init_state,
        .need_icw4 = k->init4,
        .auto_eoi = k->auto_eoi,
        .rotate_on_auto_eoi = k->rotate_on_auto_eoi,
        .special_mask = k->special_mask,
        .special_nested = k->special_fully_nested_mode,
        .read_isr = k->read_reg_select,
        .poll = k->poll,
    };
}

static struct kvm_pic_state pic_to_kvm(const struct x86_pic_chip *c, unsigned chip) {
    return (struct kvm_pic_state){
        .last_irr = c->lines,
        .irr = c->irr,
        .isr = c->isr,
        .imr = c->imr,
        .elcr = c->elcr,
        .elcr_mask = x86_pic_elcr_mask(chip),
        .irq_base = c->vector_base,
        .priority_add = c->first,
        .init_state = c->step,
        .init4 = c->need_icw4,
        .auto_eoi = c->auto_eoi,
        .rotate_on_auto_eoi = c->rotate_on_auto_eoi,
        .special_mask = c->special_mask,
        .special_fully_nested_mode = c->special_nested,
        .read_reg_select = c->read_isr,
        .poll = c->poll,
    };
}

int kvm_pic_get(struct engine *e, struct x86_pic_state *s) {
    for (unsigned i = 0; i < ARRAY_LEN(s->chips); i++) {
        struct kvm_irqchip k = {0};
        int r = chip_ioctl(e, KVM_GET_IRQCHIP, i, &k);
        if (r)
            return r;
        s->chips[i] = pic_from_kvm(&k.chip.pic);
    }
    return 0;
}

int kvm_pic_set(struct engine *e, const struct x86_pic_state *s) {
    for (unsigned i = 0; i < ARRAY_LEN(s->chips); i++) {
        struct kvm_irqchip k = {.chip.pic = pic_to_kvm(&s->chips[i], i)};
        int r = chip_ioctl(e, KVM_SET_IRQCHIP, i, &k);
        if (r)
            return r;
    }
    return 0;
}

// ---- I/O APIC ----

static uint32_t level_pins(const struct x86_ioapic_state *s) {
    uint32_t pins = 0;

    for (unsigned pin = 0; pin < X86_IOAPIC_PINS; pin++)
        if (s->entries[pin] & X86_IOAPIC_LEVEL)
            pins |= 1u << pin;
    return pins;
}

// Input n of the PIC is pin n of the I/O APIC, but for the timer's and the cascade (dev/i82093aa.h).
static int pic_lines(struct engine *e, uint32_t *lines) {
    struct x86_pic_state pic;
    int r = kvm_pic_get(e, &pic);

    *lines = r ? 0 : (pic.chips[0].lines | (uint32_t)pic.chips[1].lines << 8) & ~(1u | 1u << X86_PIC_CASCADE);
    return r;
}

int kvm_ioapic_get(struct engine *e, struct x86_ioapic_state *s) {
    struct kvm_irqchip k = {0};
    uint32_t edges;
    int r = chip_ioctl(e, KVM_GET_IRQCHIP, KVM_IRQCHIP_IOAPIC, &k);

    if (r == 0)
        r = pic_lines(e, &edges);
    if (r)
        return r;
    *s = (struct x86_ioapic_state){.index = k.chip.ioapic.ioregsel, .id = k.chip.ioapic.id};
    for (unsigned pin = 0; pin < X86_IOAPIC_PINS; pin++)
        s->entries[pin] = k.chip.ioapic.redirtbl[pin].bits & (X86_IOAPIC_WRITABLE | X86_IOAPIC_REMOTE_IRR);
    s->lines = (k.chip.ioapic.irr & level_pins(s)) | (edges & ~level_pins(s));
    return 0;
}

int kvm_ioapic_set(struct engine *e, const struct x86_ioapic_state *s) {
    struct kvm_irqchip k = {
        .chip.ioapic = {
            .base_address = IOAPIC_BASE, .ioregsel = s->index, .id = s->id, .irr = s->lines & level_pins(s)}};

    for (unsigned pin = 0; pin < X86_IOAPIC_PINS; pin++)
        k.chip.ioapic.redirtbl[pin].bits = s->entries[pin];
    return chip_ioctl(e, KVM_SET_IRQCHIP, KVM_IRQCHIP_IOAPIC, &k);
}
