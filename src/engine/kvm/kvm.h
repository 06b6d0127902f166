// SPDX-License-Identifier: Apache-2.0
// What the files of the KVM engine share. An engine is one VM descriptor, a vCPU one vCPU descriptor with its mapped
// struct kvm_run (Linux Documentation/virt/kvm/api.rst; section numbers in the comments are of that file).
//
// Three set-ups of interrupt controllers: in the kernel (default: irq lines and MSIs go down by ioctl, a halted vCPU
// sleeps inside KVM_RUN), the local APICs alone in the kernel (the PIC's interrupts go in by KVM_INTERRUPT, EOIs for
// the I/O APIC come out), and in user space (engine_host.irqchips are asked, all interrupts go in by KVM_INTERRUPT).
#ifndef CICADA_ENGINE_KVM_KVM_H
#define CICADA_ENGINE_KVM_KVM_H

#include <linux/kvm.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "arch/x86/cpuid.h"
#include "arch/x86/irqchip.h"
#include "arch/x86/state.h"
#include "core/clock.h"
#include "core/engine.h"

#define KVM_MAX_MSRS    64
#define KVM_MAX_PATCHES 256
#define IOAPIC_BASE     0xfec00000u

enum kvm_chips { KVM_CHIPS_KERNEL, KVM_CHIPS_SPLIT, KVM_CHIPS_USER };
enum kvm_ioeventfds { KVM_IOEVENTFD_AUTO, KVM_IOEVENTFD_ON, KVM_IOEVENTFD_OFF };
enum kvm_dirty_kind { KVM_DIRTY_AUTO, KVM_DIRTY_BITMAP, KVM_DIRTY_RING };

struct kvm_vcpu;

struct kvm_one_msr {
    struct kvm_msrs head;
    struct kvm_msr_entry entry;
};

// Points of a debugger, spread over the debug registers and, for breakpoints that find none free, patched into memory.
struct kvm_points {
    struct debug_point *points; // owned
    unsigned count;
    const struct debug_point *dr_point[4]; // what a debug register serves, NULL: free
    uint64_t dr[4], dr7;
    const struct debug_point *patched[KVM_MAX_PATCHES];
    uint8_t original[KVM_MAX_PATCHES];
    unsigned patches;
};

enum kvm_counter { KC_EXITS, KC_PIO, KC_MMIO, KC_HALTS, KC_MSR, KC_EOIS, KC_INTERRUPTS, KC_KICKS, KC_COUNT };
extern const char *const kvm_counter_names[KC_COUNT];

struct engine {
    const struct engine_host *host;
    int sys_fd, vm_fd;
    size_t run_size; // of the mapping of a vCPU
    uint8_t chips;   // enum kvm_chips
    bool has_xsave, has_xcrs, has_payload, has_tsc_offset;
    uint8_t ioeventfd;  // enum kvm_ioeventfds: which doorbells do not leave KVM_RUN
    bool dirty_logging; // the slots have KVM_MEM_LOG_DIRTY_PAGES
    bool dirty_ring;    // a ring for each vCPU; else a bitmap for each slot
    bool dirty_manual;  // reading the log does not clear it: KVM_CLEAR_DIRTY_LOG does
    unsigned nmsrs;     // registers of kvm_msr_fields that this KVM can read and write
    uint8_t msr_field[KVM_MAX_MSRS];
    bool pit_held; // pit was set and counts from kvm_pit_resume on
    struct x86_pit_state pit;
    struct kvm_msi level_routes[X86_IOAPIC_PINS]; // KVM_CHIPS_SPLIT; address 0: none
    struct kvm_points points;                     // vCPUs stopped when it changes
    bool blocks_irqs;                             // KVM_GUESTDBG_BLOCKIRQ
    struct kvm_vcpu **vcpus;                      // host->vcpus of them
};

struct kvm_vcpu {
    struct engine *engine;
    const struct irqchip_cpu *irqchip; // NULL where all chips are in the kernel
    unsigned index;
    int fd;
    struct kvm_run *run;
    struct kvm_dirty_gfn *ring;   // NULL without dirty_ring
    uint32_t ring_next;           // entry to be read next, counting on
    _Atomic pid_t tid;            // of the thread that runs it, 0 before
    atomic_bool kicked;           // run() is to return
    bool unfinished;              // KVM completes the last access on the next KVM_RUN, before that the state is stale
    struct kvm_guest_debug debug; // as KVM has it
    bool stepping;                // run() has a budget
    enum debug_step debug_step;   // for the debugger
    uint64_t budget;              // steps left
    uint8_t activity;             // enum x86_activity; with its local APIC in the kernel KVM keeps it
    bool timer_held;              // timer was set and counts from kvm_lapic_resume on
    struct x86_lapic_state timer; // its timer's fields
    atomic_uint_fast64_t counter[KC_COUNT]; // written by the vCPU's thread alone
};

// ioctl that goes on after a signal; the result or a negative errno.
int kvm_ioctl(int fd, unsigned long request, void *arg);
// 0 where this KVM does not know the capability; fd is the system or the VM descriptor.
int kvm_has(int fd, long capability);
static inline void kvm_count(struct kvm_vcpu *v, enum kvm_counter c) {
    atomic_fetch_add_explicit(&v->counter[c], 1, memory_order_relaxed);
}

static inline bool kvm_lapic_in_kernel(const struct kvm_vcpu *v) {
    return v->engine->chips != KVM_CHIPS_USER;
}

// Virtual nanoseconds of the machine; 0 without one (unit tests).
static inline uint64_t kvm_clock_now(struct engine *e) {
    return e->host->clock ? clock_now_ns(e->host->clock) : 0;
}

// ---- open.c ----
// Descriptor of /dev/kvm, checked for what every set-up needs, or a negative errno with the way out in err.
int kvm_open(struct error *err);
// The same for one that was handed over: 0, or what it lacks.
int kvm_check(int fd, struct error *err);

// ---- memory.c ----
int kvm_memory_create(struct engine *e, struct error *err);
int kvm_memory_set_slot(struct engine *e, unsigned index, const struct mem_slot *s, bool logging);

// ---- dirty.c ----
int kvm_dirty_init(struct engine *e, enum kvm_dirty_kind kind, struct error *err); // before slots and vCPUs
void kvm_dirty_sync(struct engine *e);                                             // vCPUs stopped
void kvm_dirty_stop(struct engine *e);                                             // loop thread
void kvm_dirty_all(struct engine *e);                                              // marks all memory

// ---- dirty_ring.c ----
int kvm_ring_enable(struct engine *e); // before the vCPUs; -EOPNOTSUPP where KVM has none
int kvm_ring_map(struct kvm_vcpu *v, struct error *err);
void kvm_ring_unmap(struct kvm_vcpu *v);
bool kvm_ring_full(struct kvm_vcpu *v); // on its thread; false where nothing is in it
void kvm_ring_sync(struct engine *e);   // vCPUs stopped

// ---- routes.c ----
int kvm_routes_wire(struct engine *e);
void kvm_routes_level(struct engine *e, unsigned pin, uint64_t addr, uint32_t data);

// ---- irqchip.c ----
int kvm_chips_create(struct engine *e, struct error *err); // before the vCPUs
void kvm_chips_line(struct engine *e, unsigned gsi, bool level);
void kvm_chips_msi(struct engine *e, uint64_t addr, uint32_t data);
int kvm_chips_get(struct engine *e, unsigned chip, unsigned instance, void *state, size_t size);
int kvm_chips_set(struct engine *e, unsigned chip, unsigned instance, const void *state, size_t size);
void kvm_chips_resume(struct engine *e);
void kvm_chips_reset(struct engine *e);
int kvm_user_msrs_enable(struct engine *e, struct error *err); // user-space chips

// ---- lapic.c, pic.c, pit.c: a chip in the kernel to its canonical state and back; vCPUs stopped ----
int kvm_lapic_get(struct kvm_vcpu *v, struct x86_lapic_state *s);
int kvm_lapic_set(struct kvm_vcpu *v, const struct x86_lapic_state *s);
void kvm_lapic_resume(struct kvm_vcpu *v);
int kvm_pic_get(struct engine *e, struct x86_pic_state *s);
int kvm_pic_set(struct engine *e, const struct x86_pic_state *s);
int kvm_ioapic_get(struct engine *e, struct x86_ioapic_state *s);
int kvm_ioapic_set(struct engine *e, const struct x86_ioapic_state *s);
int kvm_pit_get(struct engine *e, struct x86_pit_state *s);
int kvm_pit_set(struct engine *e, const struct x86_pit_state *s);
void kvm_pit_resume(struct engine *e);

// ---- doorbell.c ----
int kvm_doorbell_add(struct engine *e, gpa_t gpa, int fd, bool on_loop);
void kvm_doorbell_remove(struct engine *e, gpa_t gpa, int fd);

// ---- options.c ----
struct kvm_options {
    uint8_t chips;     // enum kvm_chips
    uint8_t ioeventfd; // enum kvm_ioeventfds
    uint8_t dirty;     // enum kvm_dirty_kind
};
int kvm_options_parse(struct kvm_options *o, const struct engine_options *opt, struct error *err);

// ---- cpuid.c ----
int kvm_limit_policy(void *policy, const struct engine_options *opt, struct error *err);
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
int kvm_step_set(struct kvm_vcpu *v, uint64_t budget); // before the KVM_RUNs of a run()
// On each KVM_EXIT_DEBUG. True where run() is to return with *exit.
bool kvm_step_exit(struct kvm_vcpu *v, struct vm_exit *exit);

// ---- points.c ----
int kvm_points_set(struct engine *e, const struct debug_point *points, unsigned count);
void kvm_points_destroy(struct engine *e);
// The point that a #DB with these bits of DR6, or a #BP at pc, is of; NULL: it is the guest's own.
const struct debug_point *kvm_points_find(const struct engine *e, unsigned vector, uint64_t pc, uint64_t dr6);

// ---- inject.c: interrupts from user-space chips ----
// Before KVM_RUN: takes events and interrupts from the chips. 0, 1 where the vCPU has nothing to do (*exit filled:
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
