// SPDX-License-Identifier: Apache-2.0
// What a debugger can do with a machine, whatever protocol it speaks: stop and go on, registers, memory, points.
//
// All functions are for the loop thread. Everything but debug_stop, debug_detach and debug_running wants the machine
// stopped by debug_stop or by an event. Nothing is set up in the engine before the first point or step, so a machine
// that is not debugged runs as ever.
#ifndef CICADA_DEBUG_TARGET_H
#define CICADA_DEBUG_TARGET_H

#include "arch/x86/state.h"
#include "core/machine.h"

#define DEBUG_POINTS_MAX 256

struct debug_target;

struct debug_event {
    unsigned vcpu;
    enum debug_kind kind;
    uint64_t addr; // as in struct vm_exit
};

// What a vCPU does when the machine goes on.
enum debug_action { DEBUG_HOLD, DEBUG_CONTINUE, DEBUG_STEP_ONE };

struct debug_client {
    // The machine has stopped by itself, or was asked to go on while an event was waiting.
    void (*stopped)(void *ctx, const struct debug_event *event);
    void *ctx;
};

// Registers with the machine, whose vCPU threads do not run yet. -EOPNOTSUPP where the engine cannot be debugged.
// Free it after machine_run and before machine_destroy.
int debug_target_create(struct machine *m, const struct debug_client *client, struct debug_target **target,
                        struct error *err);
void debug_target_destroy(struct debug_target *t);

unsigned debug_vcpus(const struct debug_target *t);
bool debug_running(const struct debug_target *t);

void debug_stop(struct debug_target *t); // all vCPUs, at an instruction boundary; not an event
void debug_set_action(struct debug_target *t, unsigned vcpu, enum debug_action action);
// Single steps let no interrupt in, except to a halted vCPU. At first true.
void debug_mask_interrupts(struct debug_target *t, bool mask);
bool debug_masks_interrupts(const struct debug_target *t);
// The vCPUs do what was last set. A vCPU that had stopped at the same time as the one that was reported is reported
// now, and nothing runs.
void debug_resume(struct debug_target *t);
// No points, no steps, nothing held; the machine goes on if we had stopped it.
void debug_detach(struct debug_target *t);
// Power-on state; stays stopped. The machine may end instead (--no-reboot).
void debug_reset(struct debug_target *t);

// Canonical state of a vCPU, or NULL if the engine does not give it. Valid until the machine goes on.
const struct cpu_state *debug_state(struct debug_target *t, unsigned vcpu);
// Replaces it. -EINVAL where no processor of this model could be in it.
int debug_set_state(struct debug_target *t, unsigned vcpu, const struct cpu_state *s);

// RAM by linear address in the address space of a vCPU, or by guest-physical address. Reads as far as there is memory
// and returns the number of bytes; -EFAULT where there is none at all. A write is done whole or not at all.
int debug_read(struct debug_target *t, unsigned vcpu, bool physical, uint64_t addr, void *buf, size_t len);
int debug_write(struct debug_target *t, unsigned vcpu, bool physical, uint64_t addr, const void *buf, size_t len);
// Guest-physical address of a linear one; 0 or -EFAULT.
int debug_translate(struct debug_target *t, unsigned vcpu, uint64_t addr, uint64_t *gpa);

// Points hold for all vCPUs. To add one twice is the same as once; to remove one that is not there is not an error.
// Errors of engine_ops.debug_points, and -ENOSPC for more than DEBUG_POINTS_MAX.
int debug_add_point(struct debug_target *t, unsigned vcpu, enum debug_kind kind, uint64_t addr, uint64_t len);
int debug_remove_point(struct debug_target *t, enum debug_kind kind, uint64_t addr, uint64_t len);

#endif
