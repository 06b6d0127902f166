// SPDX-License-Identifier: Apache-2.0
// Interrupt routing: devices raise GSIs or send MSIs, the router hands them to the chips that registered.
// Thread-safe. GSI 0..15 reach both the 8259 pair and the I/O APIC, 16..23 the I/O APIC alone.
#ifndef CICADA_CORE_IRQ_H
#define CICADA_CORE_IRQ_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define IRQ_GSI_COUNT 24
#define IRQ_MAX_SINKS 4

struct irq_router {
    struct {
        void (*set)(void *ctx, unsigned gsi, bool level);
        void *ctx;
        bool muted;
    } sinks[IRQ_MAX_SINKS];
    unsigned nsinks;
    void (*msi)(void *ctx, uint64_t addr, uint32_t data);
    void *msi_ctx;
};

void irq_router_init(struct irq_router *r);
int irq_add_sink(struct irq_router *r, void (*set)(void *ctx, unsigned gsi, bool level), void *ctx);
void irq_set_msi_sink(struct irq_router *r, void (*msi)(void *ctx, uint64_t addr, uint32_t data), void *ctx);
// Takes the sinks [first, first + count), in the order they were added, off the lines or puts them back. Loop thread,
// vCPUs stopped, devices paused.
void irq_mute_sinks(struct irq_router *r, unsigned first, unsigned count, bool muted);

// Sets the level of a line. Edge sources pulse: true, then false.
void irq_set(struct irq_router *r, unsigned gsi, bool level);
// Sends a message-signalled interrupt (Intel SDM 3A 11.11).
void irq_msi(struct irq_router *r, uint64_t addr, uint32_t data);

// A line shared by several level-triggered devices (PCI INTx): the OR of its users.
struct irq_line {
    struct irq_router *router;
    unsigned gsi;
    pthread_mutex_t lock; // guards asserted and the users' *held; held while the sinks are called
    unsigned asserted;    // users that hold it high
};
void irq_line_init(struct irq_line *l, struct irq_router *r, unsigned gsi);
// *held is the user's own memory of what it drives.
void irq_line_set(struct irq_line *l, bool *held, bool level);

#endif
