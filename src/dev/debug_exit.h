// SPDX-License-Identifier: Apache-2.0
// Debug-exit port for test kernels (--debug-exit): a byte, word or dword V written to 0xf4 ends the machine.
#ifndef CICADA_DEV_DEBUG_EXIT_H
#define CICADA_DEV_DEBUG_EXIT_H

#include "dev/dev.h"

#define DEBUG_EXIT_PORT 0xf4

// V is left in machine.debug_exit, the end is MACHINE_DEBUG_EXIT; the front end makes an exit code of it.
int debug_exit_create(struct dev_env *env, struct error *err);

#endif
