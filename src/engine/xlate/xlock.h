// SPDX-License-Identifier: Apache-2.0
// A futex lock in integer code only: libc's may touch vector registers, in which the guest's state may be live.
#ifndef CICADA_XLATE_XLOCK_H
#define CICADA_XLATE_XLOCK_H

#include <linux/futex.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/syscall.h>

struct xlock {
    atomic_int state; // 0 free, 1 held, 2 held with waiters
};

static inline long xlock_futex(atomic_int *addr, int op, int val) {
    long ret;
    register long r10 __asm__("r10") = 0; // no timeout
    __asm__ volatile("syscall"
                     : "=a"(ret)
                     : "a"((long)SYS_futex), "D"(addr), "S"((long)op), "d"((long)val), "r"(r10)
                     : "rcx", "r11", "memory");
    return ret;
}

// Lets another thread have the processor.
static inline void xlock_yield(void) {
    long ret;
    __asm__ volatile("syscall" : "=a"(ret) : "a"((long)SYS_sched_yield) : "rcx", "r11", "memory");
}

static inline void xlock_lock(struct xlock *l) {
    int free_state = 0;
    if (atomic_compare_exchange_strong(&l->state, &free_state, 1))
        return;
    while (atomic_exchange(&l->state, 2) != 0)
        xlock_futex(&l->state, FUTEX_WAIT_PRIVATE, 2);
}

static inline void xlock_unlock(struct xlock *l) {
    if (atomic_exchange(&l->state, 0) == 2)
        xlock_futex(&l->state, FUTEX_WAKE_PRIVATE, 1);
}

#endif
