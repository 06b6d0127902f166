// SPDX-License-Identifier: Apache-2.0
// State of the interrupt controllers and the interval timer after power-on, and as bytes.
//
// Invariants: one list of fields serves both directions; what load accepts no chip can be confused by, since bits that
// a guest could not have set are dropped and values that no chip could hold are refused.
#include "arch/x86/irqchip.h"

#include <errno.h>
#include <string.h>

#include "core/state_fields.h"
#include "core/types.h"

static int damaged(const char *what, struct error *err) {
    return error_set(err, -EINVAL, "saved %s state is damaged", what);
}

// ---- local APIC ----

uint64_t x86_lapic_period_ns(const struct x86_lapic_state *s) {
    return (uint64_t)s->initial << X86_LAPIC_DIVIDE_SHIFT(s->divide);
}

void x86_lapic_reset(struct x86_lapic_state *s, unsigned vcpu) {
    *s = (struct x86_lapic_state){
        .base = X86_APIC_BASE_ADDRESS | X86_APIC_BASE_ENABLE | (vcpu ? 0 : X86_APIC_BASE_BSP),
        .svr = 0xff,
        .dfr = UINT32_MAX,
    };
    for (unsigned i = 0; i < X86_LVT_COUNT; i++)
        s->lvt[i] = X86_LVT_MASKED;
    if (vcpu == 0)
        s->lvt[X86_LVT_LINT0] = 7u << X86_LVT_DELIVERY; // ExtINT (MP specification 3.6.2.2)
}

static void lapic_fields(const struct state_fields *f, struct x86_lapic_state *s) {
    state_field_u64(f, &s->base);
    for (int i = 0; i < 4; i++) {
        state_field_u64(f, &s->irr[i]);
        state_field_u64(f, &s->isr[i]);
        state_field_u64(f, &s->tmr[i]);
    }
    state_field_u32(f, &s->events);
    state_field_u32(f, &s->esr_pending);
    state_field_u32(f, &s->esr);
    state_field_u32(f, &s->svr);
    state_field_u32(f, &s->ldr);
    state_field_u32(f, &s->dfr);
    state_field_u32(f, &s->tpr);
    state_field_u64(f, &s->icr);
    for (int i = 0; i < X86_LVT_COUNT; i++)
        state_field_u32(f, &s->lvt[i]);
    state_field_u32(f, &s->initial);
    state_field_u32(f, &s->divide);
    state_field_flag(f, &s->counting);
    state_field_u64(f, &s->start_ns);
    state_field_u64(f, &s->tsc_deadline);
}

static void lapic_drop_illegal(struct x86_lapic_state *s, unsigned vcpu) {
    const uint64_t none = UINT64_C(0xffff); // vectors 0..15 do not exist

    s->base = (s->base & ~X86_APIC_BASE_BSP) | (vcpu ? 0 : X86_APIC_BASE_BSP);
    s->irr[0] &= ~none;
    s->isr[0] &= ~none;
    s->tmr[0] &= ~none;
    s->events &= 0xff0f;
    s->esr_pending &= 0xff;
    s->esr &= 0xff;
    s->svr &= 0x1ff;
    s->tpr &= 0xff;
    for (int i = 0; i < X86_LVT_COUNT; i++)
        s->lvt[i] &= 0x7ffff;
    s->divide &= 0xb;
    s->counting &= s->initial != 0;
}

static bool lapic_base_is_legal(uint64_t base) {
    const uint64_t modes = X86_APIC_BASE_ENABLE | X86_APIC_BASE_X2APIC;
    const uint64_t reserved = ~(UINT64_C(0x000ffffffffff000) | modes | X86_APIC_BASE_BSP);

    return !(base & reserved) && (base & modes) != X86_APIC_BASE_X2APIC;
}

void x86_lapics_save(const struct x86_lapic_state *s, unsigned n, bool lint1, struct state_writer *w) {
    const struct state_fields f = {.w = w};

    state_put_u32(w, n);
    state_put_u8(w, lint1);
    for (unsigned i = 0; i < n; i++)
        lapic_fields(&f, (struct x86_lapic_state *)&s[i]); // a writer changes nothing in it
}

int x86_lapics_load(struct x86_lapic_state *s, unsigned n, bool *lint1, struct state_reader *r, struct error *err) {
    const struct state_fields f = {.r = r};
    uint32_t saved = state_get_u32(r);

    if (saved != n && !r->error)
        return error_set(err, -EINVAL, "local APICs of %u vCPUs in the saved state, %u in the machine", saved, n);
    *lint1 = state_get_u8(r);
    for (unsigned i = 0; i < n; i++) {
        lapic_fields(&f, &s[i]);
        lapic_drop_illegal(&s[i], i);
        if (!lapic_base_is_legal(s[i].base))
            return damaged("local APIC", err);
    }
    return r->error ? damaged("local APIC", err) : 0;
}

// ---- I/O APIC ----

// The line of the interval timer pulses and is saved low, so that the next tick is an edge wherever it comes from.
#define IOAPIC_TIMER (1u << 2)
#define PIC_TIMER    1u

void x86_ioapic_reset(struct x86_ioapic_state *s) {
    s->index = 0;
    for (unsigned pin = 0; pin < X86_IOAPIC_PINS; pin++)
        s->entries[pin] = X86_IOAPIC_MASKED;
}

static void ioapic_fields(const struct state_fields *f, struct x86_ioapic_state *s) {
    state_field_u32(f, &s->index);
    state_field_u32(f, &s->id);
    state_field_u32(f, &s->lines);
    state_field_u64s(f, s->entries, X86_IOAPIC_PINS);
}

void x86_ioapic_save(const struct x86_ioapic_state *s, struct state_writer *w) {
    struct x86_ioapic_state copy = *s;

    copy.lines &= ~IOAPIC_TIMER;
    ioapic_fields(&(const struct state_fields){.w = w}, &copy);
}

int x86_ioapic_load(struct x86_ioapic_state *s, struct state_reader *r, struct error *err) {
    ioapic_fields(&(const struct state_fields){.r = r}, s);
    s->index &= 0xff;
    s->id &= 0xf;
    s->lines &= ((1u << X86_IOAPIC_PINS) - 1) & ~IOAPIC_TIMER;
    for (unsigned pin = 0; pin < X86_IOAPIC_PINS; pin++)
        s->entries[pin] &= X86_IOAPIC_WRITABLE | X86_IOAPIC_REMOTE_IRR;
    return r->error ? damaged("I/O APIC", err) : 0;
}

// ---- 8259A pair ----

uint8_t x86_pic_elcr_mask(unsigned chip) {
    return chip ? 0xde : 0xf8;
}

void x86_pic_reset(struct x86_pic_state *s) {
    for (unsigned i = 0; i < ARRAY_LEN(s->chips); i++)
        s->chips[i] = (struct x86_pic_chip){.lines = s->chips[i].lines, .imr = 0xff};
}

static void pic_fields(const struct state_fields *f, struct x86_pic_chip *c) {
    uint8_t *const bytes[] = {&c->lines, &c->irr, &c->isr, &c->imr, &c->elcr, &c->vector_base, &c->first, &c->step};
    bool *const flags[] = {&c->single,       &c->need_icw4,      &c->auto_eoi, &c->rotate_on_auto_eoi,
                           &c->special_mask, &c->special_nested, &c->read_isr, &c->poll};

    for (unsigned i = 0; i < ARRAY_LEN(bytes); i++)
        state_field_u8(f, bytes[i]);
    for (unsigned i = 0; i < ARRAY_LEN(flags); i++)
        state_field_flag(f, flags[i]);
}

void x86_pic_save(const struct x86_pic_state *s, struct state_writer *w) {
    const struct state_fields f = {.w = w};

    for (unsigned i = 0; i < ARRAY_LEN(s->chips); i++) {
        struct x86_pic_chip c = s->chips[i];
        c.lines &= i ? 0xff : ~PIC_TIMER;
        pic_fields(&f, &c);
    }
}

int x86_pic_load(struct x86_pic_state *s, struct state_reader *r, struct error *err) {
    const struct state_fields f = {.r = r};

    for (unsigned i = 0; i < ARRAY_LEN(s->chips); i++) {
        struct x86_pic_chip *c = &s->chips[i];
        pic_fields(&f, c);
        c->lines &= i ? 0xff : ~PIC_TIMER;
        c->elcr &= x86_pic_elcr_mask(i);
        c->vector_base &= 0xf8;
        c->first &= 7;
        c->step &= 3;
    }
    return r->error ? damaged("8259", err) : 0;
}

// ---- 8254 ----

void x86_pit_reset(struct x86_pit_state *s) {
    *s = (struct x86_pit_state){0};
    for (unsigned i = 0; i < X86_PIT_CHANNELS; i++)
        s->ch[i] = (struct x86_pit_channel){.count = 0x10000, .mode = 3, .access = X86_PIT_BOTH, .gate = i != 2};
}

static void pit_channel_fields(const struct state_fields *f, struct x86_pit_channel *c) {
    state_field_u32(f, &c->count);
    state_field_u64(f, &c->start_ns);
    state_field_u64(f, &c->held_ticks);
    state_field_flag(f, &c->running);
    state_field_flag(f, &c->gate);
    state_field_flag(f, &c->bcd);
    state_field_u8(f, &c->mode);
    state_field_u8(f, &c->access);
    state_field_flag(f, &c->write_high);
    state_field_flag(f, &c->read_high);
    state_field_u8(f, &c->write_low);
    state_field_u8(f, &c->latched);
    state_field_u16(f, &c->latch);
    state_field_flag(f, &c->status_latched);
    state_field_u8(f, &c->status);
}

static void pit_fields(const struct state_fields *f, struct x86_pit_state *s) {
    for (unsigned i = 0; i < X86_PIT_CHANNELS; i++)
        pit_channel_fields(f, &s->ch[i]);
    state_field_u64(f, &s->edges);
    state_field_u8(f, &s->port61);
}

void x86_pit_save(const struct x86_pit_state *s, struct state_writer *w) {
    pit_fields(&(const struct state_fields){.w = w}, (struct x86_pit_state *)s);
}

static bool pit_channel_is_legal(const struct x86_pit_channel *c) {
    return c->count && c->count <= 0x10000 && c->mode <= 5 && c->access && c->access <= X86_PIT_BOTH;
}

int x86_pit_load(struct x86_pit_state *s, struct state_reader *r, struct error *err) {
    bool legal = true;

    pit_fields(&(const struct state_fields){.r = r}, s);
    for (unsigned i = 0; i < X86_PIT_CHANNELS; i++) {
        s->ch[i].latched &= X86_PIT_BOTH;
        legal &= pit_channel_is_legal(&s->ch[i]);
    }
    s->port61 &= 0x0f;
    return r->error || !legal ? damaged("8254", err) : 0;
}
