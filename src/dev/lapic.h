// SPDX-License-Identifier: Apache-2.0
// The local APICs of all vCPUs (Intel SDM 3A chapter 11, "Advanced Programmable Interrupt Controller"):
// xAPIC registers at 0xfee00000, x2APIC MSRs 0x800..0x83f, IA32_APIC_BASE and IA32_TSC_DEADLINE.
// APIC ID = index of the vCPU; vCPU 0 is the bootstrap processor.
//
// Threads: lapic_send, lapic_msi, lapic_set_extint, lapic_set_lint may be called from any thread, with the
// lock of the caller's chip held; they post with atomics and wake the target, and take no lock of a device.
#ifndef CICADA_DEV_LAPIC_H
#define CICADA_DEV_LAPIC_H

#include "core/irqchip.h"
#include "dev/dev.h"

#define LAPIC_DEFAULT_BASE UINT64_C(0xfee00000)
#define LAPIC_BUS_HZ       UINT64_C(1000000000) // timer input clock before the divider: virtual nanoseconds

// MSRs answered through irqchip_cpu_ops.reg_read and reg_write.
#define LAPIC_MSR_APIC_BASE    0x1bu
#define LAPIC_MSR_TSC_DEADLINE 0x6e0u
#define LAPIC_MSR_TSC_OFFSET   0x10u // write only: the engine tells the offset of the guest's TSC when IA32_TSC moves
#define LAPIC_MSR_X2APIC       0x800u

// Delivery modes, as encoded in ICR, LVT, I/O APIC and MSI data.
enum lapic_delivery {
    LAPIC_DM_FIXED = 0,
    LAPIC_DM_LOWEST = 1,
    LAPIC_DM_SMI = 2,
    LAPIC_DM_NMI = 4,
    LAPIC_DM_INIT = 5,
    LAPIC_DM_SIPI = 6,
    LAPIC_DM_EXTINT = 7,
};

#define LAPIC_BROADCAST UINT32_MAX // physical destination: every vCPU

struct lapic_msg {
    uint32_t dest;
    bool logical;
    bool level; // trigger mode: its EOI is broadcast to the I/O APIC
    enum lapic_delivery mode;
    uint8_t vector;
};

struct lapic;

// tsc_hz: frequency of the guest's TSC, 0 for the host's. Becomes the MSI sink of the machine's router.
int lapic_create(struct dev_env *env, unsigned nvcpus, uint64_t tsc_hz, struct lapic **out, struct error *err);
// Array of nvcpus entries for engine_host.irqchips; lives as long as the lapic.
const struct irqchip_cpu *lapic_irqchips(const struct lapic *l);

void lapic_send(struct lapic *l, const struct lapic_msg *msg);
// An 8-bit destination as I/O APIC and MSI carry it: physical 0xff means everyone.
uint32_t lapic_dest8(uint32_t dest, bool logical);
// Memory write of a message-signalled interrupt (SDM 3A 11.11). ctx is a struct lapic.
void lapic_msi(void *ctx, uint64_t addr, uint32_t data);

// The engine has the local APICs (ENGINE_IRQCHIP_LOCAL), these ones only stand for them: lapic_send and lapic_route go
// there. Machine paused, or being built.
void lapic_set_remote(struct lapic *l, bool remote);
// The I/O APIC: pin sends msg from now on. The caller serialises; any thread.
void lapic_route(struct lapic *l, unsigned pin, const struct lapic_msg *msg);
// The I/O APIC: told about the EOI of each level-triggered vector, on the vCPU's thread.
void lapic_set_eoi_sink(struct lapic *l, void (*eoi)(void *ctx, uint8_t vector), void *ctx);
// The 8259 pair, wired to LINT0 of the BSP: ack runs the INTA cycle and returns the vector.
void lapic_set_pic(struct lapic *l, int (*ack)(void *ctx), void *ctx);
// The INTR output of the 8259 pair: the vector that an INTA would give now, or -1 for a low line.
void lapic_set_extint(struct lapic *l, int vector);
// Level of the LINT1 pins (all vCPUs): NMI button, chipset errors. A rising edge counts.
void lapic_set_lint1(struct lapic *l, bool level);

// Guest TSC = nondet_tsc + offset (default 0); re-evaluates an armed TSC deadline. vCPU stopped, or its thread.
void lapic_set_tsc_offset(struct lapic *l, unsigned vcpu, uint64_t offset);

#endif
