// SPDX-License-Identifier: Apache-2.0
// A vCPU: creation, the KVM_RUN loop (4.10) and what ends it from outside.
//
// Kicks: who kicks sets `kicked`, then immediate_exit, then sends SIGUSR1. The loop clears immediate_exit, then looks
// at `kicked`. Whatever the order of the two, either the loop sees `kicked`, or KVM_RUN sees immediate_exit, or the
// signal (whose handler does nothing) interrupts it. A poke is the same without `kicked`.
// An access that was answered is completed by KVM only at the next KVM_RUN: before returning, the loop enters once more
// with immediate_exit set, which completes it and executes nothing.
#define LOG_UNIT "kvm"
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/kvm/kvm.h"
#include "util/log.h"

const char *const kvm_counter_names[KC_COUNT] = {
    [KC_EXITS] = "exits",           [KC_PIO] = "pio",     [KC_MMIO] = "mmio",
    [KC_HALTS] = "halts",           [KC_MSR] = "msr",     [KC_EOIS] = "eois",
    [KC_INTERRUPTS] = "interrupts", [KC_KICKS] = "kicks",
};

static struct kvm_vcpu *vcpu_of(struct engine_vcpu *v) {
    return (struct kvm_vcpu *)v;
}

// ---- creation ----

static int open_vcpu(struct kvm_vcpu *v, struct error *err) {
    struct engine *e = v->engine;
    void *run;

    v->fd = ioctl(e->vm_fd, KVM_CREATE_VCPU, (unsigned long)v->index);
    if (v->fd < 0)
        return error_set(err, -errno, "kvm: create vCPU %u", v->index);
    run = mmap(NULL, e->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
    if (run == MAP_FAILED)
        return error_set(err, -errno, "kvm: map vCPU %u", v->index);
    v->run = run;
    return e->dirty_ring ? kvm_ring_map(v, err) : 0;
}

static int set_up(struct kvm_vcpu *v, struct error *err) {
    struct engine *e = v->engine;
    int r = open_vcpu(v, err);

    if (r || (r = kvm_cpuid_set(v, err)))
        return r;
    if (v->index == 0) {
        e->has_tsc_offset = kvm_tsc_has_offset(v);
        kvm_msrs_probe(e, v);
    }
    return 0;
}

int kvm_vcpu_create(struct engine *e, unsigned index, struct engine_vcpu **out, struct error *err) {
    struct kvm_vcpu *v = calloc(1, sizeof(*v));
    int r;

    if (!v)
        return error_set(err, -ENOMEM, "allocate vCPU %u", index);
    v->engine = e;
    v->index = index;
    v->fd = -1;
    v->irqchip = e->chips == KVM_CHIPS_KERNEL ? NULL : &e->host->irqchips[index];
    v->activity = index ? X86_WAIT_SIPI : X86_ACTIVE;
    e->vcpus[index] = v;
    r = set_up(v, err);
    if (r) {
        kvm_vcpu_destroy((struct engine_vcpu *)v);
        return r;
    }
    *out = (struct engine_vcpu *)v;
    return 0;
}

void kvm_vcpu_destroy(struct engine_vcpu *ev) {
    struct kvm_vcpu *v = vcpu_of(ev);

    if (!v)
        return;
    v->engine->vcpus[v->index] = NULL;
    kvm_ring_unmap(v);
    if (v->run)
        munmap(v->run, v->engine->run_size);
    if (v->fd >= 0)
        close(v->fd);
    free(v);
}

int kvm_vcpu_enter_thread(struct engine_vcpu *ev, struct error *err) {
    atomic_store(&vcpu_of(ev)->tid, (pid_t)syscall(SYS_gettid));
    return 0;
}

// ---- kicks ----

static void interrupt_run(struct kvm_vcpu *v) {
    pid_t tid = atomic_load(&v->tid);

    __atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    if (tid)
        syscall(SYS_tgkill, getpid(), tid, SIGUSR1);
}

void kvm_vcpu_kick(struct engine_vcpu *ev) {
    struct kvm_vcpu *v = vcpu_of(ev);

    atomic_store(&v->kicked, true);
    interrupt_run(v);
}

void kvm_vcpu_poke(struct engine_vcpu *ev) {
    struct kvm_vcpu *v = vcpu_of(ev);

    if (v->irqchip) // chips in the kernel wake their vCPU themselves
        interrupt_run(v);
}

// ---- the loop ----

enum step { STEP_AGAIN, STEP_RETURN };

// Completes the last access without executing an instruction. Completing may ask for the next piece of it, which is
// answered as well. True where the guest cannot go on; *exit says why.
static bool finish_access(struct kvm_vcpu *v, struct vm_exit *exit) {
    while (v->unfinished) {
        __atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
        v->unfinished = false;
        if (ioctl(v->fd, KVM_RUN, 0) == 0 && kvm_exit_handle(v, exit))
            return true;
    }
    return false;
}

static enum step failed_run(struct kvm_vcpu *v, struct vm_exit *exit, int code) {
    switch (code) {
    case EINTR: // kick, poke, or any signal
    case EAGAIN: return STEP_AGAIN;
    case EFAULT: kvm_report_failure(v, exit, "KVM_RUN: guest memory is gone (host out of memory?)"); break;
    default: kvm_report_failure(v, exit, "KVM_RUN: %s", strerrordesc_np(code)); break;
    }
    return STEP_RETURN;
}

static enum step one_run(struct kvm_vcpu *v, struct vm_exit *exit) {
    int r = v->irqchip ? kvm_inject(v, exit) : 0;

    if (r < 0)
        kvm_report_failure(v, exit, "deliver an event: %s", strerrordesc_np(-r));
    if (r)
        return STEP_RETURN;
    r = ioctl(v->fd, KVM_RUN, 0) < 0 ? errno : 0;
    v->unfinished = false;
    if (v->irqchip)
        kvm_inject_after(v);
    if (r)
        return failed_run(v, exit, r);
    kvm_count(v, KC_EXITS);
    return kvm_exit_handle(v, exit) ? STEP_RETURN : STEP_AGAIN;
}

void kvm_vcpu_run(struct engine_vcpu *ev, uint64_t budget, struct vm_exit *exit) {
    struct kvm_vcpu *v = vcpu_of(ev);
    int r = kvm_step_set(v, budget);

    if (r || budget == 0) {
        exit->reason = EXIT_BUDGET;
        if (r)
            kvm_report_failure(v, exit, "single step: %s", strerrordesc_np(-r));
        return;
    }
    // Local APICs in user space are asked between two instructions, so no access may be half done then.
    while (kvm_lapic_in_kernel(v) || !finish_access(v, exit)) {
        __atomic_store_n(&v->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
        if (atomic_exchange(&v->kicked, false)) {
            kvm_count(v, KC_KICKS);
            exit->reason = EXIT_KICKED;
            break;
        }
        if (one_run(v, exit) == STEP_RETURN)
            break;
    }
    (void)finish_access(v, exit);
}
