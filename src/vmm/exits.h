// SPDX-License-Identifier: Apache-2.0
// Handlers of VM exits, by reason, the same for every engine and board.
#ifndef CICADA_VMM_EXITS_H
#define CICADA_VMM_EXITS_H

#include "bus/bus.h"
#include "core/machine.h"

// EXIT_REASON_COUNT entries; each runs on its vCPU's thread.
extern void (*const exits_table[EXIT_REASON_COUNT])(struct vcpu *v, struct vm_exit *exit);

// engine_host.exit (ctx: the machine): the exits that want an answer, through the same table.
void exits_answer(void *ctx, unsigned vcpu, struct vm_exit *exit);

// Names the buses that PIO and MMIO exits go to. One machine a process; before the vCPUs run.
void exits_set_buses(struct machine *m, struct bus *pio, struct bus *mmio);

#endif
