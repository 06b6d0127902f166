// SPDX-License-Identifier: Apache-2.0
// The registers of struct cpu_state as gdb numbers them, and the target description that tells it so (gdb manual,
// appendix G). One table is the source of both.
#ifndef CICADA_DEBUG_GDB_REGS_H
#define CICADA_DEBUG_GDB_REGS_H

#include "arch/x86/state.h"
#include "debug/gdb_packet.h"

#define GDB_REG_MAX_BYTES 16

// How many there are; with_avx: the upper halves of the YMM registers too.
unsigned gdb_reg_count(bool with_avx);
// Bytes of register n, n below the count.
unsigned gdb_reg_size(unsigned n);
const char *gdb_reg_name(unsigned n);
// In the guest's byte order. A component of the XSAVE area that is in its initial state reads so.
void gdb_reg_get(const struct cpu_state *s, unsigned n, uint8_t *bytes);
// Selectors change what is visible, not the hidden part. Whether a processor can be in the new state is the caller's
// question.
void gdb_reg_set(struct cpu_state *s, unsigned n, const uint8_t *bytes);

// target.xml: returns a string that the caller frees, or NULL when out of memory.
char *gdb_target_xml(bool with_avx);

#endif
