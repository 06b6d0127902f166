// SPDX-License-Identifier: Apache-2.0
// Samples are counted where they are taken, in a table of each vCPU that only its own thread writes: no buffer that
// fills up, nothing to be done between two samples.
//
// Guest kernels are built without frame pointers, so callers are guessed, as the kernel's own "guess" unwinder does:
// every word near the top of the stack that points behind a call instruction of the kernel counts as one. What is left
// over from earlier calls is taken for a caller now and then.
//
// Invariants: the handler makes no system call and takes no lock; guest memory is only read, through the page tables
// and without setting A bits.
#include "engine/xlate/profile.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>

#include "engine/xlate/cache.h"

#define SLOTS       16384u // stacks that differ, a vCPU
#define PROBES      16u
#define STACK_WORDS 128 // of the guest's stack, looked at for callers
#define HOST_WORDS  64  // of the engine's stack, looked at for the place in translated code that called C
#define KERNEL_TEXT 0xffffffff80000000ull // Linux/x86-64 and its modules are linked above
#define CALL_MAX    7                     // bytes of a call instruction that are looked at

struct profile {
    unsigned hz;
    timer_t timer;
    uint64_t lost; // samples without a slot
    struct engine_sample slots[SLOTS];
};

static __thread struct xcpu *current;

// ---- guest memory ----

struct page_memo {
    uint64_t lin;
    const uint8_t *host; // NULL: not there
};

static const uint8_t *guest_byte(struct xcpu *x, struct page_memo *memo, uint64_t lin) {
    uint64_t gpa;
    if (memo->lin != (lin & PAGE_MASK)) {
        memo->lin = lin & PAGE_MASK;
        memo->host = mmu_translate_debug(x, memo->lin, &gpa) ? NULL : mem_page(x->engine_mem, gpa & PAGE_MASK, false);
    }
    return memo->host ? memo->host + (lin & ~PAGE_MASK) : NULL;
}

// Do the bytes that end at ret look like a call? E8 rel32, or FF /2 of any length (SDM vol. 2A, CALL).
static bool behind_call(struct xcpu *x, struct page_memo *memo, uint64_t ret) {
    const uint8_t *p = guest_byte(x, memo, ret - CALL_MAX);
    if (!p || ((ret - 1) & PAGE_MASK) != memo->lin) // the few that cross a page are not worth the trouble
        return false;
    const uint8_t *end = p + CALL_MAX;
    if (end[-5] == 0xe8)
        return true;
    for (int n = 2; n <= CALL_MAX; n++)
        if (end[-n] == 0xff && (end[-n + 1] >> 3 & 7) == 2)
            return true;
    return false;
}

static void guess_callers(struct xcpu *x, struct engine_sample *s, uint64_t sp) {
    struct page_memo stack = {.lin = 1}, code = {.lin = 1}; // no page begins there
    for (unsigned i = 0; i < STACK_WORDS && s->depth < ENGINE_SAMPLE_DEPTH; i++, sp += 8) {
        const uint8_t *p = (sp & 7) ? NULL : guest_byte(x, &stack, sp);
        if (!p)
            return;
        uint64_t word = *(const volatile uint64_t *)p;
        if (word >= KERNEL_TEXT && behind_call(x, &code, word))
            s->rip[s->depth++] = word;
    }
}

// ---- counting ----

static bool same_stack(const struct engine_sample *a, const struct engine_sample *b) {
    if (a->part != b->part || a->user != b->user || a->depth != b->depth)
        return false;
    for (unsigned i = 0; i < a->depth; i++)
        if (a->rip[i] != b->rip[i])
            return false;
    return true;
}

static uint32_t hash_of(const struct engine_sample *s) {
    uint64_t h = s->part * 2u + s->user;
    for (unsigned i = 0; i < s->depth; i++)
        h = (h ^ s->rip[i]) * 0x9e3779b97f4a7c15ull;
    return (uint32_t)(h >> 32);
}

static void count(struct profile *p, const struct engine_sample *s) {
    uint32_t h = hash_of(s);
    for (unsigned i = 0; i < PROBES; i++) {
        struct engine_sample *slot = &p->slots[(h + i) % SLOTS];
        if (slot->count && !same_stack(slot, s))
            continue;
        uint64_t n = slot->count + s->count;
        *slot = *s;
        slot->count = n;
        return;
    }
    p->lost += s->count;
}

// ---- one sample ----

// Start of the block that translated code is in: fewer stacks that differ than by instruction.
static bool block_of(struct xcpu *x, uint64_t pc, uint64_t *rip) {
    if (!cache_guest_pc(x, pc, rip))
        return false;
    const struct tb *tb = *rip ? cache_find_pc(x->engine, pc) : NULL;
    if (tb)
        *rip = tb->rip;
    return true;
}

// C that translated code has called without leaving it: the block is found by its return address.
static uint64_t calling_block(struct xcpu *x, const uint64_t *host_stack) {
    uint64_t rip;
    for (unsigned i = 0; i < HOST_WORDS; i++)
        if (block_of(x, host_stack[i], &rip) && rip)
            return rip;
    return x->s.rip;
}

static void take_sample(struct xcpu *x, const greg_t *g, unsigned n) {
    struct engine_sample s = {.count = n, .part = x->part, .user = x->cpl == 3, .depth = 1};
    uint64_t sp = x->s.gpr[X86_RSP], pc = (uint64_t)g[REG_RIP];
    if (x->part == PART_IDLE) {
        s.user = false;
        s.depth = 0;
    } else if (block_of(x, pc, &s.rip[0])) {
        s.part = PART_TRANSLATED;
        sp = (uint64_t)g[REG_R15];
        if (!s.rip[0]) // in a trampoline
            s.rip[0] = calling_block(x, (const uint64_t *)g[REG_RSP]);
    } else if (atomic_load_explicit(&x->in_code, memory_order_relaxed) & 1) {
        s.rip[0] = calling_block(x, (const uint64_t *)g[REG_RSP]);
    } else {
        s.rip[0] = x->s.rip;
    }
    if (s.depth && !s.user && x->code_bits == 64)
        guess_callers(x, &s, sp);
    count(x->profile, &s);
}

static void on_tick(int sig, siginfo_t *info, void *ucv) {
    const ucontext_t *uc = ucv;
    if (current)
        take_sample(current, uc->uc_mcontext.gregs, 1 + (unsigned)info->si_overrun);
}

// ---- life ----

int profile_create(struct xcpu *x, unsigned hz, struct error *err) {
    struct sigaction sa = {.sa_sigaction = on_tick, .sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK};
    if (sigaction(SIGPROF, &sa, NULL) < 0)
        return error_set(err, -errno, "install the handler of the profiler");
    void *p = mmap(NULL, sizeof(struct profile), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return error_set(err, -ENOMEM, "allocate the profile of vCPU %u", x->index);
    x->profile = p;
    x->profile->hz = hz;
    return 0;
}

int profile_start_thread(struct xcpu *x, struct error *err) {
    if (!x->profile)
        return 0;
    struct sigevent ev = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGPROF};
    ev._sigev_un._tid = (pid_t)syscall(SYS_gettid);
    long ns = 1000000000 / (long)x->profile->hz;
    struct itimerspec every = {{ns / 1000000000, ns % 1000000000}, {ns / 1000000000, ns % 1000000000}};
    sigset_t set;
    current = x;
    sigemptyset(&set);
    sigaddset(&set, SIGPROF);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    if (timer_create(CLOCK_MONOTONIC, &ev, &x->profile->timer) < 0 ||
        timer_settime(x->profile->timer, 0, &every, NULL) < 0)
        return error_set(err, -errno, "start the profiler's timer of vCPU %u", x->index);
    return 0;
}

void profile_walk(struct engine *e, void (*fn)(void *ctx, const struct engine_sample *), void *ctx) {
    for (unsigned i = 0; i < e->ncpus; i++) {
        const struct profile *p = e->cpus[i] ? e->cpus[i]->profile : NULL;
        for (unsigned s = 0; p && s < SLOTS; s++)
            if (p->slots[s].count)
                fn(ctx, &p->slots[s]);
        if (p && p->lost)
            fn(ctx, &(struct engine_sample){.count = p->lost, .part = PART_LOST});
    }
}

// The timer ends with the process: its thread has ended, so it interrupts nobody.
void profile_destroy(struct xcpu *x) {
    if (x->profile)
        munmap(x->profile, sizeof(*x->profile));
    x->profile = NULL;
}
