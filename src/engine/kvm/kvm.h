// SPDX-License-Identifier: Apache-2.0
// What the files of the KVM engine share. An engine is one VM descriptor, a vCPU one vCPU descriptor with its mapped
// struct kvm_run (Linux Documentation/virt/kvm/api.rst; section numbers in the comments are of that file).
//
// Two set-ups of interrupt controllers: in the kernel (default: irq lines and MSIs go down by ioctl, a halted vCPU
// sleeps inside KVM_RUN), and in user space (engine_host.irqchips are asked, interrupts go in by KVM_INTERRUPT).
#ifndef CICADA_ENGINE_KVM_KVM_H
#define CICADA_ENGINE_KVM_KVM_H

#include <linux/kvm.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "arch/x86/cpuid.h"
#include "arch/x86/state.h"
#include "core/engine.h"

#define KVM_MAX_MSRS 64

struct kvm_vcpu;

// The in-kernel chips as they were after creation: writing them back is their reset.
struct kvm_chips {
    struct kvm_irqchip chip[3]; // PIC master, PIC slave, I/O APIC
    struct kvm_pit_state2 pit;
};

enum kvm_counter { KC_EXITS, KC_PIO, KC_MMIO, KC_HALTS, KC_MSR, KC_INTERRUPTS, KC_KICKS, KC_COUNT };
extern const char *const kvm_counter_names[KC_COUNT];

struct engine {
    const struct engine_host *host;
    int sys_fd, vm_fd;
    size_t run_size;      // of the mapping of a vCPU
    bool chips_in_kernel; // PIC, I/O APIC, PIT and local APICs
    bool user_msrs;       // MSRs of the interrupt controller exit to us (user-space chips only)
    bool has_xsave, has_xcrs, has_payload, has_tsc_offset;
    bool dirty_logging; // the slots have KVM_MEM_LOG_DIRTY_PAGES
    unsigned nmsrs;     // registers of kvm_msr_fields that this KVM can read and write
    uint8_t msr_field[KVM_MAX_MSRS];
    struct kvm_chips chips;
    struct kvm_vcpu **vcpus; // host->vcpus of them
};

struct kvm_vcpu {
    struct engine *engine;
    const struct irqchip_cpu *irqchip; // user-space chips only
    unsigned index;
    int fd;
    struct kvm_run *run;
    _Atomic pid_t tid;            // of the thread that runs it, 0 before
    atomic_bool kicked;           // run() is to return
    bool unfinished;              // KVM completes the last access on the next KVM_RUN, before that the state is stale
    bool stepping;                // KVM_SET_GUEST_DEBUG is set
    uint64_t budget;              // steps left
    uint8_t activity;             // enum x86_activity; with chips in the kernel KVM keeps it
    uint64_t apic_base;           // IA32_APIC_BASE after creation
    struct kvm_lapic_state lapic; // after creation, as struct kvm_chips
    atomic_uint_fast64_t counter[KC_COUNT]; // written by the vCPU's thread alone
};

// ioctl that goes on after a signal; the result or a negative errno.
int kvm_ioctl(int fd, unsigned long request, void *arg);
// 0 where this KVM does not know the capability; fd is the system or the VM descriptor.
int kvm_has(int fd, long capability);
static inline void kvm_count(struct kvm_vcpu *v, enum kvm_counter c) {
    atomic_fetch_add_explicit(&v->counter[c], 1, memory_order_relaxed);
}

// ---- open.c ----
// Descriptor of /dev/kvm, checked for what every set-up needs, or a negative errno with the way out in err.
int kvm_open(struct error *err);

// ---- memory.c ----
int kvm_memory_create(struct engine *e, struct error *err);
void kvm_memory_dirty_sync(struct engine *e);

// ---- irqchip.c ----
int kvm_chips_create(struct engine *e, struct error *err); // before the vCPUs
int kvm_chips_remember(struct engine *e, struct error *err);
int kvm_lapic_remember(struct kvm_vcpu *v, struct error *err);
void kvm_chips_line(struct engine *e, unsigned gsi, bool level);
void kvm_chips_msi(struct engine *e, uint64_t addr, uint32_t data);
void kvm_chips_reset(struct engine *e);
int kvm_user_msrs_enable(struct engine *e, struct error *err); // user-space chips

// ---- cpuid.c ----
int kvm_cpuid_set(struct kvm_vcpu *v, struct error *err);

// ---- msrs.c ----
void kvm_msrs_probe(struct engine *e, struct kvm_vcpu *v); // after kvm_cpuid_set
int kvm_msrs_get(struct kvm_vcpu *v, struct cpu_state *s);
int kvm_msrs_set(struct kvm_vcpu *v, const struct cpu_state *s);

// ---- tsc.c ----
bool kvm_tsc_has_offset(struct kvm_vcpu *v);
int kvm_tsc_get(struct kvm_vcpu *v, struct cpu_state *s);
int kvm_tsc_set(struct kvm_vcpu *v, const struct cpu_state *s);

// ---- fpu.c ----
int kvm_fpu_get(struct kvm_vcpu *v, struct cpu_state *s);
int kvm_fpu_set(struct kvm_vcpu *v, const struct cpu_state *s);

// ---- state.c ----
int kvm_state_get(struct kvm_vcpu *v, struct cpu_state *s);
int kvm_state_set(struct kvm_vcpu *v, const struct cpu_state *s);

// ---- step.c ----
int kvm_step_set(struct kvm_vcpu *v, uint64_t budget);
bool kvm_step_done(struct kvm_vcpu *v); // on each KVM_EXIT_DEBUG of a step

// ---- inject.c: interrupts from user-space chips ----
// Before KVM_RUN: takes events and interrupts from the chip. 0, 1 where the vCPU has nothing to do (*exit filled:
// halted or waiting for its start-up IPI), or a negative errno.
int kvm_inject(struct kvm_vcpu *v, struct vm_exit *exit);
void kvm_inject_after(struct kvm_vcpu *v); // after KVM_RUN, before its exit is handled

// ---- exits.c ----
// Handles run->exit_reason. True where run() is to return with *exit.
bool kvm_exit_handle(struct kvm_vcpu *v, struct vm_exit *exit);

// ---- report.c ----
// Logs the registers and the bytes at RIP and fills *exit with EXIT_FAIL and one line.
void kvm_report_failure(struct kvm_vcpu *v, struct vm_exit *exit, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

// ---- vcpu.c ----
int kvm_vcpu_create(struct engine *e, unsigned index, struct engine_vcpu **out, struct error *err);
void kvm_vcpu_destroy(struct engine_vcpu *ev);
int kvm_vcpu_enter_thread(struct engine_vcpu *ev, struct error *err);
void kvm_vcpu_run(struct engine_vcpu *ev, uint64_t budget, struct vm_exit *exit);
void kvm_vcpu_kick(struct engine_vcpu *ev);
void kvm_vcpu_poke(struct engine_vcpu *ev);

// ---- speed.c ----
int kvm_probe_speed(uint64_t *insns_per_second, struct error *err);

#endif
