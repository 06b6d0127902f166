// SPDX-License-Identifier: Apache-2.0
#ifndef CICADA_XLATE_RUN_H
#define CICADA_XLATE_RUN_H

#include "engine/xlate/xlate.h"

// engine_ops.run of one vCPU (core/engine.h).
void run_vcpu(struct xcpu *x, uint64_t budget, struct vm_exit *exit);

#endif
