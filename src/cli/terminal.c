// SPDX-License-Identifier: Apache-2.0
// Terminal modes; see the header. Output processing stays on (OPOST), so that log lines of ours need no carriage
// return while the guest owns the input.
#include "cli/terminal.h"

#include <signal.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

static struct termios original;
static volatile sig_atomic_t entered;

static bool in_foreground(void) {
    return tcgetpgrp(STDIN_FILENO) == getpgrp();
}

void terminal_examine(bool *interactive, bool *input) {
    bool terminal = isatty(STDIN_FILENO);
    *interactive = terminal && in_foreground();
    *input = !terminal || *interactive;
}

static void set_raw(void) {
    struct termios raw = original;
    raw.c_iflag &= ~(tcflag_t)(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
    raw.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | ISIG | IEXTEN);
    raw.c_cflag &= ~(tcflag_t)(CSIZE | PARENB);
    raw.c_cflag |= CS8;
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
}

void terminal_enter(void) {
    static bool registered;
    if (tcgetattr(STDIN_FILENO, &original) != 0)
        return;
    if (!registered)
        registered = atexit(terminal_leave) == 0;
    entered = 1;
    set_raw();
}

void terminal_leave(void) {
    if (!entered)
        return;
    entered = 0;
    tcsetattr(STDIN_FILENO, TCSANOW, &original); // not TCSADRAIN: a terminal that is stopped must not stop us
}

void terminal_resumed(void) {
    if (entered && in_foreground())
        set_raw();
}
