// SPDX-License-Identifier: Apache-2.0
// How fast does this KVM run kernel code? Some hosts offer a /dev/kvm that is not backed by hardware and emulates ring
// 0 at a few million instructions a second; nothing in the interface says so, so it is measured: a counting loop at CPL
// 0 in flat 32-bit mode, ended by HLT, a few milliseconds at most.
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/kvm/kvm.h"
#include "util/io.h"

#define FIRST_TURNS  500u
#define MAX_TURNS    (4u << 20)
#define ENOUGH_NS    1000000u
#define INSNS_A_TURN 2u
#define GUEST_MEMORY 0x1000u

struct bench {
    int sys_fd, vm_fd, fd;
    size_t run_size;
    uint8_t *memory;
    struct kvm_run *run;
};

static const uint8_t loop_code[] = {
    0x49,       // 0: dec ecx
    0x75, 0xfd, // jnz 0
    0xf4,       // hlt
};

static int open_bench(struct bench *b, struct error *err) {
    struct kvm_userspace_memory_region region = {.memory_size = GUEST_MEMORY};
    int size;

    b->sys_fd = kvm_open(err);
    if (b->sys_fd < 0)
        return b->sys_fd;
    size = ioctl(b->sys_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    b->run_size = size > 0 ? (size_t)size : 0;
    b->vm_fd = ioctl(b->sys_fd, KVM_CREATE_VM, 0);
    if (b->vm_fd >= 0)
        b->fd = ioctl(b->vm_fd, KVM_CREATE_VCPU, 0);
    if (b->vm_fd < 0 || b->fd < 0 || !b->run_size)
        return error_set(err, -errno, "kvm: create a VM to measure");
    b->memory = mmap(NULL, GUEST_MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    b->run = mmap(NULL, b->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, b->fd, 0);
    if (b->memory == MAP_FAILED || b->run == MAP_FAILED)
        return error_set(err, -errno, "kvm: map a VM to measure");
    memcpy(b->memory, loop_code, sizeof(loop_code));
    region.userspace_addr = (uint64_t)(uintptr_t)b->memory;
    int r = kvm_ioctl(b->vm_fd, KVM_SET_USER_MEMORY_REGION, &region);
    return r ? error_set(err, r, "kvm: memory of a VM to measure") : 0;
}

static void close_bench(struct bench *b) {
    if (b->run && b->run != MAP_FAILED)
        munmap(b->run, b->run_size);
    if (b->fd >= 0)
        close(b->fd);
    if (b->vm_fd >= 0)
        close(b->vm_fd);
    if (b->sys_fd >= 0)
        close(b->sys_fd);
    if (b->memory && b->memory != MAP_FAILED)
        munmap(b->memory, GUEST_MEMORY);
}

static int protected_mode(struct bench *b) {
    struct kvm_sregs s;
    struct kvm_segment data = {.limit = 0xffffffff, .selector = 16, .type = 3, .present = 1, .db = 1, .s = 1, .g = 1};
    int r = kvm_ioctl(b->fd, KVM_GET_SREGS, &s);

    if (r)
        return r;
    s.ds = s.es = s.fs = s.gs = s.ss = data;
    s.cs = data;
    s.cs.type = 11;
    s.cs.selector = 8;
    s.cr0 |= CR0_PE;
    return kvm_ioctl(b->fd, KVM_SET_SREGS, &s);
}

static int run_turns(struct bench *b, uint32_t turns, uint64_t *ns) {
    struct kvm_regs regs = {.rcx = turns, .rflags = RFLAGS_FIXED1};
    int r = kvm_ioctl(b->fd, KVM_SET_REGS, &regs);
    uint64_t begin = io_now_ns();

    if (r == 0)
        r = kvm_ioctl(b->fd, KVM_RUN, NULL);
    *ns = io_now_ns() - begin;
    if (r == 0 && b->run->exit_reason != KVM_EXIT_HLT)
        return -EIO;
    return r;
}

static int measure(struct bench *b, uint64_t *rate, struct error *err) {
    uint64_t ns = 0;
    int r = protected_mode(b);

    if (r == 0)
        r = run_turns(b, 1, &ns); // the first entry pays for page faults
    for (uint32_t n = FIRST_TURNS; r == 0; n *= 8) {
        r = run_turns(b, n, &ns);
        *rate = (uint64_t)n * INSNS_A_TURN * 1000000000u / (ns ? ns : 1);
        if (ns >= ENOUGH_NS || n >= MAX_TURNS)
            break;
    }
    return r ? error_set(err, r, "kvm: measure its speed (exit %u)", b->run->exit_reason) : 0;
}

int kvm_probe_speed(uint64_t *insns_per_second, struct error *err) {
    struct bench b = {.sys_fd = -1, .vm_fd = -1, .fd = -1};
    int r = open_bench(&b, err);

    if (r == 0)
        r = measure(&b, insns_per_second, err);
    close_bench(&b);
    return r;
}
