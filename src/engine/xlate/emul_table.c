// SPDX-License-Identifier: Apache-2.0
// Which function implements an instruction: a table by mnemonic, joined once from the tables of the files.
#include "engine/xlate/emul_int.h"

static emul_fn table[ZYDIS_MNEMONIC_MAX_VALUE + 1];

static enum xres emul_undefined(struct xcpu *x, struct insn *in) {
    return ud(x);
}

static void table_add(const struct emul_entry *e, unsigned count) {
    for (unsigned i = 0; i < count; i++)
        if (!table[e[i].mnemonic]) // the first one wins: integer forms know their system variants
            table[e[i].mnemonic] = e[i].fn;
}

void emul_table_init(void) {
#define ADD(name) table_add(name, name##_count)
    ADD(emul_alu_entries);
    ADD(emul_shift_entries);
    ADD(emul_muldiv_entries);
    ADD(emul_bit_entries);
    ADD(emul_bcd_entries);
    ADD(emul_string_entries);
    ADD(emul_flow_entries);
    ADD(emul_move_entries);
    ADD(emul_stack_entries);
    ADD(emul_misc_entries);
    ADD(emul_atomic_entries);
    ADD(emul_fpstate_entries);
    ADD(emul_xsave_entries);
    ADD(emul_x87env_entries);
    ADD(emul_masked_entries);
#undef ADD
    table_add(emul_sys_entries, emul_sys_entry_count);
}

// Instruction sets whose every other instruction may run on the host as it is: they touch only vector, x87 and
// general registers, flags and their explicit memory operand.
static bool native_isa(ZydisISASet isa) {
    switch (isa) {
    case ZYDIS_ISA_SET_X87:
    case ZYDIS_ISA_SET_FCMOV:
    case ZYDIS_ISA_SET_SSE3X87:
    case ZYDIS_ISA_SET_PENTIUMMMX:
    case ZYDIS_ISA_SET_SSE:
    case ZYDIS_ISA_SET_SSEMXCSR:
    case ZYDIS_ISA_SET_SSE2:
    case ZYDIS_ISA_SET_SSE2MMX:
    case ZYDIS_ISA_SET_SSE3:
    case ZYDIS_ISA_SET_SSSE3:
    case ZYDIS_ISA_SET_SSSE3MMX:
    case ZYDIS_ISA_SET_SSE4:
    case ZYDIS_ISA_SET_SSE42:
    case ZYDIS_ISA_SET_SSE4A:
    case ZYDIS_ISA_SET_AES:
    case ZYDIS_ISA_SET_PCLMULQDQ:
    case ZYDIS_ISA_SET_SHA:
    case ZYDIS_ISA_SET_GFNI:
    case ZYDIS_ISA_SET_AVX:
    case ZYDIS_ISA_SET_AVX2:
    case ZYDIS_ISA_SET_AVXAES:
    case ZYDIS_ISA_SET_AVX_GFNI:
    case ZYDIS_ISA_SET_AVX_VNNI:
    case ZYDIS_ISA_SET_VAES:
    case ZYDIS_ISA_SET_VPCLMULQDQ:
    case ZYDIS_ISA_SET_F16C:
    case ZYDIS_ISA_SET_FMA:
    case ZYDIS_ISA_SET_BMI1:
    case ZYDIS_ISA_SET_BMI2:
    case ZYDIS_ISA_SET_ADOX_ADCX: return true;
    default: return false;
    }
}

// x87 instructions that came with the Pentium Pro, whose set holds others.
static bool is_fcomi(ZydisMnemonic m) {
    return m == ZYDIS_MNEMONIC_FCOMI || m == ZYDIS_MNEMONIC_FCOMIP || m == ZYDIS_MNEMONIC_FUCOMI ||
           m == ZYDIS_MNEMONIC_FUCOMIP;
}

emul_fn emul_lookup(const struct insn *in) {
    emul_fn fn = table[in->z.mnemonic];

    if (fn && (in->z.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY || in->z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX))
        return fn;
    if ((native_isa(in->z.meta.isa_set) || is_fcomi(in->z.mnemonic)) &&
        (in->z.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY || in->z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX))
        return emul_native;
    return emul_undefined;
}
