// SPDX-License-Identifier: Apache-2.0
// Signals as events; see the header. Threads inherit the mask, so none of these is ever delivered elsewhere.
#define LOG_UNIT "signals"
#include "vmm/signals.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "util/log.h"

static bool is_ignored(int sig) {
    struct sigaction act;
    return sigaction(sig, NULL, &act) == 0 && act.sa_handler == SIG_IGN;
}

// SIGINT is taken also where the shell has it ignored for a job in the background: nobody but a person or a script
// that means this VM sends it there.
static void wanted(sigset_t *set) {
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGQUIT);
    sigaddset(set, SIGCONT);
    if (!is_ignored(SIGHUP))
        sigaddset(set, SIGHUP);
}

void signals_block(void) {
    sigset_t set;
    wanted(&set);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static void signal_ready(void *ctx, uint32_t events) {
    struct signals *s = ctx;
    struct signalfd_siginfo info;
    if (read(s->fd, &info, sizeof(info)) != sizeof(info))
        return;
    if (info.ssi_signo == SIGCONT) {
        if (s->resumed)
            s->resumed();
        return;
    }
    log_info("signal %u from PID %u", info.ssi_signo, info.ssi_pid);
    if (!s->machine->end_signal)
        s->machine->end_signal = (int)info.ssi_signo;
    machine_end(s->machine, MACHINE_SIGNAL);
}

int signals_watch(struct signals *s, struct machine *m, void (*resumed)(void), struct error *err) {
    sigset_t set;
    wanted(&set);
    *s = (struct signals){.machine = m, .resumed = resumed};
    s->fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (s->fd < 0)
        return error_set(err, -errno, "watch signals");
    int ret = event_add(m->loop, s->fd, EPOLLIN, signal_ready, s, &s->src);
    if (ret) {
        close(s->fd);
        s->src = NULL;
        return error_set(err, ret, "watch signals");
    }
    return 0;
}

void signals_unwatch(struct signals *s) {
    if (!s->src)
        return;
    event_remove(s->src);
    close(s->fd);
    s->src = NULL;
}
