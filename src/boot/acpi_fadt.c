// SPDX-License-Identifier: Apache-2.0
// FADT (ACPI 6.4 5.2.9) and FACS (5.2.10). The machine is always in ACPI mode (SMI_CMD = 0), has fixed power
// management hardware (not hardware-reduced), no C2/C3 and no VGA.
#include <string.h>

#include "boot/acpi_table.h"
#include "boot/le.h"
#include "dev/acpi_pm.h"

#define FADT_SIZE     276
#define FADT_REVISION 6
#define FACS_SIZE     64

#define FADT_FACS           36
#define FADT_DSDT           40
#define FADT_SCI_INT        46
#define FADT_PM1A_EVT       56
#define FADT_PM1A_CNT       64
#define FADT_PM_TMR         76
#define FADT_GPE0           80
#define FADT_PM1_EVT_LEN    88
#define FADT_PM1_CNT_LEN    89
#define FADT_PM_TMR_LEN     91
#define FADT_GPE0_LEN       92
#define FADT_P_LVL2_LAT     96
#define FADT_P_LVL3_LAT     98
#define FADT_CENTURY        108
#define FADT_IAPC_BOOT_ARCH 109
#define FADT_FLAGS          112
#define FADT_RESET_REG      116
#define FADT_RESET_VALUE    128
#define FADT_X_FACS         132
#define FADT_X_DSDT         140
#define FADT_X_PM1A_EVT     148
#define FADT_X_PM1A_CNT     172
#define FADT_X_PM_TMR       208
#define FADT_X_GPE0         220
#define FADT_HYPERVISOR     268

#define FLAG_WBINVD          (1u << 0)
#define FLAG_PROC_C1         (1u << 2)
#define FLAG_NO_SLEEP_BUTTON (1u << 5) // bit 4 clear: the power button is fixed hardware
#define FLAG_NO_FIX_RTC      (1u << 6)
#define FLAG_TMR_VAL_EXT     (1u << 8)
#define FLAG_RESET_REG_SUP   (1u << 10)

#define BOOT_ARCH_LEGACY_DEVICES (1u << 0)
#define BOOT_ARCH_8042           (1u << 1)
#define BOOT_ARCH_NO_VGA         (1u << 2)
#define BOOT_ARCH_NO_RTC         (1u << 5)

#define LATENCY_NO_C2   101  // above 100 us: not supported
#define LATENCY_NO_C3   1001 // above 1000 us: not supported
#define RTC_CENTURY_REG 0x32

#define PM1_EVENT   (ACPI_PM_BASE + 0)
#define PM1_CONTROL (ACPI_PM_BASE + 4)
#define PM_TIMER    (ACPI_PM_BASE + 8)
#define PM1_EVT_LEN 4
#define PM1_CNT_LEN 2
#define PM_TMR_LEN  4
#define GPE0_LEN    4

#define GAS_SYSTEM_IO 1
#define RESET_VALUE   0x06 // of the register at 0xcf9: hard reset

// Generic address structure, 5.2.3.2: space, width in bits, offset, access size (1 byte .. 3 dword), address.
static void fadt_put_io(uint8_t *p, uint16_t port, unsigned bytes, uint8_t access) {
    p[0] = GAS_SYSTEM_IO;
    p[1] = (uint8_t)(bytes * 8);
    p[2] = 0;
    p[3] = access;
    le64_put(p + 4, port);
}

static void fadt_put_pm_blocks(uint8_t *t) {
    le32_put(t + FADT_PM1A_EVT, PM1_EVENT);
    le32_put(t + FADT_PM1A_CNT, PM1_CONTROL);
    le32_put(t + FADT_PM_TMR, PM_TIMER);
    le32_put(t + FADT_GPE0, ACPI_PM_GPE_BASE);
    t[FADT_PM1_EVT_LEN] = PM1_EVT_LEN;
    t[FADT_PM1_CNT_LEN] = PM1_CNT_LEN;
    t[FADT_PM_TMR_LEN] = PM_TMR_LEN;
    t[FADT_GPE0_LEN] = GPE0_LEN;
    fadt_put_io(t + FADT_X_PM1A_EVT, PM1_EVENT, PM1_EVT_LEN, 2);
    fadt_put_io(t + FADT_X_PM1A_CNT, PM1_CONTROL, PM1_CNT_LEN, 2);
    fadt_put_io(t + FADT_X_PM_TMR, PM_TIMER, PM_TMR_LEN, 3);
    fadt_put_io(t + FADT_X_GPE0, ACPI_PM_GPE_BASE, GPE0_LEN, 1);
}

static void fadt_put_flags(uint8_t *t, const struct acpi_config *cfg) {
    uint16_t arch = BOOT_ARCH_LEGACY_DEVICES | BOOT_ARCH_NO_VGA;
    if (cfg->i8042)
        arch |= BOOT_ARCH_8042;
    if (!cfg->rtc)
        arch |= BOOT_ARCH_NO_RTC;
    le16_put(t + FADT_IAPC_BOOT_ARCH, arch);
    le32_put(t + FADT_FLAGS, FLAG_WBINVD | FLAG_PROC_C1 | FLAG_NO_SLEEP_BUTTON | FLAG_NO_FIX_RTC | FLAG_RESET_REG_SUP |
                                 (ACPI_PM_TIMER_BITS == 32 ? FLAG_TMR_VAL_EXT : 0));
}

uint8_t *acpi_add_fadt(struct acpi_area *area, const struct acpi_config *cfg, uint64_t facs, uint64_t dsdt) {
    uint8_t *t = acpi_area_alloc(area, FADT_SIZE);
    if (!t)
        return NULL;
    // 5.2.9: of FIRMWARE_CTRL and X_FIRMWARE_CTRL only one may be set; of DSDT and X_DSDT both.
    le32_put(t + FADT_FACS, (uint32_t)facs);
    le32_put(t + FADT_DSDT, (uint32_t)dsdt);
    le64_put(t + FADT_X_DSDT, dsdt);
    le16_put(t + FADT_SCI_INT, ACPI_PM_SCI_GSI);
    le16_put(t + FADT_P_LVL2_LAT, LATENCY_NO_C2);
    le16_put(t + FADT_P_LVL3_LAT, LATENCY_NO_C3);
    t[FADT_CENTURY] = cfg->rtc ? RTC_CENTURY_REG : 0;
    fadt_put_pm_blocks(t);
    fadt_put_flags(t, cfg);
    fadt_put_io(t + FADT_RESET_REG, ACPI_PM_RESET_PORT, 1, 1);
    t[FADT_RESET_VALUE] = RESET_VALUE;
    memcpy(t + FADT_HYPERVISOR, "CICADA\0", 8);
    acpi_finish(t, "FACP", FADT_REVISION, FADT_SIZE);
    return t;
}

uint8_t *acpi_add_facs(struct acpi_area *area) {
    uint8_t *t = acpi_area_alloc(area, FACS_SIZE);
    if (!t)
        return NULL;
    memcpy(t, "FACS", 4);
    le32_put(t + 4, FACS_SIZE);
    t[32] = 2; // version
    return t;
}
