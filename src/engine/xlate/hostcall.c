// SPDX-License-Identifier: Apache-2.0
// Calls out of the engine to its machine. Devices use libc and so the host's vector registers: the guest's are saved
// first, and come back when translated code is entered again.
#include "engine/xlate/engine.h"
#include "engine/xlate/profile.h"
#include "engine/xlate/stats.h"

static void host_exit(struct xcpu *x, struct vm_exit *e) {
    uint8_t part = part_enter(x, PART_DEVICES);
    fpu_save(x);
    x->engine->host->exit(x->engine->host->ctx, x->index, e);
    part_leave(x, part);
}

uint32_t host_pio_read(struct xcpu *x, uint16_t port, unsigned size) {
    struct vm_exit e = {.reason = EXIT_PIO};
    e.pio.port = port;
    e.pio.size = (uint8_t)size;
    e.pio.data = ~0u;
    x->stat[XS_PIO]++;
    host_exit(x, &e);
    return e.pio.data & (uint32_t)(~0ull >> (64 - 8 * size));
}

void host_pio_write(struct xcpu *x, uint16_t port, unsigned size, uint32_t val) {
    struct vm_exit e = {.reason = EXIT_PIO};
    e.pio.port = port;
    e.pio.size = (uint8_t)size;
    e.pio.write = true;
    e.pio.data = val;
    x->stat[XS_PIO]++;
    host_exit(x, &e);
}

uint64_t host_mmio_read(struct xcpu *x, uint64_t gpa, unsigned size) {
    struct vm_exit e = {.reason = EXIT_MMIO};
    e.mmio.gpa = GPA(gpa);
    e.mmio.size = (uint8_t)size;
    e.mmio.data = ~0ull;
    x->stat[XS_MMIO]++;
    host_exit(x, &e);
    return e.mmio.data & (~0ull >> (64 - 8 * size));
}

void host_mmio_write(struct xcpu *x, uint64_t gpa, unsigned size, uint64_t val) {
    struct vm_exit e = {.reason = EXIT_MMIO};
    e.mmio.gpa = GPA(gpa);
    e.mmio.size = (uint8_t)size;
    e.mmio.write = true;
    e.mmio.data = val;
    x->stat[XS_MMIO]++;
    host_exit(x, &e);
}

uint64_t host_tsc(struct xcpu *x) {
    return nondet_tsc(x->engine->host->nondet) + x->s.tsc_offset;
}

void host_random(struct xcpu *x, void *buf, size_t len) {
    fpu_save(x);
    nondet_random(x->engine->host->nondet, buf, len);
}

const struct cpuid_policy *xcpu_policy(const struct xcpu *x) {
    return x->engine->host->cpu_policy;
}

void emul_lock(struct xcpu *x) {
    xlock_lock(&x->engine->emul_mutex);
}
void emul_unlock(struct xcpu *x) {
    xlock_unlock(&x->engine->emul_mutex);
}
