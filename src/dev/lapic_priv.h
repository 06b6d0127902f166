// SPDX-License-Identifier: Apache-2.0
// Shared by the lapic*.c files only.
//
// Ownership: `posted` fields may be changed by any thread, atomically; `published` fields are written by the
// vCPU's thread (or with the vCPUs stopped) and read by all; `own` fields belong to the vCPU's thread; `timer`
// fields are under timer_lock. Lock order: a chip's lock, timer_lock, vcpu.lock (in vcpu_wake).
//
// Everything reachable from irqchip_cpu_ops runs while the guest's SSE state is live in the host registers:
// these files compile to general registers only and call nothing of libc but pthread and clock functions.
#ifndef CICADA_DEV_LAPIC_PRIV_H
#define CICADA_DEV_LAPIC_PRIV_H

#include <pthread.h>
#include <stdatomic.h>

#include "arch/x86/irqchip.h"
#include "dev/gpr_only.h"
#include "dev/lapic.h"

#define LVT_LEVEL      (1u << 15)
#define LVT_REMOTE_IRR (1u << 14)
#define LVT_MODE(lvt)  ((enum lapic_delivery)((lvt) >> X86_LVT_DELIVERY & 7))

#define SVR_ENABLE (1u << 8)

// Error status register (SDM 3A 11.5.3).
#define ESR_SEND_ILLEGAL     (1u << 5)
#define ESR_RECEIVE_ILLEGAL  (1u << 6)
#define ESR_ILLEGAL_REGISTER (1u << 7)

struct lapic_cpu {
    // posted
    _Atomic uint64_t irr[4], tmr[4];
    _Atomic uint32_t irr_words;   // bit w set: irr[w] may be non-zero
    _Atomic uint32_t events;      // IRQCHIP_* with the SIPI vector in 15:8
    _Atomic uint32_t esr_pending; // errors since the last write to ESR
    // published
    _Atomic uint64_t base __attribute__((aligned(64)));
    _Atomic uint32_t svr, ldr, dfr, ppr;
    _Atomic uint32_t lvt[X86_LVT_COUNT];
    // own
    uint64_t isr[4] __attribute__((aligned(64)));
    uint64_t icr; // as the mode of the APIC has it: destination in 63:56 or 63:32
    uint32_t tpr, esr;
    bool takes_extint; // the 8259's INTR reaches this processor
    unsigned index;
    struct lapic *lapic;
    // timer
    pthread_mutex_t timer_lock;
    struct vtimer timer;
    uint32_t initial, divide; // registers
    bool counting;            // one-shot not yet expired, or periodic
    bool armed;               // the vtimer is
    uint64_t start_ns;        // virtual time at which the present period began
    uint64_t tsc_deadline;    // guest TSC, 0 = none
    uint64_t tsc_offset;
};

struct lapic {
    struct machine *machine;
    unsigned nvcpus;
    bool remote; // the engine has them; changes with vCPUs stopped and devices paused
    uint64_t tsc_hz;
    uint64_t tsc_to_ns; // nanoseconds per tick, 32.32 fixed point
    _Atomic int extint; // vector offered by the 8259 pair, -1 = line low
    _Atomic bool lint1;
    _Atomic unsigned arbiter; // where lowest-priority arbitration starts looking
    void (*eoi)(void *ctx, uint8_t vector);
    void *eoi_ctx;
    int (*pic_ack)(void *ctx);
    void *pic_ctx;
    struct irqchip_cpu *chips; // [nvcpus]
    struct lapic_cpu *cpus;    // [nvcpus]
};

// lapic.c
int lapic_cpu_pending(void *ctx);
void lapic_cpu_eoi(struct lapic_cpu *c);
void lapic_cpu_update_ppr(struct lapic_cpu *c);
void lapic_cpu_update_extint(struct lapic_cpu *c);
void lapic_cpu_reset(void *ctx, bool init);
void lapic_cpu_wake(struct lapic_cpu *c);
// The engine looks for interrupts when woken: call after whatever may have made one deliverable.
void lapic_cpu_recheck(struct lapic_cpu *c);

// lapic_deliver.c
void lapic_cpu_accept(struct lapic_cpu *c, uint8_t vector, bool level); // into IRR, wakes
void lapic_cpu_deliver(struct lapic_cpu *c, enum lapic_delivery mode, uint8_t vector, bool level);
void lapic_cpu_deliver_lvt(struct lapic_cpu *c, unsigned entry); // unless masked
void lapic_cpu_error(struct lapic_cpu *c, uint32_t bit);
void lapic_cpu_send_ipi(struct lapic_cpu *c, uint64_t icr, bool x2apic);

// lapic_remote.c
void lapic_remote_send(struct lapic *l, const struct lapic_msg *msg);

// lapic_regs.c
extern const struct bus_ops lapic_mmio_ops;
int lapic_cpu_reg_read(void *ctx, uint32_t reg, uint64_t *val);
int lapic_cpu_reg_write(void *ctx, uint32_t reg, uint64_t val);

// lapic_timer.c
void lapic_timer_init(struct lapic_cpu *c);
void lapic_timer_fini(struct lapic_cpu *c);
void lapic_timer_reset(struct lapic_cpu *c);
void lapic_timer_rearm(struct lapic_cpu *c); // from the registers, after resume or load
void lapic_timer_set_initial(struct lapic_cpu *c, uint32_t count);
void lapic_timer_set_divide(struct lapic_cpu *c, uint32_t divide);
void lapic_timer_set_lvt(struct lapic_cpu *c, uint32_t lvt);
uint32_t lapic_timer_current(struct lapic_cpu *c);
void lapic_timer_set_deadline(struct lapic_cpu *c, uint64_t deadline);
uint64_t lapic_timer_deadline(struct lapic_cpu *c);

// lapic_state.c
void lapic_save(void *ctx, struct state_writer *w);
int lapic_load(void *ctx, struct state_reader *r, struct error *err);

static inline bool lapic_is_enabled(struct lapic_cpu *c) {
    return atomic_load_explicit(&c->base, memory_order_relaxed) & X86_APIC_BASE_ENABLE;
}

static inline bool lapic_is_x2apic(struct lapic_cpu *c) {
    return atomic_load_explicit(&c->base, memory_order_relaxed) & X86_APIC_BASE_X2APIC;
}

static inline bool lapic_is_software_enabled(struct lapic_cpu *c) {
    return lapic_is_enabled(c) && atomic_load_explicit(&c->svr, memory_order_relaxed) & SVR_ENABLE;
}

static inline uint32_t lapic_lvt(struct lapic_cpu *c, unsigned entry) {
    return atomic_load_explicit(&c->lvt[entry], memory_order_relaxed);
}

#endif
