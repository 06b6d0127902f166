// SPDX-License-Identifier: Apache-2.0
// What an engine asks of the interrupt controller of one vCPU, without knowing a device.
// dev/lapic.c implements it for xlate; KVM's in-kernel chips need none.
#ifndef CICADA_CORE_IRQCHIP_H
#define CICADA_CORE_IRQCHIP_H

#include <stdbool.h>
#include <stdint.h>

// Events that other vCPUs or devices post to a vCPU; returned by take_events as a mask.
enum {
    IRQCHIP_NMI = 1 << 0,
    IRQCHIP_INIT = 1 << 1,
    IRQCHIP_SIPI = 1 << 2, // vector in bits 15:8 of the mask
    IRQCHIP_SMI = 1 << 3,
};

struct irqchip_cpu_ops {
    // All called on the vCPU's own thread. Cheap: pending() runs at every interrupt window.
    int (*pending)(void *ctx); // highest vector that may be delivered now (above TPR/PPR, PIC ExtINT included), or -1
    int (*ack)(void *ctx);     // takes it: IRR to ISR (or PIC INTA); returns the vector, -1 if it went away
    uint32_t (*take_events)(void *ctx);
    uint8_t (*tpr_get)(void *ctx); // 8-bit TPR (CR8 is its upper half)
    void (*tpr_set)(void *ctx, uint8_t tpr);
    // Model-specific registers of the chip (x86: IA32_APIC_BASE, TSC deadline, x2APIC 0x800..0x8ff).
    // 0, or -EPERM for what must be #GP, -ENOENT for a register that is not the chip's.
    int (*reg_read)(void *ctx, uint32_t reg, uint64_t *val);
    int (*reg_write)(void *ctx, uint32_t reg, uint64_t val);
    // Engines with local APICs of their own (ENGINE_IRQCHIP_LOCAL) ask pending and ack for the PIC alone, nothing of
    // the above but them, and report here each EOI of a vector that irq_route told of.
    void (*eoi)(void *ctx, uint8_t vector);
    void (*reset)(void *ctx, bool init); // init: INIT signal (keeps the APIC base), else power-on
};

struct irqchip_cpu {
    const struct irqchip_cpu_ops *ops;
    void *ctx;
};

#endif
