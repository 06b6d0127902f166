// SPDX-License-Identifier: Apache-2.0
// Local APIC timer (SDM 3A 11.5.4): one-shot, periodic and TSC-deadline.
// The vtimer may fire late or for a deadline that was moved meanwhile: expiry is always judged anew, under
// timer_lock, from the registers. Ticks of a periodic timer that came too late merge into one, as in IRR.
#include "dev/lapic_priv.h"

GPR_ONLY_BEGIN

static struct clock *cpu_clock(struct lapic_cpu *c) {
    return &c->lapic->machine->clock;
}

static uint64_t guest_tsc(struct lapic_cpu *c) {
    return nondet_tsc(&c->lapic->machine->nondet) + c->tsc_offset;
}

static unsigned timer_mode(struct lapic_cpu *c) {
    return X86_LVT_MODE(lapic_lvt(c, X86_LVT_TIMER));
}

static uint64_t period_ns(struct lapic_cpu *c) {
    return (uint64_t)c->initial << X86_LAPIC_DIVIDE_SHIFT(c->divide);
}

static void arm(struct lapic_cpu *c, uint64_t deadline_ns) {
    c->armed = true;
    vtimer_arm(&c->timer, deadline_ns);
}

static void disarm(struct lapic_cpu *c) {
    if (c->armed)
        vtimer_cancel(&c->timer);
    c->armed = false;
}

static uint64_t tsc_delta_ns(struct lapic_cpu *c, uint64_t ticks) {
    unsigned __int128 ns = (unsigned __int128)ticks * c->lapic->tsc_to_ns >> 32;

    return ns > INT64_MAX / 2 ? INT64_MAX / 2 : (uint64_t)ns;
}

static void deadline_check(struct lapic_cpu *c) {
    uint64_t now = guest_tsc(c);

    if (c->tsc_deadline > now) {
        arm(c, clock_now_ns(cpu_clock(c)) + tsc_delta_ns(c, c->tsc_deadline - now) + 1);
        return;
    }
    c->tsc_deadline = 0;
    disarm(c);
    lapic_cpu_deliver_lvt(c, X86_LVT_TIMER);
}

static void count_check(struct lapic_cpu *c) {
    uint64_t now = clock_now_ns(cpu_clock(c)), period = period_ns(c);

    if (now - c->start_ns < period) {
        arm(c, c->start_ns + period);
        return;
    }
    lapic_cpu_deliver_lvt(c, X86_LVT_TIMER);
    if (timer_mode(c) != X86_TIMER_PERIODIC) {
        c->counting = false;
        disarm(c);
        return;
    }
    c->start_ns = now - (now - c->start_ns) % period;
    arm(c, c->start_ns + period > now + DEV_MIN_PERIOD_NS ? c->start_ns + period : now + DEV_MIN_PERIOD_NS);
}

// What is due becomes an interrupt, what is not becomes the vtimer's deadline. timer_lock held.
static void check(struct lapic_cpu *c) {
    if (timer_mode(c) == X86_TIMER_TSC_DEADLINE && c->tsc_deadline)
        deadline_check(c);
    else if (timer_mode(c) != X86_TIMER_TSC_DEADLINE && c->counting)
        count_check(c);
}

static void timer_fired(void *ctx) {
    struct lapic_cpu *c = ctx;

    pthread_mutex_lock(&c->timer_lock);
    c->armed = false;
    check(c);
    pthread_mutex_unlock(&c->timer_lock);
}

void lapic_timer_rearm(struct lapic_cpu *c) {
    pthread_mutex_lock(&c->timer_lock);
    check(c);
    pthread_mutex_unlock(&c->timer_lock);
}

static void stop(struct lapic_cpu *c) {
    disarm(c);
    c->counting = false;
    c->initial = 0;
    c->tsc_deadline = 0;
}

void lapic_timer_reset(struct lapic_cpu *c) {
    pthread_mutex_lock(&c->timer_lock);
    stop(c);
    c->divide = 0;
    c->start_ns = 0;
    pthread_mutex_unlock(&c->timer_lock);
}

void lapic_timer_set_deadline(struct lapic_cpu *c, uint64_t deadline) {
    if (timer_mode(c) != X86_TIMER_TSC_DEADLINE)
        return;
    pthread_mutex_lock(&c->timer_lock);
    c->tsc_deadline = deadline;
    if (deadline)
        deadline_check(c);
    else
        disarm(c);
    pthread_mutex_unlock(&c->timer_lock);
}

uint64_t lapic_timer_deadline(struct lapic_cpu *c) {
    uint64_t deadline;

    pthread_mutex_lock(&c->timer_lock);
    deadline = timer_mode(c) == X86_TIMER_TSC_DEADLINE ? c->tsc_deadline : 0;
    pthread_mutex_unlock(&c->timer_lock);
    return deadline;
}

static void start(struct lapic_cpu *c, uint64_t start_ns) {
    disarm(c);
    c->start_ns = start_ns;
    c->counting = c->initial != 0;
    check(c);
}

void lapic_timer_set_initial(struct lapic_cpu *c, uint32_t count) {
    if (timer_mode(c) == X86_TIMER_TSC_DEADLINE)
        return;
    pthread_mutex_lock(&c->timer_lock);
    c->initial = count;
    start(c, clock_now_ns(cpu_clock(c)));
    pthread_mutex_unlock(&c->timer_lock);
}

static uint64_t remaining_ns(struct lapic_cpu *c, uint64_t now) {
    uint64_t period = period_ns(c), elapsed = now - c->start_ns;

    if (!c->counting || timer_mode(c) == X86_TIMER_TSC_DEADLINE)
        return 0;
    if (timer_mode(c) == X86_TIMER_PERIODIC)
        return period - elapsed % period;
    return elapsed < period ? period - elapsed : 0;
}

uint32_t lapic_timer_current(struct lapic_cpu *c) {
    uint64_t count;

    pthread_mutex_lock(&c->timer_lock);
    count = remaining_ns(c, clock_now_ns(cpu_clock(c))) >> X86_LAPIC_DIVIDE_SHIFT(c->divide);
    pthread_mutex_unlock(&c->timer_lock);
    return (uint32_t)count;
}

// A running count goes on from where it is, at the new rate.
void lapic_timer_set_divide(struct lapic_cpu *c, uint32_t divide) {
    uint64_t now, count;

    pthread_mutex_lock(&c->timer_lock);
    now = clock_now_ns(cpu_clock(c));
    count = remaining_ns(c, now) >> X86_LAPIC_DIVIDE_SHIFT(c->divide);
    c->divide = divide & 0xb;
    if (c->counting)
        start(c, now - ((c->initial - count) << X86_LAPIC_DIVIDE_SHIFT(c->divide)));
    pthread_mutex_unlock(&c->timer_lock);
}

// SDM 3A 11.5.4.1: a change to or from TSC-deadline mode disarms the timer.
void lapic_timer_set_lvt(struct lapic_cpu *c, uint32_t lvt) {
    pthread_mutex_lock(&c->timer_lock);
    if ((X86_LVT_MODE(lvt) == X86_TIMER_TSC_DEADLINE) != (timer_mode(c) == X86_TIMER_TSC_DEADLINE))
        stop(c);
    atomic_store_explicit(&c->lvt[X86_LVT_TIMER], lvt, memory_order_relaxed);
    pthread_mutex_unlock(&c->timer_lock);
}

void lapic_set_tsc_offset(struct lapic *l, unsigned vcpu, uint64_t offset) {
    struct lapic_cpu *c;

    if (vcpu >= l->nvcpus)
        return;
    c = &l->cpus[vcpu];
    pthread_mutex_lock(&c->timer_lock);
    c->tsc_offset = offset;
    check(c);
    pthread_mutex_unlock(&c->timer_lock);
}

GPR_ONLY_END

void lapic_timer_init(struct lapic_cpu *c) {
    pthread_mutex_init(&c->timer_lock, NULL);
    vtimer_init(&c->timer, cpu_clock(c), timer_fired, c);
}

void lapic_timer_fini(struct lapic_cpu *c) {
    vtimer_fini(&c->timer);
    pthread_mutex_destroy(&c->timer_lock);
}
