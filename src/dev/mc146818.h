// SPDX-License-Identifier: Apache-2.0
// Real-time clock and CMOS RAM at ports 0x70/0x71 (Motorola MC146818A datasheet; IBM PC/AT technical reference
// for the CMOS map). Interrupt on GSI 8.
#ifndef CICADA_DEV_MC146818_H
#define CICADA_DEV_MC146818_H

#include "dev/dev.h"

struct mc146818;

// Memory sizes in bytes go to the CMOS bytes where firmware looks for them: RAM that starts at 0, RAM above 4 GiB.
int mc146818_create(struct dev_env *env, uint64_t ram_below_4g, uint64_t ram_above_4g, struct mc146818 **out,
                    struct error *err);

// One byte of CMOS RAM (0x0e..0x7f), for boards that leave more in it. Before the vCPUs run.
void mc146818_set_cmos(struct mc146818 *rtc, uint8_t index, uint8_t val);

#endif
