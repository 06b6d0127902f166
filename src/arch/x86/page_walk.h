// SPDX-License-Identifier: Apache-2.0
// Page walk from the canonical state, for whoever looks at a stopped guest from outside (debugger, introspection).
// Not for engines: no access rights are checked and no accessed or dirty bit is set. (Intel SDM vol. 3A ch. 4.)
#ifndef CICADA_ARCH_X86_PAGE_WALK_H
#define CICADA_ARCH_X86_PAGE_WALK_H

#include "arch/x86/state.h"
#include "core/mem.h"

// Guest-physical address of a linear address, by the paging that s is in (none, 32-bit, PAE, 4-level; every page size).
// 0, or -EFAULT where nothing is mapped or a table is not in RAM. Any thread; *s does not change meanwhile.
int x86_page_walk(const struct cpu_state *s, struct mem *mem, gva_t lin, gpa_t *gpa);

#endif
