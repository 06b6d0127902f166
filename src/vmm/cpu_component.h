// SPDX-License-Identifier: Apache-2.0
// The vCPUs as components of the machine: they save and load the canonical state through the engine.
#ifndef CICADA_VMM_CPU_COMPONENT_H
#define CICADA_VMM_CPU_COMPONENT_H

#include "core/machine.h"

// Registers a component "cpu" for each of the vCPUs, which are created later. Before the chips: on resume their timers
// are to find the guest's TSC where it belongs. RAM is loaded before: the state may point to page tables.
int cpu_component_add(struct machine *m, unsigned vcpus, struct error *err);

#endif
