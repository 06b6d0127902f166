// SPDX-License-Identifier: Apache-2.0
// System control port A at 0x92 (IBM PS/2 technical reference): fast reset and fast A20.
#ifndef CICADA_DEV_PORT92_H
#define CICADA_DEV_PORT92_H

#include "dev/dev.h"

int port92_create(struct dev_env *env, struct error *err);

#endif
