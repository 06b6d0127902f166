// SPDX-License-Identifier: Apache-2.0
// Crash handler; see the header. Async-signal-safe throughout: no allocation, no stdio, no locks.
#include "cli/crash.h"

#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/terminal.h"
#include "util/log.h"

static char alternate_stack[65536]; // of the main thread, for a stack overflow there
static volatile sig_atomic_t crashing;

static void put(const char *text) {
    if (write(STDERR_FILENO, text, strlen(text)) < 0)
        return;
}

static void put_number(const char *label, uint64_t v, unsigned base) {
    char buf[24], *p = buf + sizeof(buf);
    *--p = 0;
    do {
        *--p = "0123456789abcdef"[v % base];
        v /= base;
    } while (v);
    put(label);
    put(p);
}

static void describe(int sig, const siginfo_t *info) {
    const char *name = sigabbrev_np(sig);
    put("\ncicada: the VMM itself failed: SIG");
    put(name ? name : "?");
    if (sig == SIGSYS) {
        put_number(", system call ", (uint64_t)info->si_syscall, 10);
        put_number(" is not allowed after the seal, called from 0x", (uint64_t)(uintptr_t)info->si_call_addr, 16);
    } else if (info->si_code > 0 && sig != SIGABRT) {
        put_number(" at address 0x", (uint64_t)(uintptr_t)info->si_addr, 16);
    }
    put("\ncicada: last log lines:\n");
}

static void crash(int sig, siginfo_t *info, void *context) {
    // A crash in here, or in another thread meanwhile, dies without ceremony.
    struct sigaction act = {.sa_handler = SIG_DFL};
    sigaction(sig, &act, NULL);
    if (!crashing) {
        crashing = 1;
        terminal_leave();
        describe(sig, info);
        log_dump_ring(STDERR_FILENO);
    }
    // Blocked in its handler: it strikes when the handler returns, also where the fault would not repeat.
    raise(sig);
}

void crash_install(void) {
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS};
    stack_t stack = {.ss_sp = alternate_stack, .ss_size = sizeof(alternate_stack)};
    struct sigaction act = {.sa_sigaction = crash, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigaltstack(&stack, NULL);
    sigemptyset(&act.sa_mask);
    for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        sigaction(signals[i], &act, NULL);
}
