// SPDX-License-Identifier: Apache-2.0
// The Linux "zero page" (struct boot_params), shared by bzImage and vmlinux.
#ifndef CICADA_BOOT_LINUX_PARAMS_H
#define CICADA_BOOT_LINUX_PARAMS_H

#include "boot/image.h"

// Puts the initrd, the command line and the zero page (at LAYOUT_PARAMS) beside the kernel already claimed in l.
int linux_params_put(const struct boot_image *img, struct boot_layout *l, const struct boot_machine *bm,
                     struct error *err);

#endif
