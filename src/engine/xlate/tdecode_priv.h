// SPDX-License-Identifier: Apache-2.0
// What tdecode.c and tdecode_sys.c share.
#ifndef CICADA_XLATE_TDECODE_PRIV_H
#define CICADA_XLATE_TDECODE_PRIV_H

#include "engine/xlate/tdecode.h"

struct tgpr tdecode_gpr(ZydisRegister r);  // num NOREG: no general register
enum x86_seg tdecode_seg(ZydisRegister r); // DS for what is no segment register

// Makes the instruction a call of a helper. end: the block ends with it. flags: it may read and write arithmetic flags.
void tdecode_helper(struct tinsn *t, enum helper_id id, bool end, bool flags);
// False: not one of these, or not in this mode.
bool tdecode_string(struct tinsn *t, const ZydisDecodedInstruction *z);
bool tdecode_system(struct tdecoder *d, struct tinsn *t, uint32_t mode, const struct cpuid_policy *policy);

#endif
