// SPDX-License-Identifier: Apache-2.0
// Runs code on the bare CPU, in this process: loads all registers, enters the code with IRETQ (which also gives RFLAGS,
// RSP and the 32-bit code segment), and gets everything back from the context of the signal that ends it.
#include <asm/prctl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "tests/diff/diff.h"

// Layout known to bare_enter.
struct bare_frame {
    uint64_t gpr[16];                    // 0
    uint64_t rip, cs, rflags, rsp, ss;   // 128: what IRETQ pops
    uint64_t fs_base, gs_base;           // 168, 176
    uint64_t host_rsp, host_fs, host_gs; // 184, 192, 200
    uint64_t data_sel;                   // 208
    uint64_t xsave;                      // 216
};
struct bare_frame bare_frame __attribute__((visibility("hidden")));
static volatile bool running;
static struct outcome *result;
static struct sigaction previous[NSIG];

void bare_enter(void);
void bare_leave(void);
__asm__(".text\n"
        "bare_enter:\n"
        "  push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
        "  mov %rsp, bare_frame+184(%rip)\n"
        "  rdfsbase %rax; mov %rax, bare_frame+192(%rip)\n"
        "  rdgsbase %rax; mov %rax, bare_frame+200(%rip)\n"
        "  mov bare_frame+168(%rip), %rax; wrfsbase %rax\n"
        "  mov bare_frame+176(%rip), %rax; wrgsbase %rax\n"
        "  mov bare_frame+208(%rip), %rax; mov %eax, %ds; mov %eax, %es\n"
        "  mov bare_frame+216(%rip), %rcx; mov $7, %eax; xor %edx, %edx; xrstor64 (%rcx)\n"
        "  lea bare_frame+128(%rip), %rsp\n"
        "  lea bare_frame(%rip), %rdi\n"
        "  mov 0(%rdi), %rax; mov 8(%rdi), %rcx; mov 16(%rdi), %rdx; mov 24(%rdi), %rbx\n"
        "  mov 40(%rdi), %rbp; mov 48(%rdi), %rsi\n"
        "  mov 64(%rdi), %r8; mov 72(%rdi), %r9; mov 80(%rdi), %r10; mov 88(%rdi), %r11\n"
        "  mov 96(%rdi), %r12; mov 104(%rdi), %r13; mov 112(%rdi), %r14; mov 120(%rdi), %r15\n"
        "  mov 56(%rdi), %rdi\n"
        "  iretq\n"
        "bare_leave:\n"          // RSP is bare_frame.host_rsp
        "  push $0x202; popfq\n" // Linux keeps NT, with which IRETQ would fault
        "  xor %eax, %eax; mov %eax, %ds; mov %eax, %es\n"
        "  pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
        "  ret\n");

// ---- what the signal's context says ----

#define XSTATE_MAGIC1 0x46505853u // FP_XSTATE_MAGIC1 of Linux's asm/sigcontext.h

static void init_component(uint8_t *a, unsigned c) {
    if (c == 0) {
        memset(a, 0, 24);
        memset(a + 32, 0, 128);
        a[0] = 0x7f;
        a[1] = 0x03;
    } else {
        memset(a + (c == 1 ? 160 : 576), 0, 256);
    }
}

void xsave_canonicalise(uint8_t *area) {
    uint64_t bv;
    memcpy(&bv, area + 512, 8);
    for (unsigned c = 0; c < 3; c++)
        if (!(bv >> c & 1))
            init_component(area, c);
    memset(area + 28, 0, 4);   // MXCSR_MASK
    memset(area + 416, 0, 96); // reserved, and Linux's own
    memset(area + 512, 0, 64);
}

static void take_fp(uint8_t *out, const uint8_t *fp) {
    uint32_t magic;
    memset(out, 0, X86_XSAVE_SIZE);
    memcpy(&magic, fp + 464, 4);
    if (magic == XSTATE_MAGIC1) {
        memcpy(out, fp, X86_XSAVE_SIZE);
    } else { // FXSAVE only
        uint64_t bv = 3;
        memcpy(out, fp, 512);
        memcpy(out + 512, &bv, 8);
    }
    xsave_canonicalise(out);
}

static void take_registers(struct outcome *o, const greg_t *g) {
    static const int order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                  REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
    for (unsigned i = 0; i < 16; i++)
        o->gpr[i] = (uint64_t)g[order[i]];
    o->rip = (uint64_t)g[REG_RIP];
    o->rflags = (uint64_t)g[REG_EFL];
    o->vector = (unsigned)g[REG_TRAPNO];
    o->error = (uint32_t)g[REG_ERR];
    o->cr2 = o->vector == X86_PF ? (uint64_t)g[REG_CR2] : 0;
}

static void previous_handler(int sig, siginfo_t *info, void *ucv) {
    struct sigaction *old = &previous[sig];
    if (old->sa_flags & SA_SIGINFO)
        old->sa_sigaction(sig, info, ucv);
    else
        sigaction(sig, old, NULL);
}

__attribute__((no_stack_protector)) bool bare_interrupted(void) {
    bool was = running;
    if (was)
        __asm__ volatile("wrfsbase %0; wrgsbase %1" ::"r"(bare_frame.host_fs), "r"(bare_frame.host_gs));
    running = false;
    return was;
}

static void on_signal(int sig, siginfo_t *info, void *ucv) {
    ucontext_t *uc = ucv;
    if (!bare_interrupted()) {
        previous_handler(sig, info, ucv);
        return;
    }
    greg_t *g = uc->uc_mcontext.gregs;
    take_registers(result, g);
    take_fp(result->xsave, (const uint8_t *)uc->uc_mcontext.fpregs);
    uc->uc_mcontext.fpregs = NULL; // the kernel gives the initial configuration
    g[REG_RIP] = (greg_t)bare_leave;
    g[REG_RSP] = (greg_t)bare_frame.host_rsp;
    g[REG_EFL] = 0x202;
    g[REG_CSGSFS] = (greg_t)(0x33ull | 0x2bull << 48);
}

// ---- set-up ----

static void alternate_stack(void) {
    static const size_t size = 256 * 1024;
    stack_t st = {.ss_size = size};
    st.ss_sp = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (st.ss_sp == MAP_FAILED || sigaltstack(&st, NULL) < 0)
        exit(1);
}

void bare_init(void) {
    static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};
    struct sigaction sa = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    if (!(getauxval(AT_HWCAP2) & 2)) {
        puts("SKIP: the host's kernel does not let programs set FS and GS base (FSGSBASE)");
        exit(77);
    }
    alternate_stack();
    for (unsigned i = 0; i < sizeof(signals) / sizeof(*signals); i++)
        sigaction(signals[i], &sa, &previous[signals[i]]);
}

void bare_run(const struct input *in, struct outcome *out) {
    struct bare_frame *f = &bare_frame;
    memcpy(f->gpr, in->gpr, sizeof(f->gpr));
    f->rip = in->rip;
    f->cs = in->mode == MODE_32 ? 0x23 : 0x33;
    f->rflags = in->rflags | RFLAGS_FIXED1;
    f->rsp = in->gpr[X86_RSP];
    f->ss = f->data_sel = 0x2b;
    f->fs_base = in->fs_base;
    f->gs_base = in->gs_base;
    f->xsave = (uint64_t)in->xsave;
    out->failure[0] = 0;
    result = out;
    world_reset_data();
    running = true;
    bare_enter();
    memcpy(out->data, world.ram + 0x200000, DATA_BYTES);
}
