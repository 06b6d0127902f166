// SPDX-License-Identifier: Apache-2.0
// The canonical vCPU state as bytes: snapshots and migration streams, from either engine to either engine.
#ifndef CICADA_ARCH_X86_STATE_IO_H
#define CICADA_ARCH_X86_STATE_IO_H

#include "arch/x86/cpuid.h"
#include "arch/x86/state.h"
#include "core/stateio.h"
#include "util/error.h"

// Of the bytes, not of struct cpu_state. A field that is added goes to the end of the list, with a version of its own.
#define X86_STATE_VERSION 1

// Both take the host's TSC at which the guest stands: written is the guest's own counter, as the distance to a host's
// counter means nothing on another host.
void x86_state_save(const struct cpu_state *s, uint64_t host_tsc, struct state_writer *w);
// r->version says how the bytes are laid out. -EINVAL with the reason in err when they are truncated, of a version not
// known here, or x86_state_check refuses them; *s is then not to be used.
int x86_state_load(struct cpu_state *s, uint64_t host_tsc, const struct cpuid_policy *p, struct state_reader *r,
                   struct error *err);

// Can a processor of this policy be in this state? What no processor could hold (reserved bits, addresses that are not
// canonical, modes that exclude each other) gives -EINVAL with the reason in err. (SDM vol. 3C 26.3.1 lists such
// rules.)
int x86_state_check(const struct cpu_state *s, const struct cpuid_policy *p, struct error *err);

#endif
