// SPDX-License-Identifier: Apache-2.0
// 8254 programmable interval timer at 0x40..0x43 and the system control port 0x61 (Intel 82C54 datasheet;
// IBM PC/AT technical reference for port 0x61). Channel 0 drives GSI 0, channel 2 the speaker.
#ifndef CICADA_DEV_I8254_H
#define CICADA_DEV_I8254_H

#include "dev/dev.h"

struct i8254;

int i8254_create(struct dev_env *env, struct i8254 **out, struct error *err);

#endif
