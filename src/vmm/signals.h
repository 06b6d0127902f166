// SPDX-License-Identifier: Apache-2.0
// Signals that ask the VM to end arrive on the event loop through a signalfd, so they are handled between two
// callbacks and never in the middle of anything.
#ifndef CICADA_VMM_SIGNALS_H
#define CICADA_VMM_SIGNALS_H

#include "core/machine.h"

struct signals {
    int fd;
    struct event_source *src;
    struct machine *machine;
    void (*resumed)(void); // after SIGCONT; may be NULL
};

// Blocks SIGTERM, SIGINT, SIGHUP (unless the caller ignores it: nohup), SIGQUIT and SIGCONT for this thread and all
// later ones, and ignores SIGPIPE. First thing in phase "open".
void signals_block(void);

// From now on such a signal ends the machine with MACHINE_SIGNAL and its number in machine.end_signal.
int signals_watch(struct signals *s, struct machine *m, void (*resumed)(void), struct error *err);
void signals_unwatch(struct signals *s); // loop stopped

#endif
