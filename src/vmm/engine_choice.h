// SPDX-License-Identifier: Apache-2.0
// Which engine executes a VM.
#ifndef CICADA_VMM_ENGINE_CHOICE_H
#define CICADA_VMM_ENGINE_CHOICE_H

#include "arch/x86/cpuid.h"
#include "core/engine.h"
#include "vmm/config.h"

// As --engine says. auto takes KVM where it runs kernel code faster than the translator would, else xlate; the
// measurement is kept in the run directory until the next boot of the host. Logs one line: which, and why.
// Negative errno with err set where the engine asked for cannot be had.
int engine_choose(const struct vm_config *cfg, const struct engine_ops **ops, struct error *err);

// What the configuration says to the engine `ops`. Its strings are the configuration's.
struct engine_options engine_options(const struct vm_config *cfg, const struct engine_ops *ops);

// Cuts the policy down to what the chosen engine gives with these options, and for --cpu movable to what the other one
// gives besides, where this host's processor has hardware virtualization: so that the guest can go on on either.
// -EINVAL where less is left than x86-64-v2 or -v3 promise.
int engine_limit_policy(enum cpu_model model, const struct engine_ops *chosen, const struct engine_options *opt,
                        struct cpuid_policy *policy, struct error *err);

#endif
