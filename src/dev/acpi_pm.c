// SPDX-License-Identifier: Apache-2.0
// ACPI fixed hardware. Everything is under `lock`. SCI is high exactly while an enabled status bit is set.
#define LOG_UNIT "acpi"
#include "dev/acpi_pm.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "util/log.h"

// PM1 status and enable bits (4.8.4.1).
#define PM1_TIMER             0x0001
#define PM1_GLOBAL            0x0020
#define PM1_POWER_BUTTON      0x0100
#define PM1_RTC               0x0400 // the RTC has a line of its own, so this is never set; but Linux insists on its enable bit
#define PM1_STATUS_BITS       (PM1_TIMER | PM1_GLOBAL | PM1_POWER_BUTTON)
#define PM1_ENABLE_BITS       (PM1_STATUS_BITS | PM1_RTC)
// PM1 control (4.8.4.2).
#define CONTROL_SCI_EN        0x0001
#define CONTROL_SLEEP_TYPE(v) ((v) >> 10 & 7)
#define CONTROL_SLEEP_EN      0x2000
#define CONTROL_WRITABLE      0x1c02 // sleep type, bus master reload

// Reset control register, as in Intel chipsets.
#define RESET_SYSTEM   0x02
#define RESET_CPU      0x04
#define RESET_WRITABLE 0x0e

struct acpi_pm {
    struct machine *machine;
    pthread_mutex_t lock;
    struct vtimer timer; // armed for the next change of the PM timer's top bit, while enabled
    uint16_t status, enable, control;
    uint16_t gpe_status, gpe_enable;
    uint8_t reset_control;
    bool sci;
    uint64_t timer_top; // changes of the top bit already in status
};

static uint64_t pm_ticks(struct acpi_pm *pm) {
    return dev_ns_to_ticks(clock_now_ns(&pm->machine->clock), ACPI_PM_TIMER_HZ);
}

static void update_sci(struct acpi_pm *pm) {
    bool sci = pm->status & pm->enable || pm->gpe_status & pm->gpe_enable;

    if (sci == pm->sci)
        return;
    pm->sci = sci;
    irq_set(&pm->machine->irq, ACPI_PM_SCI_GSI, sci);
}

// 4.8.3.3: a change of the timer's most significant bit sets its status.
static void check(struct acpi_pm *pm) {
    uint64_t top = pm_ticks(pm) >> (ACPI_PM_TIMER_BITS - 1);

    if (top != pm->timer_top)
        pm->status |= PM1_TIMER;
    pm->timer_top = top;
    if (pm->enable & PM1_TIMER)
        vtimer_arm(&pm->timer, dev_ticks_to_ns((top + 1) << (ACPI_PM_TIMER_BITS - 1), ACPI_PM_TIMER_HZ));
    update_sci(pm);
}

static void timer_fired(void *ctx) {
    struct acpi_pm *pm = ctx;

    pthread_mutex_lock(&pm->lock);
    check(pm);
    pthread_mutex_unlock(&pm->lock);
}

void acpi_pm_power_button(struct acpi_pm *pm) {
    pthread_mutex_lock(&pm->lock);
    pm->status |= PM1_POWER_BUTTON;
    update_sci(pm);
    pthread_mutex_unlock(&pm->lock);
}

void acpi_pm_raise_gpe(struct acpi_pm *pm, unsigned bit) {
    pthread_mutex_lock(&pm->lock);
    pm->gpe_status |= bit < 16 ? 1u << bit : 0;
    update_sci(pm);
    pthread_mutex_unlock(&pm->lock);
}

static void enter_sleep(struct acpi_pm *pm) {
    if (CONTROL_SLEEP_TYPE(pm->control) == ACPI_PM_S5_TYPE)
        machine_end(pm->machine, MACHINE_POWEROFF);
    else
        log_warn("sleep type %d is not supported", CONTROL_SLEEP_TYPE(pm->control));
}

// One byte of PM1a event (0..3) or control (4..5). Status bits are cleared by writing ones.
static void pm_write_byte(struct acpi_pm *pm, unsigned offset, uint8_t val) {
    unsigned shift = 8 * (offset & 1);
    uint16_t bits = (uint16_t)(val << shift), keep = (uint16_t)(0xff00 >> shift);

    switch (offset & ~1u) {
    case 0: pm->status &= ~bits; break;
    case 2: pm->enable = ((pm->enable & keep) | bits) & PM1_ENABLE_BITS; break;
    case 4:
        pm->control = ((pm->control & keep) | bits) & CONTROL_WRITABLE;
        if (bits & CONTROL_SLEEP_EN)
            enter_sleep(pm);
        break;
    }
}

static void pm_read(void *ctx, struct bus_access *a) {
    struct acpi_pm *pm = ctx;
    uint64_t image[2];

    pthread_mutex_lock(&pm->lock);
    check(pm);
    image[0] = pm->status | (uint64_t)pm->enable << 16 | (uint64_t)(pm->control | CONTROL_SCI_EN) << 32;
    image[1] = pm_ticks(pm) & (UINT64_MAX >> (64 - ACPI_PM_TIMER_BITS));
    pthread_mutex_unlock(&pm->lock);
    a->data = dev_lane(image[a->offset >> 3 & 1], a->offset & 7);
}

static void pm_write(void *ctx, const struct bus_access *a) {
    struct acpi_pm *pm = ctx;

    pthread_mutex_lock(&pm->lock);
    check(pm);
    for (unsigned i = 0; i < a->size; i++)
        pm_write_byte(pm, (unsigned)a->offset + i, (uint8_t)(a->data >> 8 * i));
    check(pm);
    pthread_mutex_unlock(&pm->lock);
}

static void gpe_read(void *ctx, struct bus_access *a) {
    struct acpi_pm *pm = ctx;

    pthread_mutex_lock(&pm->lock);
    a->data = dev_lane(pm->gpe_status | (uint64_t)pm->gpe_enable << 16, a->offset & 3);
    pthread_mutex_unlock(&pm->lock);
}

static void gpe_write(void *ctx, const struct bus_access *a) {
    struct acpi_pm *pm = ctx;

    pthread_mutex_lock(&pm->lock);
    for (unsigned i = 0; i < a->size && a->offset + i < 4; i++) {
        unsigned offset = (unsigned)a->offset + i, shift = 8 * (offset & 1);
        uint16_t bits = (uint16_t)((a->data >> 8 * i & 0xff) << shift);
        if (offset < 2)
            pm->gpe_status &= ~bits;
        else
            pm->gpe_enable = (pm->gpe_enable & (0xff00 >> shift)) | bits;
    }
    update_sci(pm);
    pthread_mutex_unlock(&pm->lock);
}

static void reset_read(void *ctx, struct bus_access *a) {
    struct acpi_pm *pm = ctx;

    pthread_mutex_lock(&pm->lock);
    a->data = pm->reset_control;
    pthread_mutex_unlock(&pm->lock);
}

// A rising RST_CPU resets, whether SYS_RST asks for a hard reset or (0) for INIT: both restart the machine here.
static void reset_write(void *ctx, const struct bus_access *a) {
    struct acpi_pm *pm = ctx;
    bool reset;

    pthread_mutex_lock(&pm->lock);
    reset = a->data & ~pm->reset_control & RESET_CPU;
    pm->reset_control = a->data & RESET_WRITABLE;
    pthread_mutex_unlock(&pm->lock);
    if (reset)
        machine_reset_request(pm->machine);
}

// ---- component ----

static void pm_reset(void *ctx) {
    struct acpi_pm *pm = ctx;

    pthread_mutex_lock(&pm->lock);
    pm->status = pm->enable = pm->control = 0;
    pm->gpe_status = pm->gpe_enable = 0;
    pm->reset_control = 0;
    pm->timer_top = pm_ticks(pm) >> (ACPI_PM_TIMER_BITS - 1);
    vtimer_cancel(&pm->timer);
    update_sci(pm);
    pthread_mutex_unlock(&pm->lock);
}

static void pm_save(void *ctx, struct state_writer *w) {
    struct acpi_pm *pm = ctx;

    state_put_u16(w, pm->status);
    state_put_u16(w, pm->enable);
    state_put_u16(w, pm->control);
    state_put_u16(w, pm->gpe_status);
    state_put_u16(w, pm->gpe_enable);
    state_put_u8(w, pm->reset_control);
    state_put_u8(w, pm->sci);
    state_put_u64(w, pm->timer_top);
}

static int pm_load(void *ctx, struct state_reader *r, struct error *err) {
    struct acpi_pm *pm = ctx;

    pm->status = state_get_u16(r) & PM1_STATUS_BITS;
    pm->enable = state_get_u16(r) & PM1_ENABLE_BITS;
    pm->control = state_get_u16(r) & CONTROL_WRITABLE;
    pm->gpe_status = state_get_u16(r);
    pm->gpe_enable = state_get_u16(r);
    pm->reset_control = state_get_u8(r) & RESET_WRITABLE;
    pm->sci = state_get_u8(r);
    pm->timer_top = state_get_u64(r);
    return r->error ? error_set(err, r->error, "saved ACPI state is damaged") : 0;
}

static void pm_destroy(void *ctx) {
    struct acpi_pm *pm = ctx;

    vtimer_fini(&pm->timer);
    pthread_mutex_destroy(&pm->lock);
    free(pm);
}

static const struct component_ops component_ops = {
    .name = "acpi_pm",
    .version = 1,
    .reset = pm_reset,
    .resume = timer_fired,
    .save = pm_save,
    .load = pm_load,
    .destroy = pm_destroy,
};

static const struct bus_ops pm_ops = {.name = "acpi-pm", .read = pm_read, .write = pm_write};
static const struct bus_ops gpe_ops = {.name = "acpi-gpe", .read = gpe_read, .write = gpe_write};
static const struct bus_ops reset_ops = {.name = "reset-control", .read = reset_read, .write = reset_write};

int acpi_pm_create(struct dev_env *env, struct acpi_pm **out, struct error *err) {
    const struct dev_range ranges[] = {
        {env->pio, ACPI_PM_BASE, 12, &pm_ops},
        {env->pio, ACPI_PM_GPE_BASE, 4, &gpe_ops},
        {env->pio, ACPI_PM_RESET_PORT, 1, &reset_ops},
    };
    struct acpi_pm *pm = calloc(1, sizeof(*pm));
    int ret;

    if (!pm)
        return error_set(err, -ENOMEM, "create ACPI registers");
    pthread_mutex_init(&pm->lock, NULL);
    pm->machine = env->machine;
    vtimer_init(&pm->timer, &env->machine->clock, timer_fired, pm);
    pm_reset(pm);
    ret = dev_attach(env, &component_ops, pm, 0, ranges, ARRAY_LEN(ranges), err);
    if (ret) {
        pm_destroy(pm);
        return ret;
    }
    *out = pm;
    return 0;
}
