// SPDX-License-Identifier: Apache-2.0
// The interrupt controllers and the interval timer inside the engine, as components of the machine.
#ifndef CICADA_VMM_IRQCHIP_COMPONENT_H
#define CICADA_VMM_IRQCHIP_COMPONENT_H

#include "core/machine.h"

// In place of the create functions of dev/lapic.h, i82093aa.h, i8259.h and i8254.h, with the same sections. Connects
// the router as well (core/engine_irq.h). Before machine_create_vcpus; the components belong to the list.
int irqchip_component_add(struct machine *m, struct component_list *list, unsigned vcpus, struct error *err);

#endif
