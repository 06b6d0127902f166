// SPDX-License-Identifier: Apache-2.0
// The symbol table that a Linux kernel carries in its own memory (CONFIG_KALLSYMS, kernel/kallsyms.c): names for
// addresses without any file of the guest, and with KASLR already applied. Kernels from about 4.20 on.
#ifndef CICADA_DEBUG_KALLSYMS_H
#define CICADA_DEBUG_KALLSYMS_H

#include "core/mem.h"

#define KALLSYMS_NAME_MAX 512

struct kallsyms;

// Looks for the table in guest memory below 4 GiB. vCPUs stopped until kallsyms_close: nothing is copied.
// -ENOENT where there is none that is understood, -ENOMEM.
int kallsyms_open(struct mem *mem, struct kallsyms **out);
void kallsyms_close(struct kallsyms *k); // NULL is legal

// Name of the last symbol at or before addr, without its type; printable, and without ';' and spaces. False where addr
// lies outside of the kernel's own text and data.
bool kallsyms_name(const struct kallsyms *k, uint64_t addr, char name[KALLSYMS_NAME_MAX]);

#endif
