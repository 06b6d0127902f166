// SPDX-License-Identifier: Apache-2.0
// Host signals raised by translated code.
#ifndef CICADA_XLATE_HOSTSIG_H
#define CICADA_XLATE_HOSTSIG_H

#include "engine/xlate/xlate.h"

// Installs the handlers once per process; they hand on what is not theirs to those installed before.
int signal_install(struct error *err);
// Names the vCPU that runs on the calling thread.
void signal_set_vcpu(struct xcpu *x);

#endif
