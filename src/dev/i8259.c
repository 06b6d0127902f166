// SPDX-License-Identifier: Apache-2.0
// 8259A pair. Everything is under `lock`; the vector that an INTA would give is published to the local APIC
// after each change, so that the vCPU learns of it without the lock. Edges are latched in IRR until the INTA
// (sources pulse their lines), levels follow the line; the cascade input is a level.
// On the path of irqchip ack: general registers only.
#include "dev/i8259.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "arch/x86/irqchip.h"
#include "dev/gpr_only.h"

#define CASCADE_BIT (1u << X86_PIC_CASCADE)
#define SPURIOUS    7

struct i8259 {
    struct lapic *lapic;
    pthread_mutex_t lock;
    struct x86_pic_state s;
};

GPR_ONLY_BEGIN

// Rank of the most urgent input in mask, 0 first; 8 for none.
static unsigned rank_of(const struct x86_pic_chip *c, uint8_t mask) {
    unsigned rank = 0;

    while (rank < 8 && !(mask & 1u << ((c->first + rank) & 7)))
        rank++;
    return rank;
}

// The input that the chip would interrupt for, -1 for none (datasheet: fully nested, special mask mode).
static int chip_pending(const struct x86_pic_chip *c, bool master) {
    uint8_t busy = c->special_mask ? c->isr & ~c->imr : c->isr;
    unsigned rank = rank_of(c, c->irr & ~c->imr);

    if (master && c->special_nested)
        busy &= ~CASCADE_BIT;
    return rank < rank_of(c, busy) ? (int)((c->first + rank) & 7) : -1;
}

static void update(struct i8259 *p) {
    struct x86_pic_chip *master = &p->s.chips[0], *slave = &p->s.chips[1];
    int slave_irq = chip_pending(slave, false), irq, vector = -1;

    master->irr = slave_irq >= 0 ? master->irr | CASCADE_BIT : master->irr & ~CASCADE_BIT;
    irq = chip_pending(master, true);
    if (irq == X86_PIC_CASCADE)
        vector = slave->vector_base + slave_irq;
    else if (irq >= 0)
        vector = master->vector_base + irq;
    lapic_set_extint(p->lapic, vector);
}

static void chip_ack(struct x86_pic_chip *c, int irq) {
    uint8_t bit = 1u << irq;

    if (!c->auto_eoi)
        c->isr |= bit;
    else if (c->rotate_on_auto_eoi)
        c->first = (irq + 1) & 7;
    if (!(c->elcr & bit))
        c->irr &= ~bit;
}

// One INTA of one chip. Where the request went away it answers with input 7 and nothing is in service.
static int chip_inta(struct x86_pic_chip *c, bool master) {
    int irq = chip_pending(c, master);

    if (irq < 0)
        return SPURIOUS;
    chip_ack(c, irq);
    return irq;
}

static int i8259_ack(void *ctx) {
    struct i8259 *p = ctx;
    int irq, vector;

    pthread_mutex_lock(&p->lock);
    irq = chip_inta(&p->s.chips[0], true);
    if (irq == X86_PIC_CASCADE)
        vector = p->s.chips[1].vector_base + chip_inta(&p->s.chips[1], false);
    else
        vector = p->s.chips[0].vector_base + irq;
    update(p);
    pthread_mutex_unlock(&p->lock);
    return vector;
}

static void chip_set_line(struct x86_pic_chip *c, uint8_t bit, bool level) {
    if (level && (c->elcr & bit || !(c->lines & bit)))
        c->irr |= bit;
    if (!level && c->elcr & bit)
        c->irr &= ~bit;
    c->lines = level ? c->lines | bit : c->lines & ~bit;
}

static void i8259_set_gsi(void *ctx, unsigned gsi, bool level) {
    struct i8259 *p = ctx;

    if (gsi >= 16 || gsi == X86_PIC_CASCADE)
        return;
    pthread_mutex_lock(&p->lock);
    chip_set_line(&p->s.chips[gsi / 8], 1u << gsi % 8, level);
    update(p);
    pthread_mutex_unlock(&p->lock);
}

GPR_ONLY_END

// ICW1 (datasheet, "Initialization command words"): edge latches, masks and modes are cleared.
static void chip_init(struct x86_pic_chip *c, uint8_t icw1) {
    c->irr &= c->elcr;
    c->imr = c->isr = 0;
    c->first = 0;
    c->special_mask = c->special_nested = c->auto_eoi = c->rotate_on_auto_eoi = false;
    c->read_isr = c->poll = false;
    c->need_icw4 = icw1 & 1;
    c->single = icw1 & 2;
    c->step = X86_PIC_ICW2;
}

static void chip_init_next(struct x86_pic_chip *c, uint8_t val) {
    switch (c->step) {
    case X86_PIC_ICW2:
        c->vector_base = val & 0xf8;
        c->step = !c->single ? X86_PIC_ICW3 : c->need_icw4 ? X86_PIC_ICW4 : X86_PIC_READY;
        break;
    case X86_PIC_ICW3: c->step = c->need_icw4 ? X86_PIC_ICW4 : X86_PIC_READY; break; // the cascade is wired
    case X86_PIC_ICW4:
        c->special_nested = val & 0x10;
        c->auto_eoi = val & 0x02;
        c->step = X86_PIC_READY;
        break;
    }
}

static void chip_eoi(struct x86_pic_chip *c, bool specific, uint8_t irq, bool rotate) {
    if (!specific) {
        unsigned rank = rank_of(c, c->special_mask ? c->isr & ~c->imr : c->isr);
        if (rank == 8)
            return;
        irq = (c->first + rank) & 7;
    }
    c->isr &= ~(1u << irq);
    if (rotate)
        c->first = (irq + 1) & 7;
}

static void chip_ocw2(struct x86_pic_chip *c, uint8_t val) {
    uint8_t irq = val & 7;

    switch (val >> 5) {
    case 0: c->rotate_on_auto_eoi = false; break;
    case 1: chip_eoi(c, false, 0, false); break;
    case 3: chip_eoi(c, true, irq, false); break;
    case 4: c->rotate_on_auto_eoi = true; break;
    case 5: chip_eoi(c, false, 0, true); break;
    case 6: c->first = (irq + 1) & 7; break;
    case 7: chip_eoi(c, true, irq, true); break;
    }
}

static void chip_ocw3(struct x86_pic_chip *c, uint8_t val) {
    c->poll = val & 0x04;
    if (val & 0x02)
        c->read_isr = val & 0x01;
    if (val & 0x40)
        c->special_mask = val & 0x20;
}

static void chip_write(struct x86_pic_chip *c, bool a0, uint8_t val) {
    if (a0 && c->step != X86_PIC_READY)
        chip_init_next(c, val);
    else if (a0)
        c->imr = val;
    else if (val & 0x10)
        chip_init(c, val);
    else if (val & 0x08)
        chip_ocw3(c, val);
    else
        chip_ocw2(c, val);
}

static uint8_t chip_read(struct x86_pic_chip *c, bool a0, bool master) {
    if (c->poll) { // the read is the INTA
        int irq = chip_pending(c, master);
        c->poll = false;
        if (irq < 0)
            return 0;
        chip_ack(c, irq);
        return 0x80 | irq;
    }
    if (a0)
        return c->imr;
    return c->read_isr ? c->isr : c->irr;
}

static void pair_read(struct i8259 *p, unsigned chip, struct bus_access *a) {
    pthread_mutex_lock(&p->lock);
    a->data = chip_read(&p->s.chips[chip], a->offset & 1, chip == 0);
    update(p);
    pthread_mutex_unlock(&p->lock);
}

static void pair_write(struct i8259 *p, unsigned chip, const struct bus_access *a) {
    pthread_mutex_lock(&p->lock);
    chip_write(&p->s.chips[chip], a->offset & 1, a->data & 0xff);
    update(p);
    pthread_mutex_unlock(&p->lock);
}

static void master_read(void *ctx, struct bus_access *a) {
    pair_read(ctx, 0, a);
}
static void master_write(void *ctx, const struct bus_access *a) {
    pair_write(ctx, 0, a);
}
static void slave_read(void *ctx, struct bus_access *a) {
    pair_read(ctx, 1, a);
}
static void slave_write(void *ctx, const struct bus_access *a) {
    pair_write(ctx, 1, a);
}

static void elcr_read(void *ctx, struct bus_access *a) {
    struct i8259 *p = ctx;

    pthread_mutex_lock(&p->lock);
    a->data = p->s.chips[a->offset & 1].elcr;
    if (a->size == 2 && a->offset == 0)
        a->data |= (uint64_t)p->s.chips[1].elcr << 8;
    pthread_mutex_unlock(&p->lock);
}

static void elcr_set(struct i8259 *p, unsigned chip, uint8_t val) {
    struct x86_pic_chip *c = &p->s.chips[chip];

    c->elcr = val & x86_pic_elcr_mask(chip);
    c->irr = (c->irr & ~c->elcr) | (c->lines & c->elcr);
}

static void elcr_write(void *ctx, const struct bus_access *a) {
    struct i8259 *p = ctx;

    pthread_mutex_lock(&p->lock);
    elcr_set(p, a->offset & 1, a->data & 0xff);
    if (a->size == 2 && a->offset == 0)
        elcr_set(p, 1, a->data >> 8 & 0xff);
    update(p);
    pthread_mutex_unlock(&p->lock);
}

static void i8259_reset(void *ctx) {
    struct i8259 *p = ctx;

    x86_pic_reset(&p->s);
    update(p);
}

static void i8259_save(void *ctx, struct state_writer *w) {
    struct i8259 *p = ctx;

    x86_pic_save(&p->s, w);
}

static int i8259_load(void *ctx, struct state_reader *r, struct error *err) {
    struct i8259 *p = ctx;
    struct x86_pic_state s;
    int ret = x86_pic_load(&s, r, err);

    if (ret)
        return ret;
    p->s = s;
    update(p);
    return 0;
}

static void i8259_destroy(void *ctx) {
    struct i8259 *p = ctx;

    pthread_mutex_destroy(&p->lock);
    free(p);
}

static const struct component_ops component_ops = {
    .name = X86_PIC_SECTION,
    .version = X86_PIC_VERSION,
    .reset = i8259_reset,
    .save = i8259_save,
    .load = i8259_load,
    .destroy = i8259_destroy,
};

static const struct bus_ops master_ops = {.name = "i8259-master", .read = master_read, .write = master_write};
static const struct bus_ops slave_ops = {.name = "i8259-slave", .read = slave_read, .write = slave_write};
static const struct bus_ops elcr_ops = {.name = "elcr", .read = elcr_read, .write = elcr_write};

int i8259_create(struct dev_env *env, struct lapic *lapic, struct i8259 **out, struct error *err) {
    const struct dev_range ranges[] = {
        {env->pio, 0x20, 2, &master_ops},
        {env->pio, 0xa0, 2, &slave_ops},
        {env->pio, 0x4d0, 2, &elcr_ops},
    };
    struct i8259 *p = calloc(1, sizeof(*p));
    int ret;

    if (!p)
        return error_set(err, -ENOMEM, "create 8259 pair");
    pthread_mutex_init(&p->lock, NULL);
    p->lapic = lapic;
    i8259_reset(p);
    ret = dev_attach(env, &component_ops, p, 0, ranges, ARRAY_LEN(ranges), err);
    if (ret) {
        i8259_destroy(p);
        return ret;
    }
    ret = irq_add_sink(&env->machine->irq, i8259_set_gsi, p);
    if (ret) // p belongs to the machine by now
        return error_set(err, ret, "connect 8259 pair");
    lapic_set_pic(lapic, i8259_ack, p);
    *out = p;
    return 0;
}
