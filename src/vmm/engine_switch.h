// SPDX-License-Identifier: Apache-2.0
// Changing the engine of a running VM in place. Memory, devices, disks and connections stay as they are; what moves is
// the state that lives inside an engine, in its canonical form (docs/ENGINE_SWITCH.md).
#ifndef CICADA_VMM_ENGINE_SWITCH_H
#define CICADA_VMM_ENGINE_SWITCH_H

#include "core/machine.h"
#include "vmm/chips.h"
#include "vmm/config.h"

struct engine_switch;

// Phase "open", behind machine_create_vcpus. Makes the engine that the sealed process could not make (its
// before_seal); where that fails it says so in the log, and the change to it is refused later. All is borrowed.
int engine_switch_create(struct machine *m, const struct vm_config *cfg, struct chips *chips,
                         struct engine_switch **out, struct error *err);
void engine_switch_destroy(struct engine_switch *s); // before the machine; NULL is legal

struct engine_switched {
    const char *from;
    uint64_t pause_ns; // how long the guest stood
};

// Changes to the engine `ops`. device: what its open_device gave, taken over; <= 0: none. Negative errno with err set
// and the guest as it was: -EINVAL where it may not be (the other engine cannot give the processor that the guest has
// seen, a debugger or a profile needs this one), -ENODEV where the engine cannot be had, and what the new engine failed
// with. Loop thread.
int engine_switch_to(struct engine_switch *s, const struct engine_ops *ops, int device, struct engine_switched *done,
                     struct error *err);

#endif
