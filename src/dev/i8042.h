// SPDX-License-Identifier: Apache-2.0
// Keyboard controller at 0x60/0x64 (IBM PC/AT technical reference, "Keyboard controller") without a keyboard:
// guests probe it, and reset the machine through it. Data for the absent devices is answered with a time-out.
#ifndef CICADA_DEV_I8042_H
#define CICADA_DEV_I8042_H

#include "dev/dev.h"

struct i8042;

int i8042_create(struct dev_env *env, struct i8042 **out, struct error *err);

#endif
