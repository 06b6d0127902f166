// SPDX-License-Identifier: Apache-2.0
// The vCPUs as components of the machine: they save and load the canonical state through the engine.
#ifndef CICADA_VMM_CPU_COMPONENT_H
#define CICADA_VMM_CPU_COMPONENT_H

#include "core/machine.h"

// Registers a component "cpu" for each of the vCPUs, which are created later. Before the chips: on resume their timers
// are to find the guest's TSC where it belongs. RAM is loaded before: the state may point to page tables.
int cpu_component_add(struct machine *m, unsigned vcpus, struct error *err);

// Before machine_resume ends a pause: are the guest's clocks to go on from where they stood (continue), or at the
// present time (jump)? Without the call timers go on from where they stood and the TSCs from the present, which is
// right for a pause that is short.
void cpu_component_set_clock(struct machine *m, bool jump);

// The guest's time goes on `ns` later than it stood: the machine's clock and the TSCs of all vCPUs. Machine paused, and
// loaded since.
int cpu_component_advance(struct machine *m, uint64_t ns, struct error *err);

#endif
