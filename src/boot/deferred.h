// SPDX-License-Identifier: Apache-2.0
// A boot image that is needed at a reset only, if ever: a machine that was restored has its kernel in memory. Its files
// are opened in phase "open" and read when they are wanted, after the seal.
#ifndef CICADA_BOOT_DEFERRED_H
#define CICADA_BOOT_DEFERRED_H

#include "boot/boot.h"

struct boot_deferred;

// Opens the files of cfg, which is copied. A file that cannot be opened is told by boot_deferred_open: the machine may
// never ask for it. -ENOMEM.
int boot_defer(const struct boot_config *cfg, struct boot_deferred **d, struct error *err);
// boot_open of these files. Once.
int boot_deferred_open(struct boot_deferred *d, struct boot_image **img, struct error *err);
void boot_deferred_close(struct boot_deferred *d); // NULL is legal

#endif
