// SPDX-License-Identifier: Apache-2.0
// Between machine.c (life cycle), vcpu.c (one vCPU and its thread) and stop.c (stopping and starting all of them).
#ifndef CICADA_CORE_MACHINE_PRIVATE_H
#define CICADA_CORE_MACHINE_PRIVATE_H

#include "core/machine.h"

// ---- vcpu.c ----
int vcpu_init(struct vcpu *v, struct machine *m, unsigned index, struct error *err);
// Creates the thread and waits until the engine has accepted it; the vCPU then stands at the barrier.
int vcpu_start_thread(struct vcpu *v, struct error *err);
// Makes the vCPU come to the barrier soon, from guest code or from a wait. Any thread, its own included.
void vcpu_kick(struct vcpu *v);
void vcpu_join_thread(struct vcpu *v);
void vcpu_fini(struct vcpu *v); // thread joined before; a zeroed vCPU is legal

// ---- stop.c ----
// One more reason to stand still. Any thread; does not wait.
void stop_begin(struct machine *m);
// Waits until all vCPUs stand. Loop thread, between stop_begin and stop_end.
void stop_wait(struct machine *m);
// One reason less; with the last the vCPUs run.
void stop_end(struct machine *m);
unsigned stop_depth(struct machine *m);
// Tells the vCPU threads to return.
void stop_quit(struct machine *m);
// On a vCPU's thread, between two runs: stands still while there is a reason to. False: the thread must return.
bool stop_barrier(struct vcpu *v);

#endif
