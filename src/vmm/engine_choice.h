// SPDX-License-Identifier: Apache-2.0
// Which engine executes a VM.
#ifndef CICADA_VMM_ENGINE_CHOICE_H
#define CICADA_VMM_ENGINE_CHOICE_H

#include "core/engine.h"
#include "vmm/config.h"

// As --engine says. auto takes KVM where it runs kernel code faster than the translator would, else xlate; the
// measurement is kept in the run directory until the next boot of the host. Logs one line: which, and why.
// Negative errno with err set where the engine asked for cannot be had.
int engine_choose(const struct vm_config *cfg, const struct engine_ops **ops, struct error *err);

#endif
