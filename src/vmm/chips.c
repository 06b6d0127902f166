// SPDX-License-Identifier: Apache-2.0
// Two sets of interrupt controllers behind one list of components; see the header.
//
// Invariants: the machine's list has one component for each chip, which passes everything on to the set in force, so
// sections, their order and their names are the same whosever they are. Both sets have the chips in the order lapic,
// i82093aa, i8259, i8254. The router's sinks of chips that wait are mute; an engine with its own controllers answers
// their addresses itself, so those ranges on the buses are not reached.
#include "vmm/chips.h"

#include <errno.h>
#include <stdlib.h>

#include "arch/x86/irqchip.h"
#include "dev/i82093aa.h"
#include "dev/i8254.h"
#include "dev/i8259.h"
#include "dev/lapic.h"
#include "vmm/irqchip_component.h"

enum { SET_DEV, SET_ENGINE, SETS };
#define CHIPS 4

struct chip {
    struct chips *chips;
    const struct component *part[SETS];
};

struct chip_set {
    struct component_list components;
    unsigned first_sink, sinks; // of the router
    void (*msi)(void *ctx, uint64_t addr, uint32_t data);
    void *msi_ctx;
};

// Loop thread only.
struct chips {
    struct machine *machine;
    struct lapic *lapic;
    struct chip_set set[SETS];
    enum engine_irqchip whose; // which are in force
    struct chip chip[CHIPS];
};

// ---- the component of a chip ----

// The local APICs are the first chip.
static unsigned set_of(const struct chips *c, const struct chip *chip) {
    bool engines = c->whose == ENGINE_IRQCHIP_ALL || (c->whose == ENGINE_IRQCHIP_LOCAL && chip == &c->chip[0]);
    return engines ? SET_ENGINE : SET_DEV;
}

static const struct component *part_of(void *ctx) {
    const struct chip *c = ctx;
    return c->part[set_of(c->chips, c)];
}

static void chip_reset(void *ctx) {
    const struct component *p = part_of(ctx);
    if (p->ops->reset)
        p->ops->reset(p->ctx);
}

static void chip_pause(void *ctx) {
    const struct component *p = part_of(ctx);
    if (p->ops->pause)
        p->ops->pause(p->ctx);
}

static void chip_resume(void *ctx) {
    const struct component *p = part_of(ctx);
    if (p->ops->resume)
        p->ops->resume(p->ctx);
}

static void chip_save(void *ctx, struct state_writer *w) {
    const struct component *p = part_of(ctx);
    p->ops->save(p->ctx, w);
}

static int chip_load(void *ctx, struct state_reader *r, struct error *err) {
    const struct component *p = part_of(ctx);
    return p->ops->load(p->ctx, r, err);
}

static void chips_destroy(struct chips *c) {
    for (unsigned i = 0; i < SETS; i++)
        component_destroy_all(&c->set[i].components);
    free(c);
}

// The first component is destroyed last.
static void first_destroy(void *ctx) {
    chips_destroy(((struct chip *)ctx)->chips);
}

#define CHIP_OPS(section, number, end)                                                                                 \
    {                                                                                                                  \
        .name = section, .version = number, .of_engine = true, .reset = chip_reset, .pause = chip_pause,               \
        .resume = chip_resume, .save = chip_save, .load = chip_load, .destroy = end                                    \
    }

static const struct component_ops chip_ops[CHIPS] = {
    CHIP_OPS(X86_LAPIC_SECTION, X86_LAPIC_VERSION, first_destroy),
    CHIP_OPS(X86_IOAPIC_SECTION, X86_IOAPIC_VERSION, NULL),
    CHIP_OPS(X86_PIC_SECTION, X86_PIC_VERSION, NULL),
    CHIP_OPS(X86_PIT_SECTION, X86_PIT_VERSION, NULL),
};

// ---- creation ----

static int create_dev(struct chips *c, struct dev_env env, unsigned vcpus, struct error *err) {
    struct i82093aa *ioapic;
    struct i8259 *pic;
    struct i8254 *pit;
    int r;
    env.components = &c->set[SET_DEV].components;
    if ((r = lapic_create(&env, vcpus, 0, &c->lapic, err)) ||
        (r = i82093aa_create(&env, I82093AA_BASE, 0, c->lapic, &ioapic, err)) ||
        (r = i8259_create(&env, c->lapic, &pic, err)) || (r = i8254_create(&env, &pit, err)))
        return r;
    return 0;
}

static int create_set(struct chips *c, unsigned which, struct dev_env *env, unsigned vcpus, struct error *err) {
    struct chip_set *s = &c->set[which];
    struct irq_router *irq = &c->machine->irq;
    s->first_sink = irq->nsinks;
    int r = which == SET_DEV ? create_dev(c, *env, vcpus, err)
                             : irqchip_component_add(c->machine, &s->components, vcpus, err);
    if (r)
        return r;
    s->sinks = irq->nsinks - s->first_sink;
    s->msi = irq->msi;
    s->msi_ctx = irq->msi_ctx;
    const struct component *part = s->components.head;
    for (unsigned i = 0; i < CHIPS; i++, part = part->next)
        c->chip[i].part[which] = part;
    return 0;
}

static int add_components(struct chips *c, struct error *err) {
    for (unsigned i = 0; i < CHIPS; i++) {
        int r = component_add(&c->machine->components, &chip_ops[i], &c->chip[i], 0);
        if (r) {
            if (!i) // else the machine owns it by now
                chips_destroy(c);
            return error_set(err, r, "register %s", chip_ops[i].name);
        }
    }
    return 0;
}

int chips_create(struct dev_env *env, unsigned vcpus, enum engine_irqchip whose, struct chips **out,
                 struct error *err) {
    struct chips *c = calloc(1, sizeof(*c));
    int r = 0;
    if (!c)
        return error_set(err, -ENOMEM, "create the interrupt controllers");
    c->machine = env->machine;
    for (unsigned i = 0; i < CHIPS; i++)
        c->chip[i].chips = c;
    for (unsigned i = 0; i < SETS; i++)
        component_list_init(&c->set[i].components);
    for (unsigned i = 0; r == 0 && i < SETS; i++)
        r = create_set(c, i, env, vcpus, err);
    if (r) {
        chips_destroy(c);
        return r;
    }
    chips_use(c, whose);
    r = add_components(c, err);
    if (r == 0)
        *out = c;
    return r;
}

// ---- which set ----

const struct irqchip_cpu *chips_irqchips(const struct chips *c) {
    return lapic_irqchips(c->lapic);
}

enum engine_irqchip chips_whose(const struct chips *c) {
    return c->whose;
}

// Messages go to whoever has the local APICs, lines to whoever has the others.
void chips_use(struct chips *c, enum engine_irqchip whose) {
    struct irq_router *irq = &c->machine->irq;
    unsigned lapics = whose == ENGINE_IRQCHIP_NONE ? SET_DEV : SET_ENGINE;
    unsigned others = whose == ENGINE_IRQCHIP_ALL ? SET_ENGINE : SET_DEV;
    c->whose = whose;
    for (unsigned i = 0; i < SETS; i++)
        irq_mute_sinks(irq, c->set[i].first_sink, c->set[i].sinks, i != others);
    irq_set_msi_sink(irq, c->set[lapics].msi, c->set[lapics].msi_ctx);
    lapic_set_remote(c->lapic, lapics != others);
}

void chips_park(struct chips *c) {
    for (unsigned i = 0; i < CHIPS; i++) {
        const struct component *p = c->chip[i].part[SET_DEV];
        if (set_of(c, &c->chip[i]) != SET_DEV && p->ops->reset)
            p->ops->reset(p->ctx);
    }
}
