// SPDX-License-Identifier: Apache-2.0
// Names of the exit reasons, for logs and statistics.
#include "core/engine.h"

const char *exit_reason_name(enum exit_reason reason) {
    static const char *const names[EXIT_REASON_COUNT] = {
        [EXIT_NONE] = "NONE",     [EXIT_PIO] = "PIO",   [EXIT_MMIO] = "MMIO",           [EXIT_KICKED] = "KICKED",
        [EXIT_BUDGET] = "BUDGET", [EXIT_HALT] = "HALT", [EXIT_WAIT_SIPI] = "WAIT_SIPI", [EXIT_SHUTDOWN] = "SHUTDOWN",
        [EXIT_DEBUG] = "DEBUG",   [EXIT_FAIL] = "FAIL",
    };

    if ((unsigned)reason >= EXIT_REASON_COUNT || !names[reason])
        return "UNKNOWN";
    return names[reason];
}
