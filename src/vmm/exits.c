// SPDX-License-Identifier: Apache-2.0
// VM exits: one handler for each reason.
#define LOG_UNIT "exit"
#include "vmm/exits.h"

#include "util/log.h"

static struct bus *pio_bus, *mmio_bus;

void exits_set_buses(struct machine *m, struct bus *pio, struct bus *mmio) {
    pio_bus = pio;
    mmio_bus = mmio;
}

static void on_pio(struct vcpu *v, struct vm_exit *e) {
    uint64_t data = ~0ull;
    if (e->pio.write) {
        bus_write(pio_bus, e->pio.port, e->pio.size, v->index, e->pio.data);
        return;
    }
    bus_read(pio_bus, e->pio.port, e->pio.size, v->index, &data);
    e->pio.data = (uint32_t)data;
}

static void on_mmio(struct vcpu *v, struct vm_exit *e) {
    if (e->mmio.write)
        bus_write(mmio_bus, e->mmio.gpa.v, e->mmio.size, v->index, e->mmio.data);
    else
        bus_read(mmio_bus, e->mmio.gpa.v, e->mmio.size, v->index, &e->mmio.data);
}

static void on_halt(struct vcpu *v, struct vm_exit *e) {
    vcpu_wait_for_interrupt(v);
}

static void on_shutdown(struct vcpu *v, struct vm_exit *e) {
    log_error("vCPU %u: triple fault", v->index);
    machine_end(v->machine, MACHINE_CRASH);
}

static void on_fail(struct vcpu *v, struct vm_exit *e) {
    log_error("vCPU %u: the engine cannot go on: %s", v->index, e->fail.text);
    machine_end(v->machine, MACHINE_INTERNAL);
}

static void on_unexpected(struct vcpu *v, struct vm_exit *e) {
    log_error("vCPU %u: unexpected exit %s", v->index, exit_reason_name(e->reason));
    machine_end(v->machine, MACHINE_INTERNAL);
}

static void on_debug(struct vcpu *v, struct vm_exit *e) {
    const struct machine_debugger *d = &v->machine->debugger;
    if (d->stopped)
        d->stopped(d->ctx, v, e);
    else
        on_unexpected(v, e);
}

void (*const exits_table[EXIT_REASON_COUNT])(struct vcpu *v, struct vm_exit *exit) = {
    [EXIT_NONE] = on_unexpected,   [EXIT_PIO] = on_pio,     [EXIT_MMIO] = on_mmio,
    [EXIT_BUDGET] = on_unexpected, [EXIT_HALT] = on_halt,   [EXIT_WAIT_SIPI] = on_halt,
    [EXIT_SHUTDOWN] = on_shutdown, [EXIT_DEBUG] = on_debug, [EXIT_FAIL] = on_fail,
};

void exits_answer(void *ctx, unsigned vcpu, struct vm_exit *exit) {
    struct machine *m = ctx;
    exits_table[exit->reason](&m->vcpus[vcpu], exit);
}
