// SPDX-License-Identifier: Apache-2.0
// Writes what an engine has sampled (engine_ops.profile_walk) as folded stacks: one line a stack, outermost frame
// first, frames separated by ';', then a space and a count. flamegraph.pl, inferno and speedscope read it.
#ifndef CICADA_DEBUG_PROFILE_H
#define CICADA_DEBUG_PROFILE_H

#include <stdio.h>

#include "core/machine.h"

#define PROFILE_HZ 997 // no multiple or divisor of the usual ticks

// Writes to out, and one line about the engine's parts to summary. vCPUs stopped. 0, -ENOMEM, or the error of out.
int profile_write(struct machine *m, FILE *out, FILE *summary);

#endif
