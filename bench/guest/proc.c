// SPDX-License-Identifier: Apache-2.0
// Processes and address spaces: fork, fork and exec, threads, first touches of pages, copies on write, mappings that
// come and go, signals sent and signals from faults.
#include "bench.h"
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static uint64_t forks(uint64_t work) {
    uint64_t sum = 0;
    for (uint64_t i = 0; i < work; i++) {
        pid_t child = fork();
        bench_need(child >= 0, "fork");
        if (!child)
            _exit((int)(i & 63));
        int status = 0;
        waitpid(child, &status, 0);
        sum += (uint64_t)WEXITSTATUS(status);
    }
    return sum;
}

static uint64_t fork_exec(uint64_t work) {
    uint64_t good = 0;
    for (uint64_t i = 0; i < work; i++) {
        pid_t child = fork();
        bench_need(child >= 0, "fork");
        if (!child) {
            execl("/proc/self/exe", "bench", "nop", (char *)NULL);
            _exit(1);
        }
        int status = 1;
        waitpid(child, &status, 0);
        good += status == 0;
    }
    return good;
}

static void *thread_body(void *arg) {
    return (char *)arg + 1;
}
static uint64_t threads(uint64_t work) {
    uint64_t sum = 0;
    for (uint64_t i = 0; i < work; i++) {
        pthread_t t;
        void *ret;
        bench_need(!pthread_create(&t, NULL, thread_body, (void *)(uintptr_t)i), "thread");
        pthread_join(t, &ret);
        sum += (uint64_t)(uintptr_t)ret;
    }
    return sum;
}

// 1 MiB mapped, every page touched, unmapped.
static uint64_t page_fault(uint64_t work) {
    uint64_t sum = 0;
    for (uint64_t i = 0; i < work; i++) {
        unsigned char *p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        bench_need(p != MAP_FAILED, "mmap");
        madvise(p, 1 << 20, MADV_NOHUGEPAGE);
        for (unsigned k = 0; k < 1 << 20; k += 4096) {
            sum += p[k];
            p[k] = (unsigned char)i;
        }
        sum += p[(i % 256) << 12];
        munmap(p, 1 << 20);
    }
    return sum;
}

// The child writes to pages it shares with its parent: copy on write.
static uint64_t copy_on_write(uint64_t work) {
    enum { LEN = 1 << 20 };
    unsigned char *p = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t sum = 0;
    bench_need(p != MAP_FAILED, "mmap");
    madvise(p, LEN, MADV_NOHUGEPAGE);
    memset(p, 3, LEN);
    for (uint64_t i = 0; i < work; i++) {
        pid_t child = fork();
        bench_need(child >= 0, "fork");
        if (!child) {
            unsigned char x = 0;
            for (unsigned k = 0; k < LEN; k += 4096)
                x ^= p[k]++;
            _exit(x);
        }
        int status = 0;
        waitpid(child, &status, 0);
        sum += (uint64_t)WEXITSTATUS(status) + p[(i % 256) << 12];
        p[(i % 256) << 12]++;
    }
    munmap(p, LEN);
    return sum;
}

static uint64_t map_unmap(uint64_t work) {
    unsigned char *fixed = mmap(NULL, 64 << 12, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t sum = 0;
    bench_need(fixed != MAP_FAILED, "mmap");
    for (uint64_t i = 0; i < work; i++) {
        unsigned char *at = fixed + (i * 5 % 64 << 12);
        at = mmap(at, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        bench_need(at != MAP_FAILED, "mmap over a mapping");
        sum += at[i % 4096];
        at[i % 4096] = (unsigned char)i;
        mprotect(at, 4096, PROT_READ);
        sum += at[i % 4096];
    }
    munmap(fixed, 64 << 12);
    return sum;
}

static volatile uint64_t caught;
static void on_signal(int number) {
    caught += (uint64_t)number;
}
static uint64_t signals(uint64_t work) {
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGUSR1, &action, NULL);
    for (uint64_t i = 0; i < work; i++)
        raise(SIGUSR1);
    return caught;
}

// Writes to a read-only page; the handler makes it writable, as garbage collectors and checkpointers do.
static unsigned char *barrier;
static void on_fault(int number, siginfo_t *info, void *context) {
    (void)number, (void)context;
    if ((unsigned char *)info->si_addr < barrier || (unsigned char *)info->si_addr >= barrier + 4096)
        _exit(2);
    caught++;
    mprotect(barrier, 4096, PROT_READ | PROT_WRITE);
}
static uint64_t fault_signals(uint64_t work) {
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, NULL);
    barrier = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    bench_need(barrier != MAP_FAILED, "mmap");
    for (uint64_t i = 0; i < work; i++) {
        mprotect(barrier, 4096, PROT_READ);
        ((volatile unsigned char *)barrier)[i % 4096]++;
    }
    return bench_mix(caught, barrier[1]);
}

const struct bench_case bench_proc[] = {
    {"fork", forks},
    {"fork-exec", fork_exec},
    {"thread", threads},
    {"page-fault", page_fault},
    {"copy-on-write", copy_on_write},
    {"map-unmap", map_unmap},
    {"signal", signals},
    {"fault-signal", fault_signals},
    {0},
};
