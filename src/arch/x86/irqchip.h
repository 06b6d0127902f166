// SPDX-License-Identifier: Apache-2.0
// The canonical state of the interrupt controllers and the interval timer: engine-neutral, the form that snapshots and
// migration read and write. The chips of src/dev and those inside an engine (KVM's) both save to it and load from it,
// in sections of the same names and versions, so a machine goes on on either.
//
// Times are the machine's virtual nanoseconds (core/clock.h).
#ifndef CICADA_ARCH_X86_IRQCHIP_H
#define CICADA_ARCH_X86_IRQCHIP_H

#include <stdbool.h>
#include <stdint.h>

#include "core/stateio.h"
#include "util/error.h"

// Which chip, in engine_ops.irqchip_get and irqchip_set. The instance is the vCPU for the local APIC, else 0.
enum x86_chip { X86_CHIP_LAPIC, X86_CHIP_IOAPIC, X86_CHIP_PIC, X86_CHIP_PIT };

// Names and versions of the sections.
#define X86_LAPIC_SECTION  "lapic" // one for all vCPUs
#define X86_LAPIC_VERSION  1
#define X86_IOAPIC_SECTION "i82093aa"
#define X86_IOAPIC_VERSION 1
#define X86_PIC_SECTION    "i8259"
#define X86_PIC_VERSION    1
#define X86_PIT_SECTION    "i8254"
#define X86_PIT_VERSION    1

// ---- local APIC (Intel SDM 3A chapter 11) ----

#define X86_APIC_BASE_ADDRESS UINT64_C(0xfee00000)
#define X86_APIC_BASE_BSP     (UINT64_C(1) << 8)
#define X86_APIC_BASE_X2APIC  (UINT64_C(1) << 10)
#define X86_APIC_BASE_ENABLE  (UINT64_C(1) << 11)

// Register numbers: MMIO offset / 16 = x2APIC MSR - 0x800 (SDM 3A table 11-1 and 11-6).
enum {
    X86_APIC_ID = 0x02,
    X86_APIC_VERSION = 0x03,
    X86_APIC_TPR = 0x08,
    X86_APIC_APR = 0x09,
    X86_APIC_PPR = 0x0a,
    X86_APIC_EOI = 0x0b,
    X86_APIC_RRD = 0x0c,
    X86_APIC_LDR = 0x0d,
    X86_APIC_DFR = 0x0e,
    X86_APIC_SVR = 0x0f,
    X86_APIC_ISR = 0x10, // 8 registers of 32 bits
    X86_APIC_TMR = 0x18,
    X86_APIC_IRR = 0x20,
    X86_APIC_ESR = 0x28,
    X86_APIC_ICR = 0x30,
    X86_APIC_ICR_HIGH = 0x31,
    X86_APIC_LVT = 0x32, // 6 registers, in the order of X86_LVT_*
    X86_APIC_TIMER_INITIAL = 0x38,
    X86_APIC_TIMER_CURRENT = 0x39,
    X86_APIC_TIMER_DIVIDE = 0x3e,
    X86_APIC_SELF_IPI = 0x3f,
};

#define X86_LVT_MASKED   (1u << 16)
#define X86_LVT_MODE(l)  ((l) >> 17 & 3) // of the timer's entry
#define X86_LVT_DELIVERY 8               // shift of the delivery mode

enum { X86_LVT_TIMER, X86_LVT_THERMAL, X86_LVT_PERF, X86_LVT_LINT0, X86_LVT_LINT1, X86_LVT_ERROR, X86_LVT_COUNT };
enum { X86_TIMER_ONE_SHOT, X86_TIMER_PERIODIC, X86_TIMER_TSC_DEADLINE };

// The input clock of the timer before its divider: virtual nanoseconds.
struct x86_lapic_state {
    uint64_t base;                   // IA32_APIC_BASE
    uint64_t irr[4], isr[4], tmr[4]; // vector v is bit v % 64 of word v / 64
    uint32_t events;                 // posted and not taken: IRQCHIP_* of core/irqchip.h, SIPI vector in 15:8
    uint32_t esr, esr_pending;       // as read, and what the next write to it shows
    uint32_t svr, ldr, dfr, tpr;     // ldr: of xAPIC mode; x2APIC mode derives it from the ID
    uint64_t icr;                    // destination in 63:56 or 63:32, as the mode of the APIC has it
    uint32_t lvt[X86_LVT_COUNT];
    uint32_t initial, divide; // registers of the timer
    bool counting;            // one-shot not yet expired, or periodic
    uint64_t start_ns;        // when the present period began
    uint64_t tsc_deadline;    // in ticks of the guest's TSC, 0 = none
};

// What DCR shifts the input clock by (11.5.4), from its bits 3, 1, 0: 000 = 2 is 1, ... 110 = 128 is 7, 111 = 1 is 0.
#define X86_LAPIC_DIVIDE_SHIFT(divide) (((((divide) >> 1 & 4) | ((divide)&3)) + 1) & 7)

// The time from the start of a count to its end, in nanoseconds.
uint64_t x86_lapic_period_ns(const struct x86_lapic_state *s);
// At power-on as firmware leaves it: virtual wire mode, so that the 8259 reaches the bootstrap processor, vCPU 0.
void x86_lapic_reset(struct x86_lapic_state *s, unsigned vcpu);

// lint1: level of the LINT1 pins. n is the number of vCPUs; -EINVAL for a section of another one or a damaged one.
void x86_lapics_save(const struct x86_lapic_state *s, unsigned n, bool lint1, struct state_writer *w);
int x86_lapics_load(struct x86_lapic_state *s, unsigned n, bool *lint1, struct state_reader *r, struct error *err);

// ---- I/O APIC (Intel 82093AA datasheet) ----

#define X86_IOAPIC_PINS       24
#define X86_IOAPIC_REMOTE_IRR (UINT64_C(1) << 14)
#define X86_IOAPIC_LEVEL      (UINT64_C(1) << 15)
#define X86_IOAPIC_MASKED     (UINT64_C(1) << 16)
// 63:56 destination, 55:49 the extended destination ID of paravirtual interfaces, 16:0 but for the status bits.
#define X86_IOAPIC_WRITABLE   UINT64_C(0xfffe00000001afff)

struct x86_ioapic_state {
    uint32_t index, id;
    uint32_t lines; // asserted pins
    uint64_t entries[X86_IOAPIC_PINS];
};

void x86_ioapic_reset(struct x86_ioapic_state *s); // keeps id and lines, which are not the guest's
void x86_ioapic_save(const struct x86_ioapic_state *s, struct state_writer *w);
int x86_ioapic_load(struct x86_ioapic_state *s, struct state_reader *r, struct error *err);

// ---- 8259A pair ----

#define X86_PIC_CASCADE 2 // input of the master that the slave drives

enum x86_pic_step { X86_PIC_READY, X86_PIC_ICW2, X86_PIC_ICW3, X86_PIC_ICW4 }; // the next byte of initialization

struct x86_pic_chip {
    uint8_t lines, irr, isr, imr;
    uint8_t elcr; // level-triggered inputs
    uint8_t vector_base;
    uint8_t first; // input of highest priority
    uint8_t step;  // enum x86_pic_step
    bool single, need_icw4, auto_eoi, rotate_on_auto_eoi;
    bool special_mask, special_nested;
    bool read_isr, poll;
};

struct x86_pic_state {
    struct x86_pic_chip chips[2]; // master, slave
};

uint8_t x86_pic_elcr_mask(unsigned chip);    // inputs that may be level-triggered
void x86_pic_reset(struct x86_pic_state *s); // keeps the lines; all inputs masked, as firmware leaves the pair
void x86_pic_save(const struct x86_pic_state *s, struct state_writer *w);
int x86_pic_load(struct x86_pic_state *s, struct state_reader *r, struct error *err);

// ---- 8254 ----

#define X86_PIT_CHANNELS 3
#define X86_PIT_HZ       UINT64_C(1193182)

enum { X86_PIT_LOW = 1, X86_PIT_HIGH = 2, X86_PIT_BOTH = 3 }; // bytes of an access

struct x86_pit_channel {
    uint32_t count;      // 1..65536 (1..10000 in BCD), not in BCD digits
    uint64_t start_ns;   // when the count began
    uint64_t held_ticks; // where a closed gate stopped it
    bool running;        // a count was loaded and, in modes 1 and 5, triggered
    bool gate;
    bool bcd;
    uint8_t mode, access;
    bool write_high, read_high; // the next byte of a two-byte access is the high one
    uint8_t write_low;
    uint8_t latched; // bytes of latch not yet read: X86_PIT_*
    uint16_t latch;
    bool status_latched;
    uint8_t status;
};

struct x86_pit_state {
    struct x86_pit_channel ch[X86_PIT_CHANNELS];
    uint64_t edges; // rising edges of channel 0 since its count began that were raised
    uint8_t port61; // bits 3:0 as written
};

void x86_pit_reset(struct x86_pit_state *s);
void x86_pit_save(const struct x86_pit_state *s, struct state_writer *w);
int x86_pit_load(struct x86_pit_state *s, struct state_reader *r, struct error *err);

#endif
