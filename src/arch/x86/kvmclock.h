// SPDX-License-Identifier: Apache-2.0
// The paravirtual clock of the KVM interface (Linux Documentation/virt/kvm/x86/msr.rst).
//
// Guest time is a pure function of the guest's TSC without TSC_ADJUST: 0 at TSC 0, and the same line on every vCPU and
// at every update. So the time never steps between vCPUs (the stable bit is true), nothing has to be refreshed while
// the guest runs, and replay and migration get the same values for the same TSC.
#ifndef CICADA_ARCH_X86_KVMCLOCK_H
#define CICADA_ARCH_X86_KVMCLOCK_H

#include "arch/x86/state.h"
#include "core/mem.h"

// ns = ((ticks << shift, or >> -shift) * mul) >> 32, the arithmetic of the guest.
void kvmclock_scale(uint64_t tsc_hz, uint32_t *mul, int8_t *shift);
uint64_t kvmclock_ns(uint64_t tsc_hz, uint64_t ticks);

// Writes the time structure that s->kvmclock_system_time names, when it is enabled: after a write of the MSR, of the
// TSC or of TSC_ADJUST, and after a restore. A bad address is ignored, as KVM does. vCPU thread, or vCPU stopped.
void kvmclock_update(const struct cpu_state *s, struct mem *mem, uint64_t tsc_hz);
// Writes the wall-clock structure at s->kvmclock_wall: the real time at which guest time was 0.
void kvmclock_update_wall(const struct cpu_state *s, struct mem *mem, uint64_t tsc_hz, uint64_t guest_tsc,
                          uint64_t realtime_ns);

#endif
