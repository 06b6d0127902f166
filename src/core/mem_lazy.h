// SPDX-License-Identifier: Apache-2.0
// Guest memory whose pages come when they are used: RAM is registered with userfaultfd(2), and whoever touches a page
// that is not there waits until someone has put it. Restoring through a handler of the user's and post-copy migration
// stand on it.
//
// A page that has come once stays. A userfaultfd of an unprivileged process serves faults of user mode only: a system
// call that meets a missing page fails. So mem_map touches what it hands to the kernel, and an engine whose guest
// faults inside the kernel (KVM) needs the other kind. A thread that waits for a page waits for good where nobody puts
// it; signals are still handled meanwhile.
#ifndef CICADA_CORE_MEM_LAZY_H
#define CICADA_CORE_MEM_LAZY_H

#include "core/mem.h"

// Makes the userfaultfd; phase "open". kernel: faults of the kernel's must be served too. -EPERM or another negative
// errno, with the way out in err.
int mem_lazy_open(struct mem *mem, bool kernel, struct error *err);
// The descriptor, of mem; -1 where there is none. It is not blocking.
int mem_lazy_fd(const struct mem *mem);

// All RAM becomes empty, with nothing in the dirty log, and lazy. Before the vCPUs run.
int mem_lazy_begin_empty(struct mem *mem, struct error *err);
// RAM and ROM become lazy: what they hold stays, what they do not is missing. Before the vCPUs run.
int mem_lazy_begin(struct mem *mem, struct error *err);
// Pages that are there become missing. Before the vCPUs run.
int mem_lazy_drop(struct mem *mem, const struct mem_slot *slot, uint64_t page, uint64_t count);
// All that is missing is zeroes from here on, and nobody waits any more. Any thread; legal twice.
void mem_lazy_end(struct mem *mem);
bool mem_lazy(const struct mem *mem);

// The next fault that waits to be served: 1 with its page, 0 where there is none, or a negative errno. A page may come
// several times.
int mem_lazy_fault(struct mem *mem, const struct mem_slot **slot, uint64_t *page);
// Puts a page, or zeroes into `count` pages, and wakes who waits for them; pages that are there stay as they are. Any
// thread, the guest runs or not.
int mem_lazy_put(struct mem *mem, const struct mem_slot *slot, uint64_t page, const void *data);
int mem_lazy_zero(struct mem *mem, const struct mem_slot *slot, uint64_t page, uint64_t count);

#endif
