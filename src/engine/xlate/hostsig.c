// SPDX-License-Identifier: Apache-2.0
// Host signals that translated code raises: division errors, unmasked floating-point exceptions, alignment faults of
// vector accesses. The handler only moves the guest's registers to where C expects them and makes translated code
// leave; the emulator then executes the instruction again and raises the guest's own exception.
#include "engine/xlate/hostsig.h"

#include <signal.h>
#include <string.h>
#include <ucontext.h>

#include "engine/xlate/cache.h"
#include "engine/xlate/fp.h"
#include "engine/xlate/mmu.h"
#include "engine/xlate/tb.h"

static __thread struct xcpu *current;
static struct sigaction previous[NSIG];

static const int handled[] = {SIGFPE, SIGSEGV, SIGBUS, SIGILL};

// Guest registers that live in host registers, but for those of `others`, where something else is (hoist.c).
static void take_registers(struct xcpu *x, const greg_t *g, uint16_t others) {
    static const uint8_t home[13] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_R15, REG_RBP, REG_RSI,
                                     REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12};
    for (unsigned r = 0; r < ARRAY_LEN(home); r++)
        if (!(others & (1u << r)))
            x->s.gpr[r] = (uint64_t)g[home[r]];
}

// A page fault of the host on guest RAM (a truncated file, no memory) cannot be the guest's: it is left to the default.
static bool is_guest_fault(const greg_t *g) {
    long trap = g[REG_TRAPNO];
    return trap == X86_DE || trap == X86_UD || trap == X86_GP || trap == X86_MF || trap == X86_XM || trap == X86_AC;
}

static bool leave_translated(struct xcpu *x, ucontext_t *uc) {
    greg_t *g = uc->uc_mcontext.gregs;
    uint64_t pc = (uint64_t)g[REG_RIP];
    const struct tb *tb = cache_find_pc(x->engine, pc);
    if (!tb || !is_guest_fault(g))
        return false;
    const struct tb_insn *i = tb_insn_at(tb, pc);
    take_registers(x, g, tb->plan ? tb->plan->taken : 0);
    if (i->flags_in_host)
        x->flags_mem = flags_to_mem((uint64_t)g[REG_EFL]);
    if (x->counting)
        x->budget += tb->ninsns - (i - tb->insns);
    x->s.rip = tb->rip + i->guest_off;
    if (g[REG_TRAPNO] == X86_GP)
        tlb_clear_sites(x); // another vCPU's clearing may have left a site with a good tag and no host
    g[REG_RAX] = 1 + LEAVE_SLOW;
    g[REG_RIP] = (greg_t)cache_tramps(x->engine)->leave;
    return true;
}

static void on_signal(int sig, siginfo_t *info, void *ucv) {
    ucontext_t *uc = ucv;
    if (current && leave_translated(current, uc))
        return;
    if (current && native_handle_sigfpe(current, uc))
        return;
    struct sigaction *old = &previous[sig];
    if (old->sa_flags & SA_SIGINFO) {
        old->sa_sigaction(sig, info, ucv);
    } else if (old->sa_handler != SIG_DFL && old->sa_handler != SIG_IGN) {
        old->sa_handler(sig);
    } else { // default action when the instruction runs again
        sigaction(sig, old, NULL);
    }
}

int signal_install(struct error *err) {
    static bool installed;
    struct sigaction sa;
    if (installed)
        return 0;
    memset(&sa, 0, sizeof(sa));
    sa.sa_sigaction = on_signal;
    sa.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    sigfillset(&sa.sa_mask);
    for (unsigned i = 0; i < ARRAY_LEN(handled); i++)
        if (sigaction(handled[i], &sa, &previous[handled[i]]) < 0)
            return error_set(err, -1, "install the handler of signal %d", handled[i]);
    installed = true;
    return 0;
}

void signal_set_vcpu(struct xcpu *x) {
    current = x;
}
