// SPDX-License-Identifier: Apache-2.0
// I/O APIC. Everything is under `lock`; messages go to the local APICs with it held (lapic.h allows that).
// Invariant: a level-triggered pin with remote IRR set sends nothing until its EOI comes.
// On the path of an EOI through an x2APIC MSR: general registers only.
#include "dev/i82093aa.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "arch/x86/irqchip.h"
#include "dev/gpr_only.h"

#define PINS    X86_IOAPIC_PINS
#define VERSION (0x11u | (PINS - 1) << 16) // as KVM's: without an EOI register

// Registers behind the index (datasheet 3.2).
enum { REG_ID = 0x00, REG_VERSION = 0x01, REG_ARBITRATION = 0x02, REG_REDIRECTION = 0x10 };
// MMIO offsets.
enum { MMIO_INDEX = 0x00, MMIO_DATA = 0x10 };

#define ENTRY_LOGICAL (UINT64_C(1) << 11)

struct i82093aa {
    struct lapic *lapic;
    pthread_mutex_t lock;
    struct x86_ioapic_state s; // polarity of the lines is the router's: true is active
};

GPR_ONLY_BEGIN

static struct lapic_msg message_of(uint64_t entry) {
    bool logical = entry & ENTRY_LOGICAL;
    uint32_t dest = (uint32_t)(entry >> 56) | (uint32_t)(entry >> 49 & 0x7f) << 8;

    return (struct lapic_msg){
        .dest = lapic_dest8(dest, logical),
        .logical = logical,
        .level = entry & X86_IOAPIC_LEVEL,
        .mode = (enum lapic_delivery)(entry >> 8 & 7),
        .vector = entry & 0xff,
    };
}

static void send(struct i82093aa *io, uint64_t entry) {
    const struct lapic_msg msg = message_of(entry);

    lapic_send(io->lapic, &msg);
}

// Only interrupts that will be ended by an EOI set remote IRR.
static bool has_eoi(uint64_t entry) {
    return (entry >> 8 & 7) <= LAPIC_DM_LOWEST;
}

static void service_level(struct i82093aa *io, unsigned pin) {
    uint64_t entry = io->s.entries[pin];

    if (!(entry & X86_IOAPIC_LEVEL) || entry & (X86_IOAPIC_MASKED | X86_IOAPIC_REMOTE_IRR) ||
        !(io->s.lines & 1u << pin))
        return;
    if (has_eoi(entry))
        io->s.entries[pin] |= X86_IOAPIC_REMOTE_IRR;
    send(io, entry);
}

// Datasheet 3.2.4: an edge on a masked pin is lost.
static void set_pin(struct i82093aa *io, unsigned pin, bool level) {
    bool rising = level && !(io->s.lines & 1u << pin);
    uint64_t entry = io->s.entries[pin];

    io->s.lines = level ? io->s.lines | 1u << pin : io->s.lines & ~(1u << pin);
    if (entry & X86_IOAPIC_LEVEL)
        service_level(io, pin);
    else if (rising && !(entry & X86_IOAPIC_MASKED))
        send(io, entry);
}

static void ioapic_set_gsi(void *ctx, unsigned gsi, bool level) {
    struct i82093aa *io = ctx;

    if (gsi == 2 || gsi >= PINS)
        return;
    pthread_mutex_lock(&io->lock);
    set_pin(io, gsi == 0 ? 2 : gsi, level);
    pthread_mutex_unlock(&io->lock);
}

static void ioapic_eoi(void *ctx, uint8_t vector) {
    struct i82093aa *io = ctx;

    pthread_mutex_lock(&io->lock);
    for (unsigned pin = 0; pin < PINS; pin++) {
        if (!(io->s.entries[pin] & X86_IOAPIC_REMOTE_IRR) || (io->s.entries[pin] & 0xff) != vector)
            continue;
        io->s.entries[pin] &= ~X86_IOAPIC_REMOTE_IRR;
        service_level(io, pin);
    }
    pthread_mutex_unlock(&io->lock);
}

GPR_ONLY_END

// Also where it is masked: the EOI of an interrupt from before is still due.
static void route(struct i82093aa *io, unsigned pin) {
    const struct lapic_msg msg = message_of(io->s.entries[pin]);

    lapic_route(io->lapic, pin, &msg);
}

static void route_all(struct i82093aa *io) {
    for (unsigned pin = 0; pin < PINS; pin++)
        route(io, pin);
}

// Software clears remote IRR by a turn through edge mode (Linux does).
static void write_entry(struct i82093aa *io, unsigned pin, bool high, uint32_t val) {
    uint64_t old = io->s.entries[pin], entry;

    if (high)
        entry = (uint32_t)old | (uint64_t)val << 32;
    else
        entry = old >> 32 << 32 | val;
    entry = (entry & X86_IOAPIC_WRITABLE) | (old & X86_IOAPIC_REMOTE_IRR);
    if (!(entry & X86_IOAPIC_LEVEL))
        entry &= ~X86_IOAPIC_REMOTE_IRR;
    io->s.entries[pin] = entry;
    route(io, pin);
    service_level(io, pin);
}

static uint32_t read_register(struct i82093aa *io) {
    unsigned pin = (io->s.index - REG_REDIRECTION) / 2;

    switch (io->s.index) {
    case REG_ID:
    case REG_ARBITRATION: return io->s.id << 24;
    case REG_VERSION: return VERSION;
    }
    if (io->s.index < REG_REDIRECTION || pin >= PINS)
        return 0;
    return (uint32_t)(io->s.entries[pin] >> (io->s.index & 1 ? 32 : 0));
}

static void write_register(struct i82093aa *io, uint32_t val) {
    unsigned pin = (io->s.index - REG_REDIRECTION) / 2;

    if (io->s.index == REG_ID)
        io->s.id = val >> 24 & 0xf;
    else if (io->s.index >= REG_REDIRECTION && pin < PINS)
        write_entry(io, pin, io->s.index & 1, val);
}

static void mmio_read(void *ctx, struct bus_access *a) {
    struct i82093aa *io = ctx;
    uint32_t val = 0;

    pthread_mutex_lock(&io->lock);
    switch (a->offset & ~UINT64_C(3)) {
    case MMIO_INDEX: val = io->s.index; break;
    case MMIO_DATA: val = read_register(io); break;
    }
    pthread_mutex_unlock(&io->lock);
    a->data = dev_lane(val, a->offset & 3);
}

static void mmio_write(void *ctx, const struct bus_access *a) {
    struct i82093aa *io = ctx;

    pthread_mutex_lock(&io->lock);
    if (a->offset == MMIO_INDEX)
        io->s.index = a->data & 0xff;
    else if (a->offset == MMIO_DATA && a->size >= 4)
        write_register(io, (uint32_t)a->data);
    pthread_mutex_unlock(&io->lock);
}

// The lines belong to the devices, which drive them down in their own reset.
static void ioapic_reset(void *ctx) {
    struct i82093aa *io = ctx;

    x86_ioapic_reset(&io->s);
    route_all(io);
}

static void ioapic_save(void *ctx, struct state_writer *w) {
    struct i82093aa *io = ctx;

    x86_ioapic_save(&io->s, w);
}

static int ioapic_load(void *ctx, struct state_reader *r, struct error *err) {
    struct i82093aa *io = ctx;
    struct x86_ioapic_state s;
    int ret = x86_ioapic_load(&s, r, err);

    if (ret)
        return ret;
    io->s = s;
    route_all(io);
    return 0;
}

static void ioapic_destroy(void *ctx) {
    struct i82093aa *io = ctx;

    pthread_mutex_destroy(&io->lock);
    free(io);
}

static const struct component_ops component_ops = {
    .name = X86_IOAPIC_SECTION,
    .version = X86_IOAPIC_VERSION,
    .reset = ioapic_reset,
    .save = ioapic_save,
    .load = ioapic_load,
    .destroy = ioapic_destroy,
};

static const struct bus_ops mmio_ops = {.name = "i82093aa", .read = mmio_read, .write = mmio_write};

int i82093aa_create(struct dev_env *env, uint64_t base, uint8_t id, struct lapic *lapic, struct i82093aa **out,
                    struct error *err) {
    const struct dev_range range = {env->mmio, base, PAGE_SIZE, &mmio_ops};
    struct i82093aa *io = calloc(1, sizeof(*io));
    int ret;

    if (!io)
        return error_set(err, -ENOMEM, "create I/O APIC");
    pthread_mutex_init(&io->lock, NULL);
    io->lapic = lapic;
    io->s.id = id & 0xf;
    ioapic_reset(io);
    ret = dev_attach(env, &component_ops, io, 0, &range, 1, err);
    if (ret) {
        ioapic_destroy(io);
        return ret;
    }
    ret = irq_add_sink(&env->machine->irq, ioapic_set_gsi, io);
    if (ret) // io belongs to the machine by now
        return error_set(err, ret, "connect I/O APIC");
    lapic_set_eoi_sink(lapic, ioapic_eoi, io);
    *out = io;
    return 0;
}
