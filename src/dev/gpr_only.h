// SPDX-License-Identifier: Apache-2.0
// Code that runs while the guest's SSE and x87 state is live in the host's registers. A file that is on that
// path puts GPR_ONLY_BEGIN after its includes; everything that follows compiles to general registers only.
// Such code clears and copies arrays through atomics or volatile, so that no memset or memcpy call (which
// would use vector registers in libc) is made out of its loops.
#ifndef CICADA_DEV_GPR_ONLY_H
#define CICADA_DEV_GPR_ONLY_H

#if defined(__x86_64__) && defined(__clang__)
#define GPR_ONLY_BEGIN                                                                                                 \
    _Pragma("clang attribute push(__attribute__((target(\"general-regs-only\"))), apply_to = function)")
#define GPR_ONLY_END _Pragma("clang attribute pop")
#elif defined(__x86_64__)
#define GPR_ONLY_BEGIN                                                                                                 \
    _Pragma("GCC push_options") _Pragma("GCC target(\"general-regs-only\")")                                           \
        _Pragma("GCC optimize(\"no-tree-loop-distribute-patterns\")")
#define GPR_ONLY_END _Pragma("GCC pop_options")
#else
#define GPR_ONLY_BEGIN
#define GPR_ONLY_END
#endif

#endif
