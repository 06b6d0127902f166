// SPDX-License-Identifier: Apache-2.0
// pvpanic (the interface that Linux's drivers/misc/pvpanic knows, device QEMU0001): a guest tells that it died.
#ifndef CICADA_DEV_PVPANIC_H
#define CICADA_DEV_PVPANIC_H

#include "dev/dev.h"

#define PVPANIC_PORT 0x505

// Ends the machine with MACHINE_CRASH when the guest panicked.
int pvpanic_create(struct dev_env *env, struct error *err);

#endif
