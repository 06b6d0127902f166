// SPDX-License-Identifier: Apache-2.0
// The pair of 8259A interrupt controllers at 0x20 and 0xa0, with the ELCR at 0x4d0 (Intel 8259A datasheet;
// PIIX datasheet for the ELCR). GSI 0..15 are its inputs, input 2 is the cascade. Its INTR output goes to the
// local APIC of the BSP.
#ifndef CICADA_DEV_I8259_H
#define CICADA_DEV_I8259_H

#include "dev/lapic.h"

struct i8259;

int i8259_create(struct dev_env *env, struct lapic *lapic, struct i8259 **out, struct error *err);

#endif
