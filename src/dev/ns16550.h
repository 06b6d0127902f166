// SPDX-License-Identifier: Apache-2.0
// 16550A UART (National Semiconductor PC16550D datasheet), with FIFOs and a host byte stream behind it.
#ifndef CICADA_DEV_NS16550_H
#define CICADA_DEV_NS16550_H

#include "backend/chardev.h"
#include "dev/dev.h"

struct ns16550;

// Eight ports from `port`, interrupt on `gsi`. chr (may be NULL: output vanishes) stays the caller's and must
// outlive the machine; the UART becomes its device side.
int ns16550_create(struct dev_env *env, uint16_t port, unsigned gsi, unsigned instance, struct chardev *chr,
                   struct ns16550 **out, struct error *err);

// Input for the guest; any thread. Returns how many bytes were taken; chardev.rx_ready tells when the rest may
// be offered again.
size_t ns16550_receive(struct ns16550 *u, const uint8_t *buf, size_t n);
bool ns16550_can_receive(struct ns16550 *u);
// A break condition on the line (Linux: SysRq); any thread.
void ns16550_receive_break(struct ns16550 *u);

#endif
