// SPDX-License-Identifier: Apache-2.0
// Loaded before the program by kvm_start.py (LD_PRELOAD): what KVM's ioctls take up to the first KVM_RUN, and when that
// comes after the start of the process (environment variable KVM_START: CLOCK_MONOTONIC in nanoseconds). One line
// "kvm_start TOTAL IOCTLS COUNT" in nanoseconds goes to standard error. Nothing is written after that.
#define _GNU_SOURCE
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static _Atomic uint64_t ioctl_ns;
static atomic_uint count;
static atomic_bool done;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void report(void) {
    const char *start = getenv("KVM_START");
    char text[100];
    int n = snprintf(text, sizeof(text), "kvm_start %llu %llu %u\n",
                     (unsigned long long)(now_ns() - (start ? strtoull(start, NULL, 10) : 0)),
                     (unsigned long long)ioctl_ns, (unsigned)count);
    (void)!write(STDERR_FILENO, text, (size_t)n);
}

int ioctl(int fd, unsigned long request, ...) {
    va_list list;
    va_start(list, request);
    void *arg = va_arg(list, void *);
    va_end(list);
    int of_kvm = (request >> 8 & 0xff) == KVMIO;
    if (request == KVM_RUN && !atomic_exchange(&done, 1))
        report();
    if (!of_kvm || done)
        return (int)syscall(SYS_ioctl, fd, request, arg);
    uint64_t begin = now_ns();
    int r = (int)syscall(SYS_ioctl, fd, request, arg);
    ioctl_ns += now_ns() - begin;
    count++;
    if (getenv("KVM_START_EACH"))
        fprintf(stderr, "ioctl 0x%lx %8.1f us at %.3f ms\n", request, (double)(now_ns() - begin) / 1e3,
                (double)(now_ns() - strtoull(getenv("KVM_START"), NULL, 10)) / 1e6);
    return r;
}
