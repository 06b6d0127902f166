// SPDX-License-Identifier: Apache-2.0
// The last resort when the VMM itself fails: say so, show the last log lines, restore the terminal, die of the signal.
#ifndef CICADA_CLI_CRASH_H
#define CICADA_CLI_CRASH_H

// Handles SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT and SIGSYS (a call outside the seal). An engine that
// installs handlers of its own hands on what is not its guest's.
void crash_install(void);

#endif
