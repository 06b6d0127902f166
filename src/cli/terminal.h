// SPDX-License-Identifier: Apache-2.0
// The terminal on standard input: raw while a guest owns it, and restored however the process ends (return, exit,
// handled signals, crash handler).
#ifndef CICADA_CLI_TERMINAL_H
#define CICADA_CLI_TERMINAL_H

#include <stdbool.h>

// interactive: standard input is a terminal and we are in its foreground. input: it may be read (a job in the
// background must not: the read would stop it).
void terminal_examine(bool *interactive, bool *input);
void terminal_enter(void);   // raw mode; nothing where standard input is no terminal
void terminal_leave(void);   // async-signal-safe; does nothing when not entered
void terminal_resumed(void); // after SIGCONT: the shell may have changed the modes meanwhile

#endif
