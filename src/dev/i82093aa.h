// SPDX-License-Identifier: Apache-2.0
// I/O APIC (Intel 82093AA datasheet), 24 pins.
// Pin n is GSI n, but for GSI 0 (the 8254) that comes in on pin 2, as the MADT override says; pin 0 and GSI 2
// (the cascade of the 8259 pair) are not connected.
#ifndef CICADA_DEV_I82093AA_H
#define CICADA_DEV_I82093AA_H

#include "dev/lapic.h"

#define I82093AA_BASE UINT64_C(0xfec00000)

struct i82093aa;

// Becomes a sink of the machine's interrupt router and the EOI sink of lapic. id: its APIC ID register.
int i82093aa_create(struct dev_env *env, uint64_t base, uint8_t id, struct lapic *lapic, struct i82093aa **out,
                    struct error *err);

#endif
