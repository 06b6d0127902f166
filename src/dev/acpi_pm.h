// SPDX-License-Identifier: Apache-2.0
// ACPI fixed hardware (ACPI 6.4 chapter 4.8): PM1a event and control blocks, PM timer, GPE0 block, and the
// reset register at 0xcf9. The machine is always in ACPI mode. SCI is GSI 9, level-triggered.
#ifndef CICADA_DEV_ACPI_PM_H
#define CICADA_DEV_ACPI_PM_H

#include "dev/dev.h"

#define ACPI_PM_BASE       0x600 // PM1a event 0x600 (status, enable), control 0x604, timer 0x608
#define ACPI_PM_GPE_BASE   0x620 // two bytes of status, two of enable
#define ACPI_PM_RESET_PORT 0xcf9 // FADT: reset value 0x06
#define ACPI_PM_SCI_GSI    9
#define ACPI_PM_S5_TYPE    5
#define ACPI_PM_TIMER_HZ   UINT64_C(3579545)
#define ACPI_PM_TIMER_BITS 32 // FADT: TMR_VAL_EXT is set

struct acpi_pm;

int acpi_pm_create(struct dev_env *env, struct acpi_pm **out, struct error *err);
// Any thread.
void acpi_pm_power_button(struct acpi_pm *pm);
void acpi_pm_raise_gpe(struct acpi_pm *pm, unsigned bit); // 0..15

#endif
