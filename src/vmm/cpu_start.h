// SPDX-License-Identifier: Apache-2.0
// The state in which processors start.
#ifndef CICADA_VMM_CPU_START_H
#define CICADA_VMM_CPU_START_H

#include "boot/boot.h"
#include "core/machine.h"

struct cpu_state;

// The boot processor as `entry` says, everything else as after power-on.
void cpu_start_state(struct cpu_state *s, const struct boot_entry *entry);
// Sets every vCPU: the boot processor as `entry` says, the others waiting for their start-up IPI. vCPUs stopped.
int cpu_start(struct machine *m, const struct boot_entry *entry, struct error *err);

#endif
