// SPDX-License-Identifier: Apache-2.0
// Two threads on shared memory: locked instructions on one line and on lines of their own, a spin lock, a lock-free
// queue and a mutex that sleeps. Every case ends with a sum that is right only if no update was lost.
#include "bench.h"
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

static struct shared {
    _Alignas(64) atomic_ulong counter;
    _Alignas(64) atomic_ulong own[2 * 8];
    _Alignas(64) atomic_flag spin;
    _Alignas(64) uint64_t guarded;
    _Alignas(64) atomic_ulong head, tail;
    atomic_ulong ring[256];
    pthread_mutex_t mutex;
    uint64_t work;
} s;

static void pair(uint64_t work, void *(*body)(void *)) {
    pthread_t other;
    s.work = work;
    bench_need(!pthread_create(&other, NULL, body, (void *)1), "a second thread");
    body((void *)0);
    pthread_join(other, NULL);
}

static void *add_body(void *arg) {
    (void)arg;
    for (uint64_t i = 0; i < s.work; i++)
        atomic_fetch_add(&s.counter, i & 7);
    return NULL;
}
static uint64_t add_shared(uint64_t work) {
    pair(work, add_body);
    return s.counter;
}

static void *own_body(void *arg) {
    atomic_ulong *mine = &s.own[(uintptr_t)arg * 8];
    for (uint64_t i = 0; i < s.work; i++) {
        atomic_fetch_add(mine, i & 7);
        uint64_t old = *mine;
        atomic_compare_exchange_strong(mine, &old, old ^ i);
        if ((i & 3) == 0)
            atomic_exchange(mine, i * 3);
    }
    return NULL;
}
static uint64_t own_lines(uint64_t work) {
    pair(work, own_body);
    return bench_mix(s.own[0], s.own[8]);
}

static void *cas_body(void *arg) {
    (void)arg;
    for (uint64_t i = 0; i < s.work; i++) {
        uint64_t old = s.counter;
        while (!atomic_compare_exchange_weak(&s.counter, &old, old + (i & 3)))
            ;
    }
    return NULL;
}
static uint64_t cas_loop(uint64_t work) {
    pair(work, cas_body);
    return s.counter;
}

static void *spin_body(void *arg) {
    (void)arg;
    for (uint64_t i = 0; i < s.work; i++) {
        // With fewer CPUs than threads the holder may be waiting for this one's time slice.
        for (unsigned tries = 0; atomic_flag_test_and_set_explicit(&s.spin, memory_order_acquire); tries++)
            if (tries % 1024 == 1023)
                sched_yield();
            else
                __builtin_ia32_pause();
        s.guarded += i & 5;
        atomic_flag_clear_explicit(&s.spin, memory_order_release);
    }
    return NULL;
}
static uint64_t spin_lock(uint64_t work) {
    pair(work, spin_body);
    return s.guarded;
}

// One thread fills a ring, the other empties it.
static void *queue_body(void *arg) {
    uint64_t sum = 0;
    for (uint64_t i = 0; i < s.work; i++) {
        unsigned tries = 0;
        while (arg ? i - atomic_load(&s.tail) >= 256 : atomic_load(&s.head) <= i)
            if (++tries % 1024 == 0)
                sched_yield();
        if (arg) {
            atomic_store_explicit(&s.ring[i % 256], i * 7, memory_order_relaxed);
            atomic_store(&s.head, i + 1);
        } else {
            sum = bench_mix(sum, atomic_load_explicit(&s.ring[i % 256], memory_order_relaxed));
            atomic_store(&s.tail, i + 1);
        }
    }
    if (!arg)
        s.guarded = sum;
    return NULL;
}
static uint64_t queue(uint64_t work) {
    pair(work, queue_body);
    return s.guarded;
}

static void *mutex_body(void *arg) {
    (void)arg;
    for (uint64_t i = 0; i < s.work; i++) {
        pthread_mutex_lock(&s.mutex);
        for (unsigned k = 0; k < 20; k++)
            s.guarded += i & k;
        pthread_mutex_unlock(&s.mutex);
    }
    return NULL;
}
static uint64_t mutex(uint64_t work) {
    pthread_mutex_init(&s.mutex, NULL);
    pair(work, mutex_body);
    return s.guarded;
}

const struct bench_case bench_atomic[] = {
    {"atomic-add", add_shared},
    {"atomic-own", own_lines},
    {"atomic-cas", cas_loop},
    {"spinlock", spin_lock},
    {"ring", queue},
    {"mutex", mutex},
    {0},
};
