// SPDX-License-Identifier: Apache-2.0
// Interrupt controllers of a test guest: local APIC (memory-mapped), I/O APIC, 8259s.
#ifndef APIC_H
#define APIC_H

#include "guest.h"

enum {
    APIC_ID = 0x20,
    APIC_VERSION = 0x30,
    APIC_TPR = 0x80,
    APIC_PPR = 0xa0,
    APIC_EOI = 0xb0,
    APIC_LDR = 0xd0,
    APIC_DFR = 0xe0,
    APIC_SVR = 0xf0,
    APIC_ISR = 0x100,
    APIC_IRR = 0x200,
    APIC_ESR = 0x280,
    APIC_ICR = 0x300,
    APIC_ICR_HIGH = 0x310,
    APIC_LVT_TIMER = 0x320,
    APIC_LVT_LINT0 = 0x350,
    APIC_LVT_LINT1 = 0x360,
    APIC_INITIAL = 0x380,
    APIC_CURRENT = 0x390,
    APIC_DIVIDE = 0x3e0,
};
enum { LVT_MASKED = 0x10000, TIMER_PERIODIC = 0x20000, TIMER_DEADLINE = 0x40000 };
enum { ICR_NMI = 0x400, ICR_INIT = 0x500, ICR_STARTUP = 0x600, ICR_ASSERT = 0x4000, ICR_LEVEL = 0x8000 };
enum { ICR_SELF = 1 << 18, ICR_ALL = 2 << 18, ICR_OTHERS = 3 << 18 };

static inline u32 apic_read(unsigned reg) {
    return *(volatile u32 *)(word)(0xfee00000 + reg);
}
static inline void apic_write(unsigned reg, u32 v) {
    *(volatile u32 *)(word)(0xfee00000 + reg) = v;
}
static inline void apic_on(void) {
    apic_write(APIC_SVR, 0x1ff);
    apic_write(APIC_TPR, 0);
    apic_write(APIC_LVT_LINT0, LVT_MASKED);
    apic_write(APIC_LVT_TIMER, LVT_MASKED);
    apic_write(APIC_DIVIDE, 0xb); // by 1
}
static inline void eoi(void) {
    apic_write(APIC_EOI, 0);
}
static inline void ipi(u32 dest, u32 low) {
    apic_write(APIC_ICR_HIGH, dest << 24);
    apic_write(APIC_ICR, low);
    while (apic_read(APIC_ICR) & 0x1000)
        ;
}
static inline void ioapic_write(unsigned reg, u32 v) {
    *(volatile u32 *)0xfec00000 = reg;
    *(volatile u32 *)0xfec00010 = v;
}
static inline u32 ioapic_read(unsigned reg) {
    *(volatile u32 *)0xfec00000 = reg;
    return *(volatile u32 *)0xfec00010;
}
static inline void ioapic_route(unsigned pin, u64 entry) {
    ioapic_write(0x10 + 2 * pin, LVT_MASKED);
    ioapic_write(0x11 + 2 * pin, (u32)(entry >> 32));
    ioapic_write(0x10 + 2 * pin, (u32)entry);
}
static inline void pic_on(u8 base, u8 mask_master, u8 mask_slave) {
    outb(0x20, 0x11), outb(0x21, base), outb(0x21, 4), outb(0x21, 1);
    outb(0xa0, 0x11), outb(0xa1, (u8)(base + 8)), outb(0xa1, 2), outb(0xa1, 1);
    outb(0x21, mask_master), outb(0xa1, mask_slave);
}
static inline void pic_off(void) {
    outb(0x21, 0xff), outb(0xa1, 0xff);
}
#endif
