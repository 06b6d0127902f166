// SPDX-License-Identifier: Apache-2.0
// Chips inside the engine as components: sections of the names, versions and contents that the chips of src/dev have.
//
// Invariant: the local APICs are registered first. Theirs are the reset and the resume of all, since the engine does
// both for all of its chips at once.
#include "vmm/irqchip_component.h"

#include <errno.h>
#include <stdlib.h>

#include "arch/x86/irqchip.h"
#include "core/engine_irq.h"

struct engine_chips {
    struct machine *machine;
    unsigned vcpus;
    struct x86_lapic_state lapics[]; // scratch of save and load
};

static int get(struct engine_chips *c, enum x86_chip chip, unsigned instance, void *state, size_t size) {
    return c->machine->engine_ops->irqchip_get(c->machine->engine, chip, instance, state, size);
}

static int put(struct engine_chips *c, enum x86_chip chip, unsigned instance, const void *state, size_t size,
               struct error *err) {
    const struct engine_ops *ops = c->machine->engine_ops;
    int r = ops->irqchip_set(c->machine->engine, chip, instance, state, size);

    return r ? error_set(err, r, "the %s engine refuses the saved state of its interrupt controllers", ops->name) : 0;
}

// ---- all of them ----

static void chips_reset(void *ctx) {
    struct machine *m = ((struct engine_chips *)ctx)->machine;

    if (m->engine)
        m->engine_ops->irqchip_reset(m->engine);
}

static void chips_resume(void *ctx) {
    struct machine *m = ((struct engine_chips *)ctx)->machine;

    m->engine_ops->irqchip_resume(m->engine);
}

static void chips_destroy(void *ctx) {
    free(ctx);
}

// ---- local APICs ----

static void lapics_save(void *ctx, struct state_writer *w) {
    struct engine_chips *c = ctx;
    int r = 0;

    for (unsigned i = 0; r == 0 && i < c->vcpus; i++)
        r = get(c, X86_CHIP_LAPIC, i, &c->lapics[i], sizeof(c->lapics[i]));
    if (r)
        w->error = r;
    else
        x86_lapics_save(c->lapics, c->vcpus, false, w);
}

static int lapics_load(void *ctx, struct state_reader *r, struct error *err) {
    struct engine_chips *c = ctx;
    bool lint1; // nobody drives it
    int ret = x86_lapics_load(c->lapics, c->vcpus, &lint1, r, err);

    for (unsigned i = 0; ret == 0 && i < c->vcpus; i++)
        ret = put(c, X86_CHIP_LAPIC, i, &c->lapics[i], sizeof(c->lapics[i]), err);
    return ret;
}

// ---- the others: of each chip the state, what saves it and what loads it ----

#define CHIP(name, number)                                                                                             \
    static void name##_save(void *ctx, struct state_writer *w) {                                                       \
        struct x86_##name##_state s;                                                                                   \
        int r = get(ctx, number, 0, &s, sizeof(s));                                                                    \
        if (r)                                                                                                         \
            w->error = r;                                                                                              \
        else                                                                                                           \
            x86_##name##_save(&s, w);                                                                                  \
    }                                                                                                                  \
    static int name##_load(void *ctx, struct state_reader *r, struct error *err) {                                     \
        struct x86_##name##_state s;                                                                                   \
        int ret = x86_##name##_load(&s, r, err);                                                                       \
        return ret ? ret : put(ctx, number, 0, &s, sizeof(s), err);                                                    \
    }
CHIP(ioapic, X86_CHIP_IOAPIC)
CHIP(pic, X86_CHIP_PIC)
CHIP(pit, X86_CHIP_PIT)
#undef CHIP

static const struct component_ops component_ops[] = {
    {.name = X86_LAPIC_SECTION,
     .version = X86_LAPIC_VERSION,
     .reset = chips_reset,
     .resume = chips_resume,
     .save = lapics_save,
     .load = lapics_load,
     .destroy = chips_destroy},
    {.name = X86_IOAPIC_SECTION, .version = X86_IOAPIC_VERSION, .save = ioapic_save, .load = ioapic_load},
    {.name = X86_PIC_SECTION, .version = X86_PIC_VERSION, .save = pic_save, .load = pic_load},
    {.name = X86_PIT_SECTION, .version = X86_PIT_VERSION, .save = pit_save, .load = pit_load},
};

int irqchip_component_add(struct machine *m, struct component_list *list, unsigned vcpus, struct error *err) {
    struct engine_chips *c = calloc(1, sizeof(*c) + vcpus * sizeof(c->lapics[0]));
    int r = c ? 0 : -ENOMEM;

    if (r == 0)
        *c = (struct engine_chips){.machine = m, .vcpus = vcpus};
    for (unsigned i = 0; r == 0 && i < ARRAY_LEN(component_ops); i++) {
        r = component_add(list, &component_ops[i], c, 0);
        if (r && i) // they belong to the list by now
            return error_set(err, r, "register %s", component_ops[i].name);
    }
    if (r == 0)
        return engine_irq_attach(m, err);
    free(c);
    return error_set(err, r, "register the engine's interrupt controllers");
}
