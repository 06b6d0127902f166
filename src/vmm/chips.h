// SPDX-License-Identifier: Apache-2.0
// The interrupt controllers and the interval timer of a PC, twice: those of src/dev, and those inside an engine that
// brings its own, all of them or the local APICs. Of each chip one is in force and is what the guest, the router and a
// saved machine see; the other waits, in its reset state, for an engine that needs it.
#ifndef CICADA_VMM_CHIPS_H
#define CICADA_VMM_CHIPS_H

#include "dev/dev.h"

struct chips;

// Registers local APICs, I/O APIC, PIC and PIT as components of the machine, which own all of it. whose: as
// chips_use. Before machine_create_vcpus.
int chips_create(struct dev_env *env, unsigned vcpus, enum engine_irqchip whose, struct chips **out, struct error *err);
// What an engine without controllers of its own asks: one for each vCPU.
const struct irqchip_cpu *chips_irqchips(const struct chips *c);
enum engine_irqchip chips_whose(const struct chips *c);
// Puts in force what an engine brings, and ours for the rest; states do not move. Loop thread, machine paused.
void chips_use(struct chips *c, enum engine_irqchip whose);
// Resets the chips of src/dev that are not in force. Loop thread, machine paused.
void chips_park(struct chips *c);

#endif
