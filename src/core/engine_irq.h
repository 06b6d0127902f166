// SPDX-License-Identifier: Apache-2.0
// For a board whose engine brings its own interrupt controllers (engine_ops.has_irqchip).
#ifndef CICADA_CORE_ENGINE_IRQ_H
#define CICADA_CORE_ENGINE_IRQ_H

#include "core/machine.h"

// Takes the router's lines and messages to the engine. Their reset, save and load are a matter of the architecture.
// Before machine_create_vcpus, in place of the chips' own create functions.
int engine_irq_attach(struct machine *m, struct error *err);

#endif
